"""Rasters as GDAL's program and QGIS see them (Debian: gdal-bin, python3-qgis, qgis-providers)."""

from __future__ import annotations

import json
import os
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

pytestmark = pytest.mark.extern
needs_gdal = pytest.mark.skipif(
    shutil.which("gdalinfo") is None, reason="gdal-bin is not installed"
)
SYSTEM_PYTHON = Path("/usr/bin/python3")  # which Debian's QGIS is for
needs_qgis = pytest.mark.skipif(
    not Path("/usr/lib/python3/dist-packages/qgis").is_dir(), reason="python3-qgis is not installed"
)


def gdalinfo(path: Path) -> dict:
    done = subprocess.run(
        ["gdalinfo", "-json", path], capture_output=True, text=True, check=True, timeout=60
    )
    assert "ERROR" not in done.stderr
    return json.loads(done.stdout)


@needs_gdal
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


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mosaic") / "street.tif"
    line = ["mosaic", "--in", str(STREET), "--out", str(out), "--height", "1.9", "--no-register"]
    names = ["2.jpg", "3.jpg", "4.jpg"]
    result = CliRunner().invoke(bevgen_command, [*line, *names], standalone_mode=False)
    assert result.exception is None, result.output
    return out


@needs_gdal
def test_gdal_reads_a_mosaic_with_its_band_of_uncertainty(mosaic: Path) -> None:
    about = gdalinfo(mosaic)
    assert about["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert [band["description"] for band in about["bands"]][-1] == "uncertainty, cm"
    assert about["bands"][3]["colorInterpretation"] == "Alpha"
    assert "UTM zone 31N" in about["coordinateSystem"]["wkt"]


QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsCoordinateReferenceSystem, QgsCoordinateTransform
from qgis.core import QgsProject, QgsRasterLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "layer")
to_degrees = QgsCoordinateTransform(
    layer.crs(), QgsCoordinateReferenceSystem("EPSG:4326"), QgsProject.instance()
)
middle = to_degrees.transform(layer.extent().center())
block = layer.dataProvider().block(4, layer.extent(), layer.width(), layer.height())
print(json.dumps({
    "valid": layer.isValid(),
    "crs": layer.crs().authid(),
    "bands": [layer.bandName(k + 1) for k in range(layer.bandCount())],
    "renderer": layer.renderer().type(),
    "alpha": layer.renderer().alphaBand(),
    "middle": [middle.x(), middle.y()],
    "shown": sum(block.value(k) > 0 for k in range(layer.height() * layer.width())),
}))
"""


def seen_by_qgis(path: Path) -> dict:
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", QGIS, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(path.parent), "QT_QPA_PLATFORM": "offscreen"},
    )
    return json.loads(done.stdout.splitlines()[-1])


@needs_qgis
def test_qgis_shows_a_bev_where_it_lies(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_geotiff(tmp_path / "bev.tif", image, None, BevGrid(64, 0.1), 46.5, -31.0, {"id": "a"})
    seen = seen_by_qgis(tmp_path / "bev.tif")
    assert seen["valid"]
    assert seen["crs"] == "EPSG:32625"
    assert (seen["renderer"], seen["alpha"]) == ("multibandcolor", 4)
    assert seen["middle"] == pytest.approx([-31.0, 46.5], abs=1e-6)
    assert seen["shown"] == pytest.approx(64**2, rel=0.01)


@needs_qgis
def test_qgis_shows_a_mosaic_and_its_uncertainty(mosaic: Path) -> None:
    seen = seen_by_qgis(mosaic)
    assert seen["valid"]
    assert seen["crs"] == "EPSG:32631"
    assert seen["alpha"] == 4
    assert "uncertainty, cm" in seen["bands"][4]
    assert seen["shown"] > 0
