"""`bevgen mask`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED
from bevgen.terminal import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bevgen.calibration.rig import Hidden

EPILOG = """Exit code 1 if nothing was found: no mask is written then. Takes seconds, and so starts
again from the beginning if it is interrupted."""


@click.command("mask", help=COMMANDS["mask"], epilog=EPILOG)
@options.input_folder("panoramas of one camera (JPEG, PNG, WebP, TIFF), whole spheres")
@options.output("The mask to write, .png: black where car or cap hide the street.")
@options.list_file
@click.option(
    "--sample", type=click.IntRange(1), default=24, show_default=True, metavar="N",
    help="Look at so many frames, evenly over the sequence.",
)  # fmt: skip
@options.overwrite
@options.as_json
def command(
    root: Path, out: Path, list_file: Path | None, sample: int, overwrite: bool, as_json: bool
) -> int:
    """Find the camera's car and caps over the nadir, which hide the street."""
    from bevgen.calibration.rig import FEWEST, find_hidden
    from bevgen.cli.progress import progress_bar
    from bevgen.errors import BevgenError
    from bevgen.images.finding import find_images
    from bevgen.images.mask import write_mask

    _check_output(out, overwrite)
    sources = [source for source, _ in find_images(root, list_file)]
    chosen = [sources[k * len(sources) // sample] for k in range(sample)]
    chosen = list(dict.fromkeys(chosen)) if len(sources) > sample else sources
    with progress_bar("reading") as on_progress:
        frames, shape = _read(root, chosen, on_progress)
    if not frames:
        raise BevgenError("none of the frames could be used")
    found = find_hidden(frames, shape)
    lines = _say(found)
    if found.frames < FEWEST:
        lines.append(
            f"{counted(found.frames, 'frame')}: only caps were looked for; a car is"
            f" found in {FEWEST} frames and more of different places, better in 8"
        )
    nothing = found.use.all()
    if not nothing:
        write_mask(out, found.use)
        lines.append(f"{out}: {shape[1]} x {shape[0]} pixels; use it by --mask {out}")
    if as_json:
        click.echo(json.dumps(_result(found, out), indent=2))
    else:
        click.echo("\n".join(lines))
    if nothing:
        click.echo("Error: neither car nor cap was found: no mask was written", err=True)
        return EXIT_FAILED
    return 0


def _check_output(out: Path, overwrite: bool) -> None:
    """Refuse before any work what would fail or destroy."""
    from bevgen.errors import InputError
    from bevgen.writing import check_output

    if out.suffix.lower() != ".png":
        raise InputError(f"{out} must end in .png")
    check_output(out, overwrite=overwrite)


def _read(
    root: Path, sources: list[str], on_progress: Callable[[int, int], None]
) -> tuple[list[NDArray[np.uint8]], tuple[int, int]]:
    """Read frames, shrunk, and the shape that most of them have; the others are skipped."""
    from bevgen.calibration.rig import shrunk
    from bevgen.errors import PanoramaError
    from bevgen.images.decoding import read_image

    frames: list[tuple[tuple[int, int], NDArray[np.uint8]]] = []
    for k, source in enumerate(sources):
        try:
            image, _ = read_image(root / source)
            shape = (image.shape[0], image.shape[1])
            if abs(shape[1] / shape[0] - 2) > 0.02:
                raise PanoramaError(f"{shape[1]} x {shape[0]} pixels are not a whole sphere, 2:1")
            frames.append((shape, shrunk(image)))
        except PanoramaError as error:
            click.echo(f"skipped: {source}: {error}", err=True)
        on_progress(k + 1, len(sources))
    if not frames:
        return [], (0, 0)
    (shape, count), *_ = Counter(shape for shape, _ in frames).most_common(1)
    if count < len(frames):
        click.echo(
            f"skipped: {len(frames) - count} of {counted(len(frames), 'frame')}, not of"
            f" {shape[1]} x {shape[0]} pixels as most are: a mask is for one camera",
            err=True,
        )
    return [frame for own, frame in frames if own == shape], shape


def _say(found: Hidden) -> list[str]:
    """Say what was found."""
    lines = []
    if found.rig:
        lines.append(
            f"car, rider or mount: {found.rig:.1%} of the panorama, still in {found.frames} frames"
        )
    if found.cap:
        lines.append(
            f"cap: {found.cap:.1%} of the panorama, up to {found.cap_degrees:.1f} degrees from the"
            " nadir"
        )
    return lines


def _result(found: Hidden, out: Path) -> dict[str, object]:
    return {
        "out": None if found.use.all() else str(out),
        "frames": found.frames,
        "hidden": float((~found.use).mean()),
        "rig": found.rig,
        "cap": found.cap,
        "cap_degrees": found.cap_degrees,
    }
