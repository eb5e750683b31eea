"""Cut one tile: north up, in metres of the ground, whatever the map's coordinate system."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from georetrieval.data.tiles.places import GEOD
from georetrieval.data.tiles.rasters import Pixels, Raster
from georetrieval.errors import MapError

MARGIN = 4
"""Pixels of the map around a tile that resampling looks at."""
STRAIGHT = 0.1
"""Pixels of the tile by which a corner may be off the map that is straight in it."""
_PLANE = "EPSG:3857"  # pixels as coordinates of any plane: nothing is projected
_local = threading.local()


def cut_tile(
    rasters: Sequence[Raster], latitude: float, longitude: float, size: int, resolution: float
) -> Pixels | None:
    """Cut a tile out of the first rasters that have data for it.

    Parameters
    ----------
    rasters
        The map.
    latitude, longitude
        Degrees (WGS84) of the tile's centre.
    size, resolution
        Pixels on a side, and metres of the ground per pixel.

    Returns
    -------
    (size, size, 4) uint8, or None
        Alpha is 0 where the map has no data; None where it has none at all.

    Raises
    ------
    MapError
        If the map's projection bends within a tile, as near a pole.
    """
    result: Pixels | None = None
    for raster in rasters:
        if not _touches(raster, latitude, longitude, size * resolution):
            continue
        tile = _cut(raster, latitude, longitude, size, resolution)
        if tile is None:
            continue
        if result is None:
            result = tile
        else:
            empty = result[..., 3] == 0
            result[empty] = tile[empty]
        if result[..., 3].all():
            break
    return result


def tile_transform(
    raster: Raster, latitude: float, longitude: float, size: int, resolution: float
) -> Affine:
    """Return where a tile's pixels lie in a raster: from (column, row) to (column, row).

    The corners of the tile are reached from its centre along geodesics, so that it is as large on
    the ground as it says and its upper edge is north, whatever scale and convergence the map's
    projection has there.

    Raises
    ------
    MapError
        If the projection bends within the tile.
    """
    half = size * resolution / 2
    signs = np.array([(0, 0), (-1, 1), (1, 1), (-1, -1), (1, -1)], float)
    azimuth = np.degrees(np.arctan2(signs[:, 0], signs[:, 1]))
    start = np.broadcast_to([[longitude], [latitude]], (2, 5))
    lon, lat, _ = GEOD.fwd(start[0], start[1], azimuth, half * np.hypot(signs[:, 0], signs[:, 1]))
    x, y = (np.asarray(v) for v in _transformer(raster).transform(lon, lat))
    if raster.period is not None:
        middle = raster.transform.c + raster.shape[1] / 2 * raster.transform.a
        x = x + np.round((x[0] - x) / raster.period) * raster.period
        x = x + np.round((middle - x[0]) / raster.period) * raster.period
    inverse = ~raster.transform
    column = inverse.a * x + inverse.b * y + inverse.c
    row = inverse.d * x + inverse.e * y + inverse.f
    here = np.column_stack([(signs[:, 0] + 1) * size / 2, (1 - signs[:, 1]) * size / 2, np.ones(5)])
    there = np.column_stack([column, row])
    if not np.isfinite(there).all():
        raise MapError("the map's projection does not reach there")
    matrix, *_ = np.linalg.lstsq(here, there, rcond=None)
    scale = math.sqrt(abs(np.linalg.det(matrix[:2])))
    if np.abs(here @ matrix - there).max() > STRAIGHT * scale:
        raise MapError("the map's projection bends within a tile, as near a pole")
    (a, d), (b, e), (c, f) = matrix.tolist()
    return Affine(a, b, c, d, e, f)


def _transformer(raster: Raster) -> Transformer:
    """Degrees to a raster's coordinates; made once in each thread."""
    kept = _local.__dict__.setdefault("transformers", {})
    if id(raster) not in kept:
        made = Transformer.from_crs("EPSG:4326", raster.crs, always_xy=True)
        kept[id(raster)] = (raster, made)
    return kept[id(raster)][1]


def _touches(raster: Raster, latitude: float, longitude: float, metres: float) -> bool:
    """Whether a tile may show ground of a raster."""
    west, south, east, north = raster.box
    reach = metres * 0.75 / 111_000
    if not south - reach <= latitude <= north + reach:
        return False
    if east - west >= 360:
        return True
    reach /= max(math.cos(math.radians(latitude)), 1e-3)
    return (longitude - west + reach) % 360 <= (east - west) % 360 + 2 * reach


def _cut(
    raster: Raster, latitude: float, longitude: float, size: int, resolution: float
) -> Pixels | None:
    matrix = tile_transform(raster, latitude, longitude, size, resolution)
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)], float)
    column = matrix.a * corners[:, 0] + matrix.b * corners[:, 1] + matrix.c
    row = matrix.d * corners[:, 0] + matrix.e * corners[:, 1] + matrix.f
    scale = math.sqrt(abs(matrix.determinant))  # pixels of the map for one of the tile
    shrink = 2 ** max(math.floor(math.log2(scale) + 1e-9), 0)
    columns = _span(column, shrink, None if raster.goes_around else raster.shape[1])
    rows = _span(row, shrink, raster.shape[0])
    if columns is None or rows is None:
        return None
    pixels = raster.read(rows, columns, shrink)
    if not pixels[..., 3].any():
        return None
    # What was read, on its own grid of pixels.
    u = (columns[1] - columns[0]) / pixels.shape[1]
    v = (rows[1] - rows[0]) / pixels.shape[0]
    tile = np.zeros((4, size, size), np.uint8)
    reproject(
        source=np.ascontiguousarray(np.moveaxis(pixels, 2, 0)),
        destination=tile,
        # North is up, as in any map; a corner at 0, 0 would be taken for no position at all.
        src_transform=Affine(u, 0, columns[0], 0, -v, -rows[0] - 1),
        dst_transform=Affine(matrix.a, matrix.b, matrix.c, -matrix.d, -matrix.e, -matrix.f - 1),
        src_crs=_PLANE,
        dst_crs=_PLANE,
        src_alpha=4,
        dst_alpha=4,
        resampling=Resampling.cubic,
        XSCALE=min(u / scale, 1.0),
        YSCALE=min(v / scale, 1.0),
    )
    valid = tile[3] >= 128
    if not valid.any():
        return None
    tile[3] = 255 * valid
    tile[:, ~valid] = 0
    return np.ascontiguousarray(np.moveaxis(tile, 0, 2))


def _span(values: NDArray[np.float64], shrink: int, limit: int | None) -> tuple[int, int] | None:
    """First and last pixels around some, in whole groups of ``shrink``; None outside of the map."""
    margin = MARGIN * shrink
    first = math.floor((values.min() - margin) / shrink) * shrink
    last = math.ceil((values.max() + margin) / shrink) * shrink
    if limit is not None:
        first, last = max(first, 0), min(last, limit)
    return (first, last) if first < last else None
