"""The whole way on two cores: ``make demo``.

First real panoramas become bird's-eye views; then a small synthetic city is drawn, both branches
are trained on it, and places never seen are looked for: among tiles, and in the map of a district.
Every step is a command that can be typed as it is printed. Steps that are done are not done again.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import click
import numpy as np

from bevgen import read_pairs, read_poses
from georetrieval.data.positions import distances
from pipelines import commands
from pipelines.commands import Bev, Images

ROOT = Path(__file__).resolve().parent.parent
STREET = Path("tests/data/street")
OUT = Path("demo-out")
CITY = OUT / "city"
RUN = OUT / "run"
HELMET = Bev(height=1.9)  # metres: a cyclist's camera
PLACES = 420
DISTRICT = "suburb"  # whose map is searched
METRES = 50  # across a tile and across a bird's-eye view: one scale for both
TILE = 256  # pixels
BEV = Bev(size=TILE, resolution=round(METRES / TILE, 5))


def real_panoramas() -> None:
    """Turn the four real panoramas into bird's-eye views."""
    commands.preview(
        STREET / "2.jpg",
        OUT / "preview.png",
        HELMET,
        why="Look at one panorama first: are height, heading and scale right?",
    )
    commands.convert(
        Images(STREET),
        OUT / "bev.h5",
        HELMET,
        why="Turn the folder into bird's-eye views: 512 x 512 pixels, 6 cm each, north up.",
    )
    commands.verify(OUT / "bev.h5", why="Check every stored byte against its checksum.")
    commands.info(OUT / "bev.h5", rows=True, why="Where was each taken, in which direction?")


def city() -> None:
    """Draw a city, and store its three views as shards."""
    panoramas = Images(CITY / "panorama", poses=CITY / "poses.csv")
    tiles = Images(CITY / "satellite", poses=CITY / "satellite.csv")
    commands.draw_city(
        CITY,
        places=PLACES,
        tile_metres=METRES,
        tile_size=TILE,
        raster=DISTRICT,
        why="Draw a small city: a panorama, a satellite tile and a map tile of each place.",
    )
    commands.convert(
        panoramas,
        CITY / "bev.h5",
        BEV,
        why="Turn its panoramas into bird's-eye views, and store the other views beside them.",
    )
    commands.pack(panoramas, CITY / "panorama.h5", kind="panorama", size=(128, 256))
    commands.pack(tiles, CITY / "satellite.h5", kind="satellite", size=TILE)


def retrieval() -> None:
    """Train both branches, look for the places of the test, and write the report."""
    commands.train(
        CITY,
        RUN,
        recipe="city",
        why="Train the panorama branch and the BEV branch on the places of the train split.",
    )
    commands.evaluate(
        RUN, "test", why="Look for places that were never seen, among the tiles of their split."
    )
    commands.evaluate(RUN, "cross", why="The same in a district of another style.")
    commands.report(RUN, why="Put it all on one page.")


def localization() -> None:
    """Cut the map of a district into tiles, index them, and locate three photos in it."""
    tiles, where, found = OUT / "tiles.h5", OUT / f"{DISTRICT}.index", OUT / "found.csv"
    commands.tiles(
        CITY / "raster" / f"{DISTRICT}.tif",
        tiles,
        resolution=round(METRES / TILE, 5),
        size=TILE,
        step=10,
        why="Cut the map of a district into tiles, 10 m from centre to centre.",
    )
    commands.index(RUN, tiles, where, why="Embed them, and keep them as an index to search in.")
    split = {pair.query: pair.split for pair in read_pairs(CITY / "pairs.csv")}
    poses = read_poses(CITY / "poses.csv")
    unseen = [
        file
        for file, pose in poses.items()
        if pose.id and pose.id.startswith(DISTRICT) and split[pose.id] == "test"
    ][:3]
    commands.locate(
        [CITY / "panorama" / file for file in unseen],
        where,
        poses=CITY / "poses.csv",
        out=found,
        why="Where were three photos taken, of places that training never saw?",
    )
    with found.open(encoding="utf-8", newline="") as file:
        best = {row["photo"]: row for row in csv.DictReader(file) if row["rank"] == "1"}
    print("\nphoto              found                     truth                     apart")
    for name in unseen:
        row, pose = best[str(CITY / "panorama" / name)], poses[name]
        here = float(row["latitude"]), float(row["longitude"])
        truth = pose.latitude or 0.0, pose.longitude or 0.0
        metres = distances(np.array([truth]), np.array([here]))[0]
        print(
            f"{name:18} {here[0]:.6f}, {here[1]:.6f}     {truth[0]:.6f}, {truth[1]:.6f}"
            f"     {metres:.1f} m"
        )


@click.command(help="Run all parts of the demo; what it makes lies in demo-out/.")
def main() -> None:
    """Run all parts in the repository's root."""
    os.chdir(ROOT)
    OUT.mkdir(exist_ok=True)
    real_panoramas()
    city()
    retrieval()
    localization()
    print(
        f"""
Done. Now look at

  {RUN}/report.html   curves, recall, matches right and wrong, a plan of the city
  {OUT}/preview.png       a real panorama, its bird's-eye view, and where its settings came from

drop a panorama of {CITY}/panorama on the page of

  georetrieval serve --index {OUT}/{DISTRICT}.index

and read the bird's-eye views from Python:

  import bevgen
  shards = bevgen.ShardSet("{OUT}/bev.h5")
  shards.ids, shards[0].shape, shards.columns["heading"]"""
    )


if __name__ == "__main__":
    main()
