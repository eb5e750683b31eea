"""Bird's-eye views of four public panoramas side by side: a picture test of the geometry.

python -m pipelines.hdri_bevs --in tests/data/hdri --out docs/images/hdri-bevs.jpg
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import bevgen
from bevgen.commands import PATH
from bevgen.errors import BevgenError
from bevgen.images.decoding import read_image

# File, camera heights across (nobody knows the heights in metres), and what there is to see.
PICTURES = (
    ("blender_city.png", 6.5, "parking lines are straight"),
    ("npm_workshop.png", 6.5, "walkways cross at right angles"),
    ("npm_hall.png", 5.0, "floor tiles are regular"),
    ("blender_courtyard.png", 6.0, "bricks keep their herringbone"),
)
SIZE = 480
CAPTION = 40


@click.command(help="Draw BEVs of the four public panoramas in a row, with captions.")
@click.option("-i", "--in", "folder", required=True, type=PATH)
@click.option("-o", "--out", required=True, type=PATH)
def main(folder: Path, out: Path) -> None:
    """Project, draw, save."""
    font: Any = ImageFont.load_default(size=22)
    row = Image.new("RGB", (len(PICTURES) * SIZE, SIZE + CAPTION), "white")
    draw = ImageDraw.Draw(row)
    try:
        for i, (name, across, caption) in enumerate(PICTURES):
            panorama, _ = read_image(folder / name)
            bev = bevgen.project(panorama, height=1.0, resolution=across / SIZE, size=SIZE)
            row.paste(Image.fromarray(np.asarray(bev)), (i * SIZE, 0))
            middle = (i * SIZE + SIZE / 2, SIZE + CAPTION / 2)
            draw.text(middle, caption, fill="black", font=font, anchor="mm")
            if i:
                draw.line((i * SIZE, 0, i * SIZE, SIZE), fill="white", width=6)
        row.save(out, quality=88)
    except (BevgenError, OSError) as error:
        raise click.ClickException(str(error)) from error
    print(f"{out}: {row.width} x {row.height} pixels")


if __name__ == "__main__":
    main()
