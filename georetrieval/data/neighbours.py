"""Which places are near each other: a file beside the shards, made once and used often."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen import only_writer, written_whole
from bevgen.terminal import counted
from georetrieval.config import BranchName, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.pairs import Pairs
from georetrieval.data.positions import distances, read_positions
from georetrieval.errors import DataError

log = logging.getLogger(__name__)

FORMAT = "georetrieval-neighbours-1"
SHARDS = "shards"  # where positions come from if no file gives them
CHUNK = 4096  # places compared at once


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The places nearest to each.

    Attributes
    ----------
    ids : list of str
        Of the queries, one for each pair that is trained on.
    rows : (P, K) int32
        Indices into ``ids``, nearest first, never the own.
    metres : (P, K) float32
        How far they are.
    positions : (P, 2) float64
        What they were found from: latitude and longitude in degrees, or easting and northing in
        metres.
    planar
        Which of the two.
    source
        Name of the file of positions; ``shards`` for those of the query's shards.
    """

    ids: list[str]
    rows: NDArray[np.int32]
    metres: NDArray[np.float32]
    positions: NDArray[np.float64]
    planar: bool = False
    source: str = SHARDS

    @classmethod
    def find(
        cls,
        ids: list[str],
        positions: NDArray[np.float64],
        count: int,
        *,
        planar: bool = False,
        source: str = SHARDS,
    ) -> Neighbours:
        """Find the nearest ``count`` of each, or all others where they are fewer."""
        rows = geographic_neighbours(positions, count, planar=planar)
        metres = np.empty(rows.shape, np.float32)
        for rank, near in enumerate(rows.T):
            there = positions[near]
            straight = np.linalg.norm(positions - there, axis=1)
            metres[:, rank] = straight if planar else distances(positions, there)
        return cls(ids, rows, metres, positions, planar, source)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all."""
        with written_whole(path) as part, part.open("wb") as file:
            np.savez(
                file,
                format=np.array(FORMAT),
                ids=np.array(self.ids, dtype=np.str_),
                neighbours=self.rows,
                metres=self.metres,
                positions=self.positions,
                planar=np.array(self.planar),
                source=np.array(self.source),
            )

    @classmethod
    def load(cls, path: Path) -> Neighbours:
        """Read a file of `save`.

        Raises
        ------
        DataError
            If it cannot be read, or holds what cannot be.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
                if str(parts["format"]) != FORMAT:
                    raise ValueError(f"its format is {parts['format']}, not {FORMAT}")
                found = cls(
                    parts["ids"].tolist(),
                    parts["neighbours"],
                    parts["metres"],
                    parts["positions"],
                    bool(parts["planar"]),
                    str(parts["source"]),
                )
            found._check()
        except Exception as error:  # NumPy and zipfile have many for damaged files
            raise DataError(
                f"{path} cannot be used ({error}): make it anew with georetrieval neighbours, or"
                " delete it, and training finds them itself"
            ) from error
        return found

    def _check(self) -> None:
        places = len(self.ids)
        shapes = (self.rows.shape[:1], self.metres.shape, self.positions.shape)
        if shapes != ((places,), self.rows.shape, (places, 2)) or self.rows.dtype != np.int32:
            raise ValueError("its tables do not fit together")
        own = self.rows == np.arange(places)[:, None]
        if own.any() or (self.rows < 0).any() or (self.rows >= places).any():
            raise ValueError("it names neighbours that cannot be")

    def misfit(self, pairs: Pairs, count: int) -> str:
        """Say why these are not the neighbours of some pairs; empty where they are.

        Positions from a file are taken as they are. Those from shards must be the pairs' own,
        unless the pairs have none.
        """
        if self.ids != pairs.ids:
            return f"it is of {counted(len(self.ids), 'other pair')}; here are {len(pairs):,}"
        if self.rows.shape[1] < min(count, len(pairs) - 1):
            held = counted(self.rows.shape[1], "neighbour")
            return f"it holds {held} of each; {count} wanted"
        known = bool(np.isfinite(pairs.positions).all())
        if self.source == SHARDS and known and not np.array_equal(self.positions, pairs.positions):
            return "the shards have other positions now"
        return ""


def neighbours_path(dataset: Dataset, split: str | None = None) -> Path:
    """Return where the neighbours of a split lie: beside the references, named after the pairs.

    Parameters
    ----------
    dataset
        Where the data lie.
    split
        None for the training split.
    """
    data = dataset.settings
    names = [data.pairs.stem, split or data.train_split] if data.pairs is not None else ["ids"]
    name = re.sub(r"[^\w.-]", "_", "-".join(["neighbours", *names]))
    return dataset.path("reference").with_name(f"{name}.npz")


def largest_pool(settings: Settings) -> int:
    """Return how many neighbours suit all branches."""
    return max(branch.sampling.pool for branch in settings.branches().values())


def near_on_map(dataset: Dataset, pairs: Pairs, count: int) -> NDArray[np.int32] | None:
    """Return the neighbours that training begins with: the stored ones, or found and stored.

    A file that does not fit is left as it is, as it may be another branch's.

    Parameters
    ----------
    dataset
        They lie beside it.
    pairs
        That are trained on.
    count
        Neighbours of each; see `largest_pool`.

    Returns
    -------
    (P, K) int32, nearest first; None where the positions are not known

    Raises
    ------
    DataError
        If there is a file that cannot be used.
    """
    path = neighbours_path(dataset)
    there = path.exists()
    if there:
        stored = Neighbours.load(path)
        reason = stored.misfit(pairs, count)
        if not reason:
            log.info("neighbours on the map: %s, from %s", path, stored.source)
            return stored.rows
        log.warning(
            "%s does not fit: %s. The neighbours are found anew; georetrieval neighbours replaces"
            " the file",
            path,
            reason,
        )
    if not np.isfinite(pairs.positions).all():
        log.warning("positions are not known for all places: first batches are drawn at random")
        return None
    found = Neighbours.find(pairs.ids, pairs.positions, count)
    if not there:
        try:
            found.save(path)
            log.info("neighbours on the map: found, and stored in %s", path)
        except OSError as error:
            log.warning("the neighbours on the map are not stored: %s", error)
    return found.rows


def store_neighbours(
    settings: Settings,
    dataset: Dataset,
    *,
    split: str | None = None,
    pool: int | None = None,
    positions: Path | None = None,
) -> tuple[Path, Neighbours]:
    """Find the neighbours of a split and write their file, over one that is there.

    Parameters
    ----------
    settings, dataset
        Of the run that will use them. The pairs are those of the first branch, or of the first
        whose shards know all positions.
    split
        None for the training split.
    pool
        Neighbours of each; None for what the settings look at.
    positions
        A table instead of the shards' positions; see `read_positions`.

    Raises
    ------
    DataError
        If positions are missing, or the data cannot be used.
    RefusedError
        If another process is writing that file.
    """
    split = split or settings.data.train_split
    path = neighbours_path(dataset, split)
    with only_writer(path):
        found = _find_neighbours(settings, dataset, split, pool, positions)
        found.save(path)
    return path, found


def _find_neighbours(
    settings: Settings, dataset: Dataset, split: str, pool: int | None, positions: Path | None
) -> Neighbours:
    of_branch: dict[BranchName, Pairs] = {
        name: dataset.pairs(name, split).each() for name in settings.branches()
    }
    chosen, pairs = next(iter(of_branch.items()))
    planar, source = False, SHARDS
    if positions is not None:
        places, planar = read_positions(positions, pairs.ids)
        source = positions.name
    else:
        for name, some in of_branch.items():
            if np.isfinite(some.positions).all():
                chosen, pairs = name, some
                break
        places = pairs.positions
        if unknown := int((~np.isfinite(places)).any(axis=1).sum()):
            raise DataError(
                f"{dataset.path(chosen)} has no position for {unknown:,} of"
                f" {counted(len(pairs), 'query', 'queries')} of split {split}: make the shards with"
                " --poses, or give --positions"
            )
    for name, others in of_branch.items():
        if others.ids != pairs.ids:
            log.warning(
                "branch %s has other pairs than branch %s: it will find its own neighbours when"
                " its training begins",
                name,
                chosen,
            )
    wanted = largest_pool(settings)
    count = pool or wanted
    if count < wanted:
        log.warning(
            "training by these settings looks at %d neighbours of each, and will not take a file of"
            " %d: leave out --pool, or set sampling.pool of each branch",
            wanted,
            count,
        )
    return Neighbours.find(pairs.ids, places, count, planar=planar, source=source)


def geographic_neighbours(
    positions: NDArray[np.float64], count: int, *, planar: bool = False
) -> NDArray[np.int32]:
    """Find the nearest places of each, the place itself left out.

    Parameters
    ----------
    positions : (P, 2) float64
        Latitude and longitude in degrees, all known; if ``planar``, easting and northing in metres.
    count
        Neighbours wanted; at most P - 1 are returned.
    planar
        Measure straight on the map's plane instead of along great circles.

    Returns
    -------
    (P, min(count, P - 1)) int32, nearest first

    Notes
    -----
    On unit vectors the chord grows with the great circle, so a k-d tree finds them exactly. Besides
    the result, memory holds a few thousand places' neighbours at a time.
    """
    from scipy.spatial import KDTree

    points = positions if planar else _on_unit_sphere(positions)
    count = min(count, len(positions) - 1)
    tree = KDTree(points)
    result = np.empty((len(positions), count), np.int32)
    for start in range(0, len(positions), CHUNK):
        part = points[start : start + CHUNK]
        _, found = tree.query(part, k=count + 1, workers=-1)
        found = np.asarray(found).reshape(len(part), -1)
        result[start : start + CHUNK] = without_self(found, start)
    return result


def _on_unit_sphere(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    latitude, longitude = np.deg2rad(positions).T
    east, north = np.cos(longitude), np.sin(longitude)
    return np.stack([np.cos(latitude) * east, np.cos(latitude) * north, np.sin(latitude)], axis=1)


def without_self(found: NDArray[np.integer], first: int) -> NDArray[np.int32]:
    """Drop the own number of each row, or its last entry where that is missing.

    ``first`` is the number of the first row.
    """
    rows = np.arange(first, first + len(found))[:, None]
    own = found == rows
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(found), -1).astype(np.int32)
