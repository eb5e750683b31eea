"""Web maps: tiles of 256 or 512 pixels in folders by zoom, column and row, or in MBTiles files."""

from __future__ import annotations

import io
import math
import re
import sqlite3
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from affine import Affine
from PIL import Image, UnidentifiedImageError
from pyproj import CRS

from georetrieval.data.tiles.places import Box
from georetrieval.data.tiles.rasters import Pixels, box_of
from georetrieval.errors import MapError

WORLD = 2 * math.pi * 6378137.0
"""Metres around the equator in web Mercator."""
KEPT = 256
"""Decoded tiles in memory."""


class Store(Protocol):
    """Where encoded tiles lie: extents by zoom (columns, then rows from the north), and bytes."""

    name: str
    zooms: Mapping[int, tuple[int, int, int, int]]

    def get(self, zoom: int, column: int, row: int) -> bytes | None:
        """Return a tile's file; None where there is none."""
        ...


def root_of(source: str) -> Path:
    """Return the file or folder that a map lies in, also of one named by a pattern."""
    fixed, pattern, _ = source.partition("{")
    return Path(fixed) if not pattern or fixed.endswith("/") else Path(fixed).parent


class Folders:
    """Tiles as files, named by a pattern such as ``xyz/{z}/{x}/{y}.png``.

    ``{-y}`` counts rows from the south, as in tile map services (TMS).

    Raises
    ------
    MapError
        If no file fits.
    """

    def __init__(self, pattern: str) -> None:
        pattern = str(Path(pattern))
        self.name, self._from_south = pattern, "{-y}" in pattern
        pattern = pattern.replace("{-y}", "{y}")
        for part in ("{z}", "{x}", "{y}"):
            if pattern.count(part) != 1:
                raise MapError(
                    f"{self.name} must hold {{z}}, {{x}} and {{y}}, or {{-y}} for rows from the"
                    " south, once each"
                )
        text = re.escape(pattern)
        for part in ("z", "x", "y"):
            text = text.replace(re.escape("{" + part + "}"), rf"(?P<{part}>\d+)")
        matches = re.compile(text)
        self._root = root_of(pattern)
        found: dict[int, list[int]] = {}
        for path in self._root.rglob("*"):
            if match := matches.fullmatch(str(path)):
                z, x, y = (int(match[part]) for part in "zxy")
                y = self._row(z, y)
                box = found.setdefault(z, [x, x, y, y])
                box[:] = min(box[0], x), max(box[1], x), min(box[2], y), max(box[3], y)
        if not found:
            raise MapError(f"there are no tiles like {self.name}")
        self.zooms: Mapping[int, tuple[int, int, int, int]] = {
            z: (a, b, c, d) for z, (a, b, c, d) in found.items()
        }

    def get(self, zoom: int, column: int, row: int) -> bytes | None:
        """See `Store`."""
        path = self.name.replace("{z}", str(zoom)).replace("{x}", str(column))
        path = path.replace("{-y}" if self._from_south else "{y}", str(self._row(zoom, row)))
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            if not self._root.exists():
                raise MapError(f"{self._root} is not there any more") from None
            return None

    def _row(self, zoom: int, row: int) -> int:
        """Turn a row counted as files are into one from the north, or back."""
        return 2**zoom - 1 - row if self._from_south else row


class MBTiles:
    """Tiles in an SQLite file; each thread reads by a connection of its own.

    Raises
    ------
    MapError
        If it is no such file, or holds vectors.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._local = threading.local()
        try:
            about = dict(self._query("SELECT name, value FROM metadata"))
            rows = self._query(
                "SELECT zoom_level, MIN(tile_column), MAX(tile_column), MIN(tile_row),"
                " MAX(tile_row) FROM tiles GROUP BY zoom_level"
            )
        except sqlite3.Error as error:
            raise MapError(f"{path} is no MBTiles file: {error}") from error
        if about.get("format") == "pbf":
            raise MapError(f"{path} holds vector tiles: export pictures from it")
        if not rows:
            raise MapError(f"{path} holds no tiles")
        self.zooms: Mapping[int, tuple[int, int, int, int]] = {
            z: (a, b, 2**z - 1 - bottom_up_last, 2**z - 1 - bottom_up_first)
            for z, a, b, bottom_up_first, bottom_up_last in rows
        }

    def get(self, zoom: int, column: int, row: int) -> bytes | None:
        """See `Store`."""
        found = self._query(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
            (zoom, column, 2**zoom - 1 - row),
        )
        return found[0][0] if found else None

    def _query(self, text: str, values: tuple[int, ...] = ()) -> list[tuple]:
        if not hasattr(self._local, "connection"):
            uri = f"{Path(self.name).absolute().as_uri()}?mode=ro"
            self._local.connection = sqlite3.connect(uri, uri=True)
        return self._local.connection.execute(text, values).fetchall()


class WebRaster:
    """One zoom of a web map as a `Raster` that goes around the Earth.

    Parameters
    ----------
    store
        Where the tiles lie.
    resolution
        Metres per pixel that are wanted: the coarsest zoom that is as fine is taken, or the
        finest there is.
    """

    def __init__(self, store: Store, resolution: float) -> None:
        self.name, self._store = store.name, store
        self.crs = CRS.from_epsg(3857)
        zoom = max(store.zooms)
        a, _, c, d = store.zooms[zoom]
        side = _side(store, zoom)
        latitude = math.atan(math.sinh(math.pi * (1 - (c + d + 1) / 2**zoom)))
        wanted = math.log2(WORLD * math.cos(latitude) / side / resolution)
        self.zoom = next((z for z in sorted(store.zooms) if z >= wanted - 1e-6), zoom)
        self._side = side
        pixel = WORLD / 2**self.zoom / side
        self.transform = Affine(pixel, 0, -WORLD / 2, 0, -pixel, WORLD / 2)
        self.shape = (side * 2**self.zoom, side * 2**self.zoom)
        self.period: float | None = WORLD
        self.goes_around = True
        a, b, c, d = store.zooms[self.zoom]
        corner = Affine(
            pixel, 0, a * side * pixel - WORLD / 2, 0, -pixel, WORLD / 2 - c * side * pixel
        )
        self.box: Box = box_of(self.crs, corner, ((d - c + 1) * side, (b - a + 1) * side))
        self._tile = lru_cache(KEPT)(self._read_tile)

    def read(self, rows: tuple[int, int], columns: tuple[int, int], shrink: int) -> Pixels:
        """See `Raster`."""
        side, out = self._side, np.zeros((rows[1] - rows[0], columns[1] - columns[0], 4), np.uint8)
        for row in range(rows[0] // side, (rows[1] - 1) // side + 1):
            for column in range(columns[0] // side, (columns[1] - 1) // side + 1):
                tile = self._tile(column % 2**self.zoom, row)
                if tile is None:
                    continue
                top, left = row * side, column * side
                a, b = max(top, rows[0]), min(top + side, rows[1])
                c, d = max(left, columns[0]), min(left + side, columns[1])
                out[a - rows[0] : b - rows[0], c - columns[0] : d - columns[0]] = tile[
                    a - top : b - top, c - left : d - left
                ]
        return out if shrink == 1 else np.asarray(Image.fromarray(out).reduce(shrink))

    def _read_tile(self, column: int, row: int) -> Pixels | None:
        data = self._store.get(self.zoom, column, row)
        if data is None:
            return None
        tile = _decode(data, f"{self.name}, tile {self.zoom}/{column}/{row}")
        if tile.shape[:2] != (self._side, self._side):
            raise MapError(f"{self.name}, tile {self.zoom}/{column}/{row}: not of the others' size")
        return tile


def _side(store: Store, zoom: int) -> int:
    """Pixels of a tile on a side, by the first that can be read."""
    problem = f"{store.name} holds no tiles"
    a, b, c, d = store.zooms[zoom]
    for row in range(c, d + 1):
        for column in range(a, b + 1):
            if (data := store.get(zoom, column, row)) is not None:
                try:
                    return _decode(data, f"{store.name}, tile {zoom}/{column}/{row}").shape[0]
                except MapError as error:
                    problem = str(error)
    raise MapError(problem)


def _decode(data: bytes, name: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise MapError(f"{name} is {'no picture' if data else 'empty'}") from error
    except (OSError, ValueError) as error:
        raise MapError(f"{name} is damaged: {error}") from error
