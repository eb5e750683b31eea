"""Shards, weights and results that are not what they are taken for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable

from tests.situations.frame import Place, Situation, Told, command

KIND = "Files that are something else"
EVALUATE = "georetrieval evaluate --run run --data world"
IMPORT = "georetrieval import-weights w.pth --kind bev -o new --encoder test_convnext2"


def swapped(place: Place) -> None:
    """Put satellite tiles in the place of BEVs."""
    shutil.copy(place / "world" / "satellite.h5", place / "world" / "bev.h5")


def both_results(place: Place) -> Told:
    """Evaluate with the run's references, then with others: two results."""
    place.take("world", "run")
    shutil.copy(place / "world" / "satellite.h5", place / "world" / "other.h5")
    first = place.run(EVALUATE)
    second = place.run(f"{EVALUATE} --reference other.h5")
    results = list((place / "run").glob("evaluation-*.json"))
    assert len(results) == 2, results
    return Told.of(first, second, then="two results")


def pickled(place: Place) -> None:
    """Save a model as a whole, as many a repository does."""
    script = "import torch; torch.save({'model': torch.nn.Linear(2, 2)}, 'w.pth')"
    assert place.run(["python", "-c", script]).code == 0


def text(content: str) -> Callable[[Place], object]:
    return lambda place: (place / "w.pth").write_text(content)


def situations() -> Iterable[Situation]:
    yield command(
        KIND, "`train`, with satellite tiles as `bev.h5`",
        "georetrieval train --data world --run run", 1,
        "Error: .*holds satellite images.*", "world", prepare=swapped,
    )  # fmt: skip
    yield command(
        KIND, "`evaluate --reference`, with panoramas", f"{EVALUATE} --reference panorama.h5", 1,
        "Error: .*holds panorama images.*", "world", "run",
    )  # fmt: skip
    yield Situation(
        KIND, "`evaluate`, and again with other references", both_results, (0, 0),
        "6 queries of split test",
    )  # fmt: skip
    yield command(
        KIND, "`evaluate --split tset`", f"{EVALUATE} --split tset", 1,
        "Error: .*no pairs of split.*", "world", "run",
    )  # fmt: skip
    for name, prepare, says in (
        ("a Git LFS pointer", text("version https://git-lfs.github.com/spec/v1\n"), "Error: .*"),
        ("a web page", text("<!DOCTYPE html><html>Sign in</html>"), "Error: .*"),
        ("nothing", text(""), "Error: .*empty.*"),
        ("a pickled model", pickled, "Error: .*state_dict.*"),
    ):
        yield command(KIND, f"`import-weights` of {name}", IMPORT, 1, says, prepare=prepare)
    yield command(
        KIND, "`info` of a file that is no HDF5", "bevgen info w.pth", 1, "Error: .*",
        prepare=text("x" * 999),
    )  # fmt: skip
    yield command(
        KIND, "`locate --index` of a shard file",
        "georetrieval locate images --index world/satellite.h5", 1,
        "Error: world/satellite.h5.*", "world", "images",
    )  # fmt: skip
