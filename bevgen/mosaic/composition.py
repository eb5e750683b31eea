"""The frames put together, tile by tile: everywhere mostly the frame whose camera is nearest.

What stands up is drawn outwards from each camera, so frames disagree on it; where they do, nothing
is claimed. So it is where one frame alone shows the ground, as nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from bevgen.geometry import PanoramaView, Pose
from bevgen.ground import panorama_position
from bevgen.mosaic.cores import on_all_cores
from bevgen.mosaic.pairs import MIN_OVERLAP
from bevgen.mosaic.pictures import Array, LevelViews, Window, draw, turned

TILE = 512  # pixels
REACH = 5.0  # heights around each camera that it shows
NADIR, FEATHER = 0.9, 0.2  # heights around it that show its carrier; fades in over the second
TOLERANCE = 18.0  # grey levels by which frames that agree may differ
AGREEING = 0.6  # part of the frames that must agree
# What is left after registration, as standard deviations: heights, degrees of tilt.
_PLACED, _TILTED = 0.02, 0.2


Read = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True, slots=True)
class Canvas:
    """North-up pixels of the mosaic, and how a map's metres lie to those on Earth.

    Attributes
    ----------
    west, north
        Of its corner, in metres of the map.
    columns, rows
        Its size.
    resolution
        Metres of the map per pixel.
    turn, scale
        Degrees by which true north is turned clockwise on the map, and metres of the map to the
        metre on Earth.
    """

    west: float
    north: float
    columns: int
    rows: int
    resolution: float
    turn: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A square of the mosaic.

    Attributes
    ----------
    column, row
        Of its upper left pixel.
    colours : (h, w, 3) uint8
        Also where nothing is claimed but somebody shows something.
    alpha : (h, w) uint8
        255 where two frames or more show the ground and agree.
    uncertainty : (h, w) uint8
        Centimetres, one standard deviation; 255 where nothing is claimed.
    """

    column: int
    row: int
    colours: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """Where a camera stands, in metres of the map; its pose, gain, and part of the sphere."""

    east: float
    north: float
    pose: Pose
    gain: float
    view: PanoramaView


def tiles(
    canvas: Canvas,
    stands: list[Stand],
    read: Read,
    watch: Callable[[str, int, int], None],
) -> Iterator[Tile]:
    """Draw all tiles that a camera shows, in the order of the drive: frames are read once or twice.

    Parameters
    ----------
    canvas
        What to draw on.
    stands
        Of N frames.
    read
        Gives frame k: (H, W, 3) pixels, and (H, W) 255 where they count.
    watch
        Called with what is done, and how much of it of how much.
    """
    across = TILE * canvas.resolution
    wanted: dict[tuple[int, int], list[int]] = {}
    for k, stand in enumerate(stands):
        reach = REACH * stand.pose.height * canvas.scale
        east, south = stand.east - canvas.west, canvas.north - stand.north
        for j in range(int((east - reach) // across), int((east + reach) // across) + 1):
            for i in range(int((south - reach) // across), int((south + reach) // across) + 1):
                if 0 <= i * TILE < canvas.rows and 0 <= j * TILE < canvas.columns:
                    wanted.setdefault((i, j), []).append(k)
    for number, ((i, j), frames) in enumerate(wanted.items()):
        watch("drawing", number, len(wanted))
        shape = (min(TILE, canvas.rows - i * TILE), min(TILE, canvas.columns - j * TILE))
        draw_one = partial(_layer, canvas, i * TILE, j * TILE, shape, stands, read)
        layers = [layer for layer in on_all_cores(draw_one, frames) if layer]
        yield _blend(i * TILE, j * TILE, shape, layers)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """What one frame shows of a part of a tile: colours, weights, variance in square metres."""

    part: tuple[slice, slice]
    colours: NDArray[np.float32]
    weight: NDArray[np.float32]
    variance: NDArray[np.float32]


def _layer(
    canvas: Canvas,
    row: int,
    column: int,
    shape: tuple[int, int],
    stands: list[Stand],
    read: Read,
    k: int,
) -> _Layer | None:
    """Draw what frame k shows of a tile."""
    stand = stands[k]
    height = stand.pose.height
    reach = REACH * height * canvas.scale / canvas.resolution
    middle = ((canvas.north - stand.north) / canvas.resolution - row,
              (stand.east - canvas.west) / canvas.resolution - column)  # fmt: skip
    low = [max(int(m - reach), 0) for m in middle]
    high = [min(int(m + reach) + 1, n) for m, n in zip(middle, shape, strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    part = (slice(low[0], high[0]), slice(low[1], high[1]))
    rows, columns = np.mgrid[part] + 0.5
    on_map = np.stack([columns - middle[1], middle[0] - rows], axis=-1) * canvas.resolution
    x, y = np.moveaxis(turned(on_map, -canvas.turn) / canvas.scale, -1, 0)
    at = panorama_position(x, y, stand.view, stand.pose)
    across, down = (np.asarray(v - 0.5, np.float32) for v in at[:2])
    pixels, counts = read(k)
    border = cv2.BORDER_WRAP if stand.view.wraps else cv2.BORDER_REPLICATE
    colours = cv2.remap(pixels, across, down, cv2.INTER_LINEAR, borderMode=border)
    counted = cv2.remap(counts, across, down, cv2.INTER_LINEAR, borderMode=border) > 252
    d = np.hypot(x, y) / height
    weight = np.clip((d - NADIR) / FEATHER, 0, 1) * np.clip((REACH - d) / FEATHER, 0, 1)
    weight = weight / np.maximum(d, 0.1) ** 4 * (counted & at[2])
    along, degree = (d**2 + 1) * height, np.pi / 180
    (top, bottom), rows_of = stand.view.vertical_fov, stand.view.height
    row_deep = (top - bottom) / rows_of * degree / np.sqrt(12)
    variance = (_PLACED * height) ** 2 + along**2 * ((_TILTED * degree) ** 2 + row_deep**2)
    return _Layer(
        part,
        np.asarray(colours, np.float32) * np.float32(stand.gain),
        weight.astype(np.float32),
        variance.astype(np.float32),
    )


def _blend(row: int, column: int, shape: tuple[int, int], layers: list[_Layer]) -> Tile:
    """Blend layers, doubting those that the others contradict."""
    total, weights = np.zeros((*shape, 3), np.float32), np.full(shape, 1e-12, np.float32)
    for layer in layers:
        total[layer.part] += layer.colours * layer.weight[..., None]
        weights[layer.part] += layer.weight
    mean = total / weights[..., None]
    for _ in range(2):
        total[:], weights[:] = 0, 1e-12
        for layer in layers:
            off = np.abs(layer.colours - mean[layer.part]).mean(axis=-1) / TOLERANCE
            weight = layer.weight / (1 + off**2) ** 2
            total[layer.part] += layer.colours * weight[..., None]
            weights[layer.part] += weight
        mean = total / weights[..., None]
    shown, agree = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    variance = np.full(shape, np.inf, np.float32)
    for layer in layers:
        sees = layer.weight > 0
        off = np.abs(layer.colours - mean[layer.part]).mean(axis=-1)
        agrees = sees & (off < TOLERANCE)
        shown[layer.part] += sees
        agree[layer.part] += agrees
        seen = np.where(agrees, layer.variance, np.inf)
        variance[layer.part] = np.minimum(variance[layer.part], seen)
    claimed = (agree >= 2) & (agree >= AGREEING * shown)
    # A lone pixel among others that disagree agrees by chance.
    claimed &= cv2.blur(claimed.astype(np.float32), (9, 9)) > 0.7
    centimetres = np.clip(np.rint(100 * np.sqrt(variance)), 1, 254)
    return Tile(
        column,
        row,
        np.where(shown[..., None] > 0, np.clip(np.rint(mean), 0, 255), 255).astype(np.uint8),
        np.where(claimed, 255, 0).astype(np.uint8),
        np.where(claimed, centimetres, 255).astype(np.uint8),
    )


def gains(
    views: LevelViews, placements: Array, height: float, pairs: list[tuple[int, int]]
) -> Array:
    """Factors (N,) that make frames equally bright where they show the same ground."""
    n, step = len(placements), 0.05
    at = placements / [height, height, 1, 1, 1]
    size = views.images.shape[1]
    offset = (np.arange(size) + 0.5 - size / 2) * views.resolution
    distance = np.hypot(offset[None, :], offset[:, None])
    ring = ((distance > 1) & (distance < 3)).astype(np.float32)
    matrix, right = scipy.sparse.lil_matrix((n, n)), np.zeros(n)
    matrix.setdiag(np.full(n, 0.05))
    for i, j in pairs:
        east, north = ((at[i] + at[j]) / 2)[:2].tolist()
        window = Window(east, north, round(6 / step), step)
        seen = [ring * (1 if views.seen is None else views.seen[k]) for k in (i, j)]
        both = np.logical_and(
            *(draw(s.astype(np.float32), views.resolution, at[k], window) > 0.99
              for s, k in zip(seen, (i, j), strict=True))
        )  # fmt: skip
        if both.sum() * step**2 < MIN_OVERLAP:
            continue
        one, two = (
            np.median(draw(views.images[k], views.resolution, at[k], window)[both]) for k in (i, j)
        )
        ratio = float(np.clip(np.log((one + 1) / (two + 1)), -0.5, 0.5))
        for k, sign in ((i, -1), (j, 1)):
            matrix[k, k] += 1
            right[k] += sign * ratio
        matrix[i, j] -= 1
        matrix[j, i] -= 1
    logs = spsolve(matrix.tocsc(), right)
    return np.exp(logs - logs.mean())
