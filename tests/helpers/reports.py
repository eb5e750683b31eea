"""A run to report on: every place has a colour of its own, so that a picture tells whose it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from georetrieval.config import DataSettings, settings_json
from georetrieval.retrieval.metrics import Estimate
from georetrieval.retrieval.results import Evaluation, Method
from tests.helpers.world import tiny_settings, write_shards

ODD = '<b>"Rue d\'Été" & </b><script>alert(1)</script>'
NAMES = ["p0", "p1", ODD, "p3", "p4", "p5", "p6", "p7"]
GALLERY = 50
# Of the right tile, 0 is found first; p3 is a tie that is shown first and counts as second.
RANKS = [0, 2, 0, 1, 20, 0, 20, 7]
METRES = [2.0, 150.0, 1.5, 0.5, 480.0, 3.0, 1480.0, 320.0]


def colour(place: int, view: str) -> np.ndarray:
    """Return the (3,) uint8 colour of a place in a view."""
    random = np.random.default_rng([place, *view.encode()])
    return random.integers(20, 236, 3).astype(np.uint8)


def positions(count: int = len(NAMES)) -> np.ndarray:
    """Return latitudes and longitudes, in a grid of three columns."""
    k = np.arange(count)
    return np.stack([48 + 0.002 * (k // 3), 11 + 0.003 * (k % 3)], axis=1)


def top_of(query: int, rank: int) -> list[str]:
    """Return the five best for a query: the right one at its rank, others around it."""
    best = [NAMES[(query + step) % len(NAMES)] for step in range(1, 6)]
    if NAMES[query] == "p3":
        return [NAMES[query], *best[:4]]
    return [*best[:rank], NAMES[query], *best[rank:4]] if rank < 5 else best


def method(name: str, ranks: Sequence[int] = RANKS, weight: float = 0.5) -> Method:
    """Return a method with figures that nothing was computed from."""
    value = {"panorama": 31.25, "bev": 22.5, "both": 36.0}.get(name, 37.5)
    figures = {
        key: Estimate(value + step, value + step - 8.4, value + step + 9.3)
        for step, key in enumerate(("R@1", "R@5", "R@10", "R@1%", "hit rate"))
    }
    figures["median rank"] = Estimate(2.5, 1.0, 8.0)
    figures["median metres"] = Estimate(76.0, 2.0, 1480.0)
    return Method(
        name=name,
        weight=weight,
        figures=figures,
        ranks=list(ranks),
        top=[top_of(query, rank) for query, rank in enumerate(ranks)],
        scores=[[0.9, 0.81, 0.72, 0.63, 0.54]] * len(ranks),
        metres=list(METRES),
    )


@dataclass(frozen=True)
class Reported:
    """What `write_report` takes."""

    run: Path
    root: Path
    data: DataSettings
    evaluation: Evaluation


def make_run(folder: Path, name: str = "run") -> Reported:
    """Write shards, settings and metrics, and make up an evaluation."""
    root, run = folder / "city", folder / name
    root.mkdir()
    run.mkdir()
    places = positions()
    sizes = {"panorama": (64, 128), "bev": (48, 48), "satellite": (40, 40)}
    for view, size in sizes.items():
        images = np.stack([np.broadcast_to(colour(k, view), (*size, 3)) for k in range(8)])
        write_shards(root / f"{view}.h5", view, NAMES, images, places)
    quoted = ODD.replace('"', '""')
    rows = [f'"{quoted}"' if place == ODD else place for place in NAMES]
    splits = ["train", "train", "test", "test", "val", "test", "test", "test"]
    (root / "pairs.csv").write_text(
        "query,reference,split\n"
        + "".join(f"{row},{row},{split}\n" for row, split in zip(rows, splits, strict=True)),
        "utf-8",
    )
    settings = tiny_settings("panorama", "bev", about="Tiny & <quick>")
    (run / "settings.json").write_text(settings_json(settings), "utf-8")
    lines = []
    for branch, offset in (("panorama", 0.0), ("bev", 0.5)):
        for step in range(120):
            moment = {"branch": branch, "epoch": step / 30, "time": 1.7e9 + step * 60}
            lines.append({**moment, "loss": 3.0 / (1 + step / 20) + offset})
            if step % 30 == 29:
                recall = {"R@1": 10.0 + step / 4, "R@5": 30 + step / 4, "R@10": 40 + step / 4}
                lines.append({**moment, "epoch": (step + 1) // 30, **recall})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text, "utf-8")
    methods = [
        method("panorama", [0, 0, 3, 1, 30, 2, 20, 7], 1.0),
        method("bev", [5, 2, 0, 1, 20, 0, 20, 9], 0.0),
        method("both"),
        method("both, weight chosen", weight=0.65),
    ]
    evaluation = Evaluation(
        data=str(root),
        reference="satellite.h5",
        split="test",
        heading="known",
        gallery=GALLERY,
        queries=list(NAMES),
        references=list(NAMES),
        positions=[(float(a), float(b)) for a, b in places],
        reference_positions={
            n: (float(a), float(b)) for n, (a, b) in zip(NAMES, places, strict=True)
        },
        checkpoints={"panorama": "aa" * 8, "bev": "bb" * 8},
        methods=methods,
    )
    return Reported(run, root, tiny_settings().data, evaluation)


def without_positions(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation as it would be were no position known."""
    methods = [
        replace(
            one,
            metres=[None] * len(one.ranks),
            figures={k: v for k, v in one.figures.items() if k != "median metres"},
        )
        for one in evaluation.methods
    ]
    nowhere = [None] * len(evaluation.queries)
    return replace(evaluation, methods=methods, positions=nowhere, reference_positions={})
