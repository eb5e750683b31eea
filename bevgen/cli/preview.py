"""`bevgen preview`."""

from __future__ import annotations

from pathlib import Path

import click

from bevgen.cli import COMMANDS, options

ENDINGS = (".png", ".jpg", ".jpeg")


@click.command("preview", help=COMMANDS["preview"])
@click.option(
    "-i", "--in", "path", type=options.PATH, required=True, metavar="PANORAMA",
    help="One panorama (JPEG, PNG, WebP, TIFF).",
)  # fmt: skip
@options.output("The picture to write, .png or .jpg.")
@options.geometry
@options.poses
@options.overwrite
def command(
    path: Path,
    out: Path,
    bev: options.BevOptions,
    poses: Path | None,
    overwrite: bool,
) -> None:
    """Draw one panorama, its bird's-eye view and mask, to check the settings."""
    from bevgen.conversion.products import check_angles
    from bevgen.errors import PanoramaError
    from bevgen.images.metadata import NOTHING
    from bevgen.preview import ROLL_SEEN, own_info, preview
    from bevgen.writing import write_picture

    _check_output(path, out, overwrite)
    settings = bev.settings()
    own = own_info(path, poses) if poses is not None else NOTHING
    check_angles(settings, own)
    try:
        sheet, captions = preview(path, settings, own, bev.origins())
    except PanoramaError as error:
        raise PanoramaError(f"{path}: {error}") from error
    write_picture(sheet, out)
    for caption in captions:
        click.echo(f"{caption.name:18} {caption.value:24} {caption.origin}")
    click.echo(f"{out}: {sheet.width} x {sheet.height} pixels")
    if any(caption.name == ROLL_SEEN for caption in captions):
        click.echo(
            "the roll in the metadata fits the picture better the other way round: turn it by"
            " --roll-sign, and see bevgen level",
            err=True,
        )


def _check_output(path: Path, out: Path, overwrite: bool) -> None:
    """Refuse before any work what would fail or destroy."""
    from bevgen.errors import InputError
    from bevgen.writing import check_output

    if path.is_dir():
        raise InputError(f"{path} is a folder: name one panorama in it")
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"{out} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    check_output(out, overwrite=overwrite, reads=(path,))
