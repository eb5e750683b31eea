"""The step calibrate of the pipelines: heights by pairs where they are sure, else the preset's."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bevgen.cli import main
from bevgen.errors import InputError
from bevgen.tables import Pair, PoseRow, read_poses, write_pairs, write_poses
from pipelines import cvact, cvglobal, vigor
from pipelines.heights import Cameras, Plan, calibrate, decide, write_heights
from tests.helpers.ground_truth import Shot, as_photo, random_waves, seen_from_above

PAIRS = 9
SIDE = 160  # of the tiles drawn here; labels are meant for tiles twice as large
HEIGHT, METRES = 2.6, 64.0  # of the cameras, across a tile


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_tables(out: Path, names: list[str], pairs: dict[str, list[Pair]]) -> None:
    """Write what the step poses writes; files lie as those of VIGOR."""
    out.mkdir(exist_ok=True)
    for view, ending in (("panorama", "png"), ("satellite", "png")):
        rows = []
        for name in names:
            city, _, place = name.partition("/")
            rows.append(PoseRow(f"{city}/{view}/{place}.{ending}", name))
        write_poses(out / f"{view}.csv", rows)
    for file, rows_of_file in pairs.items():
        write_pairs(out / file, rows_of_file)


def draw(root: Path, pair: Pair, seed: int) -> None:
    """Draw a panorama on ground of its own, and the tile, whose centre lies beside the camera."""
    ground = random_waves(seed)
    metres = METRES / SIDE
    assert pair.d_row is not None
    assert pair.d_col is not None
    north, east = pair.d_row / 2 * metres, pair.d_col / 2 * metres

    def beside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ground(x + east, y + north)

    shot = Shot(rows=160, columns=320, height=HEIGHT)
    pictures = {
        "panorama": as_photo(shot.take(ground)),
        "satellite": as_photo(seen_from_above(beside, SIDE, metres)),
    }
    for view, picture in pictures.items():
        city, _, place = pair.query.partition("/")
        path = root / city / view / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[..., 0]).save(path)


def one(_: str) -> Cameras:
    return Cameras(name="Town", preset="cvact", tile_metres=METRES, measured=True)


def plan(root: Path, out: Path, cameras: Callable[[str], Cameras] = one, **more: Any) -> Plan:
    return Plan(
        root=root, out=out, **{"cameras": cameras, "pairs": ["a.csv"], "given": None} | more
    )


def test_a_height_that_is_sure_is_used(tmp_path, capfd):
    root, out = tmp_path / "data", tmp_path / "out"
    random = np.random.default_rng(1)
    names = [f"Town/p{k}" for k in range(PAIRS + 1)]
    pairs = [
        Pair(n, n, d_row=row, d_col=column, split="train")
        for n, (row, column) in zip(names, random.uniform(-40, 40, (len(names), 2)), strict=True)
    ]
    for k, pair in enumerate(pairs):
        draw(root, pair, k)
    # The last trains in one protocol alone: it may be a test's in the other.
    write_tables(out, names, {"a.csv": pairs, "b.csv": pairs[:PAIRS]})
    what = plan(root, out, pairs=["a.csv", "b.csv"], label_size=2 * SIDE)
    calibrate(what)
    said = capfd.readouterr().out
    assert "$ bevgen calibrate --in" in said
    result = json.loads((out / "calibration-Town.json").read_text())
    assert (result["verdict"], result["pairs"]) == ("clear", PAIRS)
    assert result["height"]["value"] == pytest.approx(HEIGHT, rel=0.02)
    assert (out / "calibration-Town.png").exists()
    height = decide(what)[one("")]
    assert height.metres == pytest.approx(HEIGHT, rel=0.02)
    assert height.source == "calibration"
    (row,) = table(out / "heights.csv")
    assert (row["cameras"], float(row["height"])) == ("Town", height.metres)
    assert row["why"].startswith("by calibration-Town.json: ")
    assert f"camera height of Town: {height.metres:g} m, by calib" in capfd.readouterr().out
    # Once more: nothing is done again, and an option overrides.
    calibrate(what)
    assert "calibration-Town.json is there" in capfd.readouterr().out
    (out / "bev.h5").touch()
    (out / "calibration-Town.json").rename(out / "kept.json")
    calibrate(what)
    assert f"bev.h5 is there, with the heights of {out / 'heights.csv'}" in capfd.readouterr().out
    given = plan(root, out, given=2.1)
    calibrate(given)
    assert "no calibration: --height says 2.1 m" in capfd.readouterr().out
    assert decide(given)[one("")].metres == 2.1
    assert table(out / "heights.csv")[0]["source"] == "option"


def test_without_enough_pairs_the_preset_is_kept(tmp_path, capfd):
    names = [f"Town/p{k}" for k in range(7)]
    write_tables(tmp_path, names, {"a.csv": [Pair(n, n, split="train") for n in names]})
    calibrate(plan(tmp_path, tmp_path))
    assert "it takes 8 training pairs, there are 7" in capfd.readouterr().out
    height = decide(plan(tmp_path, tmp_path))[one("")]
    assert (height.metres, height.source) == (2.8, "preset")
    assert "camera height of Town: 2.8 m, by preset cvact, one pair (no calibration)" in (
        capfd.readouterr().out
    )


def test_a_result_is_not_written_over(tmp_path, capsys):
    (tmp_path / "kept.json").write_text("{}")
    with pytest.raises(SystemExit) as done:
        main(["calibrate", "--in", "a", "--reference", "b", "--out", str(tmp_path / "c.png"),
              "--write-json", str(tmp_path / "kept.json")])  # fmt: skip
    assert done.value.code == 1
    assert "kept.json exists: name another output, or add --overwrite" in capsys.readouterr().err


def result(verdict: str, height: float, heading: float = 0.0) -> str:
    around = {"value": height, "low": height - 0.02, "high": height + 0.02}
    turned = {"value": heading, "low": heading - 0.8, "high": heading + 0.8}
    return json.dumps({"verdict": verdict, "pairs": 50, "height": around, "heading": turned})


def test_cities_without_training_take_what_others_have(tmp_path, capsys):
    """In the cross-area protocol, Chicago and San Francisco are tests: nobody looks at them."""
    names = [f"{city}/p" for city in vigor.CITIES]
    write_tables(tmp_path, names, {"a.csv": [Pair(n, n, split="train") for n in names]})
    what = plan(tmp_path, tmp_path, vigor.cameras)
    (tmp_path / "calibration-NewYork.json").write_text(result("clear", 2.5))
    (tmp_path / "calibration-Seattle.json").write_text(result("clear", 2.7, heading=-90.0))
    (tmp_path / "calibration-Chicago.json").write_text(result("weak", 4.0))
    heights = {cameras.name: height for cameras, height in decide(what).items()}
    assert {name: height.metres for name, height in heights.items()} == {
        "Chicago": 2.6, "NewYork": 2.5, "SanFrancisco": 2.6, "Seattle": 2.7
    }  # fmt: skip
    assert (
        heights["Chicago"].why == "as found in NewYork and Seattle (calibration-Chicago.json: weak)"
    )
    said = capsys.readouterr().out
    assert said.count("look -90.0 degrees away from where they are taken to look") == 1
    # Each city's height is for one resolution, by which its BEVs are as wide as its tiles.
    write_heights(what, decide(what), vigor.WIDTH)
    rows = {row.id: row.height for row in read_poses(tmp_path / "bev.csv").values()}
    assert rows["Chicago/p"] == pytest.approx(2.6)
    assert rows["Seattle/p"] == pytest.approx(2.7 * 0.111262 / 0.100817)


def test_cities_of_unknown_scale_tell_nothing_of_each_other(tmp_path):
    names = ["Munich/streetview/p", "Sao-Paulo/streetview/p"]
    write_tables(tmp_path, names, {"a.csv": [Pair(n, n, split="train") for n in names]})
    what = plan(tmp_path, tmp_path, cvglobal.cameras)
    (tmp_path / "calibration-Munich.json").write_text(result("clear", 2.0))
    heights = {cameras.name: height for cameras, height in decide(what).items()}
    assert (heights["Munich"].metres, heights["Munich"].source) == (2.0, "calibration")
    assert (heights["Sao-Paulo"].metres, heights["Sao-Paulo"].source) == (2.5, "preset")
    (tmp_path / "calibration-Munich.json").write_text("{}")
    with pytest.raises(InputError, match=r"calibration-Munich.json is damaged: remove it"):
        decide(what)


def test_the_preset_of_cvact_is_as_wide_as_published():
    """Seen from 1.5 m, 512 pixels of 0.06 m; and a tile has 1200 pixels."""
    assert cvact.BEV.resolution is not None
    assert cvact.BEV.size is not None
    heights = cvact.BEV.resolution * cvact.BEV.size / 2.8
    assert heights == pytest.approx(512 * 0.06 / 1.5, rel=1e-4)
    assert cvact.CAMERAS.tile_metres / 1200 == pytest.approx(0.06)
