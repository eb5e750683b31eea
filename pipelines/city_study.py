"""Does the BEV branch help, where, and by how much? Measured on the synthetic city.

    python -m pipelines.city_study --out study/ --seeds 3

For each seed both branches are trained anew on the same places; panorama alone, BEV alone and both
are then compared on places never seen: in the same districts, in another district, at another
date, and against a map. Every step is a command; those that are done are not done again, so the
study can be interrupted, and extended by more seeds. Writes ``study.md`` and ``study.json``.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from georetrieval.retrieval.results import Evaluation
from pipelines.commands import run

METRES = 50
RECIPE = Path(__file__).resolve().parent.parent / "georetrieval" / "recipes" / "city.toml"
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
    run(
        f"python -m pipelines.city --out {city} --places {places} --seed 1"
        f" --date 2023-06-04 --date 2024-01-20 --tile-metres {METRES} --tile-size 256"
    )
    bev = f"--size 256 --resolution {METRES / 256:.5f}"
    panorama = f"--in {city}/panorama --poses {city}/poses.csv -q"
    run(f"bevgen convert {panorama} --out {city}/bev.h5 {bev}")
    run(f"bevgen pack {panorama} --out {city}/panorama.h5 --kind panorama --size 128x256")
    for kind in ("satellite", "map"):
        run(
            f"bevgen pack --in {city}/{kind} --out {city}/{kind}.h5 --kind {kind} --size 256"
            f" --poses {city}/{kind}.csv -q"
        )


def train_and_evaluate(city: Path, out: Path, kind: str, seed: int, settings: str) -> None:
    """Train on satellite or map tiles with one seed, and search all splits of that kind."""
    folder = out / f"{kind}-{seed}"
    splits = [split for view, split in PROTOCOLS.values() if view == kind]
    if all((folder / f"evaluation-{split}.json").exists() for split in splits):
        return
    if not (folder / "trained").exists():
        resume = " --resume" if list(folder.glob("*.state")) else ""
        run(
            f"georetrieval train --data {city} --recipe {RECIPE} --run {folder}"
            f" --set seed={seed} --set data.reference={kind}.h5{settings}{resume}"
        )
        (folder / "trained").touch()
    for split in splits:
        run(f"georetrieval evaluate --run {folder} --split {split}")


def hits(
    out: Path, kind: str, split: str, seeds: int
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Return R@1 hits of each method, (seeds, queries), and the size of the gallery."""
    found: dict[str, list[NDArray[np.float64]]] = {method: [] for method in METHODS}
    gallery = 0
    for seed in range(seeds):
        evaluation = Evaluation.load(out / f"{kind}-{seed}" / f"evaluation-{split}.json")
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


def write_results(out: Path, seeds: int, places: int, settings: str) -> None:
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
    header = "| protocol | queries / gallery | panorama | BEV | both | both - panorama |"
    text = "\n".join(
        [
            f"{places} places, {seeds} seeds, recipe city{settings or ' as it is'};"
            f" {date.today().isoformat()}.",
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


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("study"), show_default=True)
@click.option("--places", default=600, show_default=True, help="Places in the city.")
@click.option("--seeds", default=3, show_default=True, help="Trainings of each kind.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
def main(out: Path, places: int, seeds: int, overrides: tuple[str, ...]) -> None:
    """Measure what the BEV branch adds, on the synthetic city."""
    out.mkdir(parents=True, exist_ok=True)
    city = out / "city"
    settings = "".join(f" --set {override}" for override in overrides)
    prepare(city, places)
    for seed in range(seeds):
        for kind in ("satellite", "map"):
            train_and_evaluate(city, out, kind, seed, settings)
    write_results(out, seeds, places, settings)


if __name__ == "__main__":
    main()
