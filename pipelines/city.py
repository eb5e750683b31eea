"""Make a synthetic city: panoramas, satellite tiles and map tiles of the same places.

    python -m pipelines.city --out city/ --places 400 --seed 0

What is in the folder, and what it is good for: docs/city.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bevgen.commands import PATH
from bevgen.errors import BevgenError, InputError
from bevgen.locking import only_writer
from bevgen.terminal import counted
from pipelines.citymaker.styles import DISTRICTS

DEFAULT_DISTRICTS = "oldtown,downtown,suburb,industrial,park"


def names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command(
    help="Make a synthetic city in a folder, or what is missing of it.\n\nThe same options give the"
    " same files. Stop it with Ctrl-C; the same command goes on."
)
@click.option("--out", "-o", type=PATH, required=True, help="Folder.")
@click.option("--places", default=400, show_default=True, help="Places in all districts together.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another city.")
@click.option(
    "--districts",
    default=DEFAULT_DISTRICTS,
    show_default=True,
    callback=names,
    help=f"For training, validation and test; there are {', '.join(DISTRICTS)}.",
)
@click.option(
    "--cross",
    default="harbour",
    show_default=True,
    callback=names,
    help='Districts for the cross-region test alone; "" for none.',
)
@click.option(
    "--heading",
    type=click.Choice(["north", "random"]),
    default="north",
    show_default=True,
    help="Where the centre column of panoramas looks.",
)
@click.option("--tilt", default=0.0, show_default=True, help="Pitch and roll vary by DEGREES.")
@click.option(
    "--date",
    "dates",
    multiple=True,
    default=["2023-06-04"],
    show_default=True,
    help="Of the panoramas. Further dates repeat the test places: the cross-temporal test.",
)
@click.option("--satellite-date", default="2022-07-12", show_default=True, help="Of the tiles.")
@click.option(
    "--tiles",
    type=click.Choice(["centred", "grid"]),
    default="centred",
    show_default=True,
    help="A tile per place, or a grid that overlaps by half, with semi-positives (VIGOR).",
)
@click.option("--offset", default=0.0, show_default=True, help="Centred, but up to METRES off.")
@click.option("--panorama-width", default=1024, show_default=True, help="Pixels; half as high.")
@click.option("--tile-size", default=384, show_default=True, help="Pixels.")
@click.option("--tile-metres", default=70.0, show_default=True, help="Metres across a tile.")
@click.option("--validation", default=0.1, show_default=True, help="Part of the places.")
@click.option("--test", default=0.25, show_default=True, help="Part of the places.")
@click.option(
    "--raster",
    "rasters",
    default="",
    callback=names,
    help="Districts to draw as maps too, as the satellite sees them.",
)
@click.option(
    "--raster-format",
    "formats",
    default="geotiff",
    show_default=True,
    callback=names,
    help="Of the maps: geotiff, xyz, mbtiles.",
)
@click.option("--drive", default=0, show_default=True, help="Sequences of frames along streets.")
@click.option("--drive-frames", default=40, show_default=True, help="Frames of a sequence.")
@click.option("--drive-step", default=4.0, show_default=True, help="Metres between frames.")
@click.option(
    "--gps-noise", default=0.0, show_default=True, help="METRES by which poses of drives are off."
)
@click.option(
    "--heading-noise", default=0.0, show_default=True, help="DEGREES; truth.csv has the truth."
)
@click.option("--car", is_flag=True, help="Panoramas show the car that carries the camera.")
@click.option(
    "--cap",
    type=click.Choice(["black", "white", "logo", "blur"]),
    help="Panoramas have their nadir covered, as platforms do.",
)
@click.option(
    "--lean",
    default=0.0,
    show_default=True,
    help="Satellites look from up to DEGREES off the vertical.",
)
@click.option(
    "--shift", default=0.0, show_default=True, help="Satellite tiles are off by METRES (deviation)."
)
@click.option("--overhang", is_flag=True, help="Trees hang over the streets.")
@click.option("--wires", is_flag=True, help="Wires run above the streets.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: all cores]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no summary.")
def main(
    out: Path,
    rasters: tuple[str, ...],
    formats: tuple[str, ...],
    workers: int | None,
    quiet: bool,
    **options: object,
) -> None:
    """Make a synthetic city in a folder, or what is missing of it.

    The same options give the same files. Stop it with Ctrl-C; the same command goes on.
    """
    console = Console(stderr=True, quiet=quiet)
    from pipelines.citymaker.dataset import Settings, make_city  # imports numba: late, for --help

    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    try:
        options["cap"] = options["cap"] or ""
        settings = Settings(**options)  # type: ignore[arg-type]
        out.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(out), Progress(*columns, console=console, disable=quiet) as bar:
            task = bar.add_task("planning", total=None)

            def show(done: int, total: int, text: str) -> None:
                bar.update(task, completed=done, total=total, description=text)

            counts = make_city(out, settings, workers=workers, progress=show)
            maps: list[Path] = []
            if rasters:
                from pipelines.citymaker.raster import make_rasters

                maps = make_rasters(out, settings, rasters, formats, workers=workers, progress=show)
    except BevgenError as error:
        console.quiet = False
        console.print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        sys.exit(130)
    seconds = time.monotonic() - start
    console.print(
        f"{out}: {counted(counts['made'], 'picture')} made, {counts['kept']} kept, in"
        f" {seconds:.0f} s; {counted(settings.places, 'place')}, tiles of"
        f" {settings.resolution:.4f} m per pixel",
        highlight=False,
        soft_wrap=True,
    )
    for path in maps:
        console.print(f"map: {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
