"""`bevgen calibrate`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bevgen.cli import COMMANDS, EXIT_FAILED, options

if TYPE_CHECKING:
    from bevgen.calibration import Calibration, ImageHeading, PairFiles, View
    from bevgen.cli.calibration_report import Loaded
    from bevgen.images.metadata import PanoramaInfo

HEIGHTS = (0.5, 8.0)  # metres that are tried
PARTS = (200, 6)  # parts of the tile's side that are tried where metres are not known
SQUARE = 0.02  # part by which pixels may differ from square unless it was meant
EPILOG = "Exit code 1 if nothing was found; the picture is drawn all the same."


@click.command("calibrate", help=COMMANDS["calibrate"], epilog=EPILOG)
@options.input_folder("panoramas (JPEG, PNG, WebP, TIFF)")
@click.option(
    "--reference",
    type=options.FILE,
    required=True,
    metavar="FOLDER",
    help="Folder of satellite tiles, north up, all of one size and scale.",
)
@options.output("The picture to write, .png or .jpg.")
@click.option(
    "--pairs",
    "pairs_file",
    type=options.FILE,
    metavar="CSV",
    help="Columns query, reference and any of role, d_row, d_col, split (the camera is d_row pixels"
    " below and d_col left of the tile's centre).  [default: equal ids pair, camera in the centre]",
)
@click.option(
    "--resolution",
    type=float,
    metavar="METRES",
    help="Metres per pixel of the tiles.  [default: unknown, the height comes in pixels of the"
    " tile]",
)
@click.option(
    "--poses",
    type=options.FILE,
    metavar="CSV",
    help="What is known of the panoramas: file and any of id, heading, pitch, roll.",
)
@click.option(
    "--sample",
    type=click.IntRange(8),
    default=50,
    show_default=True,
    metavar="N",
    help="Compare so many pairs; each takes about 2 MB of memory.",
)
@click.option(
    "--heading",
    "mode",
    type=click.Choice(["known", "common", "per-image"]),
    default="common",
    show_default=True,
    help="known: right as they are. common: all off by one angle, to be found. per-image: not"
    " known of any.",
)
@click.option(
    "--vertical-fov",
    type=(float, float),
    metavar="TOP BOTTOM",
    help="Elevations of the panoramas' upper and lower edge, degrees.  [default: from each file]",
)
@click.option(
    "--horizon",
    is_flag=True,
    help="Find the row of the horizon, too: up to 14 degrees from where the vertical field has it.",
)
@click.option(
    "--write-poses",
    "poses_out",
    type=options.FILE,
    metavar="CSV",
    help="Write the headings of all pairs, not only of the sample, for bevgen convert --poses.",
)
@options.mask
@options.overwrite
@options.as_json
def command(
    root: Path,
    reference: Path,
    out: Path,
    pairs_file: Path | None,
    resolution: float | None,
    poses: Path | None,
    sample: int,
    mode: str,
    vertical_fov: tuple[float, float] | None,
    horizon: bool,
    poses_out: Path | None,
    mask: Any,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find camera height, heading and horizon by laying panoramas over satellite tiles."""
    from bevgen.calibration import Heading, calibrate, choose, find_heading, find_pairs
    from bevgen.cli.calibration_report import collect, draw, say, write_poses
    from bevgen.cli.progress import progress_bar

    _check(out, poses_out, overwrite, mode, resolution)
    _check_kept((poses, pairs_file), poses_out)
    pairs = find_pairs(root, reference, pairs_file=pairs_file, poses=poses)
    lens: dict[str, Any] = {"vertical_fov": vertical_fov, "centred": horizon, "mask": mask}
    with progress_bar("reading") as on_progress:
        loaded, skipped = _load(choose(pairs, sample), mode, lens, on_progress)
    _check_sizes(loaded, horizon)
    views = [one.view for one in loaded]
    heading: Heading = mode  # type: ignore[assignment]
    with progress_bar("comparing") as on_progress:
        found = calibrate(
            views, ratios=_ratios(views, resolution), heading=heading, horizon=horizon,
            on_progress=on_progress,
        )  # fmt: skip
    doubts = _doubts(found, loaded, vertical_fov)
    if doubts:
        found = replace(found, verdict="weak")
    headings = [find_heading(view, found) for view in views] if mode == "per-image" else []
    result = collect(found, loaded, skipped, resolution, mode, headings, vertical_fov, doubts)
    lines = say(found, result)
    draw(found, loaded, headings, lines).save(out)
    if found.verdict != "not found":
        if poses_out is not None:
            seek = _seek(found, loaded, headings, lens) if mode == "per-image" else None
            written = write_poses(poses_out, pairs, found, seek, result["known_headings"])
            lines.append(f"{poses_out}: headings of {written:,} of {len(pairs):,} panoramas")
            if written < len(pairs):
                lines.append(
                    "to convert, leave out the others (--list), or they are drawn by what their"
                    " files say, or as if they looked north"
                )
        lines += _next_steps(root, poses, poses_out, mode, found, result)
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(lines))
    if found.verdict == "not found":
        click.echo(
            f"Error: panoramas agree with their own tiles no better than with others, see {out};"
            " do they belong together, and is the camera where the tile's centre (or --pairs) has"
            f" it? Try {'--heading per-image, or ' if mode != 'per-image' else ''}a larger"
            " --sample",
            err=True,
        )
        return EXIT_FAILED
    return 0


def _next_steps(
    root: Path,
    poses: Path | None,
    poses_out: Path | None,
    mode: str,
    found: Calibration,
    result: dict[str, Any],
) -> list[str]:
    """Say the command to go on with, and what it lacks."""
    from bevgen.cli.calibration_report import offset_of

    lines = []
    words = ["bevgen", "convert", "--in", str(root), "--out", "bev.h5", *result["options"]]
    if poses_out is not None or (poses is not None and mode != "per-image"):
        words += ["--poses", str(poses_out or poses)]
        if poses_out is None and result["known_heights"]:
            lines.append(
                f"to convert, take the column height out of {poses}: it goes before --height"
            )
    elif mode == "per-image":
        lines.append("to convert, write the headings: add --write-poses poses.csv")
    if poses_out is None and result["known_headings"] and abs(offset_of(found)) >= 0.5:
        lines.append("to convert, add the offset to each heading: --write-poses poses.csv does")
    return [*lines, shlex.join(words)]


def _doubts(
    found: Calibration, loaded: list[Loaded], vertical_fov: tuple[float, float] | None
) -> list[str]:
    """Say what speaks against the vertical field, on which the height depends."""
    if found.verdict == "not found":
        return []
    doubts = []
    rows, columns = loaded[0].shape
    lens = loaded[0].view.lens
    top, bottom = lens.vertical_fov
    (left, right) = lens.horizontal_fov
    error = found.horizon_error
    if error is not None and found.horizon_is_off:
        off = abs(error.value) * rows / (top - bottom)
        advice = "add --horizon" if _is_cut(lens.vertical_fov) else "are they whole panoramas?"
        doubts.append(
            "near and far ground disagree on the height: the horizon seems to lie"
            f" {off:.1f} rows {'higher' if error.value > 0 else 'lower'} in the images than the"
            f" vertical field {top:g} {bottom:g} has it, and the height is wrong with it; {advice}"
        )
    stretch = (top - bottom) / rows / ((right - left) / columns) - 1
    if vertical_fov is not None and _is_cut(vertical_fov) and abs(stretch) > SQUARE:
        doubts.append(
            f"by --vertical-fov, pixels are {abs(stretch):.1%} "
            f"{'taller' if stretch > 0 else 'less tall'} than wide: unless the images were"
            " stretched so, it is wrong, and the height by as much; leave it out and add --horizon,"
            " which takes pixels to be square"
        )
    return doubts


def _is_cut(vertical_fov: tuple[float, float]) -> bool:
    """Whether panoramas are cut above and below, so that the horizon may be in any row."""
    return all(abs(end) != 90 for end in vertical_fov)


def _seek(
    found: Calibration, loaded: list[Loaded], headings: list[ImageHeading], lens: dict[str, Any]
) -> Callable[[PairFiles], tuple[ImageHeading, PanoramaInfo]]:
    """Find headings of single images; those of the sample are there already."""
    from bevgen.calibration import find_heading, load_view

    sample = {one.pair.id: (own, one.known) for one, own in zip(loaded, headings, strict=True)}

    def seek(pair: PairFiles) -> tuple[ImageHeading, PanoramaInfo]:
        if pair.id in sample:
            return sample[pair.id]
        view, known, _ = load_view(pair, **lens)
        return find_heading(_unturned(view, "per-image"), found), known

    return seek


def _check(
    out: Path, poses_out: Path | None, overwrite: bool, mode: str, resolution: float | None
) -> None:
    """Refuse before any work what would fail or destroy."""
    from bevgen.errors import InputError, RefusedError
    from bevgen.geometry import BevGrid

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{out} must end in .png, .jpg or .jpeg")
    if resolution is not None:
        BevGrid(resolution=resolution)
    if poses_out is not None and mode == "known":
        raise InputError("--write-poses writes headings that were found: leave out --heading known")
    for path in (out, poses_out):
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise RefusedError(f"the folder of {path} does not exist: create it first")
        if path.is_dir():
            raise RefusedError(f"{path} is a folder: name a file")
        if path.exists() and not overwrite:
            raise RefusedError(f"{path} exists: name another output, or add --overwrite")


def _check_kept(sources: tuple[Path | None, ...], poses_out: Path | None) -> None:
    """Refuse to write over a table that is read: rows and columns would be lost."""
    from bevgen.errors import RefusedError

    if poses_out is None or not poses_out.exists():
        return
    for source in sources:
        if source is not None and source.exists() and poses_out.samefile(source):
            raise RefusedError(f"{poses_out} is read: name another file with --write-poses")


def _load(
    pairs: list[PairFiles], mode: str, lens: dict[str, Any], on_progress: Any
) -> tuple[list[Loaded], list[str]]:
    """Read a sample; files that cannot be used are set aside with a reason."""
    from bevgen.calibration import load_view
    from bevgen.cli.calibration_report import Loaded
    from bevgen.errors import PanoramaError

    loaded: list[Loaded] = []
    skipped: list[str] = []
    for i, pair in enumerate(pairs):
        try:
            view, known, shape = load_view(pair, **lens)
            loaded.append(Loaded(pair, _unturned(view, mode), known, shape))
        except PanoramaError as error:
            skipped.append(str(error))
            click.echo(f"set aside: {error}", err=True)
        on_progress(i + 1, len(pairs))
    return loaded, skipped


def _unturned(view: View, mode: str) -> View:
    """Forget the heading where each image shall have its own."""
    return view if mode != "per-image" else replace(view, pose=replace(view.pose, heading=0.0))


def _check_sizes(loaded: list[Loaded], horizon: bool) -> None:
    """Refuse tiles of several sizes, whose scales would differ, and a horizon that is known."""
    from bevgen.errors import InputError

    for one in loaded[1:]:
        first = loaded[0]
        if one.view.tile.shape != first.view.tile.shape:
            (h, w), (h2, w2) = first.view.tile.shape, one.view.tile.shape
            raise InputError(
                f"tiles must be of one size and scale: {first.pair.tile} is {w} x {h} pixels,"
                f" {one.pair.tile} {w2} x {h2}"
            )
        if horizon and one.shape != first.shape:
            (h, w), (h2, w2) = first.shape, one.shape
            raise InputError(
                f"--horizon needs panoramas of one size: {first.pair.panorama} is {w} x {h} pixels,"
                f" {one.pair.panorama} {w2} x {h2}"
            )
    if horizon and loaded and not _is_cut(loaded[0].view.lens.vertical_fov):
        raise InputError(
            "--horizon is for panoramas cut above and below: these reach straight up or down, so"
            " their horizon is known; leave it out (a tilt is pitch and roll, in --poses)"
        )


def _ratios(views: list[View], resolution: float | None) -> tuple[float, float]:
    """Heights to try, in pixels of the tile."""
    if resolution is not None:
        return HEIGHTS[0] / resolution, HEIGHTS[1] / resolution
    side = min(views[0].tile.shape) if views else 1
    return side / PARTS[0], side / PARTS[1]
