"""The whole way on two cores: ``make demo``.

First real panoramas become bird's-eye views; then a small synthetic city is drawn, both branches
are trained on it, and places never seen are looked for. Every step is a command that can be typed
as it is printed. Steps that are done are not done again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipelines.commands import run

ROOT = Path(__file__).resolve().parent.parent
STREET = "tests/data/street"
OUT = "demo-out"
CITY = f"{OUT}/city"
PLACES = 420
METRES = 50  # across a tile and across a bird's-eye view: one scale for both


def real_panoramas() -> None:
    """Turn the four real panoramas into bird's-eye views."""
    height = "--height 1.9"  # metres: the camera sits on a cyclist's helmet
    run(
        f"bevgen preview --in {STREET}/2.jpg --out {OUT}/preview.png {height} --overwrite",
        why="Look at one panorama first: are height, heading and scale right?",
    )
    run(
        f"bevgen convert --in {STREET} --out {OUT}/bev.h5 {height}",
        why="Turn the folder into bird's-eye views: 512 x 512 pixels, 6 cm each, north up.",
    )
    run(f"bevgen verify {OUT}/bev.h5", why="Check every stored byte against its checksum.")
    run(f"bevgen info {OUT}/bev.h5 --rows", why="Where was each taken, in which direction?")


def city() -> None:
    """Draw a city, and store its three views as shards."""
    run(
        f"python -m pipelines.city --out {CITY} --places {PLACES} --tile-metres {METRES}"
        " --tile-size 256",
        why="Draw a small city: a panorama, a satellite tile and a map tile of each place.",
    )
    resolution = METRES / 256
    run(
        f"bevgen convert --in {CITY}/panorama --out {CITY}/bev.h5 --poses {CITY}/poses.csv"
        f" --size 256 --resolution {resolution:.5f}",
        why="Turn its panoramas into bird's-eye views, and store the other views beside them.",
    )
    run(
        f"bevgen pack --in {CITY}/panorama --out {CITY}/panorama.h5 --kind panorama"
        f" --size 128x256 --poses {CITY}/poses.csv"
    )
    run(
        f"bevgen pack --in {CITY}/satellite --out {CITY}/satellite.h5 --kind satellite"
        f" --size 256 --poses {CITY}/satellite.csv"
    )


def retrieval() -> None:
    """Train both branches, look for the places of the test, and write the report."""
    recipe = Path(CITY, "georetrieval.toml")
    if not recipe.exists():
        shutil.copy(ROOT / "georetrieval" / "recipes" / "city.toml", recipe)
    run_folder = f"{OUT}/run"
    if not Path(run_folder, "evaluation-test.json").exists():
        resume = " --resume" if list(Path(run_folder).glob("*.state")) else ""
        run(
            f"georetrieval train --data {CITY} --run {run_folder}{resume}",
            why="Train the panorama branch and the BEV branch on the places of the train split.",
        )
    run(
        f"georetrieval evaluate --run {run_folder} --split test",
        why="Look for places that were never seen, among the tiles of their split.",
    )
    run(
        f"georetrieval evaluate --run {run_folder} --split cross",
        why="The same in a district of another style.",
    )
    run(f"georetrieval report --run {run_folder}", why="Put it all on one page.")


def main() -> None:
    """Run all parts in the repository's root."""
    os.chdir(ROOT)
    Path(OUT).mkdir(exist_ok=True)
    real_panoramas()
    city()
    retrieval()
    print(
        f"""
Done. Now look at

  {OUT}/run/report.html   curves, recall, matches right and wrong, a plan of the city
  {OUT}/preview.png       a real panorama, its bird's-eye view, and where its settings came from

and read the bird's-eye views from Python:

  import bevgen
  shards = bevgen.ShardSet("{OUT}/bev.h5")
  shards.ids, shards[0].shape, shards.columns["heading"]"""
    )


if __name__ == "__main__":
    main()
