"""Where on the ground, and where on Earth, a pixel lies; and how sure that is.

The ground is flat and ``pose.height`` below the camera, as everywhere in bevgen. Positions on it
are metres east (x) and north (y) of the camera; `LocalPlane` takes them to latitude and longitude.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import InputError
from bevgen.geometry import EARTH_E2, EARTH_RADIUS, PanoramaView, Pose

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How sure pose and click are: standard deviations, each 0 or more.

    Parameters
    ----------
    height
        Of the camera above the ground, in metres.
    heading, pitch, roll
        Degrees.
    position
        Of the camera, in metres: east and north each.
    click
        Of the point in the panorama, in each direction: pixels in `ground_position`, degrees in
        `ground_from_angles`.

    Raises
    ------
    InputError
        If one is negative or no number.
    """

    height: float = 0.0
    heading: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    position: float = 0.0
    click: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise InputError(
                    f"the standard deviation of {field.name} must be 0 or more, not {value!r}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class GroundPoints:
    """Points on the ground around a camera.

    Attributes
    ----------
    x, y : (...) float64
        Metres east and north of the camera. NaN where the ray does not meet the ground, or too far
        away to tell where.
    covariance : (..., 2, 2) float64
        Of (x, y), in square metres, to first order. NaN where x and y are.
    """

    x: Array
    y: Array
    covariance: Array

    def ellipse(self, level: float = 0.95) -> tuple[Array, Array, Array]:
        """Ellipse that holds the true point with a probability of ``level``.

        Returns
        -------
        semi_major, semi_minor : (...) float64
            Half its length and half its width, in metres.
        angle : (...) float64
            Direction of its length: degrees clockwise from north, 0 to 180.

        Raises
        ------
        InputError
            If ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise InputError(f"a probability lies between 0 and 1, not {level!r}")
        a, b, c = (self.covariance[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1)))
        middle, radius = (a + c) / 2, np.hypot((a - c) / 2, b)
        # The quantile of chi-squared with two degrees of freedom, in closed form.
        scale = -2 * math.log1p(-level)
        major = np.sqrt(scale * (middle + radius))
        minor = np.sqrt(scale * np.maximum(middle - radius, 0))
        angle = np.rad2deg(np.arctan2(2 * b, c - a) / 2) % 180
        return major, minor, angle


def ground_position(
    column: ArrayLike,
    row: ArrayLike,
    view: PanoramaView,
    pose: Pose,
    *,
    uncertainty: Uncertainty | None = None,
    min_depression: float = 1.0,
) -> GroundPoints:
    """Find the ground that pixels of a panorama show.

    Parameters
    ----------
    column, row : (...) array_like
        Pixels right of the panorama's left edge and below its upper edge: the centre of the first
        pixel is 0.5, 0.5.
    view
        Its size in pixels, and which part of the sphere it shows.
    pose
        Height above the ground, heading, pitch and roll.
    uncertainty
        Standard deviations of all these, ``click`` in pixels; nothing by default.
    min_depression
        Degrees. NaN where a ray points less than this below the horizon: there the ground plane
        says nothing, as a small tilt moves the point very far.

    Returns
    -------
    GroundPoints

    Raises
    ------
    InputError
        If ``min_depression`` is not above 0 and below 90.
    """
    azimuth, elevation = view.to_angles(np.asarray(column, float), np.asarray(row, float))
    click = (uncertainty or Uncertainty()).click
    (top, bottom), (left, right) = view.vertical_fov, view.horizontal_fov
    clicks = (click * (right - left) / view.width, click * (top - bottom) / view.height)
    return _meet(azimuth, elevation, pose, uncertainty or Uncertainty(), clicks, min_depression)


def ground_from_angles(
    azimuth: ArrayLike,
    elevation: ArrayLike,
    pose: Pose,
    *,
    uncertainty: Uncertainty | None = None,
    min_depression: float = 1.0,
) -> GroundPoints:
    """Find the ground in directions from a camera: `ground_position` for angles.

    Parameters
    ----------
    azimuth, elevation : (...) array_like
        Degrees in the camera's own axes: clockwise from the panorama's centre column, and above
        its horizon.
    pose, uncertainty, min_depression
        As for `ground_position`, ``click`` in degrees.

    Returns
    -------
    GroundPoints

    Raises
    ------
    InputError
        If ``min_depression`` is not above 0 and below 90.
    """
    uncertainty = uncertainty or Uncertainty()
    clicks = (uncertainty.click, uncertainty.click)
    azimuth, elevation = np.asarray(azimuth, float), np.asarray(elevation, float)
    return _meet(azimuth, elevation, pose, uncertainty, clicks, min_depression)


def panorama_position(
    x: ArrayLike, y: ArrayLike, view: PanoramaView, pose: Pose
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Find the pixels of a panorama that show points on the ground: `ground_position` reversed.

    Parameters
    ----------
    x, y : (...) array_like
        Metres east and north of the camera.
    view, pose
        As for `ground_position`.

    Returns
    -------
    column, row : (...) float64
        Pixels right of the left edge and below the upper edge; also where the panorama ends short
        of them.
    seen : (...) bool
        Whether the panorama shows the point.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    angles = pose.to_angles(np.stack([x, y, np.full(x.shape, -pose.height)], axis=-1))
    return (*view.to_pixels(*angles), view.shows(*angles))


def _meet(
    azimuth: Array,
    elevation: Array,
    pose: Pose,
    uncertainty: Uncertainty,
    clicks: tuple[float, float],
    min_depression: float,
) -> GroundPoints:
    """Meet the ground in directions of the camera; ``clicks`` in degrees of azimuth, elevation."""
    if not 0 < min_depression < 90:
        raise InputError(f"min_depression must be above 0 and below 90, not {min_depression!r}")
    a, e = np.broadcast_arrays(np.deg2rad(azimuth), np.deg2rad(elevation))
    to_world = pose.world_from_camera().T
    level = np.stack([np.sin(a), np.cos(a), 0 * a], axis=-1)
    cos, sin = np.cos(e)[..., None], np.sin(e)[..., None]
    up = np.array([0.0, 0.0, 1.0])
    ray = (cos * level + sin * up) @ to_world
    down = np.where(ray[..., 2] <= -math.sin(math.radians(min_depression)), -ray[..., 2], np.nan)
    points = pose.height / down[..., None] * ray[..., :2]

    def moved(ray_by: NDArray[Any]) -> Array:
        """How far a point moves for a change of its ray, per radian."""
        steeper = points * ray_by[..., 2:] / down[..., None]
        return pose.height * ray_by[..., :2] / down[..., None] + steeper

    # A turn of the camera about an axis moves its rays by the cross product with that axis.
    heading = math.radians(pose.heading)
    right_of_heading = np.array([math.cos(heading), -math.sin(heading), 0.0])
    across = np.stack([np.cos(a), -np.sin(a), 0 * a], axis=-1)
    per_degree = np.pi / 180
    effects = [
        points / pose.height * uncertainty.height,
        moved(np.cross(-up, ray)) * uncertainty.heading * per_degree,
        moved(np.cross(right_of_heading, ray)) * uncertainty.pitch * per_degree,
        moved(np.cross(to_world[1], ray)) * uncertainty.roll * per_degree,
        moved((cos * across) @ to_world) * clicks[0] * per_degree,
        moved((cos * up - sin * level) @ to_world) * clicks[1] * per_degree,
    ]
    covariance = sum(effect[..., :, None] * effect[..., None, :] for effect in effects)
    covariance = covariance + np.eye(2) * uncertainty.position**2
    return GroundPoints(points[..., 0], points[..., 1], covariance)


@dataclass(frozen=True, slots=True)
class LocalPlane:
    """Metres east and north of a point on Earth, and latitude and longitude (WGS84).

    The plane touches the ellipsoid at the point. Positions on it are those of the ellipsoid right
    below, exact at any distance; lengths on the plane are those on the ellipsoid to a millimetre
    within several kilometres.

    Parameters
    ----------
    latitude, longitude
        Of the point, in degrees.

    Raises
    ------
    InputError
        If they are no position on Earth.
    """

    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 360):
            raise InputError(
                f"no position on Earth: latitude {self.latitude!r}, longitude {self.longitude!r}"
            )

    def to_geographic(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Latitude and longitude in degrees of points (...) at metres east and north.

        NaN gives NaN; so do points more than an Earth's radius away.
        """
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        axes = self._axes()
        above = _earth_centred(self.latitude, self.longitude) + np.stack([x, y], axis=-1) @ axes[:2]
        # Down along the plane's normal to the ellipsoid: a quadratic, whose nearer root counts.
        squash = np.array([1.0, 1.0, 1 / (1 - EARTH_E2)])
        a = (axes[2] ** 2 * squash).sum()
        b = (above * axes[2] * squash).sum(axis=-1)
        c = (above**2 * squash).sum(axis=-1) - EARTH_RADIUS**2
        with np.errstate(invalid="ignore"):
            z = -c / (b + np.sqrt(b**2 - a * c))
        x0, y0, z0 = np.moveaxis(above + z[..., None] * axes[2], -1, 0)
        latitude = np.rad2deg(np.arctan2(z0, (1 - EARTH_E2) * np.hypot(x0, y0)))
        longitude = np.rad2deg(np.arctan2(y0, x0))
        return latitude, longitude

    def from_geographic(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Array, Array]:
        """Metres east and north of points (...) at degrees of latitude and longitude."""
        from_here = _earth_centred(latitude, longitude) - _earth_centred(
            self.latitude, self.longitude
        )
        east, north, _ = np.moveaxis(from_here @ self._axes().T, -1, 0)
        return east, north

    def _axes(self) -> Array:
        """Return unit vectors (3, 3) east, north and up, in Earth-centred axes."""
        latitude, longitude = math.radians(self.latitude), math.radians(self.longitude)
        (s, c), (sl, cl) = ((math.sin(t), math.cos(t)) for t in (latitude, longitude))
        return np.array([[-sl, cl, 0], [-s * cl, -s * sl, c], [c * cl, c * sl, s]])


def _earth_centred(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Points (..., 3) on the ellipsoid, in metres from the Earth's centre."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    across = EARTH_RADIUS / np.sqrt(1 - EARTH_E2 * np.sin(phi) ** 2)
    flat = across * np.cos(phi)
    z = (1 - EARTH_E2) * across * np.sin(phi)
    return np.stack(np.broadcast_arrays(flat * np.cos(lam), flat * np.sin(lam), z), axis=-1)
