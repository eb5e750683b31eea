from __future__ import annotations

import csv
import json
import math
import os
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bevgen import (
    BevSettings,
    PanoramaError,
    PanoramaInfo,
    ShardSet,
    info_from_row,
    project,
    read_poses,
)
from georetrieval.cli import main
from georetrieval.config import DataSettings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError, DataError, IndexFileError, SettingsError
from georetrieval.localization import (
    Candidate,
    HeadingSearch,
    Locator,
    Motion,
    Prior,
    Verdict,
    drive,
    find_photos,
    locate_drive,
)
from georetrieval.localization.formats import as_csv, as_table
from georetrieval.localization.heading import refine
from georetrieval.localization.location import Location, distinct
from georetrieval.localization.query import Photo, QueryViews
from georetrieval.models import checkpoints
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import save_branch
from georetrieval.retrieval.evaluation import evaluate
from georetrieval.retrieval.index import Index, ModelKey, build_index
from tests.helpers.town import ENCODER, Town, make_town
from tests.helpers.world import write_shards

# How a photo is drawn


CROP, OTHER = (30.0, -50.0), (45.0, -90.0)


@pytest.mark.parametrize(
    ("shape", "file", "drawn"),
    [
        ((64, 256), PanoramaInfo(), {"vertical_fov": CROP, "pitch": 4.0}),
        ((64, 128), PanoramaInfo(), {"pitch": 4.0}),
        ((48, 128), PanoramaInfo(vertical_fov=OTHER), {"vertical_fov": OTHER, "pitch": 4.0}),
        ((64, 256), PanoramaInfo(pitch=0.0, roll=2.0), {"vertical_fov": CROP, "roll": 2.0}),
    ],
    ids=["nothing is known", "a whole sphere", "a crop that says so", "a tilt that it says"],
)
def test_what_was_said_of_training_gives_way_to_what_a_photo_says(shape, file, drawn):
    settings = BevSettings(height=1.8, size=32, resolution=0.2, pitch=4.0, vertical_fov=CROP)
    key = ModelKey({"bev": "-"}, {"bev": 1}, 0.0, "run", {"bev": settings.to_json()}, True)
    views = QueryViews(key, {}, torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    bev, seen = views.bev(Photo("a.jpg", pixels, PanoramaInfo(), file), heading=30.0)
    true, valid = project(
        pixels, height=1.8, size=32, resolution=0.2, heading=30.0, return_valid=True, **drawn
    )
    np.testing.assert_array_equal(bev, true)
    np.testing.assert_array_equal(seen, valid)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = make_town(tmp_path_factory.mktemp("town"))
    build_index(town.run, [town.tiles], town.root / "town.index")
    return town


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = make_town(tmp_path_factory.mktemp("turned"), headings=True)
    build_index(town.run, [town.tiles], town.root / "town.index")
    return town


def known(town: Town) -> list[tuple[Path, PanoramaInfo]]:
    rows = read_poses(town.poses)
    return [(photo, info_from_row(rows[photo.name])) for photo in town.photos]


# Heading known


@pytest.mark.parametrize("which", ["town", "turned"])
def test_with_known_heading_the_answers_are_those_of_evaluate(which, request):
    town: Town = request.getfixturevalue(which)
    data = DataSettings(root=town.root, pairs=None)
    result = evaluate(town.run, Dataset(data), "all")
    both = next(method for method in result.methods if method.name == "both")
    locator = Locator(town.root / "town.index")
    found = list(locator.locate_many(known(town)))
    assert [Path(one.source).stem for one in found] == result.queries
    for one, top, scores in zip(found, both.top, both.scores, strict=True):
        assert one.heading_known
        assert [candidate.id for candidate in one.candidates] == top
        np.testing.assert_allclose([c.score for c in one.candidates], scores, atol=1e-3)
    one = locator.locate(town.photos[3], prior=Prior(heading=known(town)[3][1].heading))
    assert [c.id for c in one.candidates] == [c.id for c in found[3].candidates]
    best = one.best
    assert (best.latitude, best.longitude) == tuple(town.positions[locator.index.row_of[best.id]])


def test_no_heading_is_written_as_360():
    one = Candidate("a", 0, 48.0, 11.0, heading=359.97, searched=0.0, score=1.0, branch_scores={})
    location = Location("a.jpg", (one,), None, None, True, None)
    assert as_csv([location]).splitlines()[1].split(",")[5] == "0.0"
    assert as_table([location])[1][0][3] == "0.0"


def test_candidates_of_one_place_are_one_and_the_best_of_them_stays():
    step = 5.0 / 111_195  # degrees: five metres to the north
    found = [
        Candidate(str(k), k, 48 + north * step, 11.0, 0.0, 0.0, score=1.0)
        for k, north in enumerate([0, 1, 3, 2, 7])
    ]
    assert [one.id for one in distinct(found, 12.0)] == ["0", "2", "4"]
    assert [one.id for one in distinct(found, 0.0)] == ["0", "1", "2", "3", "4"]
    assert distinct([], 12.0) == ()


def test_photos_that_cannot_be_used_are_reported_and_the_others_located(town, tmp_path):
    broken, flat = tmp_path / "broken.jpg", tmp_path / "flat.png"
    broken.write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (90, 80)).save(flat)
    locator = Locator(town.root / "town.index")
    asked = [(path, PanoramaInfo()) for path in (broken, town.photos[0], flat)]
    first, second, third = locator.locate_many(asked)
    assert first[0] == str(broken)
    assert isinstance(first[1], PanoramaError)
    assert second.best is not None
    assert "not 2:1" in str(third[1])


# Heading unknown


def test_the_heading_is_found_where_nobody_knows_it(turned):
    search = HeadingSearch(step=10, weights={"bev": 1})
    locator = Locator(turned.root / "town.index", search=search)
    right, errors = 0, []
    for (photo, own), name in zip(known(turned), turned.ids, strict=True):
        found = locator.locate(photo, prior=Prior(heading="unknown"))
        assert not found.heading_known
        if found.best.id == name:
            right += 1
            errors.append(abs((found.best.heading - own.heading + 180) % 360 - 180))
    assert right >= len(turned.ids) / 2
    assert np.median(errors) <= 5


def test_a_heading_that_is_roughly_known_is_searched_for_nearby(turned):
    locator = Locator(turned.root / "town.index")
    photo, own = known(turned)[2]
    rough = (own.heading + 20) % 360
    found = locator.locate(photo, prior=Prior(heading=rough, within=30))
    for candidate in found.candidates:
        assert abs((candidate.heading - rough + 180) % 360 - 180) <= 30


def test_headings_to_try():
    search = HeadingSearch(step=15)
    np.testing.assert_array_equal(search.headings(370.0, None), [10])
    assert len(search.headings(None, None)) == 24
    np.testing.assert_allclose(search.headings(350.0, 20.0), [350, 340, 0, 330, 10])
    assert len(search.headings(10.0, 180.0)) == 24


@pytest.mark.parametrize("true", [0.0, 7.0, 352.0, 100.2])
def test_a_heading_between_the_steps_is_found_exactly_on_a_parabola(true):
    headings = np.array([0, 345, 15, 30, 330, 90, 105, 120.0])
    off = (headings - true + 180) % 360 - 180
    scores = (1 - (off / 40) ** 2).astype(np.float32)
    found = refine(headings, scores, int(scores.argmax()))
    assert abs((found - true + 180) % 360 - 180) < 0.05


# Priors and hooks


def test_only_tiles_within_the_circle_are_found(town):
    locator = Locator(town.root / "town.index")
    latitude, longitude = town.positions[4]
    found = locator.locate(town.photos[9], prior=Prior(near=(latitude, longitude, 60.0)))
    assert sorted(c.id for c in found.candidates) == sorted(town.ids[k] for k in (3, 4, 5))
    nothing = locator.locate(town.photos[9], prior=Prior(near=(0.0, 0.0, 60.0)))
    assert nothing.candidates == ()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"heading": math.nan}, "heading must be finite degrees"),
        ({"heading": 1e308}, "heading must be finite degrees"),
        ({"heading": "nord"}, 'heading must be degrees, "file" or "unknown"'),
        ({"heading": 0.0, "within": math.nan}, "within must be 0 to 180"),
        ({"heading": 0.0, "within": -1.0}, "within must be 0 to 180"),
        ({"near": (91.0, 0.0, 10.0)}, "near must be a latitude"),
        ({"near": (48.0, math.nan, 10.0)}, "near must be a latitude"),
        ({"near": (48.0, 11.0, 0.0)}, "near must be a latitude"),
    ],
)
def test_a_prior_out_of_range_is_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        Prior(**values)


@pytest.mark.parametrize("kind", [int, np.int64, np.float32])
def test_a_heading_may_be_any_number(town, kind):
    locator = Locator(town.root / "town.index", alignment=None)
    given = locator.locate(town.photos[2], prior=Prior(heading=kind(90)))
    assert given.heading_known
    assert given.best.heading == 90.0


class Backwards:
    """An alignment that finds the last candidate the best, a metre north."""

    def align(self, photo, views, candidates, index, *, known):
        assert not known
        moved = replace(candidates[-1], latitude=candidates[-1].latitude + 1e-5, metres=0.5)
        return [moved, *candidates[:-1]]


class Half:
    """A confidence that halves from candidate to candidate."""

    def judge(self, candidates: Sequence[Candidate]) -> Verdict:
        count = len(candidates)
        order = (1, 0, *range(2, count))
        chances = tuple(0.5 ** (k + 1) for k in range(count))
        return Verdict(order, chances, found=False, prediction_set=2)


def test_what_aligns_reorders_and_what_judges_sees_the_new_order(town):
    plain = Locator(town.root / "town.index").locate(town.photos[0], top=20)
    assert plain.found is None
    models = {"unknown": Half()}
    locator = Locator(town.root / "town.index", alignment=Backwards(), confidence=models)
    found = locator.locate(town.photos[0], top=3)
    assert [c.id for c in found.candidates[:2]] == [plain.candidates[k].id for k in (0, -1)]
    assert found.candidates[1].metres == 0.5
    assert [c.probability for c in found.candidates] == [0.5, 0.25, 0.125]
    assert found.found is False
    assert found.prediction_set == 2


# Which model


def test_weights_that_are_replaced_while_they_are_read_are_noticed(town, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(town.run.folder, run)
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_branch(other, Branch(ENCODER), ENCODER, "bev")
    real = checkpoints.load_branch

    def late(path: Path):
        if path.name == "bev.safetensors" and other.exists():
            other.replace(path)  # as a training puts a better one in place
        return real(path)

    monkeypatch.setattr(checkpoints, "load_branch", late)
    with pytest.raises(IndexFileError, match="is not the checkpoint that made"):
        Locator(town.root / "town.index", run=run)


def test_other_checkpoints_than_the_index_s_are_refused(town, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    with pytest.raises(CheckpointError, match="--run"):
        Locator(town.root / "town.index", run=other)
    for name in ("panorama", "bev"):
        torch.manual_seed(1)
        save_branch(other / f"{name}.safetensors", Branch(ENCODER), ENCODER, name)
    with pytest.raises(IndexFileError, match="is not the checkpoint that made"):
        Locator(town.root / "town.index", run=other)


# From the command line


@pytest.fixture
def georetrieval(capsys):
    """Run the command; returns what it printed to stdout and stderr."""

    def run(*words: object, expect: int = 0):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert int(stopped.value.code or 0) == expect, printed
        return printed

    return run


def test_from_photos_to_places_on_the_command_line(turned, tmp_path, georetrieval):
    out = tmp_path / "new.index"
    built = georetrieval("index", "--run", turned.run, "--references", turned.tiles, "--out", out)
    assert "12 satellite tiles" in built.out
    words = ["locate", turned.root / "photos", "--index", out, "--poses", turned.poses]
    rows = list(csv.DictReader(georetrieval(*words, "--format", "csv").out.splitlines()))
    assert len(rows) == 12 * 5
    first = [row for row in rows if row["rank"] == "1"]
    assert [Path(row["photo"]).stem for row in first] == turned.ids
    expected = Locator(out).locate_many(known(turned))
    assert [row["tile"] for row in first] == [one.best.id for one in expected]
    found = json.loads(georetrieval(*words, "--format", "geojson", "--top", 1).out)
    assert len(found["features"]) == 12
    for feature, row in zip(found["features"], first, strict=True):
        position = [float(row["longitude"]), float(row["latitude"])]
        assert feature["geometry"]["coordinates"] == position
        assert feature["properties"]["heading"] == float(row["heading"])
    photo = turned.photos[1]
    words = ["locate", photo, "--index", out, "--heading", known(turned)[1][1].heading]
    one = json.loads(georetrieval(*words, "--format", "json").out)
    assert one[0]["candidates"][0]["id"] == first[1]["tile"]
    assert first[1]["tile"] in georetrieval(*words).out
    near = ["--near", *turned.positions[8], 10]
    assert turned.ids[8] in georetrieval(*words, *near).out
    nowhere = georetrieval(*words, "--near", 0, 0, 10, expect=3)
    assert "no tile of" in nowhere.err
    assert "1 of 1 not found" in nowhere.err


def test_mistakes_on_the_command_line_end_in_a_sentence(town, tmp_path, georetrieval):
    index, photo = town.root / "town.index", town.photos[0]
    (tmp_path / "text.jpg").write_text("no image")

    def says(code: int, *words: object) -> str:
        return georetrieval(*words, expect=code).err

    assert "does not exist" in says(2, "locate", tmp_path / "no.jpg", "--index", index)
    assert "georetrieval index" in says(1, "locate", photo, "--index", tmp_path / "no.index")
    assert "skipped" in says(1, "locate", tmp_path / "text.jpg", "--index", index)
    assert georetrieval("locate", tmp_path / "text.jpg", "--index", index, expect=1).out == ""
    assert "skipped" in says(3, "locate", photo, tmp_path / "text.jpg", "--index", index)
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")  # as of Latin-1
    odd.write_bytes(photo.read_bytes())
    out = tmp_path / "found.csv"
    georetrieval("locate", odd, "--index", index, "--format", "csv", "--out", out)
    assert "caf\\udce9.png,1," in out.read_text("utf-8")
    for option in (["--heading", "nan"], ["--height", 0], ["--heading", 0, "--within", "nan"]):
        assert " must be " in says(2, "locate", photo, "--index", index, *option)
    assert "cannot be read" in says(2, "locate", photo, "--index", index, "--poses", "no.csv")
    words = ("--index", index, "--format", "json", "--out", photo)
    assert "is read: name another output" in says(1, "locate", photo, *words)
    words = ("locate", photo, "--index", index)
    assert "neither degrees" in says(2, *words, "--heading", "north")
    assert "--run" in says(1, *words, "--run", tmp_path)
    assert "--references" in says(2, "index", "--run", town.run, "--out", tmp_path / "a.index")
    words = ("index", "--run", tmp_path, "--references", town.tiles, "--out", tmp_path / "a.index")
    assert "holds no checkpoints" in says(1, *words)
    assert "is sound" in georetrieval("index", "--out", index, "--verify").out


def test_tiles_without_a_resolution_have_the_one_that_is_said(town, tmp_path, georetrieval):
    out = tmp_path / "a.index"
    words = ("index", "--run", town.run, "--references", town.tiles, "--out", out)
    assert json.loads(georetrieval(*words, "--json").out)["resolution"] is None
    refused = georetrieval(*words, "--resolution", "0.5", expect=1)
    assert "--overwrite" in refused.err
    again = georetrieval(*words, "--resolution", "0.5", "--overwrite", "--json")
    assert json.loads(again.out)["resolution"] == 0.5
    added = ("index", "--out", out, "--add", "--references", town.tiles)
    georetrieval(*added, "--resolution", "0.5")
    best = Locator(out).locate(town.photos[2]).best
    assert best.agreement is not None  # whose scale is known is aligned
    with pytest.raises(SettingsError, match="above 0"):
        build_index(town.run, [town.tiles], out, resolution=-1.0)
    tiles = ShardSet(town.tiles).read(range(2))
    write_shards(tmp_path / "s.h5", "satellite", ["a", "b"], tiles, town.positions, resolution=0.4)
    with pytest.raises(SettingsError, match=r"s\.h5 says that a pixel is 0\.4 m, .* 0\.5"):
        build_index(town.run, [tmp_path / "s.h5"], tmp_path / "b.index", resolution=0.5)


def test_a_damaged_confidence_can_be_fitted_again_as_is_advised(town, tmp_path, georetrieval):
    out = tmp_path / "a.index"
    words = ("index", "--run", town.run, "--references", town.tiles, "--out", out)
    georetrieval(*words, "--resolution", "0.5")
    Index(out).store_confidence({"unknown": {"weights": [1.0]}})
    refused = georetrieval("locate", town.photos[0], "--index", out, expect=1)
    assert "`georetrieval confidence`" in refused.err
    photos = (town.root / "photos", "--poses", town.poses)
    fitted = georetrieval("confidence", *photos, "--index", out, expect=1)
    assert "too few to fit a confidence model on: 12 photos" in fitted.err  # it came as far as that


def test_a_photo_that_cannot_be_used_does_not_end_fitting(town, tmp_path, georetrieval):
    out, broken, phone = (tmp_path / name for name in ("a.index", "broken.png", "phone.jpg"))
    words = ("index", "--run", town.run, "--references", town.tiles, "--out", out)
    georetrieval(*words, "--resolution", "0.5")
    broken.write_bytes(town.photos[0].read_bytes()[:200])
    Image.new("RGB", (40, 30)).save(phone)
    poses = tmp_path / "poses.csv"
    poses.write_text(f"file,latitude,longitude\n{phone.name},48,11\n")
    fitted = georetrieval("confidence", broken, phone, "--poses", poses, "--index", out, expect=1)
    assert f"skipped {broken}: truncated" in fitted.err
    assert f"skipped {phone}: 40 x 30 pixels are not 2:1" in fitted.err
    assert "too few to fit a confidence model on: 0 photos" in fitted.err
    refused = georetrieval("confidence", phone, "--split", "val", "--index", out, expect=2)
    assert "no pairs that name splits" in refused.err
    georetrieval(*words, "--resolution", "0.5")  # again: nothing to do
    assert "say theirs with --resolution" in georetrieval(*words, expect=1).err


def test_tiles_are_taken_out_on_the_command_line(town, tmp_path, georetrieval):
    out, names = tmp_path / "a.index", tmp_path / "ids.txt"
    georetrieval("index", "--run", town.run, "--references", town.tiles, "--out", out)
    names.write_text(f"{town.ids[0]}\n{town.ids[1]}\n")
    removed = georetrieval("index", "--out", out, "--remove", names, "--json")
    assert json.loads(removed.out)["tiles"] == 10
    again = ("index", "--run", town.run, "--references", town.tiles, "--out", out)
    assert "10 satellite tiles" in georetrieval(*again).out


def test_photos_find_their_rows_however_names_are_composed(tmp_path):
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = tmp_path / form
        folder.mkdir()
        path = folder / unicodedata.normalize(form, "Müller.png")
        Image.new("RGB", (8, 4)).save(path)
        row = unicodedata.normalize(other, "Müller.png,77\n")
        (tmp_path / "poses.csv").write_text(f"file,heading\n{row}", "utf-8")
        for asked in (folder, path):
            (found,) = find_photos([asked], tmp_path / "poses.csv")
            assert (found[0], found[1].heading) == (path, 77)


# Drives


def on_the_way(town: Town, dates: bool = True) -> list[tuple[Path, PanoramaInfo]]:
    """Take the town's photos as frames, ten seconds from one to the next."""
    return [
        (photo, replace(own, date=f"2024-05-01T10:{k // 6:02}:{k % 6}0" if dates else None))
        for k, (photo, own) in enumerate(known(town))
    ]


def test_neighbours_say_where_a_frame_was_taken_that_shows_nothing(town, tmp_path):
    locator = Locator(town.root / "town.index")
    fog = tmp_path / "fog.png"
    Image.new("RGB", (256, 128), (128, 128, 128)).save(fog)
    frames = on_the_way(town)
    frames[5] = fog, frames[5][1]
    alone = list(locator.locate_many(frames))
    assert alone[5].best.id != town.ids[5]
    heard = []
    motion = Motion(speed=5.6, slack=1)  # tiles are 55.6 metres apart
    found = locate_drive(locator, reversed(frames), motion=motion, top=2, on_progress=heard.append)
    assert [one.best.id for one in found] == town.ids[::-1]
    assert {len(one.candidates) for one in found} == {2}
    assert heard == sorted(heard)
    assert heard[-1] == len(frames)


def test_a_frame_is_looked_for_again_where_the_one_before_it_was(town, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "CONSIDERED", 1)
    build_index(town.run, [town.tiles], tmp_path / "metres.index", resolution=0.5)
    locator = Locator(tmp_path / "metres.index")
    fog = tmp_path / "fog.png"
    Image.new("RGB", (256, 128), (128, 128, 128)).save(fog)
    frames = on_the_way(town)
    standing = [(photo, frames[k][1]) for k, photo in enumerate([town.photos[4], fog])]
    assert locator.locate(fog).best.id != town.ids[4]
    found = locate_drive(locator, standing, motion=Motion(speed=1))
    assert [one.best.id for one in found] == [town.ids[4]] * 2


def test_frames_that_cannot_be_read_do_not_end_a_drive(town, tmp_path):
    locator = Locator(town.root / "town.index")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    frames = on_the_way(town)
    flat = tmp_path / "flat.png"
    Image.new("RGB", (90, 80)).save(flat)
    bad = [(path, frames[0][1]) for path in (broken, flat)]
    first, second, *others = locate_drive(locator, [*bad, *frames[1:4]])
    assert first[0] == str(broken)
    assert isinstance(first[1], PanoramaError)
    assert "not 2:1" in str(second[1])
    assert [one.best.id for one in others] == town.ids[1:4]
    assert locate_drive(locator, []) == []
    with pytest.raises(DataError, match="at what time it was taken"):
        locate_drive(locator, on_the_way(town, dates=False))
