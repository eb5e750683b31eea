"""Where a BEV lies on a tile, against pictures cut out of one larger picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from georetrieval.localization import GroundAlignment

RESOLUTION = 0.25  # metres per pixel
SIZE = 200  # pixels of tile and BEV: 50 m


def world(seed: int) -> np.ndarray:
    grey = gaussian_filter(np.random.default_rng(seed).normal(size=(600, 600)), 4)
    return (grey - grey.min()) / np.ptp(grey) * 255


def cut(ground: np.ndarray, east: float, north: float, heading: float = 0.0) -> np.ndarray:
    """A picture around a point whose upward direction is ``heading``, sampled in NumPy."""
    axis = (np.arange(SIZE) + 0.5 - SIZE / 2) * RESOLUTION
    right, up = axis[None], -axis[:, None]
    angle = np.deg2rad(heading)
    x = east + right * np.cos(angle) + up * np.sin(angle)
    y = north - right * np.sin(angle) + up * np.cos(angle)
    rows, columns = 300 - y / RESOLUTION - 0.5, 300 + x / RESOLUTION - 0.5
    grey = map_coordinates(ground, [rows, columns], order=1, mode="nearest")
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def fit(bev, tiles, turns, within=12.0, **options):
    seen = np.ones(bev.shape[:2], bool)
    turns = np.array(turns, float)
    return GroundAlignment(**options).fit(
        bev, seen, RESOLUTION, np.stack(tiles), RESOLUTION, turns=turns, within=within
    )


@pytest.mark.parametrize(
    ("east", "north", "heading"),
    [(0.0, 0.0, 0.0), (5.2, -3.1, 0.0), (-7.0, 6.3, 33.0), (2.2, 9.9, 250.0)],
)
def test_place_and_heading_are_found(east, north, heading):
    ground = world(1)
    # Drawn as if the heading were 0, it has ``heading`` upwards: it must be turned by that.
    found = fit(cut(ground, east, north, heading), [cut(ground, 0, 0)], [heading + 7])[0]
    assert found.east == pytest.approx(east, abs=0.3)
    assert found.north == pytest.approx(north, abs=0.3)
    assert (found.turn - heading + 180) % 360 - 180 == pytest.approx(0, abs=1.0)


def test_a_heading_the_other_way_round_is_found_where_it_may_be():
    ground = world(6)
    seen = np.ones((SIZE, SIZE), bool)
    bev, tile = cut(ground, 3.0, -2.0, 90.0), cut(ground, 0, 0)
    one, both = (
        GroundAlignment().fit(
            bev, seen, RESOLUTION, tile[None], RESOLUTION,
            turns=np.array([272.0]), within=12.0, opposite=opposite,
        )[0]
        for opposite in (False, True)
    )  # fmt: skip
    assert both.agreement > one.agreement + 5
    assert both.turn % 360 == pytest.approx(90.0, abs=1.0)
    assert (both.east, both.north) == pytest.approx((3.0, -2.0), abs=0.3)


def test_where_no_shift_within_reach_is_better_than_chance_nothing_is_claimed():
    """Edges that oppose each other everywhere near, and agree far out of reach."""
    stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
    stripes[::8] = 200
    across = np.zeros_like(stripes)
    across[60:140, ::8] = 200
    found = fit(stripes, [across, np.full_like(stripes, 90)], [0.0, 0.0], reach=0.5)
    assert all(np.isfinite([one.agreement, one.metres, one.likeness]).all() for one in found)
    assert max(one.agreement for one in found) < 6


def test_the_right_tile_agrees_more_than_others_and_than_chance():
    ground = world(2)
    tiles = [cut(world(seed), 0, 0) for seed in (3, 4, 5)] + [cut(ground, 1.0, 2.0)]
    found = fit(cut(ground, 0, 0), tiles, [0.0] * 4)
    agreement = [one.agreement for one in found]
    likeness = [one.likeness for one in found]
    assert likeness[3] > 0.8
    assert max(likeness[:3]) < 0.6
    assert int(np.argmax(agreement)) == 3
    assert agreement[3] > 2 * max(agreement[:3])


def test_other_light_changes_little():
    ground = world(6)
    bev = cut(ground, 3.0, 0.0)
    dark = (255 - cut(ground, 0, 0)) // 2 + 20
    found = fit(bev, [dark], [0.0])[0]
    assert found.east == pytest.approx(3.0, abs=0.3)
    assert found.agreement > 10


def test_a_camera_out_of_reach_is_not_looked_for():
    ground = world(7)
    found = fit(cut(ground, 9.0, 0.0), [cut(ground, 0, 0)], [0.0], reach=4.0)[0]
    assert abs(found.east) <= 4.2


def test_what_the_panorama_does_not_show_is_not_compared():
    ground = world(8)
    bev = cut(ground, 2.0, 1.0)
    seen = np.ones(bev.shape[:2], bool)
    seen[:, : SIZE // 2] = False
    bev[~seen] = 0
    found = GroundAlignment().fit(
        bev, seen, RESOLUTION, cut(ground, 0, 0)[None], RESOLUTION,
        turns=np.zeros(1), within=4.0,
    )[0]  # fmt: skip
    assert (found.east, found.north) == (pytest.approx(2.0, abs=0.4), pytest.approx(1.0, abs=0.4))


def test_scales_may_differ():
    ground = world(9)
    tile = cut(ground, 0, 0).reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3)).astype(np.uint8)
    found = GroundAlignment().fit(
        cut(ground, -4.0, 3.0), np.ones((SIZE, SIZE), bool), RESOLUTION, tile[None],
        2 * RESOLUTION, turns=np.zeros(1), within=4.0,
    )[0]  # fmt: skip
    assert (found.east, found.north) == (pytest.approx(-4, abs=0.4), pytest.approx(3, abs=0.4))
