"""How well are photos located? Measured on the synthetic city.

    python -m pipelines.localization_study --out study/

A BEV branch is trained on places of five districts. Photos of other places there are located among
their tiles, with and without their heading, and photos of a sixth district, which the index does
not hold, are not to be. The map of that district, cut into tiles, becomes another index, in which
drives are located frame by frame and as tracks. How sure answers are is fitted on validation
places. Steps that are done are not done again. Writes ``localization.md`` and
``localization.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bevgen import PanoramaError, PanoramaInfo, read_pairs, read_poses
from bevgen.commands import PATH
from georetrieval.data.positions import distances
from georetrieval.localization import Location, Locator, Prior, find_photos, locate_drive
from georetrieval.localization.formats import as_json
from georetrieval.localization.locate import CONSIDERED, SAME
from georetrieval.retrieval.index import Index
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run
from pipelines import commands
from pipelines.commands import Bev, Images

CROSS = "harbour"
METRES = 50  # across a tile and across a bird's-eye view: one scale for both
TILE = 256  # pixels
STEP = 20  # metres between the tiles of a map
OFFSET = STEP / 2  # of places from their tiles' centres, as in a map of such a step
FITTED = 80  # photos for the confidence of a map
UNKNOWN = Prior("unknown")
BEV = Bev(size=TILE, resolution=round(METRES / TILE, 5))
DRIVES, FRAMES = 20, 20
VALIDATION = 0.2  # of the places: how sure answers are is fitted on them
SETTINGS = ("panorama=false", "bev.augment.rotated_negatives=1")
RESAMPLES = 4000
BINS = 10
SHARE = "{:.1f} %"
CLOSE = {"tile": SAME * METRES, "far": 10.0, "track": 5.0}  # metres

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Study:
    """Where everything lies, and how many photos of a split are located at most."""

    out: Path
    places: int
    queries: int

    @property
    def city(self) -> Path:
        """The city."""
        return self.out / "city"

    @property
    def run(self) -> Path:
        """The trained branch."""
        return self.out / "run"

    @property
    def places_index(self) -> Path:
        """The tiles of validation and test places."""
        return self.out / "places.index"

    @property
    def map_index(self) -> Path:
        """Tiles of the map of the district that training has not seen."""
        return self.out / "map.index"

    @property
    def poses(self) -> Path:
        """The truth."""
        return self.city / "poses.csv"

    def photo(self, place: str) -> Path:
        """Name the photo of a place."""
        return self.city / "panorama" / f"{place}.jpg"

    @property
    def drives(self) -> list[Path]:
        """Folders of frames."""
        return sorted((self.city / "drive").iterdir())

    def ids(self, *splits: str, most: int | None = None) -> list[str]:
        """Name places of some splits, at most so many, spread over their districts."""
        found = [p.query for p in read_pairs(self.city / "pairs.csv") if p.split in splits]
        chosen = np.linspace(0, len(found) - 1, min(most or len(found), len(found))).round()
        return [found[int(k)] for k in chosen]


def prepare(study: Study) -> None:
    """Draw the city with its maps, store its views, and train."""
    city = study.city
    commands.draw_city(
        city, places=study.places, validation=VALIDATION, seed=2,
        tile_metres=METRES, tile_size=TILE, offset=OFFSET, heading="random", raster=CROSS,
        drive=DRIVES, drive_frames=FRAMES, drive_step=5,
    )  # fmt: skip
    commands.convert(Images(city / "panorama", study.poses), city / "bev.h5", BEV, quiet=True)
    tiles = Images(city / "satellite", city / "satellite.csv")
    commands.pack(tiles, city / "satellite.h5", kind="satellite", size=TILE, quiet=True)
    if not Run(study.run).checkpoints():
        commands.train(city, study.run, recipe="city-search", settings=SETTINGS)


def index_places(study: Study, name: str, *splits: str) -> Path:
    """Index the tiles of the places of some splits."""
    listed, shards, out = (study.out / f"{name}{end}" for end in (".txt", ".h5", ".index"))
    listed.write_text("".join(f"{place}.jpg\n" for place in study.ids(*splits)), "utf-8")
    tiles = Images(study.city / "satellite", study.city / "satellite.csv", listed)
    commands.pack(tiles, shards, kind="satellite", size=TILE, quiet=True)
    if not out.exists():
        commands.index(study.run, shards, out, resolution=BEV.resolution)
    return out


def index_map(study: Study) -> None:
    """Cut the sixth district's map into tiles, index them, and fit how sure answers are."""
    tiles = study.out / "map.h5"
    commands.tiles(
        study.city / "raster" / f"{CROSS}.tif", tiles,
        resolution=round(METRES / TILE, 5), size=TILE, step=STEP,
    )  # fmt: skip
    if not study.map_index.exists():
        commands.index(study.run, tiles, study.map_index)
    if Index(study.map_index).confidence is None:
        photos = [study.photo(name) for name in study.ids("cross", most=FITTED)]
        commands.confidence(photos, study.map_index, poses=study.poses)


def search(study: Study) -> None:
    """Locate the photos of each protocol, and keep what was found."""
    if not (study.out / "gallery.json").exists():
        commands.evaluate(study.run, "test")
        locator = Locator(index_places(study, "gallery", "test"), alignment=None)
        keep(study.out / "gallery.json", locator.locate_many(photos(study, "test"), top=1))
    index_places(study, "places", "val", "test")
    if Index(study.places_index).confidence is None:
        folder = study.city / "panorama"
        commands.confidence([folder], study.places_index, poses=study.poses, split="val")
    locator = Locator(study.places_index)
    for name, split, prior in (
        ("known", "test", Prior()),
        ("unknown", "test", UNKNOWN),
        ("absent", "cross", UNKNOWN),
    ):
        asked = photos(study, split)
        keep(study.out / f"{name}.json", locator.locate_many(asked, prior=prior, top=CONSIDERED))
    index_map(study)
    locator = Locator(study.map_index)
    for drive in study.drives:
        asked = list(find_photos([drive], drive / "poses.csv"))
        single, joint = (study.out / f"{drive.name}{kind}.json" for kind in ("", "-track"))
        keep(single, locator.locate_many(asked, prior=UNKNOWN, top=CONSIDERED))
        if not joint.exists():
            keep(joint, locate_drive(locator, asked, prior=UNKNOWN, top=CONSIDERED))


def photos(study: Study, split: str) -> Iterator[tuple[Path, PanoramaInfo]]:
    """Find photos of a split."""
    ids = set(study.ids(split, most=study.queries))
    return find_photos([study.city / "panorama"], study.poses, ids=ids)


def keep(path: Path, answers: Iterable[Location | tuple[str, PanoramaError]]) -> None:
    """Write what is found of photos, all of which can be read, unless it is there."""
    if not path.exists():
        print(f"\nlocating: {path}", flush=True)
        found = [one for one in answers if isinstance(one, Location)]
        path.write_text(as_json(found), "utf-8")


# --- figures ---


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: what was measured, its value and interval, and how they are written."""

    what: str
    value: float
    low: float
    high: float
    form: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found of some photos beside the truth; a row for each photo.

    Attributes
    ----------
    metres, degrees : (n,)
        Of the first candidate from the truth.
    probability : (n,)
        Of the first candidate.
    accepted, covered : (n,) bool
        Whether it was found, and whether the prediction set holds a candidate that is right.
    """

    metres: Floats
    degrees: Floats
    probability: Floats
    accepted: NDArray[np.bool_]
    covered: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the first candidate is the right place."""
        return self.metres <= CLOSE["tile"]


def read_answers(path: Path, poses: Path) -> Answers:
    """Read what `keep` wrote."""
    truth = read_poses(poses)
    rows = []
    for one in json.loads(path.read_text("utf-8")):
        pose = truth[Path(one["source"]).name]
        found = one["candidates"]
        places = np.array([(c["latitude"], c["longitude"]) for c in found])
        here = np.broadcast_to((pose.latitude or 0.0, pose.longitude or 0.0), places.shape)
        away = distances(here, places)
        turned = abs((found[0]["heading"] - (pose.heading or 0.0) + 180) % 360 - 180)
        within = away[: one["prediction_set"]].min(initial=np.inf)
        rows.append(
            (away[0], turned, found[0]["probability"], one["found"], within <= CLOSE["tile"])
        )
    metres, degrees, probability, accepted, covered = (np.array(c) for c in zip(*rows, strict=True))
    return Answers(metres, degrees, probability, accepted.astype(bool), covered.astype(bool))


def interval(
    what: str,
    values: Floats | NDArray[np.bool_],
    form: str,
    statistic: Callable[[Floats], Any] = np.mean,
) -> Figure:
    """Work out a figure of rows (n,) or (n, k) with its 95 % interval, drawing the rows anew.

    Rows that are all one have no spread to draw from: the interval reaches as far as the truth may
    be where n of n agree (the rule of three).
    """
    rows = np.asarray(values, np.float64)
    random = np.random.default_rng(0)
    drawn = [statistic(rows[random.integers(0, len(rows), len(rows))]) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = float(statistic(rows))
    if low == high and value in (0, 1):
        low, high = (0, 3 / len(rows)) if value == 0 else (1 - 3 / len(rows), 1)
    return Figure(what, value, float(low), float(high), form)


def calibration_error(rows: Floats) -> float:
    """Return the expected calibration error of (probability, right) in bins of equal counts."""
    order = np.argsort(rows[:, 0])
    parts = np.array_split(rows[order], BINS)
    return float(sum(len(p) * abs(np.diff(p.mean(axis=0))[0]) for p in parts) / len(rows))


def ratio(rows: Floats) -> float:
    """Return how many times as many the second column counts as the first."""
    return float(rows[:, 1].sum() / max(rows[:, 0].sum(), 1e-9))


def figures(study: Study) -> list[Figure]:
    """Work out every row of the table but the times."""
    known, unknown, absent = (
        read_answers(study.out / f"{name}.json", study.poses)
        for name in ("known", "unknown", "absent")
    )
    right, accepted = unknown.right, unknown.accepted
    frames = np.array([tracked(study, drive) for drive in study.drives])
    lost = known.right.astype(np.float64) - right
    sure, doubtful = (
        np.stack([one.probability, one.right.astype(np.float64)], axis=1)
        for one in (known, unknown)
    )
    rows: list[tuple[Any, ...]] = [
        ("first answers of `--no-align` that are those of `evaluate`", same_first(study), SHARE),
        ("right first answers, heading known", known.right, SHARE),
        ("right first answers, heading unknown", right, SHARE),
        ("lost by an unknown heading", lost, SHARE),
        ("of the right ones: heading within 10°", unknown.degrees[right] <= 10, SHARE),
        ("of the right ones: heading within 3°", unknown.degrees[right] <= 3, SHARE),
        ("of the right ones: position, median", unknown.metres[right], "{:.2f} m", np.median),
        ("of the right ones: heading, median", unknown.degrees[right], "{:.2f}°", np.median),
        ("calibration error of probabilities, heading known", sure, "{:.3f}", calibration_error),
        ("the same, heading unknown", doubtful, "{:.3f}", calibration_error),
        ("prediction sets at 90 % that hold the place, heading known", known.covered, SHARE),
        ("the same, heading unknown", unknown.covered, SHARE),
        ("right answers that are accepted", accepted[right], SHARE),
        ("photos of a district that is not in the index, accepted", absent.accepted, SHARE),
        ("of the accepted: off by more than 10 m", unknown.metres[accepted] > CLOSE["far"], SHARE),
        ("frames of drives within 5 m, each alone", frames[:, 0], SHARE),
        ("frames of drives within 5 m, as a track", frames[:, 1], SHARE),
        ("times as many as a track", frames, "{:.2f}", ratio),
    ]  # fmt: skip
    return [interval(*row) for row in rows]


def tracked(study: Study, drive: Path) -> list[float]:
    """Return which share of a drive's frames was found, each alone and as a track."""
    files = [study.out / f"{drive.name}{kind}.json" for kind in ("", "-track")]
    found = [read_answers(file, drive / "poses.csv") for file in files]
    return [float((one.metres <= CLOSE["track"]).mean()) for one in found]


def same_first(study: Study) -> NDArray[np.bool_]:
    """Compare the first answers with those of ``evaluate``, query for query."""
    result = Evaluation.load(Run(study.run).evaluation("test"))
    method = next(method for method in result.methods if method.name == "bev")
    first = dict(zip(result.queries, (top[0] for top in method.top), strict=True))
    found = json.loads((study.out / "gallery.json").read_text("utf-8"))
    return np.array(
        [one["candidates"][0]["id"] == first[Path(one["source"]).stem] for one in found]
    )


def seconds_for_one(study: Study) -> list[Figure]:
    """Time one photo in the map's index: the command as typed, and without its start."""
    index, photo = study.map_index, study.photo(study.ids("cross", most=1)[0])
    program = Path(sys.executable).with_name("georetrieval")
    words = [program, "locate", photo, "--index", index, "--heading", "unknown", "--quiet"]

    def typed() -> None:
        subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    locator = Locator(index)
    ways = {
        "one photo from the command line (least to most of five)": typed,
        "of it after the start": lambda: locator.locate(photo, prior=Prior("unknown")),
    }
    found = []
    for what, way in ways.items():
        seconds = [timed(way) for _ in range(6)][1:]
        middle = float(np.median(seconds))
        found.append(Figure(what, middle, min(seconds), max(seconds), "{:.1f} s"))
    return found


def timed(way: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def lines(found: Sequence[Figure]) -> Iterator[str]:
    """Write the table."""
    yield "| what | figure | 95 % interval |"
    yield "|---|---|---|"
    for one in found:
        scale = 100 if one.form == SHARE else 1
        value, low, high = (one.form.format(scale * v) for v in (one.value, one.low, one.high))
        yield f"| {one.what} | {value} | {low} to {high} |"


@click.command(help="Measure how well photos are located, on the synthetic city.")
@click.option("--out", type=PATH, default=Path("study"), show_default=True)
@click.option("--places", default=2000, show_default=True, help="Places in the city.")
@click.option("--queries", default=500, show_default=True, help="Of each test at most.")
def main(out: Path, places: int, queries: int) -> None:
    """Measure how well photos are located, on the synthetic city."""
    study = Study(out, places, queries)
    out.mkdir(parents=True, exist_ok=True)
    prepare(study)
    search(study)
    found = figures(study) + seconds_for_one(study)
    values = [asdict(one) for one in found]
    (out / "localization.json").write_text(json.dumps(values, indent=2), "utf-8")
    text = "\n".join(lines(found))
    (out / "localization.md").write_text(f"{text}\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
