"""docs/geometry.md: every figure on the page is computed here again."""

from __future__ import annotations

import math
import re
import runpy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.presets import CONFIDENCE, PRESETS
from bevgen.project import project, project_view
from bevgen.projection import planning
from tests.helpers.ground_truth import Shot, as_photo, fine_noise, psnr, seen_from_above, waves
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")
WORDS = re.sub(r"\s+", " ", PAGE)
GRID = BevGrid(512, 0.06)


def table(first_header: str) -> list[list[str]]:
    """Rows of the table whose headers begin so, as cells."""
    found = re.search(rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", PAGE, re.M)
    assert found, f"the page has no table that starts with {first_header!r}"
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in found[1].splitlines()]


@cache
def plane() -> np.ndarray:
    return seen_from_above(waves, GRID.size, GRID.resolution)


def plane_quality(shot: Shot) -> float:
    view = PanoramaView(shot.rows, shot.columns, shot.vertical_fov, shot.horizontal_fov)
    pose = Pose(shot.height, shot.heading, shot.pitch, shot.roll)
    bev, valid = project_view(as_photo(shot.take(waves)), GRID, view, pose)
    return psnr(bev, plane(), valid)


def published_quality(height: float) -> float:
    panorama = as_photo(Shot(height=height).take(waves))
    bev, valid = project(panorama, height=height, compat="ep-bev", return_valid=True)
    return psnr(bev, plane(), valid)


def test_quality_on_the_known_ground_plane() -> None:
    measured = [
        plane_quality(Shot(height=1.5)),
        plane_quality(Shot(height=2.0)),
        plane_quality(Shot(height=3.0)),
        plane_quality(Shot(heading=25.0, pitch=10.0, roll=-10.0)),
        plane_quality(Shot(rows=416, vertical_fov=(30.0, -60.0))),
        plane_quality(Shot(columns=832, horizontal_fov=(-67.5, 112.5))),
        published_quality(1.5),
        published_quality(2.0),
    ]
    told = [float(row[1]) for row in table("BEV of the known ground plane")]
    assert told == pytest.approx(measured, abs=0.1)
    assert f"{measured[1]:.0f} dB instead of {measured[-1]:.0f} dB at 2 m" in WORDS
    assert f"{measured[-2]:.1f} instead of {measured[0]:.1f} dB at its height of 1.5 m" in WORDS


def test_quality_with_and_without_anti_aliasing() -> None:
    texture = fine_noise(1)
    panorama = as_photo(Shot().take(texture, supersample=4))
    truth = seen_from_above(texture, GRID.size, GRID.resolution, supersample=8)
    x, y = GRID.ground()
    distance = np.hypot(x[None, :], y[:, None])
    points, means = project(panorama, antialias=False), project(panorama)
    where = [distance < 1, distance < 2, distance < 5, distance > 8]
    for (name, *told), pixels in zip(table("distance from the camera"), where, strict=True):
        measured = [psnr(points, truth, pixels), psnr(means, truth, pixels)]
        assert [float(cell) for cell in told] == pytest.approx(measured, abs=0.1), name
    planner = planning.Planner(GRID, PanoramaView(832, 1664), antialias=True)
    lookup = planning.plan(planner, Pose(2.0))
    averaged = lookup.averaged
    furthest, share = distance.flat[averaged].max(), 100 * averaged.size / distance.size
    assert set(np.diff(lookup.first)) == {4, 8}
    assert f"those within {furthest:.1f} m, {share:.0f} % of the BEV" in WORDS
    assert f"covers more than {planning.FOUR_SAMPLES:g} panorama pixels" in WORDS
    assert f"eight where it covers more than {planning.EIGHT_SAMPLES:g}" in WORDS


def test_what_a_row_and_a_column_cover() -> None:
    h, expected = 2.0, []
    for d in (1, 2, 5, 10, 15.36, 0.03 * 512 * math.sqrt(2), 40):
        width, depth = 2 * math.pi * d / 1664, (d * d + h * h) / h * math.pi / 832
        pixels = depth / 0.06
        row = [d, width, depth, pixels, pixels / 2]
        formats = ["{:.4g}", "{:.3f}", "{:.3f}", "{:.1f}", "{:.1f}"]
        expected.append([f.format(value) for f, value in zip(formats, row, strict=True)])
    assert table("distance, m") == expected
    assert f"one degree is {math.radians(1) * 104 / 2:.2f} m at a distance of 10 m" in WORDS
    assert f"nearer than {1 / math.tan(math.radians(26.9)):.2f} camera heights" in WORDS
    assert f"360/1232 = {360 / 1232:.4f} degrees" in WORDS
    assert f"{BevGrid().extent:g} m from edge to edge" in WORDS


def test_presets() -> None:
    expected = [
        [
            f"`{name}`",
            f"{preset.height:g}",
            f"{preset.resolution:g}",
            f"{preset.size * preset.resolution:.1f}",
            "per panorama" if preset.heading is None else f"{preset.heading:g}",
            "full sphere"
            if preset.vertical_fov is None
            else "{:g}, {:g}".format(*preset.vertical_fov),
            "not measured" if preset.satellite is None else f"{preset.satellite:g}",
        ]
        for name, preset in PRESETS.items()
    ]
    assert table("preset | height, m") == expected, "\n".join(
        f"| {' | '.join(row)} |" for row in expected
    )
    assert all(preset.size == 512 for preset in PRESETS.values())


def test_sources_of_presets() -> None:
    assert table("how sure") == [[word, meaning] for word, meaning in CONFIDENCE.items()]
    expected = []
    for name, preset in PRESETS.items():
        by_source: dict[Any, list[str]] = {}
        for key, source in preset.sources.items():
            by_source.setdefault(source, []).append(key)
        expected += [
            [f"`{name}`", ", ".join(keys), source.confidence, source.text]
            for source, keys in by_source.items()
        ]
    assert table("preset | what") == expected, "\n".join(
        f"| {' | '.join(row)} |" for row in expected
    )


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert example
    shutil.copy(ROOT / "tests" / "data" / "street" / "d1.jpg", tmp_path / "panorama.jpg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example[1], encoding="utf-8")
    made = runpy.run_path("example.py")
    assert made["bev"].shape == (512, 512, 3)
    assert made["valid"].all()


def test_the_drawings_are_up_to_date(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs" / "drawings.py"))["main"](tmp_path)
    shown = set(re.findall(r"\{figure\} images/(\S+)", PAGE))
    assert shown == {drawing.name for drawing in tmp_path.iterdir()}
    for name in shown:
        committed = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        assert committed == (tmp_path / name).read_text(encoding="utf-8"), (
            f"run docs/drawings.py: {name}"
        )
