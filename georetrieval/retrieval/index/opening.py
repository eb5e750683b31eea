"""Open an index and search it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen import ShardError, ShardSet, only_writer, written_whole
from georetrieval.data.positions import distances
from georetrieval.errors import IndexFileError
from georetrieval.retrieval.index.approximate import Approximate
from georetrieval.retrieval.index.exact import Block, Coded, Floats, gather, nearest
from georetrieval.retrieval.index.files import (
    APPROXIMATE,
    CODES,
    CONFIDENCE,
    IDS,
    PART_FILES,
    POSITIONS,
    SCALES,
    VECTORS,
    IndexHeader,
    Part,
    file_checksum,
    json_checksum,
    part_folder,
    read_header,
)

SHORT_LIST = 1000
"""References of an approximate search that are ranked again exactly."""


class Nearest(NamedTuple):
    """Result of a search: rows (Q, K) int64, best first, and scores (Q, K) float32."""

    rows: NDArray[np.int64]
    scores: Floats


class Index:
    """Reference tiles that can be searched. Rows count all tiles that were ever added.

    Parameters
    ----------
    folder
        Made by `build_index`.

    Attributes
    ----------
    folder : Path
    header : IndexHeader
        Model, tiles and parts.

    Raises
    ------
    IndexFileError
        If it is not there, damaged, or of a later version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.header: IndexHeader = read_header(self.folder)
        parts = [_open_part(self.folder, part, self.header) for part in self.header.parts]
        self.blocks = [block for block, _, _ in parts]
        self.ids: list[str] = [name for _, ids, _ in parts for name in ids]
        self.positions: NDArray[np.float64] = (
            np.concatenate([positions for _, _, positions in parts]) if parts else np.empty((0, 2))
        )
        self.kept: NDArray[np.bool_] = np.ones(len(self.ids), bool)
        self.kept[list(self.header.removed)] = False
        self._shards: dict[str, ShardSet] = {}

    def __len__(self) -> int:
        return len(self.ids) - len(self.header.removed)

    @property
    def run(self) -> Path:
        """Folder of the run that the index was made with, unless it was moved."""
        return Path(os.path.normpath(self.folder / self.header.model.run))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Rows of the tiles that are searched, by id."""
        return {name: row for row, name in enumerate(self.ids) if self.kept[row]}

    @cached_property
    def approximate(self) -> Approximate | None:
        """What approximate search needs; None where all is searched exactly."""
        if not self.header.approximate:
            return None
        return Approximate.open(self.folder / APPROXIMATE)

    def search(
        self,
        queries: Floats,
        top: int,
        *,
        among: NDArray[np.bool_] | None = None,
        exact: bool = False,
        threads: int = 1,
    ) -> Nearest:
        """Find the tiles of the highest scores.

        Parameters
        ----------
        queries : (Q, D) float32
            Vectors joined as `georetrieval.retrieval.evaluation.fuse` does.
        top
            How many.
        among : (rows,) bool, optional
            Which rows count, such as those of `near`.
        exact
            Search exactly although there is an approximate way.
        threads
            At work.
        """
        kept = self.kept if among is None else self.kept & among
        covered = sum(part.rows for part in self.header.parts[: self.header.approximate])
        if exact or not covered or among is not None or self.approximate is None:
            mask = None if kept.all() else kept
            return Nearest(*nearest(queries, self.blocks, top, among=mask, threads=threads))
        return self._roughly(self.approximate, queries, top, kept, covered, threads)

    def _roughly(
        self,
        approximate: Approximate,
        queries: Floats,
        top: int,
        kept: NDArray[np.bool_],
        covered: int,
        threads: int,
    ) -> Nearest:
        """Rank the short list exactly, together with the best of the tiles added since."""
        added = self.blocks[self.header.approximate :]
        rows, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
        if added:
            mask = kept[covered:]
            rows, scores = nearest(queries, added, top, among=mask, threads=threads)
        found = Nearest(
            np.full((len(queries), top), -1, np.int64),
            np.full((len(queries), top), -np.inf, np.float32),
        )
        short = approximate.search(queries, max(SHORT_LIST, 4 * top))
        for k, names in enumerate(short):
            names = np.sort(names[(names >= 0) & (names < covered) & kept[names]])
            every = np.concatenate([names, rows[k] + covered])
            values = np.concatenate([gather(self.blocks, names) @ queries[k], scores[k]])
            order = np.lexsort((every, -values))[:top]
            found.rows[k, : len(order)], found.scores[k, : len(order)] = every[order], values[order]
        return found

    def vectors(self, rows: NDArray[np.int64]) -> Floats:
        """Read the vectors (n, D) of some rows."""
        return gather(self.blocks, rows)

    def split(self, vectors: Floats) -> dict[str, Floats]:
        """Take joined vectors (n, D) apart into each branch's unit vectors."""
        parts, start = {}, 0
        weights = self.header.model.weights
        for name, size in self.header.model.dimensions.items():
            parts[name] = vectors[:, start : start + size] / max(weights[name], 1e-30) ** 0.5
            start += size
        return parts

    def near(self, latitude: float, longitude: float, metres: float) -> NDArray[np.bool_]:
        """Whether each tile's centre (rows,) lies within some metres of a point."""
        where = np.broadcast_to([latitude, longitude], self.positions.shape)
        return distances(where, self.positions) <= metres

    def tile(self, row: int) -> NDArray[np.uint8]:
        """Read the pixels (H, W, 3) of a tile from the references that the index was made of.

        Raises
        ------
        IndexFileError
            If they are no longer where they were, or have changed.
        """
        references, there = self._reference(row)
        return references[there]

    def tile_valid(self, row: int) -> NDArray[np.bool_]:
        """Read where a tile (H, W) shows anything; raises as `tile`."""
        references, there = self._reference(row)
        return references.valid(there)

    def _reference(self, row: int) -> tuple[ShardSet, int]:
        for part in self.header.parts:
            if row < part.rows:
                return self._references(part.references), part.first_row + row
            row -= part.rows
        raise IndexError(f"{self.folder} has no such row")

    def check_references(self) -> None:
        """Refuse vectors of tiles that have changed since. That they are there, `tile` alone needs.

        Raises
        ------
        IndexFileError
            If they have changed, or cannot be read.
        """
        for name in dict.fromkeys(part.references for part in self.header.parts):
            if (self.folder / name).exists():
                self._references(name)

    def _references(self, name: str) -> ShardSet:
        if name not in self._shards:
            path = Path(os.path.normpath(self.folder / name))
            try:
                shards = ShardSet(path)
            except ShardError as error:
                raise IndexFileError(
                    f"the tiles of {self.folder} cannot be read ({error}): an index needs the"
                    " references that it was made of, at the same place beside it"
                ) from error
            for part in self.header.parts:
                rows = range(part.first_row, part.first_row + part.rows)
                if part.references == name and pixels_checksum(shards, rows) != part.pixels:
                    raise IndexFileError(
                        f"{path} has changed since {self.folder} was made of it: build the index"
                        " again with --overwrite, which embeds what has changed"
                    )
            self._shards[name] = shards
        return self._shards[name]

    @property
    def confidence(self) -> dict[str, Any] | None:
        """The confidence model that was fitted for this index, as JSON values; None without one.

        Raises
        ------
        IndexFileError
            If it is damaged.
        """
        path = self.folder / CONFIDENCE
        if not path.exists():
            return None
        again = "fit it again with `georetrieval confidence`"
        try:
            values = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise IndexFileError(f"{path} is damaged ({error}): {again}") from error
        if not isinstance(values, dict) or values.pop("crc32", None) != json_checksum(values):
            raise IndexFileError(f"{path} is damaged or was edited: {again}")
        return values

    def store_confidence(self, values: dict[str, Any]) -> None:
        """Keep a confidence model; see `georetrieval.localization`.

        Raises
        ------
        IndexFileError
            If the index has been built with other weights since it was opened.
        """
        content = {**values, "crc32": json_checksum(values)}
        with only_writer(self.folder), written_whole(self.folder / CONFIDENCE) as part:
            if not read_header(self.folder).model.same_vectors(self.header.model):
                raise IndexFileError(
                    f"{self.folder} was built with other weights while a confidence model was"
                    " fitted: fit it again"
                )
            part.write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    def verify(self) -> list[str]:
        """Read every byte; return a sentence for each file that is damaged or missing."""
        checks = {
            part_folder(self.folder, part.name) / name: part.checksums[name]
            for part in self.header.parts
            for name in PART_FILES
        }
        checks |= {self.folder / name: crc for name, crc in self.header.checksums.items()}
        found = [
            f"{path} is damaged" if path.exists() else f"{path} is missing"
            for path, crc in checks.items()
            if not path.exists() or file_checksum(path) != crc
        ]
        try:
            self.confidence  # noqa: B018  # which holds its own checksum
        except IndexFileError as error:
            found.append(str(error))
        return found


def pixels_checksum(shards: ShardSet, rows: range) -> int:
    """Return a crc32 of the pixels of some rows, of which the shards know those of each image."""
    return zlib.crc32(shards.crc32[rows.start : rows.stop].astype("<u4").tobytes())


def _open_part(
    folder: Path, part: Part, header: IndexHeader
) -> tuple[Block, list[str], NDArray[np.float64]]:
    where = part_folder(folder, part.name)
    dimension = header.model.dimension
    expected: Sequence[tuple[str, tuple[int, ...], Any]] = (
        (VECTORS, (part.rows, dimension), np.float32),
        (CODES, (part.rows, dimension), np.int8),
        (SCALES, (part.rows, 2), np.float32),
        (POSITIONS, (part.rows, 2), np.float64),
    )
    arrays = {name: _read_array(where / name) for name, _, _ in expected}
    for name, shape, dtype in expected:
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise _damaged(where / name, "its shape is not what the index says")
    try:
        ids = json.loads((where / IDS).read_text("utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(where / IDS, str(error)) from error
    if len(ids) != part.rows:
        raise _damaged(where / IDS, "its length is not what the index says")
    coded = Coded(arrays[CODES], np.array(arrays[SCALES]))
    return Block(arrays[VECTORS], coded), ids, np.array(arrays[POSITIONS])


def _read_array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> IndexFileError:
    return IndexFileError(
        f"{path} is damaged or missing ({why}): delete its folder and run the same"
        " `georetrieval index` again, without --add, which makes only what is missing"
    )
