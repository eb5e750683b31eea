"""The pipelines of the public datasets, on folders with exactly their layouts and traps."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import bevgen
from bevgen.errors import InputError
from bevgen.tables import Pair
from georetrieval.config import load_settings, recipes
from georetrieval.data.neighbours import geographic_neighbours
from georetrieval.data.pairs import join
from georetrieval.data.positions import distances
from pipelines import cvact, cvglobal, cvusa, datasets, university1652, vigor
from pipelines.datasets import Dataset
from tests.helpers import raw_datasets as raw
from tests.helpers.paths import ROOT

MEAN_RADIUS = 6371008.8


def run(name: str, *options: str | Path, code: int = 0) -> str:
    """Run a pipeline as a user does; return what it printed."""
    line = [sys.executable, "-m", f"pipelines.{name}", *map(str, options)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(data: Dataset, name: str = "pairs.csv") -> dict[str, list[tuple[str, str, str]]]:
    """Return (query, reference, role) by split."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for pair in data.pairs[name]:
        found.setdefault(pair.split, []).append((pair.query, pair.reference, pair.role))
    return found


def queries_of(data: Dataset, split: str, name: str = "pairs.csv") -> list[str]:
    return [p.query for p in data.pairs[name] if p.split == split and p.role == "positive"]


def haversine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres between all of two lists of latitudes and longitudes in degrees, (n, m)."""
    (lat1, lon1), (lat2, lon2) = np.radians(a).T[..., None], np.radians(b).T[:, None]
    part = np.sin((lat2 - lat1) / 2) ** 2
    part = part + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * MEAN_RADIUS * np.arcsin(np.sqrt(part))


def evaluation(run_folder: Path, name: str = "test") -> dict[str, object]:
    return json.loads((run_folder / f"evaluation-{name}.json").read_text("utf-8"))


# --- what they share ---


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lists_are_read_however_they_end(tmp_path, end, last):
    path = raw.write_list(tmp_path / "list.txt", ["-a_b", "", "c,d "], end=end, last=last)
    assert datasets.read_lines(path) == ["-a_b", "c,d"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert datasets.read_lines(path) == ["-a_b", "c,d"]


def test_a_short_line_is_named(tmp_path):
    path = raw.write_list(tmp_path / "list.csv", ["a,b", "c"])
    with pytest.raises(InputError, match=r"list.csv, line 2: expected 2 columns"):
        datasets.read_columns(path, 2)


@pytest.mark.parametrize(
    ("east", "north", "zone", "south", "latitude", "longitude"),
    [
        # Flinders Peak, the worked example of the GDA technical manual.
        (273741.297, 5796489.777, 55, True, -37.9510334167, 144.4248678889),
        # By PROJ 9: Canberra twice, and Munich.
        (692500.25, 6090300.75, 55, True, -35.311991279438, 149.117461430567),
        (712345.678, 6101234.567, 55, True, -35.209464139031, 149.332776721168),
        (691603.0, 5334677.0, 32, False, 48.136473981087, 11.575453225521),
    ],
)
def test_utm_becomes_degrees(east, north, zone, south, latitude, longitude):
    found = datasets.from_utm(np.array([east]), np.array([north]), zone, south=south)
    metres = haversine(np.array([[latitude, longitude]]), np.array([[found[0][0], found[1][0]]]))
    assert metres[0, 0] < 1e-3


def test_places_are_held_out_whole_and_always_the_same():
    pairs = [Pair(f"q{k}", f"r{k // 2}", split="train") for k in range(2000)]
    pairs += [Pair(f"q{k}", f"s{k}", "semi", split="train") for k in range(2000)]
    pairs += [Pair("t", "r1", split="test")]
    split = datasets.hold_out(pairs, 0.1)
    val = {p.query for p in split if p.split == "val" and p.role == "positive"}
    train = {p.query for p in split if p.split == "train" and p.role == "positive"}
    assert len(val | train) == 2000
    assert not val & train
    assert 150 <= len(val) <= 250
    # Two queries of one place go together, and a longer list changes nothing for the others.
    assert {int(q[1:]) // 2 for q in val}.isdisjoint({int(q[1:]) // 2 for q in train})
    longer = datasets.hold_out([*pairs, Pair("more", "beyond", split="train")], 0.1)
    assert {p.query for p in longer if p.split == "val" and p.role == "positive"} - {"more"} == val
    # Semi-positives follow their query, and val is searched among all that training has.
    assert {p.query for p in split if p.split == "val" and p.role == "semi"} == val
    searched = {p.reference for p in split if p.split == "val" and p.role == "gallery"}
    assert searched == {p.reference for p in pairs if p.split == "train"}
    assert datasets.hold_out(pairs, 0.0) == pairs


def test_steps_tell_what_they_miss(tmp_path):
    text = run("cvusa", "--root", tmp_path / "no", "--out", tmp_path, "--step", "check", code=2)
    assert f"error: {tmp_path / 'no'} is no folder: expected " in text
    assert "splits/train-19zl.csv" in text
    text = run("cvusa", "--root", tmp_path, "--out", tmp_path, "--step", "train", code=2)
    assert "run the step poses first" in text
    text = run("cvact", "--root", tmp_path, "--out", tmp_path, "--step", "neighbours", code=2)
    assert f"{tmp_path / 'utm.csv'} does not exist: run the step poses first" in text
    assert "Traceback" not in text


# --- CVUSA ---


def test_cvusa_is_read(tmp_path):
    data = cvusa.read(raw.make_cvusa(tmp_path / "CVUSA"), 0.0)
    assert data.skipped == [("0000017", "no panorama"), ("0000019", "no satellite tile")]
    # What is missing shifts nothing: each id keeps its files and its own line of all.csv.
    train = [f"{n:07d}" for n in raw.CVUSA_TRAIN if n != 17]
    test = [f"{n:07d}" for n in raw.CVUSA_TEST if n != 19]
    assert queries_of(data, "train") == train
    assert queries_of(data, "test") == test
    assert all(pair.query == pair.reference for pair in data.pairs["pairs.csv"])
    assert data.counts == [("train", 9, 35532), ("test", 3, 8884)]
    for image in data.views["panorama"]:
        assert image.file == f"streetview/panos/{image.id}.jpg"
        assert (image.latitude, image.longitude) == raw.cvusa_position(int(image.id))
    assert [i.file for i in data.views["satellite"]] == [
        f"bingmap/19/{i.id}.jpg" for i in data.views["panorama"]
    ]


def test_cvusa_takes_the_longitude_by_its_sign(tmp_path):
    root = raw.make_cvusa(tmp_path / "CVUSA")
    path = root / "split_locations/all.csv"
    rows = [line.split(",") for line in datasets.read_lines(path)]
    before = cvusa.read_positions(root)
    raw.write_list(path, [",".join([a, b, d, c, e]) for a, b, c, d, e in rows])
    assert cvusa.read_positions(root) == before
    assert before[2] == raw.cvusa_position(3)
    path.rename(root / "moved.csv")
    (root / "CVPR_subset").mkdir()
    (root / "moved.csv").rename(root / "CVPR_subset/all.csv")
    assert cvusa.read_positions(root) == before
    for cell in ("nowhere", "91.5"):
        raw.write_list(root / "CVPR_subset/all.csv", [f"1,2,{cell},-90.0,5"])
        with pytest.raises(InputError, match=r"all.csv, line 1"):
            cvusa.read_positions(root)
    (root / "CVPR_subset/all.csv").unlink()
    assert cvusa.read(root, 0.0).views["panorama"][0].latitude is None


def test_cvusa_lines_that_make_no_sense_are_skipped(tmp_path):
    root = raw.make_cvusa(tmp_path / "CVUSA")
    path = root / "splits/train-19zl.csv"
    lines = datasets.read_lines(path)
    other = "bingmap/19/0000003.jpg,streetview/panos/0000005.jpg,x.png"
    raw.write_list(path, [*lines, lines[0], other])
    reasons = Counter(reason for _, reason in cvusa.read(root, 0.0).skipped)
    assert reasons["listed twice"] == 1
    assert reasons["panorama and satellite tile have different ids"] == 1


def test_cvusa_from_folder_to_table(tmp_path):
    root, out = raw.make_cvusa(tmp_path / "CVUSA 1"), tmp_path / "out"  # a space in the path
    text = run(
        "cvusa", "--root", root, "--out", out, "--hold-out", 0.2, *raw.tiny("panorama", "bev")
    )
    assert "R@1" in text
    assert "9    35,532" in text
    assert "neighbours of each of 7 places" in text
    assert (out / "neighbours-pairs-train.npz").exists()
    assert table(out / "skipped.csv") == [
        {"id": "0000017", "reason": "no panorama"},
        {"id": "0000019", "reason": "no satellite tile"},
    ]
    found = evaluation(out / "run")
    assert sorted(found["queries"]) == ["0000002", "0000007", "0000011"]
    assert found["gallery"] == 3
    names = [method["name"] for method in found["methods"]]
    assert names == ["panorama", "bev", "both", "both, weight chosen"]
    with bevgen.ShardSet(out / "bev.h5") as bevs:
        assert len(bevs) == 12
        # Ground below the panorama's lower edge is not seen: a disc of 2.5 m / tan(26.9 degrees).
        unseen = ~bevs.valid(0)
        assert unseen[192, 192]
        radius = np.sqrt(unseen.sum() / np.pi) * 0.13333
        assert radius == pytest.approx(2.5 / np.tan(np.radians(26.9)), rel=0.03)
        check_neighbours(bevs, out / "pairs.csv")
    # Each step alone goes on where it stopped: nothing is made again.
    before = (out / "bev.h5").stat().st_mtime_ns
    run("cvusa", "--root", root, "--out", out, "--step", "poses", "--step", "convert",
        "--hold-out", 0.2)  # fmt: skip
    assert (out / "bev.h5").stat().st_mtime_ns == before
    weights = (out / "run/bev.safetensors").read_bytes()
    text = run(
        "cvusa", "--root", root, "--out", out, "--step", "train", *raw.tiny("panorama", "bev")
    )
    assert "--resume" in text
    assert (out / "run/bev.safetensors").read_bytes() == weights


def check_neighbours(queries: bevgen.ShardSet, pairs: Path) -> None:
    """What training takes for neighbours is what brute force finds on the sphere, in radians."""
    train = join(queries, queries, pairs, "train").positions
    near = geographic_neighbours(train, 4)
    metres = haversine(train, train)
    assert not np.isnan(metres).any()
    own = np.take_along_axis(metres, near.astype(np.int64), axis=1)
    expected = np.sort(metres, axis=1)[:, 1 : 1 + near.shape[1]]
    np.testing.assert_allclose(own, expected, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(distances(train, train[near[:, 0]]), own[:, 0], rtol=1e-9)


def test_cvusa_without_positions_has_no_neighbours(tmp_path):
    root, out = raw.make_cvusa(tmp_path / "CVUSA"), tmp_path / "out"
    shutil.rmtree(root / "split_locations")
    text = run("cvusa", "--root", root, "--out", out, "--step", "poses", "--step", "neighbours",
               "--hold-out", 0)  # fmt: skip
    assert "no neighbours: 9 training places have no position" in text
    assert not list(out.glob("*.npz"))


# --- CVACT ---


def test_cvact_is_read(tmp_path):
    data = cvact.read(raw.make_cvact(tmp_path / "CVACT"), 0.0)
    ids = raw.CVACT_IDS

    def named(folder: str, numbers: Sequence[int]) -> list[str]:
        return [f"{folder}/{ids[n - 1]}" for n in numbers]

    # In the file's order, counted from 1; those with one image leave the others where they were.
    assert queries_of(data, "train") == named("small", [1, 3, 2, 9, 8, 12, 10])
    assert queries_of(data, "cvact-val") == named("small", [4, 18])
    assert not queries_of(data, "val")
    assert queries_of(data, "test") == sorted(named("test", [4, 18, 7]))
    assert sorted(data.skipped) == sorted(
        [
            (f"small/{ids[4]}", "no satellite tile in ANU_data_small"),
            (f"small/{ids[5]}", "no panorama in ANU_data_small"),
            (f"test/{ids[10]}", "no panorama in ANU_data_test"),
            (f"test/{ids[12]}", "no satellite tile in ANU_data_test"),
        ]
    )
    files = {image.id: image.file for image in data.views["panorama"]}
    tiles = {image.id: image.file for image in data.views["satellite"]}
    for place, file in files.items():
        folder, name = place.split("/")
        ending = "png" if folder == "test" else "jpg"
        assert file == f"ANU_data_{folder}/streetview/{name}_grdView.{ending}"
        assert tiles[place] == f"ANU_data_{folder}/satview_polish/{name}_satView_polish.{ending}"
    assert {"-Aq3_xYz0-1bCdEfGhIjKl", "a_grdView_bcdefghijklm"} <= {
        place.split("/")[1] for place in files
    }


def test_cvact_neighbours_are_those_of_utm(tmp_path):
    """Also after UTM became degrees and degrees became points on a sphere."""
    random = np.random.default_rng(0)
    plane = np.stack(
        [692500 + random.uniform(-6e3, 6e3, 900), 6.09e6 + random.uniform(-6e3, 6e3, 900)]
    )
    latitude, longitude = datasets.from_utm(*plane, 55, south=True)
    near = geographic_neighbours(np.stack([latitude, longitude], axis=1), 32)
    metres = np.linalg.norm(plane.T[:, None] - plane.T[None], axis=2)
    own = np.sort(np.take_along_axis(metres, near.astype(np.int64), axis=1), axis=1)
    # The earth is no sphere: by half a per cent, and the grid's scale by a tenth of that.
    np.testing.assert_allclose(own, np.sort(metres, axis=1)[:, 1:33], rtol=0.006)


def test_cvact_refuses_other_mat_files(tmp_path):
    from scipy.io import loadmat, savemat

    path = raw.make_cvact(tmp_path / "CVACT") / "ACT_data.mat"
    good = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    lists = cvact.read_mat(path)
    assert lists.splits["train"].tolist() == [0, 4, 2, 1, 8, 7, 11, 9]
    assert lists.splits["cvact-val"].tolist() == [3, 17, 5]
    assert lists.ids == raw.CVACT_IDS
    savemat(path, good | {"trainSet": {"trainNum": 1, "trainInd": np.array([[0], [3]])}})
    with pytest.raises(InputError, match="train has indices outside 1 to 18"):
        cvact.read_mat(path)
    savemat(path, good | {"utm": np.zeros((3, 2))})
    with pytest.raises(InputError, match="18 panoIds"):
        cvact.read_mat(path)
    savemat(path, {"panoIds": good["panoIds"]})
    with pytest.raises(InputError, match="not the ACT_data"):
        cvact.read_mat(path)
    path.write_bytes(b"MATLAB")
    with pytest.raises(InputError, match="not the ACT_data"):
        cvact.read_mat(path)


def test_cvact_does_not_take_what_macos_adds_for_places(tmp_path):
    root = raw.make_cvact(tmp_path / "CVACT")
    known = cvact.read(root, 0.0)
    for path in [*root.rglob("*_grdView.*"), *root.rglob("*_satView_polish.*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert cvact.read(root, 0.0) == known


def test_cvact_refuses_two_files_of_one_place(tmp_path):
    root = raw.make_cvact(tmp_path / "CVACT")
    name = f"{raw.CVACT_IDS[0]}_satView_polish"
    raw.draw(root / f"ANU_data_small/satview_polish/{name}.png", 60, 60)
    with pytest.raises(InputError, match=rf"{name}.jpg and {name}.png in .* have one id"):
        cvact.read(root, 0.0)


def test_cvact_without_the_test_images(tmp_path):
    root = raw.make_cvact(tmp_path / "CVACT")
    shutil.rmtree(root / "ANU_data_test")
    tiles = root / "ANU_data_small/satview_polish"
    tiles.rename(tiles.with_name("satview_correct"))  # as it was released again
    data = cvact.read(root, 0.0)
    assert len(queries_of(data, "train")) == 7
    assert not queries_of(data, "test")
    assert "satview_correct" in data.views["satellite"][0].file


def test_cvact_from_folder_to_tables(tmp_path):
    root, out = raw.make_cvact(tmp_path / "CVACT"), tmp_path / "out"
    text = run(
        "cvact", "--root", root, "--out", out, "--hold-out", 0.3, *raw.tiny("panorama", "bev")
    )
    assert text.count("queries of split") == 2
    val, test = evaluation(out / "run", "cvact-val"), evaluation(out / "run", "test")
    assert sorted(val["queries"]) == sorted(f"small/{raw.CVACT_IDS[n - 1]}" for n in (4, 18))
    assert val["gallery"] == 2
    # Weights were chosen by places of the training, whole and in no test.
    assert "validation_split" not in text
    rows = [row for row in table(out / "pairs.csv") if row["role"] == "positive"]
    split = {row["query"]: row["split"] for row in rows}
    assert len(rows) == len(split) == 12
    train = {f"small/{raw.CVACT_IDS[n - 1]}" for n in (1, 3, 2, 9, 8, 12, 10)}
    assert {query for query in split if split[query] in ("train", "val")} == train
    assert 1 <= sum(name == "val" for name in split.values()) < len(train) - 2
    assert test["gallery"] == 3
    assert sorted(test["queries"]) == sorted(f"test/{raw.CVACT_IDS[n - 1]}" for n in (4, 18, 7))
    with bevgen.ShardSet(out / "panorama.h5") as panoramas:
        assert panoramas.image_shape == (140, 768, 3)
        assert f"small/{raw.CVACT_IDS[0]}" in panoramas.ids
        row = panoramas.row(f"small/{raw.CVACT_IDS[2]}")
        latitude, longitude = datasets.from_utm(
            raw.CVACT_EAST[2:3], raw.CVACT_NORTH[2:3], 55, south=True
        )
        assert panoramas.columns["latitude"][row] == pytest.approx(latitude[0], abs=1e-9)
        assert panoramas.columns["longitude"][row] == pytest.approx(longitude[0], abs=1e-9)
        check_neighbours(panoramas, out / "pairs.csv")
    # Those that training began with are the plane's.
    places = [query for query in split if split[query] == "train"]
    numbers = [raw.CVACT_IDS.index(place.split("/")[1]) for place in places]
    plane = np.stack([raw.CVACT_EAST, raw.CVACT_NORTH], axis=1)[numbers]
    metres = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    with np.load(out / "neighbours-pairs-train.npz") as near:
        assert near["ids"].tolist() == places
        assert (str(near["source"]), bool(near["planar"])) == ("utm.csv", True)
        own = np.take_along_axis(metres, near["neighbours"].astype(np.int64), axis=1)
        np.testing.assert_array_equal(own, np.sort(metres, axis=1)[:, 1:])
        np.testing.assert_allclose(near["metres"], own, rtol=1e-6)
    # Lines are broken at the terminal's width.
    assert f"neighboursonthemap:{out}/neighbours-pairs-train.npz,fromutm.csv" in "".join(
        text.split()
    )


def test_cvact_without_held_out_places_validates_as_was_done(tmp_path):
    root, out = raw.make_cvact(tmp_path / "CVACT"), tmp_path / "out"
    run("cvact", "--root", root, "--out", out, "--step", "poses", "--hold-out", 0)
    assert {row["split"] for row in table(out / "pairs.csv")} == {"train", "cvact-val", "test"}
    text = run("cvact", "--root", root, "--out", out, "--step", "train", code=1)  # no shards yet
    assert "--recipe cvact --set data.validation_split=cvact-val\n" in text


# --- VIGOR ---

# From the corrected labels as they were published (SliceMatch), shortened to one semi-positive.
REAL = (
    "KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg"
    " satellite_41.8543505796211_-87.68282621216503.png -71.0 -141.0"
    " satellite_41.8543505796211_-87.68238562277327.png -74.0 188.0"
    " satellite_41.8546786520737_-87.68282621216503.png 255.0 -141.0"
    " satellite_41.8546786520737_-87.68238562277327.png 253.0 188.0"
)


def test_vigor_labels_say_where_the_camera_is(tmp_path):
    path = raw.write_list(tmp_path / "list.txt", [REAL], end="\r\n", last=False)
    (label,) = vigor.read_labels(path)
    assert label.panorama == "KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg"
    assert [tile[1:] for tile in label.tiles] == [(-71, -141), (-74, 188), (255, -141), (253, 188)]
    # Pixels right and down of a tile's centre, from latitudes and longitudes alone.
    for name, d_row, d_col in label.tiles:
        latitude, longitude = map(float, name[:-4].split("_")[1:])
        north = np.radians(41.854423 - latitude) * 6378137
        east = np.radians(-87.682638 - longitude) * 6378137 * np.cos(np.radians(latitude))
        assert 320 - north / 0.111262 == pytest.approx(320 + d_row, abs=6)
        assert 320 + east / 0.111262 == pytest.approx(320 - d_col, abs=6)
    for bad in (REAL.rsplit(" ", 1)[0], REAL.replace("-71.0", "north")):
        raw.write_list(path, [REAL, bad])
        with pytest.raises(InputError, match=r"list.txt, line 2"):
            vigor.read_labels(path)


def test_vigor_is_the_same_in_both_layouts(tmp_path):
    kinds = {"rearranged": True, "folder": "splits__corrected", "ending": "__corrected"}
    one = vigor.read(raw.make_vigor(tmp_path / "one", **kinds), 0.0, "any")
    kinds = {"rearranged": False, "folder": "splits", "ending": ""}
    two = vigor.read(raw.make_vigor(tmp_path / "two", **kinds), 0.0, "any")
    assert one.pairs == two.pairs
    assert [i.id for i in one.views["panorama"]] == [i.id for i in two.views["panorama"]]
    assert one.views["panorama"][0].file.startswith("ground/Chicago/")
    assert two.views["panorama"][0].file.startswith("Chicago/panorama/")
    assert one.counts == two.counts
    with pytest.raises(InputError, match="corrected labels of Chicago"):
        vigor.find_cities(tmp_path / "two", "corrected")


def test_vigor_takes_the_corrected_labels(tmp_path):
    root = raw.make_vigor(
        tmp_path / "VIGOR", rearranged=False, folder="splits_new", ending="__corrected"
    )
    for city in raw.VIGOR_CITIES:
        folder = root / "splits_new" / city
        for path in folder.iterdir():
            lines = datasets.read_text(path).replace(" -11.0 ", " -99.0 ")
            name = path.name.replace("__corrected", "")
            raw.write_list(root / "splits" / city / name, lines.splitlines())

    def first(labels: str) -> float | None:
        return vigor.read(root, 0.0, labels).pairs["pairs-same.csv"][0].d_row

    assert (first("any"), first("corrected"), first("original")) == (-11, -11, -99)

    def said(*words: str) -> list[str]:
        text = run("vigor", "--root", root, "--out", tmp_path, "--step", "check", *words)
        return [line for line in text.splitlines() if line.startswith("labels of")]

    assert said()[0] == "labels of Chicago: corrected, in splits_new/Chicago"
    assert said("--labels", "original")[3] == "labels of Seattle: original, in splits/Seattle"
    (root / "splits_new" / "NewYork" / "pano_label_balanced__corrected.txt").unlink()
    assert said()[1] == (
        "labels of NewYork: same_area_balanced_train and same_area_balanced_test corrected, in"
        " splits_new/NewYork; pano_label_balanced original, in splits/NewYork"
    )


def test_vigor_is_read(tmp_path):
    root = raw.make_vigor(
        tmp_path / "VIGOR", rearranged=True, folder="splits__corrected", ending="__corrected"
    )
    data = vigor.read(root, 0.0, "any")
    tile = f"Seattle/{Path(raw.vigor_tiles('Seattle')[1]).stem}"
    panorama = f"NewYork/{raw.vigor_panorama('NewYork', 2).split(',')[0]}"
    blind = f"Seattle/{raw.vigor_panorama('Seattle', 1).split(',')[0]}"
    assert sorted(data.skipped) == sorted(
        [
            (panorama, "no panorama"),
            (tile, "no satellite tile"),
            (blind, "its tile is missing (same_area_balanced_train)"),
            (blind, "its tile is missing (pano_label_balanced)"),
        ]
    )
    tiles = {image.id for image in data.views["satellite"]}
    assert len(tiles) == 31
    for name, counts in (("pairs-same.csv", (10, 8)), ("pairs-cross.csv", (8, 10))):
        train, test = (queries_of(data, split, name) for split in ("train", "test"))
        assert (len(train), len(test)) == counts
        assert not set(train) & set(test)
        assert len(set(train)) == len(train)
    assert {q.split("/")[0] for q in queries_of(data, "train", "pairs-cross.csv")} == {
        "NewYork", "Seattle"
    }  # fmt: skip
    # By hand: Chicago's panorama 2 lies in the square of tiles 0 to 3.
    own = [p for p in data.pairs["pairs-same.csv"] if p.query.startswith("Chicago/-Chi_2")]
    names = [f"Chicago/{Path(name).stem}" for name in raw.vigor_tiles("Chicago")]
    assert [(p.reference, p.role, p.d_row, p.d_col, p.split) for p in own] == [
        (names[2], "positive", -13.0, 14.5, "train"),
        (names[0], "semi", 300.0, -322.25, "train"),
        (names[1], "semi", 299.0, -323.25, "train"),
        (names[3], "semi", 297.0, -325.25, "train"),
    ]
    # All tiles of a split's cities are searched: those of training and those of nobody too.
    same = {p.reference for p in data.pairs["pairs-same.csv"] if p.split == "test"}
    assert same == tiles
    cross = {p.reference for p in data.pairs["pairs-cross.csv"] if p.split == "test"}
    assert cross == {t for t in tiles if t.startswith(("Chicago", "SanFrancisco"))}
    for image in data.views["panorama"]:
        near = raw.VIGOR_CITIES[image.id.split("/")[0]]
        assert abs(image.latitude - near[0]) < 0.01
        assert abs(image.longitude - near[1]) < 0.01


def test_vigor_takes_each_tile_once(tmp_path):
    root = raw.make_vigor(tmp_path / "VIGOR", rearranged=False, folder="splits", ending="")
    known = vigor.read(root, 0.0, "any")
    with (root / "splits/Chicago/satellite_list.txt").open("a") as file:
        file.write(raw.vigor_tiles("Chicago")[0])
    assert vigor.read(root, 0.0, "any") == known


def test_vigor_of_one_city_has_no_cross_area(tmp_path):
    root = raw.make_vigor(tmp_path / "VIGOR", rearranged=False, folder="splits", ending="")
    for city in ("NewYork", "SanFrancisco", "Seattle"):
        shutil.rmtree(root / city)
    data = vigor.read(root, 0.0, "any")
    assert list(data.pairs) == ["pairs-same.csv"]
    # Who has unpacked one part of a city misses all of it, and sees so.
    assert ("NewYork, tiles", 0, 23279) in data.counts
    assert {p.reference.split("/")[0] for p in data.pairs["pairs-same.csv"]} == {"Chicago"}


def test_vigor_from_folder_to_tables(tmp_path):
    root = raw.make_vigor(
        tmp_path / "VIGOR", rearranged=False, folder="splits__corrected", ending="__corrected"
    )
    out = tmp_path / "out"
    run("vigor", "--root", root, "--out", out, "--step", "poses", "--step", "convert",
        "--step", "pack", "--hold-out", 0.3)  # fmt: skip
    text = run(
        "vigor", "--root", root, "--out", out, "--step", "neighbours", "--step", "train",
        "--step", "evaluate",
        "--protocol", "cross", *raw.tiny("panorama", "bev"),
    )  # fmt: skip
    assert "hit rate" in text
    assert [path.name for path in out.glob("*.npz")] == ["neighbours-pairs-cross-train.npz"]
    found = evaluation(out / "run-cross")
    assert len(found["queries"]) == 10
    assert found["gallery"] == 16
    with (
        bevgen.ShardSet(out / "panorama.h5") as queries,
        bevgen.ShardSet(out / "satellite.h5") as references,
    ):
        for name, size in (("same", 31), ("cross", 16)):
            pairs = join(queries, references, out / f"pairs-{name}.csv", "test")
            assert len(pairs.gallery) == size
            assert {len(semi) for semi in pairs.semi} == {3}
        val = join(queries, references, out / "pairs-cross.csv", "val")
        assert {references.ids[k].split("/")[0] for k in val.gallery} == {"NewYork", "Seattle"}
        assert len(val.gallery) == 15
    # One output for all cities, each city's views at the scale of its own tiles.
    scales = {"Chicago": 0.111262, "NewYork": 0.113248, "SanFrancisco": 0.118141}
    with bevgen.ShardSet(out / "bev.h5") as bevs:
        for city, metres in (scales | {"Seattle": 0.100817}).items():
            name = raw.vigor_panorama(city, 0)
            panorama = np.asarray(Image.open(root / city / "panorama" / name).convert("RGB"))
            own = bevgen.project(panorama, height=3.1, resolution=metres * 640 / 384, size=384)
            stored = bevs[bevs.row(f"{city}/{name.split(',')[0]}")]
            assert np.abs(own.astype(int) - stored).max() <= 1


# --- CVGlobal ---


def test_cvglobal_is_read(tmp_path):
    data = cvglobal.read(raw.make_cvglobal(tmp_path / "CVGlobal"), 0.0, cvglobal.Protocol())
    reasons = Counter(reason for _, reason in data.skipped)
    assert reasons == {
        "no map tile": 1,
        "no panorama": 1,
        "a depth map, not a panorama": 1,
    }
    train, test = queries_of(data, "train"), queries_of(data, "test")
    names = [raw.cvglobal_name("Munich", k) for k in raw.CVGLOBAL_TRAIN]
    assert train[:8] == [f"Munich/streetview/{name}" for name in names]
    assert (len(train), len(test)) == (16, 8)
    assert not set(train) & set(test)
    # One id for the tile of a place, satellite or map.
    assert data.pairs["pairs.csv"][0].reference == f"Munich/{names[0]}"
    assert len(data.views["map"]) == len(data.views["satellite"]) - 1 == 23
    assert {i.id for i in data.views["map"]} < {i.id for i in data.views["satellite"]}
    for image in (*data.views["panorama"], *data.views["map"]):
        k = next(k for k in range(12) if raw.cvglobal_name(image.id.split("/")[0], k) in image.file)
        south = image.id.startswith("Sao-Paulo")
        assert image.latitude == pytest.approx((-23.55 if south else 48.137) + 0.001 * k)


def test_cvglobal_protocols(tmp_path):
    root = raw.make_cvglobal(tmp_path / "CVGlobal")
    protocol = cvglobal.Protocol(cities=("Munich",))
    data = cvglobal.read(root, 0.0, protocol)
    assert {q.split("/")[0] for q in queries_of(data, "train", protocol.pairs)} == {"Sao-Paulo"}
    assert {q.split("/")[0] for q in queries_of(data, "test", protocol.pairs)} == {"Munich"}
    assert len(queries_of(data, "test", protocol.pairs)) == 12
    protocol = cvglobal.Protocol(since="2021-06")
    data = cvglobal.read(root, 0.0, protocol)
    train, test = (queries_of(data, split, protocol.pairs) for split in ("train", "test"))
    assert {q.split("_")[1][:4] for q in train} == {"2019"}
    assert {q.split("_")[1][:4] for q in test} == {"2023"}
    assert (len(train), len(test)) == (8, 4)
    # All images stay in the shards, which serve every protocol.
    assert len(data.views["panorama"]) == 24
    # What would be noticed only when all is trained.
    for protocol, said in (
        (
            cvglobal.Protocol(cities=("Munich", "SaoPaulo")),
            "SaoPaulo .* there are Munich, Sao-Paulo",
        ),
        (cvglobal.Protocol(cities=("Munich", "Sao-Paulo")), "--test-city leaves nothing .* train"),
        (cvglobal.Protocol(since="2031-01"), "--test-since leaves nothing .* test"),
    ):
        with pytest.raises(InputError, match=said):
            cvglobal.read(root, 0.0, protocol)


def test_cvglobal_from_folder_to_table(tmp_path):
    root, out = raw.make_cvglobal(tmp_path / "CVGlobal"), tmp_path / "out"
    text = run(
        "cvglobal", "--root", root, "--out", out, "--hold-out", 0.2, "--reference", "map",
        "--test-city", "Munich", *raw.tiny("panorama", "bev"),
    )  # fmt: skip
    assert "R@1" in text
    # Munich is the test: nobody looks at its pairs. In noise nothing is found, and it goes on.
    assert "no calibration of Munich: it takes 8 training pairs, there are 0" in text
    assert "2.5 m, by preset cvglobal, assumed (calibration-Sao-Paulo.json: not found)" in text
    heights = [(row["cameras"], row["height"]) for row in table(out / "heights.csv")]
    assert heights == [("Munich", "2.5"), ("Sao-Paulo", "2.5")]
    found = evaluation(out / "run-Munich-map")
    assert found["gallery"] == len(found["queries"]) == 11  # one has no map
    assert (out / "neighbours-pairs-Munich-train.npz").exists()
    assert {query.split("/")[0] for query in found["queries"]} == {"Munich"}
    with bevgen.ShardSet(out / "bev.h5") as bevs:
        for k in (0, 5, 9):
            name = f"Sao-Paulo/streetview/{raw.cvglobal_name('Sao-Paulo', k)}"
            heading = bevs.columns["heading"][bevs.row(name)]
            assert heading == (k * 37 - 20) % 360
        # North is up though the panorama's centre looks elsewhere.
        path = root / f"{name}.jpg"
        panorama = np.asarray(Image.open(path).convert("RGB"))
        own = bevgen.project(
            panorama, height=2.5, resolution=0.13333, size=384, heading=float(heading)
        )
        assert np.abs(own.astype(int) - bevs[bevs.row(name)]).max() <= 1
    with bevgen.ShardSet(out / "panorama.h5") as panoramas:
        # So is it in the middle of the panorama branch's images.
        row = panoramas.row(name)
        assert panoramas.columns["heading"][row] == 0
        rolled = np.roll(panorama, round(heading * panorama.shape[1] / 360), axis=1)
        resized = Image.fromarray(rolled).resize((768, 384), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(panoramas[row], np.asarray(resized))
    again = run("cvglobal", "--root", root, "--out", out, "--step", "convert", "--heading",
                "unknown", code=1)  # fmt: skip
    assert "heading: None there, 0.0 now" in again


# --- University-1652 ---


def test_university_is_read(tmp_path):
    both = university1652.read(raw.make_university(tmp_path / "U"))
    drone, satellite = both["drone-to-satellite"], both["satellite-to-drone"]
    assert drone.skipped == [("train/drone/1100", "an empty folder")]
    assert satellite.skipped == [("test/gallery_drone/1649", "an empty folder")]
    train, test = rows_of(drone)["train"], rows_of(drone)["test"]
    assert len(train) == 18
    assert train[0] == ("train/drone/0839/image-01", "train/satellite/0839/0839", "positive")
    assert len(test) == 12
    for query, reference, _ in (*train, *test):
        assert query.split("/")[2] == reference.split("/")[2]
    # Buildings 1650 and 1651 distract: searched, and nobody's.
    tiles = {image.id for image in drone.views["reference"]}
    assert tiles - {r for _, r, _ in (*train, *test)} == {
        "test/gallery_satellite/1650/1650", "test/gallery_satellite/1651/1651"
    }  # fmt: skip
    back = rows_of(satellite)["test"]
    assert Counter(query for query, _, _ in back) == {
        f"test/query_satellite/{b:04d}/{b:04d}": 3 for b in range(4)
    }
    assert len(satellite.views["reference"]) == 18


def test_university_batches_hold_each_building_once(tmp_path):
    from georetrieval.training.sampling import plan_batches

    train = rows_of(university1652.read(raw.make_university(tmp_path / "U"))["drone-to-satellite"])
    buildings = np.array([int(reference[-4:]) for _, reference, _ in train["train"]])
    settings = load_settings(recipes()["university1652"]).panorama
    assert settings is not None
    assert settings.sampling.mine_every == 0
    for batch in plan_batches(buildings, None, batch_size=4, take=0, seed=1):
        assert len(set(buildings[batch])) == len(batch) == 4


def test_university_from_folder_to_tables(tmp_path):
    root, out = raw.make_university(tmp_path / "U"), tmp_path / "out"
    steps = ["--step", "check", "--step", "tables", "--step", "pack", "--step", "train"]
    sizes = ["--set", "panorama.encoder.query_size=[32,32]"]
    run("university1652", "--root", root, "--out", out, *steps, *raw.tiny("panorama"), *sizes)
    with bevgen.ShardSet(out / "drone-to-satellite/query.h5") as drones:
        assert drones.kind == "drone"
        assert len(drones) == 30
    assert (out / "run/panorama.safetensors").exists()
    text = run("university1652", "--root", root, "--out", out, "--step", "evaluate")
    assert "AP" in text
    for name, queries, gallery in (
        ("drone-to-satellite-all", 12, 6),
        ("drone-to-satellite-matched", 12, 4),
        ("satellite-to-drone-all", 4, 18),
        ("satellite-to-drone-matched", 4, 12),
    ):
        found = evaluation(out / "run", name)
        assert (len(found["queries"]), found["gallery"]) == (queries, gallery)


# --- a trial, and the recipes ---


def test_a_trial_takes_a_few_of_each_split(tmp_path):
    root, out = raw.make_cvusa(tmp_path / "CVUSA"), tmp_path / "out"
    datasets.write_tables(cvusa.read(root, 0.2), out, limit=2)
    rows = [row for row in table(out / "pairs.csv") if row["query"]]
    assert Counter(row["split"] for row in rows) == {"train": 2, "val": 2, "test": 2}
    named = {row["query"] for row in rows}
    assert named <= {row["id"] for row in table(out / "panorama.csv")}
    assert len(datasets.read_lines(out / "panorama.txt")) < 12


def test_a_trial_keeps_all_references_of_a_query_that_it_takes():
    """As in VIGOR, whose lists name four tiles for each."""
    pairs = [Pair(q, f"{q}{k}", split="train") for k in range(4) for q in ("a", "b", "c")]
    pairs += datasets.gallery_rows("xyz", "train")
    assert [(p.query, p.reference) for p in datasets.limited(pairs, 2)] == [
        *((q, f"{q}{k}") for k in range(4) for q in ("a", "b")),
        *(("", tile) for tile in "xy"),
    ]
    assert datasets.limited(pairs, None) == pairs


@pytest.mark.parametrize(
    ("name", "panorama", "epochs"),
    [
        ("cvusa", (140, 768), (40, 60)),
        ("cvact", (140, 768), (40, 60)),
        ("vigor-same", (384, 768), (40, 60)),
        ("vigor-cross", (384, 768), (40, 60)),
        ("cvglobal", (384, 768), (40, 60)),
    ],
)
def test_recipes_are_the_published_ones(name, panorama, epochs):
    settings = load_settings(recipes()[name])
    branches = settings.branches()
    assert branches["panorama"].encoder.query_size == panorama
    assert branches["bev"].encoder.query_size == (384, 384)
    assert tuple(branch.optim.epochs for branch in branches.values()) == epochs
    assert settings.evaluate_every == 4
    for branch in branches.values():
        assert branch.encoder.name == "convnext_base.fb_in22k_ft_in1k_384"
        assert branch.encoder.pretrained is True
        assert branch.encoder.reference_size == (384, 384)
        sampling, optim, augment = branch.sampling, branch.optim, branch.augment
        assert (sampling.batch_size, sampling.take, sampling.pool) == (128, 64, 128)
        assert (sampling.geographic, sampling.mine_every) == (True, 4)
        assert (optim.learning_rate, optim.weight_decay, optim.clip_value) == (1e-3, 0.01, 100)
        assert (optim.warmup_epochs, optim.label_smoothing) == (1, 0.1)
        assert (augment.flip, augment.turn, augment.turn_reference) == (0.5, 0.75, 0)
        assert (augment.compression, augment.quality) == (0.5, 90)
        assert (augment.photometric, augment.jitter) == (0.5, 0.15)
        assert (augment.blur_or_sharpen, augment.dropout) == (0.3, 0.3)
        assert augment.reference_grid == 0.4
        assert optim.decay_all
    panorama_changes, bev_changes = (branches[name].augment for name in ("panorama", "bev"))
    assert (panorama_changes.gamma, panorama_changes.query_grid) == (0, 0.5)
    assert (bev_changes.gamma, bev_changes.query_grid) == (0.2, 0.4)


def test_the_recipe_without_panoramas():
    settings = load_settings(recipes()["university1652"])
    (branch,) = settings.branches().values()
    assert branch.encoder.query_size == branch.encoder.reference_size == (384, 384)
    assert (branch.optim.epochs, branch.optim.warmup_epochs) == (1, 0.1)
    augment = branch.augment
    # Three of four are turned: all four quarters are as likely.
    assert (augment.turn, augment.turn_reference) == (0, 0.75)
    assert (augment.query_grid, augment.reference_grid, augment.gamma) == (0.4, 0.4, 0)
    assert (augment.compression, augment.quality) == (0.5, 90)
    assert branch.optim.decay_all
