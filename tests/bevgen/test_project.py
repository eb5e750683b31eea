"""BEVs against analytic ground planes and the published formula, and the public face's manners."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import bevgen
from bevgen.errors import InputError
from bevgen.geometry import FULL_SPHERE as SPHERE
from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels
from bevgen.project import Projector, project, project_view
from tests.helpers.ground_truth import (
    Array,
    Shot,
    Texture,
    as_photo,
    blurred_noise,
    fine_noise,
    psnr,
    random_waves,
    seen_from_above,
    waves,
)

GRID = BevGrid(512, 0.06)


@lru_cache(maxsize=16)
def plane(texture: Texture) -> Array:
    """The true BEV of a texture on `GRID`."""
    return seen_from_above(texture, GRID.size, GRID.resolution)


@lru_cache(maxsize=16)
def photo(texture: Texture, shot: Shot) -> NDArray[np.uint8]:
    return as_photo(shot.take(texture))


def quality(texture: Texture, shot: Shot) -> tuple[float, float]:
    """PSNR over the valid pixels of the shot's BEV, and their share."""
    view = PanoramaView(shot.rows, shot.columns, shot.vertical_fov, shot.horizontal_fov)
    pose = Pose(shot.height, shot.heading, shot.pitch, shot.roll)
    bev, valid = project_view(photo(texture, shot), GRID, view, pose)
    assert not bev[~valid].any()
    return psnr(bev, plane(texture), valid), float(valid.mean())


@pytest.fixture(scope="module")
def random_panorama() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (64, 128, 3), np.uint8)


# Exact geometry


@pytest.mark.parametrize(("height", "bar"), [(1.5, 44), (2.0, 48), (3.0, 52)])
def test_a_known_ground_plane_comes_back(height: float, bar: float) -> None:
    db, shown = quality(waves, Shot(height=height))
    assert db >= bar
    assert shown == 1


angles = st.floats(-10, 10)


# A panorama is dear: report the first failing pose, do not look for a simpler one.


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(heading=st.floats(-360, 360), pitch=angles, roll=angles)
def test_a_known_ground_plane_comes_back_in_any_pose(
    heading: float, pitch: float, roll: float
) -> None:
    db, shown = quality(waves, Shot(heading=heading, pitch=pitch, roll=roll))
    assert db >= 48
    assert shown == 1


# Crops keep the rows and columns of the 1664 x 832 panorama: their field is a whole number of them.
@pytest.mark.parametrize(
    "shot",
    [
        Shot(rows=416, vertical_fov=(30.0, -60.0)),
        Shot(rows=416, vertical_fov=(30.0, -60.0), heading=-100.0, pitch=5.0, roll=-5.0),
        Shot(rows=416, vertical_fov=(0.0, -90.0)),
        Shot(columns=832, horizontal_fov=(-67.5, 112.5), heading=200.0),
        Shot(columns=832, horizontal_fov=(-67.5, 112.5), heading=200.0, pitch=-8.0, roll=3.0),
        Shot(columns=416, horizontal_fov=(90.0, 180.0)),
        Shot(416, 832, vertical_fov=(30.0, -60.0), horizontal_fov=(-180.0, 0.0), roll=10.0),
    ],
    ids=lambda shot: f"{shot.vertical_fov} {shot.horizontal_fov} {shot.pitch:g}",
)
def test_crops_show_their_part_of_the_plane(shot: Shot) -> None:
    db, shown = quality(waves, shot)
    assert db >= 48
    left, right = shot.horizontal_fov
    assert shown == pytest.approx((right - left) / 360, abs=0.02)


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(
    texture=st.builds(random_waves, st.integers(0, 2**32))
    | st.builds(blurred_noise, st.integers(0, 2**32)),
    heading=st.floats(0, 360),
    pitch=angles,
    roll=angles,
)
def test_other_smooth_grounds_come_back(
    texture: Texture, heading: float, pitch: float, roll: float
) -> None:
    db, _ = quality(texture, Shot(heading=heading, pitch=pitch, roll=roll))
    assert db >= 48


@pytest.mark.parametrize("height", [1.5, 2.0])
def test_the_published_convention_does_not_bring_it_back(height: float) -> None:
    panorama = photo(waves, Shot(height=height))
    bev, valid = project(panorama, height=height, compat="ep-bev", return_valid=True)
    assert psnr(bev, plane(waves), valid) <= 31


# Turns and the seam


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize(("size", "width"), [(512, 1664), (64, 4), (62, 1232), (2, 12)])
def test_quarter_turns_are_exact(
    size: int, width: int, turns: int, dtype: type, antialias: bool
) -> None:
    rng = np.random.default_rng(size)
    panorama = rng.integers(0, 256, (width // 2, width, 3)).astype(dtype)
    rolled = np.roll(panorama, turns * width // 4, axis=1)
    bev = project(panorama, size=size, antialias=antialias)
    np.testing.assert_array_equal(
        project(rolled, size=size, antialias=antialias), np.rot90(bev, -turns)
    )
    np.testing.assert_array_equal(
        project(panorama, size=size, antialias=antialias, heading=90 * turns), np.rot90(bev, -turns)
    )


@settings(max_examples=30, deadline=None)
@given(
    columns=st.integers(-100, 100),
    width=st.integers(1, 200),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.float32]),
    antialias=st.booleans(),
)
def test_the_place_of_the_seam_changes_nothing(
    columns: int, width: int, channels: int, dtype: type, antialias: bool
) -> None:
    rng = np.random.default_rng(width)
    panorama = rng.integers(0, 256, (64, width, channels)).astype(dtype)
    known = {"size": 33, "resolution": 0.3, "antialias": antialias, "vertical_fov": SPHERE}
    bev = project(panorama, **known)
    turned = np.roll(panorama, columns, axis=1)
    rolled = project(turned, **known, heading=-columns * 360 / width)
    np.testing.assert_array_equal(rolled, bev)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 40),
    resolution=st.floats(0.01, 2),
    width=st.integers(1, 64),
    heading=st.floats(-400, 400),
    pitch=st.floats(-90, 90),
    roll=st.floats(-180, 180),
    antialias=st.booleans(),
)
def test_there_is_no_black_line(width: int, **settings: Any) -> None:
    white = np.full((32, width), 255, np.uint8)
    bev, valid = project(white, **settings, vertical_fov=SPHERE, return_valid=True)
    assert valid.all()
    assert (bev == 255).all()


def seam_error(
    project_it: Callable[..., NDArray[Any]], shot: Shot, seam: NDArray[np.bool_]
) -> float:
    """Root mean square error against the plane near the seam."""
    bev = project_it(photo(waves, shot))
    return float(np.sqrt(np.mean((bev.squeeze() - plane(waves))[seam] ** 2)))


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (6.0, -9.0)])
def test_the_seam_cannot_be_found_in_the_errors(pitch: float, roll: float) -> None:
    # The same strip of ground once across the seam, and once in the middle of other panoramas.
    pose = Pose(2.0, 25.0, pitch, roll)
    column, _, _ = panorama_pixels(GRID, PanoramaView(832, 1664), pose)
    seam = (column < 1) | (column > 1662)
    assert seam.sum() > 250

    def error(heading: float) -> float:
        shot = Shot(heading=heading, pitch=pitch, roll=roll)
        return seam_error(Projector(heading=heading, pitch=pitch, roll=roll), shot, seam)

    across, elsewhere = error(25.0), [error(25.0 + turn) for turn in (90.0, 140.0, 201.0)]
    assert 0.8 * min(elsewhere) <= across <= 1.25 * max(elsewhere)


def test_the_published_seam_can_be_found() -> None:
    # The check above sees a seam where there is one.
    seam = np.zeros((512, 512), bool)
    seam[256:, 254:258] = True
    published = seam_error(Projector(height=2.0, compat="ep-bev"), Shot(), seam)
    assert published > 5 * seam_error(Projector(), Shot(), seam)


# The published script's pixels


def published(panorama: NDArray[np.uint8], height: float) -> tuple[Array, NDArray[np.bool_]]:
    """Evaluate the formula of the ECCV 2024 script in float64: BEV before rounding, and mask."""
    rows, columns = panorama.shape
    size, g, h = 512, 0.06, -height
    c = size / 2 - 0.5
    i, j = np.mgrid[:size, :size].astype(np.float64)
    r = np.sqrt((i - c) ** 2 + (j - c) ** 2)
    azimuth = (np.arctan2(i - c, j - c) - np.pi / 2) % (2 * np.pi)
    u = azimuth / (2 * np.pi) * columns
    v = np.arctan2(r * g, h) / np.pi * rows
    shown = ~((u > columns - 1) | (v > rows - 1))
    u, v = u[shown], v[shown]
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    u1, v1 = np.minimum(u0 + 1, columns - 1), np.minimum(v0 + 1, rows - 1)
    du, dv = u - u0, v - v0
    bev = np.zeros((size, size))
    bev[shown] = (
        panorama[v0, u0] * (1 - du) * (1 - dv)
        + panorama[v0, u1] * du * (1 - dv)
        + panorama[v1, u0] * (1 - du) * dv
        + panorama[v1, u1] * du * dv
    )
    return bev, shown


@pytest.mark.parametrize(("width", "height"), [(1664, 832), (1232, 616), (512, 256), (37, 90)])
@pytest.mark.parametrize("camera", [1.5, 0.3, 2.7])
def test_compat_equals_the_published_formula(width: int, height: int, camera: float) -> None:
    panorama = np.random.default_rng(width).integers(1, 256, (height, width), np.uint8)
    expected, shown = published(panorama, camera)
    known = {"height": camera, "compat": "ep-bev", "vertical_fov": SPHERE}
    bev, valid = project(panorama, **known, return_valid=True)
    np.testing.assert_array_equal(valid, shown)
    np.testing.assert_allclose(bev, expected, atol=1)
    # The script samples points: asking for anti-aliasing or not makes no difference.
    again = project(panorama, **known, antialias=False)
    np.testing.assert_array_equal(bev, again)


def test_compat_draws_the_published_black_line() -> None:
    bev = project(np.full((832, 1664), 255, np.uint8), height=1.5, compat="ep-bev")
    black = np.argwhere(bev == 0)
    np.testing.assert_array_equal(black, [(row, 256) for row in range(388, 512)])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"heading": 90}, "without heading, pitch and roll"),
        ({"pitch": 1}, "without heading, pitch and roll"),
        ({"roll": -1}, "without heading, pitch and roll"),
        ({"vertical_fov": (38.6, -26.9)}, "full spheres only"),
        ({"height": -1.5}, "height must be above 0"),
    ],
)
def test_compat_refuses_what_the_script_cannot_do(
    random_panorama: NDArray[np.uint8], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        project(random_panorama, compat="ep-bev", **arguments)


def test_compat_refuses_a_pose_per_image(random_panorama: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="without heading, pitch and roll"):
        Projector(compat="ep-bev")(random_panorama, heading=12.0)


# Anti-aliasing


def test_anti_aliasing_gains_near_the_camera_and_changes_nothing_afar() -> None:
    texture = fine_noise(1)
    panorama = as_photo(Shot().take(texture, supersample=4))
    truth = seen_from_above(texture, GRID.size, GRID.resolution, supersample=8)
    x, y = GRID.ground()
    distance = np.hypot(x[None, :], y[:, None])
    points, means = project(panorama, antialias=False), project(panorama)
    near, far = distance < 5, distance > 8
    assert psnr(means, truth, near) >= psnr(points, truth, near) + 3
    np.testing.assert_array_equal(means[far], points[far])


def test_a_crop_shows_what_the_whole_panorama_shows_there() -> None:
    whole = np.random.default_rng(3).integers(0, 256, (208, 416, 1), np.uint8)
    grid, pose = BevGrid(129, 0.06), Pose(2.0, 17.0)
    left, right = 104, 312  # columns
    view = PanoramaView(208, 208, horizontal_fov=(-90.0, 90.0))
    for antialias in (False, True):
        expected, _ = project_view(whole, grid, PanoramaView(208, 416), pose, antialias=antialias)
        crop = np.ascontiguousarray(whole[:, left:right])
        bev, valid = project_view(crop, grid, view, pose, antialias=antialias)
        # Pixels whose whole footprint and neighbours lie inside.
        column, _, _ = panorama_pixels(grid, view, pose)
        x, y = grid.ground()
        margin = 1 + 0.06 / np.maximum(np.hypot(x[None, :], y[:, None]), 1e-9) * 416 / 2 / np.pi
        inside = valid & (column > margin) & (column < 207 - margin)
        assert inside.mean() > 0.4
        # A heading is a rotation for the crop and a shift for the whole: the last bit differs.
        np.testing.assert_allclose(bev[inside], expected[inside], atol=1)


def test_the_edges_of_a_crop_do_not_mix() -> None:
    # 180 degrees from 60 left to 120 right of the centre: dark, but for the rightmost 60 degrees,
    # and the same with the bright part at the left.
    view = PanoramaView(832, 832, horizontal_fov=(-60.0, 120.0))
    x, y = GRID.ground()
    azimuth = np.rad2deg(np.arctan2(x[None, :], y[:, None]))
    beyond_the_foot = np.hypot(x[None, :], y[:, None]) > 0.3
    panorama = np.zeros((832, 832, 1), np.uint8)
    panorama[:, -277:] = 255
    bev, _ = project_view(panorama, GRID, view, Pose())
    assert not bev[beyond_the_foot & (azimuth < 30)].any()
    bev, _ = project_view(np.ascontiguousarray(panorama[:, ::-1]), GRID, view, Pose())
    assert not bev[beyond_the_foot & (azimuth > 30)].any()


# The public face


@pytest.mark.parametrize(
    "shape", [(64, 128), (64, 128, 1), (64, 128, 2), (64, 128, 3), (64, 128, 4)]
)
def test_shapes_and_dtypes_come_back(shape: tuple[int, ...]) -> None:
    panorama = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    bev = project(panorama, size=48)
    assert bev.shape == (48, 48, *shape[2:])
    assert bev.dtype == np.uint8
    exact = project(panorama.astype(np.float32), size=48)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(bev, exact, atol=0.52)
    for channel in range(panorama.size // (64 * 128)):
        alone = project(panorama.reshape(64, 128, -1)[..., channel], size=48)
        np.testing.assert_array_equal(bev.reshape(48, 48, -1)[..., channel], alone)


def test_a_batch_with_poses_equals_one_by_one() -> None:
    batch = np.random.default_rng(6).integers(0, 256, (4, 64, 128, 3), np.uint8)
    heights, headings = np.array([1.5, 2.0, 2.5, 3.0]), [0.0, 45.0, -90.0, 12.3]
    pitches, rolls = np.array([0, 0, 5, -3], np.float32), (0, 0, 0, 9)
    projector = Projector(size=40, vertical_fov=(40.0, -70.0))
    bevs, valid = projector(
        batch, height=heights, heading=headings, pitch=pitches, roll=rolls, return_valid=True
    )
    assert bevs.shape == (4, 40, 40, 3)
    assert valid.shape == (4, 40, 40)
    for i, image in enumerate(batch):
        bev, shown = project(
            image,
            size=40,
            vertical_fov=(40.0, -70.0),
            height=heights[i],
            heading=headings[i],
            pitch=float(pitches[i]),
            roll=rolls[i],
            return_valid=True,
        )
        np.testing.assert_array_equal(bevs[i], bev)
        np.testing.assert_array_equal(valid[i], shown)
    np.testing.assert_array_equal(
        project(batch, size=40), [project(image, size=40) for image in batch]
    )


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (64, 120, 3), (2, 64, 120, 3)])
def test_an_unknown_part_of_the_sphere_is_refused(shape: tuple[int, ...]) -> None:
    panorama = np.zeros(shape, np.uint8)
    with pytest.raises(InputError, match=r"not 2:1, .* say it by vertical_fov=\(top, bottom\)"):
        project(panorama)
    assert project(panorama, vertical_fov=(30.0, -60.0)).shape[-1] == 512 or len(shape) > 2


def test_palette_images_are_refused() -> None:
    image = Image.fromarray(np.zeros((16, 32, 3), np.uint8))
    assert project(image, size=8).shape == (8, 8, 3)
    with pytest.raises(InputError, match=r'mode P .* give image\.convert\("RGB"\)'):
        project(image.convert("P"), size=8)


def test_out_must_not_overlap_the_panorama() -> None:
    memory = np.zeros((16, 32, 3), np.uint8)
    out = memory.reshape(-1)[: 8 * 8 * 3].reshape(8, 8, 3)
    with pytest.raises(InputError, match="must not overlap"):
        Projector(size=8)(memory, out=out)


def test_out_is_written_and_returned(random_panorama: NDArray[np.uint8]) -> None:
    projector = Projector(size=32)
    out = np.full((32, 32, 3), 7, np.uint8)
    assert projector(random_panorama, out=out) is out
    np.testing.assert_array_equal(out, projector(random_panorama))
    bev, valid = projector(random_panorama, out=out, return_valid=True)
    assert bev is out
    assert valid.shape == (32, 32)
    assert valid.dtype == bool


@pytest.mark.parametrize(
    "out",
    [
        np.empty((32, 32), np.uint8),
        np.empty((32, 32, 3), np.float32),
        np.empty((3, 32, 32), np.uint8).transpose(1, 2, 0),
        np.frombuffer(bytes(32 * 32 * 3), np.uint8).reshape(32, 32, 3),  # read-only
    ],
    ids=["shape", "dtype", "strides", "read-only"],
)
def test_an_out_that_cannot_be_written_is_refused(
    random_panorama: NDArray[np.uint8], out: NDArray[Any]
) -> None:
    with pytest.raises(InputError, match="out must be"):
        Projector(size=32)(random_panorama, out=out)


def test_the_mask_of_the_caller_is_his_own(random_panorama: NDArray[np.uint8]) -> None:
    projector = Projector(size=32)
    _, valid = projector(random_panorama, return_valid=True)
    valid[:] = False
    _, valid = projector(random_panorama, return_valid=True)
    assert valid.all()


class Tensor:
    """Like a torch tensor: no array, but can become one."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.array


def test_any_kind_of_array_will_do(random_panorama: NDArray[np.uint8]) -> None:
    expected = project(random_panorama, size=32)
    frozen = random_panorama.copy()
    frozen.flags.writeable = False
    wide = np.repeat(random_panorama, 2, axis=1)
    for same in (
        frozen,
        wide[:, ::2],
        np.asfortranarray(random_panorama),
        np.flip(random_panorama[:, ::-1].copy(), axis=1),
        random_panorama.view(np.memmap),
        Tensor(random_panorama),
    ):
        np.testing.assert_array_equal(project(same, size=32), expected)
    assert random_panorama.flags.writeable


GOOD = np.zeros((64, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("panorama", "arguments", "told"),
    [
        (GOOD.astype(np.float64), {}, "uint8 or float32, not float64"),
        (GOOD.astype(np.int64), {}, "uint8 or float32, not int64"),
        (GOOD > 0, {}, "uint8 or float32, not bool"),
        (np.zeros((64, 128, 5), np.uint8), {}, "1 to 4 channels, not 5"),
        (np.zeros((3, 64, 128), np.uint8), {}, r"channels come last.*\(3, 64, 128\)"),
        (np.zeros((9, 3, 64, 128), np.uint8), {}, "channels come last"),
        (np.zeros((64, 0, 3), np.uint8), {}, r"\(64, 0, 3\)"),
        (np.zeros((0, 64, 128, 3), np.uint8), {}, r"\(0, 64, 128, 3\)"),
        (np.zeros(7, np.uint8), {}, r"\(H, W\).*not shape \(7,\)"),
        (np.zeros((1, 1, 1, 1, 1), np.uint8), {}, r"\(1, 1, 1, 1, 1\)"),
        (GOOD, {"size": 0}, "size must be a whole number of 1 to 8192 pixels, not 0"),
        (GOOD, {"size": 9000}, "not 9000"),
        (GOOD, {"size": 64.5}, "size must be .*64.5"),
        (GOOD, {"resolution": 0}, "resolution must be above 0"),
        (GOOD, {"resolution": 1e-320}, "resolution must be above 0, 1e-06 to 1000"),
        (GOOD, {"height": 0}, "height must be above 0"),
        (GOOD, {"height": 1e300}, "height must be above 0 and at most 10000"),
        (GOOD, {"heading": 1e308}, r"heading must be finite degrees within \+-36000"),
        (GOOD, {"height": -1.5}, "height must be above 0 .*not -1.5"),
        (GOOD, {"heading": np.nan}, "heading must be finite"),
        (GOOD, {"pitch": np.nan}, "pitch must be finite"),
        (GOOD, {"roll": np.inf}, "roll must be finite"),
        (GOOD, {"pitch": 91}, "pitch must be .*not 91"),
        (GOOD, {"vertical_fov": (-90, 90)}, "TOP BOTTOM"),
        (GOOD, {"compat": "sample4geo"}, "compat must be .*'sample4geo'"),
        (GOOD, {"device": "tpu"}, "device must be .*'tpu'"),
        (np.ma.masked_equal(GOOD, 0), {}, r"give its \.data or \.filled\(0\)"),
        (GOOD, {"height": True}, "height must be above 0 .*not True"),
        (GOOD, {"antialias": "no"}, "antialias must be True or False, not 'no'"),
    ],
)
def test_wrong_input_is_refused_in_words(
    panorama: NDArray[Any], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        project(panorama, **arguments)


@pytest.mark.parametrize(
    ("poses", "told"),
    [
        ({"heading": [1.0, 2.0]}, r"heading .*each of the 3 panoramas, not of shape \(2,\)"),
        ({"height": [2.0, 0.0, 2.0]}, "height must be above 0"),
        ({"pitch": [0.0, 0.0, np.nan]}, "pitch must be finite"),
    ],
)
def test_wrong_poses_of_a_batch_are_refused(poses: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Projector()(np.zeros((3, 64, 128, 3), np.uint8), **poses)


def test_many_threads_get_equal_results(random_panorama: NDArray[np.uint8]) -> None:
    # More poses than the lookup cache holds, so that threads plan and evict at the same time.
    projector = Projector(size=96)
    jobs = [{"heading": 7.0 * k, "pitch": k % 12, "height": 1 + k % 5} for k in range(120)]
    expected = [projector(random_panorama, **job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        bevs = list(pool.map(lambda job: projector(random_panorama, **job), jobs))
    np.testing.assert_array_equal(bevs, expected)


IMPORTS = """
import sys
import bevgen
heavy = {"numba", "torch", "dask", "distributed", "rich", "PIL", "scipy", "h5py"} & set(sys.modules)
assert not heavy, f"import bevgen also imports {sorted(heavy)}"
function = bevgen.project
import bevgen.project
from bevgen.project import project
assert bevgen.project is project is function and callable(function)
"""


def test_import_is_light_and_project_stays_the_function() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_bevgen_names_its_public_face() -> None:
    assert bevgen.project is project
    for name in bevgen.__all__:
        assert getattr(bevgen, name) is not None
