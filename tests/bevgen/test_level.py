"""Pitch and roll from pictures: the city, real streets, the sea; what a roll in metadata means."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bevgen.calibration.level import (
    UNKNOWN,
    Tilt,
    angles_of,
    by_edges,
    by_horizon,
    combine,
    compare_rolls,
    find_tilt,
)
from bevgen.cli import main
from bevgen.geometry import PanoramaView, Pose
from bevgen.images.decoding import read_image
from bevgen.tables import read_poses
from pipelines.citymaker.dataset import Settings, plan, prepare
from pipelines.citymaker.render import panorama
from pipelines.citymaker.styles import light_of
from tests.helpers.image_files import gpano
from tests.helpers.landscape import DESERT, FIELD, SEA, Skyline, landscape
from tests.helpers.paths import ROOT

STREET = ROOT / "tests" / "data" / "street"
Frame = NDArray[np.uint8]
DAY = "2023-06-04"


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return int(done.value.code or 0)


def zenith(pitch: float, roll: float) -> NDArray[np.float64]:
    """Where a camera sees the zenith: right, forward, up."""
    return Pose(1.0, 0.0, pitch, roll).world_from_camera().T @ np.array([0.0, 0.0, 1.0])


def apart(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    return math.degrees(math.acos(min(1.0, float(one @ two))))


def tilted(image: Frame, pitch: float, roll: float) -> Frame:
    """What a camera would have seen that stood tilted against this one."""
    height, width = image.shape[:2]
    azimuth = ((np.arange(width) + 0.5) / width - 0.5) * 2 * math.pi
    elevation = (0.5 - (np.arange(height)[:, None] + 0.5) / height) * math.pi
    flat = np.cos(elevation)
    rays = np.stack(
        [np.sin(azimuth) * flat, np.cos(azimuth) * flat,
         np.broadcast_to(np.sin(elevation), (height, width))], axis=-1,
    ) @ Pose(1.0, 0.0, pitch, roll).world_from_camera().T  # fmt: skip
    column = (np.arctan2(rays[..., 0], rays[..., 1]) / (2 * math.pi) + 0.5) * width - 0.5
    row = (0.5 - np.arcsin(np.clip(rays[..., 2], -1, 1)) / math.pi) * height - 0.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right, down = (column - left)[..., None], (row - top)[..., None]

    def at(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return image[np.clip(rows, 0, height - 1), columns % width].astype(np.float64)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return (upper * (1 - down) + lower * down + 0.5).astype(np.uint8)


def whole(image: Frame) -> PanoramaView:
    return PanoramaView(image.shape[0], image.shape[1])


@cache
def city(tilt: float) -> tuple[tuple[Frame, Pose], ...]:
    """Panoramas of two districts."""
    settings = Settings(
        places=12, districts=("downtown", "suburb"), cross=(), heading="random", tilt=tilt, seed=4,
        panorama_width=768, views=("panorama",),
    )  # fmt: skip
    taken = []
    for district in plan(settings):
        scene = prepare(settings, district).scenes[DAY]
        for place in district.places:
            light = light_of(date.fromisoformat(DAY), 4, place.later, place.gain)
            picture = panorama(scene, light, place.x, place.y, place.pose, 768)
            taken.append((picture, place.pose))
    return tuple(taken)


def test_angles_of_the_zenith_are_those_of_the_pose() -> None:
    for pitch, roll in ((3.0, -5.0), (-8.0, 2.0), (0.0, 12.0)):
        assert angles_of(zenith(pitch, roll)) == pytest.approx((pitch, roll), abs=1e-9)


def test_tilted_city_panoramas() -> None:
    found = [(find_tilt(image, whole(image)), pose) for image, pose in city(4.0)]
    sure = [(tilt, pose) for tilt, pose in found if tilt.sure]
    errors = [apart(zenith(t.pitch, t.roll), zenith(p.pitch, p.roll)) for t, p in sure]
    assert len(sure) >= 0.9 * len(found)
    assert max(math.hypot(pose.pitch, pose.roll) for _, pose in sure) > 6
    assert np.median(errors) <= 0.3
    assert np.percentile(errors, 95) <= 1


def test_a_level_panorama_stays_level() -> None:
    for image, _ in city(0.0)[::3]:
        tilt = find_tilt(image, whole(image))
        assert not tilt.sure or math.hypot(tilt.pitch, tilt.roll) <= 0.6


def photographs() -> Iterator[Frame]:
    for name in ("2", "3", "4"):
        yield read_image(STREET / f"{name}.jpg")[0]


def test_street_photographs_that_are_tilted_further() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for image in photographs():
        own = find_tilt(image, whole(image))
        assert own.sure
        for _ in range(2):
            turn = rng.uniform(-5, 5, 2)
            tilt = find_tilt(tilted(image, *turn), whole(image))
            pose = Pose(1.0, 0.0, *turn).world_from_camera()
            if tilt.sure:
                errors.append(
                    apart(pose @ zenith(tilt.pitch, tilt.roll), zenith(own.pitch, own.roll))
                )
    assert len(errors) >= 4
    assert np.median(errors) <= 0.3
    assert max(errors) <= 1


def test_not_sure_where_there_is_nothing_to_see() -> None:
    grass = np.random.default_rng(0).integers(0, 255, (256, 512, 3), dtype=np.uint8)
    for image in (np.full((256, 512, 3), 90, np.uint8), grass, grass // 3 * 0 + 255):
        assert not find_tilt(image, whole(image)).sure


def test_how_sure_it_is_says_how_far_off() -> None:
    pairs = [
        (apart(zenith(t.pitch, t.roll), zenith(p.pitch, p.roll)), t.deviation)
        for (t, p) in ((find_tilt(i, whole(i)), p) for i, p in city(4.0))
        if t.sure
    ]
    errors, deviations = np.array(pairs).T
    assert 0.3 < np.median(errors / deviations) < 3


# --- the horizon ---


def off(tilt: Tilt, pose: Pose) -> float:
    """Degrees between where the zenith was found and where it is."""
    return apart(zenith(tilt.pitch, tilt.roll), zenith(pose.pitch, pose.roll))


@pytest.mark.parametrize(
    ("ground", "haze", "pitch", "roll"),
    [
        (SEA, 0.0, 10.0, 0.0),
        (SEA, 0.6, -6.0, -8.0),
        (SEA, 0.9, 0.5, 2.0),
        (FIELD, 0.3, -3.0, 5.0),
        (DESERT, 0.5, 4.0, -9.0),
    ],
)
def test_the_horizon_at_sea_and_on_plains(
    ground: tuple[float, float, float], haze: float, pitch: float, roll: float
) -> None:
    pose = Pose(1.0, 0.0, pitch, roll)
    image = landscape(pose, ground=ground, haze=haze)
    tilt = find_tilt(image, whole(image))
    assert tilt.sure
    assert off(tilt, pose) <= 0.3
    assert off(tilt, pose) <= 3 * tilt.deviation


def masts(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stand around the camera on a plain."""
    return np.where(np.cos(15 * azimuth) > 0.98, 25.0, 0.0)


def shore(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rise to 6 degrees on a third of the horizon."""
    return np.maximum(6 * (np.cos(azimuth - 1) - 0.5) / 0.5, 0)


def test_masts_and_a_shore_hide_a_part_of_the_horizon() -> None:
    pose = Pose(1.0, 0.0, -2.0, 3.5)
    for skyline in (masts, shore):
        image = landscape(pose, skyline)
        tilt = find_tilt(image, whole(image))
        assert tilt.sure
        assert off(tilt, pose) <= 0.3


def low_rise(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lift half of the horizon."""
    return np.where(np.abs(azimuth) < 1.5, 0.5, 0.0)


def test_what_lifts_a_side_of_the_horizon_shows_in_the_deviation() -> None:
    pose = Pose(1.0, 0.0, 2.0, -3.0)
    image = landscape(pose, low_rise, ground=FIELD)
    tilt = find_tilt(image, whole(image))
    assert 0.2 < off(tilt, pose) <= 2 * tilt.deviation


def test_masts_and_the_horizon_are_both_used() -> None:
    pose = Pose(1.0, 0.0, 3.0, -1.0)
    image = landscape(pose, masts)
    edges = by_edges(image, whole(image))
    horizon = by_horizon(image, whole(image))
    assert edges.sure
    assert horizon.sure
    both = find_tilt(image, whole(image))
    assert both.deviation < min(edges.deviation, horizon.deviation)
    assert off(both, pose) <= 3 * both.deviation


def hills(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.5 + 1.5 * np.sin(3 * azimuth) + np.sin(7 * azimuth + 1)


def low_hills(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.8 + 0.5 * np.sin(2 * azimuth) + 0.3 * np.sin(5 * azimuth + 1)


def basin(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stand equally high all around."""
    return np.full_like(azimuth, 1.5)


def roofs(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    blocks = np.random.default_rng(3).uniform(2, 18, 40)
    return blocks[((azimuth / (2 * math.pi)) % 1 * 40).astype(int)]


def wall(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Run straight on without an end: half a great circle."""
    return np.degrees(np.arctan(np.tan(np.radians(5)) * np.maximum(np.cos(azimuth), 0)))


def canyon(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two walls, one of them higher."""
    left, right = (np.tan(np.radians(a)) for a in (20, 8))
    across = np.sin(azimuth)
    return np.degrees(np.arctan(np.where(across > 0, right * across, -left * across)))


def trees(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    tops = np.random.default_rng(5).normal(size=(30, 2))
    waves = (a * np.sin(k * azimuth) + b * np.cos(k * azimuth) for k, (a, b) in enumerate(tops, 20))
    return np.abs(sum(waves)) / 3


@pytest.mark.parametrize("skyline", [hills, low_hills, basin, roofs, wall, canyon, trees])
def test_other_skylines_do_not_pass_for_the_horizon(skyline: Skyline) -> None:
    for pitch, roll in ((0.0, 0.0), (3.0, -5.0)):
        image = landscape(Pose(1.0, 0.0, pitch, roll), skyline, ground=FIELD)
        assert not by_horizon(image, whole(image)).sure


def test_streets_forests_and_rooms_have_no_horizon() -> None:
    files = (*STREET.glob("*.jpg"), *(STREET.parent / "hdri").glob("*.png"))
    photos = [read_image(path)[0] for path in files]
    assert len(photos) == 8
    for image in (*photos, *(image for image, _ in city(4.0))):
        assert not by_horizon(image, whole(image)).sure


def test_edges_win_where_the_horizon_contradicts_them() -> None:
    edges, horizon = Tilt(2.0, 1.0, 0.2), Tilt(2.3, 1.0, 0.1)
    both = combine(edges, horizon)
    assert (both.pitch, both.roll) == pytest.approx((2.24, 1.0))
    assert both.deviation == pytest.approx(0.2 / math.sqrt(5))
    assert combine(edges, Tilt(3.0, 1.0, 0.1)) is edges
    assert combine(UNKNOWN, horizon) is horizon
    assert combine(Tilt(9.0, 9.0, 1.5), horizon) is horizon
    assert combine(edges, UNKNOWN) is edges


# --- the command ---


def test_the_command_writes_what_is_sure_and_keeps_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, poses, out = tmp_path / "panoramas", tmp_path / "poses.csv", tmp_path / "level.csv"
    root.mkdir()
    image, pose = city(4.0)[0]
    Image.fromarray(image).save(root / "street.jpg", quality=92)
    Image.new("RGB", (512, 256), (90, 90, 90)).save(root / "fog.png")
    (root / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    poses.write_text(
        "file,id,heading,pitch,latitude,longitude\nstreet.jpg,s,12.5,9,1,2\nfog.png,f,,7,,\n"
    )
    assert run("level", "--in", root, "--poses", poses, "--out", out) == 0
    said = capsys.readouterr()
    assert "pitch and roll of 1 of 3 panoramas" in said.out
    assert "not sure" in said.out
    assert "skipped: torn.jpg: " in said.err
    rows = {row["file"]: row for row in csv.DictReader(out.read_text().splitlines())}
    street, fog = rows["street.jpg"], rows["fog.png"]
    assert float(street["pitch"]) == pytest.approx(pose.pitch, abs=0.6)
    assert float(street["roll"]) == pytest.approx(pose.roll, abs=0.6)
    assert (street["id"], street["heading"], street["latitude"]) == ("s", "12.5", "1.0")
    assert (fog["id"], fog["pitch"], fog["roll"]) == ("f", "7.0", "")
    assert 0 < float(street["tilt_error"]) <= 1
    assert fog["tilt_error"] == ""
    assert f"give or take {float(street['tilt_error']):.2f}" in said.out
    assert not list(tmp_path.glob("*.part"))
    assert run("level", "--in", root, "--out", out) == 1  # there is one
    assert run("level", "--in", root, "--poses", out, "--out", out, "--overwrite") == 1
    assert "level.csv is read: name another" in capsys.readouterr().err


def test_the_command_goes_on_from_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "panoramas", tmp_path / "level.csv"
    root.mkdir()
    Image.new("RGB", (64, 32)).save(root / "a.png")
    Image.new("RGB", (64, 32)).save(root / "b.png")
    size = (root / "a.png").stat().st_size
    kept = json.dumps(["a.png", size, [], 1.25, -2.5, 0.1, None])
    other = json.dumps(["b.png", size + 1, [], 1.0, 1.0, 0.1, None])  # of another file
    (tmp_path / "level.csv.part").write_text(f'{kept}\n{other}\n["b.png", 1')
    assert run("level", "--in", root, "--out", out, "--json") == 0
    result = {row["file"]: row for row in json.loads(capsys.readouterr().out)}
    assert (result["a.png"]["pitch"], result["a.png"]["roll"]) == (1.25, -2.5)
    assert not result["b.png"]["sure"]


def test_rows_of_other_files_stay_and_a_wrong_field_leaves_nothing(tmp_path: Path) -> None:
    root, out = tmp_path / "panoramas", tmp_path / "level.csv"
    root.mkdir()
    Image.new("RGB", (64, 32)).save(root / "a.png")
    poses = tmp_path / "poses.csv"
    poses.write_text("file,pitch\na.png,1\nelsewhere.png,2\n")
    line = ("level", "--in", root, "--out", out, "--poses", poses)
    assert run(*line, "--vertical-fov", 10, 20) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panoramas", "poses.csv"]
    assert run(*line) == 0
    assert {f: row.pitch for f, row in read_poses(out).items()} == {
        "a.png": 1.0,
        "elsewhere.png": 2.0,
    }


# --- the sign of GPano's roll ---


def test_which_sign_fits() -> None:
    sure, unsure = Tilt(0.0, 4.0, 0.2), Tilt(0.0, 4.0, 9.0)
    assert not compare_rolls([4.1], [sure]).is_turned
    assert compare_rolls([-4.1], [sure]).is_turned
    assert not compare_rolls([-4.1], [unsure]).is_turned
    assert not compare_rolls([-0.4], [Tilt(0.0, 0.4, 0.1)]).is_turned


def test_level_preview_and_convert_with_a_roll_of_the_other_sign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "panoramas"
    root.mkdir()
    image, pose = max(city(4.0), key=lambda one: abs(one[1].roll))
    assert abs(pose.roll) > 3
    path = root / "a.jpg"
    Image.fromarray(image).save(
        path, quality=92, xmp=gpano(PoseRollDegrees=-pose.roll, PosePitchDegrees=pose.pitch)
    )
    assert run("level", "--in", root, "--out", tmp_path / "l.csv") == 0
    assert "add --roll-sign left-down" in capsys.readouterr().err
    words = ("--in", root, "--out", tmp_path / "l.csv", "--overwrite")
    assert run("level", *words, "--roll-sign", "left-down") == 0
    assert "roll-sign" not in capsys.readouterr().err
    assert run("preview", "--in", path, "--out", tmp_path / "p.png") == 0
    said = capsys.readouterr()
    assert "the other way round" in said.err
    assert "roll in the picture" in said.out
    words = ("--in", path, "--out", tmp_path / "q.png", "--roll-sign", "left-down")
    assert run("preview", *words) == 0
    said = capsys.readouterr()
    assert f"{pose.roll:.4g}°" in said.out
    assert not said.err
    for name, more in (("one", ()), ("two", ("--roll-sign", "left-down"))):
        out = ("--out", tmp_path / f"{name}.h5", "--size", 32, "--resolution", 0.3)
        assert run("convert", "--in", root, *out, *more) == 0
    capsys.readouterr()
    rolls = []
    for name in ("one", "two"):
        assert run("info", tmp_path / f"{name}.h5", "--rows", "--json") == 0
        rolls.append(json.loads(capsys.readouterr().out)[0]["roll"])
    assert rolls == [pytest.approx(-pose.roll), pytest.approx(pose.roll)]
