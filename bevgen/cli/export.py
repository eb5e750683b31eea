"""`bevgen export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED

if TYPE_CHECKING:
    from bevgen.export import Format, Layout


@click.command("export", help=COMMANDS["export"])
@options.shard_file
@click.option("-o", "--out", type=options.PATH, metavar="FOLDER", help="Folder to write to.")
@click.option(
    "--format",
    "ending",
    type=click.Choice(["png", "jpg", "geotiff"]),
    help="png is lossless; jpg is quality 95, 4:4:4; geotiff is a Cloud Optimized GeoTIFF in the"
    " local UTM zone, with alpha.  [default: png; jpg for ep-bev]",
)
@click.option(
    "--layout",
    type=click.Choice(["ids", "ep-bev"]),
    default="ids",
    show_default=True,
    help="ids: ID.png, with sub-folders where ids have them. ep-bev: JPEG files in one folder, as"
    " the published loaders expect them: with the panorama's own name where that ends in .jpg or"
    " .jpeg, else with .jpg in place of its ending; where several folders of panoramas share names,"
    " as ANU_data_small and ANU_data_test of CVACT do, in a folder bev beside each of these.",
)
@click.option(
    "--footprints",
    type=options.PATH,
    metavar="GEOJSON",
    help="Write the squares of ground that the BEVs show to this file; --out may be left out then.",
)
@options.overwrite
def command(
    path: Path,
    out: Path | None,
    ending: Format | None,
    layout: Layout,
    footprints: Path | None,
    overwrite: bool,
) -> int:
    """Write the images of a shard file as image files, or where they lie."""
    from bevgen import export as library
    from bevgen.cli.progress import progress_bar
    from bevgen.shards import ShardSet
    from bevgen.terminal import counted
    from bevgen.writing import check_output, written_whole

    if out is None and footprints is None:
        raise click.UsageError("nothing to write: add --out FOLDER, --footprints GEOJSON or both")
    if layout == "ep-bev" and ending in ("png", "geotiff"):
        raise click.UsageError(f"--layout ep-bev writes JPEG files: leave out --format {ending}")
    ending = ending or ("jpg" if layout == "ep-bev" else "png")
    if footprints:
        check_output(footprints, overwrite=overwrite)
    skipped: list[tuple[str, str]] = []
    counts = []
    with ShardSet(path) as shards, progress_bar("exporting") as on_progress:
        total = len(shards)
        if out:
            report = library.export_images(
                shards, out, format=ending, layout=layout, overwrite=overwrite,
                on_progress=on_progress,
            )  # fmt: skip
            skipped += report.skipped
            counts.append(report.files)
            kept = f", {report.kept:,} of them there already" if report.kept else ""
            click.echo(f"{out}: {counted(report.files, 'image')}{kept}")
        if footprints:
            collection, without = library.footprints(shards)
            skipped += without
            counts.append(len(collection["features"]))
            text = json.dumps(collection, indent=1, ensure_ascii=False) + "\n"
            with written_whole(footprints) as part:
                part.write_text(text, "utf-8")
            click.echo(f"{footprints}: {counted(counts[-1], 'footprint')}")
    for label, reason in dict.fromkeys(skipped):
        click.echo(f"skipped: {label}: {reason}", err=True)
    return EXIT_FAILED if total and not max(counts) else 0
