"""The synthetic city: geometry against closed forms and brute force, honest splits, same bytes."""

from __future__ import annotations

import csv
import math
import signal
import subprocess
import sys
import time
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import bevgen
from bevgen.errors import InputError, RefusedError
from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels
from bevgen.shards import ShardSet
from bevgen.tables import PoseRow, read_poses
from georetrieval.data.tiles import open_source
from georetrieval.data.tiles.cutting import cut_tile
from pipelines.citymaker import render, scene, styles, world
from pipelines.citymaker.dataset import Settings, flaws_of, make_city, plan, prepare, shots
from pipelines.citymaker.places import Tile, latitude_longitude
from pipelines.citymaker.raster import make_rasters
from pipelines.citymaker.rig import CAP_DEGREES, CAPS, build_car, hidden, put_cap
from pipelines.citymaker.scene import Scene, Solid
from pipelines.citymaker.site import solid
from pipelines.citymaker.trace import GROUND, SKY, trace
from tests.helpers.ground_truth import psnr as psnr_of_floats

Array = NDArray[np.float64]
SUMMER, WINTER = date(2023, 6, 4), date(2024, 1, 20)
NOWHERE = np.empty((0, 2))


def psnr(picture: render.Image, truth: render.Image) -> float:
    return psnr_of_floats(picture.astype(np.float64), truth.astype(np.float64))


@cache
def town(name: str = "downtown") -> world.World:
    return world.build(styles.DISTRICTS[name], (60.0, 60.0), 5)


def with_solids(rows: list[list[float]]) -> Scene:
    """A district's ground with nothing on it but these solids."""
    empty = world.scene_on(town(), SUMMER, NOWHERE)
    solids = np.array(rows, np.float32).reshape(-1, scene.SOLID_COLUMNS)
    columns = [scene.CX, scene.CY, scene.COS, scene.SIN, scene.HX, scene.HY]
    boxes = scene.turned_boxes(*solids[:, columns].astype(np.float64).T)
    first, items = scene.list_by_cell(boxes, empty.x0, empty.y0, empty.nx, empty.ny)
    tops = solids[:, scene.TOP].copy()
    cell_top = np.zeros(empty.nx * empty.ny, np.float32)
    np.maximum.at(cell_top, np.repeat(np.arange(len(cell_top)), np.diff(first)), tops[items])
    return empty._replace(
        solids=solids,
        crowns=np.empty((0, scene.CROWN_COLUMNS), np.float32),
        thing_first=first,
        thing_items=items,
        cell_top=cell_top,
        thing_top=tops,
        top=float(tops.max(initial=0)),
    )


# --- geometry ---


@pytest.mark.parametrize("trial", range(3))
def test_bev_of_a_panorama_is_the_ground_seen_from_above(trial: int) -> None:
    rng = np.random.default_rng(trial)
    ground = with_solids([])
    light = styles.satellite_light(SUMMER)._replace(haze=0.0)
    # On a street, near a crossing: lines, zebras and patches all around.
    street = next(s for s in town().streets[trial * 7 :] if any(s.zebras) and s.length > 40)
    along = street.trims[0] + 5 if street.zebras[0] else street.length - street.trims[1] - 5
    x, y = street.at(along, 1.0)[0, :2]
    pose = Pose(2.0 + 0.05 * trial, rng.uniform(0, 360), *rng.uniform(-4, 4, 2))
    panorama = render.panorama(ground, light, x, y, pose, 2048)
    grid = BevGrid(240, 0.05)
    above = render.satellite(ground, light, x, y, grid)

    def bev(turned: float) -> NDArray[np.uint8]:
        return bevgen.project(
            panorama, height=pose.height, heading=pose.heading + turned, pitch=pose.pitch,
            roll=pose.roll, size=grid.size, resolution=grid.resolution,
        )  # fmt: skip

    assert above.std() > 15  # something to see
    assert psnr(bev(0.0), above) > 32
    assert psnr(bev(1.0), above) < psnr(bev(0.0), above) - 3


def clipped(rays: Array, row: Array) -> tuple[Array, Array]:
    """Where rays enter and leave a solid, by clipping with its half-spaces (inf if they miss)."""
    c, s = row[scene.COS], row[scene.SIN]
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    start = (rays[:, :3] - [row[scene.CX], row[scene.CY], 0]) @ turn.T
    step = rays[:, 3:] @ turn.T
    planes = []  # n . p <= d
    for axis, half, lean in ((0, scene.HX, scene.LEAN_X), (1, scene.HY, scene.LEAN_Y)):
        for sign in (1, -1):
            normal = np.zeros(3)
            normal[axis] = sign
            planes.append((normal, row[half]))
            if row[lean]:
                planes.append(
                    (normal + np.array([0, 0, row[lean]]), row[half] + row[lean] * row[scene.EAVE])
                )
    planes += [
        (np.array([0, 0, 1.0]), row[scene.TOP]),
        (np.array([0, 0, -1.0]), -row[scene.BOTTOM]),
    ]
    near, far = np.zeros(len(rays)), np.full(len(rays), np.inf)
    for normal, d in planes:
        rate, room = step @ normal, d - start @ normal
        with np.errstate(divide="ignore", invalid="ignore"):
            t = room / rate
        near = np.where(rate < 0, np.maximum(near, t), near)
        far = np.where(rate > 0, np.minimum(far, t), far)
        far = np.where((rate == 0) & (room < 0), -np.inf, far)
    missed = near >= far
    return np.where(missed, np.inf, near), np.where(missed, np.inf, far)


def test_rays_meet_what_brute_force_says_and_so_does_the_sun() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(60):
        (x, y), angle = rng.uniform(-90, 90, 2), rng.uniform(0, 6.3)
        size, eave = tuple(rng.uniform(1, 9, 2)), rng.uniform(2, 20)
        lean = tuple(rng.uniform(0.5, 1.5, 2) * (rng.uniform(size=2) < 0.5))
        top = eave + rng.uniform(0, 3) * any(lean)
        rows.append(
            solid(x, y, math.cos(angle), math.sin(angle), size, (0, eave, top), Solid.BUILDING,
                  (1, 1, 1), lean=lean)
        )  # fmt: skip
    made = with_solids(rows)
    table = made.solids.astype(np.float64)
    light = styles.light_of(SUMMER, 0)
    rays = rng.normal(size=(4000, 6))
    rays[:, :2] = rng.uniform(-90, 90, (4000, 2))
    rays[:, 2] = rng.uniform(0.5, 30, 4000)
    rays[:, 5] *= 0.4
    rays[:, 3:] /= np.linalg.norm(rays[:, 3:], axis=1, keepdims=True)
    within = np.array([clipped(rays, row)[0] == 0 for row in table]).any(axis=0)
    rays = rays[~within].astype(np.float32).astype(np.float64)
    entries = np.array([clipped(rays, row)[0] for row in table])
    with np.errstate(divide="ignore"):
        floor = np.where(rays[:, 5] < 0, -rays[:, 2] / rays[:, 5], np.inf)
    expected = np.minimum(entries.min(axis=0), floor)
    what = np.where(entries.min(axis=0) < floor, entries.argmin(axis=0), GROUND)
    what[~np.isfinite(expected)] = SKY

    things = np.empty((len(rays), 2), np.int32)
    hits = np.empty((len(rays), 5), np.float32)
    trace(made, light, rays.astype(np.float32), things, hits)

    near = expected < 2000
    assert (things[near, 0] == what[near]).mean() > 0.999
    same = near & (things[:, 0] == what) & (what != SKY)
    np.testing.assert_allclose(hits[same, 0], expected[same], rtol=2e-4, atol=2e-3)
    assert (what[near] >= 0).sum() > 500
    on_ground = same & (what == GROUND) & (expected < 150)
    points = rays[on_ground, :3] + expected[on_ground, None] * rays[on_ground, 3:]
    to_sun = np.tile([light.sun_x, light.sun_y, light.sun_z], (len(points), 1))
    sunny = ~np.isfinite([clipped(np.hstack([points, to_sun]), r)[0] for r in table]).any(axis=0)
    assert 0.1 < sunny.mean() < 0.99
    assert ((hits[on_ground, 4] > 0.5) == sunny).mean() > 0.995


def test_a_tower_stands_where_the_panorama_and_the_tiles_say() -> None:
    white = (0.9, 0.9, 0.9)
    tower = solid(12, 20, 1, 0, (5, 5), (0, 30, 30), Solid.LAMP, (0.9, 0.0, 0.9), white)
    made = with_solids([tower])
    dark = styles.satellite_light(SUMMER)._replace(haze=0.0)
    pose = Pose(height=2.0, heading=30.0)
    picture = render.panorama(made, dark, 2.0, 0.0, pose, 720).astype(int)
    magenta = (picture[..., 0] > 1.5 * picture[..., 1]) & (picture[..., 2] > 1.5 * picture[..., 1])
    rows, columns = np.nonzero(magenta)
    # Seen from (2, 0): the front's corners are 5 and 15 m east at 15 m; the east side's far corner
    # is hidden behind (15, 15). Half a degree per pixel.
    left, right = math.degrees(math.atan2(5, 25)), math.degrees(math.atan2(15, 15))
    assert columns.min() / 2 - 180 == pytest.approx(left - 30, abs=0.6)
    assert (columns.max() + 1) / 2 - 180 == pytest.approx(right - 30, abs=0.6)
    highest = math.degrees(math.atan2(28, 15.0 / math.cos(math.atan2(5, 15))))
    assert 90 - rows.min() / 2 == pytest.approx(highest, abs=0.8)
    grid = BevGrid(200, 0.25)
    above = render.satellite(made, dark, 2.0, 0.0, grid).astype(int)
    seen = (above[..., 0] > 1.5 * above[..., 1]) & (above[..., 2] > 1.5 * above[..., 1])
    assert seen.sum() * 0.25**2 == pytest.approx(100, rel=0.05)
    rows, columns = np.nonzero(seen)
    assert ((columns + 0.5).mean() - 100) * 0.25 == pytest.approx(10, abs=0.15)
    assert (100 - (rows + 0.5).mean()) * 0.25 == pytest.approx(20, abs=0.15)


def test_off_the_vertical_a_roof_leans_by_its_height_and_its_feet_stay() -> None:
    tower = solid(12, 20, 1, 0, (5, 5), (0, 30, 30), Solid.LAMP, (0.9, 0.0, 0.9))
    made, dark = with_solids([tower]), styles.satellite_light(SUMMER)._replace(haze=0.0)
    tile = render.satellite(made, dark, 2.0, 0.0, BevGrid(200, 0.25), lean=(0.2, 0.0)).astype(int)
    seen = (tile[..., 0] > 1.5 * tile[..., 1]) & (tile[..., 2] > 1.5 * tile[..., 1])
    rows, columns = np.nonzero(seen)
    # From the east: the roof, 7 to 17 metres east, lies 30 * 0.2 metres west of its feet.
    assert (columns.min() - 100) * 0.25 == pytest.approx(7 - 6 - 2, abs=0.3)
    assert (columns.max() - 99) * 0.25 == pytest.approx(17 - 2, abs=0.3)
    assert (100 - rows.min()) * 0.25 == pytest.approx(25, abs=0.3)
    assert (99 - rows.max()) * 0.25 == pytest.approx(15, abs=0.3)


def test_what_real_pairs_have_comes_on_top_of_the_same_district() -> None:
    plain = town()
    hard = world.build(plain.district, plain.half, plain.seed, overhang=True, wires=True)
    for name in ("solids", "trees"):
        before, after = getattr(plain, name), getattr(hard, name)
        np.testing.assert_array_equal(after[: len(before)], before)
        assert len(after) > len(before)
    np.testing.assert_array_equal(hard.patches, plain.patches)
    wires = hard.solids[len(plain.solids) :]
    wires = wires[wires[:, scene.BOTTOM] > 6]
    x, y, half = wires[:, scene.CX], wires[:, scene.CY], wires[:, scene.HX]
    assert np.hypot(x, y).min() < 60
    assert half.max() < 30
    tile = Tile("a", "downtown", 0, 0)
    assert flaws_of(tile, Settings(places=6)) == ((0, 0), (0, 0))
    flaws = [
        flaws_of(Tile(f"{i}", "downtown", 0, 0), Settings(places=6, shift=1.5, lean=20.0))
        for i in range(400)
    ]
    assert np.std([off for off, _ in flaws]) == pytest.approx(1.5, rel=0.1)
    assert np.mean([off for off, _ in flaws]) == pytest.approx(0, abs=0.2)
    leans = np.rad2deg(np.arctan([math.hypot(*lean) for _, lean in flaws]))
    assert 18 < leans.max() <= 20
    assert leans.mean() == pytest.approx(10, rel=0.15)


def test_another_date_keeps_the_buildings_and_changes_light_leaves_and_cars() -> None:
    street = max(town().streets, key=lambda s: s.length if np.abs(s.points).max() < 60 else 0)
    x, y = street.at(street.length / 2, -1.0)[0, :2]
    clear = np.array([[x, y]])
    pictures, met, cars = [], [], []
    for day in (SUMMER, WINTER):
        made = world.scene_on(town(), day, clear)
        light = styles.light_of(day, 0)
        pictures.append(render.panorama(made, light, x, y, Pose(), 512).astype(float))
        azimuth, elevation = np.meshgrid(np.linspace(-3.1, 3.1, 300), np.linspace(-0.5, 1.2, 150))
        d = (np.sin(azimuth), np.cos(azimuth), np.tan(elevation))
        rays = np.stack([np.full_like(azimuth, v) for v in (x, y, 2.0)] + list(d), -1)
        rays = rays.reshape(-1, 6)
        rays[:, 3:] /= np.linalg.norm(rays[:, 3:], axis=1, keepdims=True)
        things, hits = np.empty((len(rays), 2), np.int32), np.empty((len(rays), 5), np.float32)
        trace(made, light, rays.astype(np.float32), things, hits)
        met.append((things[:, 0], hits[:, 0]))
        bodies = made.solids[made.solids[:, scene.KIND] == Solid.BODY]
        cars.append({(round(float(b[0])), round(float(b[1]))) for b in bodies})
        np.testing.assert_array_equal(made.solids[: len(town().solids)], town().solids)
        assert np.hypot(bodies[:, 0] - x, bodies[:, 1] - y).min() > 3
    (a, ta), (b, tb) = met
    fixed = len(town().solids)
    both = (a >= 0) & (a < fixed) & (b >= 0) & (b < fixed)
    assert both.mean() > 0.15
    np.testing.assert_array_equal(a[both], b[both])
    np.testing.assert_array_equal(ta[both], tb[both])
    assert np.abs(pictures[0] - pictures[1]).mean() > 12
    assert len(cars[0] & cars[1]) < 0.8 * len(cars[0])


# --- places, splits, tables ---


@pytest.mark.parametrize(
    "options", [{}, {"offset": 12.0}, {"tiles": "grid"}, {"heading": "random", "tilt": 1.5}]
)
def test_no_tile_of_one_split_shows_ground_of_another(options: dict[str, object]) -> None:
    settings = Settings(places=180, dates=("2023-06-04", "2024-01-20"), **options)  # type: ignore[arg-type]
    for district in plan(settings):
        boxes = {}
        for pair in district.pairs:
            boxes.setdefault(pair.place.split, []).append((pair.tile.x, pair.tile.y))
        splits = list(boxes)
        assert set(splits) == (
            {"cross"} if district.name == "harbour" else {"train", "val", "test"}
        )
        for i, one in enumerate(splits):
            for other in splits[:i]:
                apart = np.abs(np.array(boxes[one])[:, None] - np.array(boxes[other])[None])
                assert apart.max(axis=-1).min() >= settings.tile_metres
        where = np.array([(p.x, p.y) for p in district.places])
        between = np.hypot(*(where[:, None] - where[None]).T) + 1e9 * np.eye(len(where))
        assert between.min() >= 5
        days = {split for _, _, split in shots(district, settings)}
        assert days >= ({"temporal-cross"} if "cross" in splits else {"temporal"})


def earth(latitude: float, longitude: float) -> Array:
    """Metres in the earth's own axes, by the textbook formula for WGS84."""
    a, b = 6378137.0, 6356752.314245
    phi, lam = math.radians(latitude), math.radians(longitude)
    n = a * a / math.hypot(a * math.cos(phi), b * math.sin(phi))
    return np.array(
        [
            n * math.cos(phi) * math.cos(lam),
            n * math.cos(phi) * math.sin(lam),
            (b / a) ** 2 * n * math.sin(phi),
        ]
    )


def position(info: PoseRow) -> tuple[float, float]:
    assert info.latitude is not None
    assert info.longitude is not None
    return info.latitude, info.longitude


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("tiles", ["centred", "grid"])
def test_tables_agree_with_each_other_and_with_the_earth(tmp_path: Path, tiles: str) -> None:
    settings = Settings(
        places=12, districts=("oldtown", "park"), tiles=tiles, offset=9.0 * (tiles == "centred"),
        heading="random", tilt=1.0, dates=("2023-06-04", "2024-01-20"), views=(),
        panorama_width=128, tile_size=48,
    )  # fmt: skip
    make_city(tmp_path, settings)
    poses = read_poses(tmp_path / "poses.csv")
    unknown = read_poses(tmp_path / "poses-unknown-heading.csv")
    assert poses.keys() == unknown.keys()
    assert all(row.heading is None for row in unknown.values())
    by_id = {row.id: row for row in poses.values()}
    at = {row.id: row for row in read_poses(tmp_path / "satellite.csv").values()}
    assert at.keys() == {row.id for row in read_poses(tmp_path / "map.csv").values()}
    assert max(abs(info.pitch or 0) for info in by_id.values()) > 0
    pairs = read(tmp_path / "pairs.csv")
    assert {pair["query"] for pair in pairs} == set(by_id)
    assert {pair["reference"] for pair in pairs} == set(at)
    roles: dict[str, list[str]] = {}
    for pair in pairs:
        query, tile = by_id[pair["query"]], at[pair["reference"]]
        roles.setdefault(pair["query"], []).append(pair["role"])
        here, there = position(query), position(tile)
        d_row, d_col = float(pair["d_row"]), float(pair["d_col"])
        metres = math.hypot(d_row, d_col) * settings.resolution
        assert metres == pytest.approx(
            float(np.linalg.norm(earth(*here) - earth(*there))), abs=0.03
        )
        assert (d_row <= 0) == (here[0] >= there[0])
        assert (d_col <= 0) == (here[1] >= there[1])
        limit = {"centred": 9 / 70, "grid": 0.25 if pair["role"] == "positive" else 0.5}[tiles]
        assert max(abs(d_row), abs(d_col)) <= limit * settings.tile_size + 0.01
    wanted = ["positive"] + ["semi"] * (3 if tiles == "grid" else 0)
    assert all(found == wanted for found in roles.values())


def test_a_tile_shows_its_place_at_the_pixel_that_pairs_csv_says(tmp_path: Path) -> None:
    settings = Settings(places=8, districts=("downtown",), cross=(), offset=15.0, test=0.0)
    district = plan(settings)[0]
    made = world.scene_on(
        world.build(styles.DISTRICTS["downtown"], district.half, settings.seed), SUMMER, NOWHERE
    )
    for pair in district.pairs[:4]:
        place, size = pair.place, settings.tile_size
        light = styles.satellite_light(SUMMER)
        grid = BevGrid(size, settings.resolution)
        tile = render.satellite(made, light, pair.tile.x, pair.tile.y, grid)
        around = render.satellite(made, light, place.x, place.y, BevGrid(64, settings.resolution))
        row, column = size / 2 + pair.d_row, size / 2 - pair.d_col
        crop = Image.fromarray(tile).transform(
            (64, 64), Image.Transform.AFFINE, (1, 0, column - 32, 0, 1, row - 32),
            Image.Resampling.BILINEAR,
        )  # fmt: skip
        assert psnr(np.asarray(crop), around) > 22
        moved = Image.fromarray(tile).transform(
            (64, 64), Image.Transform.AFFINE, (1, 0, column - 29, 0, 1, row - 32),
            Image.Resampling.BILINEAR,
        )  # fmt: skip
        assert psnr(np.asarray(moved), around) < psnr(np.asarray(crop), around) - 2


# --- files ---


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_bytes_from_any_number_of_threads_and_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(
        places=6, districts=("suburb",), cross=("harbour",), panorama_width=128, tile_size=48
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert make_city(one, settings, workers=1) == {"made": 18, "kept": 0}
    make_city(two, settings, workers=4)
    assert contents(one) == contents(two)
    assert len({data for name, data in contents(one).items() if name.startswith("panorama")}) == 6
    for path in sorted((two / "panorama").iterdir())[::2]:
        path.unlink()
    assert make_city(two, settings, workers=2) == {"made": 3, "kept": 15}
    assert contents(one) == contents(two)
    with Image.open(next((one / "panorama").iterdir())) as image:
        assert image.size == (128, 64)
    other = Settings(
        places=6,
        districts=("suburb",),
        cross=("harbour",),
        seed=1,
        panorama_width=128,
        tile_size=48,
    )
    with pytest.raises(RefusedError, match=r"seed \(0 there, 1 now\)"):
        make_city(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"districts": ("atlantis",)}, "oldtown, downtown"),
        ({"cross": ("oldtown",)}, "once"),
        ({"places": 3}, "too few"),
        ({"dates": ("June",)}, "2023-06-20"),
        ({"tiles": "grid", "offset": 3.0}, "offset"),
        ({"test": 0.6, "validation": 0.4}, "below 1"),
        ({"lean": 50.0}, "lean 0 to 30"),
        ({"shift": -1.0}, "0 to 20 metres off"),
        ({"cap": "green"}, "black, white, logo, blur"),
    ],
)
def test_senseless_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**options)  # type: ignore[arg-type]


def test_every_district_looks_different_and_nothing_is_black() -> None:
    means = []
    for name in styles.DISTRICTS:
        made = world.scene_on(world.build(styles.DISTRICTS[name], (20, 20), 3), SUMMER, NOWHERE)
        tile = render.satellite(made, styles.satellite_light(SUMMER), 0, 0, BevGrid(96, 0.7))
        drawn = render.map_tile(made, 0, 0, BevGrid(96, 0.7))
        assert tile.std() > 20
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 3
        means.append(tile.mean(axis=(0, 1)))
    apart = np.abs(np.array(means)[:, None] - np.array(means)[None]).max(axis=-1)
    assert (apart + 99 * np.eye(len(means))).min() > 2


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.city", *options]


def test_the_command_stops_on_ctrl_c_goes_on_and_feeds_convert(tmp_path: Path) -> None:
    out = tmp_path / "city"
    options = [
        "--out", str(out), "--places", "40", "--districts", "downtown", "--cross", "",
        "--panorama-width", "512", "--tile-size", "64", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command(*options), stderr=subprocess.PIPE, text=True)
    while not list(out.glob("panorama/*.jpg")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    second = subprocess.run(command(*options), capture_output=True, text=True, check=False)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert second.returncode == 1
    assert f"another run is writing {out} (process {process.pid} on" in second.stderr
    assert "the same command goes on" in said
    assert not list(out.rglob("*.part"))
    made = len(list(out.glob("*/*.*g")))
    assert 0 < made < 120
    done = subprocess.run(command(*options), capture_output=True, text=True, check=True)
    assert f"{120 - made} pictures made, {made} kept" in " ".join(done.stderr.split())
    refused = subprocess.run(command(*options, "--seed", "2"), capture_output=True, text=True)
    assert refused.returncode == 1
    assert "another seed" in refused.stderr
    convert = [
        sys.executable, "-m", "bevgen", "convert", "--in", str(out / "panorama"), "--poses",
        str(out / "poses.csv"), "--out", str(tmp_path / "bev.h5"), "--size", "64", "--quiet",
    ]  # fmt: skip
    subprocess.run(convert, check=True, capture_output=True)
    assert set(ShardSet(tmp_path / "bev.h5").ids) == {f"downtown-{i:05d}" for i in range(40)}
    wrong = subprocess.run(command(*options, "--tilt", "99"), capture_output=True, text=True)
    assert wrong.returncode == 2


def test_panoramas_packed_north_are_those_taken_facing_north(tmp_path: Path) -> None:
    """CVGlobal's names say the heading; 62 degrees are 124 of 720 columns."""
    light = styles.satellite_light(SUMMER)._replace(haze=0.0)
    ground = world.scene_on(town(), SUMMER, NOWHERE)
    street = max(town().streets, key=lambda s: s.length)
    x, y = street.at(street.length / 2, 1.0)[0, :2]
    for heading, folder in ((0.0, "north"), (62.0, "anyhow")):
        (tmp_path / folder).mkdir()
        picture = render.panorama(ground, light, x, y, Pose(2.0, heading), 720)
        name = f"48.137000,11.575000_2022-08_-a_b_d{heading:.0f}_z3.png"
        Image.fromarray(picture).save(tmp_path / folder / name)
    (tmp_path / "poses.csv").write_text(
        "file,id\n48.137000,".replace("48", '"48') + '11.575000_2022-08_-a_b_d62_z3.png",place\n'
    )

    def packed(folder: str, *options: str, code: int = 0) -> str:
        out = tmp_path / f"{folder}.h5"
        line = [sys.executable, "-m", "bevgen", "pack", "--in", str(tmp_path / folder), "--out",
                str(out), "--kind", "panorama", "--size", "180x360", *options]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stderr

    poses = ("--poses", str(tmp_path / "poses.csv"))
    packed("anyhow", "--turn-to-north", *poses)
    packed("north")
    turned, north = (ShardSet(tmp_path / f"{name}.h5") for name in ("anyhow", "north"))
    assert turned.columns["heading"].tolist() == [0.0]
    assert turned.settings["turn_to_north"] is True
    off = np.abs(turned[0].astype(int) - north[0])
    # Rays through the same points round differently; at the seam, resizing does not look across.
    assert np.mean(off > 2) < 0.005
    assert np.mean(np.abs(np.roll(turned[0].astype(int), 1, axis=1) - north[0]) > 2) > 0.2
    # What it is is remembered: the same command finds it done, another is refused.
    assert "is complete" in packed("anyhow", "--turn-to-north", *poses)
    assert "turn_to_north: True there, not set now" in packed("anyhow", *poses, code=1)
    refused = packed("anyhow", "--turn-to-north", "--kind", "satellite", code=2)
    assert "only panoramas can be turned" in refused


def test_the_camera_of_the_map_is_the_reference_mapping() -> None:
    """Zebra stripes found in the BEV lie where `bevgen.geometry` says the panorama shows them."""
    ground = with_solids([])
    light = styles.satellite_light(SUMMER)._replace(haze=0.0)
    pose = Pose(2.0, 77.0, 2.0, -1.0)
    street = next(s for s in town().streets if s.zebras[0])
    x, y = street.at(street.trims[0] + 2.0)[0, :2]
    picture = render.panorama(ground, light, x, y, pose, 1024).astype(float)
    grid = BevGrid(64, 0.1)
    above = render.satellite(ground, light, x, y, grid).astype(float)
    column, row, _ = panorama_pixels(grid, PanoramaView(512, 1024), pose)
    nearest = picture[np.rint(row).astype(int).clip(0, 511), np.rint(column).astype(int) % 1024]
    assert np.corrcoef(nearest[..., 1].ravel(), above[..., 1].ravel())[0, 1] > 0.9


# --- what the camera carries ---


@pytest.mark.parametrize("cap", ["", *CAPS])
def test_car_and_cap_hide_what_the_mask_says_and_nothing_else(cap: str) -> None:
    light = styles.light_of(SUMMER, 0)
    made, car = world.scene_on(town(), SUMMER, NOWHERE), build_car(1)
    pose, width = Pose(2.0, 70.0, 3.0, -5.0), 256
    plain = render.panorama(made, light, 3.0, 4.0, pose, width)
    seen = render.panorama(made, light, 3.0, 4.0, pose, width, car=None if cap else car)
    seen = put_cap(seen, cap) if cap else seen
    differs = (plain != seen).any(axis=-1)
    truth = hidden(None if cap else car, cap, width)
    assert 0.1 < truth.mean() < 0.5
    # Pixels on the rim show both, and the mask gives each to what lies at its centre.
    near = ndimage.binary_dilation(truth, iterations=1)
    assert not (differs & ~near).any()
    assert (differs & truth).sum() / truth.sum() > (0.8 if cap == "blur" else 0.99)


def test_the_car_stands_still_in_the_camera_and_its_light_does_not() -> None:
    made, car = world.scene_on(town(), SUMMER, NOWHERE), build_car(1)
    light = styles.light_of(SUMMER, 0)._replace(clouds=0.0)
    truth = ndimage.binary_erosion(hidden(car, "", 256), iterations=2)
    pictures = [
        render.panorama(made, light, x, 0.0, Pose(2.0, heading), 256, car=car).astype(int)
        for x, heading in ((0.0, 0.0), (9.0, 0.0), (0.0, 180.0))
    ]
    assert (pictures[0] == pictures[1])[truth].all()
    assert (pictures[0] != pictures[2])[truth].mean() > 0.05


def test_a_cap_is_a_disc_of_its_degrees() -> None:
    black = put_cap(np.full((512, 1024, 3), 200, np.uint8), "black")
    rows = np.flatnonzero((black < 10).all(axis=(1, 2)))
    assert rows[-1] == 511
    assert (512 - rows[0]) * 180 / 512 == pytest.approx(CAP_DEGREES, abs=0.5)


def test_the_mask_lies_beside_the_pictures(tmp_path: Path) -> None:
    size = {"panorama_width": 128, "tile_size": 16, "views": ("panorama",)}
    make_city(
        tmp_path, Settings(places=1, districts=("suburb",), cross=(), car=True, cap="logo", **size)
    )
    with Image.open(tmp_path / "mask.png") as image:
        assert image.size == (128, 64)
        assert np.array_equal(np.asarray(image), ~hidden(build_car(0), "logo", 128))


def test_a_district_s_maps_show_each_place_where_its_tile_shows_it(tmp_path):
    """GeoTIFF, XYZ tiles and MBTiles of one district, cut by `georetrieval tiles`."""
    settings = Settings(places=12, districts=("suburb",), cross=("harbour",), tile_size=96)
    make_rasters(tmp_path, settings, ("suburb",), ("geotiff", "xyz", "mbtiles"))
    folder = tmp_path / "raster"
    with rasterio.open(folder / "suburb.tif") as file:
        assert file.crs.to_epsg() == 32625
        assert file.res == pytest.approx((settings.resolution,) * 2)
        assert 0.5 < (file.dataset_mask() > 0).mean() < 1
    (district,) = (d for d in plan(settings) if d.name == "suburb")
    artist = prepare(settings, district)
    light = styles.satellite_light(date.fromisoformat(settings.satellite_date))
    grid = BevGrid(settings.tile_size, settings.resolution)
    for source in ("suburb.tif", "suburb.mbtiles", "suburb/{z}/{x}/{y}.png"):
        rasters = open_source(str(folder / source), settings.resolution)
        for place in district.places[:2]:
            where = latitude_longitude("suburb", place.x, place.y)
            tile = cut_tile(rasters, *where, settings.tile_size, settings.resolution)
            assert tile is not None
            scene_then = artist.scenes[settings.satellite_date]
            truth = render.satellite(scene_then, light, place.x, place.y, grid)
            # Resampled once, from pixels as large as its own: all but the finest detail.
            assert psnr(tile[..., :3], truth) > 20
            moved = np.roll(truth, 2, axis=1)
            assert psnr(tile[..., :3], truth) > psnr(tile[..., :3], moved) + 3
    with pytest.raises(InputError, match="has no district 'park'"):
        make_rasters(tmp_path, settings, ("park",), ("geotiff",))
