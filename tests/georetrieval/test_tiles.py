from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Geod, Transformer
from rasterio.transform import from_origin

from bevgen import RefusedError, ShardSet
from bevgen.errors import BevgenError
from georetrieval.cli import main
from georetrieval.data.tiles import TileSettings, make_tiles, open_source, web
from georetrieval.data.tiles.cutting import cut_tile, tile_transform
from georetrieval.data.tiles.places import Area, grid_places, read_area
from georetrieval.errors import MapError
from tests.helpers.paths import ROOT

GEOD = Geod(ellps="WGS84")


def metres_from(latitude: float, longitude: float) -> Transformer:
    """Degrees to metres east and north of a point, by PROJ's topocentric coordinates."""
    return Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad"
        " +step +proj=cart +ellps=WGS84"
        f" +step +proj=topocentric +ellps=WGS84 +lat_0={latitude:.12f} +lon_0={longitude:.12f}"
    )


def write_map(path: Path, pixels: np.ndarray, crs: str, left: float, top: float, pixel: float,
              **options: object) -> Path:  # fmt: skip
    """Write (H, W, bands) as a GeoTIFF."""
    height, width, bands = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=pixels.dtype,
        crs=crs, transform=from_origin(left, top, pixel, pixel), **options,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, 2, 0))
    return path


def map_around(path: Path, crs: str, latitude: float, longitude: float, half: float, pixel: float,
               draw=None, **options: object) -> Path:  # fmt: skip
    """Write a map around a point; ``draw`` gives (H, W, 3) from metres east and north of it.

    ``half`` and ``pixel`` are in the units of the coordinate system.
    """
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    count = round(2 * half / pixel)
    left, top = x - half, y + half
    if draw is None:
        return write_map(path, np.zeros((count, count, 3), np.uint8), crs, left, top, pixel)
    columns, rows = np.meshgrid(np.arange(count) + 0.5, np.arange(count) + 0.5)
    back = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = back.transform(left + columns * pixel, top - rows * pixel)
    east, north, _ = metres_from(latitude, longitude).transform(lon, lat, np.zeros_like(lat))
    return write_map(path, draw(east, north), crs, left, top, pixel, **options)


PLACES = [
    ("EPSG:32631", 48.85, 2.35),  # near the central meridian
    ("EPSG:32632", 60.3, 6.02),  # at a zone's edge
    ("EPSG:32719", -33.45, -70.6),  # in the south
    ("EPSG:32601", 51.9, -179.9995),  # beside the 180th meridian
    ("EPSG:32660", -16.8, 179.99999),  # across it
    ("EPSG:3857", 66.0, 25.7),  # a scale of 2.46
    ("EPSG:4326", 46.5, -31.0),  # degrees
    ("EPSG:2056", 46.95, 7.44),  # another datum, an oblique projection
]


@pytest.mark.parametrize(("crs", "latitude", "longitude"), PLACES)
def test_corners_are_where_pyproj_says_to_a_centimetre(tmp_path, crs, latitude, longitude):
    degrees = crs == "EPSG:4326"
    half, pixel = (2e-3, 2e-6) if degrees else (300, 0.5)
    path = map_around(tmp_path / "a.tif", crs, latitude, longitude, half, pixel)
    (raster,) = open_source(str(path), 0.2)
    size, resolution = 384, 0.2
    matrix = tile_transform(raster, latitude, longitude, size, resolution)
    back = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    metres = metres_from(latitude, longitude)
    for column, row in [(0, 0), (384, 0), (0, 384), (384, 384), (192, 192), (100, 7)]:
        u = matrix.a * column + matrix.b * row + matrix.c
        v = matrix.d * column + matrix.e * row + matrix.f
        x, y = (
            raster.transform.c + u * raster.transform.a,
            raster.transform.f + v * raster.transform.e,
        )
        lon, lat = back.transform(x, y)
        east, north, _ = metres.transform(lon, lat, 0)
        assert abs(east - (column - size / 2) * resolution) < 0.01
        assert abs(north - (size / 2 - row) * resolution) < 0.01


SPOTS = [(0.0, 0.0), (21.37, 9.81), (-17.2, -25.04)]


def spots(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Draw a soft spot of another colour at each of SPOTS, metres east and north."""
    spread = 1.2
    bands = [np.exp(-((east - e) ** 2 + (north - n) ** 2) / (2 * spread**2)) for e, n in SPOTS]
    return np.round(np.stack(bands, axis=-1) * 250).astype(np.uint8)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(("crs", "latitude", "longitude"), PLACES)
def test_things_lie_in_the_tile_where_they_lie_on_the_ground(
    tmp_path, crs, latitude, longitude, ends
):
    """Also in a tile of 77 m in which the map ends, 29 m to all sides (41 m, of degrees north)."""
    if crs == "EPSG:4326":
        half, pixel = (3.8e-4 if ends else 1e-3), 1.2e-6
    elif crs == "EPSG:3857":  # about 12 cm on the ground
        half, pixel = (71 if ends else 220), 0.3
    else:
        half, pixel = (29 if ends else 60), 0.12
    path = map_around(tmp_path / "a.tif", crs, latitude, longitude, half, pixel, spots)
    tile = cut_tile(open_source(str(path), 0.2), latitude, longitude, 384, 0.2)
    assert tile is not None
    assert tile[..., 3].all() != ends
    for band, (east, north) in enumerate(SPOTS):
        weight = tile[..., band].astype(float)
        column = (weight.sum(0) * (np.arange(384) + 0.5)).sum() / weight.sum()
        row = (weight.sum(1) * (np.arange(384) + 0.5)).sum() / weight.sum()
        assert abs((column - 192) * 0.2 - east) < 0.03
        assert abs((192 - row) * 0.2 - north) < 0.03


@pytest.mark.parametrize("fold", [2.0, 3.7, 8.0, 16.0])
def test_detail_that_is_too_fine_becomes_grey_and_not_moire(tmp_path, fold):
    side = 1024
    checks = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    path = write_map(
        tmp_path / "a.tif", np.repeat(checks[..., None], 3, 2), "EPSG:32631", 450000, 5411000, 0.05
    )
    x, y = 450000 + side * 0.025, 5411000 - side * 0.025
    lon, lat = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(x, y)
    size = int(side / fold) - 8
    tile = cut_tile(open_source(str(path), 0.05 * fold), lat, lon, max(size, 16), 0.05 * fold)
    assert tile is not None
    middle = tile[3:-3, 3:-3, :3].astype(int)
    assert np.abs(middle - 127).max() <= (20 if fold == 2.0 else 12)


def test_where_the_map_has_no_data_is_in_the_mask_and_empty_tiles_are_left_out(tmp_path):
    def half(east, north):
        return np.where(east[..., None] < 0, 0, [200, 100, 50]).astype(np.uint8)

    path = map_around(tmp_path / "a.tif", "EPSG:32631", 48.85, 2.35, 100, 0.2, half, nodata=0)
    tile = cut_tile(open_source(str(path), 0.2), 48.85, 2.35, 100, 0.2)
    assert tile is not None
    np.testing.assert_array_equal(
        tile[..., 3] > 0, np.broadcast_to(np.arange(100) >= 50, (100, 100))
    )
    assert (tile[:, :50] == 0).all()
    assert (np.abs(tile[:, 55:, :3].astype(int) - [200, 100, 50]) <= 1).all()
    written = make_tiles(str(path), tmp_path / "a.h5", TileSettings(0.2, 100, 25))
    shards = ShardSet(tmp_path / "a.h5")
    assert written.rows == len(shards)
    assert written.failures > 0
    east = metres_from(48.85, 2.35).transform(
        shards.columns["longitude"], shards.columns["latitude"], np.zeros(len(shards))
    )[0]
    assert -0.2 < east.min() < 25.1
    whole = make_tiles(str(path), tmp_path / "b.h5", TileSettings(0.2, 100, 25, least_data=0))
    assert whole.rows > written.rows
    assert shards.settings["resolution"] == 0.2
    assert 0.5 <= shards.valid(int(east.argmin())).mean() < 1


def web_map(folder: Path, latitude: float, longitude: float, draw) -> tuple[str, Path]:
    """Write a web map around a point as files and as MBTiles, at zoom 19."""
    zoom, world = 19, 2 * math.pi * 6378137.0
    side = world / 2**zoom
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(
        longitude, latitude
    )
    column, row = int((x + world / 2) // side), int((world / 2 - y) // side)
    back = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
    metres = metres_from(latitude, longitude)
    database = sqlite3.connect(folder / "a.mbtiles")
    database.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
    database.execute("INSERT INTO metadata VALUES ('format', 'png')")
    database.execute(
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)"
    )
    for i in range(row - 2, row + 3):
        for j in range(column - 2, column + 3):
            u, v = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
            lon, lat = back.transform(
                (j + u / 256) * side - world / 2, world / 2 - (i + v / 256) * side
            )
            east, north, _ = metres.transform(lon, lat, np.zeros_like(lat))
            data = io.BytesIO()
            Image.fromarray(draw(east, north)).save(data, "PNG")
            name = j % 2**zoom
            path = folder / "xyz" / str(zoom) / str(name) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.getvalue())
            place = (zoom, name, 2**zoom - 1 - i, data.getvalue())
            database.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", place)
    database.commit()
    database.close()
    return f"{folder}/xyz/{{z}}/{{x}}/{{y}}.png", folder / "a.mbtiles"


@pytest.mark.parametrize("longitude", [11.57, -180.0, 179.9999])
def test_web_maps_are_cut_alike_also_across_the_180th_meridian(tmp_path, longitude):
    latitude = 48.1
    pattern, database = web_map(tmp_path, latitude, longitude, spots)
    tiles = [
        cut_tile(open_source(source, 0.2), latitude, longitude, 384, 0.2)
        for source in (pattern, str(database))
    ]
    assert tiles[0] is not None
    np.testing.assert_array_equal(*tiles)
    for band, (east, north) in enumerate(SPOTS):
        weight = tiles[0][..., band].astype(float)
        column = (weight.sum(0) * (np.arange(384) + 0.5)).sum() / weight.sum()
        row = (weight.sum(1) * (np.arange(384) + 0.5)).sum() / weight.sum()
        assert abs((column - 192) * 0.2 - east) < 0.03
        assert abs((192 - row) * 0.2 - north) < 0.03


def test_rows_may_count_from_the_south_and_patterns_need_not_be_tidy(tmp_path, monkeypatch):
    web_map(tmp_path, 48.1, 11.57, spots)
    for path in sorted((tmp_path / "xyz").rglob("*.png")):
        south = tmp_path / "tms" / path.parent.relative_to(tmp_path / "xyz")
        south.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, south / f"{2**19 - 1 - int(path.stem)}.png")
    monkeypatch.chdir(tmp_path)
    patterns = ("xyz/{z}/{x}/{y}.png", ".//xyz/{z}/{x}/{y}.png", "tms/{z}/{x}/{-y}.png")
    tiles = [cut_tile(open_source(one, 0.2), 48.1, 11.57, 384, 0.2) for one in patterns]
    assert tiles[0] is not None
    np.testing.assert_array_equal(tiles[1], tiles[0])
    np.testing.assert_array_equal(tiles[2], tiles[0])


def test_pictures_that_cannot_be_read_are_said(tmp_path, capsys):
    pattern, _ = web_map(tmp_path, 48.1, 11.57, lambda e, n: spots(e, n) + 1)
    files = sorted((tmp_path / "xyz").rglob("*.png"))
    files[0].write_bytes(b"")
    files[12].write_text("<html>busy</html>")
    words = ["tiles", "--source", pattern, "--resolution", "0.5", "--size", "32", "--step", "20"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--out", str(tmp_path / "a.h5")])
    assert not stopped.value.code
    said = capsys.readouterr()
    reasons = [one.reason for one in ShardSet(tmp_path / "a.h5").failures]
    empty = sum(reason.endswith("is empty") for reason in reasons)
    broken = sum(reason.endswith("is no picture") for reason in reasons)
    assert empty
    assert broken
    assert f"{empty + broken} places could not be cut: {pattern}, tile 19/" in said.err
    little = len(reasons) - empty - broken
    assert ("left out" in said.out) == (little > 0)


def test_a_map_that_goes_away_leaves_out_no_tile(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "KEPT", 1)
    pattern, _ = web_map(tmp_path, 48.1, 11.57, lambda e, n: spots(e, n) + 1)
    settings = TileSettings(0.5, 32, 20)
    away = tmp_path / "away"

    def take_away(done: int, total: int) -> None:
        if done == 5:
            (tmp_path / "xyz").rename(away)

    with pytest.raises(MapError, match="not there any more"):
        make_tiles(pattern, tmp_path / "a.h5", settings, threads=1, on_progress=take_away)
    away.rename(tmp_path / "xyz")
    written = make_tiles(pattern, tmp_path / "a.h5", settings)
    assert written == make_tiles(pattern, tmp_path / "b.h5", settings)
    assert written.failures == 0


def test_maps_of_two_zones_in_one_folder_make_one_tile_at_their_border(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()

    def west(east, north):
        return np.where(east[..., None] > 0, 0, spots(east, north) // 2 + 60).astype(np.uint8)

    def east_(east, north):
        return np.where(east[..., None] <= 0, 0, spots(east, north) // 2 + 60).astype(np.uint8)

    map_around(maps / "31.tif", "EPSG:32631", 48.0, 6.0, 80, 0.2, west, nodata=0)
    map_around(maps / "32.tif", "EPSG:32632", 48.0, 6.0, 80, 0.2, east_, nodata=0)
    tile = cut_tile(open_source(str(maps), 0.2), 48.0, 6.0, 300, 0.2)
    assert tile is not None
    assert (tile[..., 3] > 0).all()
    whole = map_around(tmp_path / "one.tif", "EPSG:32631", 48.0, 6.0, 80, 0.2,
                       lambda e, n: spots(e, n) // 2 + 60)  # fmt: skip
    one = cut_tile(open_source(str(whole), 0.2), 48.0, 6.0, 300, 0.2)
    assert one is not None
    assert np.abs(tile.astype(int) - one).mean() < 0.5


@pytest.mark.parametrize(
    ("crs", "half", "pixel"),
    [("EPSG:32631", 80, 0.2), ("EPSG:3857", 120, 0.3), ("EPSG:4326", 1e-3, 2.5e-6)],
)
def test_of_maps_beside_each_other_none_is_drawn_beyond_its_edge(tmp_path, crs, half, pixel):
    place = 48.0, 6.0

    def uneven(east, north):
        return spots(east, north) // 2 + 60

    whole = map_around(tmp_path / "whole.tif", crs, *place, half, pixel, uneven)
    with rasterio.open(whole) as file:
        pixels, left, top = np.moveaxis(file.read(), 0, 2), file.transform.c, file.transform.f
    middle = pixels.shape[1] // 2 + 20  # about 20 pixels of the tile, too
    folder = tmp_path / "maps"
    folder.mkdir()
    parts = [(pixels[:, :middle], left), (pixels[:, middle:], left + middle * pixel)]
    for number, (part, edge) in enumerate(parts):
        write_map(folder / f"{number}.tif", part, crs, edge, top, pixel)
    expected = cut_tile(open_source(str(whole), 0.2), *place, 300, 0.2)
    assert expected is not None
    for number, (side, share) in enumerate([(np.s_[:, :155], 17 / 30), (np.s_[:, 185:], 13 / 30)]):
        tile = cut_tile(open_source(str(folder / f"{number}.tif"), 0.2), *place, 300, 0.2)
        assert tile is not None
        assert abs((tile[..., 3] > 0).mean() - share) < 0.01
        assert np.abs(tile[side].astype(int) - expected[side]).max() <= 1
    both = cut_tile(open_source(str(folder), 0.2), *place, 300, 0.2)
    assert both is not None
    assert (both[..., 3] > 0).all()
    assert np.abs(both.astype(int) - expected).mean() < 0.5


# Places


@pytest.mark.parametrize("box", [(7.0, 50.0, 7.01, 50.01), (179.995, -17.0, -179.995, -16.99)])
def test_centres_are_a_step_apart_and_fill_the_box(box):
    latitude, longitude = grid_places([box], 25.0)
    rows = np.unique(latitude)
    north = GEOD.inv(np.zeros(len(rows) - 1), rows[:-1], np.zeros(len(rows) - 1), rows[1:])[2]
    np.testing.assert_allclose(north, 25, atol=1e-4)
    row = longitude[latitude == rows[3]]
    row = row[np.argsort((row - box[0]) % 360)]
    here = np.full(len(row) - 1, rows[3])
    east = GEOD.inv(row[:-1], here, row[1:], here)[2]
    np.testing.assert_allclose(east, 25, atol=0.02)
    area = GEOD.inv(box[0], box[1], box[2], box[1])[2] * GEOD.inv(0, box[1], 0, box[3])[2]
    assert abs(len(latitude) / (area / 625) - 1) < 0.05
    # An area that has grown has the same tiles where it was.
    more, _ = grid_places([(box[0], box[1] - 0.01, box[2], box[3])], 25.0)
    assert set(rows) <= set(np.unique(more))


def test_the_area_is_polygons_with_holes(tmp_path):
    ring = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    hole = [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]
    other = [[10, 0], [11, 0], [10.5, 3], [10, 0]]
    geometry = {"type": "MultiPolygon", "coordinates": [[ring, hole], [other]]}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    area = read_area(path)
    assert isinstance(area, Area)
    points = np.array([(0.5, 0.5), (1.5, 1.5), (5, 5), (10.5, 1), (10.9, 2.9), (3.9, 3.9)])
    found = area.contains(points[:, 1], points[:, 0])
    assert found.tolist() == [True, False, False, True, False, True]


# What a user may do wrong


def test_maps_that_cannot_be_used_are_refused_in_words(tmp_path):
    plain = np.zeros((64, 64, 3), np.uint8)

    def says(match: str, source: Path | str, **options: object) -> None:
        with pytest.raises(MapError, match=match):
            make_tiles(str(source), tmp_path / "a.h5", TileSettings(0.5, 32, 5), **options)

    path = tmp_path / "plain.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8",
                       transform=from_origin(5, 5, 2, 2)) as file:  # fmt: skip
        file.write(np.moveaxis(plain, 2, 0))
    says("no coordinate system", path)
    turned = from_origin(450000, 5411000, 0.5, 0.5) @ Affine.rotation(10)
    path = tmp_path / "turned.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8",
                       transform=turned, crs="EPSG:32631") as file:  # fmt: skip
        file.write(np.moveaxis(plain, 2, 0))
    says("rotated geotransform", path)
    path = write_map(
        tmp_path / "deep.tif", plain.astype(np.uint16), "EPSG:32631", 450000, 5411000, 0.5
    )
    says("uint16", path)
    says("does not exist", tmp_path / "no.tif")
    (tmp_path / "text.tif").write_text("no map")
    says("cannot be read as a map", tmp_path / "text.tif")
    (tmp_path / "text.mbtiles").write_text("no database")
    says("no MBTiles", tmp_path / "text.mbtiles")
    (tmp_path / "empty").mkdir()
    says("holds no maps", tmp_path / "empty")
    says("no tiles like", f"{tmp_path}/empty/{{z}}/{{x}}/{{y}}.png")
    says("once each", f"{tmp_path}/empty/{{z}}/{{x}}.png")
    good = write_map(tmp_path / "good.tif", plain + 9, "EPSG:32631", 450000, 5411000, 0.5)
    far = tmp_path / "far.geojson"
    far.write_text('{"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0,0]]]}')
    says("the map covers", good, area=far)
    far.write_text('{"type": "Polygon", "coordinates": [[[179,0],[181,0],[181,1],[179,0]]]}')
    says("across the 180th meridian is two polygons", good, area=far)
    far.write_text('{"type": "Point", "coordinates": [0, 0]}')
    says("holds no polygon", good, area=far)
    far.write_text("{")
    says("no GeoJSON", good, area=far)
    empty = write_map(tmp_path / "nothing.tif", plain, "EPSG:32631", 450000, 5411000, 0.5, nodata=0)
    says("is it empty", empty)


@pytest.mark.parametrize(
    "values", [(math.inf, 32, 5), (0.5, 32, math.inf), (math.nan, 32, 5), (0.0, 32, 5), (0.5, 8, 5)]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(MapError, match="tiles need a resolution"):
        TileSettings(*values)


def test_another_map_or_other_settings_are_not_mixed_in(tmp_path):
    def grey(east, north):
        return np.full((*east.shape, 3), 90, np.uint8)

    path = map_around(tmp_path / "a.tif", "EPSG:32631", 48.85, 2.35, 60, 0.5, grey)
    settings = TileSettings(0.5, 32, 20)
    first = make_tiles(str(path), tmp_path / "a.h5", settings)
    assert first.made == first.rows + first.failures
    assert make_tiles(str(path), tmp_path / "a.h5", settings).made == 0
    with pytest.raises(RefusedError, match="step: 20"):
        make_tiles(str(path), tmp_path / "a.h5", TileSettings(0.5, 32, 30))
    other = map_around(tmp_path / "b.tif", "EPSG:32631", 48.85, 2.35, 70, 0.5, grey)
    with pytest.raises(BevgenError, match="other settings"):
        make_tiles(str(other), tmp_path / "a.h5", settings)
    assert make_tiles(str(other), tmp_path / "a.h5", settings, overwrite=True).made > first.made


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path):
    def noise(east, north):
        return np.random.default_rng(1).integers(1, 255, (*east.shape, 3), np.uint8)

    path = map_around(tmp_path / "a.tif", "EPSG:32631", 48.85, 2.35, 200, 0.5, noise)
    words = ["tiles", "--source", str(path), "--resolution", "0.5", "--size", "64", "--step", "12"]
    folder = tmp_path / "k.shards"
    script = (
        "import sys; from pathlib import Path; from georetrieval.cli import main\n"
        "from tests.helpers.crash import RENAMES, die_before_step\n"
        f"die_before_step(1, Path({str(folder)!r}), RENAMES); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, *words, "--quiet", "--out", str(tmp_path / "k.h5")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    made = {p.name: p.stat().st_mtime_ns for p in folder.glob("0*[0-9].h5")}
    assert list(made) == ["00000.h5"]
    for name in ("k", "whole"):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--quiet", "--out", str(tmp_path / f"{name}.h5")])
        assert not stopped.value.code
    for name, stamp in made.items():
        assert (folder / name).stat().st_mtime_ns == stamp
    one, two = ShardSet(tmp_path / "k.h5"), ShardSet(tmp_path / "whole.h5")
    assert one.ids == two.ids
    assert len(one) > 256
    np.testing.assert_array_equal(one.read(range(len(one))), two.read(range(len(two))))
    assert not list(tmp_path.glob("**/*.part"))


def test_memory_stays_flat_for_a_map_of_120_gb(tmp_path):
    side = 200_000
    path = tmp_path / "large.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, crs="EPSG:32631",
        transform=from_origin(4e5, 5.42e6, 0.1, 0.1), compress="deflate", sparse_ok=True,
        bigtiff="yes", nodata=0,
    ) as file:  # fmt: skip
        block = np.random.default_rng(0).integers(1, 255, (3, 2560, 2560), np.uint8)
        file.write(block, window=rasterio.windows.Window(100_096, 50_176, 2560, 2560))
    x, y = 4e5 + 100_096 * 0.1, 5.42e6 - 50_176 * 0.1
    back = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    ring = [
        back.transform(x + a, y - b) for a, b in [(0, 0), (256, 0), (256, 256), (0, 256), (0, 0)]
    ]
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    code = (
        "import resource, sys\nfrom georetrieval.data.tiles import make_tiles, TileSettings\n"
        "from pathlib import Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "area = Path(sys.argv[3])\n"
        "settings = TileSettings(0.2, 384, 25)\n"
        "w = make_tiles(sys.argv[1], sys.argv[2], settings, area=area, threads=2)\n"
        "print(w.rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "a.h5"), str(area)],
        capture_output=True, text=True, check=True, env={**os.environ, "GDAL_CACHEMAX": "64"},
    )  # fmt: skip
    rows, grown = done.stdout.split()
    assert int(rows) > 90
    assert float(grown) < 400
