"""The public datasets in small, as they lie on disk: layouts, names, lists, and their traps.

Pictures are drawn: a coarse pattern of colours for each place, small but of the true shapes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, width: int, height: int) -> Path:
    """Draw what its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    cells = random.integers(0, 256, (4, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if path.suffix == ".png" else "JPEG")
    path.write_bytes(buffer.getvalue())
    return path


def write_list(path: Path, lines: Iterable[str], *, end: str = "\n", last: bool = True) -> Path:
    """Write lines, with the line ends and the missing last one that real lists have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + (end if last else "")).encode())
    return path


# --- CVUSA ---

CVUSA_TRAIN = [3, 17, 5, 12, 9, 1, 14, 6, 20, 8]
CVUSA_TEST = [11, 2, 19, 7]


def cvusa_position(number: int) -> tuple[float, float]:
    """Latitude and longitude of an id."""
    return 38.0 + 0.01 * number, -90.5 + 0.02 * (number % 4)


def make_cvusa(root: Path) -> Path:
    """One panorama and one tile are missing, and the lists have Windows line ends."""

    def line(number: int) -> str:
        name = f"{number:07d}"
        return (
            f"bingmap/19/{name}.jpg,streetview/panos/{name}.jpg,streetview/annotations/{name}.png"
        )

    write_list(root / "splits/train-19zl.csv", map(line, CVUSA_TRAIN), end="\r\n", last=False)
    write_list(root / "splits/val-19zl.csv", map(line, CVUSA_TEST))
    rows = []
    for number in range(1, 21):
        latitude, longitude = cvusa_position(number)
        rows.append(f"{latitude + 1},{longitude - 1},{latitude},{longitude},{number * 10.5}")
    write_list(root / "split_locations/all.csv", rows, last=False)
    for number in (*CVUSA_TRAIN, *CVUSA_TEST):
        if number != 17:
            draw(root / f"streetview/panos/{number:07d}.jpg", 308, 56)
        if number != 19:
            draw(root / f"bingmap/19/{number:07d}.jpg", 60, 60)
    return root


# --- CVACT ---

CVACT_IDS = [
    "-Aq3_xYz0-1bCdEfGhIjKl",
    "_-9zYxWvUtSrQpOnMlKjIh",
    "a_grdView_bcdefghijklm",
    "B1cdEfGhIjKlMnOpQrSt-_",
    *(f"plain{k:02d}-abcdefghijklm_"[:22] for k in range(14)),
]
CVACT_EAST = 690000.0 + 37.5 * np.arange(18)
CVACT_NORTH = 6090000.0 + 1000.0 * (np.arange(18) % 5)
# Counted from 1, as in the file. 18 is both in val and in test.
CVACT_SPLITS = {"train": [1, 5, 3, 2, 9, 8, 12, 10], "val": [4, 18, 6], "test": [4, 18, 7, 11, 13]}
CVACT_NO_TILE, CVACT_NO_PANORAMA = 5, 6  # numbers in the file


def make_cvact(root: Path) -> Path:
    """A train id has no tile, a val id no panorama, and each folder of the test an orphan."""
    from scipy.io import savemat

    assert {len(name) for name in CVACT_IDS} == {22}
    indices = {k: np.array(v, np.float64)[:, None] for k, v in CVACT_SPLITS.items()}
    root.mkdir(parents=True)
    savemat(
        root / "ACT_data.mat",
        {
            "panoIds": np.array(CVACT_IDS),
            "utm": np.stack([CVACT_EAST, CVACT_NORTH], axis=1),
            "trainSet": {"trainNum": 8, "trainInd": indices["train"]},
            "valSet": {"valNum": 3, "valInd": indices["val"].astype(np.int32)},
            "valSetAll": {"valNum": 5, "valInd": indices["test"]},
        },
    )
    for number in (*CVACT_SPLITS["train"], *CVACT_SPLITS["val"]):
        name = CVACT_IDS[number - 1]
        if number != CVACT_NO_PANORAMA:
            draw(root / f"ANU_data_small/streetview/{name}_grdView.jpg", 208, 104)
        if number != CVACT_NO_TILE:
            draw(root / f"ANU_data_small/satview_polish/{name}_satView_polish.jpg", 60, 60)
    for number in CVACT_SPLITS["test"]:
        name = CVACT_IDS[number - 1]
        if number != 11:
            draw(root / f"ANU_data_test/streetview/{name}_grdView.png", 128, 64)
        if number != 13:
            draw(root / f"ANU_data_test/satview_polish/{name}_satView_polish.png", 64, 64)
    (root / "ANU_data_small/streetview/Thumbs.db").write_bytes(b"no picture")
    return root


# --- VIGOR ---

VIGOR_CITIES = {
    "Chicago": (41.85, -87.68),
    "NewYork": (40.72, -73.99),
    "SanFrancisco": (37.77, -122.42),
    "Seattle": (47.61, -122.33),
}
VIGOR_STEP = 0.0003280724526  # degrees of latitude between tiles, and here of longitude too


def vigor_tiles(city: str) -> list[str]:
    """Names of a city's eight tiles."""
    latitude, longitude = VIGOR_CITIES[city]
    return [
        f"satellite_{latitude + VIGOR_STEP * (k // 2)}_{longitude + VIGOR_STEP * (k % 2)}.png"
        for k in range(8)
    ]


def vigor_panorama(city: str, k: int) -> str:
    """Name of a city's k-th panorama, near the centre of tile k."""
    latitude, longitude = VIGOR_CITIES[city]
    name = f"{'-_'[k % 2]}{city[:3]}_{k}_abcdefghijklmnopqrstuv"[:22]
    north, east = latitude + VIGOR_STEP * (k // 2), longitude + VIGOR_STEP * (k % 2)
    return f"{name},{north + 0.00001 * k:.6f},{east - 0.00002:.6f},.jpg"


def vigor_label(city: str, k: int) -> str:
    """Return a line of a list: its own tile and the three others of its square."""
    tiles = vigor_tiles(city)
    square = k // 4 * 4
    others = [m for m in range(square, square + 4) if m != k]
    words = [vigor_panorama(city, k), tiles[k], f"{-11.0 - k}", "14.5"]
    for m in others:
        words += [tiles[m], f"{300.0 - m}", f"-{322.25 + m}"]
    return " ".join(words)


# Numbers of panoramas: tiles 6 and 7 are nobody's positive.
VIGOR_TRAIN, VIGOR_TEST = (0, 1, 2), (4, 5)


def make_vigor(root: Path, *, rearranged: bool, folder: str, ending: str) -> Path:
    """Make all four cities.

    ``rearranged`` is Sample4Geo's layout; lists of labels lie in ``folder`` with ``ending``, and
    have Windows line ends and no last one. Seattle lacks a tile that is a positive, NewYork a
    panorama.
    """
    for city in VIGOR_CITIES:
        streets = f"ground/{city}" if rearranged else f"{city}/panorama"
        tiles = f"satellite/{city}" if rearranged else f"{city}/satellite"
        write_list(root / f"splits/{city}/satellite_list.txt", vigor_tiles(city), end="\r\n")
        for name, numbers in (
            ("same_area_balanced_train", VIGOR_TRAIN),
            ("same_area_balanced_test", VIGOR_TEST),
            ("pano_label_balanced", VIGOR_TRAIN + VIGOR_TEST),
        ):
            lines = [vigor_label(city, k) for k in numbers]
            write_list(root / folder / city / f"{name}{ending}.txt", lines, end="\r\n", last=False)
        for k in VIGOR_TRAIN + VIGOR_TEST:
            if (city, k) != ("NewYork", 2):
                draw(root / streets / vigor_panorama(city, k), 256, 128)
        for k, name in enumerate(vigor_tiles(city)):
            if (city, k) != ("Seattle", 1):
                draw(root / tiles / name, 64, 64)
    return root


# --- CVGlobal ---


def cvglobal_name(city: str, k: int) -> str:
    """Name of a city's k-th place; the even ones were taken in 2019, the odd ones in 2023."""
    latitude, longitude = {"Munich": (48.137, 11.575), "Sao-Paulo": (-23.55, -46.633)}[city]
    month = f"{2019 + 4 * (k % 2)}-0{k % 9 + 1}"
    name = f"-p_{city[:3]}_d{k}0_z3_abcdefghijklm"[:22]
    where = f"{latitude + 0.001 * k:.6f},{longitude - 0.001 * k:.6f}"
    return f"{where}_{month}_{name}_d{(k * 37 - 20) % 360}_z3"


CVGLOBAL_TRAIN, CVGLOBAL_TEST = tuple(range(8)), (8, 9, 10, 11)


def make_cvglobal(root: Path) -> Path:
    """Train paths are those of another machine, test paths relative; val.csv lies elsewhere."""

    def line(city: str, k: int, prefix: str) -> str:
        name, quote = cvglobal_name(city, k), '"' if prefix else ""  # the names have commas
        tile, street = f"{city}/satellite/{name}.png", f"{city}/streetview/{name}.jpg"
        return f"{quote}{prefix}{tile}{quote},{quote}{prefix}{street}{quote}"

    lists: dict[str, list[str]] = {"train": [], "val": []}
    for city in ("Munich", "Sao-Paulo"):
        lists["train"] += [line(city, k, "/data/of/them/CVGlobal/") for k in CVGLOBAL_TRAIN]
        lists["val"] += [line(city, k, "") for k in CVGLOBAL_TEST]
        for k in CVGLOBAL_TRAIN + CVGLOBAL_TEST:
            name = cvglobal_name(city, k)
            draw(root / city / "streetview" / f"{name}.jpg", 256, 128)
            draw(root / city / "satellite" / f"{name}.png", 64, 64)
            if (city, k) != ("Munich", 3):
                draw(root / city / "map" / f"{name}.png", 64, 64)
    depth = lists["train"][0].replace("_z3.jpg", "_z3_depthmap.jpg")
    lists["train"].append(depth)
    lists["val"].append(line("Munich", 99, ""))
    write_list(root / "splits_csv/train.csv", lists["train"], end="\r\n", last=False)
    write_list(root / "splits/val.csv", lists["val"])
    return root


# --- University-1652 ---


def make_university(root: Path, *, shots: int = 3) -> Path:
    """Six buildings to train on, four to test, two that distract; some folders are empty."""
    train, test, others = range(839, 845), range(4), range(1650, 1652)

    def tiles(folder: str, buildings: Iterable[int]) -> None:
        for b in buildings:
            draw(root / folder / f"{b:04d}" / f"{b:04d}.jpg", 64, 64)

    def drones(folder: str, buildings: Iterable[int]) -> None:
        for b in buildings:
            for k in range(1, shots + 1):
                draw(root / folder / f"{b:04d}" / f"image-{k:02d}.jpeg", 64, 64)

    tiles("train/satellite", train)
    drones("train/drone", train)
    tiles("test/query_satellite", test)
    tiles("test/gallery_satellite", [*test, *others])
    drones("test/query_drone", test)
    drones("test/gallery_drone", [*test, *others])
    for empty in ("train/google/1057", "train/drone/1100", "test/gallery_drone/1649"):
        (root / empty).mkdir(parents=True)
    return root


def tiny(*branches: str) -> Sequence[str]:
    """Options that make a recipe train in seconds, with random weights."""
    words = ["evaluate_every=1"]
    for branch in branches:
        words += [
            f"{branch}.encoder.name=test_convnext2",
            f"{branch}.encoder.pretrained=false",
            f"{branch}.encoder.query_size=[32,{64 if branch == 'panorama' else 32}]",
            f"{branch}.encoder.reference_size=[32,32]",
            f"{branch}.sampling.batch_size=4",
            f"{branch}.optim.epochs=1",
            f"{branch}.optim.precision=float32",
        ]
    return [word for setting in words for word in ("--set", setting)]
