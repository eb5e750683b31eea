"""What `bevgen calibrate` prints, draws and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from PIL.Image import Image

    from bevgen.calibration import Calibration, ImageHeading, PairFiles, View
    from bevgen.calibration.sheet import Example, Plot
    from bevgen.images.metadata import PanoramaInfo

SURE = 0.9  # confidence from which a heading is written to --write-poses


class Loaded(NamedTuple):
    """One pair of the sample."""

    pair: PairFiles
    view: View
    known: PanoramaInfo
    shape: tuple[int, int]


def offset_of(found: Calibration) -> float:
    """Degrees to add to all headings."""
    return found.heading.value if found.heading is not None else 0.0


def collect(
    found: Calibration,
    loaded: list[Loaded],
    skipped: list[str],
    resolution: float | None,
    mode: str,
    headings: list[ImageHeading],
    vertical_fov: tuple[float, float] | None,
    doubts: list[str],
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
        if not known and abs(offset_of(found)) >= 0.5:
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
    if found.horizon_error is not None:
        result["horizon_error"] = asdict(found.horizon_error)
    result["doubts"] = doubts
    result["known_headings"] = known and mode != "per-image"
    result["known_heights"] = any(one.pair.own.height is not None for one in loaded)
    result["options"] = words
    return result


def say(found: Calibration, result: dict[str, Any]) -> list[str]:
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
    return lines + [f"but: {doubt}" for doubt in result["doubts"]]


def draw(
    found: Calibration, loaded: list[Loaded], headings: list[ImageHeading], lines: list[str]
) -> Image:
    """Draw the sheet, with the values that are said as its subtitle."""
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
    values = [" ".join(line.split()) for line in lines if not line.startswith(("verdict", "but:"))]
    subtitle = "    ".join(values).replace("°", " degrees")
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
    from bevgen.images.decoding import read_image

    if own is not None:
        heading, note = own.heading, f"heading {own.heading:.1f}, confidence {own.confidence:.2f}"
    else:
        heading = one.view.pose.heading + offset_of(found)
        note = f"agreement {agreement:.1f}"
    panorama, tile = read_image(one.pair.panorama)[0], read_image(one.pair.tile)[0]
    return Example(one.pair.id, *lay_over(panorama, tile, one.view, found, heading), note)


def write_poses(
    path: Path,
    pairs: list[PairFiles],
    found: Calibration,
    own_heading: Callable[[PairFiles], tuple[ImageHeading, PanoramaInfo]] | None,
    some_known: bool,
) -> int:
    """Write the headings of all pairs of which they are sure; return of how many.

    ``own_heading`` finds that of one image; None adds the offset to what is known. The offset says
    nothing of an image of unknown heading where it was found from known ones (``some_known``).
    """
    from bevgen import tables
    from bevgen.calibration.pairs import known_of
    from bevgen.cli.progress import progress_bar
    from bevgen.errors import PanoramaError
    from bevgen.tables import POSE_COLUMNS, PoseRow

    rows: list[PoseRow] = []
    with progress_bar("headings") as on_progress:
        for i, pair in enumerate(pairs):
            try:
                if own_heading is not None:
                    own, known = own_heading(pair)
                    heading = own.heading if own.confidence >= SURE else None
                else:
                    known = known_of(pair)
                    heading = ((known.heading or 0.0) + offset_of(found)) % 360
                    if some_known and known.heading is None:
                        heading = None
            except PanoramaError as error:
                click.echo(f"set aside: {error}", err=True)
                heading, known = None, pair.own
            if heading is not None:
                rows.append(
                    PoseRow(
                        pair.source,
                        pair.id,
                        round(heading, 2),
                        known.pitch,
                        known.roll,
                        latitude=known.latitude,
                        longitude=known.longitude,
                        date=known.date,
                    )
                )
            on_progress(i + 1, len(pairs))
    # The height is what was looked for: a column of it would take precedence over --height.
    return tables.write_poses(path, rows, [name for name in POSE_COLUMNS if name != "height"])
