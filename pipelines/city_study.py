"""Does the BEV branch help, where, and by how much? Measured on the synthetic city.

    python -m pipelines.city_study --out study/ --seeds 3

For each seed both branches are trained anew on the same places; panorama alone, BEV alone and both
are then compared on places never seen: in the same districts, in another district, at another
date, and against a map. Every step is a command; those that are done are not done again, so the
study can be interrupted, and extended by more seeds. Writes ``study.md`` and ``study.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from bevgen.commands import PATH
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run
from pipelines import commands
from pipelines.commands import Bev, Images

METRES = 50  # across a tile and across a bird's-eye view: one scale for both
TILE = 256  # pixels
BEV = Bev(size=TILE, resolution=round(METRES / TILE, 5))
DATES = ("2023-06-04", "2024-01-20")
PROTOCOLS = {
    "same region": ("satellite", "test"),
    "cross-region": ("satellite", "cross"),
    "cross-temporal": ("satellite", "temporal"),
    "cross-region and -temporal": ("satellite", "temporal-cross"),
    "map, same region": ("map", "test"),
    "map, cross-region": ("map", "cross"),
}
METHODS = ("panorama", "bev", "both")
RESAMPLES = 4000


def prepare(city: Path, places: int) -> None:
    """Draw the city at two dates, and store its views as shards."""
    panoramas = Images(city / "panorama", poses=city / "poses.csv")
    commands.draw_city(city, places=places, seed=1, dates=DATES, tile_metres=METRES, tile_size=TILE)
    commands.convert(panoramas, city / "bev.h5", BEV, quiet=True)
    commands.pack(panoramas, city / "panorama.h5", kind="panorama", size=(128, 256), quiet=True)
    for kind in ("satellite", "map"):
        tiles = Images(city / kind, poses=city / f"{kind}.csv")
        commands.pack(tiles, city / f"{kind}.h5", kind=kind, size=TILE, quiet=True)


def train_and_evaluate(
    city: Path, out: Path, kind: str, seed: int, settings: Sequence[str]
) -> None:
    """Train on satellite or map tiles with one seed, and search all splits of that kind."""
    folder = out / f"{kind}-{seed}"
    splits = [split for view, split in PROTOCOLS.values() if view == kind]
    if set(splits) <= set(Run(folder).evaluations()):
        return
    own = [f"seed={seed}", f"data.reference={kind}.h5", *settings]
    commands.train(city, folder, recipe="city", settings=own)
    for split in splits:
        commands.evaluate(folder, split)


def hits(
    out: Path, kind: str, split: str, seeds: int
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Return R@1 hits of each method, (seeds, queries), and the size of the gallery."""
    found: dict[str, list[NDArray[np.float64]]] = {method: [] for method in METHODS}
    gallery = 0
    for seed in range(seeds):
        evaluation = Evaluation.load(Run(out / f"{kind}-{seed}").evaluation(split))
        gallery = evaluation.gallery
        for method in evaluation.methods:
            if method.name in found:
                found[method.name].append(100.0 * (np.array(method.ranks) == 0))
    return {method: np.stack(rows) for method, rows in found.items()}, gallery


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return mean and 95 % interval, drawing seeds and queries anew (both vary in use)."""
    random = np.random.default_rng(0)
    seeds, queries = values.shape
    means = [
        values[random.integers(0, seeds, seeds)][:, random.integers(0, queries, queries)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def write_results(out: Path, seeds: int, places: int, settings: Sequence[str]) -> None:
    """Write the table: R@1 of each method, and what both gain over the panorama alone."""
    rows, values = [], {}
    for name, (kind, split) in PROTOCOLS.items():
        found, gallery = hits(out, kind, split, seeds)
        figures = {method: interval(found[method]) for method in METHODS}
        figures["gain"] = interval(found["both"] - found["panorama"])
        values[name] = {"gallery": gallery, "queries": found["both"].shape[1], **figures}
        cells = [f"{v:.1f} ({low:.1f} to {high:.1f})" for v, low, high in figures.values()]
        cells[-1] = (
            f"{figures['gain'][0]:+.1f} ({figures['gain'][1]:+.1f} to {figures['gain'][2]:+.1f})"
        )
        queries = values[name]["queries"]
        rows.append(f"| {name} | {queries} / {gallery} | {' | '.join(cells)} |")
    changed = " with " + ", ".join(settings) if settings else " as it is"
    header = "| protocol | queries / gallery | panorama | BEV | both | both - panorama |"
    text = "\n".join(
        [
            f"{places} places, {seeds} seeds, recipe city{changed}; {date.today().isoformat()}.",
            "R@1 in per cent with 95 % intervals over seeds and queries.",
            "",
            header,
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    (out / "study.md").write_text(text, "utf-8")
    (out / "study.json").write_text(json.dumps(values, indent=2), "utf-8")
    print(text)


@click.command(help="Measure what the BEV branch adds, on the synthetic city.")
@click.option("--out", type=PATH, default=Path("study"), show_default=True)
@click.option("--places", default=600, show_default=True, help="Places in the city.")
@click.option("--seeds", default=3, show_default=True, help="Trainings of each kind.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
def main(out: Path, places: int, seeds: int, overrides: tuple[str, ...]) -> None:
    """Measure what the BEV branch adds, on the synthetic city."""
    out.mkdir(parents=True, exist_ok=True)
    city = out / "city"
    prepare(city, places)
    for seed in range(seeds):
        for kind in ("satellite", "map"):
            train_and_evaluate(city, out, kind, seed, overrides)
    write_results(out, seeds, places, overrides)


if __name__ == "__main__":
    main()
