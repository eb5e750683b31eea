"""Rasters as GDAL's own programs see them (Debian: gdal-bin); QGIS reads by the same library."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bevgen.cli import bevgen_command
from bevgen.geometry import BevGrid
from bevgen.georeference import write_geotiff
from tests.helpers.paths import STREET

pytestmark = [
    pytest.mark.extern,
    pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdal-bin is not installed"),
]


def gdalinfo(path: Path) -> dict:
    done = subprocess.run(
        ["gdalinfo", "-json", path], capture_output=True, text=True, check=True, timeout=60
    )
    assert "ERROR" not in done.stderr
    return json.loads(done.stdout)


def test_gdal_knows_where_a_bev_lies(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    write_geotiff(tmp_path / "bev.tif", image, None, BevGrid(128, 0.1), 46.5, -31.0, {"id": "a"})
    about = gdalinfo(tmp_path / "bev.tif")
    assert about["driverShortName"] == "GTiff"
    assert about["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert [band["colorInterpretation"] for band in about["bands"]] == [
        "Red", "Green", "Blue", "Alpha",
    ]  # fmt: skip
    assert "UTM zone 25N" in about["coordinateSystem"]["wkt"]
    west, _, turned, north, also, _ = np.array(about["geoTransform"])[[0, 1, 2, 3, 4, 5]]
    assert turned == also == 0
    ring = np.array(about["wgs84Extent"]["coordinates"][0])
    assert ring.mean(axis=0) == pytest.approx([-31.0, 46.5], abs=1e-4)
    assert 653_400 < west < 653_500  # two degrees east of the zone's middle
    assert 5_150_000 < north < 5_153_000


def test_gdal_reads_a_mosaic_with_its_band_of_uncertainty(tmp_path: Path) -> None:
    out = tmp_path / "street.tif"
    line = ["mosaic", "--in", str(STREET), "--out", str(out), "--height", "1.9", "--no-register"]
    names = ["2.jpg", "3.jpg", "4.jpg"]
    result = CliRunner().invoke(bevgen_command, [*line, *names], standalone_mode=False)
    assert result.exception is None, result.output
    about = gdalinfo(out)
    assert about["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert [band["description"] for band in about["bands"]][-1] == "uncertainty, cm"
    assert about["bands"][3]["colorInterpretation"] == "Alpha"
    assert "UTM zone 31N" in about["coordinateSystem"]["wkt"]
