"""Presets: what they draw, what was measured, and that each number says where it is from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bevgen.cli import main
from bevgen.presets import CONFIDENCE, PRESETS
from bevgen.project import Projector


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_projects(name: str) -> None:
    preset = PRESETS[name]
    projector = Projector(
        height=preset.height,
        resolution=preset.resolution,
        size=preset.size,
        heading=preset.heading or 0.0,
        vertical_fov=preset.vertical_fov or (90.0, -90.0),
        compat="ep-bev" if preset.compat == "ep-bev" else None,
    )
    bev, valid = projector(np.full((128, 256), 9, np.uint8), return_valid=True)
    assert bev.shape == (preset.size, preset.size)
    np.testing.assert_array_equal(bev, np.where(valid, 9, 0))
    assert valid.mean() > 0.9
    assert preset.compat in (None, "ep-bev")


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_its_source(name: str) -> None:
    preset = PRESETS[name]
    optional = ("vertical_fov", "compat", "satellite")
    known = {key for key in optional if getattr(preset, key) is not None}
    assert set(preset.sources) == {"height", "resolution", "heading", *known}
    assert all(source.confidence in CONFIDENCE for source in preset.sources.values())
    assert all(source.text in preset.note for source in preset.sources.values())


@pytest.mark.parametrize(
    ("city", "latitude"),
    [("chicago", 41.88), ("newyork", 40.73), ("sanfrancisco", 37.77), ("seattle", 47.61)],
)
def test_tiles_of_vigor_have_the_scale_of_web_mercator(city: str, latitude: float) -> None:
    metres = 2 * np.pi * 6378137 / 256 / 2**20 * np.cos(np.radians(latitude))
    assert PRESETS[f"vigor-{city}"].satellite == pytest.approx(metres, rel=0.003)


def test_presets_are_what_was_measured_on_real_pairs() -> None:
    """Nine dashes of a pair of CVACT; markings of a pair of VIGOR against a BEV from 2.0 m."""
    cvact, vigor = PRESETS["cvact"], PRESETS["vigor-chicago"]
    assert cvact.height / cvact.resolution == pytest.approx(46.7, abs=0.1)
    assert 1.53 <= vigor.height / 2.0 <= 1.56
    for preset in (cvact, vigor):
        assert preset.sources["height"].confidence == "one pair"


def test_the_command_shows_each_number_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["presets", "cvact", "cvglobal"])
    assert not done.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cvact: 512 x 512 pixels"
    for preset in (PRESETS["cvact"], PRESETS["cvglobal"]):
        for source in preset.sources.values():
            assert any(line.endswith(f"{source.confidence}: {source.text}") for line in lines)
    assert not any("vigor" in line for line in lines if not line.startswith(" "))
    with pytest.raises(SystemExit):
        main(["presets", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == list(PRESETS)
    assert shown["cvusa"]["vertical_fov"]["value"] == [38.6, -26.9]
    assert shown["cvusa"]["height"]["confidence"] == "assumed"


def test_the_horizon_of_cvusa_lies_at_row_132() -> None:
    assert PRESETS["cvusa"].vertical_fov is not None
    top, bottom = PRESETS["cvusa"].vertical_fov
    assert 224 * top / (top - bottom) == pytest.approx(132, abs=0.1)
    assert (top - bottom) / 224 == pytest.approx(360 / 1232, rel=0.001)
