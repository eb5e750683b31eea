"""A city on disk: its plan, its tables, and its pictures by all cores."""

from __future__ import annotations

import io
import json
import logging
import math
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
from bevgen.cores import usable_cores
from bevgen.errors import InputError, RefusedError
from bevgen.geometry import BevGrid
from bevgen.tables import PoseRow
from pipelines.citymaker.compiling import SOURCES
from pipelines.citymaker.drives import Drive, choose_drives, shares
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
from pipelines.citymaker.rig import build_car, hidden, put_cap
from pipelines.citymaker.scene import Scene
from pipelines.citymaker.settings import VIEWS, Settings
from pipelines.citymaker.styles import DISTRICTS, light_of, satellite_light
from pipelines.citymaker.styles import District as Style
from pipelines.citymaker.world import World, build, scene_on, streets_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class District:
    """The plan of one district: half its size in metres, places, pairs with tiles, drives."""

    name: str
    half: tuple[float, float]
    places: list[Place]
    pairs: list[Pair]
    drives: list[Drive]

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
    drives = shares(settings.districts, settings.cross, settings.drive)
    planned = []
    for number, (name, driven) in enumerate(zip(names, drives, strict=True)):
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
        streets = streets_of(style, half, settings.seed) if driven else []
        ways = choose_drives(name, streets, half, driven, settings.seed, settings.driving)
        planned.append(District(name, half, places, pairs, ways))
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
    for drive in (drive for district in districts for drive in district.drives):
        folder = out / "drive" / drive.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, truth in (("poses", False), ("truth", True)):
            rows = drive.table(settings.dates[0], truth=truth)
            tables.write_poses(folder / f"{name}.csv", rows)
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
    for view in {*settings.views} - {"drive"}:
        (out / view).mkdir(exist_ok=True)
    missing = [missing_pictures(out, settings, district) for district in districts]
    total = sum(len(list(all_pictures(out, settings, d))) for d in districts)
    kept = total - sum(map(len, missing))
    done = kept
    todo = [(d, m) for d, m in zip(districts, missing, strict=True) if m]
    pool = ThreadPoolExecutor(workers or usable_cores())
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


Picture = tuple[Path, str, Place | Tile, str]


def all_pictures(out: Path, settings: Settings, district: District) -> Iterator[Picture]:
    """Files of a district: path, view, place or tile, date."""
    if "panorama" in settings.views:
        for place, day, _ in shots(district, settings):
            name = panorama_id(place, settings, day)
            yield out / "panorama" / f"{name}.jpg", "panorama", place, day
    for drive in district.drives if "drive" in settings.views else ():
        for k, frame in enumerate(drive.frames):
            path = out / "drive" / drive.name / f"{k:05d}.jpg"
            yield path, "drive", frame, settings.dates[0]
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
            (dx, dy), lean = flaws_of(subject, settings)
            pixels = satellite(scene, light, subject.x + dx, subject.y + dy, grid, lean=lean)
            options = {"format": "JPEG", "quality": 93}
        else:
            pixels = map_tile(scene, subject.x, subject.y, grid)
            options = {"format": "PNG", "compress_level": 4}
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, **options)
        write_atomically(path, data.getvalue())


def flaws_of(tile: Tile, settings: Settings) -> tuple[tuple[float, float], tuple[float, float]]:
    """Metres by which a satellite tile is off, and how its satellite looks, east and north.

    They hang on the tile alone, whatever else is drawn.
    """
    rng = np.random.default_rng([settings.seed, *tile.id.encode(), 6])
    dx, dy = (rng.normal(0, 1, 2) * settings.shift).tolist()
    tangent = math.tan(math.radians(settings.lean * rng.uniform()))
    angle = rng.uniform(0, 2 * math.pi)
    return (dx, dy), (tangent * math.cos(angle), tangent * math.sin(angle))


def prepare(settings: Settings, district: District) -> Artist:
    """Build a district and its scene on every date that is needed."""
    world: World = build(
        DISTRICTS[district.name],
        district.half,
        settings.seed,
        overhang=settings.overhang,
        wires=settings.wires,
    )
    frames = [frame for drive in district.drives for frame in drive.frames]
    clear = np.array([(place.x, place.y) for place in (*district.places, *frames)])
    on = partial(scene_on, world, clear=clear)
    days = {*settings.dates, settings.satellite_date}
    scenes = {day: on(date.fromisoformat(day)) for day in sorted(days)}
    return Artist(settings, scenes, build_car(settings.seed) if settings.car else None)
