"""Where every BEV pixel looks: lookups from grid, view and pose, compiled at the first use.

`bevgen.geometry.panorama_pixels` is the reference; this computes the same thing fast. Arguments are
checked by the callers, never here.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.geometry import FULL_SPHERE, BevGrid, PanoramaView, Pose, ep_bev_pixels
from bevgen.projection.lookup import HIDDEN, SUBPIXEL, Lookup

# BEV pixels that cover more panorama pixels than this are the mean of four samples, or of eight.
# Reading more costs more than it gains: 4 times as many samples gain 1 dB within 5 m.
FOUR_SAMPLES, EIGHT_SAMPLES = 20.0, 128.0
GOLDEN = 0.6180339887498949
BLOCK = 256  # points whose rays and angles wait in the first-level cache


class Camera(NamedTuple):
    """Camera axes in the world (rows of camera-from-world) and metres above the ground."""

    right_x: float
    right_y: float
    right_z: float
    forward_x: float
    forward_y: float
    forward_z: float
    up_x: float
    up_y: float
    up_z: float
    height: float


class CameraModel(NamedTuple):
    """Where azimuth and elevation (radians) lie on the panorama (pixels)."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    columns_per_radian: float
    rows_per_radian: float
    wraps: bool


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes lookups of panoramas of one kind.

    Attributes
    ----------
    grid, view
        What is drawn, and what the panoramas show.
    antialias
        Average where a BEV pixel covers many panorama pixels.
    compat
        Look as the published script does; of a pose the height alone counts.
    """

    grid: BevGrid
    view: PanoramaView
    antialias: bool
    compat: bool = False

    def lookup(self, pose: Pose) -> tuple[Lookup, int]:
        """Return the lookup of a pose, kept for later ones, and the columns to add to it."""
        kept = _recent if self.grid.size <= 1024 else _last
        if pose.heading and self.shifts(pose):
            turn = self.view.width * SUBPIXEL
            shift = round(-pose.heading / 360 * turn) % turn
            return kept(self, replace(pose, heading=0.0)), shift
        return kept(self, pose), 0

    def shifts(self, pose: Pose) -> bool:
        """Whether a heading is a mere shift of the panorama: without tilt it is."""
        return self.view.wraps and not (self.compat or pose.pitch or pose.roll)

    def valid(self, pose: Pose) -> NDArray[np.bool_]:
        """Return what the panorama shows, (size, size), shared."""
        if self.view.wraps and self.view.vertical_fov == FULL_SPHERE and not self.compat:
            return _everything(self.grid.size)
        return self.lookup(pose)[0].valid


@lru_cache(maxsize=1)
def _everything(size: int) -> NDArray[np.bool_]:
    valid = np.ones((size, size), np.bool_)
    valid.flags.writeable = False
    return valid


def plan(planner: Planner, pose: Pose) -> Lookup:
    """Compute a lookup."""
    grid, view = planner.grid, planner.view
    none = np.empty(0, np.int32)
    samples = none, np.zeros(1, np.int32), none, none
    if planner.compat:
        column, row, valid = ep_bev_pixels(grid, view, pose.height)
        columns, rows = (
            np.floor(np.where(valid, a, 0) * SUBPIXEL + 0.5).astype(np.int32).ravel()
            for a in (column, row)
        )
        rows[~valid.ravel()] = HIDDEN
        return Lookup(columns, rows, *samples, valid)
    camera, model, resolution = camera_of(pose), model_of(view), float(grid.resolution)
    columns, rows = plan_centres(grid.size, resolution, camera, model)
    if planner.antialias:
        samples = plan_samples(grid.size, resolution, camera, model, columns, rows)
    valid = (rows != HIDDEN).reshape(grid.size, grid.size)
    even = planner.shifts(pose) and view.width % 2 == 0 and grid.size % 2 == 0
    mirrored = even and is_mirrored(columns, rows, *samples, view.width * SUBPIXEL // 2)
    return Lookup(columns, rows, *samples, valid, mirrored)


@njit(cache=True)
def is_mirrored(
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    half: int,
) -> bool:
    """Whether a lookup's second half is its first, in reverse, half a turn on: see `Lookup`."""
    last, pixels = len(columns) - 1, len(averaged)
    for k in range(len(columns) // 2):
        way = columns[last - k] - columns[k]
        if rows[last - k] != rows[k] or (way != half and way != -half):
            return False
    for m in range(pixels // 2):
        begin, other, count = first[m], first[pixels - 1 - m], first[m + 1] - first[m]
        if averaged[pixels - 1 - m] != last - averaged[m] or first[pixels - m] - other != count:
            return False
        for k in range(count):
            way = sample_columns[other + k] - sample_columns[begin + k]
            same = sample_rows[other + k] == sample_rows[begin + k]
            if not same or (way != half and way != -half):
                return False
    return pixels % 2 == 0


# About 3 MB each at 512 pixels, 0.2 GB at 4096: of large ones the last alone is kept.
_recent, _last = lru_cache(maxsize=8)(plan), lru_cache(maxsize=1)(plan)


def camera_of(pose: Pose) -> Camera:
    """Return the kernels' form of a pose."""
    axes: list[float] = pose.world_from_camera().T.ravel().tolist()
    return Camera._make([*axes, float(pose.height)])


@njit(cache=True)
def cameras_of(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `camera_of` many poses, (n, 10), from height, heading, pitch and roll, (n, 4)."""
    cameras = np.empty((len(poses), 10))
    for k in range(len(poses)):
        camera = cameras[k]
        h, p, r = math.radians(-poses[k, 1]), math.radians(poses[k, 2]), math.radians(poses[k, 3])
        ch, cp, cr = math.cos(h), math.cos(p), math.cos(r)
        sh, sp, sr = math.sin(h), math.sin(p), math.sin(r)
        camera[0], camera[1], camera[2] = ch * cr - sh * sp * sr, sh * cr + ch * sp * sr, -cp * sr
        camera[3], camera[4], camera[5] = -sh * cp, ch * cp, sp
        camera[6], camera[7], camera[8] = ch * sr + sh * sp * cr, sh * sr - ch * sp * cr, cp * cr
        camera[9] = poses[k, 0]
    return cameras


def model_of(view: PanoramaView) -> CameraModel:
    """Return the kernels' form of a view."""
    (top, bottom), (left, right) = np.deg2rad(view.vertical_fov), np.deg2rad(view.horizontal_fov)
    return CameraModel(
        width=view.width,
        height=view.height,
        left=float(left),
        right=float(right),
        top=float(top),
        bottom=float(bottom),
        columns_per_radian=float(view.width / (right - left)),
        rows_per_radian=float(view.height / (top - bottom)),
        wraps=view.wraps,
    )


@njit(error_model="numpy", inline="always")
def octant_tangent(y: float, x: float) -> float:
    """Tangent of the angle of (x, y) taken into the first octant, turned by -pi/8."""
    size_x, size_y = abs(x), abs(y)
    longer, shorter = max(size_x, size_y), min(size_x, size_y)
    along = longer * 0.9238795325112867 + shorter * 0.3826834323650898  # cos, sin of pi/8
    across = shorter * 0.9238795325112867 - longer * 0.3826834323650898
    return across / (along if along > 0 else 1.0)


@njit(error_model="numpy", inline="always")
def arctan(t: float) -> float:
    """Angle of -pi/8 to pi/8 that has a tangent: a polynomial fitted at Chebyshev nodes."""
    z = t * t
    series = -0.03770164591082783
    series = series * z + 0.0697700007589979
    series = series * z - 0.08993216152080998
    series = series * z + 0.11103534795047523
    series = series * z - 0.14285391252848226
    series = series * z + 0.1999999318872209
    series = series * z - 0.3333333327838304
    series = series * z + 0.9999999999992709
    return t * series


@njit(error_model="numpy", inline="always")
def from_octant(angle: float, y: float, x: float) -> float:
    """Angle of (x, y), -pi to pi, from the one whose tangent is `octant_tangent`."""
    size_x, size_y = abs(x), abs(y)
    angle = (math.pi / 8 if max(size_x, size_y) > 0 else 0.0) + angle
    angle = math.pi / 2 - angle if size_y > size_x else angle
    angle = math.pi - angle if x < 0 else angle
    return -angle if y < 0 else angle


@njit(error_model="numpy", inline="always")
def arctan2(y: float, x: float) -> float:
    """Angle of (x, y) in radians, -pi to pi, within 1e-12: without branches, for vector code."""
    return from_octant(arctan(octant_tangent(y, x)), y, x)


@njit(error_model="numpy", inline="always")
def ray_to(x: float, y: float, camera: Camera) -> tuple[float, float, float, float]:
    """Ground point (x, y) on the camera's axes, right, forward and up; distance from the last."""
    z = -camera.height
    right = camera.right_x * x + camera.right_y * y + camera.right_z * z
    forward = camera.forward_x * x + camera.forward_y * y + camera.forward_z * z
    up = camera.up_x * x + camera.up_y * y + camera.up_z * z
    return right, forward, up, math.sqrt(right * right + forward * forward)


@njit(error_model="numpy", inline="always")
def place(azimuth: float, elevation: float, model: CameraModel) -> tuple[float, float, bool]:
    """Column and row (pixel centres at integers) of a direction in radians; True if it is shown.

    Rows, and columns that do not wrap, are clamped to the outermost pixels' centres.
    """
    azimuth = azimuth - 2 * math.pi if azimuth >= math.pi else azimuth
    # No rounding may take straight down out of a full sphere.
    elevation = min(max(elevation, -math.pi / 2), math.pi / 2)
    column = (azimuth - model.left) * model.columns_per_radian - 0.5
    row = (model.top - elevation) * model.rows_per_radian - 0.5
    row = min(max(row, 0.0), model.height - 1.0)
    shown = (model.bottom <= elevation) & (elevation <= model.top)
    if not model.wraps:
        shown = shown & (model.left <= azimuth) & (azimuth <= model.right)
        column = min(max(column, 0.0), model.width - 1.0)
    return column, row, shown


@njit(error_model="numpy", inline="always")
def locate(x: float, y: float, camera: Camera, model: CameraModel) -> tuple[float, float, bool]:
    """Where the panorama shows ground point (x, y), as in `place`."""
    right, forward, up, distance = ray_to(x, y, camera)
    return place(arctan2(right, forward), arctan2(up, distance), model)


@njit(error_model="numpy", inline="always")
def subpixels(coordinate: float) -> int:
    """Nearest lookup unit of a coordinate of -1 or more."""
    return np.int32(np.int32(coordinate * SUBPIXEL + (SUBPIXEL + 0.5)) - SUBPIXEL)


@njit(error_model="numpy")
def arctan2_all(
    ys: NDArray[np.float64], xs: NDArray[np.float64], angles: NDArray[np.float64]
) -> None:
    """Write `arctan2` of many.

    In short loops, as a processor overlaps few rounds of a long one: each waits for its own sums.
    """
    for k in range(len(xs)):
        angles[k] = octant_tangent(ys[k], xs[k])
    for k in range(len(xs)):
        angles[k] = arctan(angles[k])
    for k in range(len(xs)):
        angles[k] = from_octant(angles[k], ys[k], xs[k])


@njit(error_model="numpy")
def locate_all(
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    camera: Camera,
    model: CameraModel,
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> None:
    """Write the lookup points of ground points: `locate`, step by step for a block of points."""
    scratch = np.empty((6, BLOCK))
    rights, forwards, ups, distances = scratch[0], scratch[1], scratch[2], scratch[3]
    azimuths, elevations = scratch[4], scratch[5]
    for start in range(0, len(xs), BLOCK):
        block = slice(start, start + BLOCK)
        x, y, block_columns, block_rows = xs[block], ys[block], columns[block], rows[block]
        count = len(x)
        for k in range(count):
            rights[k], forwards[k], ups[k], distances[k] = ray_to(x[k], y[k], camera)
        arctan2_all(rights[:count], forwards[:count], azimuths)
        arctan2_all(ups[:count], distances[:count], elevations)
        for k in range(count):
            column, row, shown = place(azimuths[k], elevations[k], model)
            block_columns[k] = subpixels(column)
            block_rows[k] = subpixels(row) if shown else HIDDEN


@njit(cache=True)
def plan_centres(
    size: int, resolution: float, camera: Camera, model: CameraModel
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ``columns`` and ``rows`` of a lookup: where the centres of all BEV pixels look.

    Parameters
    ----------
    size, resolution
        BEV pixels on each side, metres per pixel.
    camera, model
        Where from, and how the panorama shows it.
    """
    columns, rows = np.empty(size * size, np.int32), np.empty(size * size, np.int32)
    xs = (np.arange(size) + 0.5 - size / 2) * resolution
    ys = np.empty(size)
    for i in range(size):
        ys[:] = (size / 2 - i - 0.5) * resolution
        row = slice(i * size, (i + 1) * size)
        locate_all(xs, ys, camera, model, columns[row], rows[row])
    return columns, rows


@njit(error_model="numpy", inline="always")
def axis_distances2(x: float, y: float, camera: Camera) -> tuple[float, float]:
    """Squared distances of ground point (x, y): to the camera's vertical axis, to the camera."""
    distance2 = x * x + y * y + camera.height * camera.height
    up = camera.up_x * x + camera.up_y * y - camera.up_z * camera.height
    return max(distance2 - up * up, 1e-12), distance2


@njit(error_model="numpy", inline="always")
def sample_count(x: float, y: float, resolution: float, camera: Camera, model: CameraModel) -> int:
    """How many panorama points the mean over the BEV pixel at (x, y) takes: 1, 4 or 8.

    The pixel's footprint is ``resolution / rho`` radians of azimuth (rho: distance from the
    camera's vertical axis) by ``resolution * height / distance^2`` of elevation.
    """
    rho2, distance2 = axis_distances2(x, y, camera)
    columns = model.columns_per_radian * resolution / math.sqrt(rho2)
    rows = model.rows_per_radian * resolution * camera.height / distance2
    columns = min(columns, float(model.width))
    area = columns * rows
    return 8 if area > EIGHT_SAMPLES else 4 if area > FOUR_SAMPLES else 1


@njit(error_model="numpy")
def count_samples(
    size: int,
    resolution: float,
    camera: Camera,
    model: CameraModel,
    rows: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ``averaged`` and ``first`` of a lookup: the shown pixels that need several samples."""
    # Whether columns * rows > FOUR_SAMPLES, which few reach, the squares can tell.
    footprint = model.columns_per_radian * resolution * model.rows_per_radian * resolution
    bound = (footprint * camera.height / FOUR_SAMPLES) ** 2
    xs = (np.arange(size) + 0.5 - size / 2) * resolution
    near = np.empty(size, np.bool_)
    averaged, first = np.empty(size * size, np.int32), np.empty(size * size + 1, np.int32)
    pixels, samples = 0, 0
    for i in range(size):
        y = (size / 2 - i - 0.5) * resolution
        row = rows[i * size : (i + 1) * size]
        some = np.int32(0)
        for j in range(size):
            rho2, distance2 = axis_distances2(xs[j], y, camera)
            near[j] = (rho2 * distance2 * distance2 < bound) & (row[j] != HIDDEN)
            some |= np.int32(near[j])
        for j in range(size if some else 0):
            count = sample_count(xs[j], y, resolution, camera, model) if near[j] else 1
            if count > 1:
                averaged[pixels], first[pixels] = i * size + j, samples
                pixels, samples = pixels + 1, samples + count
    first[pixels] = samples
    return averaged[:pixels].copy(), first[: pixels + 1].copy()


@njit(error_model="numpy", inline="always")
def spread_sample(k: int, count: int, x: float, y: float, resolution: float) -> tuple[float, float]:
    """Ground point of sample ``k`` of ``count``, spread over the area of the BEV pixel at (x, y).

    A rank-1 lattice, symmetric about the centre and laid along the direction to the camera, so that
    it turns with the picture.
    """
    r = math.sqrt(x * x + y * y)
    radial_x, radial_y = (x / r, y / r) if r > 0 else (0.0, 1.0)
    turn = (k - (count - 1) / 2) * GOLDEN
    along = (turn - math.floor(turn + 0.5)) * resolution
    across = ((k + 0.5) / count - 0.5) * resolution
    return x + along * radial_x + across * radial_y, y + along * radial_y - across * radial_x


@njit(cache=True, error_model="numpy")
def plan_samples(
    size: int,
    resolution: float,
    camera: Camera,
    model: CameraModel,
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return ``averaged``, ``first``, ``sample_columns`` and ``sample_rows`` of a lookup.

    Arguments as in `plan_centres`, and the ``columns`` and ``rows`` that it returned. The centre
    stands in for samples that the panorama does not show.
    """
    averaged, first = count_samples(size, resolution, camera, model, rows)
    samples = first[len(averaged)]
    xs, ys = np.empty(samples), np.empty(samples)
    for m in range(len(averaged)):
        i, j = divmod(averaged[m], size)
        x, y = (j + 0.5 - size / 2) * resolution, (size / 2 - i - 0.5) * resolution
        count = first[m + 1] - first[m]
        for k in range(count):
            xs[first[m] + k], ys[first[m] + k] = spread_sample(k, count, x, y, resolution)
    sample_columns, sample_rows = np.empty(samples, np.int32), np.empty(samples, np.int32)
    locate_all(xs, ys, camera, model, sample_columns, sample_rows)
    for m in range(len(averaged)):
        for n in range(first[m], first[m + 1]):
            if sample_rows[n] == HIDDEN:
                sample_columns[n], sample_rows[n] = columns[averaged[m]], rows[averaged[m]]
    return averaged, first, sample_columns, sample_rows
