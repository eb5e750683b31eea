"""Locate panoramas in an index: draw, embed, search, choose the heading, refine, judge."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import PanoramaError, PanoramaInfo
from bevgen.cores import usable_cores
from georetrieval.errors import CheckpointError, IndexFileError
from georetrieval.localization.alignment import GroundAlignment
from georetrieval.localization.confidence import stored_confidence
from georetrieval.localization.heading import HeadingSearch
from georetrieval.localization.location import (
    Alignment,
    Candidate,
    Confidence,
    Location,
    distinct,
)
from georetrieval.localization.query import Photo, QueryViews, open_photo
from georetrieval.localization.search import Asked, Prior, Scored, as_candidates, ask, score_tiles
from georetrieval.models.checkpoints import load_hashed
from georetrieval.retrieval.index import Index
from georetrieval.run import Run

log = logging.getLogger(__name__)
T = TypeVar("T")

SEARCHED = 100
"""Tiles that the encoders put first and that are aligned, if there is an alignment."""
CONSIDERED = 50
"""Candidates that are judged, whatever number is shown."""
SAME = 0.25
"""Aligned candidates nearer than so many tile widths are one place."""
DEFAULT_ALIGNMENT = GroundAlignment()


class Locator:
    """Finds where panoramas were taken.

    Parameters
    ----------
    index
        An `Index`, or its folder.
    run
        The run that made the index, if it is no longer where it was.
    search
        How headings are searched for.
    alignment
        What places the camera inside tiles and orders candidates by it; None leaves the order to
        the encoders. By default the ground that BEV and tile share, where there is a BEV branch.
    confidence
        What judges answers with ``"known"`` and ``"unknown"`` headings. By default what was fitted
        and stored in the index: it holds for the default alignment alone.
    threads
        At work on photos, and in the search; None for one per core.
    device
        Where to embed.

    Raises
    ------
    IndexFileError
        If the index cannot be used, its tiles have changed since, or the run's checkpoints are not
        those that made it.
    """

    def __init__(
        self,
        index: Index | Path | str,
        *,
        run: Run | Path | str | None = None,
        search: HeadingSearch | None = None,
        alignment: Alignment | None = DEFAULT_ALIGNMENT,
        confidence: Mapping[str, Confidence] | None = None,
        threads: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.index = index if isinstance(index, Index) else Index(index)
        self.index.check_references()
        self.search = search or HeadingSearch()
        self.alignment = alignment
        if confidence is None:
            confidence = stored_confidence(self.index) if alignment is DEFAULT_ALIGNMENT else {}
        self.confidence = confidence
        self.threads = threads or usable_cores()
        self.views = _load_views(self.index, Run.at(run or self.index.run), device)

    def locate(
        self,
        panorama: Photo | Path | str | NDArray[np.uint8],
        *,
        prior: Prior | None = None,
        top: int = 5,
    ) -> Location:
        """Find where one panorama was taken.

        Parameters
        ----------
        panorama
            A `Photo`, a file, or pixels (H, W, 3) uint8 without metadata.
        prior
            What is known before.
        top
            Candidates to return.

        Raises
        ------
        PanoramaError
            If it cannot be read or is no panorama.
        """
        if isinstance(panorama, np.ndarray):
            panorama = Photo("panorama", panorama, PanoramaInfo(), PanoramaInfo())
        elif not isinstance(panorama, Photo):
            panorama = open_photo(panorama)
        prior = prior or Prior()
        among = None if prior.near is None else self.index.near(*prior.near)
        one = ask(panorama, prior, self.search)
        found = self.propose(one, self.embed(one), among, max(top, CONSIDERED))
        return self.conclude(one, found, top)

    def locate_many(
        self,
        panoramas: Iterable[tuple[Path | str, PanoramaInfo]],
        *,
        prior: Prior | None = None,
        top: int = 5,
    ) -> Iterator[Location | tuple[str, PanoramaError]]:
        """Locate many files, each in a thread of its own.

        Parameters
        ----------
        panoramas
            Files, each with what is known of it besides its metadata.
        prior, top
            As in `locate`.

        Yields
        ------
        Location or (source, error)
            In the order of the files; an error for one that cannot be used.
        """
        prior = prior or Prior()

        def one(path: Path | str, own: PanoramaInfo) -> Location | tuple[str, PanoramaError]:
            try:
                return self.locate(open_photo(path, own), prior=prior, top=top)
            except PanoramaError as error:
                return str(path), error

        yield from in_threads(one, panoramas, self.threads)

    def embed(self, one: Asked) -> NDArray[np.float32]:
        """Embed a photo's views at all headings that are to be tried: (R, D)."""
        return self.views.embed(self.views.tensors(one.photo, one.headings))

    def examine(
        self,
        photo: Photo,
        prior: Prior | None = None,
        *,
        among: Sequence[NDArray[np.bool_] | None] = (None,),
    ) -> list[tuple[Candidate, ...]]:
        """Search and align without judging: what a confidence model is fitted on.

        Parameters
        ----------
        photo, prior
            As in `locate`.
        among : (rows,) bool each
            Tiles to search in, once for each of these; None for all.
        """
        one = ask(photo, prior or Prior(), self.search)
        vectors = self.embed(one)
        return [self.propose(one, vectors, tiles, CONSIDERED) for tiles in among]

    def propose(
        self,
        one: Asked,
        vectors: NDArray[np.float32],
        among: NDArray[np.bool_] | None,
        count: int,
    ) -> tuple[Candidate, ...]:
        """Search for one photo's vectors, and align what is found: the best so many places."""
        wanted = count if self.alignment is None else max(count, SEARCHED)
        scored = self.score(one, vectors, among, wanted)
        return self._aligned(one, as_candidates(self.index, scored))[:count]

    def score(
        self,
        one: Asked,
        vectors: NDArray[np.float32],
        among: NDArray[np.bool_] | None,
        count: int,
    ) -> Scored:
        """Score tiles at all headings that are to be tried, and keep so many."""
        return score_tiles(
            self.index, vectors, one.headings, self.search,
            count=count, among=among, threads=self.threads,
        )  # fmt: skip

    def _aligned(self, one: Asked, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Place the camera inside each tile; tiles that say the same place are one candidate."""
        if self.alignment is None or not candidates:
            return candidates
        placed = self.alignment.align(
            one.photo, self.views, candidates, self.index, known=one.heading_known
        )
        width = self.index.header.tiles.width
        return distinct(placed, 0.0 if width is None else SAME * width)

    def conclude(self, one: Asked, candidates: tuple[Candidate, ...], top: int) -> Location:
        """Judge what was found, and order it by that."""
        found, size = None, None
        model = self.confidence.get("known" if one.heading_known else "unknown")
        if model is not None and candidates:
            verdict = model.judge(candidates)
            found, size = verdict.found, verdict.prediction_set
            candidates = tuple(
                replace(candidates[k], probability=p)
                for k, p in zip(verdict.order, verdict.probabilities, strict=True)
            )
        candidates = candidates[:top]
        return Location(one.photo.source, candidates, found, size, one.heading_known, one.date)


def _load_views(index: Index, run: Run, device: torch.device | None) -> QueryViews:
    """Load the encoders that made an index, and no others."""
    key = index.header.model
    encoders: dict[str, Any] = {}
    for name, wanted in key.checkpoints.items():
        path = run.checkpoint(name)  # pyright: ignore[reportArgumentType]
        if not path.exists():
            raise CheckpointError(
                f"{path} is not there: {index.folder} was made by a run at {run}; name where it is"
                " with --run"
            )
        branch, settings, there, _ = load_hashed(path)
        if there != wanted:
            raise IndexFileError(
                f"{path} is not the checkpoint that made {index.folder} ({there[:8]} there,"
                f" {wanted[:8]} wanted): name the run that made it with --run, or build the index"
                " again"
            )
        encoders[name] = (branch.encoder, settings)
    return QueryViews(key, encoders, device or torch.device("cpu"))


def in_threads(
    work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], threads: int
) -> Iterator[T]:
    """Do independent work in threads, each of which computes alone; yields in order.

    A single task is done here, with all threads that torch has.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    if len(first) < 2:
        yield from (work(*task) for task in first)
        return
    others = torch.get_num_threads()
    alone = 1 if threads > 1 else others
    waiting: deque[Future[T]] = deque()
    try:
        with ThreadPoolExecutor(
            threads, initializer=torch.set_num_threads, initargs=(alone,)
        ) as pool:
            for task in chain(first, tasks):
                waiting.append(pool.submit(work, *task))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(others)
