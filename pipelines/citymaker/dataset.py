"""A city on disk: what it shall hold, its tables, and its pictures by all cores."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bevgen import tables
from bevgen.errors import InputError, RefusedError
from bevgen.geometry import BevGrid
from bevgen.tables import PoseRow
from pipelines.citymaker.compiling import SOURCES
from pipelines.citymaker.places import (
    Pair,
    Place,
    Tile,
    centred_pairs,
    choose_places,
    grid_pairs,
    latitude_longitude,
    zones_of,
)
from pipelines.citymaker.render import map_tile, panorama, satellite
from pipelines.citymaker.rig import CAPS, build_car, hidden, put_cap
from pipelines.citymaker.scene import Scene
from pipelines.citymaker.styles import DISTRICTS, light_of, parse_date, satellite_light
from pipelines.citymaker.styles import District as Style
from pipelines.citymaker.world import World, build, scene_on, streets_of

log = logging.getLogger(__name__)

VIEWS = ("panorama", "satellite", "map")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the pixels and the tables of a city.

    Parameters
    ----------
    places
        How many, over all districts.
    seed
        Decides everything that is not said here.
    districts
        With places for training, validation and test.
    cross
        Districts of which all places are for the cross-region test.
    heading
        ``north``, or ``random``: where the centre column looks.
    tilt
        Standard deviation of pitch and roll in degrees.
    dates
        YYYY-MM-DD. On the first all panoramas are taken; on each further one those of the test
        places once more.
    satellite_date
        YYYY-MM-DD of the satellite's pictures: other cars, other light.
    tiles
        ``centred``: a tile per place. ``grid``: tiles that overlap by half, as in VIGOR.
    offset
        Metres, with ``centred``: how far a place may be from its tile's centre, each way.
    panorama_width, tile_size, tile_metres
        Pixels, pixels, and metres across.
    validation, test
        Parts of the places in ``districts``.
    views
        Which of panorama, satellite and map to draw.
    car
        The panoramas show the car that carries the camera.
    cap
        What covers the nadir of the panoramas: one of `pipelines.citymaker.rig.CAPS`, or nothing.

    Raises
    ------
    InputError
        If a value makes no sense.
    """

    places: int = 400
    seed: int = 0
    districts: tuple[str, ...] = ("oldtown", "downtown", "suburb", "industrial", "park")
    cross: tuple[str, ...] = ("harbour",)
    heading: str = "north"
    tilt: float = 0.0
    dates: tuple[str, ...] = ("2023-06-04",)
    satellite_date: str = "2022-07-12"
    tiles: str = "centred"
    offset: float = 0.0
    panorama_width: int = 1024
    tile_size: int = 384
    tile_metres: float = 70.0
    validation: float = 0.1
    test: float = 0.25
    views: tuple[str, ...] = VIEWS
    car: bool = False
    cap: str = ""

    def __post_init__(self) -> None:
        for name in (*self.districts, *self.cross):
            if name not in DISTRICTS:
                raise InputError(f"no district {name!r}; there are {', '.join(DISTRICTS)}")
        names = [*self.districts, *self.cross]
        if len(set(names)) < len(names) or not names:
            raise InputError("name each district once, for training or for the cross-region test")
        if self.places < len(names):
            raise InputError(f"{self.places} places are too few for {len(names)} districts")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise InputError(
                "the parts for validation and test must be 0 or more, together below 1"
            )
        if self.panorama_width < 16 or self.panorama_width % 2 or self.tile_size < 16:
            raise InputError("panoramas need an even width of 16 pixels or more, tiles 16 or more")
        if not 10 <= self.tile_metres <= 400:
            raise InputError(f"tiles are 10 to 400 metres wide, not {self.tile_metres:g}")
        if not 0 <= self.offset <= self.tile_metres / 2:
            raise InputError("a place lies in its tile: offset 0 to half the tile's metres")
        if not 0 <= self.tilt <= 10:
            raise InputError(f"tilt is 0 to 10 degrees, not {self.tilt:g}")
        if self.offset and self.tiles == "grid":
            raise InputError("on a grid the places are where they are: leave out the offset")
        if self.cap and self.cap not in CAPS:
            raise InputError(f"no cap {self.cap!r}; there are {', '.join(CAPS)}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, not {self.seed}")
        if not self.dates or len(set(self.dates)) < len(self.dates):
            raise InputError("name one date or more, each once")
        for text in (*self.dates, self.satellite_date):
            parse_date(text)

    @property
    def resolution(self) -> float:
        """Metres per pixel of tiles."""
        return self.tile_metres / self.tile_size

    @property
    def reach(self) -> float:
        """Metres from a place, east or north, to the farthest edge of a tile that is its own."""
        return self.tile_metres if self.tiles == "grid" else self.tile_metres / 2 + self.offset


@dataclass(frozen=True, slots=True, eq=False)
class District:
    """The plan of one district: half its size in metres, places, and pairs with tiles."""

    name: str
    half: tuple[float, float]
    places: list[Place]
    pairs: list[Pair]

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of all pairs, each once."""
        return list({pair.tile.id: pair.tile for pair in self.pairs}.values())


def plan(settings: Settings) -> list[District]:
    """Decide where everything is, without drawing anything.

    Raises
    ------
    InputError
        If the places do not fit.
    """
    names = [*settings.districts, *settings.cross]
    share, rest = divmod(settings.places, len(names))
    planned = []
    for number, name in enumerate(names):
        style, count = DISTRICTS[name], share + (number < rest)
        if name in settings.cross:
            counts = {"cross": count}
        else:
            test, validation = round(settings.test * count), round(settings.validation * count)
            counts = {"train": count - test - validation, "val": validation, "test": test}
        half, places = settle(settings, style, counts)
        if settings.tiles == "grid":
            pairs = grid_pairs(places, settings.tile_metres, settings.resolution)
        else:
            pairs = centred_pairs(places, settings.seed, settings.offset, settings.resolution)
        planned.append(District(name, half, places, pairs))
    return planned


def settle(
    settings: Settings, style: Style, counts: dict[str, int]
) -> tuple[tuple[float, float], list[Place]]:
    """Find room for places: on more and more ground until they fit."""
    for ample in (1.0, 1.5, 2.2, 3.2):
        half, zones = zones_of(style, counts, 2 * settings.reach + 1, settings.seed, ample)
        try:
            return half, choose_places(
                style,
                streets_of(style, half, settings.seed),
                zones,
                settings.seed,
                tilt=settings.tilt,
                any_heading=settings.heading == "random",
            )
        except InputError:
            if ample > 3:
                raise
    raise AssertionError


# --- tables ---


def panorama_id(place: Place, settings: Settings, day: str) -> str:
    """Id of a place's panorama on a date."""
    return place.id if day == settings.dates[0] else f"{place.id}-{day}"


def shots(district: District, settings: Settings) -> Iterator[tuple[Place, str, str]]:
    """All panoramas of a district: place, date, split."""
    for place in district.places:
        yield place, settings.dates[0], place.split
    for day in settings.dates[1:]:
        for place in district.places:
            if place.split in ("test", "cross"):
                yield place, day, "temporal" if place.split == "test" else "temporal-cross"


def write_tables(out: Path, settings: Settings, districts: list[District]) -> None:
    """Write city.json, poses.csv, pairs.csv and the positions of tiles, each atomically.

    Raises
    ------
    RefusedError
        If the folder holds another city.
    """
    about = {"settings": asdict(settings), "sources": f"{SOURCES:08x}"}
    about = json.loads(json.dumps(about))
    about["metres_per_pixel"] = settings.resolution
    about["districts"] = {d.name: {"half_size": d.half, "places": len(d.places)} for d in districts}
    about["splits"] = _count_splits(settings, districts)
    refuse_another(out, about)
    poses: list[PoseRow] = []
    pairs: list[tables.Pair] = []
    tiles: list[tuple[str, tuple[float, float]]] = []
    for district in districts:
        own: dict[str, list[Pair]] = {}
        for pair in district.pairs:
            own.setdefault(pair.place.id, []).append(pair)
        for place, day, split in shots(district, settings):
            name = panorama_id(place, settings, day)
            pose = place.pose
            where = _degrees(district.name, place.x, place.y)
            angles = (pose.heading, pose.pitch, pose.roll, pose.height)
            poses.append(PoseRow(f"{name}.jpg", name, *angles, *where, day))
            for pair in own[place.id]:
                offsets = (round(pair.d_row, 2), round(pair.d_col, 2))
                pairs.append(tables.Pair(name, pair.tile.id, pair.role, *offsets, split))
        for tile in district.tiles:
            tiles.append((tile.id, _degrees(district.name, tile.x, tile.y)))
    tables.write_poses(out / "poses.csv", poses)
    if settings.heading == "random":
        unknown = (replace(row, heading=None) for row in poses)
        tables.write_poses(out / "poses-unknown-heading.csv", unknown)
    tables.write_pairs(out / "pairs.csv", pairs)
    for view, ending in (("satellite", "jpg"), ("map", "png")):
        day = settings.satellite_date if view == "satellite" else None
        rows = (
            PoseRow(f"{name}.{ending}", name, latitude=where[0], longitude=where[1], date=day)
            for name, where in tiles
        )
        tables.write_poses(out / f"{view}.csv", rows, _TILE_COLUMNS)
    write_atomically(out / "city.json", (json.dumps(about, indent=2) + "\n").encode())


_TILE_COLUMNS = ("file", "id", "latitude", "longitude", "date")


def _degrees(district: str, x: float, y: float) -> tuple[float, float]:
    """Latitude and longitude to a millimetre."""
    latitude, longitude = latitude_longitude(district, x, y)
    return round(latitude, 8), round(longitude, 8)


def _count_splits(settings: Settings, districts: list[District]) -> dict[str, int]:
    """Panoramas per split."""
    counts: dict[str, int] = {}
    for district in districts:
        for _, _, split in shots(district, settings):
            counts[split] = counts.get(split, 0) + 1
    return counts


def refuse_another(out: Path, about: dict[str, Any]) -> None:
    """Stop if ``out`` holds a city with other settings, or pictures of none."""
    path = out / "city.json"
    if not path.exists():
        if any((out / view).exists() for view in VIEWS):
            raise RefusedError(
                f"{out} holds pictures but no city.json, so nobody knows what they are; choose"
                f" another folder"
            )
        return
    try:
        old = json.loads(path.read_text("utf-8"))
        settings, sources = dict(old["settings"]), old["sources"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{path} is not what this program wrote; choose another folder") from (
            error
        )
    new = about["settings"]
    differing = [
        f"{name} ({settings.get(name)} there, {new.get(name)} now)"
        for name in sorted({*settings, *new})
        if settings.get(name) != new.get(name)
    ]
    if differing:
        raise RefusedError(
            f"{out} holds a city with another {'; '.join(differing)}: choose another folder"
        )
    if sources != about["sources"]:
        raise RefusedError(
            f"{out} was begun by another version of this program, whose pictures differ: choose"
            f" another folder, or delete this one"
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there wholly or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


# --- pictures ---


def make_city(
    out: Path,
    settings: Settings,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> dict[str, int]:
    """Make a city, or what is missing of it.

    Parameters
    ----------
    out
        Folder; see docs/city.md for what it will hold.
    settings
        What to make.
    workers
        Threads; all cores by default. The pictures do not depend on it.
    progress
        Called with pictures done, all pictures, and what is going on.

    Returns
    -------
    dict
        ``made`` and ``kept``: numbers of pictures.

    Raises
    ------
    InputError
        If the places do not fit.
    RefusedError
        If the folder holds another city.
    """
    districts = plan(settings)
    out.mkdir(parents=True, exist_ok=True)
    write_tables(out, settings, districts)
    if settings.car or settings.cap:
        write_mask(out / "mask.png", settings)
    for view in settings.views:
        (out / view).mkdir(exist_ok=True)
    missing = [missing_pictures(out, settings, district) for district in districts]
    total = sum(len(list(all_pictures(out, settings, d))) for d in districts)
    kept = total - sum(map(len, missing))
    done = kept
    todo = [(d, m) for d, m in zip(districts, missing, strict=True) if m]
    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        worlds = [pool.submit(prepare, settings, todo[0][0])] if todo else []
        for number, (district, pictures) in enumerate(todo):
            progress(done, total, f"building {district.name}")
            drawers = worlds[number].result()
            if number + 1 < len(todo):
                worlds.append(pool.submit(prepare, settings, todo[number + 1][0]))
            running: set[Future[None]] = {
                pool.submit(drawers.draw, path, view, subject, day)
                for path, view, subject, day in pictures
            }
            while running:
                finished, running = wait(running, timeout=0.5, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                done += len(finished)
                ready = sum(future.done() for future in running)
                progress(done + ready, total, district.name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return {"made": done - kept, "kept": kept}


def write_mask(path: Path, settings: Settings) -> None:
    """Write which pixels of panoramas show the city, white, and which car or cap, black."""
    car = build_car(settings.seed) if settings.car else None
    data = io.BytesIO()
    Image.fromarray(~hidden(car, settings.cap, settings.panorama_width)).save(data, format="PNG")
    write_atomically(path, data.getvalue())


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Picture = tuple[Path, str, Place | Tile, str]


def all_pictures(out: Path, settings: Settings, district: District) -> Iterator[Picture]:
    """Files of a district: path, view, place or tile, date."""
    if "panorama" in settings.views:
        for place, day, _ in shots(district, settings):
            name = panorama_id(place, settings, day)
            yield out / "panorama" / f"{name}.jpg", "panorama", place, day
    for tile in district.tiles:
        if "satellite" in settings.views:
            path = out / "satellite" / f"{tile.id}.jpg"
            yield path, "satellite", tile, settings.satellite_date
        if "map" in settings.views:
            yield out / "map" / f"{tile.id}.png", "map", tile, settings.satellite_date


def missing_pictures(out: Path, settings: Settings, district: District) -> list[Picture]:
    """Files of a district that are not there yet."""
    return [picture for picture in all_pictures(out, settings, district) if not picture[0].exists()]


@dataclass(frozen=True, slots=True, eq=False)
class Artist:
    """Draws pictures of one district; its scenes by date, and the camera's car."""

    settings: Settings
    scenes: dict[str, Scene]
    car: Scene | None

    def draw(self, path: Path, view: str, subject: Place | Tile, day: str) -> None:
        """Draw one picture and write it."""
        settings, scene = self.settings, self.scenes[day]
        grid = BevGrid(settings.tile_size, settings.resolution)
        if isinstance(subject, Place):
            light = light_of(date.fromisoformat(day), settings.seed, subject.later, subject.gain)
            pixels = panorama(
                scene, light, subject.x, subject.y, subject.pose, settings.panorama_width,
                car=self.car,
            )  # fmt: skip
            if settings.cap:
                pixels = put_cap(pixels, settings.cap)
            options: dict[str, Any] = {"format": "JPEG", "quality": 90}
        elif view == "satellite":
            light = satellite_light(date.fromisoformat(day))
            pixels = satellite(scene, light, subject.x, subject.y, grid)
            options = {"format": "JPEG", "quality": 93}
        else:
            pixels = map_tile(scene, subject.x, subject.y, grid)
            options = {"format": "PNG", "compress_level": 4}
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, **options)
        write_atomically(path, data.getvalue())


def prepare(settings: Settings, district: District) -> Artist:
    """Build a district and its scene on every date that is needed."""
    world: World = build(DISTRICTS[district.name], district.half, settings.seed)
    clear = np.array([(place.x, place.y) for place in district.places])
    on = partial(scene_on, world, clear=clear)
    days = {*settings.dates, settings.satellite_date}
    scenes = {day: on(date.fromisoformat(day)) for day in sorted(days)}
    return Artist(settings, scenes, build_car(settings.seed) if settings.car else None)
