"""A short drive of the city, with errors of GPS and compass, becomes a map of its ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bevgen.cli import bevgen_command
from pipelines.citymaker.dataset import make_city
from pipelines.citymaker.settings import Settings
from pipelines.drive_check import ground_errors, pose_errors


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    settings = Settings(
        places=60, districts=("downtown",), cross=(), drive=1, drive_frames=8, drive_step=3.0,
        gps_noise=3.0, heading_noise=5.0, panorama_width=1024, views=("drive",),
    )  # fmt: skip
    make_city(folder, settings)
    return folder


def test_poses_and_ground_are_found(city: Path, tmp_path: Path) -> None:
    drive, out, poses = city / "drive" / "downtown-0", tmp_path / "m.tif", tmp_path / "refined.csv"
    line = [
        "mosaic",
        "--in",
        drive,
        "--poses",
        drive / "poses.csv",
        "--out",
        out,
        "--poses-out",
        poses,
    ]
    result = CliRunner().invoke(bevgen_command, list(map(str, line)), standalone_mode=False)
    assert result.exception is None, result.output
    before = pose_errors(drive / "poses.csv", drive / "truth.csv")
    after = pose_errors(poses, drive / "truth.csv")
    assert np.median(before.step) > 1
    assert after.step.max() < 0.15
    assert after.turn.max() < 0.3
    assert after.whole.max() < 0.15
    psnr, claimed = ground_errors(city, "downtown-0", poses, out, every=3)
    assert psnr > 26
    assert claimed > 0.5
