"""Pictures of an answer, and which of the index's tiles make the map."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from georetrieval.retrieval.index import Index

SHOWN = 600
"""Tiles on the map at once."""
METRES_PER_DEGREE = 111_320.0


def jpeg(pixels: NDArray[np.uint8], side: int | None = None) -> bytes:
    """Encode (H, W, 3) pixels, made smaller where ``side`` pixels are enough."""
    image = Image.fromarray(pixels)
    if side is not None and max(image.size) > side:
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def data_uri(data: bytes, kind: str = "jpeg") -> str:
    """Return a picture as text for a page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def cut_out(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bytes:
    """Encode pixels (H, W, 3) as WebP that is transparent where nothing is shown."""
    shown = np.dstack([pixels, np.where(valid, 255, 0).astype(np.uint8)])
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "WEBP", quality=85)
    return file.getvalue()


def bounds(index: Index, row: int, turns: float = 0.0) -> list[list[float]]:
    """South-west and north-east corner of a tile in degrees, for Leaflet, moved by ``turns``."""
    latitude, longitude = index.positions[row] + (0.0, turns)
    half = (index.header.tiles.width or 50.0) / 2 / METRES_PER_DEGREE
    wide = half / max(math.cos(math.radians(latitude)), 1e-3)
    return [[latitude - half, longitude - wide], [latitude + half, longitude + wide]]


def extent(index: Index) -> list[list[float]]:
    """South-west and north-east corner of all tiles' centres in degrees, for Leaflet.

    What lies across the 180th meridian is east of it, beyond 180.
    """
    latitude, longitude = index.positions[index.kept].T
    around = np.unique(longitude)
    gaps = np.diff(around, append=around[0] + 360)
    widest = int(gaps.argmax())
    west = float(around[(widest + 1) % len(around)])
    return [
        [float(latitude.min()), west],
        [float(latitude.max()), west + 360 - float(gaps[widest])],
    ]


def tiles_in_view(
    index: Index, west: float, south: float, east: float, north: float
) -> list[dict[str, Any]]:
    """Choose tiles that cover a view: one for each cell half as large as a tile, at most `SHOWN`.

    Parameters
    ----------
    index
        Whose tiles.
    west, south, east, north
        Degrees; a view may lie whole turns around the Earth off, and its tiles lie there too.
    """
    latitude, longitude = index.positions.T
    half = (index.header.tiles.width or 50.0) / 2 / METRES_PER_DEGREE
    wide = half / np.maximum(np.cos(np.radians(latitude)), 1e-3)
    eastwards = (longitude - west + wide) % 360
    across = eastwards <= (east - west if east > west else (east - west) % 360) + 2 * wide
    turns = 360 * np.round((west - wide + eastwards - longitude) / 360)
    seen = index.kept & across & (latitude >= south - half) & (latitude <= north + half)
    rows = np.flatnonzero(seen)
    side = half
    while True:
        cells = np.stack([latitude[rows] // side, longitude[rows] // (side * 1.2)], axis=1)
        _, first = np.unique(cells, axis=0, return_index=True)
        if len(first) <= SHOWN:
            break
        side *= 1.5
    shown = rows[np.sort(first)].tolist()
    return [{"row": row, "bounds": bounds(index, row, turns[row])} for row in shown]
