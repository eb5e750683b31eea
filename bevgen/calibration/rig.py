"""What of a panorama is not the street: the car, rider or pole below a camera, and nadir caps.

Both lie around the nadir and stand still in the camera's frame. Everything here looks for a rim:
for each column a row, below which all is hidden. Frames are compared at WIDTH columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError

WIDTH = 512
FEWEST = 4
"""Frames from which a rig can be told from a street: of fewer, any three may agree by chance."""

Floats = NDArray[np.float32]

_DARK = 8.0  # added to grey levels before their logarithm, so that noise in the dark counts little
_STILL = 0.006  # relative change of texture below which a surface counts as the same one
_STILL_OF_CONTRAST = 0.2  # the same, as a part of the texture's own contrast,
_STILL_AT_MOST = 0.03  # which just above a rim is that between street and rig
# Cars came to 14 and more, plain ground that happened to agree in eight frames to 3.6 at most.
_DISTINCT = 6.0  # the street's brightness must change so many times more than the rig's
_LEVELS = (0.02, 0.12)  # relative change of brightness that may part rig and street
_LEAST = 0.002  # part of the frame below which nothing is reported


@dataclass(frozen=True, slots=True)
class Hidden:
    """What of all frames of a camera is not the street.

    Attributes
    ----------
    use : (H, W) bool
        What is the street, or sky.
    rig, cap
        Part of the pixels that each hides; a rig may lie under a cap.
    cap_degrees
        From the nadir to the cap's rim; 0 without one.
    frames
        How many were compared.
    """

    use: NDArray[np.bool_]
    rig: float
    cap: float
    cap_degrees: float
    frames: int


def find_hidden(frames: Sequence[NDArray[np.uint8]], shape: tuple[int, int]) -> Hidden:
    """Find rig and cap in frames of one camera.

    Parameters
    ----------
    frames : (h, w, 3) uint8 each
        Whole spheres of different places, shrunk as by `shrunk`; one is enough for caps.
    shape
        Height and width of the mask to make.

    Raises
    ------
    InputError
        If all frames show the same place.
    """
    caps = cap_rows(frames)
    height, width = shape
    rim = np.full(width, float(height))
    if len(frames) >= FEWEST:
        small = np.stack([_reduced(frame) for frame in frames])
        found = rig_rim(small)
        rim = _at_width(found, width) * (height / small.shape[1])
    rows = np.arange(height)[:, None] + 0.5
    rig = rows > rim
    cap_row = caps / frames[0].shape[0] * height
    cap = np.broadcast_to(rows > cap_row, shape)
    degrees = 180 * (1 - cap_row / height)
    return Hidden(~(rig | cap), float(rig.mean()), float(cap.mean()), float(degrees), len(frames))


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce an image (H, W, 3) to at most twice WIDTH columns, by whole factors."""
    factor = max(1, image.shape[1] // (2 * WIDTH))
    if factor == 1:
        return image
    height, width = (n // factor * factor for n in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return (blocks.mean(axis=(1, 3), dtype=np.float32) + 0.5).astype(np.uint8)


# --- rigs: what stands still while the street moves ---


def rig_rim(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Find the rim of what stands still, from the nadir upwards.

    Parameters
    ----------
    frames : (N, h, w, 3) uint8
        N at least FEWEST.

    Returns
    -------
    (w,) float64
        Row, from the upper edge, from which each column is hidden; h where nothing is.

    Raises
    ------
    InputError
        If the frames are all of one place.

    Notes
    -----
    First by texture: its change from frame to frame does not depend on exposure, and none is as
    small on a street as on a rig. Then by brightness, from what was found: exposures are compared
    on the rig, and the rim is where their agreement ends. Always the closest half of the frames
    counts, so that a shadow or a passer-by in some does no harm.
    """
    logs = np.log(frames.astype(np.float32) + _DARK)
    texture = np.stack([_box(image, 1, 1) - _below(image, 12, 3) for image in logs])
    spread = np.sqrt(_box(_closest(texture).max(axis=-1)[..., None] ** 2, 1, 1)[..., 0])
    own = np.sqrt(_box(np.median(texture**2, axis=0).max(axis=-1)[..., None], 1, 1)[..., 0])
    limit = np.clip(_STILL_OF_CONTRAST * own, _STILL, _STILL_AT_MOST)
    height = frames.shape[1]
    band = slice(int(0.42 * height), int(0.58 * height))
    if np.median((spread / limit)[band]) < 1:
        raise InputError(
            "the frames agree all around the horizon, so they show one place: a rig is found by"
            " what stays while the street moves; name frames of different places"
        )
    still = np.log(limit / np.maximum(spread, 1e-6))
    rim = _best_rim(still, 2.0)
    for _ in range(2):
        inside = np.arange(height)[:, None] >= rim
        if inside.mean() < _LEAST:
            return np.full(len(rim), float(height))
        exposure = np.median(logs[:, inside], axis=1)
        change = _closest(logs - exposure[:, None, None]).max(axis=-1)
        around = ~inside & (np.arange(height)[:, None] >= rim - height // 12)
        street, rig = np.median(change[around]), max(np.median(change[inside]), 1e-4)
        if street < _DISTINCT * rig:
            return np.full(len(rim), float(height))
        limit = np.clip(np.sqrt(street * rig), *_LEVELS)
        same = np.log(limit / np.maximum(change, 1e-6))
        rim = _best_rim(np.maximum(np.minimum(still, 0.5), same), 1.0)
    # The rim's own pixels show both sides and agree on neither.
    return np.where(rim < height, rim - 0.5, height).astype(np.float64)


def _best_rim(score: NDArray[Any], bend: float) -> NDArray[np.int64]:
    """Choose a row per column so that scores below it are high and the rim is smooth.

    Parameters
    ----------
    score : (h, w)
        Above 0 where a pixel looks hidden; counts at most 1. Nothing is hidden above the horizon.
    bend
        What a step of one row from column to column costs.

    Notes
    -----
    The best path round the circle by dynamic programming, run twice round so that the columns in
    the middle do not depend on the start.
    """
    height, width = score.shape
    score = np.clip(score, -1, 1)
    score[: height // 2] = -5
    gain = np.zeros((height + 1, width))
    gain[:height] = np.cumsum(score[::-1], axis=0)[::-1]
    slope = bend * np.arange(height + 1)
    best = np.empty((2 * width, height + 1))
    best[0] = gain[:, 0]
    for column in range(1, 2 * width):
        before = best[column - 1]
        up = np.maximum.accumulate(before + slope) - slope
        down = np.maximum.accumulate((before - slope)[::-1])[::-1] + slope
        best[column] = np.maximum(up, down) + gain[:, column % width]
    path = np.empty(2 * width, np.int64)
    path[-1] = best[-1].argmax()
    rows = np.arange(height + 1)
    for column in range(2 * width - 1, 0, -1):
        path[column - 1] = (best[column - 1] - bend * np.abs(rows - path[column])).argmax()
    middle = width // 2
    return np.roll(path[middle : middle + width], middle)


def _closest(values: Floats) -> Floats:
    """Width of the narrowest interval that holds more than half of the values (N, ...)."""
    count = len(values)
    half = count // 2 + 1
    ordered = np.sort(values, axis=0)
    return (ordered[half - 1 :] - ordered[: count - half + 1]).min(axis=0)


def _reduced(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize a frame to WIDTH columns and half as many rows, by areas."""
    from PIL import Image

    size = (WIDTH, WIDTH // 2)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _at_width(rim: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Interpolate a rim to another number of columns, round the circle."""
    centres = (np.arange(width) + 0.5) / width * len(rim) - 0.5
    return np.interp(centres, np.arange(len(rim)), rim, period=len(rim))


def _box(image: NDArray[Any], rows: int, columns: int) -> Floats:
    """Mean of (h, w, c) over so many rows and columns to each side; columns wrap."""
    return _columns(_rows(np.pad(image, ((rows, rows), (0, 0), (0, 0)), "edge"), 2 * rows + 1),
                    columns)  # fmt: skip


def _below(image: NDArray[Any], rows: int, columns: int) -> Floats:
    """Mean of (h, w, c) over the pixel's own and the rows below: the street above is not in it."""
    padded = np.pad(image, ((0, rows - 1), (0, 0), (0, 0)), "edge")
    return _columns(_rows(padded, rows), columns)


def _rows(padded: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Mean over ``count`` rows from each on."""
    total = np.cumsum(padded, axis=0, dtype=np.float64)
    total[count:] -= total[:-count]
    return total[count - 1 :] / count


def _columns(image: NDArray[Any], reach: int) -> Floats:
    """Mean over columns to both sides, which wrap."""
    count = 2 * reach + 1
    padded = np.pad(image, ((0, 0), (reach, reach), (0, 0)), "wrap")
    total = np.cumsum(padded, axis=1, dtype=np.float64)
    total[:, count:] -= total[:, :-count]
    return (total[:, count - 1 :] / count).astype(np.float32)


# --- caps: discs that somebody has put over the nadir ---

_STEP = 12.0  # grey levels across a cap's rim in 85 of 100 columns; JPEG blocks above it reach 10
_FLAT = float(np.log(0.33))  # logarithm of grey levels: less texture has no ground near a camera
_TEXTURE_ENDS = float(np.log(2.0))  # and the ground around a blurred disc has so many times more
_BLUR_DEGREES = 12.0  # a blurred disc reaches farther from the nadir than this
_CAP_DEGREES = (3.0, 60.0)  # from the nadir to the rim


def cap_rows(frames: Sequence[NDArray[np.uint8]]) -> int:
    """Find the row from which a cap covers the nadir; the frames' height if there is none.

    Parameters
    ----------
    frames : (h, w, 3) uint8 each

    Notes
    -----
    A painted cap has a rim in one row all around; no street has. A blurred one has none, but the
    ground's texture ends in one row. Frames vote by their medians.
    """
    height = frames[0].shape[0]
    lowest, highest = (round(height * (1 - degrees / 180)) for degrees in _CAP_DEGREES)
    steps = np.median([_ring_steps(frame) for frame in frames], axis=0)
    rims = np.flatnonzero(steps[highest:lowest] > _STEP)
    if rims.size:
        top = highest + int(rims[0])
        return top + int(steps[top : top + 4].argmax()) + 1
    texture = np.median([_ring_texture(frame) for frame in frames], axis=0)
    return _texture_ends(texture, highest, height)


def _ring_steps(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Grey levels between a row and the one after the next that 85 of 100 columns exceed (h,)."""
    image = frame.astype(np.int16)
    step = np.abs(image[2:] - image[:-2]).max(axis=-1)
    return np.pad(np.percentile(step, 15, axis=1), (0, 2))


def _ring_texture(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logarithm of how much rows, _window of them from each on, differ from a straight gradient."""
    count = _window(frame.shape[0])
    image = _box(frame.astype(np.float32), 0, max(1, frame.shape[1] // 256)).mean(axis=-1)
    window = np.lib.stride_tricks.sliding_window_view(image, count, axis=0)
    along = np.arange(count) - (count - 1) / 2
    slope = window @ along / (along @ along)
    rest = window.var(axis=-1) - slope**2 * (along @ along) / count
    # The mean, not the median: JPEG leaves of a plain street's texture a speck here and there.
    return np.log(np.sqrt(np.maximum(rest, 0)).mean(axis=1) + 0.02)


def _window(height: int) -> int:
    """Rows over which texture is measured."""
    return max(5, height // 64)


def _texture_ends(texture: NDArray[np.float64], highest: int, height: int) -> int:
    """Find the row, upwards from the nadir, where texture begins; ``height`` if it is everywhere.

    Parameters
    ----------
    texture
        Logarithms by row, of rows that lie ``_window`` rows deep in the ground.
    highest, height
        The first row that may be a rim, and the number of rows.
    """
    start = round(height * (1 - _BLUR_DEGREES / 180))
    if np.percentile(texture[start:], 75) > _FLAT:
        return height
    rim, limit = start, _FLAT
    for _ in range(3):  # the limit is half-way from the disc's texture to the ground's
        rim = start
        while rim > highest and texture[rim - 1] < limit:
            rim -= 1
        ground = texture[max(0, rim - _window(height) - height // 32) : rim - _window(height) + 1]
        disc = float(np.median(texture[rim + 1 : rim + 1 + height // 16]))
        if rim == highest or np.median(ground) - disc < _TEXTURE_ENDS:
            return height
        limit = (float(np.median(ground)) + disc) / 2
    return rim
