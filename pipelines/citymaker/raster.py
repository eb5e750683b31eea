"""A district as a map that any tool reads: one GeoTIFF, XYZ tiles, or an MBTiles file.

Every pixel is drawn where it lies in the file's own coordinate system, never resampled.
"""

from __future__ import annotations

import io
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.windows import Window

from bevgen.cores import usable_cores
from bevgen.errors import InputError
from bevgen.geometry import EARTH_RADIUS
from pipelines.citymaker.dataset import Artist, District, Settings, plan, prepare
from pipelines.citymaker.places import latitude_longitude, local_metres
from pipelines.citymaker.render import ABOVE, picture
from pipelines.citymaker.styles import satellite_light

FORMATS = ("geotiff", "xyz", "mbtiles")
BLOCK, TILE = 512, 256
WORLD = 2 * math.pi * EARTH_RADIUS
"""Metres around the equator in web Mercator."""

Pixels = NDArray[np.uint8]
Metres = Callable[[Any, Any], tuple[Any, Any]]


def make_rasters(
    out: Path,
    settings: Settings,
    districts: tuple[str, ...],
    formats: tuple[str, ...],
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> list[Path]:
    """Draw districts as maps, as the satellite sees them; what is there already is kept.

    Parameters
    ----------
    out
        The city's folder; maps are ``raster/DISTRICT.tif``, ``raster/DISTRICT.mbtiles``, and
        ``raster/DISTRICT/{z}/{x}/{y}.png``.
    settings
        Of the city.
    districts, formats
        Which, and in which of `FORMATS`.
    workers
        Threads.
    progress
        Called with blocks done, all blocks, and what is drawn.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the city has no such district, or there is no such format.
    """
    planned = {district.name: district for district in plan(settings)}
    for name in districts:
        if name not in planned:
            raise InputError(f"the city has no district {name!r}; it has {', '.join(planned)}")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    (out / "raster").mkdir(parents=True, exist_ok=True)
    made = []
    for name in districts:
        paths = {
            "geotiff": out / "raster" / f"{name}.tif",
            "xyz": out / "raster" / name,
            "mbtiles": out / "raster" / f"{name}.mbtiles",
        }
        made += [paths[kind] for kind in formats]
        missing = [kind for kind in formats if not paths[kind].exists()]
        if not missing:
            continue
        artist = prepare(settings, planned[name])
        with ThreadPoolExecutor(workers or usable_cores()) as pool:
            if "geotiff" in missing:
                _write_geotiff(paths["geotiff"], planned[name], artist, pool, progress)
            if {"xyz", "mbtiles"} & set(missing):
                tiles = _web_tiles(planned[name], artist, pool, progress)
                _write_web(paths, missing, name, tiles)
    return made


def extent(district: District, settings: Settings) -> tuple[float, float]:
    """Half the size in metres of the ground that a map shows: all that any tile shows, and more."""
    return tuple(side + settings.reach + 10.0 for side in district.half)  # pyright: ignore


def draw(
    artist: Artist, half: tuple[float, float], shape: tuple[int, int], metres: Metres
) -> Pixels:
    """Draw a block, (H, W, 4) uint8; alpha is 0 outside of the district.

    ``metres`` takes rows and columns with pixel corners at integers to metres east and north of
    the district's centre.
    """
    settings = artist.settings
    scene = artist.scenes[settings.satellite_date]
    light = satellite_light(date.fromisoformat(settings.satellite_date))

    def rays(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float32]:
        out = np.zeros((*np.broadcast(rows, columns).shape, 6), np.float32)
        out[..., 0], out[..., 1] = metres(rows, columns)
        out[..., 2], out[..., 5] = ABOVE, -1.0
        return out

    rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None, :] + 0.5
    x, y = metres(rows, columns)
    inside = (np.abs(x) <= half[0]) & (np.abs(y) <= half[1])
    pixels = np.zeros((*shape, 4), np.uint8)
    if inside.any():
        pixels[..., :3] = picture(scene, light, rays, shape, 0.0, settings.resolution, False, True)
        pixels[..., 3] = 255 * inside
        pixels[~inside] = 0
    return pixels


def _bilinear(corners: NDArray[np.float64], shape: tuple[int, int]) -> Metres:
    """Return metres within a block whose corners (2, 2, 2) are known; true to a millimetre."""

    def metres(rows: Any, columns: Any) -> tuple[Any, Any]:
        v, u = rows / shape[0], columns / shape[1]
        x, y = (
            (1 - v) * ((1 - u) * corners[0, 0, k] + u * corners[0, 1, k])
            + v * ((1 - u) * corners[1, 0, k] + u * corners[1, 1, k])
            for k in range(2)
        )
        return x, y

    return metres


def _corners(
    name: str, to_degrees: Transformer, left: float, top: float, right: float, bottom: float
) -> NDArray[np.float64]:
    """Metres in the district of a block's corners, (2, 2, 2) by row and column."""
    lon, lat = to_degrees.transform([left, right, left, right], [top, top, bottom, bottom])
    x, y = local_metres(name, np.array(lat, np.float64), np.array(lon, np.float64))
    return np.stack([x, y], axis=-1).reshape(2, 2, 2)


def _outline(district: District, half: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Longitudes and latitudes of the corners of what a map shows."""
    corners = [(x * half[0], y * half[1]) for x in (-1, 1) for y in (-1, 1)]
    places = [latitude_longitude(district.name, x, y) for x, y in corners]
    return [lon for _, lon in places], [lat for lat, _ in places]


def _write_geotiff(
    path: Path,
    district: District,
    artist: Artist,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int, str], None],
) -> None:
    """Write a tiled GeoTIFF with overviews and a mask, in the UTM zone of the district."""
    half, pixel = extent(district, artist.settings), artist.settings.resolution
    lon, lat = _outline(district, half)
    area = AreaOfInterest(lon[0], lat[0], lon[0], lat[0])
    crs = CRS.from_authority("EPSG", query_utm_crs_info("WGS 84", area)[0].code)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    left, top = math.floor(min(x)), math.ceil(max(y))
    width, height = (math.ceil(n / pixel) for n in (max(x) - left, top - min(y)))
    windows = [
        Window(column, row, min(BLOCK, width - column), min(BLOCK, height - row))  # pyright: ignore
        for row in range(0, height, BLOCK)
        for column in range(0, width, BLOCK)
    ]

    def block(window: Window) -> Pixels:
        west, north = left + window.col_off * pixel, top - window.row_off * pixel
        shape = (int(window.height), int(window.width))
        corners = _corners(
            district.name,
            to_degrees,
            west,
            north,
            west + shape[1] * pixel,
            north - shape[0] * pixel,
        )
        return draw(artist, half, shape, _bilinear(corners, shape))

    part = path.with_name(path.name + ".part")
    options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            part, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
            crs=crs.to_wkt(), transform=from_origin(left, top, pixel, pixel), predictor=2,
            **options,
        ) as file,
    ):  # fmt: skip
        for done, (window, pixels) in enumerate(
            zip(windows, pool.map(block, windows), strict=True)
        ):
            progress(done, len(windows), path.name)
            file.write(np.moveaxis(pixels[..., :3], 2, 0), window=window)
            file.write_mask(pixels[..., 3] > 0, window=window)
        file.build_overviews([2, 4, 8], Resampling.average)
    part.replace(path)


WebTile = tuple[int, int, int, Pixels]


def _web_tiles(
    district: District,
    artist: Artist,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int, str], None],
) -> Iterator[WebTile]:
    """Draw the tiles of the coarsest zoom that keeps the city's resolution: z, x, y, pixels."""
    half = extent(district, artist.settings)
    lon, lat = _outline(district, half)
    metres = WORLD / TILE * math.cos(math.radians(np.mean(lat)))
    zoom = math.ceil(math.log2(metres / artist.settings.resolution))
    side = WORLD / 2**zoom
    mercator = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    x, y = (np.array(v) for v in mercator.transform(lon, lat))
    columns = range(int((x.min() + WORLD / 2) // side), int((x.max() + WORLD / 2) // side) + 1)
    rows = range(int((WORLD / 2 - y.max()) // side), int((WORLD / 2 - y.min()) // side) + 1)
    names = [(column, row) for row in rows for column in columns]
    to_degrees = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)

    def tile(name: tuple[int, int]) -> Pixels:
        west, north = name[0] * side - WORLD / 2, WORLD / 2 - name[1] * side
        corners = _corners(district.name, to_degrees, west, north, west + side, north - side)
        return draw(artist, half, (TILE, TILE), _bilinear(corners, (TILE, TILE)))

    for done, (name, pixels) in enumerate(zip(names, pool.map(tile, names), strict=True)):
        progress(done, len(names), f"{district.name}, zoom {zoom}")
        if pixels[..., 3].any():
            yield zoom, *name, pixels


def _write_web(
    paths: dict[str, Path], missing: list[str], name: str, tiles: Iterator[WebTile]
) -> None:
    """Write tiles as PNG files in folders, into an SQLite file (rows from the south), or both."""
    folder = paths["xyz"].with_name(paths["xyz"].name + ".part")
    database = paths["mbtiles"].with_name(paths["mbtiles"].name + ".part")
    shutil.rmtree(folder, ignore_errors=True)
    database.unlink(missing_ok=True)
    connection = sqlite3.connect(database) if "mbtiles" in missing else None
    zoom = 0
    if connection is not None:
        connection.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        connection.execute(
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER,"
            " tile_data BLOB, PRIMARY KEY (zoom_level, tile_column, tile_row))"
        )
    for zoom, x, y, pixels in tiles:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=4)
        if "xyz" in missing:
            path = folder / str(zoom) / str(x) / f"{y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
        if connection is not None:
            row = (zoom, x, 2**zoom - 1 - y, file.getvalue())
            connection.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", row)
    if connection is not None:
        about = {"name": name, "format": "png", "minzoom": str(zoom), "maxzoom": str(zoom)}
        connection.executemany("INSERT INTO metadata VALUES (?, ?)", about.items())
        connection.commit()
        connection.close()
        database.replace(paths["mbtiles"])
    if "xyz" in missing:
        folder.replace(paths["xyz"])
