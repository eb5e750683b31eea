"""BEVs on maps: where GIS programs will see them, by PROJ's geodesics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image
from rasterio.enums import ColorInterp

from bevgen.cli import bevgen_command
from bevgen.geometry import BevGrid
from bevgen.georeference import utm_epsg, write_geotiff
from bevgen.tables import PoseRow, write_poses

GEOD = pyproj.Geod(ellps="WGS84")
# Three zones, north and south, two of them far from their middle meridian; the 180th meridian.
PLACES = [(46.5, -31.0), (-33.9, 150.02), (60.1, 17.99), (12.0, 179.99995)]


def spots(grid: BevGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of small blobs near the corners, and metres east and north of their middles."""
    inside = grid.extent / 2 - 1.3
    east, north = np.array([[-1, 1], [1, 0.9], [0.95, -1], [-0.9, -1]]).T * inside
    x, y = np.meshgrid(*grid.ground())
    picture = np.zeros((grid.size, grid.size))
    for e, n in zip(east, north, strict=True):
        picture += 250 * np.exp(-((x - e) ** 2 + (y - n) ** 2) / (2 * 0.15**2))
    return np.rint(picture).astype(np.uint8), east, north


@pytest.mark.parametrize("place", PLACES)
def test_corners_lie_where_geodesics_say_to_a_centimetre(
    tmp_path: Path, place: tuple[float, float]
) -> None:
    grid = BevGrid(256, 0.06)
    grey, east, north = spots(grid)
    valid = np.ones(grey.shape, bool)
    valid[100:140, 90:160] = False
    path = tmp_path / "bev.tif"
    write_geotiff(path, np.stack([grey] * 3, axis=-1), valid, grid, *place, {"id": "a"})
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == utm_epsg(*place)
        assert file.transform.b == file.transform.d == 0  # not turned: every program reads it
        assert file.res == pytest.approx((0.06, 0.06))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["id"] == "a"
        assert file.colorinterp[-1] == ColorInterp.alpha
        red, _, _, alpha = file.read()
        to_degrees = pyproj.Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
        rows, columns = np.mgrid[: file.height, : file.width] + 0.5
        utm_x, utm_y = file.xy(rows.ravel() - 0.5, columns.ravel() - 0.5)
    assert set(np.unique(alpha)) >= {0, 255}
    longitude, latitude = to_degrees.transform(utm_x, utm_y)
    azimuth, _, metres = GEOD.inv(
        np.full(len(longitude), place[1]), np.full(len(longitude), place[0]), longitude, latitude
    )
    x, y = (metres * f(np.deg2rad(azimuth)) for f in (np.sin, np.cos))
    weight = red.ravel().astype(float)
    for e, n in zip(east, north, strict=True):
        near = np.hypot(x - e, y - n) < 0.9
        found = [np.average(v[near], weights=weight[near]) for v in (x, y)]
        assert found == pytest.approx([e, n], abs=0.01)
    # What the panorama did not show is clear, and nothing else but the ground beyond the edge.
    shown = alpha.ravel() > 127
    hole = (np.abs(x - -0.18) < 2.0) & (np.abs(y - 0.48) < 1.1)
    edge = grid.extent / 2
    inside = (np.abs(x) < edge - 0.1) & (np.abs(y) < edge - 0.1)
    around = (np.abs(x - -0.18) > 2.2) | (np.abs(y - 0.48) > 1.3)
    assert max(x.min(), y.min()) < -edge < edge < min(x.max(), y.max())
    assert not shown[hole].any()
    assert shown[inside & around].all()
    assert not shown[(np.abs(x) > edge + 0.1) | (np.abs(y) > edge + 0.1)].any()


@pytest.mark.parametrize(
    ("latitude", "longitude", "code"),
    [(46.5, -31, 32625), (-33.9, 151.2, 32756), (0, 180, 32601), (85, 0, 32661), (-81, 9, 32761)],
)
def test_utm_zones(latitude: float, longitude: float, code: int) -> None:
    assert utm_epsg(latitude, longitude) == code


def export(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(bevgen_command, ["export", *options], standalone_mode=False)
    code = result.return_value if result.exception is None else 1
    return int(code or 0), result.output + str(result.exception or "")


def converted(folder: Path) -> Path:
    """Shards of three BEVs: one placed, one without position, one without heading."""
    pictures = folder / "in"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        pixels = rng.integers(0, 255, (64, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{name}.png")
    rows = [
        PoseRow("a.png", heading=10, latitude=46.5, longitude=-31),
        PoseRow("b.png", heading=10),
        PoseRow("c.png", latitude=46.5, longitude=-31),
    ]
    write_poses(folder / "poses.csv", rows)
    convert = [
        "convert", "-i", str(pictures), "-o", str(folder / "bev.h5"), "--poses",
        str(folder / "poses.csv"), "--size", "64", "--resolution", "0.1", "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(bevgen_command, convert, standalone_mode=False)
    assert result.exception is None, result.output
    return folder / "bev.h5"


def test_export_writes_what_has_a_place_and_says_why_the_rest_has_none(tmp_path: Path) -> None:
    shards = str(converted(tmp_path))
    out, prints = tmp_path / "tif", tmp_path / "prints.geojson"
    options = (shards, "--format", "geotiff", "--out", str(out), "--footprints", str(prints))
    code, said = export(*options)
    assert code == 0, said
    assert [path.name for path in out.iterdir()] == ["a.tif"]
    assert "'b': no position" in said
    assert "'c': no heading" in said
    assert "1 image" in said
    collection = json.loads(prints.read_text())
    (feature,) = collection["features"]
    assert feature["properties"] == {"id": "a", "source": "a.png"}
    (ring,) = feature["geometry"]["coordinates"]
    area, length = GEOD.polygon_area_perimeter(*np.array(ring).T)
    assert area == pytest.approx(6.4**2, abs=0.01)  # anticlockwise: positive
    assert length == pytest.approx(4 * 6.4, abs=0.005)
    with rasterio.open(out / "a.tif") as file:
        tags = {name: value for name, value in file.tags().items() if name.islower()}
        west, south, east, north = rasterio.warp.transform_bounds(file.crs, 4326, *file.bounds)
    assert west < -31 < east
    assert south < 46.5 < north
    known = {"id": "a", "source": "a.png", "heading": "10.0", "height": "2.0"}
    assert tags == known | {"latitude": "46.5", "longitude": "-31.0"}
    code, said = export(*options)
    assert code == 1
    assert "--overwrite" in said
    assert export(shards)[0] == 1  # nothing to write
