"""A mosaic on disk: a GeoTIFF in the local UTM zone, written tile by tile, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pyproj import Transformer
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from bevgen.drawing import round_length
from bevgen.errors import InputError
from bevgen.geometry import Pose
from bevgen.georeference import utm_epsg
from bevgen.locking import only_writer
from bevgen.mosaic.composition import REACH, TILE, Canvas, Stand, tiles
from bevgen.mosaic.frames import Sequence
from bevgen.mosaic.pictures import Array
from bevgen.writing import write_errors, written_whole

LARGEST_PICTURE = 4000  # pixels on its longer side
MOST_PIXELS = 2e10  # of a mosaic: GDAL takes half an hour to lay out so many, empty ones too
BANDS = ("red", "green", "blue", "alpha", "uncertainty")


def lay_out(
    sequence: Sequence, placements: Array, gains: Array, resolution: float
) -> tuple[Canvas, list[Stand], int]:
    """Put placements (N, 5) onto the local UTM zone's grid: canvas, stands and EPSG code.

    The grid is turned against true north, and its metres are not quite metres on Earth: both are
    taken from the middle of the sequence.

    Raises
    ------
    InputError
        If the canvas would have more than `MOST_PIXELS`.
    """
    plane = sequence.plane
    epsg = utm_epsg(plane.latitude, plane.longitude)
    to_map = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
    latitude, longitude = plane.to_geographic(placements[:, 0], placements[:, 1])
    east, north = (np.asarray(v) for v in to_map.transform(longitude, latitude))
    # 100 m to the north on Earth, as they lie on the map.
    there = plane.to_geographic([0.0, 0.0], [-50.0, 50.0])
    de, dn = (float(np.diff(v)[0]) for v in to_map.transform(there[1], there[0]))
    turn, scale = float(np.rad2deg(np.arctan2(de, dn))), float(np.hypot(de, dn) / 100)
    reach = REACH * sequence.height * scale
    west = np.floor((east.min() - reach) / resolution) * resolution
    top = np.ceil((north.max() + reach) / resolution) * resolution
    columns = int(np.ceil((east.max() + reach - west) / resolution))
    rows = int(np.ceil((top - north.min() + reach) / resolution))
    if columns * rows > MOST_PIXELS:
        raise InputError(
            f"the mosaic would have {columns:,} x {rows:,} pixels, too many: is a position far from"
            " all others? Correct it, choose a coarser --resolution, or make several mosaics by"
            " naming the files of each"
        )
    canvas = Canvas(float(west), float(top), columns, rows, resolution, turn, scale)
    stands = [
        Stand(float(e), float(n), Pose(sequence.height, *angles), float(gain), frame.view)
        for e, n, angles, gain, frame in zip(
            east, north, placements[:, 2:].tolist(), gains, sequence.frames, strict=True
        )
    ]
    return canvas, stands, epsg


def write_mosaic(
    sequence: Sequence,
    placements: Array,
    gains: Array,
    resolution: float,
    out: Path,
    picture: Path,
    watch: Callable[[str, int, int], None],
) -> tuple[Canvas, float]:
    """Draw a sequence's mosaic as a Cloud Optimized GeoTIFF, and a picture of it.

    Parameters
    ----------
    sequence
        The frames.
    placements : (N, 5)
        Where they stand.
    gains : (N,)
        Factors for their brightness.
    resolution
        Metres per pixel.
    out
        Bands red, green, blue, alpha, and uncertainty in centimetres (one standard deviation, 255
        where nothing is claimed).
    picture
        PNG of at most 4000 pixels a side; what is not claimed is pale.
    watch
        Called with what is done, and how much of it of how much.

    Returns
    -------
    canvas
        What was drawn on.
    claimed
        Square metres that the mosaic claims to know.
    """
    canvas, stands, epsg = lay_out(sequence, placements, gains, resolution)
    shrink = max(int(np.ceil(max(canvas.rows, canvas.columns) / LARGEST_PICTURE)), 1)
    small = np.full((canvas.rows // shrink + 1, canvas.columns // shrink + 1, 3), 255, np.uint8)
    claimed, drawn = 0, set()
    transform = Affine(resolution, 0, canvas.west, 0, -resolution, canvas.north)
    part = out.with_name(f".{out.name}.part")  # of one name, so that none is left for long
    with only_writer(out), write_errors(out), written_whole(picture) as look:
        try:
            with rasterio.open(
                part, "w", driver="GTiff", count=5, height=canvas.rows, width=canvas.columns,
                dtype="uint8", crs=f"EPSG:{epsg}", transform=transform, tiled=True, blockxsize=512,
                blockysize=512, compress="deflate", interleave="band", sparse_ok=True,
                bigtiff="if_safer",
            ) as file:  # fmt: skip
                rgb = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
                file.colorinterp = [*rgb, ColorInterp.alpha, ColorInterp.undefined]
                file.descriptions = (*BANDS[:4], "uncertainty, cm")
                for tile in tiles(canvas, stands, sequence.reader(), watch):
                    bands = np.moveaxis(
                        np.dstack([tile.colours, tile.alpha, tile.uncertainty]), -1, 0
                    )
                    window = Window(tile.column, tile.row, *bands.shape[:0:-1])  # type: ignore[arg-type]
                    file.write(bands, window=window)
                    drawn.add((tile.row, tile.column))
                    claimed += int((tile.alpha > 0).sum())
                    _shrink_into(small, tile.colours, tile.alpha, tile.row, tile.column, shrink)
                _fill_unknown(file, drawn)
            watch("writing", 0, 1)
            _with_scale(small, resolution * shrink / canvas.scale).save(look, format="PNG")
            with written_whole(out) as whole:
                rasterio.shutil.copy(
                    part,
                    whole,
                    driver="COG",
                    compress="deflate",
                    predictor="yes",
                    bigtiff="if_safer",
                )
        finally:
            part.unlink(missing_ok=True)
    return canvas, claimed * (resolution / canvas.scale) ** 2


def _fill_unknown(file: DatasetWriter, drawn: set[tuple[int, int]]) -> None:
    """Say of tiles that no camera shows that their uncertainty is unknown; no blocks read as 0."""
    for row in range(0, file.height, TILE):
        for column in range(0, file.width, TILE):
            if (row, column) not in drawn:
                shape = (min(TILE, file.height - row), min(TILE, file.width - column))
                window = Window(column, row, shape[1], shape[0])  # type: ignore[arg-type]
                file.write(np.full(shape, 255, np.uint8), 5, window=window)


def _shrink_into(
    small: NDArray[np.uint8],
    colours: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    row: int,
    column: int,
    shrink: int,
) -> None:
    """Put a tile into the picture, pale where nothing is claimed."""
    pale = np.where(alpha[..., None] > 0, colours, 255 - (255 - colours) // 2).astype(np.uint8)
    top, left = row // shrink, column // shrink
    size = (-(-colours.shape[1] // shrink), -(-colours.shape[0] // shrink))
    if shrink > 1:
        pale = np.asarray(cv2.resize(pale, size, interpolation=cv2.INTER_AREA), np.uint8)
    part = small[top : top + size[1], left : left + size[0]]
    part[:] = pale[: part.shape[0], : part.shape[1]]


def _with_scale(mosaic: NDArray[np.uint8], resolution: float) -> Image.Image:
    """Draw a scale bar and an arrow to the north into the lower right corner."""
    image = Image.fromarray(mosaic)
    draw = ImageDraw.Draw(image)
    unit = max(image.width // 60, 8)
    right, bottom = image.width - unit, image.height - unit
    metres = round_length(12 * unit * resolution)
    bar = metres / resolution
    draw.rectangle((right - bar - 5 * unit, bottom - 4 * unit, right, bottom), fill="white")
    base = bottom - unit
    draw.rectangle((right - bar - unit, base - unit / 2, right - unit, base), fill="black")
    font: Any = ImageFont.load_default(size=1.4 * unit)
    middle = right - unit - bar / 2
    draw.text((middle, base - unit), f"{metres:g} m", fill="black", font=font, anchor="ms")
    north = right - bar - 3 * unit
    draw.polygon(
        [(north, base - 2.6 * unit), (north - 0.7 * unit, base), (north + 0.7 * unit, base)],
        fill="black",
    )
    draw.text((north, base - 0.1 * unit), "N", fill="white", font=font, anchor="ms")
    return image
