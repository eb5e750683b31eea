"""Draw what a calibration found: how clear it is, and pictures laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bevgen.calibration.estimation import Calibration
from bevgen.calibration.report import CalibrationReport, lowered
from bevgen.calibration.rings import View
from bevgen.drawing import FAINT, INK, PAPER, RULE, font, printable
from bevgen.geometry import BevGrid
from bevgen.images.decoding import read_image
from bevgen.project import project_view

SHEET = (1600, 1130)
PLOT = (40, 130, 560, 250)  # left, upper, width and height of the first
PICTURE = 300  # pixels of each side
REACH = 6.0  # camera heights from the centre of a picture to its edge
CHECK = 50  # pixels of a square of the chequered picture

_LINE, _MARK = (20, 96, 168), (214, 70, 40)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A pair to show.

    Attributes
    ----------
    name
        Of the panorama.
    tile, bev : (PICTURE, PICTURE, 3) uint8
        The same ground, north up, the camera in the centre.
    note
        A few words.
    """

    name: str
    tile: NDArray[np.uint8]
    bev: NDArray[np.uint8]
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """Agreement over one value.

    Attributes
    ----------
    title
        Name, value and unit.
    x, y : (n,) float64
    best
        Where to put the mark, on the axis of ``x``.
    chance
        What wrong pairs reach.
    log
        Whether the axis of ``x`` is logarithmic.
    """

    title: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    best: float
    chance: float
    log: bool = False


def lay_over(
    panorama: NDArray[np.uint8],
    tile: NDArray[np.uint8],
    view: View,
    calibration: Calibration,
    heading: float,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the ground around a camera as its tile shows it, and as its panorama does.

    Parameters
    ----------
    panorama, tile : (H, W, 3) uint8
        As they are on disk.
    view
        Where the camera is in the tile, and what the panorama shows.
    calibration
        Height and horizon.
    heading
        Compass direction of the panorama's centre column, degrees.

    Returns
    -------
    tile, bev : (PICTURE, PICTURE, 3) uint8
        `REACH` camera heights each way.
    """
    reach = REACH * calibration.ratio.value
    box = (view.column - reach, view.row - reach, view.column + reach, view.row + reach)
    crop = Image.fromarray(tile).transform(
        (PICTURE, PICTURE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC
    )
    lens = replace(view.lens, height=panorama.shape[0], width=panorama.shape[1])
    if calibration.horizon is not None:
        lens = replace(lens, vertical_fov=lowered(lens.vertical_fov, calibration.horizon.value))
    pose = replace(view.pose, height=1.0, heading=heading)
    grid = BevGrid(PICTURE, 2 * REACH / PICTURE)
    bev, _ = project_view(np.ascontiguousarray(panorama), grid, lens, pose)
    return np.asarray(crop), bev


def draw_report(report: CalibrationReport) -> Image.Image:
    """Draw the sheet of a calibration: values, plots, and three of the pairs laid over each other.

    Returns
    -------
    PIL.Image.Image
        RGB of `SHEET` pixels.
    """
    found = report.found
    order = np.argsort(-found.by_pair)
    shown = [int(order[round(part * (len(order) - 1))]) for part in (0.1, 0.5, 0.9)]
    title = f"Calibration: {found.verdict}"
    if found.verdict == "not found":
        title += " (drawn at the best of what was tried)"
    lines = [line for line in report.lines() if not line.startswith(("verdict", "but:"))]
    subtitle = "    ".join(" ".join(line.split()) for line in lines).replace("°", " degrees")
    return draw_calibration(title, subtitle, _plots(found), [_example(report, i) for i in shown])


def _plots(found: Calibration) -> list[Plot]:
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


def _example(report: CalibrationReport, k: int) -> Example:
    """Lay pair number k of the sample over its tile."""
    one = report.sample.loaded[k]
    if report.headings:
        own = report.headings[k]
        heading, note = own.heading, f"heading {own.heading:.1f}, confidence {own.confidence:.2f}"
    else:
        heading = one.view.pose.heading + report.offset
        note = f"agreement {report.found.by_pair[k]:.1f}"
    panorama, tile = read_image(one.pair.panorama)[0], read_image(one.pair.tile)[0]
    return Example(one.pair.id, *lay_over(panorama, tile, one.view, report.found, heading), note)


def draw_calibration(
    title: str, subtitle: str, plots: Sequence[Plot], examples: Sequence[Example]
) -> Image.Image:
    """Draw the sheet.

    Parameters
    ----------
    title, subtitle
        What was found, and how sure it is.
    plots
        Up to three.
    examples
        Up to three.

    Returns
    -------
    PIL.Image.Image
        RGB of `SHEET` pixels.
    """
    sheet = Image.new("RGB", SHEET, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((40, 42), title, INK, font(32), "lm", stroke_width=0.5)
    draw.text((40, 80), subtitle, FAINT, font(21), "lm")
    left, upper, width, height = PLOT
    for k, plot in enumerate(plots):
        _draw_plot(draw, plot, (left, upper + k * (height + 80), width, height))
    for column, name in enumerate(("tile", "bird's-eye view", "both, in squares")):
        x = 660 + column * (PICTURE + 10)
        draw.text((x, 118), name, FAINT, font(20), "ls")
    for row, example in enumerate(examples):
        y = 130 + row * (PICTURE + 34)
        line = np.arange(PICTURE) // CHECK
        squares = (line[:, None] + line) % 2 == 1
        both = np.where(squares[..., None], example.bev, example.tile)
        for column, picture in enumerate((example.tile, example.bev, both)):
            sheet.paste(Image.fromarray(picture), (660 + column * (PICTURE + 10), y))
        text = f"{example.name[:48]}   {example.note}"
        draw.text((660, y + PICTURE + 16), printable(text), FAINT, font(18), "lm")
    return sheet


def _draw_plot(draw: ImageDraw.ImageDraw, plot: Plot, box: tuple[int, int, int, int]) -> None:
    left, upper, width, height = box
    draw.text((left, upper - 12), plot.title, INK, font(21), "ls")
    draw.text((left + width, upper - 12), "grey: wrong pairs at best", FAINT, font(15), "rs")
    scale = np.log if plot.log else np.asarray
    low, high = float(scale(plot.x[0])), float(scale(plot.x[-1]))
    bottom, top = min(float(plot.y.min()), 0.0), max(float(plot.y.max()), plot.chance) * 1.05

    def across(x: float) -> float:
        return left + (float(scale(x)) - low) / (high - low) * width

    def down(y: float) -> float:
        return upper + height - (y - bottom) / (top - bottom) * height

    draw.rectangle((left, upper, left + width, upper + height), outline=RULE)
    draw.line([(left, down(plot.chance)), (left + width, down(plot.chance))], RULE, 2)
    draw.line([(across(plot.best), upper), (across(plot.best), upper + height)], _MARK, 2)
    points = [(across(x), down(y)) for x, y in zip(plot.x.tolist(), plot.y.tolist(), strict=True)]
    draw.line(points, _LINE, 3, joint="curve")
    for x in (plot.x[0], plot.x[-1]):
        anchor = "la" if x == plot.x[0] else "ra"
        draw.text((across(float(x)), upper + height + 6), f"{x:.3g}", FAINT, font(16), anchor)
