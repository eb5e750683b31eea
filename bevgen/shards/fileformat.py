"""What a shard file holds: its names, its values, and how they are read back and checked.

Everything else about HDF5 follows from two rules. ``images`` is one contiguous block, so that a
pixel's place in the file is known and h5py's global lock stays out of the hot path. The small
tables beside it are ordinary datasets, so that any HDF5 tool can show them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import ShardError

FORMAT = "bevgen-shards"
VERSION = 1
COLUMNS = ("heading", "pitch", "roll", "height", "latitude", "longitude")
TEXT = h5py.string_dtype("utf-8")
FAILURE_TYPE = np.dtype([("source", TEXT), ("fingerprint", "<u8"), ("reason", TEXT)])

# HDF5 1.8 (2008) and later read this; unlike the older default, its metadata bear checksums.
LIBVER = ("v108", "v108")

REDO = (
    "delete it (and, if it is one of several shards, the index beside their folder) and run the"
    " command that made it again: finished shards are kept"
)


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What all rows of a shard have in common.

    Parameters
    ----------
    kind
        What the images are: "bev", "satellite", "map" or "panorama".
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
    relative to its folder, and empty for a file that holds its images itself.
    """

    path: Path
    kind: str
    image_shape: tuple[int, int, int]
    settings: dict[str, Any]
    plan: str
    rows: int
    failures: int
    files: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the pixels of one file lie: byte offsets of ``images`` and ``valid``.

    ``valid`` is None when every pixel of every row is visible; ``valid_each`` tells one mask per
    row from a single shared one.
    """

    path: Path
    rows: int
    image_shape: tuple[int, int, int]
    images: int
    valid: int | None
    valid_each: bool

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


def beside(path: Path, suffix: str) -> Path:
    """Return ``path`` with ``suffix`` appended: bev.h5 -> bev.h5.part."""
    return path.with_name(path.name + suffix)


def read_header(path: Path | str) -> ShardSummary:
    """Return what a finished shard or index says about itself, without reading its rows.

    Raises
    ------
    ShardError
        If the file is missing, incomplete, damaged or not one of ours.
    """
    with opened(path) as h5:
        return summarize(h5, Path(path))


def read_inputs(path: Path | str) -> ShardInputs:
    """Return what a finished shard or index was made from, for comparison with a new plan.

    Raises
    ------
    ShardError
        If the file is missing, incomplete, damaged or not one of ours.
    """
    with opened(path) as h5:
        tables = read_tables(h5, summarize(h5, Path(path)))
    return ShardInputs(tables.sources, tables.ids, tables.fingerprints, tables.failures)


@contextmanager
def opened(path: Path | str) -> Iterator[h5py.File]:
    """Open a finished file of ours; whatever HDF5 finds wrong in the block is a `ShardError`."""
    path = Path(path)
    try:
        # Without a lock, so that read-only media and network file systems work; a finished file
        # is never written to again, only replaced.
        with h5py.File(path, "r", locking=False) as h5:
            _check_finished(h5, path)
            yield h5
    except FileNotFoundError as error:
        raise ShardError(f"{path}: there is no such file") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ShardError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ShardError(
            f"{path}: not HDF5, truncated or damaged ({error}). If it was made by bevgen, {REDO}"
        ) from error


def _check_finished(h5: h5py.File, path: Path) -> None:
    if h5.attrs.get("format") != FORMAT:
        if path.suffix == ".part" or "images" in h5:
            raise ShardError(f"{path}: not a finished bevgen shard; run its command again to finish")
        raise ShardError(f"{path}: HDF5, but not written by bevgen (no format {FORMAT!r})")
    version = int(h5.attrs["version"])
    if version > VERSION:
        raise ShardError(
            f"{path}: format version {version} is newer than this bevgen, which reads up to"
            f" {VERSION}: update bevgen"
        )
    if h5.attrs.get("complete", 0) != 1:
        raise ShardError(f"{path}: not complete; {REDO}")


def summarize(h5: h5py.File, path: Path) -> ShardSummary:
    """Return what the open file says about itself."""
    rows = h5["ids"].shape[0]
    if rows > path.stat().st_size:  # a damaged length must not become an allocation
        raise ShardError(f"{path}: damaged, it claims {rows} rows; {REDO}")
    files: tuple[str, ...] = ()
    if "files" in h5:
        files = tuple(_read_text(h5["files"]))
        shape = h5.attrs["image_shape"]
    else:
        shape = h5["images"].shape[1:]
    height, width, channels = (int(n) for n in shape)
    return ShardSummary(
        path=path,
        kind=str(h5.attrs["kind"]),
        image_shape=(height, width, channels),
        settings=json.loads(h5.attrs["settings"]),
        plan=str(h5.attrs["plan"]),
        rows=rows,
        failures=h5["failures"].shape[0],
        files=files,
    )


def read_tables(h5: h5py.File, summary: ShardSummary) -> Tables:
    """Return everything stored per row but pixels."""
    names = ("ids", "sources", "date", "crc32", "fingerprints", *COLUMNS)
    for name in names:
        if h5[name].shape != (summary.rows,):
            raise ShardError(
                f"{summary.path}: {name!r} has the shape {h5[name].shape}, not"
                f" ({summary.rows},); {REDO}"
            )
    failures = h5["failures"][...]
    return Tables(
        ids=_read_text(h5["ids"]),
        sources=_read_text(h5["sources"]),
        dates=_read_text(h5["date"]),
        crc32=h5["crc32"][...].astype("<u4", copy=False),
        fingerprints=h5["fingerprints"][...].astype("<u8", copy=False),
        columns={name: h5[name][...].astype("<f8", copy=False) for name in COLUMNS},
        failures=tuple(
            Failure(_decode(row["source"]), int(row["fingerprint"]), _decode(row["reason"]))
            for row in failures
        ),
    )


def read_layout(h5: h5py.File, summary: ShardSummary) -> Layout:
    """Return where the pixels lie.

    Raises
    ------
    ShardError
        If they do not lie in one piece inside the file, which a memory map needs.
    """
    shape = (summary.rows, *summary.image_shape)
    valid_shape = h5["valid"].shape if "valid" in h5 else None
    if valid_shape not in (None, shape[1:3], shape[:3]):
        raise ShardError(
            f"{summary.path}: 'valid' has the shape {valid_shape}, not {shape[1:3]} or"
            f" {shape[:3]}; {REDO}"
        )
    return Layout(
        path=summary.path,
        rows=summary.rows,
        image_shape=summary.image_shape,
        images=_contiguous_offset(h5["images"], shape, summary.path),
        valid=None
        if valid_shape is None
        else _contiguous_offset(h5["valid"], valid_shape, summary.path),
        valid_each=valid_shape is not None and len(valid_shape) == 3,
    )


def _contiguous_offset(dataset: h5py.Dataset, shape: tuple[int, ...], path: Path) -> int:
    """Return the byte offset of a uint8 dataset that lies in one piece; 0 if it is empty."""
    name = str(dataset.name).lstrip("/")
    if dataset.shape != shape or dataset.dtype != np.uint8:
        raise ShardError(
            f"{path}: {name!r} is {dataset.dtype}{list(dataset.shape)}, not uint8{list(shape)};"
            f" {REDO}"
        )
    if 0 in shape:
        return 0
    plist = dataset.id.get_create_plist()
    offset = dataset.id.get_offset()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count() or offset is None:
        raise ShardError(
            f"{path}: was repacked: {name!r} is chunked, compressed or stored elsewhere, so it"
            f" cannot be memory-mapped. Undo it with `h5repack -f NONE -l CONTI {path} NEW.h5`,"
            " or convert again"
        )
    if offset + dataset.size > path.stat().st_size:
        raise ShardError(f"{path}: truncated: {name!r} ends beyond the file; {REDO}")
    return offset


def tables_checksum(
    kind: str, settings: str, plan: str, tables: Tables, crc: int = 0
) -> int:
    """Return the crc32 of all that a file holds besides pixels; docs/shard-format.md has the order."""
    for texts in ([kind, settings, plan], tables.ids, tables.sources, tables.dates):
        crc = zlib.crc32(b"".join(encode(text) + b"\0" for text in texts), crc)
    for values in (tables.crc32, tables.fingerprints, *tables.columns.values()):
        crc = zlib.crc32(np.ascontiguousarray(values), crc)
    for failure in tables.failures:
        line = f"{failure.source}\0{failure.fingerprint}\0{failure.reason}\0"
        crc = zlib.crc32(encode(line), crc)
    return crc


def encode(text: str) -> bytes:
    """Return the stored bytes of a text: utf-8, file names that are not utf-8 as they are."""
    return text.encode("utf-8", "surrogateescape")


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _read_text(dataset: h5py.Dataset) -> list[str]:
    return [_decode(raw) for raw in dataset[...]]
