"""What a pixel means: the conventions of world, panorama and bird's-eye view, and nothing else.

World: x east, y north, z up, in metres; the camera stands ``height`` metres above flat ground at
x = y = 0. Camera axes: right, forward, up. Pixel centres lie at half-integers. This NumPy float64
mapping is the reference; `bevgen.projection.planning` computes the same thing fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import InputError

Floats = NDArray[np.float64]

MAX_SIZE = 8192
MIN_RESOLUTION, MAX_RESOLUTION = 1e-6, 1000.0  # metres per pixel
MAX_HEIGHT = 10_000.0  # metres: higher than anything that looks at a street
MAX_HEADING = 36_000.0  # degrees: beyond a hundred turns a number is something else
FULL_SPHERE = (90.0, -90.0)
FULL_CIRCLE = (-180.0, 180.0)
# The ellipsoid WGS84: semi-major axis in metres, flattening, and square of the eccentricity.
EARTH_RADIUS = 6_378_137.0
EARTH_FLATTENING = 1 / 298.257223563
EARTH_E2 = EARTH_FLATTENING * (2 - EARTH_FLATTENING)


@dataclass(frozen=True, slots=True)
class BevGrid:
    """The ground area that a bird's-eye view (BEV) shows: a north-up square around the camera.

    Parameters
    ----------
    size
        Pixels on each side, 1 to 8192.
    resolution
        Ground sample distance in metres per pixel, 1e-6 to 1000.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    size: int = 512
    resolution: float = 0.06

    def __post_init__(self) -> None:
        whole = isinstance(self.size, Integral) and not isinstance(self.size, bool)
        if not (whole and 1 <= self.size <= MAX_SIZE):
            raise InputError(
                f"size must be a whole number of 1 to {MAX_SIZE} pixels, not {self.size!r}"
            )
        finest, coarsest = MIN_RESOLUTION, MAX_RESOLUTION
        if not (_is_finite(self.resolution) and finest <= self.resolution <= coarsest):
            raise InputError(
                f"resolution must be above 0, {finest:g} to {coarsest:g} metres per pixel,"
                f" not {self.resolution!r}"
            )

    @property
    def extent(self) -> float:
        """Metres from edge to edge."""
        return self.size * self.resolution

    def ground(self) -> tuple[Floats, Floats]:
        """Where each pixel looks: x (east) per column and y (north) per row, in metres."""
        centres = np.arange(self.size, dtype=np.float64) + 0.5
        return self.to_ground(centres, centres)

    def to_ground(self, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
        """Metres east and north of the camera of points in the BEV.

        Parameters
        ----------
        column, row : array_like
            Pixels right of its left edge and below its upper edge: the centre of the first pixel
            is 0.5, 0.5.
        """
        x = (np.asarray(column, np.float64) - self.size / 2) * self.resolution
        return x, (self.size / 2 - np.asarray(row, np.float64)) * self.resolution

    def to_pixels(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Column and row, as in `to_ground`, of points at metres east and north of the camera."""
        column = np.asarray(x, np.float64) / self.resolution + self.size / 2
        return column, self.size / 2 - np.asarray(y, np.float64) / self.resolution


@dataclass(frozen=True, slots=True)
class PanoramaView:
    """Which part of the sphere an equirectangular image of ``height`` x ``width`` pixels shows.

    Parameters
    ----------
    height, width
        Pixels.
    vertical_fov
        Elevations in degrees of the upper and the lower edge, 90 >= top > bottom >= -90.
    horizontal_fov
        Azimuths in degrees of the left and the right edge, clockwise from the centre column of the
        whole 360-degree frame, -180 <= left < right <= 180. With the whole circle columns wrap.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    height: int
    width: int
    vertical_fov: tuple[float, float] = FULL_SPHERE
    horizontal_fov: tuple[float, float] = FULL_CIRCLE

    def __post_init__(self) -> None:
        for name in ("vertical_fov", "horizontal_fov"):
            field = getattr(self, name)
            if not (hasattr(field, "__len__") and len(field) == 2 and all(map(_is_finite, field))):
                raise InputError(f"{name} must be two numbers of degrees, not {field!r}")
            object.__setattr__(self, name, (float(field[0]), float(field[1])))
        top, bottom = self.vertical_fov
        left, right = self.horizontal_fov
        if self.height < 1 or self.width < 1:
            raise InputError(f"a panorama of {self.height} x {self.width} pixels has no pixels")
        if not 90 >= top > bottom >= -90:
            raise InputError(
                f"vertical field of view must be TOP BOTTOM with 90 >= TOP > BOTTOM >= -90 degrees,"
                f" not {top:g} {bottom:g}"
            )
        if not -180 <= left < right <= 180:
            raise InputError(
                f"horizontal field of view must be LEFT RIGHT with -180 <= LEFT < RIGHT <= 180"
                f" degrees, not {left:g} {right:g}"
            )

    @property
    def wraps(self) -> bool:
        """Whether the right edge continues at the left one."""
        return self.horizontal_fov == FULL_CIRCLE

    def to_angles(self, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
        """Azimuth and elevation in degrees, in the camera's axes, of points in the panorama.

        Parameters
        ----------
        column, row : array_like
            Pixels right of its left edge and below its upper edge: the centre of the first pixel
            is 0.5, 0.5.
        """
        (top, bottom), (left, right) = self.vertical_fov, self.horizontal_fov
        azimuth = left + np.asarray(column, np.float64) / self.width * (right - left)
        return azimuth, top - np.asarray(row, np.float64) / self.height * (top - bottom)

    def to_pixels(self, azimuth: ArrayLike, elevation: ArrayLike) -> tuple[Floats, Floats]:
        """Column and row, as in `to_angles`, of directions: azimuths of -180 to 180 degrees."""
        (top, bottom), (left, right) = self.vertical_fov, self.horizontal_fov
        column = (_half_open(azimuth) - left) / (right - left) * self.width
        return column, (top - np.asarray(elevation, np.float64)) / (top - bottom) * self.height

    def shows(self, azimuth: ArrayLike, elevation: ArrayLike) -> NDArray[np.bool_]:
        """Whether the panorama shows directions: azimuths of -180 to 180 degrees."""
        azimuth, elevation = _half_open(azimuth), np.asarray(elevation)
        (top, bottom), (left, right) = self.vertical_fov, self.horizontal_fov
        shown = (elevation <= top) & (elevation >= bottom)
        return shown if self.wraps else shown & (azimuth >= left) & (azimuth <= right)


@dataclass(frozen=True, slots=True)
class Pose:
    """How the camera stands: metres above the ground, and angles in degrees.

    Parameters
    ----------
    height
        Metres above flat ground, above 0 and at most 10000.
    heading
        Compass direction of the panorama's centre column, clockwise from north, -36000 to 36000.
    pitch
        Nose up is positive, -90 to 90.
    roll
        Right side down is positive, -180 to 180.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    height: float = 2.0
    heading: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        if not (_is_finite(self.height) and 0 < self.height <= MAX_HEIGHT):
            raise InputError(
                f"height must be above 0 and at most {MAX_HEIGHT:g} metres (the camera stands above"
                f" the ground), not {self.height!r}"
            )
        for name, limit in (("heading", MAX_HEADING), ("pitch", 90.0), ("roll", 180.0)):
            value = getattr(self, name)
            if not (_is_finite(value) and abs(value) <= limit):
                raise InputError(f"{name} must be finite degrees within +-{limit:g}, not {value!r}")

    def world_from_camera(self) -> NDArray[np.float64]:
        """Rotation (3, 3) that takes camera axes to the world: Rz(-heading) Rx(pitch) Ry(roll)."""
        h, p, r = (math.radians(angle) for angle in (-self.heading, self.pitch, self.roll))
        rz = np.array([[math.cos(h), -math.sin(h), 0], [math.sin(h), math.cos(h), 0], [0, 0, 1]])
        rx = np.array([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
        ry = np.array([[math.cos(r), 0, math.sin(r)], [0, 1, 0], [-math.sin(r), 0, math.cos(r)]])
        return rz @ rx @ ry

    def to_angles(self, directions: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Azimuth and elevation in degrees, in the camera's axes, of directions in the world.

        Parameters
        ----------
        directions : (..., 3) float64
            East, north and up of the camera, of any length above 0.
        """
        right, forward, up = np.moveaxis(directions @ self.world_from_camera(), -1, 0)
        azimuth = np.rad2deg(np.arctan2(right, forward))
        return azimuth, np.rad2deg(np.arctan2(up, np.hypot(right, forward)))


def _half_open(azimuth: ArrayLike) -> Floats:
    """Degrees of -180 to 180, those straight behind as -180."""
    azimuth = np.asarray(azimuth, np.float64)
    return np.where(azimuth >= 180, azimuth - 360, azimuth)


def are_poses(poses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of height, heading, pitch and roll `Pose` takes, (n,): of many at once."""
    within = np.abs(poses) <= (MAX_HEIGHT, MAX_HEADING, 90.0, 180.0)  # which NaN is not
    return within.all(axis=1) & (poses[:, 0] > 0)


def is_full_sphere(height: int, width: int, degrees_across: float = 360.0) -> bool:
    """Whether pixels as high as wide, within 1 %, would show the sphere from top to bottom.

    Of an image of another shape nobody knows which part it shows, unless told.
    """
    return abs(width / degrees_across * 180 / height - 1) <= 0.01


def _is_finite(value: Any) -> bool:
    # Asking an abstract class takes longer than all else, for each image.
    real = type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))
    return real and math.isfinite(value)


def panorama_pixels(
    grid: BevGrid, view: PanoramaView, pose: Pose
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Map every BEV pixel's centre to the panorama: the reference for all kernels.

    Parameters
    ----------
    grid, view, pose
        What is looked at, by what, and from where.

    Returns
    -------
    column, row : (size, size) float64
        Panorama coordinates with pixel centres at integers (the centre of the first pixel is 0),
        so column lies in [-0.5, width - 0.5) for a whole circle.
    valid : (size, size) bool
        Whether the panorama shows that point.

    Notes
    -----
    A ground point at azimuth a (clockwise from the centre column) and elevation e of the camera's
    frame lies at column (a - left) / (right - left) * width - 0.5 and row
    (top - e) / (top - bottom) * height - 0.5.
    """
    x, y = np.meshgrid(*grid.ground())
    angles = pose.to_angles(np.stack([x, y, np.full(x.shape, -pose.height)], axis=-1))
    column, row = view.to_pixels(*angles)
    return column - 0.5, row - 0.5, view.shows(*angles)


def ep_bev_pixels(
    grid: BevGrid, view: PanoramaView, height: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Map BEV pixels to the panorama as the published script does (EP-BEV, ECCV 2024, eq. 1-4).

    It differs from `panorama_pixels`: no half pixel on the panorama's side, no wrapping (a black
    line runs south of the camera), no pose. For its released BEVs and weights only.

    Parameters
    ----------
    grid, view
        The BEV and the panorama, a full sphere.
    height
        Metres above the ground, positive (the script itself takes it negative).

    Returns
    -------
    column, row : (size, size) float64
        Panorama coordinates with pixel centres at integers.
    valid : (size, size) bool
        False where column > width - 1 or row > height - 1: black in the published BEVs.
    """
    offset = np.arange(grid.size) - (grid.size / 2 - 0.5)
    south, east = offset[:, None], offset[None, :]
    azimuth = np.mod(np.arctan2(south, east) - np.pi / 2, 2 * np.pi)
    zenith_angle = np.arctan2(np.hypot(south, east) * grid.resolution, -height)
    column = azimuth / (2 * np.pi) * view.width
    row = zenith_angle / np.pi * view.height
    return column, row, (column <= view.width - 1) & (row <= view.height - 1)


@lru_cache(maxsize=64)
def needed_rows(grid: BevGrid, view: PanoramaView, pose: Pose) -> tuple[int, int]:
    """Rows of the panorama that a projection reads: the first, and the one after the last.

    With whatever options: neighbours and the half pixel of ``compat`` are among them.

    Notes
    -----
    The grid's outline is seen as four arcs of great circles. Elevation (in the camera's frame) has
    its extremes over the grid at a corner, where it stands still along an arc, or straight up or
    down.
    """
    # Anti-aliasing reaches beyond a pixel's own square, as far as its corners if turned.
    half = grid.extent / 2 + 0.25 * grid.resolution
    up = pose.world_from_camera()[:, 2]
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    start = np.column_stack([corners, np.full(4, -pose.height)])
    along = np.roll(start, -1, axis=0) - start
    # Where on start + t along is the derivative of up . ray / |ray| zero?
    a, b = start @ up, along @ up
    aa, ab, bb = ((u * v).sum(axis=1) for u, v in ((start, start), (start, along), (along, along)))
    slope = b * ab - a * bb
    t = np.clip(np.divide(a * ab - b * aa, slope, out=np.zeros(4), where=slope != 0), 0, 1)
    rays = np.concatenate([start, start + t[:, None] * along])
    sines = rays @ up / np.linalg.norm(rays, axis=1)
    highest, lowest = np.degrees(np.arcsin(np.clip([sines.max(), sines.min()], -1, 1)))
    straight = up * (-pose.height / up[2]) if up[2] else np.full(3, np.inf)
    if np.abs(straight[:2]).max() <= half:  # the camera's axis meets the grid
        highest, lowest = (90.0, lowest) if up[2] < 0 else (highest, -90.0)
    top, bottom = view.vertical_fov
    rows = [(top - elevation) / (top - bottom) * view.height for elevation in (highest, lowest)]
    margin = 2  # a neighbour, and the half pixel of compat
    first, last = int(rows[0]) - margin, int(rows[1]) + 1 + margin
    return min(max(first, 0), view.height), min(max(last, 0), view.height)
