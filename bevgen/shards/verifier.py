"""Check every byte of an output against what was recorded when it was written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from bevgen.errors import ShardError
from bevgen.shards.fileformat import (
    REDO,
    Layout,
    ShardSummary,
    Tables,
    crc32,
    shard_folder,
)
from bevgen.shards.opening import (
    opened,
    read_edges,
    read_layout,
    read_tables,
    reopened,
    summarize,
    wrong_masks,
)
from bevgen.shards.reader import contradiction
from bevgen.shards.writer import PARTS
from bevgen.terminal import counted

_RIGHT_ONE = f"put the right one back, or {REDO}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` looked at, and what it found: a sentence per problem, none if all is well."""

    rows: int
    shards: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Content:
    """One file, read in full but for its pixels."""

    summary: ShardSummary
    tables: Tables
    problems: tuple[str, ...]


def verify(
    path: Path | str, *, on_progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check a finished output: every image, mask, id, column and shard.

    Damage is reported, not raised. Files are read, not mapped, so that a failing disk is an entry
    in the report too.

    Parameters
    ----------
    path
        An index, or a file that holds its images itself.
    on_progress
        Called with the rows checked and their total.
    """
    path = Path(path)
    progress = on_progress or (lambda done, total: None)
    try:
        with opened(path) as h5:
            content = _read(h5, path)
            edges = [0, content.summary.rows]
            layout = None
            if content.summary.files:
                edges = read_edges(h5, content.summary)
            else:
                layout = read_layout(h5, content.summary)
    except ShardError as error:
        return VerifyReport(0, 0, (str(error),))
    rows = content.summary.rows
    problems = [*content.problems, *_repeated_ids(path, content.tables)]
    if layout is not None:
        problems += _wrong_pixels(layout, content.tables, 0, rows, progress)
    else:
        for k in range(len(content.summary.files)):
            problems += _wrong_shard(content, k, edges[k], edges[k + 1], progress)
            progress(edges[k + 1], rows)
    problems += _strays(path, content.summary)
    return VerifyReport(rows, len(content.summary.files) or 1, tuple(problems))


def _read(h5: h5py.File, path: Path) -> _Content:
    """Read and check all of an open file but its images."""
    summary = summarize(h5, path)
    tables = read_tables(h5, summary)
    problems: list[str] = []
    if "valid" in h5 and (problem := wrong_masks(h5, read_layout(h5, summary))):
        problems.append(problem)
    return _Content(summary, tables, tuple(problems))


def _wrong_shard(
    index: _Content, k: int, start: int, stop: int, progress: Callable[[int, int], None]
) -> Iterator[str]:
    """Say what is wrong with shard ``k``, which should hold the rows from start to stop."""
    path = index.summary.folder / index.summary.files[k]
    if not path.exists():
        yield (
            f"{path}: missing, with {counted(stop - start, 'row')}; put it back, or run the command"
            " that made it again, which makes only what is missing"
        )
        return
    try:
        with opened(path) as h5:
            shard = _read(h5, path)
            layout = read_layout(h5, shard.summary)
    except ShardError as error:
        yield str(error)
        return
    yield from shard.problems
    if difference := contradiction(index.summary, shard.summary):
        yield f"{path}: does not belong to {index.summary.path}: {difference}; {_RIGHT_ONE}"
        return
    if layout.rows != stop - start:
        yield (
            f"{path}: does not belong to {index.summary.path}: it has"
            f" {counted(layout.rows, 'row')}, not {stop - start}; {_RIGHT_ONE}"
        )
    else:
        yield from _different_rows(index, shard, start)
    yield from _wrong_pixels(layout, shard.tables, start, index.summary.rows, progress)


def _different_rows(index: _Content, shard: _Content, start: int) -> Iterator[str]:
    """Say in which tables the rows of a shard are not those of its index."""
    path, count = shard.summary.path, shard.summary.rows
    theirs = index.tables.per_row()
    for name, ours in shard.tables.per_row().items():
        pairs = zip(ours, theirs[name][start : start + count], strict=True)
        # Unequal, unless both are NaN: only NaN differs from itself.
        rows = [k for k, (a, b) in enumerate(pairs) if a != b and (a == a or b == b)]
        if rows:
            yield (
                f"{path}: not the shard that {index.summary.path} was written for: {name!r} of"
                f" {counted(len(rows), 'row differs', 'rows differ')}, first in row {rows[0]} (id"
                f" {shard.tables.ids[rows[0]]!r}; row {start + rows[0]} of the index, id"
                f" {index.tables.ids[start + rows[0]]!r}); {_RIGHT_ONE}"
            )
    known = set(index.tables.failures)
    for failure in shard.tables.failures:
        if failure not in known:
            yield f"{path}: {index.summary.path} does not list its failure {failure.source!r}"


def _wrong_pixels(
    layout: Layout, tables: Tables, start: int, total: int, progress: Callable[[int, int], None]
) -> Iterator[str]:
    """Name the images that are not what was written; ``start`` is the first row in the output."""
    try:
        with reopened(layout) as file:
            for row in range(layout.rows):
                at = layout.images + row * layout.image_bytes
                image = os.pread(file.fileno(), layout.image_bytes, at)
                if crc32(image) != tables.crc32[row]:
                    yield (
                        f"{layout.path}: damaged: the image of row {row} (id {tables.ids[row]!r})"
                        f" is not what was written; {REDO}"
                    )
                if row % 64 == 63 or row + 1 == layout.rows:
                    progress(start + row + 1, total)
    except ShardError as error:
        yield str(error)
    except OSError as error:
        yield f"{layout.path}: the disk cannot read it ({error})"


def _repeated_ids(path: Path, tables: Tables) -> Iterator[str]:
    for name, count in Counter(tables.ids).items():
        if count > 1:
            rows = [row for row, other in enumerate(tables.ids) if other == name]
            yield f"{path}: the id {name!r} belongs to {count} rows: {rows}; ids must be unique"


def _strays(path: Path, summary: ShardSummary) -> Iterator[str]:
    """Name the files that look as if they belonged to the output, but do not."""
    used = {summary.folder / name for name in summary.files}
    beside = sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))
    found = [file for file in beside if file.name.endswith(PARTS)]
    for folder in sorted({file.parent for file in used} or {shard_folder(path)}):
        try:
            found += sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            yield f"{folder}: cannot be listed ({error})"
    for file in found:
        if file.name.endswith(PARTS):
            if file.exists():
                yield f"{file}: left over from a run that was interrupted; delete it"
        elif file not in used:
            yield f"{file}: not part of {path}; delete it or move it away"
