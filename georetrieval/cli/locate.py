"""`georetrieval locate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bevgen.commands import EXIT_FAILED, importing
from bevgen.terminal import print_table
from georetrieval.cli import COMMANDS, EXIT_NOT_FOUND, options

if TYPE_CHECKING:
    from georetrieval.localization import Location

FORMATS = ("table", "json", "csv", "geojson")


class _Heading(click.ParamType):
    """Degrees, or the word unknown."""

    name = "DEG|unknown"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Read ``73.5`` or ``unknown``."""
        if value == "unknown":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither degrees nor the word unknown", param, ctx)


@click.command("locate", help=COMMANDS["locate"])
@click.argument("photos", nargs=-1, required=True, type=options.PATH, metavar="PHOTO...")
@click.option(
    "--index", "where", type=options.PATH, required=True, metavar="INDEX", help="Where to look."
)
@options.index_run
@click.option(
    "--poses",
    type=options.PATH,
    metavar="CSV",
    help="What is known of the photos, as for `bevgen convert`; overrides their metadata.",
)
@click.option(
    "--heading",
    type=_Heading(),
    metavar="DEG|unknown",
    help="Of all photos' centre columns.  [default: from each file, searched for where unknown]",
)
@click.option(
    "--within",
    type=click.FloatRange(0, 180, min_open=True),
    metavar="DEGREES",
    help="The heading is only roughly known: search so far on both sides.",
)
@click.option("--height", type=float, metavar="METRES", help="Of the camera above the ground.")
@click.option(
    "--near",
    type=(float, float, float),
    metavar="LAT LON METRES",
    help="Search only tiles within a circle.",
)
@click.option(
    "--no-align",
    is_flag=True,
    help="Leave the order to the encoders: lay no BEV over the tiles that they find.",
)
@click.option(
    "--track",
    "as_track",
    is_flag=True,
    help="The photos are frames of one drive, with dates and times: locate them together.",
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Places to return."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True,
    help="What to print.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=options.PATH, metavar="FILE", help="Write there instead of printing."
)
@options.device
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    photos: tuple[Path, ...],
    where: Path,
    run: Path | None,
    poses: Path | None,
    heading: float | str | None,
    within: float | None,
    height: float | None,
    near: tuple[float, float, float] | None,
    no_align: bool,
    as_track: bool,
    top: int,
    form: str,
    out: Path | None,
    device: str,
    quiet: bool,
) -> int:
    """Find where panoramas were taken."""
    with importing():
        from rich.console import Console
        from rich.progress import Progress

        from bevgen.writing import check_output, written_whole
        from georetrieval.errors import SettingsError
        from georetrieval.localization import Location, Locator, Prior, find_photos, locate_drive
        from georetrieval.localization.formats import as_csv, as_geojson, as_json, as_table
        from georetrieval.training.processes import join_processes

    if out is not None:
        if form == "table":
            raise SettingsError("--out takes a file in --format json, csv or geojson")
        check_output(out, overwrite=True, reads=(*photos, poses))
    prior = Prior("file" if heading is None else heading, within, near)
    asked = list(find_photos(photos, poses, height))
    ways: dict[str, Any] = {"alignment": None} if no_align else {}
    locator = Locator(where, run=run, device=join_processes(device).device, **ways)
    if near is not None and not locator.index.near(*near).any():
        place = f"latitude {near[0]:g}, longitude {near[1]:g}"
        click.echo(f"no tile of {where} lies within {near[2]:g} m of {place}", err=True)
    found: list[Location] = []
    silent = quiet or len(asked) == 1 or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=silent) as progress:
        task = progress.add_task("locating", total=len(asked))

        def shown(done: float) -> None:
            progress.update(task, completed=done)

        if as_track:
            answers = locate_drive(locator, asked, prior=prior, top=top, on_progress=shown)
        else:
            answers = locator.locate_many(asked, prior=prior, top=top)
        for done, answer in enumerate(answers, 1):
            shown(done)
            if isinstance(answer, Location):
                found.append(answer)
            else:
                click.echo(f"skipped {answer[0]}: {answer[1]}", err=True)
    if form == "table":
        if found:
            print_table(*as_table(found))
    else:
        write = {"json": as_json, "csv": as_csv, "geojson": as_geojson}
        text = write[form](found).rstrip("\n") + "\n"
        if out is None:
            click.echo(text, nl=False)
        else:
            with written_whole(out) as part:
                part.write_text(text, "utf-8", errors="backslashreplace")  # as on stdout
    missed = sum(one.found is False or not one.candidates for one in found)
    if missed:
        click.echo(f"{missed} of {len(asked)} not found", err=True)
    if not found:
        return EXIT_FAILED
    return EXIT_NOT_FOUND if missed or len(found) < len(asked) else 0
