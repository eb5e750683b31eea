"""Write shards: a `.part` file filled by pwrite, completed, synced and only then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import ShardError
from bevgen.shards.fileformat import (
    COLUMNS,
    FORMAT,
    LIBVER,
    VERSION,
    Failure,
    Row,
    ShardHeader,
    Tables,
    beside,
    crc32,
    encode,
    files_checksum,
    settings_text,
    shard_folder,
    tables_checksum,
)
from bevgen.shards.opening import opened, read_tables, summarize
from bevgen.terminal import counted

PART, VALID, EXACT = ".part", ".valid", ".exact"
PARTS = (PART, PART + VALID, PART + EXACT)
_BLOCK = 8 << 20  # bytes held in memory while copying, and given to the disk at once
_METADATA = 1 << 16  # bytes that HDF5 needs at most besides the content of tables


@dataclass(frozen=True, slots=True)
class PartialShard:
    """A shard being filled: any thread or process may write any slot, also at the same time.

    Parameters
    ----------
    path
        The file that `finish_shard` makes.
    part
        The file that is filled until then; masks lie beside it.
    slots
        Number of images planned.
    header
        What all rows have in common.
    images_offset
        Byte offset of slot 0 in ``part``.
    """

    path: Path
    part: Path
    slots: int
    header: ShardHeader
    images_offset: int

    def write(
        self, slot: int, image: NDArray[np.uint8], valid: NDArray[np.bool_] | None
    ) -> tuple[int, int | None]:
        """Write one image, and its mask unless every pixel is visible.

        Parameters
        ----------
        slot
            0 to ``slots - 1``; a second write replaces the first.
        image
            uint8 (height, width, channels).
        valid
            bool (height, width), False where the panorama shows nothing; None for all True.

        Returns
        -------
        tuple
            crc32 of the image, and that of the mask or None: what a `Row` takes.

        Raises
        ------
        ValueError
            If the slot, a shape or a type does not fit.
        OSError
            If the disk is full or fails.
        """
        shape = self.header.image_shape
        if not 0 <= slot < self.slots:
            raise ValueError(f"{self.path}: slot {slot} is not one of its {self.slots}")
        if image.shape != tuple(shape) or image.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: expected a uint8 image of {shape}, got {image.dtype} of"
                f" {image.shape}"
            )
        if valid is not None and (valid.shape != shape[:2] or valid.dtype != np.bool_):
            raise ValueError(
                f"{self.path}: expected a bool mask of {shape[:2]}, got {valid.dtype} of"
                f" {valid.shape}"
            )
        pixels = np.ascontiguousarray(image)
        _write_at(self.part, pixels, self.images_offset + slot * pixels.nbytes, create=False)
        if valid is None or valid.all():
            return crc32(pixels.data), None
        mask = np.ascontiguousarray(valid).view(np.uint8)
        _write_at(beside(self.part, VALID), mask, slot * mask.nbytes, create=True)
        return crc32(pixels.data), crc32(mask.data)


def begin_shard(path: Path, slots: int, header: ShardHeader, *, attempt: str = "") -> PartialShard:
    """Create a file with room for the planned images, in place of any stale one.

    The folder is made if need be. Blocks of the disk are taken as slots are written.

    Parameters
    ----------
    path
        The file that `finish_shard` makes.
    slots
        Number of images planned.
    header
        What all rows have in common.
    attempt
        What tells this attempt from others that may still be writing the same shard, such as a
        worker of a cluster that was given up. The file that is filled is ``path + ".part"``, or
        ``path + ".attempt.part"``.

    Raises
    ------
    ValueError, TypeError
        If there is no slot, or the settings cannot be stored as JSON.
    OSError
        If the file cannot be made.
    """
    path = Path(path)
    if slots < 1:
        raise ValueError(f"{path}: a shard needs at least one slot, not {slots}")
    settings_text(header.settings)  # better refused now than after hours of work
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path, f".{attempt}{PART}" if attempt else PART)
    _remove_sides(part)
    return PartialShard(path, part, slots, header, allocate(part, slots, header.image_shape))


def finish_shard(partial: PartialShard, rows: Sequence[Row], failures: Sequence[Failure]) -> None:
    """Turn a filled ``.part`` into the finished file, all or nothing.

    Parameters
    ----------
    partial
        What `begin_shard` returned.
    rows
        The images that were made, in slot order. If some slots are missing, the others are
        copied into a file of the exact length. May be empty.
    failures
        The inputs that gave none.

    Raises
    ------
    ValueError
        If slots are out of order or range, or a row has an unknown column.
    OSError
        If the disk is full or fails.
    """
    slots = [row.slot for row in rows]
    if any(a >= b for a, b in pairwise([-1, *slots, partial.slots])):
        raise ValueError(f"{partial.path}: rows must be in slot order, below {partial.slots}")
    tables = _tables(rows, failures)
    part = partial.part
    if len(rows) < partial.slots:
        part = _exact_copy(partial, slots)
    masks = len(rows) if any(row.mask_crc32 is not None for row in rows) else 0
    with room_for(part, tables, masks * partial.header.mask_bytes) as h5:
        _write_masks(h5, partial, rows)
        seal(h5, partial.header, tables)
    publish(part, partial.path)
    _remove_sides(partial.part)


def write_index(path: Path, files: Sequence[Path], settings: Mapping[str, Any], plan: str) -> None:
    """Write the file that makes one output of many finished shards; its presence means complete.

    Parameters
    ----------
    path
        The index, such as "bev.h5".
    files
        Its shards in row order, all in ``shard_folder(path)``.
    settings
        As in each shard's header.
    plan
        Digest of the inputs of all shards.

    Raises
    ------
    ShardError
        If a shard is missing, damaged, or of another kind, shape or settings.
    ValueError
        If there is no shard, or one lies elsewhere.
    OSError
        If the disk is full or fails.
    """
    path = Path(path)
    if not files:
        raise ValueError(f"{path}: an index needs at least one shard")
    parts: list[Tables] = []
    headers: list[ShardHeader] = []
    for file in files:
        if file.parent != shard_folder(path):
            raise ValueError(f"{file}: the shards of {path} belong into {shard_folder(path)}")
        with opened(file) as h5:
            summary = summarize(h5, file)
            parts.append(read_tables(h5, summary))
        headers.append(ShardHeader(summary.kind, summary.image_shape, settings, plan))
        same_settings = settings_text(summary.settings) == settings_text(settings)
        if headers[-1] != headers[0] or not same_settings:
            raise ShardError(
                f"{file}: its kind, image size or settings are not those of the other shards of"
                f" {path}; delete it and run the command again"
            )
    part = beside(path, PART)
    part.unlink(missing_ok=True)
    h5py.File(part, "w", libver=LIBVER, locking=False).close()
    names = [f"{file.parent.name}/{file.name}" for file in files]
    whole = _joined(parts)
    with room_for(part, whole, len(files) * (4 * len(encode(names[0])) + 256)) as h5:
        _write_links(h5, names, [len(tables.ids) for tables in parts])
        h5.attrs["image_shape"] = np.array(headers[0].image_shape, dtype="<i8")
        seal(h5, headers[0], whole)
    publish(part, path)


def allocate(path: Path, count: int, image_shape: tuple[int, int, int]) -> int:
    """Create a file whose ``images`` has its place but no content; return its byte offset."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # the offset exists before the pixels
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # equal inputs make equal files
    with h5py.File(path, "w", libver=LIBVER, locking=False) as h5:
        space = h5py.h5s.create_simple((count, *image_shape))
        images = h5py.h5d.create(h5.id, b"images", h5py.h5t.STD_U8LE, space, plist)
        return images.get_offset() or 0


@contextmanager
def room_for(part: Path, tables: Tables, more: int) -> Iterator[h5py.File]:
    """Open a file to add tables and ``more`` bytes, on disk space that is taken before.

    HDF5 may end the process where a disk is full. What it does not need it cuts off on closing.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    sources, reasons = ([getattr(f, n) for f in tables.failures] for n in ("source", "reason"))
    room = _METADATA + more + 64 * len(tables.ids) + 8 * len(reasons)
    for texts in (tables.ids, tables.sources, tables.dates, sources, reasons):
        room += len(texts) * (1 + max((len(encode(text)) for text in texts), default=0))
    file = os.open(part, os.O_WRONLY)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, os.fstat(file).st_size, room)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every file system can
            raise
    finally:
        os.close(file)
    with h5py.File(part, "r+", libver=LIBVER, locking=False) as h5:
        yield h5


def seal(h5: h5py.File, header: ShardHeader, tables: Tables) -> None:
    """Write tables and attributes, ``complete`` last."""
    _write_text(h5, "ids", tables.ids)
    _write_text(h5, "sources", tables.sources)
    _write_text(h5, "date", tables.dates)
    h5["crc32"] = tables.crc32
    h5["fingerprints"] = tables.fingerprints
    for name, values in tables.columns.items():
        h5[name] = values
    _write_failures(h5, tables.failures)
    settings = settings_text(header.settings)
    texts = {"format": FORMAT, "kind": header.kind, "settings": settings, "plan": header.plan}
    for name, text in texts.items():
        kind = _text_type([encode(text)])
        h5.attrs.create(name, np.array(encode(text), dtype=kind.dtype), dtype=kind)
    h5.attrs["version"] = VERSION
    h5.attrs["tables_crc32"] = np.uint32(
        tables_checksum(header.kind, settings, header.plan, tables)
    )
    h5.flush()
    h5.attrs["complete"] = 1


def write_mask_per_row(h5: h5py.File, count: int, masks: Iterator[NDArray[np.uint8]]) -> None:
    """Write ``valid`` (count, height, width) with one mask in memory at a time."""
    crc = 0
    first = next(masks)
    valid = h5.create_dataset("valid", (count, *first.shape), dtype=np.uint8)
    for row, mask in enumerate(chain([first], masks)):
        valid[row] = mask
        crc = crc32(mask.data, crc)
    valid.attrs["crc32"] = np.uint32(crc)


def write_shared_mask(h5: h5py.File, mask: NDArray[np.uint8]) -> None:
    """Write the ``valid`` (height, width) of all rows."""
    valid = h5.create_dataset("valid", data=mask)
    valid.attrs["crc32"] = np.uint32(crc32(mask.data))


def publish(part: Path, path: Path) -> None:
    """Give a complete file its name, in such an order that a power cut leaves all or nothing."""
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def copy_bytes(source: Path, start: int, target: Path, at: int, count: int) -> None:
    """Copy ``count`` bytes between files, a few MB at a time."""
    inside, outside = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY)
    try:
        while count:
            block = os.pread(inside, min(count, _BLOCK), start)
            if not block:
                raise ShardError(f"{source}: truncated, {counted(count, 'byte')} missing")
            done = os.pwrite(outside, block, at)
            start, at, count = start + done, at + done, count - done
    finally:
        os.close(inside)
        os.close(outside)


def _write_at(path: Path, data: NDArray[np.uint8], offset: int, *, create: bool) -> None:
    view, first = data.data.cast("B"), offset // _BLOCK
    file = os.open(path, os.O_WRONLY | (os.O_CREAT if create else 0), 0o666)
    try:
        while view:
            done = os.pwrite(file, view, offset)
            view, offset = view[done:], offset + done
        if offset // _BLOCK > first:
            _begin_sync(file, first * _BLOCK, offset)
    finally:
        os.close(file)


def _begin_sync(file: int, start: int, stop: int) -> None:
    """Have the disk begin to write what has just been filled, so that syncing waits for less.

    That is what Linux does first when told that bytes will not be needed; what it is still writing
    it keeps in memory.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # nothing depends on it
            os.posix_fadvise(file, start, stop - start, os.POSIX_FADV_DONTNEED)


def _exact_copy(partial: PartialShard, slots: Sequence[int]) -> Path:
    target = beside(partial.part, EXACT)
    offset = allocate(target, len(slots), partial.header.image_shape)
    size = int(np.prod(partial.header.image_shape))
    source = partial.part
    for row, slot in enumerate(slots):
        copy_bytes(source, partial.images_offset + slot * size, target, offset + row * size, size)
    return target


def _write_masks(h5: h5py.File, partial: PartialShard, rows: Sequence[Row]) -> None:
    """Write ``valid`` in its shortest form: nothing, one mask for all rows, or one for each."""
    if all(row.mask_crc32 is None for row in rows):
        return
    shape = partial.header.image_shape[:2]
    size = shape[0] * shape[1]
    with beside(partial.part, VALID).open("rb") as file:

        def mask(row: Row) -> NDArray[np.uint8]:
            if row.mask_crc32 is None:
                return np.ones(shape, dtype=np.uint8)
            content = os.pread(file.fileno(), size, row.slot * size)
            return np.frombuffer(content, dtype=np.uint8).reshape(shape)

        first = mask(rows[0])
        same = len({row.mask_crc32 for row in rows}) == 1
        if same and all(np.array_equal(mask(row), first) for row in rows):
            write_shared_mask(h5, first)
        else:
            write_mask_per_row(h5, len(rows), (mask(row) for row in rows))


def _tables(rows: Sequence[Row], failures: Sequence[Failure]) -> Tables:
    for row in rows:
        if unknown := set(row.columns) - set(COLUMNS):
            raise ValueError(f"{row.source}: unknown columns {sorted(unknown)}; known: {COLUMNS}")
    return Tables(
        ids=[row.id for row in rows],
        sources=[row.source for row in rows],
        dates=[row.date for row in rows],
        crc32=np.array([row.crc32 for row in rows], dtype="<u4"),
        fingerprints=np.array([row.fingerprint for row in rows], dtype="<u8"),
        columns={
            name: np.array([row.columns.get(name, np.nan) for row in rows], dtype="<f8")
            for name in COLUMNS
        },
        # HDF5 strings end at the first NUL, which the message of a foreign error may contain.
        failures=tuple(
            Failure(f.source, f.fingerprint, f.reason.replace("\0", "\ufffd")) for f in failures
        ),
    )


def _write_links(h5: h5py.File, names: Sequence[str], counts: Sequence[int]) -> None:
    """Write which shards an index has, and the row at which each begins."""
    first_row = np.cumsum([0, *counts])[:-1].astype("<i8")
    h5["first_row"] = first_row
    files = _write_text(h5, "files", names)
    files.attrs["crc32"] = np.uint32(files_checksum(names, first_row))
    plist = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    plist.set_obj_track_times(False)
    shards = h5py.Group(h5py.h5g.create(h5.id, b"shards", gcpl=plist))
    for k, name in enumerate(names):
        shards[f"{k:05d}"] = h5py.ExternalLink(name, "/")


def _joined(parts: Sequence[Tables]) -> Tables:
    return Tables(
        ids=[text for part in parts for text in part.ids],
        sources=[text for part in parts for text in part.sources],
        dates=[text for part in parts for text in part.dates],
        crc32=np.concatenate([part.crc32 for part in parts]),
        fingerprints=np.concatenate([part.fingerprints for part in parts]),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS},
        failures=tuple(failure for part in parts for failure in part.failures),
    )


def _text_type(texts: Sequence[bytes]) -> h5py.Datatype:
    """Return the HDF5 type that holds the longest of the texts.

    Its length is fixed, since HDF5 keeps texts of varying length in a heap without checksums,
    and reading a damaged heap can go on for ever.
    """
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(map(len, texts), default=0) + 1)
    kind.set_cset(h5py.h5t.CSET_UTF8)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)  # h5dump prints the padding of any other
    return h5py.Datatype(kind)


def _write_text(h5: h5py.File, name: str, texts: Sequence[str]) -> h5py.Dataset:
    raw = [encode(text) for text in texts]
    kind = _text_type(raw)
    return h5.create_dataset(name, data=np.array(raw, dtype=kind.dtype), dtype=kind)


def _write_failures(h5: h5py.File, failures: Sequence[Failure]) -> None:
    raw = [(encode(f.source), f.fingerprint, encode(f.reason)) for f in failures]
    members = {
        b"source": _text_type([row[0] for row in raw]).id,
        b"fingerprint": h5py.h5t.STD_U64LE,
        b"reason": _text_type([row[2] for row in raw]).id,
    }
    compound = h5py.h5t.create(
        h5py.h5t.COMPOUND, sum(member.get_size() for member in members.values())
    )
    offset = 0
    for name, member in members.items():
        compound.insert(name, offset, member)
        offset += member.get_size()
    kind = h5py.Datatype(compound)
    h5.create_dataset("failures", data=np.array(raw, dtype=kind.dtype), dtype=kind)


def _remove_sides(part: Path) -> None:
    for suffix in ("", VALID, EXACT):
        beside(part, suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
