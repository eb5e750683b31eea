"""`bevgen ground`: from clicks in panoramas to GeoJSON, against PROJ; and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bevgen.cli import bevgen_command
from bevgen.tables import POSE_COLUMNS, TILT_ERROR, PoseRow, write_poses

ROWS = [
    PoseRow("a.png", heading=90, height=2.5, latitude=46.5, longitude=-31),
    PoseRow("b.png", heading=0, height=2.0),
    PoseRow("c.png", latitude=46.5, longitude=-31),
]


def run(folder: Path, points: str, *options: str, rows: list[PoseRow] = ROWS) -> Result:
    (folder / "labels.csv").write_text(points, "utf-8")
    for name in "abcd":
        Image.new("RGB", (400, 200)).save(folder / f"{name}.png")
    write_poses(folder / "poses.csv", rows, (*POSE_COLUMNS, TILT_ERROR))
    files = ["--points", "labels.csv", "--poses", "poses.csv", "--out", "labels.geojson"]
    files = [str(folder / word) if "." in word else word for word in files]
    return CliRunner().invoke(bevgen_command, ["ground", *files, *options], standalone_mode=False)


def test_labels_become_points_on_earth(tmp_path: Path) -> None:
    # 45 degrees down in the middle: 2.5 m ahead, which is east. And 90 degrees to the right.
    # A cell may hold any line break: it ends no row.
    points = 'file,x,y,label\na.png,200,150,kerb\na.png,300,150,"ramp,\u2028 low\n"\n'
    result = run(tmp_path, points, "--position-error", "1", "--heading-error", "0")
    assert result.return_value == 0, result.output
    features = json.loads((tmp_path / "labels.geojson").read_text())["features"]
    assert [f["properties"]["label"] for f in features] == ["kerb", "ramp,\u2028 low"]
    for feature, bearing in zip(features, (90, 180), strict=True):
        longitude, latitude = feature["geometry"]["coordinates"]
        azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(-31, 46.5, longitude, latitude)
        assert metres == pytest.approx(2.5, abs=0.001)
        assert azimuth % 360 == pytest.approx(bearing, abs=0.01)
        said = feature["properties"]
        assert said["distance"] == 2.5
        # GPS dominates: a circle of 2.45 m, a bit longer along the ray.
        assert 2.44 < said["semi_minor"] < said["semi_major"] < 2.7
        assert abs(np.sin(np.deg2rad(said["angle"] - bearing))) < 0.02


def test_the_uncertainty_of_a_tilt_that_the_table_has_takes_precedence(tmp_path: Path) -> None:
    points, major = "file,x,y\na.png,200,120\n", []
    for row in (ROWS[0], replace(ROWS[0], tilt_error=2.0), replace(ROWS[0], tilt_error=0.1)):
        result = run(tmp_path, points, "--position-error", "0", "--overwrite", rows=[row])
        assert result.return_value == 0, result.output
        features = json.loads((tmp_path / "labels.geojson").read_text())["features"]
        major.append(features[0]["properties"]["semi_major"])
    assert major[1] > major[0] > major[2]
    # 18 degrees down, 2.5 m up: 2 degrees are 0.91 m along the ray, and the ellipse 2.45 of it.
    assert major[1] > 2.4 * np.deg2rad(2) * 2.5 / np.sin(np.deg2rad(18)) ** 2


def test_what_has_no_place_is_named_with_its_reason(tmp_path: Path) -> None:
    lines = ["a.png,200,150", "a.png,200,90", "a.png,900,150", "b.png,1,150", "c.png,1,150",
             "d.png,1,150", "e.png,1,150"]  # fmt: skip
    result = run(tmp_path, "file,x,y\n" + "\n".join(lines))
    assert result.return_value == 0, result.output
    assert "1 point, 6 skipped" in result.output
    for words in (
        "a.png, line 3: 200, 90 is less than 1 degrees below the horizon",
        "a.png, line 4: 900, 150 is outside the panorama of 400 x 200",
        "b.png: no position: neither its row",
        "c.png: no heading",
        "d.png: no position: neither poses.csv, which has no row of it",
        "e.png: cannot be read",
    ):
        assert words in result.output
    result = run(tmp_path, "file,x,y\nb.png,1,150\n", "--overwrite")
    assert result.return_value == 1
    assert "none of the points" in result.output


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("file,x\na.png,1\n", "no column y"),
        ("file,x,y\na.png,1\n", "line 2"),
        ("file,x,y\na.png,one,2\n", "x must be a number"),
        ("file,x,y\n", "has no points"),
        ("", "is empty: its first line must name the columns, file and x and y among them"),
        ("file,x,y,x\na.png,1,2,3\n", "column x twice"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, points: str, words: str) -> None:
    assert words in str(run(tmp_path, points).exception)


def test_an_output_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "labels.geojson").write_text("mine")
    assert "--overwrite" in str(run(tmp_path, "file,x,y\na.png,1,150\n").exception)
    assert (tmp_path / "labels.geojson").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--in", "nowhere"), "nowhere is no folder"),
        (("--out", "nowhere/l.geojson"), "create it first"),
        (("--out", "."), "is a folder"),
    ],
)
def test_what_cannot_be_read_or_written_is_said_first(
    tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    assert words in str(run(tmp_path, "file,x,y\na.png,1,150\n", *options).exception)
    assert not list(tmp_path.glob("*.part"))
