"""`bevgen calibrate`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bevgen.cli import COMMANDS, EXIT_FAILED, options

if TYPE_CHECKING:
    from PIL.Image import Image

    from bevgen.calibration import Calibration, ImageHeading, View
    from bevgen.calibration.sheet import Example, Plot
    from bevgen.metadata import PanoramaInfo
    from bevgen.calibration import Pair

HEIGHTS = (0.5, 8.0)  # metres that are tried
PARTS = (200, 6)  # parts of the tile's side that are tried where metres are not known
SURE = 0.9  # confidence from which a heading is written to --write-poses
EPILOG = "Exit code 1 if nothing was found; the picture is drawn all the same."


class Loaded(NamedTuple):
    """One pair of the sample."""

    pair: Pair
    view: View
    known: PanoramaInfo
    shape: tuple[int, int]


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
    help="Compare so many pairs.",
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
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find camera height, heading and horizon by laying panoramas over satellite tiles."""
    from bevgen.calibration import Heading, calibrate, find_heading
    from bevgen.cli.progress import progress_bar
    from bevgen.errors import InputError
    from bevgen.calibration import choose, find_pairs

    _check(out, poses_out, overwrite, mode, resolution)
    pairs = find_pairs(root, reference, pairs_file=pairs_file, poses=poses)
    lens: dict[str, Any] = {"vertical_fov": vertical_fov, "centred": horizon}
    with progress_bar("reading") as on_progress:
        loaded, skipped = _load(choose(pairs, sample), mode, lens, on_progress)
    _check_sizes(loaded, horizon)
    if horizon and any(abs(e) == 90 for e in loaded[0].view.lens.vertical_fov):
        raise InputError(
            "--horizon is for panoramas cut above and below: these reach straight up or down, so"
            " their horizon is known; leave it out (a tilt is pitch and roll, in --poses)"
        )
    views = [one.view for one in loaded]
    heading: Heading = mode  # type: ignore[assignment]
    with progress_bar("comparing") as on_progress:
        found = calibrate(
            views, ratios=_ratios(views, resolution), heading=heading, horizon=horizon,
            on_progress=on_progress,
        )  # fmt: skip
    headings = [find_heading(view, found) for view in views] if mode == "per-image" else []
    result = _result(found, loaded, skipped, resolution, mode, headings, vertical_fov)
    lines = _lines(found, result)
    _draw(found, loaded, headings, lines).save(out)
    if found.verdict != "not found":
        if poses_out is not None:
            written = _write_poses(poses_out, pairs, found, mode, lens)
            lines.append(f"{poses_out}: headings of {written:,} of {len(pairs):,} panoramas")
        words = ["bevgen", "convert", "--in", str(root), "--out", "bev.h5", *result["options"]]
        if poses_out is not None or (poses is not None and mode != "per-image"):
            words += ["--poses", str(poses_out or poses)]
        elif mode == "per-image":
            lines.append("to convert, write the headings: add --write-poses poses.csv")
        if poses_out is None and result["known_headings"] and abs(_offset(found)) >= 0.5:
            lines.append("to convert, add the offset to each heading: --write-poses poses.csv does")
        lines.append(shlex.join(words))
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(lines))
    if found.verdict == "not found":
        click.echo(
            f"Error: panoramas agree with their own tiles no better than with others, see {out};"
            " do they belong together, and is the camera where the tile's centre (or --pairs) has"
            " it? Try --heading per-image, or a larger --sample",
            err=True,
        )
        return EXIT_FAILED
    return 0


def _offset(found: Calibration) -> float:
    return found.heading.value if found.heading is not None else 0.0


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


def _load(
    pairs: list[Pair], mode: str, lens: dict[str, Any], on_progress: Any
) -> tuple[list[Loaded], list[str]]:
    """Read a sample; files that cannot be used are set aside with a reason."""
    from bevgen.errors import PanoramaError
    from bevgen.calibration import load_view

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
    from dataclasses import replace

    return view if mode != "per-image" else replace(view, pose=replace(view.pose, heading=0.0))


def _check_sizes(loaded: list[Loaded], horizon: bool) -> None:
    """Refuse tiles of several sizes: their scales would differ."""
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


def _ratios(views: list[View], resolution: float | None) -> tuple[float, float]:
    """Heights to try, in pixels of the tile."""
    if resolution is not None:
        return HEIGHTS[0] / resolution, HEIGHTS[1] / resolution
    side = min(views[0].tile.shape) if views else 1
    return side / PARTS[0], side / PARTS[1]


def _result(
    found: Calibration,
    loaded: list[Loaded],
    skipped: list[str],
    resolution: float | None,
    mode: str,
    headings: list[ImageHeading],
    vertical_fov: tuple[float, float] | None,
) -> dict[str, Any]:
    """Collect what is printed as JSON."""
    from bevgen.calibration.sheet import lowered

    result: dict[str, Any] = {
        "verdict": found.verdict,
        "strength": round(found.strength, 2),
        "pairs": len(loaded),
        "set_aside": skipped,
        "ratio": asdict(found.ratio),
    }
    scale = found.ratio.value
    if resolution is not None:
        result["height"] = {k: v * resolution for k, v in asdict(found.ratio).items()}
    # Without it any pair of numbers does whose quotient is the ratio.
    height, metres = (scale * resolution, resolution) if resolution else (2.0, 2.0 / scale)
    words = ["--height", f"{height:.4g}", "--resolution", f"{metres:.5g}"]
    known = any(one.known.heading is not None for one in loaded)
    if found.heading is not None:
        result["heading"] = asdict(found.heading)
        if not known and abs(_offset(found)) >= 0.5:
            words += ["--heading", f"{found.heading.value:.1f}"]
    view = loaded[0].view
    if found.horizon is not None:
        top, bottom = view.lens.vertical_fov
        rows = loaded[0].shape[0]
        per_degree = rows / (top - bottom)
        row = {k: (top - v) * per_degree for k, v in asdict(found.horizon).items()}
        result["horizon_row"] = {"value": row["value"], "low": row["high"], "high": row["low"]}
        result["rows"] = rows
        result["vertical_fov"] = lowered(view.lens.vertical_fov, found.horizon.value)
        words += ["--vertical-fov", *(f"{v:.2f}" for v in result["vertical_fov"])]
    elif vertical_fov is not None:
        words += ["--vertical-fov", *(f"{v:g}" for v in vertical_fov)]
    if headings:
        result["headings"] = {
            one.pair.id: asdict(h) for one, h in zip(loaded, headings, strict=True)
        }
    result["known_headings"] = known and mode != "per-image"
    result["options"] = words
    return result


def _lines(found: Calibration, result: dict[str, Any]) -> list[str]:
    """Say it to a reader."""

    def interval(value: dict[str, float], digits: int, unit: str = "") -> str:
        low, best, high = (  # no -0.0
            f"{round(value[name], digits) + 0.0:.{digits}f}" for name in ("low", "value", "high")
        )
        return f"{best + unit:12} {low} to {high}"

    if found.verdict == "not found":
        return [f"verdict            not found ({result['pairs']} pairs)"]
    lines = []
    if "height" in result:
        lines.append(f"camera height      {interval(result['height'], 3, ' m')}")
    lines.append(f"height in pixels   {interval(result['ratio'], 2)}")
    if "heading" in result:
        lines.append(f"heading offset     {interval(result['heading'], 1, '°')}")
    if "horizon_row" in result:
        lines.append(f"horizon, row       {interval(result['horizon_row'], 1)}")
    if "headings" in result:
        sure = sum(h["confidence"] >= SURE for h in result["headings"].values())
        lines.append(f"headings           sure of {sure} of {result['pairs']}")
    lines.append(
        f"verdict            {found.verdict} ({result['pairs']} pairs, {found.strength:.0f}"
        " standard deviations above wrong pairs)"
    )
    return lines


def _draw(
    found: Calibration, loaded: list[Loaded], headings: list[ImageHeading], lines: list[str]
) -> Image:
    import numpy as np

    from bevgen.calibration.sheet import draw_calibration

    order = np.argsort(-found.by_pair)
    shown = [int(order[round(part * (len(order) - 1))]) for part in (0.1, 0.5, 0.9)]
    examples = [
        _example(found, loaded[i], headings[i] if headings else None, found.by_pair[i])
        for i in shown
    ]
    title = f"Calibration: {found.verdict}"
    if found.verdict == "not found":
        title += " (drawn at the best of what was tried)"
    subtitle = "    ".join(" ".join(line.split()) for line in lines[:-1]).replace("°", " degrees")
    return draw_calibration(title, subtitle, _plots(found), examples)


def _plots(found: Calibration) -> list[Plot]:
    import numpy as np

    from bevgen.calibration.sheet import Plot

    title = "Agreement over height in pixels"
    plots = [Plot(title, found.ratios, found.by_ratio, found.ratio.value, found.chance, log=True)]
    if found.heading is not None:
        y, n = found.by_heading, len(found.by_heading)
        x = np.arange(n + 1) * 360 / n - 180
        y = np.roll(y, n // 2)
        y, best = np.append(y, y[0]), found.heading.value
        plots.append(Plot("over heading offset, degrees", x, y, best, found.chance))
    if found.horizon is not None:
        title, best = "over degrees that the field is lowered", found.horizon.value
        plots.append(Plot(title, found.horizons, found.by_horizon, best, found.chance))
    return plots


def _example(
    found: Calibration, one: Loaded, own: ImageHeading | None, agreement: float
) -> Example:
    from bevgen.calibration.sheet import Example, lay_over
    from bevgen.panorama import read_image

    if own is not None:
        heading, note = own.heading, f"heading {own.heading:.1f}, confidence {own.confidence:.2f}"
    else:
        heading = one.view.pose.heading + _offset(found)
        note = f"agreement {agreement:.1f}"
    panorama, tile = read_image(one.pair.panorama)[0], read_image(one.pair.tile)[0]
    return Example(one.pair.id, *lay_over(panorama, tile, one.view, found, heading), note)


def _write_poses(
    path: Path, pairs: list[Pair], found: Calibration, mode: str, lens: dict[str, Any]
) -> int:
    """Write the headings of all pairs of which they are sure; return of how many."""
    import csv
    import io

    from bevgen.calibration import find_heading
    from bevgen.cli.progress import progress_bar

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = ("pitch", "roll", "latitude", "longitude", "date")
    writer.writerow(["file", "id", "heading", *columns])
    count = 0
    with progress_bar("headings") as on_progress:
        for i, pair in enumerate(pairs):
            for one in _load([pair], mode, lens, lambda done, total: None)[0]:
                if mode == "per-image":
                    own = find_heading(one.view, found)
                    heading = own.heading if own.confidence >= SURE else None
                else:
                    heading = (one.view.pose.heading + _offset(found)) % 360
                if heading is not None:
                    said = [getattr(one.known, name) for name in columns]
                    writer.writerow([pair.source, pair.id, f"{heading:.2f}", *said])
                    count += 1
            on_progress(i + 1, len(pairs))
    path.write_text(text.getvalue(), "utf-8")
    return count
