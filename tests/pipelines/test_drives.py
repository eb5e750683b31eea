"""Drives of the city: ways along streets, tables of what was said and what was true, pictures."""

from __future__ import annotations

import csv
import itertools
from datetime import datetime
from pathlib import Path

import numpy as np
import pyproj
import pytest
from PIL import Image

import bevgen
from bevgen.errors import InputError
from bevgen.geometry import BevGrid
from pipelines.citymaker import render, styles
from pipelines.citymaker.dataset import make_city, plan, prepare
from pipelines.citymaker.settings import Settings

NOISY = Settings(
    places=8,
    districts=("suburb",),
    cross=("downtown", "oldtown"),
    drive=3,
    drive_frames=90,
    drive_step=3.0,
    gps_noise=3.0,
    heading_noise=5.0,
)


def table(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_drives_follow_streets_where_nothing_is_learnt() -> None:
    drives = {d.name: d.drives for d in plan(NOISY)}
    assert {name: len(found) for name, found in drives.items()} == {
        "suburb": 0,
        "downtown": 2,
        "oldtown": 1,
    }
    first, second = drives["downtown"]
    for drive in (first, second, *drives["oldtown"]):
        points = np.array([(frame.x, frame.y) for frame in drive.frames])
        steps = np.diff(points, axis=0)
        # Along a curve: never farther apart than the step, and only less where it turns.
        assert np.hypot(*steps.T).max() < 3.002
        assert np.median(np.hypot(*steps.T)) == pytest.approx(3.0, abs=0.01)
        middle = np.rad2deg(np.arctan2(*(points[2:] - points[:-2]).T))
        facing = np.array([frame.pose.heading for frame in drive.frames[1:-1]])
        off = np.abs((facing - middle + 180) % 360 - 180)
        assert np.median(off) < 1
        assert np.diff(drive.seconds) == pytest.approx(drive.seconds[1])
    assert [f.x for f in first.frames] != [f.x for f in second.frames]


def test_the_tables_hold_the_noise_that_was_asked_for_and_the_truth(tmp_path: Path) -> None:
    settings = Settings(**{**vars_of(NOISY), "views": ()})
    make_city(tmp_path, settings)
    folders = sorted((tmp_path / "drive").iterdir())
    assert [folder.name for folder in folders] == ["downtown-0", "downtown-1", "oldtown-0"]
    east, north, turned = [], [], []
    for folder in folders:
        said, true = table(folder / "poses.csv"), table(folder / "truth.csv")
        for name in ("file", "id", "height", "date", "pitch"):
            assert said[name] == true[name]
        azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(
            *(np.array(side[name], float) for side in (true, said)
              for name in ("longitude", "latitude"))
        )  # fmt: skip
        east += list(metres * np.sin(np.deg2rad(azimuth)))
        north += list(metres * np.cos(np.deg2rad(azimuth)))
        off = np.array(said["heading"], float) - np.array(true["heading"], float)
        turned += list((off + 180) % 360 - 180)
        times = [datetime.fromisoformat(text) for text in said["date"]]
        assert all(a < b for a, b in itertools.pairwise(times))
    # 270 draws: the standard error of a standard deviation is 4 per cent.
    assert np.std(east) == pytest.approx(3, rel=0.17)
    assert np.std(north) == pytest.approx(3, rel=0.17)
    assert np.std(turned) == pytest.approx(5, rel=0.17)
    assert np.abs([np.mean(east), np.mean(north)]).max() < 0.8


def vars_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_a_frame_shows_the_ground_at_its_true_pose(tmp_path: Path) -> None:
    settings = Settings(
        places=4, districts=("downtown",), cross=(), drive=1, drive_frames=3, drive_step=6.0,
        tilt=1.0, heading_noise=20.0, panorama_width=1024, views=("drive",),
    )  # fmt: skip
    assert make_city(tmp_path, settings) == {"made": 3, "kept": 0}
    (district,) = plan(settings)
    scene = prepare(settings, district).scenes[settings.dates[0]]
    light = styles.satellite_light(styles.parse_date(settings.dates[0]))
    grid = BevGrid(120, 0.05)
    true = table(tmp_path / "drive" / "downtown-0" / "truth.csv")
    for k, frame in enumerate(district.drives[0].frames):
        above = render.satellite(scene, light, frame.x, frame.y, grid).mean(axis=2)
        panorama = np.asarray(Image.open(tmp_path / "drive" / "downtown-0" / true["file"][k]))

        def bev(turned: float, panorama: np.ndarray = panorama, k: int = k) -> np.ndarray:
            pose = {name: float(true[name][k]) for name in ("height", "heading", "pitch", "roll")}
            pose["heading"] += turned
            picture = bevgen.project(panorama, size=120, resolution=0.05, **pose)
            return picture.mean(axis=2)

        def likeness(turned: float, above: np.ndarray = above) -> float:
            return float(np.corrcoef(bev(turned).ravel(), above.ravel())[0, 1])

        assert likeness(0) > 0.8
        assert likeness(8) < likeness(0) - 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drive": 1, "drive_frames": 1}, "2 frames or more"),
        ({"drive": 1, "drive_step": 0.0}, "0.5 to 50 metres"),
        ({"gps_noise": -1.0}, "GPS noise"),
    ],
)
def test_senseless_drives_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**options)  # type: ignore[arg-type]
