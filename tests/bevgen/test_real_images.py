"""BEVs of real panoramas: what is straight, square and regular on the ground is so in the picture.

Nothing is known of these places but what people build: painted lines are straight, a walkway has
parallel edges, walkways cross at right angles, tiles repeat. The same measurements must fail when
the projection is wrong, or they would prove nothing. Lengths are in camera heights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import bevgen
from tests.helpers.paths import HDRI

Array = NDArray[np.float64]
Point = tuple[float, float]

# Where the lines are, from one end (x, y) to the other, good to a tenth of a height.
PARKING_LINES: list[tuple[Point, Point]] = [
    ((-1.08, 2.42), (-0.21, 0.50)),
    ((0.42, -0.42), (1.17, -2.21)),
    ((-2.67, -1.25), (-0.33, -0.23)),
    ((0.50, 0.23), (2.75, 1.17)),
]
WALKWAY_NORTHWEST: list[tuple[Point, Point]] = [
    ((-3.00, 3.13), (-0.25, 0.54)),
    ((-3.33, 2.54), (-0.79, 0.08)),
    ((0.42, -0.17), (3.58, -3.29)),
    ((-0.04, -0.63), (2.92, -3.50)),
]
WALKWAY_NORTHEAST: list[tuple[Point, Point]] = [
    ((-0.04, 0.54), (0.63, 1.25)),
    ((0.46, 0.04), (1.17, 0.79)),
    ((-2.17, -1.63), (-0.71, -0.17)),
    ((-1.58, -2.08), (-0.21, -0.63)),
]


# A horizon three degrees too high or low in the picture, and a camera taken to be tilted.
WRONG = pytest.mark.parametrize(
    ("horizon", "pose"),
    [(3.0, {}), (-3.0, {})] + [(0.0, {tilt: d}) for tilt in ("pitch", "roll") for d in (3.0, -3.0)],
    ids=str,
)


def load(name: str, horizon: float = 0.0) -> NDArray[np.uint8]:
    """Read a panorama and raise its horizon by so many degrees."""
    with Image.open(HDRI / name) as image:
        panorama = np.array(image.convert("RGB"))
    rows = np.arange(len(panorama)) + round(horizon / 180 * len(panorama))
    return panorama[np.clip(rows, 0, len(panorama) - 1)]


def yellow(panorama: NDArray[np.uint8], **pose: Any) -> tuple[Array, float]:
    """How yellow the ground is: a picture of 7.5 x 7.5 heights, and its resolution."""
    bev = bevgen.project(panorama, height=1, resolution=0.0125, size=600, **pose).astype(float)
    return bev[..., :2].mean(axis=-1) - bev[..., 2], 0.0125


def trace(
    picture: Array, resolution: float, start: Point, end: Point, reach: float
) -> tuple[float, float]:
    """Follow a bright line; its direction in degrees from east, and how far it is from straight.

    The line's middle is measured in profiles across it that reach so far to either side, and a
    straight line fitted to the middles; the root mean square distance from that is in pixels.
    """
    a, b = np.array(start), np.array(end)
    along = (b - a) / np.hypot(*(b - a))
    across = np.array([-along[1], along[0]])
    s = np.arange(0, np.hypot(*(b - a)), 0.03)
    t = np.arange(-reach, reach, 0.006)
    x, y = np.moveaxis(a + s[:, None, None] * along + t[None, :, None] * across, -1, 0)
    half = len(picture) / 2
    at = [half - 0.5 - y / resolution, x / resolution + half - 0.5]
    profile = ndimage.map_coordinates(picture, at, order=1)
    profile = np.clip(profile - np.percentile(profile, 25, axis=1, keepdims=True), 0, None)
    profile[profile < 0.5 * profile.max(axis=1, keepdims=True)] = 0
    middle = (profile * t).sum(axis=1) / np.maximum(profile.sum(axis=1), 1e-9)
    slope, offset = np.polyfit(s, middle, 1)
    bend = np.sqrt(np.mean((middle - slope * s - offset) ** 2)) / resolution
    direction = np.rad2deg(np.arctan2(along[1], along[0]) + np.arctan(slope))
    return float(direction) % 180, float(bend)


def walkways(panorama: NDArray[np.uint8], **pose: Any) -> dict[str, float]:
    """Measure the crossing of `npm_workshop`: pixels of bend, degrees off parallel and square."""
    picture = yellow(panorama, **pose)
    one, other = (
        np.array([trace(*picture, *line, reach=0.13) for line in lines])
        for lines in (WALKWAY_NORTHWEST, WALKWAY_NORTHEAST)
    )
    return {
        "bend": float(max(one[:, 1].max(), other[:, 1].max())),
        "parallel": float(np.ptp(one[:, 0])),
        "square": abs(abs(one[:, 0].mean() - other[:, 0].mean()) - 90),
    }


def parking_lines(panorama: NDArray[np.uint8], **pose: Any) -> list[tuple[float, float]]:
    """Trace the four arms that meet in the middle of `blender_city`."""
    picture = yellow(panorama, **pose)
    return [trace(*picture, *line, reach=0.22) for line in PARKING_LINES]


def test_parking_lines_are_straight() -> None:
    traces = parking_lines(load("blender_city.png"))
    assert max(bend for _, bend in traces) < 0.65
    # Each line goes on beyond the crossing in the middle.
    (northwest, southeast, west, east) = (direction for direction, _ in traces)
    assert northwest == pytest.approx(southeast, abs=0.7)
    assert west == pytest.approx(east, abs=0.7)


def test_walkways_are_straight_parallel_and_square() -> None:
    measured = walkways(load("npm_workshop.png"))
    assert measured["bend"] < 0.6
    assert measured["parallel"] < 0.5
    assert measured["square"] < 0.5


@WRONG
def test_parking_lines_notice_a_wrong_projection(horizon: float, pose: dict[str, float]) -> None:
    traces = parking_lines(load("blender_city.png", horizon), **pose)
    assert max(bend for _, bend in traces) > 0.8


@WRONG
def test_walkways_notice_a_wrong_projection(horizon: float, pose: dict[str, float]) -> None:
    measured = walkways(load("npm_workshop.png", horizon), **pose)
    assert measured["parallel"] > 1


def brown_squares(panorama: NDArray[np.uint8], **pose: Any) -> tuple[Array, Array, Array]:
    """How brown the floor is, at equal contrast everywhere; x and y of every pixel."""
    size, resolution = 500, 0.0125
    bev = bevgen.project(panorama, height=1, resolution=resolution, size=size, **pose).astype(float)
    brown = bev[..., 0] - bev[..., 2]
    brown -= ndimage.gaussian_filter(brown, 0.45 / resolution)
    brown /= np.sqrt(ndimage.gaussian_filter(brown**2, 0.45 / resolution) + 4)
    offset = (np.arange(size) + 0.5 - size / 2) * resolution
    east, north = np.meshgrid(offset, -offset)
    return brown, np.asarray(east, np.float64), np.asarray(north, np.float64)


def strongest_frequency(brown: Array, x: Array, y: Array) -> Array:
    """The most common repetition (per height, to the east and north) near the middle."""
    spectrum = np.abs(np.fft.fft2(brown * np.exp(-((np.hypot(x, y) / 1.5) ** 4)), (1024, 1024)))
    f = np.fft.fftfreq(1024, x[0, 1] - x[0, 0])
    f_x, f_y = np.meshgrid(f, -f)
    spectrum[(np.hypot(f_x, f_y) < 1.1) | (np.hypot(f_x, f_y) > 2)] = 0
    peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
    return np.array([f_x[peak], f_y[peak]])


def demodulate(brown: Array, x: Array, y: Array, frequency: Array) -> tuple[Array, float]:
    """The true frequency, and by how many of its periods the pattern strays from it (RMS).

    Where a tile lies off the regular grid, the phase of the wave is off. Within 2.2 heights.
    """
    wave = brown * np.exp(-2j * np.pi * (frequency[0] * x + frequency[1] * y))
    wave = ndimage.gaussian_filter(wave, 0.3 / (x[0, 1] - x[0, 0]))[::5, ::5]
    x, y = x[::5, ::5], y[::5, ::5]
    disc = np.hypot(x, y) < 2.2
    phase = np.angle(wave / wave[np.hypot(x, y) < 0.6].sum())[disc]
    weight = np.abs(wave[disc])
    plane = np.stack([x[disc], y[disc], np.ones(phase.size)], axis=1)
    fit = np.linalg.lstsq(plane * weight[:, None], phase * weight)[0]
    stray = np.average((phase - plane @ fit) ** 2, weights=weight) ** 0.5 / (2 * np.pi)
    return frequency + fit[:2] / (2 * np.pi), float(stray)


def tile_errors(panorama: NDArray[np.uint8], **pose: Any) -> dict[str, float]:
    """Measure the floor of `npm_hall`: what is wrong with its square grid.

    ``irregular``: how far tiles are from it, in tiles (RMS). ``unequal``: by what share the two
    spacings differ. ``square``: how many degrees the two directions are off a right angle.
    """
    picture = brown_squares(panorama, **pose)
    first = strongest_frequency(*picture)
    frequencies, strays = [], []
    for guess in (first, np.array([-first[1], first[0]])):
        better, _ = demodulate(*picture, guess)
        frequency, stray = demodulate(*picture, better)
        frequencies.append(frequency)
        strays.append(stray)
    lengths = np.hypot(*np.transpose(frequencies))
    cosine = frequencies[0] @ frequencies[1] / lengths.prod()
    return {
        "irregular": max(strays),
        "unequal": float(abs(lengths[0] / lengths[1] - 1)),
        "square": float(abs(np.rad2deg(np.arcsin(cosine)))),
    }


def test_tiles_are_regular() -> None:
    errors = tile_errors(load("npm_hall.png"))
    assert errors["irregular"] < 0.04
    assert errors["unequal"] < 0.01
    assert errors["square"] < 0.6


@pytest.mark.parametrize("pose", [{"pitch": 3.0}, {"roll": 3.0}, {"roll": -3.0}], ids=str)
def test_tiles_notice_a_tilt(pose: dict[str, float]) -> None:
    # A wrong horizon hardly shows here: it changes the size of all tiles alike.
    assert tile_errors(load("npm_hall.png"), **pose)["irregular"] > 0.07
