"""The NumPy reference against rays traced the other way, and the kernels against the reference."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import (
    FULL_CIRCLE,
    FULL_SPHERE,
    BevGrid,
    PanoramaView,
    Pose,
    ep_bev_pixels,
    panorama_pixels,
)
from bevgen.project import project_view
from bevgen.projection import planning
from bevgen.projection.sampling_uint8 import sample_uint8
from tests.helpers.ground_truth import Shot
from tests.helpers.guarded import digest
from tests.helpers.paths import ROOT

grids = st.builds(BevGrid, st.integers(1, 24), st.floats(0.005, 5))
poses = st.builds(
    Pose, st.floats(0.05, 50), st.floats(-720, 720), st.floats(-90, 90), st.floats(-180, 180)
)

level_poses = st.builds(Pose, st.floats(0.05, 50), st.floats(-720, 720))
verticals = st.just(FULL_SPHERE) | st.tuples(st.floats(-40, 90), st.floats(-90, -41))
horizontals = st.just(FULL_CIRCLE) | st.tuples(st.floats(-180, -1), st.floats(1, 180))
views = st.builds(PanoramaView, st.integers(1, 20), st.integers(1, 24), verticals, horizontals)


def test_bev_grid_is_north_up_with_the_camera_in_the_middle() -> None:
    x, y = BevGrid(4, 0.5).ground()
    np.testing.assert_array_equal(x, [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_array_equal(y, [0.75, 0.25, -0.25, -0.75])
    x, y = BevGrid(3, 2.0).ground()
    np.testing.assert_array_equal(x, [-2, 0, 2])
    np.testing.assert_array_equal(y, [2, 0, -2])
    assert BevGrid().extent == pytest.approx(30.72)


# The 3 x 3 grid looks 2 m to each side from a height of 2 m, so at 45 degrees down.
# Columns of 4 are 90 degrees wide: the centre column's direction lies at 1.5, east of it at 2.5.
@pytest.mark.parametrize(
    ("pose", "pixel", "column", "row"),
    [
        (Pose(2.0), (0, 1), 1.5, 2.5),  # north: at the centre, 135 of 180 degrees down
        (Pose(2.0), (1, 2), 2.5, 2.5),  # east: to the right
        (Pose(2.0), (2, 1), -0.5, 2.5),  # south: the seam, named from its left end
        (Pose(2.0), (1, 0), 0.5, 2.5),  # west: to the left
        (Pose(2.0, heading=90), (1, 2), 1.5, 2.5),  # facing east, east is at the centre
        (Pose(2.0, heading=90), (0, 1), 0.5, 2.5),  # and north to the left
        (Pose(2.0, pitch=30), (0, 1), 1.5, 2.5 + 4 * 30 / 180),  # nose up: the ground sinks
        (Pose(2.0, pitch=-30), (0, 1), 1.5, 2.5 - 4 * 30 / 180),
        (Pose(2.0, pitch=30), (2, 1), -0.5, 2.5 - 4 * 30 / 180),  # behind, it rises
        (Pose(2.0, roll=30), (1, 2), 2.5, 2.5 - 4 * 30 / 180),  # right side down: east rises
        (Pose(2.0, roll=30), (1, 0), 0.5, 2.5 + 4 * 30 / 180),
    ],
)
def test_known_places_and_signs(
    pose: Pose, pixel: tuple[int, int], column: float, row: float
) -> None:
    columns, rows, valid = panorama_pixels(BevGrid(3, 2.0), PanoramaView(4, 4), pose)
    # The direction of the seam may be named from either end.
    assert (columns[pixel] - column + 1e-9) % 4 == pytest.approx(0, abs=1e-8)
    assert rows[pixel] == pytest.approx(row)
    assert valid.all()


@given(grid=grids, view=views, pose=poses)
def test_a_ray_through_the_mapped_pixel_hits_the_ground_it_came_from(
    grid: BevGrid, view: PanoramaView, pose: Pose
) -> None:
    column, row, valid = panorama_pixels(grid, view, pose)
    shot = Shot(
        view.height,
        view.width,
        pose.height,
        pose.heading,
        pose.pitch,
        pose.roll,
        view.vertical_fov,
        view.horizontal_fov,
    )
    rays = shot.rays(row + 0.5, column + 0.5)
    x, y = grid.ground()
    truth = np.stack([*np.meshgrid(x, y), np.full((grid.size, grid.size), -pose.height)])
    np.testing.assert_allclose(rays, truth / np.linalg.norm(truth, axis=0), atol=1e-9)
    inside = (row >= -0.5 - 1e-9) & (row <= view.height - 0.5 + 1e-9)
    inside &= (column >= -0.5 - 1e-9) & (column <= view.width - 0.5 + 1e-9)
    assert not (valid & ~inside).any()
    inside = (row > -0.5 + 1e-9) & (row < view.height - 0.5 - 1e-9)
    inside &= (column > -0.5 + 1e-9) & (column < view.width - 0.5 - 1e-9)
    assert not (inside & ~valid).any()


@given(grid=grids, pose=poses)
def test_a_full_sphere_shows_all_of_the_ground(grid: BevGrid, pose: Pose) -> None:
    column, row, valid = panorama_pixels(grid, PanoramaView(16, 32), pose)
    assert valid.all()
    assert column.min() >= -0.5
    assert column.max() <= 31.5
    assert row.min() >= -0.5
    assert row.max() <= 15.5


@pytest.mark.parametrize(("size", "resolution"), [(0, 0.06), (8193, 0.06), (512, 0), (512, -1.0)])
def test_bev_grids_out_of_range_are_refused(size: int, resolution: float) -> None:
    wrong = resolution if 1 <= size <= 8192 else size
    with pytest.raises(InputError, match=f"not {wrong}"):
        BevGrid(size, resolution)


@pytest.mark.parametrize("resolution", [np.nan, np.inf])
def test_a_resolution_must_be_finite(resolution: float) -> None:
    with pytest.raises(InputError, match="resolution must be above 0"):
        BevGrid(512, resolution)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"height": 0}, "0 x 10 pixels"),
        ({"vertical_fov": (-90, 90)}, "TOP BOTTOM .*not -90 90"),
        ({"vertical_fov": (20, 20)}, "not 20 20"),
        ({"vertical_fov": (91, -90)}, "not 91 -90"),
        ({"vertical_fov": (90, np.nan)}, "two numbers of degrees"),
        ({"horizontal_fov": (90, -90)}, "LEFT RIGHT .*not 90 -90"),
        ({"horizontal_fov": (-180, 181)}, "not -180 181"),
    ],
)
def test_panorama_views_out_of_range_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PanoramaView(**{"height": 10, "width": 10, **fields})


@pytest.mark.parametrize("height", [0.0, -1.5, np.nan, np.inf])
def test_the_camera_stands_above_the_ground(height: float) -> None:
    with pytest.raises(InputError, match=f"height must be above 0 .*not {height}"):
        Pose(height)


@pytest.mark.parametrize(
    ("angle", "value"),
    [
        ("heading", np.nan),
        ("heading", np.inf),
        ("pitch", 90.5),
        ("pitch", np.nan),
        ("roll", -181.0),
        ("roll", np.nan),
    ],
)
def test_angles_out_of_range_are_refused(angle: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{angle} must be finite degrees.*not {value}"):
        Pose(**{angle: value})


def test_ep_bev_has_its_black_line_where_it_was_published() -> None:
    _, _, valid = ep_bev_pixels(BevGrid(512, 0.06), PanoramaView(832, 1664), 1.5)
    expected = np.ones((512, 512), bool)
    expected[388:, 256] = False
    np.testing.assert_array_equal(valid, expected)


def bilinear(
    panorama: NDArray[Any], column: NDArray[np.float64], row: NDArray[np.float64], wraps: bool
) -> NDArray[np.float64]:
    """Sample (H, W, C) at float coordinates: columns wrap or clamp, rows clamp."""
    height, width, _ = panorama.shape
    left, upper = np.floor(column).astype(int), np.floor(row).astype(int)
    a, b = (column - left)[..., None], (row - upper)[..., None]
    rows = [np.clip(upper + k, 0, height - 1) for k in (0, 1)]
    columns = [(left + k) % width if wraps else np.clip(left + k, 0, width - 1) for k in (0, 1)]
    upper_left, upper_right, lower_left, lower_right = (
        panorama[r, c].astype(np.float64) for r in rows for c in columns
    )
    upper_line = (1 - a) * upper_left + a * upper_right
    lower_line = (1 - a) * lower_left + a * lower_right
    return (1 - b) * upper_line + b * lower_line


def assert_kernel_equals_reference(
    grid: BevGrid, view: PanoramaView, pose: Pose, dtype: type = np.uint8, channels: int = 3
) -> None:
    """Within one grey level of the bilinear reference, and shown exactly where it is."""
    rng = np.random.default_rng(view.height * 1000 + view.width)
    panorama = rng.integers(0, 256, (view.height, view.width, channels)).astype(dtype)
    column, row, valid = panorama_pixels(grid, view, pose)
    expected = bilinear(panorama, column, row, view.wraps) * valid[..., None]
    bev, shown = project_view(panorama, grid, view, pose, antialias=False)
    assert bev.dtype == dtype
    # Straight along the camera's vertical axis every azimuth is right, and on an edge of the
    # field the last bit decides.
    (top, bottom), (left, right) = view.vertical_fov, view.horizontal_fov
    elevation = top - (row + 0.5) * (top - bottom) / view.height
    azimuth = left + (column + 0.5) * (right - left) / view.width
    edges = [elevation - top, elevation - bottom]
    off = [] if view.wraps else [azimuth - left, azimuth - right]
    edges += [(angle + 180) % 360 - 180 for angle in off]  # due south is -180 and 180
    clear = (np.abs(elevation) < 90 - 1e-6) & (np.abs(edges).min(axis=0) > 1e-9)
    np.testing.assert_array_equal(shown[clear], valid[clear])
    same = clear | ((shown == valid) & (np.abs(elevation) < 90 - 1e-6))
    np.testing.assert_allclose(bev[same], expected[same], atol=1.0 if dtype == np.uint8 else 0.2)
    assert not bev[~shown].any()


@settings(max_examples=150, deadline=None)
@given(
    grid=grids,
    view=views,
    pose=poses | level_poses,
    dtype=st.sampled_from([np.uint8, np.float32]),
    channels=st.integers(1, 4),
)
def test_kernel_equals_reference(
    grid: BevGrid, view: PanoramaView, pose: Pose, dtype: type, channels: int
) -> None:
    assert_kernel_equals_reference(grid, view, pose, dtype, channels)


CROP = {"vertical_fov": (38.6, -26.9), "horizontal_fov": (-90.0, 90.0)}
EDGE_CASES = {
    "one pixel": (BevGrid(4), PanoramaView(1, 1), Pose()),
    "one pixel, turned": (BevGrid(5), PanoramaView(1, 1), Pose(heading=200.0)),
    "one row": (BevGrid(7), PanoramaView(1, 2), Pose(heading=359.999)),
    "one column": (BevGrid(7), PanoramaView(2, 1), Pose(heading=-0.001)),
    "three columns": (BevGrid(9), PanoramaView(2, 3), Pose(heading=45.0)),
    "one BEV pixel": (BevGrid(1), PanoramaView(8, 16), Pose()),
    "one BEV pixel, tilted": (BevGrid(1), PanoramaView(8, 16), Pose(pitch=3.0)),
    "odd size": (BevGrid(33), PanoramaView(9, 17), Pose()),
    "crop": (BevGrid(32), PanoramaView(9, 17, **CROP), Pose()),
    "crop, odd size": (BevGrid(33, 2.0), PanoramaView(9, 17, **CROP), Pose()),
    "crop, tilted": (BevGrid(33, 2.0), PanoramaView(9, 17, **CROP), Pose(roll=20.0)),
    "crop, one pixel": (BevGrid(33, 2.0), PanoramaView(1, 1, **CROP), Pose()),
    "crop from the seam": (
        BevGrid(32),
        PanoramaView(9, 12, horizontal_fov=(-180.0, 90.0)),
        Pose(heading=7.0),
    ),
    "narrow crop": (
        BevGrid(32),
        PanoramaView(200, 3000, (-40.0, -41.0), (10.0, 10.5)),
        Pose(heading=-33.0),
    ),
    "nose to the sky": (BevGrid(32), PanoramaView(16, 32), Pose(pitch=90.0)),
    "nose to the ground": (BevGrid(33), PanoramaView(16, 32), Pose(pitch=-90.0)),
    "lying": (BevGrid(32), PanoramaView(16, 32), Pose(roll=90.0)),
    "upside down": (BevGrid(33), PanoramaView(16, 32), Pose(roll=180.0)),
    "all of the world": (BevGrid(32, 1e3), PanoramaView(16, 32), Pose(pitch=1.0)),
    "a speck": (BevGrid(32, 1e-6), PanoramaView(16, 32), Pose(pitch=1.0)),
    "from an aeroplane": (BevGrid(32), PanoramaView(16, 32), Pose(1e4)),
    "wide": (BevGrid(32), PanoramaView(4, 65536), Pose(heading=179.999)),
    "large BEV": (BevGrid(1024, 0.01), PanoramaView(16, 32), Pose(heading=1.0)),
}


@pytest.mark.parametrize("name", EDGE_CASES)
def test_kernel_edge_cases_equal_reference(name: str) -> None:
    grid, view, pose = EDGE_CASES[name]
    assert_kernel_equals_reference(grid, view, pose)


@pytest.mark.parametrize("name", EDGE_CASES)
def test_kernel_edge_cases_anti_aliased(name: str) -> None:
    # A mean of one colour is that colour; and anti-aliasing changes nothing of what is shown.
    grid, view, pose = EDGE_CASES[name]
    panorama = np.full((view.height, view.width, 2), 200, np.uint8)
    bev, shown = project_view(panorama, grid, view, pose)
    _, expected = project_view(panorama, grid, view, pose, antialias=False)
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(bev, np.where(shown, 200, 0)[..., None].repeat(2, axis=2))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("pose", [Pose(1.5), Pose(1.5, 12.345), Pose(1.5, -70.0, 3.0, -2.0)])
def test_full_size_within_the_rounding_of_the_reference(pose: Pose, channels: int) -> None:
    # The nearest 1/4096 pixel and the integer weights cost 0.2 grey levels of white noise at most,
    # and rounding half a level.
    grid, view = BevGrid(512, 0.06), PanoramaView(832, 1664)
    panorama = np.random.default_rng(channels).integers(0, 256, (832, 1664, channels), np.uint8)
    column, row, _ = panorama_pixels(grid, view, pose)
    expected = bilinear(panorama, column, row, wraps=True)
    bev, _ = project_view(panorama, grid, view, pose, antialias=False)
    np.testing.assert_allclose(bev, expected, atol=0.7)
    floats, _ = project_view(panorama.astype(np.float32), grid, view, pose, antialias=False)
    np.testing.assert_allclose(bev, floats, atol=0.52)


coordinates = st.floats(-1e150, 1e150).filter(lambda value: value == 0 or abs(value) > 1e-150)


@settings(deadline=None)  # the first call compiles
@given(y=coordinates, x=coordinates)
def test_the_arc_tangent_is_right(y: float, x: float) -> None:
    # With a million columns, 1e-12 radians are less than a thousandth of 1/4096 pixel.
    assert planning.arctan2(y, x) == pytest.approx(math.atan2(y + 0.0, x + 0.0), abs=1e-12)


def test_cameras_of_many_poses_are_those_of_each() -> None:
    random = np.random.default_rng(0)
    poses = random.uniform((1, -400, -90, -180), (3, 400, 90, 180), (50, 4))
    each = [planning.camera_of(Pose(*pose)) for pose in poses.tolist()]
    np.testing.assert_allclose(planning.cameras_of(poses), each, rtol=0, atol=1e-12)


def test_the_arc_tangent_is_right_all_around() -> None:
    angles = np.concatenate([np.linspace(-np.pi, np.pi, 20_001), np.arange(-7, 9) * np.pi / 8])
    for angle in angles:
        y, x = math.sin(angle), math.cos(angle)
        assert abs(planning.arctan2(y, x) - math.atan2(y, x)) < 1e-12


@settings(max_examples=60, deadline=None)
@given(grid=grids, view=views, pose=poses)
def test_kernel_anti_aliased_stays_within_the_panorama(
    grid: BevGrid, view: PanoramaView, pose: Pose
) -> None:
    panorama = np.random.default_rng(view.width).integers(
        50, 60, (view.height, view.width, 1), np.uint8
    )
    bev, shown = project_view(panorama, grid, view, pose)
    assume(shown.any())
    assert panorama.min() <= bev[shown].min()
    assert bev[shown].max() <= panorama.max()
    assert not bev[~shown].any()


@pytest.mark.parametrize("heading", [0.0, 37.0, 181.3])
@pytest.mark.parametrize(
    "view", [PanoramaView(65, 130), PanoramaView(32, 64), PanoramaView(416, 832)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_half_of_the_points_gives_the_pixels_of_all(
    heading: float, view: PanoramaView, channels: int
) -> None:
    planner = planning.Planner(BevGrid(70, 0.5), view, antialias=True)
    lookup, shift = planner.lookup(Pose(1.5, heading))
    assert lookup.mirrored
    assert len(lookup.averaged) > 3
    panorama = np.random.default_rng(channels).integers(
        0, 256, (view.height, view.width, channels), np.uint8
    )
    panorama.flags.writeable = False
    bevs = np.zeros((2, 70 * 70, channels), np.uint8)
    points = lookup.columns, lookup.rows, lookup.averaged, lookup.first
    samples = lookup.sample_columns, lookup.sample_rows
    for bev, mirrored in zip(bevs, (True, False), strict=True):
        sample_uint8(panorama, *points, *samples, shift, True, mirrored, bev)
    np.testing.assert_array_equal(bevs[0], bevs[1])


def test_only_what_looks_straight_on_is_mirrored() -> None:
    for size, width, pose in ((70, 130, Pose(pitch=1)), (71, 130, Pose()), (70, 131, Pose())):
        planner = planning.Planner(BevGrid(size, 0.5), PanoramaView(65, width), antialias=False)
        assert not planner.lookup(pose)[0].mirrored


# Numba leaves out bounds checks unless told before it compiles, so this takes a new process with
# a cache of its own. It first makes sure that the checks are on.
BOUNDS_CHECKED = """
import sys
import numpy as np, pytest
from bevgen.projection.sampling import sample_float32
from bevgen.projection.sampling_uint8 import sample_uint8
far, none = np.array([1 << 20], np.int32), np.empty(0, np.int32)
for apply, dtype, more in ((sample_uint8, np.uint8, (False,)), (sample_float32, np.float32, ())):
    panorama, bev = np.zeros((1, 1, 1), dtype), np.zeros((1, 1), dtype)
    with pytest.raises(IndexError):
        apply(panorama, far, far, none, np.zeros(1, np.int32), none, none, 0, True, *more, bev)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "test_kernel_", sys.argv[1]]))
"""


def test_kernels_stay_within_bounds(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS_CHECKED, __file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(EDGE_CASES) + 2} passed" in done.stdout


# Vector instructions know no bounds checks. What runs here reads up to where memory ends.


def run_guarded(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)} if "portable" in arguments else {}
    return subprocess.run(
        [sys.executable, "-m", "tests.helpers.guarded", *arguments],
        env=os.environ | cache,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("arguments", [("end",), ("start",), ("end", "portable")], ids=" ".join)
def test_nothing_beyond_the_panorama_and_the_bev_is_touched(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run_guarded(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == digest(None)


def test_another_processor_draws_the_same(tmp_path: Path) -> None:
    """One with neither AVX nor fused multiplications; its code is not mixed with ours."""
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": tmp_path}
    done = subprocess.run(
        [sys.executable, "-c", "from tests.helpers.guarded import digest; print(digest(None))"],
        env=os.environ | {name: str(value) for name, value in generic.items()},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == digest(None)


def test_memory_does_end_there(tmp_path: Path) -> None:
    assert run_guarded(tmp_path, "beyond").returncode in (-signal.SIGSEGV, -signal.SIGBUS)
