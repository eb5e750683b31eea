"""Positions of pixels: against the kernels' reference, PROJ, and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from numpy.typing import NDArray

import bevgen
from bevgen.errors import InputError
from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels
from bevgen.ground import (
    GroundPoints,
    LocalPlane,
    Uncertainty,
    ground_from_angles,
    ground_position,
    panorama_position,
)

Array = NDArray[np.float64]

VIEWS = [
    PanoramaView(512, 1024),
    PanoramaView(224, 1232, (38.6, -26.9)),
    PanoramaView(300, 700, (10.0, -80.0), (-100.0, 75.0)),
]
TILTED = Pose(2.1, 205.0, -4.0, 7.0)


@pytest.mark.parametrize("view", VIEWS)
def test_a_ground_point_and_its_pixel_find_each_other(view: PanoramaView) -> None:
    grid = BevGrid(31, 0.5)
    # The reference of all kernels, written for another purpose.
    column, row, valid = panorama_pixels(grid, view, TILTED)
    x, y = np.meshgrid(*grid.ground())
    found = panorama_position(x, y, view, TILTED)
    assert found[0] == pytest.approx(column + 0.5, abs=1e-9)
    assert found[1] == pytest.approx(row + 0.5, abs=1e-9)
    assert (found[2] == valid).all()
    back = ground_position(column + 0.5, row + 0.5, view, TILTED)
    assert back.x == pytest.approx(x, abs=1e-9)
    assert back.y == pytest.approx(y, abs=1e-9)
    assert (back.covariance == 0).all()


def test_closed_forms() -> None:
    # A ray 45 degrees down meets the ground as far away as the camera is high, where it faces.
    point = ground_from_angles(0.0, -45.0, Pose(2.0, heading=90))
    assert (point.x, point.y) == pytest.approx((2.0, 0.0))
    # Nose up by 15 degrees, a ray 60 degrees below the camera's axis is 45 below the horizon.
    point = ground_from_angles(0.0, -60.0, Pose(2.0, pitch=15))
    assert (point.x, point.y) == pytest.approx((0.0, 2.0))
    # Right side down by 15 degrees: on the right, the same ray is 75 degrees down.
    point = ground_from_angles(90.0, -60.0, Pose(2.0, roll=15))
    assert (point.x, point.y) == pytest.approx((2 * np.tan(np.deg2rad(15)), 0.0))
    view = PanoramaView(1000, 2000)
    assert view.to_angles(0, 0) == (-180, 90)
    assert view.to_angles(1500, 750) == (90, -45)
    assert BevGrid(8, 0.5).to_ground(4, 4) == (0, 0)
    assert BevGrid(8, 0.5).to_pixels(1.0, 2.0) == (6, 0)


def test_rays_that_hardly_go_down_say_nothing() -> None:
    elevation = np.array([30.0, 0.0, -0.9, -1.1, -5.0])
    points = ground_from_angles(0.0, elevation, Pose(), uncertainty=Uncertainty(height=0.1))
    known = np.isfinite(points.x)
    assert known.tolist() == [False, False, False, True, True]
    for values in (points.y, points.covariance[:, 0, 0], points.covariance[:, 0, 1]):
        assert (np.isfinite(values) == known).all()
    assert np.isfinite(ground_from_angles(0.0, -0.9, Pose(), min_depression=0.5).x)
    # The angle is one with the horizon, not with the camera's axis.
    assert np.isnan(ground_from_angles(0.0, -8.0, Pose(pitch=7.5)).x)


def monte_carlo(azimuth: float, elevation: float, pose: Pose, u: Uncertainty, n: int) -> Array:
    """Points (n, 2) of poses and clicks drawn at random."""
    rng = np.random.default_rng(4)
    drawn = []
    for _ in range(n):
        z = rng.normal(size=8)
        moved = Pose(
            pose.height + z[0] * u.height,
            pose.heading + z[1] * u.heading,
            pose.pitch + z[2] * u.pitch,
            pose.roll + z[3] * u.roll,
        )
        point = ground_from_angles(azimuth + z[4] * u.click, elevation + z[5] * u.click, moved)
        drawn.append([point.x + z[6] * u.position, point.y + z[7] * u.position])
    return np.array(drawn)


ONE_AT_A_TIME = [
    Uncertainty(height=0.05),
    Uncertainty(heading=2.0),
    Uncertainty(pitch=0.4),
    Uncertainty(roll=0.4),
    Uncertainty(position=1.5),
    Uncertainty(click=0.2),
    Uncertainty(0.05, 1.0, 0.3, 0.3, 0.2, 0.2),
]


@pytest.mark.parametrize("uncertainty", ONE_AT_A_TIME, ids=str)
def test_covariance_is_what_monte_carlo_finds(uncertainty: Uncertainty) -> None:
    azimuth, elevation = 35.0, -14.0
    points = ground_from_angles(azimuth, elevation, TILTED, uncertainty=uncertainty)
    drawn = monte_carlo(azimuth, elevation, TILTED, uncertainty, 4000)
    sampled = np.cov(drawn.T)
    # Along the direction that matters most, and all of it: 4000 draws are good to 2.3 per cent.
    scale = np.trace(sampled)
    assert points.covariance == pytest.approx(sampled, abs=0.09 * scale)
    if np.linalg.eigvalsh(points.covariance)[0] < 1e-4 * scale:
        return  # one direction alone: an ellipse without width
    # A point lies in the ellipse of 95 per cent with that probability.
    off = drawn - [points.x, points.y]
    inside = np.einsum("ni,ij,nj->n", off, np.linalg.inv(points.covariance), off)
    assert (inside < 5.991).mean() == pytest.approx(0.95, abs=0.02)


def test_the_ellipse_holds_its_part_and_points_the_right_way() -> None:
    rng = np.random.default_rng(0)
    along, wide, bearing = 3.0, 1.0, 25.0
    turn = np.deg2rad(bearing)
    axes = np.array([[np.sin(turn), np.cos(turn)], [np.cos(turn), -np.sin(turn)]])
    covariance = axes.T @ np.diag([along**2, wide**2]) @ axes
    points = GroundPoints(np.zeros(1), np.zeros(1), covariance[None])
    major, minor, angle = (float(v[0]) for v in points.ellipse(0.95))
    assert (major / minor, angle) == pytest.approx((3.0, bearing))
    drawn = rng.multivariate_normal([0, 0], covariance, 100_000) @ axes.T
    inside = (drawn[:, 0] / major) ** 2 + (drawn[:, 1] / minor) ** 2 < 1
    assert inside.mean() == pytest.approx(0.95, abs=0.003)


PLACES = [(46.5, -31.0), (-33.9, 151.2), (0.0, 0.0), (78.2, 179.9999), (-89.9, 10.0)]


@pytest.mark.parametrize("place", PLACES)
def test_metres_and_degrees_agree_with_proj(place: tuple[float, float]) -> None:
    plane = LocalPlane(*place)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-100, 100, (2, 500))
    latitude, longitude = plane.to_geographic(x, y)
    # Geodesics on the ellipsoid: length and azimuth.
    azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(
        *np.broadcast_arrays(place[1], place[0], longitude, latitude)
    )
    assert metres * np.sin(np.deg2rad(azimuth)) == pytest.approx(x, abs=1e-3)
    assert metres * np.cos(np.deg2rad(azimuth)) == pytest.approx(y, abs=1e-3)
    # PROJ's own tangent plane, up to 20 km away.
    x, y = 200 * x, 200 * y
    topocentric = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +proj=cart +ellps=WGS84 +step +proj=topocentric +ellps=WGS84"
        f" +lat_0={place[0]} +lon_0={place[1]}"
    )
    latitude, longitude = plane.to_geographic(x, y)
    east, north, _ = topocentric.transform(longitude, latitude, np.zeros_like(x))
    assert np.array([east, north]) == pytest.approx(np.array([x, y]), abs=1e-5)
    assert np.array(plane.from_geographic(latitude, longitude)) == pytest.approx(
        np.array([x, y]), abs=1e-5
    )


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="standard deviation of pitch"):
        Uncertainty(pitch=-1)
    with pytest.raises(InputError, match="no position on Earth"):
        LocalPlane(91, 0)
    with pytest.raises(InputError, match="no position on Earth"):
        LocalPlane(float("nan"), 0)
    with pytest.raises(InputError, match="min_depression"):
        ground_from_angles(0, -5, Pose(), min_depression=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        ground_from_angles(0, -5, Pose()).ellipse(95)


def test_it_is_part_of_the_public_face() -> None:
    for name in ("ground_position", "ground_from_angles", "panorama_position", "LocalPlane"):
        assert getattr(bevgen, name) is globals()[name]
        assert name in bevgen.__all__
