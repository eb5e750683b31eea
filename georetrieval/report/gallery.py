"""Queries of the report as pictures: what was seen, what it was matched to, what was right.

Thumbnails are JPEG data URIs, so that the page needs no other file.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from bevgen import ShardError, ShardSet
from georetrieval.data.dataset import Dataset, ShardKey
from georetrieval.retrieval.evaluation import Evaluation, Method

log = logging.getLogger(__name__)

PANORAMA, BEV, TILE = 480, 200, 136  # pixels across
QUALITY = 74
VIEWS: tuple[ShardKey, ...] = ("panorama", "bev", "reference")


class Pictures:
    """Thumbnails from the shards of one data folder; what is missing is said, not raised.

    Parameters
    ----------
    dataset
        Where the shards lie.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._shards: dict[str, ShardSet | None] = {}
        for view in VIEWS:
            path = dataset.path(view)
            try:
                self._shards[view] = dataset.shards(view) if path.exists() else None
            except ShardError as error:
                log.warning("the report goes without pictures of %s: %s", path, error)
                self._shards[view] = None

    def has(self, view: str) -> bool:
        """Return whether there are any pictures of ``panorama``, ``bev`` or ``reference``."""
        return self._shards[view] is not None

    def tag(self, view: str, name: str, width: int, alt: str) -> str:
        """Return an ``<img>`` of at most a width in pixels; without a picture a box with the id."""
        shards = self._shards[view]
        try:
            pixels = shards[shards.row(name)] if shards is not None else None
        except (KeyError, ShardError):
            pixels = None
        if pixels is None:
            return f'<span class="nothing" title="no picture">{escape(name)}</span>'
        source, size = data_uri(pixels, width)
        return (
            f'<img src="{source}" width="{size[0]}" height="{size[1]}" alt="{escape(alt)}"'
            ' decoding="async">'
        )


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


def gallery(
    evaluation: Evaluation, method: Method, chosen: Sequence[int], pictures: Pictures
) -> str:
    """Draw some queries, each with its views, its best matches and the right one.

    Parameters
    ----------
    evaluation, method
        Whose matches are shown; the ranks by the other methods are told.
    chosen
        Indices of queries.
    pictures
        Of the evaluation's data.

    Returns
    -------
    str
        HTML.
    """
    cards = (_card(evaluation, method, index, pictures) for index in chosen)
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(evaluation: Evaluation, method: Method, index: int, pictures: Pictures) -> str:
    name = evaluation.queries[index]
    rank = method.ranks[index] + 1
    metres = method.metres[index]
    verdict = "found first" if rank == 1 else f"right one ranked {rank:,} of {evaluation.gallery:,}"
    grade = "good" if rank == 1 else "near" if rank <= len(method.top[index]) else "bad"
    off = f"<span>best match {distance(metres)} away</span>" if metres is not None else ""
    views = "".join(
        f'<figure class="{view}">{pictures.tag(view, name, width, f"{title} of {name}")}'
        f"<figcaption>{title}</figcaption></figure>"
        for view, title, width in (
            ("panorama", "panorama", PANORAMA),
            ("bev", "its BEV, north up", BEV),
        )
        if pictures.has(view)
    )
    return (
        f'<article class="card {grade}"><header><code>{escape(name)}</code>'
        f'<span class="verdict">{verdict}</span>{off}{_other_ranks(evaluation, method, index)}'
        f'</header><div class="views">{views}</div>'
        f'<ol class="tiles">{_tiles(evaluation, method, index, pictures)}</ol></article>'
    )


def _other_ranks(evaluation: Evaluation, method: Method, index: int) -> str:
    others = [m for m in evaluation.methods if m.name != method.name]
    if not others:
        return ""
    texts = (f"<span>{method_title(m)} {m.ranks[index] + 1:,}</span>" for m in others)
    return f'<span class="others">rank by {" · ".join(texts)}</span>'


def _tiles(evaluation: Evaluation, method: Method, index: int, pictures: Pictures) -> str:
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
    return "".join(tiles)


def _tile(
    name: str, note: str, score: str, right: bool, pictures: Pictures, *, apart: bool = False
) -> str:
    kind = " ".join(w for w, on in (("right", right), ("apart", apart)) if on)
    alt = f"reference {name}" + (", the right one" if right else "")
    mark = '<b class="mark">✓</b>' if right else ""
    return (
        f'<li class="{kind}" data-reference="{escape(name)}" title="{escape(name)}">'
        f"{pictures.tag('reference', name, TILE, alt)}{mark}"
        f'<span class="note"><b>{note}</b> {score}</span></li>'
    )


def method_title(method: Method) -> str:
    """Return what a method is called on the page, as HTML."""
    titles = {"panorama": "panorama", "bev": "BEV", "both": "both, equal weight"}
    return titles.get(method.name, escape(method.name))


def distance(metres: float) -> str:
    """Write metres with a unit that suits them."""
    if metres >= 10_000:
        return f"{metres / 1000:,.0f} km"
    if metres >= 1000:
        return f"{metres / 1000:.1f} km"
    return f"{metres:.0f} m" if metres >= 10 else f"{metres:.1f} m"
