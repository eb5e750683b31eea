"""What an index holds on disk: its names and its values; see docs/index-format.md.

An index is a folder. ``index.json`` is written last and atomically, so that it is either the old
one or the new one; every other file is written once, under the name of a part, and never changed.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from georetrieval.errors import IndexFileError

FORMAT = "georetrieval-index"
VERSION = 2
HEADER = "index.json"
PARTS = "parts"
CONFIDENCE = "confidence.json"
APPROXIMATE = "approximate.faiss"
AGAIN = "build the index again with --overwrite, which takes the vectors that are whole"
PART_ROWS = 8192
"""Tiles in a part at most: what a killed run embeds again."""

VECTORS, CODES, SCALES, IDS, POSITIONS = (
    "vectors.npy",
    "codes.npy",
    "scales.npy",
    "ids.json",
    "positions.npy",
)
PART_FILES = (VECTORS, CODES, SCALES, IDS, POSITIONS)


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Which model made the vectors, and how its queries have to be drawn.

    Attributes
    ----------
    checkpoints
        Hash of each branch's weights, in the order in which their vectors are joined.
    dimensions
        Numbers that each branch contributes to a vector.
    weight
        Of the panorama's similarity, 0 to 1.
    run
        Folder of the run, relative to the index.
    queries
        Settings of the shards that each branch was trained on: what `bevgen.settings_from_json`
        takes; empty where the shards do not say.
    north_up
        Whether the panorama branch saw panoramas whose centre column looks north.
    """

    checkpoints: dict[str, str]
    dimensions: dict[str, int]
    weight: float
    run: str
    queries: dict[str, dict[str, Any]]
    north_up: bool

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return sum(self.dimensions.values())

    @property
    def weights(self) -> dict[str, float]:
        """Share of each branch's similarity in a score; they sum to 1."""
        if len(self.checkpoints) == 1:
            return dict.fromkeys(self.checkpoints, 1.0)
        both = {"panorama": self.weight, "bev": 1 - self.weight}
        return {name: both[name] for name in self.checkpoints}

    def same_vectors(self, other: ModelKey) -> bool:
        """Whether both make the same vectors of the same tiles."""
        mine, others = replace(self, run=""), replace(other, run="")
        return mine == others


@dataclass(frozen=True, slots=True)
class Tiles:
    """What the reference tiles are: modality, pixels on a side, and metres per pixel if known."""

    kind: str
    size: int
    resolution: float | None

    @property
    def width(self) -> float | None:
        """Metres across; None where nobody said the resolution."""
        return None if self.resolution is None else self.size * self.resolution

    def __str__(self) -> str:
        scale = "an unknown scale" if self.resolution is None else f"{self.resolution:g} m a pixel"
        return f"{self.kind} tiles of {self.size} pixels at {scale}"


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of one reference file.

    Attributes
    ----------
    name
        Folder below ``parts``.
    rows
        How many tiles.
    references
        Shard file of the tiles, relative to the index.
    first_row
        Of the part in that file.
    tiles
        Digest of the tiles' ids and positions.
    pixels
        crc32 of the checksums that the shards hold of the tiles' pixels.
    checksums
        crc32 of each of `PART_FILES`.
    """

    name: str
    rows: int
    references: str
    first_row: int
    tiles: str
    pixels: int
    checksums: dict[str, int]


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """All that an index says about itself.

    ``approximate`` is the number of parts that the file for approximate search covers, 0 without
    such a file; ``removed`` are the rows that are no longer searched, counted over all parts.
    """

    model: ModelKey
    tiles: Tiles
    parts: tuple[Part, ...] = ()
    approximate: int = 0
    checksums: dict[str, int] = field(default_factory=dict)
    removed: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Tiles stored, removed ones included."""
        return sum(part.rows for part in self.parts)


def write_header(folder: Path, header: IndexHeader) -> None:
    """Write ``index.json``, whole or not at all."""
    content = {"format": FORMAT, "version": VERSION, **asdict(header)}
    content["crc32"] = json_checksum(content)
    write_bytes(folder / HEADER, (json.dumps(content, indent=1) + "\n").encode())


def read_header(folder: Path) -> IndexHeader:
    """Read ``index.json``.

    Raises
    ------
    IndexFileError
        If there is none, or it is damaged, or of a later version.
    """
    path = folder / HEADER
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if folder.exists():
            raise IndexFileError(
                f"{folder} is no finished index (it holds no {HEADER}): run the same"
                " `georetrieval index` again, or name another one"
            ) from None
        raise IndexFileError(
            f"{folder} does not exist: make an index with `georetrieval index`"
        ) from None
    except ValueError as error:
        raise IndexFileError(f"{path} is damaged ({error}): {AGAIN}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IndexFileError(f"{path} is no index of georetrieval")
    if content.get("version") != VERSION:
        raise IndexFileError(
            f"{path} is of version {content.get('version')}, and this release reads version"
            f" {VERSION}: build it again with --overwrite, or use the release that made it"
        )
    if content.pop("crc32", None) != json_checksum(content):
        raise IndexFileError(f"{path} is damaged or was edited: {AGAIN}")
    del content["format"], content["version"]
    content["model"], content["tiles"] = ModelKey(**content["model"]), Tiles(**content["tiles"])
    content["parts"] = tuple(Part(**part) for part in content["parts"])
    content["removed"] = tuple(content["removed"])
    return IndexHeader(**content)


def json_checksum(content: dict[str, Any]) -> int:
    """Return the crc32 of JSON values, in whichever order and lines they are written."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def part_folder(folder: Path, name: str) -> Path:
    """Return where a part lies."""
    return folder / PARTS / name


def file_checksum(path: Path) -> int:
    """Return the crc32 of a file's bytes, read a few megabytes at a time."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, on disk before it has its name."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_array(path: Path, array: np.ndarray) -> int:
    """Write an ``.npy`` file, on disk when this returns; return its checksum."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return file_checksum(path)


def remove_strays(folder: Path, keep: set[str]) -> None:
    """Delete folders of parts that no header names, and unfinished files."""
    for path in (folder / PARTS).glob("*"):
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)
