"""Read shards: tables once through h5py, images through a memory map.

No locks: a reader may be forked, or shared by threads, at any moment. Two threads that open the
same shard at once each map it, and one map is kept.
"""

from __future__ import annotations

import mmap
import operator
import os
import resource
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import ShardError
from bevgen.shards.fileformat import REDO, Failure, Layout, ShardSummary, Tables, settings_text
from bevgen.shards.opening import (
    numbers,
    opened,
    read_edges,
    read_layout,
    read_tables,
    reopened,
    stamp,
    status,
    summarize,
)
from bevgen.terminal import counted


@dataclass(frozen=True, slots=True)
class _Mapped:
    """One shard file in memory: arrays over its map, which lives as long as any of them."""

    shard: int
    images: NDArray[np.uint8]
    valid: NDArray[np.uint8] | None


class ShardSet:
    """The images of a shard file, or of an index with its folder of shards, as one sequence.

    ``shards[i]`` is a read-only (height, width, channels) uint8 view of a memory map, without a
    copy; ``shards.read(indices)`` copies many rows into one batch. Threads may share a reader,
    and it can be sent to other processes, forked or spawned: pickled, it is only a path.

    Parameters
    ----------
    path
        A finished file: an index such as "bev.h5", or one shard.

    Attributes
    ----------
    path : Path
        The file, as an absolute path.
    kind : str
        "bev", "satellite", "map", "panorama" or "drone".
    image_shape : tuple of int
        (height, width, channels) of every image.
    settings : dict
        What the images were made with.
    plan : str
        Digest of the inputs they were made from, which are known by their names and sizes.
    crc32 : (N,) uint32
        Checksum of each image's pixels, as it was written.

    Raises
    ------
    ShardError
        If the file, or later one of its shards, is missing, incomplete, damaged or not one of
        ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()  # good in other processes, and after a chdir
        with opened(self.path) as h5:
            self._summary = summarize(h5, self.path)
            self._stamp = stamp(status(h5))
            self.crc32 = numbers(h5, "crc32", np.uint32)
            self._layouts: list[Layout | None]
            if self._summary.files:
                self._edges = read_edges(h5, self._summary)
                self._layouts = [None] * len(self._summary.files)
            else:
                self._edges = [0, self._summary.rows]
                self._layouts = [read_layout(h5, self._summary)]
        self.kind = self._summary.kind
        self.image_shape = self._summary.image_shape
        self.settings: dict[str, Any] = self._summary.settings
        self.plan = self._summary.plan
        self._tables: Tables | None = None
        self._row_of: dict[str, int] | None = None
        kept = min(len(self._layouts), _map_limit())
        self._maps: list[_Mapped | None] | None = list[_Mapped | None]([None]) * kept

    def __len__(self) -> int:
        return self._summary.rows

    def __getitem__(self, index: SupportsIndex) -> NDArray[np.uint8]:
        shard, row = self._place(index)
        return self._mapped(shard).images[row]

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.image_shape)
        return f"ShardSet({str(self.path)!r}: {len(self)} {self.kind} images of {shape})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[ShardSet], tuple[Path]]:
        return ShardSet, (self.path,)

    @property
    def ids(self) -> list[str]:
        """Id of every row."""
        return self._read_tables().ids

    @property
    def sources(self) -> list[str]:
        """File that every row was made from."""
        return self._read_tables().sources

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Values per row: float64 for each of `COLUMNS`, NaN where unknown, and ``date`` as str."""
        tables = self._read_tables()
        return {**tables.columns, "date": np.array(tables.dates, dtype=np.str_)}

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The inputs that gave no image, each with its reason."""
        return self._read_tables().failures

    def row(self, id: str) -> int:  # noqa: A002  (the name that the file uses)
        """Return the row of an id.

        Raises
        ------
        KeyError
            If no row has it.
        """
        if self._row_of is None:
            self._row_of = {name: row for row, name in enumerate(self.ids)}
        try:
            return self._row_of[id]
        except KeyError:
            raise KeyError(f"no row of {self.path} has the id {id!r}") from None

    def valid(self, index: SupportsIndex) -> NDArray[np.bool_]:
        """Return which pixels of a row the panorama shows: (height, width) bool, a new array."""
        shard, row = self._place(index)
        mask = self._mapped(shard).valid
        if mask is None:
            return np.ones(self.image_shape[:2], dtype=np.bool_)
        return (mask if mask.ndim == 2 else mask[row]) != 0

    def read(self, indices: ArrayLike, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Copy rows into one batch.

        Parameters
        ----------
        indices
            n integers, in any order and repeated at will; negative ones count from the end.
        out
            Where to write: a C-contiguous uint8 array (n, height, width, channels), such as a
            view of pinned memory. A new one is made by default.

        Returns
        -------
        ndarray
            ``out``, or the new array: uint8 (n, height, width, channels).

        Raises
        ------
        TypeError
            If the indices are not integers.
        IndexError
            If one is out of range.
        ValueError
            If ``out`` does not fit.
        """
        rows = self._rows(indices)
        shape = (len(rows), *self.image_shape)
        if out is None:
            out = np.empty(shape, dtype=np.uint8)
        else:
            _check_out(out, shape)
        if len(self._layouts) == 1:
            images = self._mapped(0).images
            for k, row in enumerate(rows.tolist()):
                out[k] = images[row]
            return out
        first_row = np.asarray(self._edges[:-1])
        shards = np.searchsorted(first_row, rows, side="right") - 1
        local = (rows - first_row[shards]).tolist()
        # Shard by shard, so that each is mapped at most once even where maps are scarce.
        order = np.argsort(shards, kind="stable").tolist()
        for k, shard in zip(order, shards[order].tolist(), strict=True):
            out[k] = self._mapped(shard).images[local[k]]
        return out

    def close(self) -> None:
        """Let go of the files. Views that were handed out stay readable; new reads are refused."""
        self._maps = None

    def _read_tables(self) -> Tables:
        # On first use: a worker that only reads images need not hold every id again.
        if self._tables is None:
            with opened(self.path) as h5:
                if stamp(status(h5)) != self._stamp:
                    raise ShardError(
                        f"{self.path}: was replaced since it was opened: open it again"
                    )
                self._tables = read_tables(h5, self._summary)
        return self._tables

    def _rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        asked = np.asarray(indices)
        if asked.size == 0:
            asked = asked.astype(np.int64)
        if asked.ndim != 1 or not np.issubdtype(asked.dtype, np.integer):
            raise TypeError(
                f"indices must be a sequence of integers, not {asked.dtype} of {asked.ndim}"
                " dimensions (np.flatnonzero turns a mask into indices)"
            )
        count = len(self)
        rows = asked.astype(np.int64)
        rows[rows < 0] += count
        wrong = (rows < 0) | (rows >= count)
        if wrong.any():
            raise IndexError(self._beyond(asked[wrong][0]))
        return rows

    def _beyond(self, row: int) -> str:
        return f"row {row} is out of range: {self.path} has {counted(len(self), 'row')}"

    def _place(self, index: SupportsIndex) -> tuple[int, int]:
        """Return the shard of a row, and the row within it."""
        asked = operator.index(index)
        row = asked + len(self) if asked < 0 else asked
        if not 0 <= row < len(self):
            raise IndexError(self._beyond(asked))
        shard = bisect_right(self._edges, row) - 1
        return shard, row - self._edges[shard]

    def _mapped(self, shard: int) -> _Mapped:
        maps = self._maps
        if maps is None:
            raise ValueError(f"{self.path} was closed: open it again with ShardSet")
        # Direct-mapped: with fewer slots than shards, a shard evicts the one in its slot.
        slot = shard % len(maps)
        mapped = maps[slot]
        if mapped is None or mapped.shard != shard:
            mapped = _map(shard, self._layout(shard))
            maps[slot] = mapped
        return mapped

    def _layout(self, shard: int) -> Layout:
        layout = self._layouts[shard]
        if layout is None:
            start, stop = self._edges[shard : shard + 2]
            layout = shard_layout(self._summary, shard, self.crc32[start:stop])
            self._layouts[shard] = layout
        return layout


def shard_layout(index: ShardSummary, shard: int, crc32: NDArray[np.uint32]) -> Layout:
    """Return where the pixels of one shard of an index lie.

    ``crc32`` are the checksums that the index holds for its rows: they tell a shard that was made
    again, or brought from elsewhere, from the one that the index was written for.

    Raises
    ------
    ShardError
        If the shard is missing, damaged or not the one that the index was written for.
    """
    path = index.folder / index.files[shard]
    if not path.exists():
        raise ShardError(
            f"{path}: missing; {index.path} refers to it. An index and its folder are moved"
            " together; if the shard is lost, run the command that made it again, which makes"
            " only what is missing"
        )
    with opened(path) as h5:
        summary = summarize(h5, path)
        problem = contradiction(index, summary)
        if problem is None and not np.array_equal(numbers(h5, "crc32", np.uint32), crc32):
            problem = "its rows are not those of the index"
        if problem is not None:
            raise ShardError(
                f"{path}: not the shard that {index.path} was written for: {problem}. Put the"
                f" right one back, or {REDO}"
            )
        return read_layout(h5, summary)


def contradiction(index: ShardSummary, shard: ShardSummary) -> str | None:
    """Say in which way a shard contradicts its index, None if in none."""
    if shard.files:
        return "it is itself an index"
    if shard.kind != index.kind:
        return f"its kind is {shard.kind!r}, not {index.kind!r}"
    if shard.image_shape != index.image_shape:
        return f"its images are {shard.image_shape}, not {index.image_shape}"
    if settings_text(shard.settings) != settings_text(index.settings):
        keys = sorted(
            key
            for key in {*shard.settings, *index.settings}
            if shard.settings.get(key) != index.settings.get(key)
        )
        return f"its settings differ in {', '.join(keys)}"
    return None


def _map(shard: int, layout: Layout) -> _Mapped:
    count, mask_shape = layout.rows, layout.image_shape[:2]
    if count == 0:
        return _Mapped(shard, np.empty((0, *layout.image_shape), dtype=np.uint8), None)
    try:
        with reopened(layout) as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ShardError(f"{layout.path}: cannot be mapped into memory ({error})") from error
    images = np.frombuffer(whole, np.uint8, count * layout.image_bytes, layout.images)
    valid = None
    if layout.valid is not None:
        shape = (count, *mask_shape) if layout.valid_each else mask_shape
        size = count * layout.mask_bytes if layout.valid_each else layout.mask_bytes
        valid = np.frombuffer(whole, np.uint8, size, layout.valid).reshape(shape)
    return _Mapped(shard, images.reshape(count, *layout.image_shape), valid)


def _map_limit() -> int:
    """How many maps to keep: each holds a file open, and other readers want some too."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(max(soft // 8, 16), 4096) if soft >= 0 else 4096


def _check_out(out: object, shape: Sequence[int]) -> None:
    expected = f"out must be a writeable C-contiguous uint8 array of {tuple(shape)}"
    if not isinstance(out, np.ndarray):
        raise ValueError(f"{expected}, not {type(out).__name__}")
    if out.dtype != np.uint8 or out.shape != tuple(shape):
        raise ValueError(f"{expected}, not {out.dtype} of {out.shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"{expected}, not one that is strided or read-only")
