"""What a shard file holds: its names and its values.

Two rules shape it. ``images`` is one contiguous block, so that a pixel's place in the file is
known and h5py's global lock stays out of the hot path. The small tables beside it are ordinary
datasets, so that any HDF5 tool can show them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from isal.isal_zlib import crc32  # of the same polynomial as zlib's, and 3 times as fast
from numpy.typing import NDArray

from bevgen.errors import InputError, RefusedError
from bevgen.terminal import size_text

FORMAT = "bevgen-shards"
VERSION = 1
# Lies beside the shards of a run that has not finished.
PLAN_FILE = "plan.json"
COLUMNS = ("heading", "pitch", "roll", "height", "latitude", "longitude")

# HDF5 1.8 (2008) and later read this; unlike the older default, its metadata bear checksums.
LIBVER = ("v108", "v108")

REDO = "delete it and run the command that made it again, which makes only what is missing"


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What all rows of a shard have in common.

    Parameters
    ----------
    kind
        What the images are: "bev", "satellite", "map", "panorama" or "drone".
    image_shape
        (height, width, channels) of every image, in pixels.
    settings
        Everything that changes pixels, as values that JSON can hold.
    plan
        Hex digest of the planned inputs, opaque here.
    """

    kind: str
    image_shape: tuple[int, int, int]
    settings: Mapping[str, Any]
    plan: str

    @property
    def mask_bytes(self) -> int:
        """Bytes of one mask."""
        return self.image_shape[0] * self.image_shape[1]


@dataclass(frozen=True, slots=True)
class Row:
    """One finished image.

    Parameters
    ----------
    slot
        Where `PartialShard.write` put it, counted from 0.
    id
        Name that joins it with other views of the same place; unique in an output.
    source
        File it was made from.
    fingerprint
        Number below 2**64 that changes when the source does, opaque here.
    crc32, mask_crc32
        What `PartialShard.write` returned.
    columns
        Values for any of `COLUMNS`; NaN is stored for those missing.
    date
        Capture date, ISO 8601, or "" when unknown.
    """

    slot: int
    id: str
    source: str
    fingerprint: int
    crc32: int
    mask_crc32: int | None
    columns: Mapping[str, float]
    date: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that gave no image: its source, its fingerprint and the reason in words."""

    source: str
    fingerprint: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a finished file says about itself; see `ShardHeader`.

    ``rows`` and ``failures`` are counts; ``files`` are the shards that an index refers to,
    relative to `folder`, and empty for a file that holds its images itself.
    """

    path: Path
    kind: str
    image_shape: tuple[int, int, int]
    settings: dict[str, Any]
    plan: str
    rows: int
    failures: int
    files: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the shards lie: beside the index, or beside what it is a symbolic link to."""
        beside = self.path.parent
        linked = self.path.is_symlink() and not any((beside / name).exists() for name in self.files)
        return self.path.resolve().parent if linked else beside


class ShardInputs(NamedTuple):
    """What a finished file was made from: a source, id and fingerprint per row, and failures."""

    sources: list[str]
    ids: list[str]
    fingerprints: NDArray[np.uint64]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything stored per row but pixels, in row order."""

    ids: list[str]
    sources: list[str]
    dates: list[str]
    crc32: NDArray[np.uint32]
    fingerprints: NDArray[np.uint64]
    columns: dict[str, NDArray[np.float64]]
    failures: tuple[Failure, ...]

    def per_row(self) -> dict[str, Sequence[Any] | NDArray[Any]]:
        """Return all but the failures, by the name of the dataset, in the order of the checksum."""
        return {
            "ids": self.ids,
            "sources": self.sources,
            "date": self.dates,
            "crc32": self.crc32,
            "fingerprints": self.fingerprints,
            **self.columns,
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the pixels of one file lie: byte offsets of ``images`` and ``valid``.

    ``valid`` is None when every pixel of every row is visible; ``valid_each`` tells one mask per
    row from a single shared one. ``stamp`` tells whether the file was replaced later.
    """

    path: Path
    rows: int
    image_shape: tuple[int, int, int]
    images: int
    valid: int | None
    valid_each: bool
    stamp: tuple[int, int, int]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def mask_bytes(self) -> int:
        """Bytes of one mask."""
        return self.image_shape[0] * self.image_shape[1]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as they are stored: JSON with sorted keys and no spaces.

    Raises
    ------
    TypeError, ValueError
        If a value cannot be written as JSON, or is infinite or NaN.
    """
    return json.dumps(
        dict(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def shard_folder(path: Path | str) -> Path:
    """Return the folder of the shards that the index ``path`` refers to: bev.h5 -> bev.shards."""
    return Path(path).with_suffix(".shards")


def check_place(out: Path) -> None:
    """Refuse a name that cannot be an output's.

    Raises
    ------
    InputError
        If it does not end in .h5.
    RefusedError
        If it is a folder, or lies in none.
    """
    if out.is_dir():
        raise RefusedError(f"{out} is a folder: name a file, such as {out / 'bev.h5'}")
    if out.suffix != ".h5":  # so that no two outputs share a folder of shards
        raise InputError(f"{out}: the output's name must end in .h5, such as {out}.h5")
    if not out.absolute().parent.is_dir():
        raise RefusedError(f"the folder of {out} does not exist: create it first")


def check_disk(out: Path, needed: int, freed: int = 0) -> None:
    """Refuse to begin a file that its disk has no room for.

    Parameters
    ----------
    out
        The file.
    needed
        Its bytes.
    freed
        Bytes that will be freed before it is written.

    Raises
    ------
    RefusedError
    """
    free = shutil.disk_usage(out.absolute().parent).free + freed
    if needed > free:
        raise RefusedError(
            f"{out} needs {size_text(needed)} and the disk has {size_text(free)} free: free"
            " some, name an output on another disk, or make images of a smaller --size"
        )


def beside(path: Path, suffix: str) -> Path:
    """Return ``path`` with ``suffix`` appended: bev.h5 -> bev.h5.part."""
    return path.with_name(path.name + suffix)


def tables_checksum(kind: str, settings: str, plan: str, tables: Tables) -> int:
    """Return the crc32 of all that a file holds besides pixels, in the order of the arguments.

    Texts count as their bytes and a NUL, numbers as they are stored, the parts of a failure as
    texts.
    """
    crc = _crc_of_texts((kind, settings, plan), 0)
    for values in tables.per_row().values():
        if isinstance(values, np.ndarray):
            crc = crc32(np.ascontiguousarray(values).data, crc)
        else:
            crc = _crc_of_texts(values, crc)
    for failure in tables.failures:
        crc = _crc_of_texts((failure.source, str(failure.fingerprint), failure.reason), crc)
    return crc


def files_checksum(files: Sequence[str], first_row: NDArray[np.int64]) -> int:
    """Return the crc32 of what an index says about its shards: their names, then their rows."""
    return crc32(first_row.tobytes(), _crc_of_texts(files, 0))


def _crc_of_texts(texts: Sequence[str], crc: int) -> int:
    return crc32(b"".join(encode(text) + b"\0" for text in texts), crc)


def encode(text: str) -> bytes:
    """Return the stored bytes of a text: utf-8, file names that are not utf-8 as they are."""
    if "\0" in text:
        raise ValueError(f"a text in a shard cannot contain NUL: {text!r}")
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """Return the text of stored bytes."""
    return raw.decode("utf-8", "surrogateescape")
