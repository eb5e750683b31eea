"""Cut a map into tiles and store them as shards of references."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from bevgen import Made, ShardSet, Written, write_shards
from bevgen.cores import usable_cores
from georetrieval.data.tiles.cutting import cut_tile
from georetrieval.data.tiles.places import grid_places, place_ids, read_area
from georetrieval.data.tiles.rasters import Raster
from georetrieval.data.tiles.sources import open_source
from georetrieval.data.tiles.web import root_of
from georetrieval.errors import MapError

TILE_RULE = 2
"""Goes up when the same settings would give other pixels."""
SHOWS = "the map shows "
"""Begins the reason why a place has no tile, where it is not that the map cannot be read there."""


@dataclass(frozen=True, slots=True)
class TileSettings:
    """What tiles are like.

    Attributes
    ----------
    resolution
        Metres of the ground per pixel.
    size
        Pixels on a side.
    step
        Metres between centres, northwards and eastwards.
    kind
        ``satellite`` or ``map``.
    least_data
        Share of a tile that the map has to show; others are left out.

    Raises
    ------
    MapError
        If a value is out of range.
    """

    resolution: float = 0.2
    size: int = 384
    step: float = 25.0
    kind: str = "satellite"
    least_data: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.resolution <= 1000 and 16 <= self.size <= 8192 and 1 <= self.step <= 1e6):
            raise MapError(
                "tiles need a resolution above 0, at most 1000 metres a pixel, a size of 16 to 8192"
                " pixels and a step of 1 metre to 1000 km, not"
                f" {self.resolution:g}, {self.size} and {self.step:g}"
            )
        if not 0 <= self.least_data <= 1:
            raise MapError(f"the least data of a tile is a share, 0 to 1, not {self.least_data:g}")
        if self.kind not in ("satellite", "map"):
            raise MapError(f"tiles are of kind satellite or map, not {self.kind!r}")


def make_tiles(
    source: str,
    out: Path | str,
    settings: TileSettings | None = None,
    *,
    area: Path | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Written:
    """Cut a map into tiles, or what is missing of them.

    Rows hold the tile's centre as latitude and longitude, and what the map shows as their mask;
    tiles of which it shows too little are left out. A killed call goes on where it stopped.

    Parameters
    ----------
    source
        See `georetrieval.data.tiles.sources.open_source`.
    out
        Shard file to write.
    settings
        What tiles are like.
    area
        GeoJSON: only tiles with their centre in its polygons.
    overwrite
        Replace an output that is there.
    threads
        At work; None for one per core.
    on_progress
        Hears how many places are done, of how many.

    Raises
    ------
    MapError
        If the map or the area cannot be used, or no tile lies in both.
    BevgenError
        If the output holds something else, or cannot be written.
    """
    settings = settings or TileSettings()
    # rasterio warns of its own arrays in memory, and what it does against that is for one thread.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    rasters, root = open_source(source, settings.resolution), root_of(source)
    latitude, longitude = grid_places([raster.box for raster in rasters], settings.step)
    if area is not None:
        wanted = read_area(area).contains(latitude, longitude)
        if not wanted.any():
            raise MapError(
                f"no tile of {source} has its centre in {area}: the map covers"
                f" {_boxes(rasters)} (west, south, east, north)"
            )
        latitude, longitude = latitude[wanted], longitude[wanted]
    if not len(latitude):
        raise MapError(f"{source} is smaller than the step of {settings.step:g} m: choose less")

    def make(number: int) -> Made | str:
        where = float(latitude[number]), float(longitude[number])
        try:
            tile = cut_tile(rasters, *where, settings.size, settings.resolution)
        except (MapError, RasterioError) as error:
            if not root.exists():  # an unmounted disk must not leave out all tiles
                raise MapError(
                    f"{root} is not there any more. Finished shards are kept: put it back and run"
                    " the same command again"
                ) from error
            return str(error)
        if tile is None:
            return f"{SHOWS}nothing of it"
        valid = tile[..., 3] > 0
        if valid.mean() < settings.least_data:
            return f"{SHOWS}{valid.mean():.0%} of it"
        columns = {"heading": 0.0, "latitude": where[0], "longitude": where[1]}
        return Made(np.ascontiguousarray(tile[..., :3]), None if valid.all() else valid, columns)

    written = write_shards(
        out,
        settings.kind,
        (settings.size, settings.size, 3),
        {**asdict(settings), "tile_rule": TILE_RULE, "source": _fingerprint(source, rasters)},
        place_ids(latitude, longitude),
        make,
        threads=threads or usable_cores(),
        overwrite=overwrite,
        on_progress=on_progress,
    )
    if not written.rows:
        with ShardSet(out) as shards:
            why = shards.failures[0].reason
        raise MapError(f"{source} has no data where tiles would be ({why}): is it empty?")
    return written


def _fingerprint(source: str, rasters: Sequence[Raster]) -> list[Any]:
    """Say which map it was, so that tiles of two are not mixed: names and sizes of files."""
    files = [Path(raster.name) for raster in rasters]
    if all(file.is_file() for file in files):
        return [[file.name, file.stat().st_size] for file in files]
    return [[source, list(rasters[0].shape)]]


def _boxes(rasters: Sequence[Raster]) -> str:
    shown = [", ".join(f"{value:.5f}" for value in raster.box) for raster in rasters[:3]]
    return " and ".join(shown) + (" and more" if len(rasters) > 3 else "")
