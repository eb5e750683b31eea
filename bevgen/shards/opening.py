"""Open finished shard files and read what they hold beside pixels; all damage is a ShardError."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import ShardError
from bevgen.shards.fileformat import (
    COLUMNS,
    FORMAT,
    PLAN_FILE,
    REDO,
    VERSION,
    Failure,
    Layout,
    ShardInputs,
    ShardSummary,
    Tables,
    crc32,
    decode,
    files_checksum,
    shard_folder,
    tables_checksum,
)
from bevgen.terminal import counted

_Number = TypeVar("_Number", bound=np.generic)
_BLOCK = 8 << 20  # bytes held in memory while summing


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
        with _open(path) as h5:
            _check_finished(h5, path)
            yield h5
    except FileNotFoundError as error:
        hint = ""
        if (shard_folder(path) / PLAN_FILE).exists():
            hint = "; the run that makes it has not finished: run the same command again"
        raise ShardError(f"{path}: there is no such file{hint}") from error
    except IsADirectoryError as error:
        raise ShardError(f"{path}: cannot be opened: it is a folder") from error
    except PermissionError as error:
        raise ShardError(f"{path}: cannot be opened: permission denied") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ShardError(
            f"{path}: not HDF5, truncated or damaged ({error}). If it was made by bevgen, {REDO}"
        ) from error


def _open(path: Path) -> h5py.File:
    # A finished file needs no lock: it is never written to again, only replaced; and some network
    # file systems cannot lock. But if this process has the file open already, HDF5 opens it once
    # more only with the same locking, so each way is tried.
    for locking in (None, False):
        try:
            return h5py.File(path, "r", locking=locking)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:
            continue
    return h5py.File(path, "r", locking=True)


def _check_finished(h5: h5py.File, path: Path) -> None:
    if "format" not in h5.attrs or text_attribute(h5, "format") != FORMAT:
        if path.suffix == ".part" or "images" in h5:
            raise ShardError(
                f"{path}: not a finished bevgen shard; run its command again to finish"
            )
        raise ShardError(f"{path}: HDF5, but not written by bevgen (no format {FORMAT!r})")
    version = number_attribute(h5, "version")
    if version > VERSION:
        raise ShardError(
            f"{path}: format version {version} is newer than this bevgen, which reads up to"
            f" {VERSION}: update bevgen"
        )
    if "complete" not in h5.attrs:
        raise ShardError(f"{path}: not complete; {REDO}")


def summarize(h5: h5py.File, path: Path) -> ShardSummary:
    """Return what the open file says about itself."""
    rows = dataset(h5, "ids").shape[0]
    if rows > status(h5).st_size:  # a damaged length must not become an allocation
        raise ShardError(f"{path}: damaged, it claims {counted(rows, 'row')}; {REDO}")
    files: tuple[str, ...] = ()
    if "files" in h5:
        files = tuple(read_text(h5, "files"))
        crc = files_checksum(files, numbers(h5, "first_row", np.int64))
        if crc != number_attribute(dataset(h5, "files"), "crc32"):
            raise ShardError(f"{path}: damaged: the list of its shards; {REDO}")
        shape = np.asarray(h5.attrs["image_shape"]).tolist()
    else:
        shape = dataset(h5, "images").shape[1:]
    height, width, channels = shape
    return ShardSummary(
        path=path,
        kind=text_attribute(h5, "kind"),
        image_shape=(height, width, channels),
        settings=json.loads(text_attribute(h5, "settings")),
        plan=text_attribute(h5, "plan"),
        rows=rows,
        failures=dataset(h5, "failures").shape[0],
        files=files,
    )


def dataset(h5: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of the file."""
    found = h5[name]
    if not isinstance(found, h5py.Dataset):
        raise TypeError(f"{name!r} is not a dataset")
    return found


def text_attribute(h5: h5py.File, name: str) -> str:
    """Return a root attribute that is a text."""
    found = h5.attrs[name]
    if not isinstance(found, bytes):
        raise TypeError(f"the attribute {name!r} is not a text of fixed length")
    return decode(found)


def number_attribute(holder: h5py.File | h5py.Dataset, name: str) -> int:
    """Return an attribute that is an integer."""
    return int(np.asarray(holder.attrs[name]).item())


def numbers(h5: h5py.File, name: str, kind: type[_Number]) -> NDArray[_Number]:
    """Return a dataset of numbers."""
    return np.asarray(dataset(h5, name)[...]).astype(kind, copy=False)


def read_text(h5: h5py.File, name: str) -> list[str]:
    """Return a dataset of texts."""
    return [decode(raw) for raw in dataset(h5, name)[...].tolist()]


def read_edges(h5: h5py.File, summary: ShardSummary) -> list[int]:
    """Return the first row of each shard of an index, and after them the number of rows."""
    edges = [*numbers(h5, "first_row", np.int64).tolist(), summary.rows]
    if len(edges) != len(summary.files) + 1 or edges != sorted(edges) or edges[0] != 0:
        raise ShardError(f"{summary.path}: damaged: 'first_row' does not fit 'files'; {REDO}")
    return edges


def read_tables(h5: h5py.File, summary: ShardSummary) -> Tables:
    """Return everything stored per row but pixels, checked against its checksum."""
    for name in ("ids", "sources", "date", "crc32", "fingerprints", *COLUMNS):
        shape = dataset(h5, name).shape
        if shape != (summary.rows,):
            raise ShardError(
                f"{summary.path}: {name!r} has the shape {shape}, not ({summary.rows},); {REDO}"
            )
    tables = Tables(
        ids=read_text(h5, "ids"),
        sources=read_text(h5, "sources"),
        dates=read_text(h5, "date"),
        crc32=numbers(h5, "crc32", np.uint32),
        fingerprints=numbers(h5, "fingerprints", np.uint64),
        columns={name: numbers(h5, name, np.float64) for name in COLUMNS},
        failures=tuple(
            Failure(decode(source), fingerprint, decode(reason))
            for source, fingerprint, reason in dataset(h5, "failures")[...].tolist()
        ),
    )
    kind, settings, plan = (text_attribute(h5, name) for name in ("kind", "settings", "plan"))
    if tables_checksum(kind, settings, plan, tables) != number_attribute(h5, "tables_crc32"):
        raise ShardError(
            f"{summary.path}: damaged or edited: its ids, sources, columns, failures or settings"
            f" are not what was written; {REDO}"
        )
    return tables


def read_layout(h5: h5py.File, summary: ShardSummary) -> Layout:
    """Return where the pixels lie.

    Raises
    ------
    ShardError
        If they do not lie in one piece inside the file, which a memory map needs.
    """
    shape = (summary.rows, *summary.image_shape)
    valid = dataset(h5, "valid") if "valid" in h5 else None
    valid_shape = None if valid is None else valid.shape
    if valid_shape not in (None, shape[1:3], shape[:3]):
        raise ShardError(
            f"{summary.path}: 'valid' has the shape {valid_shape}, not {shape[1:3]} or"
            f" {shape[:3]}; {REDO}"
        )
    return Layout(
        path=summary.path,
        rows=summary.rows,
        image_shape=summary.image_shape,
        images=_contiguous_offset(dataset(h5, "images"), shape, summary.path),
        valid=None if valid is None else _contiguous_offset(valid, valid.shape, summary.path),
        valid_each=valid_shape is not None and len(valid_shape) == 3,
        stamp=stamp(status(h5)),
    )


def wrong_masks(h5: h5py.File, layout: Layout) -> str | None:
    """Read all masks, and say so if they are not what was written."""
    if layout.valid is None:
        return None
    file, offset = h5.id.get_vfd_handle(), layout.valid
    count = layout.mask_bytes * (layout.rows if layout.valid_each else 1)
    crc = 0
    while count and (block := os.pread(file, min(count, _BLOCK), offset)):
        crc = crc32(block, crc)
        offset, count = offset + len(block), count - len(block)
    if crc == number_attribute(dataset(h5, "valid"), "crc32"):
        return None
    return f"{layout.path}: damaged: 'valid' is not what was written; {REDO}"


@contextmanager
def reopened(layout: Layout) -> Iterator[BinaryIO]:
    """Open a file for its pixels, or raise a `ShardError`: another has its name by now."""
    with layout.path.open("rb") as file:
        if stamp(os.fstat(file.fileno())) != layout.stamp:
            raise ShardError(f"{layout.path}: was replaced since it was opened: open it again")
        yield file


def status(h5: h5py.File) -> os.stat_result:
    """Return what the system says of an open file; another may have its name by now."""
    return os.fstat(h5.id.get_vfd_handle())


def stamp(found: os.stat_result) -> tuple[int, int, int]:
    """Return numbers that change when a file is replaced or rewritten."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def _contiguous_offset(found: h5py.Dataset, shape: tuple[int, ...], path: Path) -> int:
    """Return the byte offset of a uint8 dataset that lies in one piece; 0 if it is empty."""
    name = str(found.name).lstrip("/")
    if found.shape != shape or found.dtype != np.uint8:
        raise ShardError(
            f"{path}: {name!r} is {found.dtype}{list(found.shape)}, not uint8{list(shape)}; {REDO}"
        )
    if 0 in shape:
        return 0
    plist = found.id.get_create_plist()
    offset = found.id.get_offset()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count() or offset is None:
        raise ShardError(
            f"{path}: was repacked: {name!r} is chunked, compressed or stored elsewhere, so it"
            f" cannot be memory-mapped. Undo it with `h5repack -f NONE -l CONTI {path} NEW.h5`,"
            " or convert again"
        )
    if offset + found.size > status(found.file).st_size:
        raise ShardError(f"{path}: truncated: {name!r} ends beyond the file; {REDO}")
    return offset
