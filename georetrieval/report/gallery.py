"""Queries of the report as cards: what was seen, what it was matched to, what was right.

Thumbnails are JPEG data URIs, so that the page needs no other file.
"""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bevgen import ShardError, ShardSet
from georetrieval.config import BranchName
from georetrieval.data.dataset import Dataset, ShardKey
from georetrieval.errors import DataError
from georetrieval.retrieval.results import Evaluation, Method

log = logging.getLogger(__name__)

PANORAMA, BEV, TILE = 480, 200, 136  # pixels across
QUALITY = 74
SHOWN: tuple[ShardKey, ...] = ("panorama", "bev", "reference")


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail as a data URI; without ``source`` a box with the id stands in its place."""

    id: str
    alt: str
    source: str = ""
    width: int = 0
    height: int = 0


class Pictures:
    """Thumbnails from the shards of one data folder; what is missing is said, not raised.

    Parameters
    ----------
    dataset
        Where the shards lie.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._shards: dict[ShardKey, ShardSet | None] = {}
        for key in SHOWN:
            path = dataset.path(key)
            try:
                self._shards[key] = dataset.shards(key) if path.exists() else None
            except (DataError, ShardError) as error:
                log.warning("the report goes without pictures of %s: %s", path, error)
                self._shards[key] = None

    def has(self, key: ShardKey) -> bool:
        """Return whether there are any pictures of ``panorama``, ``bev`` or ``reference``."""
        return self._shards[key] is not None

    def find(self, key: ShardKey, name: str, width: int, alt: str) -> Picture:
        """Return the thumbnail of an id, at most a width in pixels across."""
        shards = self._shards[key]
        try:
            pixels = shards[shards.row(name)] if shards is not None else None
        except (KeyError, ShardError):
            pixels = None
        if pixels is None:
            return Picture(name, alt)
        source, size = data_uri(pixels, width)
        return Picture(name, alt, source, *size)


def data_uri(pixels: np.ndarray, width: int) -> tuple[str, tuple[int, int]]:
    """Encode a (H, W, C) uint8 image as a JPEG data URI of at most a width.

    Returns
    -------
    uri, (width, height)
        Of 1 or 2 channels the first is taken, of 4 the first three.
    """
    channels = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]
    image = Image.fromarray(np.ascontiguousarray(channels)).convert("RGB")
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    code = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{code}", image.size


def random_sample(evaluation: Evaluation, count: int) -> list[int]:
    """Return queries drawn at random, the same each time, in ascending order."""
    total = len(evaluation.queries)
    picked = np.random.default_rng(total).permutation(total)[:count]
    return sorted(int(index) for index in picked)


def worst_failures(method: Method, count: int) -> list[int]:
    """Return the queries whose right reference ranks last, of equals the farthest off; no hits."""
    missed = [index for index, rank in enumerate(method.ranks) if rank > 0]
    return sorted(missed, key=lambda i: (-method.ranks[i], -(method.metres[i] or 0.0), i))[:count]


@dataclass(frozen=True, slots=True)
class QueryImage:
    """One of a query's images, with its caption."""

    branch: str
    title: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Tile:
    """A reference on a card: ``kind`` holds its CSS classes."""

    reference: str
    note: str
    score: str
    right: bool
    kind: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Card:
    """A query with its images, its best matches and the right one.

    Attributes
    ----------
    query
        Its id.
    grade
        CSS class: found first, among those shown, or not.
    verdict
        The rank of the right one, in words.
    away
        How far the best match lies off, empty where unknown.
    other_ranks
        By the other methods, in words.
    images, tiles
        What is shown.
    """

    query: str
    grade: str
    verdict: str
    away: str
    other_ranks: list[str]
    images: list[QueryImage]
    tiles: list[Tile]


def make_card(evaluation: Evaluation, method: Method, index: int, pictures: Pictures) -> Card:
    """Gather what is shown of a query.

    Parameters
    ----------
    evaluation, method
        Whose matches are shown; the ranks by the other methods are told.
    index
        Of the query.
    pictures
        Of the evaluation's data.

    Returns
    -------
    Card
    """
    name = evaluation.queries[index]
    rank = method.ranks[index] + 1
    metres = method.metres[index]
    others = [m for m in evaluation.methods if m.name != method.name]
    shown: list[tuple[BranchName, str, int]] = [
        ("panorama", "panorama", PANORAMA),
        ("bev", "its BEV, north up", BEV),
    ]
    return Card(
        query=name,
        grade="good" if rank == 1 else "near" if rank <= len(method.top[index]) else "bad",
        verdict="found first"
        if rank == 1
        else f"right one ranked {rank:,} of {evaluation.gallery:,}",
        away=distance(metres) if metres is not None else "",
        other_ranks=[f"{method_title(m)} {m.ranks[index] + 1:,}" for m in others],
        images=[
            QueryImage(branch, title, pictures.find(branch, name, width, f"{title} of {name}"))
            for branch, title, width in shown
            if pictures.has(branch)
        ],
        tiles=_tiles(evaluation, method, index, pictures),
    )


def _tiles(evaluation: Evaluation, method: Method, index: int, pictures: Pictures) -> list[Tile]:
    """Return the best matches, and the right one apart where it is not among them."""
    first, right = evaluation.references[index], evaluation.right(index)
    rank = method.ranks[index] + 1
    best = method.top[index]
    tiles = []
    for place, (name, score) in enumerate(zip(best, method.scores[index], strict=True), start=1):
        # Where scores tie, the rank counts against the model, whatever order they are shown in.
        tied = right == {name} and rank != place
        note = f"tied, ranks {rank:,}" if tied else f"{place}"
        tiles.append(_tile(name, note, f"{score:.3f}", name in right, pictures))
    if not right & set(best):
        # Of several right ones it is not known here which ranks best.
        note = f"rank {rank:,}" if len(right) == 1 else f"one of {len(right)}"
        tiles.append(_tile(first, note, "", True, pictures, apart=True))
    return tiles


def _tile(
    name: str, note: str, score: str, right: bool, pictures: Pictures, *, apart: bool = False
) -> Tile:
    kind = " ".join(word for word, on in (("right", right), ("apart", apart)) if on)
    alt = f"reference {name}" + (", the right one" if right else "")
    return Tile(name, note, score, right, kind, pictures.find("reference", name, TILE, alt))


def method_title(method: Method) -> str:
    """Return what a method is called on the page."""
    titles = {"panorama": "panorama", "bev": "BEV", "both": "both, equal weight"}
    return titles.get(method.name, method.name)


def distance(metres: float) -> str:
    """Write metres with a unit that suits them."""
    if metres >= 10_000:
        return f"{metres / 1000:,.0f} km"
    if metres >= 1000:
        return f"{metres / 1000:.1f} km"
    return f"{metres:.0f} m" if metres >= 10 else f"{metres:.1f} m"
