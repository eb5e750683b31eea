"""Make one portable file of an index and its shards."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import RefusedError, ShardError
from bevgen.locking import is_written, only_writer
from bevgen.shards.fileformat import (
    REDO,
    Layout,
    ShardHeader,
    ShardSummary,
    Tables,
    beside,
    check_disk,
    check_place,
    crc32,
    shard_folder,
)
from bevgen.shards.opening import (
    opened,
    read_edges,
    read_header,
    read_tables,
    reopened,
    summarize,
    wrong_masks,
)
from bevgen.shards.reader import shard_layout
from bevgen.shards.writer import (
    PART,
    allocate,
    copy_bytes,
    publish,
    room_for,
    seal,
    write_mask_per_row,
    write_shared_mask,
)
from bevgen.writing import write_errors


def merge(
    path: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy an output into one file with the same rows, all or nothing.

    Every image and mask is checked on its way; memory stays bounded. A single file is copied as
    it is.

    Parameters
    ----------
    path
        An index, or a file that holds its images itself.
    out
        The file to make; its name ends in .h5, and its folder exists.
    overwrite
        Replace ``out`` if it exists. An index, or a shard of one, is never replaced.
    on_progress
        Called with the rows done and their total.

    Raises
    ------
    InputError
        If ``out`` does not end in .h5.
    RefusedError
        If ``out`` exists and must not be overwritten, if it would disturb an index or its
        shards, if it or the input is being written, or if the disk has no room for it.
    ShardError
        If a shard is missing or damaged, or the input changed meanwhile.
    WriteError
        If the disk is full or fails.
    """
    path, out = Path(path), Path(out)
    check_place(out)
    summary = read_header(path)
    _check_output(summary, out, overwrite)
    if is_written(path):
        raise RefusedError(f"{path} is being written: merge it when that run has ended")
    with only_writer(out), write_errors(out):
        _check_output(summary, out, overwrite)  # again: another may have ended just before
        for stray in out.parent.glob(f"{glob.escape(out.name)}.*{PART}"):
            stray.unlink()  # of a merge that was killed
        _make(summary, out, on_progress)


def _state(summary: ShardSummary) -> list[tuple[int, ...]]:
    """Return what tells whether an output's files are still those that they were."""
    paths = [summary.path, *(summary.folder / name for name in summary.files)]
    found = [path.stat() if path.exists() else None for path in paths]
    return [(s.st_ino, s.st_size, s.st_mtime_ns) if s else () for s in found]


def _make(summary: ShardSummary, out: Path, on_progress: Callable[[int, int], None] | None) -> None:
    path, part = summary.path, beside(out, f".{os.getpid()}{PART}")
    before = _state(summary)
    try:
        if summary.files:
            _merge_into(part, path, out, on_progress)
        else:
            check_disk(out, path.stat().st_size)
            part.write_bytes(b"")
            copy_bytes(path, 0, part, 0, path.stat().st_size)
            if on_progress:
                on_progress(summary.rows, summary.rows)
        if _state(summary) != before:
            raise ShardError(f"{path} changed while it was merged: run the same command again")
        publish(part, out)
    finally:
        part.unlink(missing_ok=True)  # renamed by now, unless something failed


def _check_output(summary: ShardSummary, out: Path, overwrite: bool) -> None:
    """Refuse to destroy the input, or to part an index from its shards."""
    path = summary.path
    if out.exists() and out.samefile(path):
        raise RefusedError(f"{out} cannot be merged into itself: name another file")
    folder = out.absolute().parent
    own = {(summary.folder / name).parent.resolve() for name in summary.files}
    if folder.suffix == ".shards" or folder.resolve() in own:
        raise RefusedError(f"{out} lies in a folder of shards: name a file elsewhere")
    shards = shard_folder(out)
    if _is_index(out) or (shards.is_dir() and any(shards.iterdir())):
        raise RefusedError(f"{out} has a folder of shards, {shards.name}: name another file")
    if out.exists() and not overwrite:
        raise RefusedError(f"{out} exists: name another file, or add --overwrite")


def _is_index(out: Path) -> bool:
    try:
        return bool(read_header(out).files)
    except ShardError:  # not there, or nothing of ours
        return False


def _merge_into(
    part: Path, path: Path, out: Path, on_progress: Callable[[int, int], None] | None
) -> None:
    with opened(path) as h5:
        summary = summarize(h5, path)
        tables = read_tables(h5, summary)
        edges = read_edges(h5, summary)
    layouts = [
        shard_layout(summary, k, tables.crc32[edges[k] : edges[k + 1]])
        for k in range(len(summary.files))
    ]
    header = ShardHeader(summary.kind, summary.image_shape, summary.settings, summary.plan)
    masks = summary.rows if any(layout.valid is not None for layout in layouts) else 0
    images = sum(layout.rows * layout.image_bytes for layout in layouts)
    check_disk(out, images + masks * header.mask_bytes + 512 * summary.rows)
    for layout in layouts:
        _check_masks(layout)
    offset = allocate(part, summary.rows, summary.image_shape)
    done = 0
    for layout in layouts:
        _copy_images(layout, tables, done, part, offset)
        done += layout.rows
        if on_progress:
            on_progress(done, summary.rows)
    with room_for(part, tables, masks * header.mask_bytes) as h5:
        _write_masks(h5, [layout for layout in layouts if layout.rows], summary.rows)
        seal(h5, header, tables)


def _check_masks(layout: Layout) -> None:
    if layout.valid is not None:
        with opened(layout.path) as h5:
            if problem := wrong_masks(h5, layout):
                raise ShardError(problem)


def _copy_images(layout: Layout, tables: Tables, first: int, part: Path, offset: int) -> None:
    """Copy the images of one shard, whose first row is row ``first`` of the output."""
    size = layout.image_bytes
    with reopened(layout) as source, part.open("r+b", buffering=0) as target:
        for k in range(layout.rows):
            image = os.pread(source.fileno(), size, layout.images + k * size)
            if crc32(image) != tables.crc32[first + k]:
                raise ShardError(
                    f"{layout.path}: damaged: row {k} (id {tables.ids[first + k]!r}) is not what"
                    f" was written; {REDO}"
                )
            at = offset + (first + k) * size
            while image:
                done = os.pwrite(target.fileno(), image, at)
                image, at = image[done:], at + done


def _write_masks(h5: h5py.File, layouts: Sequence[Layout], rows: int) -> None:
    """Write ``valid`` in the shortest form that holds the masks of all shards."""
    if all(layout.valid is None for layout in layouts):
        return
    shared = [None if layout.valid_each else _mask(layout, 0) for layout in layouts]
    first = shared[0]
    if first is not None and all(m is not None and np.array_equal(first, m) for m in shared):
        write_shared_mask(h5, first)
    else:
        write_mask_per_row(h5, rows, _masks(layouts))


def _masks(layouts: Sequence[Layout]) -> Iterator[NDArray[np.uint8]]:
    for layout in layouts:
        for row in range(layout.rows):
            yield _mask(layout, row)


def _mask(layout: Layout, row: int) -> NDArray[np.uint8]:
    """Return the mask of one row, uint8 (height, width)."""
    shape = layout.image_shape[:2]
    if layout.valid is None:
        return np.ones(shape, dtype=np.uint8)
    start = layout.valid + (row * layout.mask_bytes if layout.valid_each else 0)
    with reopened(layout) as file:
        content = os.pread(file.fileno(), layout.mask_bytes, start)
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
