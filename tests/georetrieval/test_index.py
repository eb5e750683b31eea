from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bevgen import ImageSettings, ShardSet, convert
from georetrieval.config import DataSettings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import DataError, IndexFileError
from georetrieval.localization import Locator
from georetrieval.models.checkpoints import load_branch
from georetrieval.retrieval.embedding import embed_rows
from georetrieval.retrieval.evaluation import evaluate, fuse
from georetrieval.retrieval.index import (
    Index,
    add_references,
    build_index,
    exact,
    parts,
    remove_tiles,
)
from georetrieval.retrieval.index.exact import Block, encode, nearest
from georetrieval.retrieval.index.files import HEADER, part_folder
from georetrieval.run import Run
from tests.georetrieval.test_evaluation import untrained
from tests.helpers.world import World, tiny_settings, write_shards

RANDOM = np.random.default_rng(3)


def unit(count: int, size: int = 64) -> np.ndarray:
    vectors = RANDOM.normal(size=(count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blocks(vectors: np.ndarray, *sizes: int) -> list[Block]:
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == len(vectors)
    parts = [vectors[a:b] for a, b in pairwise(edges)]
    return [Block(part, encode(part)) for part in parts]


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    """A run of untrained branches on the world."""
    run = Run(untrained(tmp_path / "run", "panorama", "bev"))
    settings = tiny_settings("panorama", "bev", data=DataSettings(root=world.root))
    run.write_settings(settings)
    return run


# Exact search


@pytest.mark.parametrize("screened", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_search_finds_what_all_scores_in_double_precision_find(monkeypatch, screened, masked):
    monkeypatch.setattr(exact, "DIRECT", 0 if screened else 1 << 40)
    vectors, queries = unit(3000), unit(40)
    vectors[7] = vectors[2005] = queries[0]  # equal scores: the first row comes first
    among = RANDOM.uniform(size=3000) < 0.3 if masked else None
    if among is not None:
        among[[7, 2005]] = True
    rows, scores = nearest(queries, blocks(vectors, 1000, 1500, 500), 10, among=among, threads=2)
    true = queries.astype(float) @ vectors.astype(float).T
    if among is not None:
        true[:, ~among] = -np.inf
    for k in range(len(queries)):
        best = np.lexsort((np.arange(3000), -true[k]))[:10]
        np.testing.assert_array_equal(rows[k], best)
        np.testing.assert_allclose(scores[k], true[k, best], atol=1e-6)
    assert rows[0, :2].tolist() == [7, 2005]


def test_screening_looks_at_few_vectors_exactly(monkeypatch):
    monkeypatch.setattr(exact, "DIRECT", 0)
    looked = []
    real = exact.gather
    monkeypatch.setattr(exact, "gather", lambda b, rows: looked.append(len(rows)) or real(b, rows))
    nearest(unit(5), blocks(unit(4000), 4000), 5)
    assert max(looked) < 200


def test_bounds_hold_whatever_the_vectors_are_like(monkeypatch):
    monkeypatch.setattr(exact, "DIRECT", 0)
    vectors = unit(500)
    vectors[:250] = vectors[0] + 1e-4 * RANDOM.normal(size=(250, 64))  # hardly differ
    vectors[250:] = 0
    vectors[np.arange(250, 500), RANDOM.integers(0, 64, 250)] = 1  # one number each
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[::7].copy()
    rows, _ = nearest(queries, blocks(vectors, 500), 3)
    true = queries.astype(float) @ vectors.astype(float).T
    found = np.take_along_axis(true, rows, 1)
    np.testing.assert_allclose(found, -np.sort(-true, axis=1)[:, :3], atol=1e-6)


def test_more_is_asked_for_than_there_is():
    rows, scores = nearest(unit(2), blocks(unit(3), 3), 5)
    assert rows.shape == scores.shape == (2, 3)
    rows, _ = nearest(unit(2), blocks(unit(3), 3), 5, among=np.zeros(3, bool))
    assert rows.shape == (2, 0)


# The index


def test_an_index_finds_what_evaluate_finds(run: Run, world: World, tmp_path: Path):
    index = build_index(run, [world.root / "satellite.h5"], tmp_path / "city.index")
    assert len(index) == 96
    data = DataSettings(root=world.root)
    result = evaluate(run, Dataset(data), "test")
    both = next(method for method in result.methods if method.name == "both")
    shards = {name: ShardSet(world.root / f"{name}.h5") for name in ("panorama", "bev")}
    own = {}
    for name, images in shards.items():
        rows = np.array([images.row(query) for query in result.queries])
        encoder = load_branch(run.checkpoint(name))[0].encoder
        own[name] = embed_rows(encoder, images, rows, None, device=torch.device("cpu"))
    queries = fuse(own["panorama"], own["bev"], 0.5).numpy()
    gallery = np.zeros(96, bool)
    named = {row for row, split in enumerate(world.splits) if split == "test"}
    gallery[[index.row_of[world.ids[row]] for row in named]] = True
    found = index.search(queries, 5, among=gallery)
    assert [[index.ids[row] for row in best] for best in found.rows] == both.top
    np.testing.assert_allclose(found.scores, both.scores, atol=1e-4)
    np.testing.assert_allclose(index.split(queries)["bev"], own["bev"].numpy(), atol=1e-6)


def test_tiles_are_added_and_removed_without_building_anew(run, world, tmp_path):
    shards = ShardSet(world.root / "satellite.h5")
    images, positions = shards.read(range(96)), world.positions
    ids = list(shards.ids)
    for name, part in (("a", slice(0, 60)), ("b", slice(60, 96))):
        write_shards(tmp_path / f"{name}.h5", "satellite", ids[part], images[part], positions[part])
    out = tmp_path / "city.index"
    whole = build_index(run, [world.root / "satellite.h5"], tmp_path / "whole.index")
    built = build_index(run, [tmp_path / "a.h5"], out)
    kept = part_folder(out, "00000") / "vectors.npy"
    before = kept.stat()
    assert len(built) == 60
    with pytest.raises(IndexFileError, match="--add"):
        build_index(run, [tmp_path / "b.h5"], out)
    added = add_references(out, [tmp_path / "b.h5"])
    assert len(added) == 96
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    queries = unit(9, whole.header.model.dimension)
    a, b = whole.search(queries, 7), added.search(queries, 7)
    names = [[index.ids[row] for row in best] for index, found in ((whole, a), (added, b))
             for best in found.rows]  # fmt: skip
    assert names[:9] == names[9:]
    assert len(add_references(out, [tmp_path / "b.h5"])) == 96  # again: nothing to do
    np.testing.assert_array_equal(added.tile(added.row_of[ids[70]]), images[70])
    gone = names[0][:2]
    left = remove_tiles(out, gone)
    assert len(left) == 94
    assert not set(gone) & {left.ids[row] for row in left.search(queries, 7).rows.ravel()}
    assert len(Index(out)) == 94
    with pytest.raises(DataError, match=f"no tile '{gone[0]}'"):
        remove_tiles(out, gone)
    assert Index(out).verify() == []


def pack(folder: Path, out: Path, images: np.ndarray, positions: np.ndarray) -> None:
    """Store tiles from files that are equally large whatever they show."""
    folder.mkdir(exist_ok=True)
    names = [f"t{k:03d}.tif" for k in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name, compression=None)
    rows = [f"{n},{y:.7f},{x:.7f}" for n, (y, x) in zip(names, positions, strict=True)]
    poses = folder / "poses.csv"
    poses.write_text("\n".join(["file,latitude,longitude", *rows]))
    convert(folder, out, ImageSettings("satellite", 32, 32), poses=poses, overwrite=True)


def test_tiles_that_were_drawn_again_are_not_searched_by_old_vectors(
    run, world, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "PART_ROWS", 40)
    images = ShardSet(world.root / "satellite.h5").read(range(96))
    tiles, out = tmp_path / "tiles.h5", tmp_path / "city.index"
    pack(tmp_path / "tiles", tiles, images, world.positions)
    plan = ShardSet(tiles).plan
    build_index(run, [tiles], out).check_references()
    images[50] = 255 - images[50]
    pack(tmp_path / "tiles", tiles, images, world.positions)
    assert ShardSet(tiles).plan == plan
    for call in (
        lambda: build_index(run, [tiles], out),
        lambda: add_references(out, [tiles]),
        lambda: Index(out).tile(0),
        lambda: Index(out).check_references(),
        lambda: Locator(out, alignment=None),
    ):
        with pytest.raises(IndexFileError, match=r"tiles\.h5 has changed.*--overwrite"):
            call()
    made, real = [], parts._make_part
    monkeypatch.setattr(parts, "_make_part", lambda *a: made.append(a[1].name) or real(*a))
    anew = build_index(run, [tiles], out, overwrite=True)
    assert made == ["00001"]
    anew.check_references()
    whole = build_index(run, [tiles], tmp_path / "whole.index")
    np.testing.assert_array_equal(anew.vectors(np.arange(96)), whole.vectors(np.arange(96)))
    assert anew.verify() == []


def test_tiles_whose_positions_were_corrected_are_refused(run, world, tmp_path):
    images = ShardSet(world.root / "satellite.h5").read(range(9))
    tiles, out = tmp_path / "tiles.h5", tmp_path / "city.index"
    pack(tmp_path / "tiles", tiles, images, world.positions[:9])
    build_index(run, [tiles], out)
    pack(tmp_path / "tiles", tiles, images, world.positions[:9] + 1e-4)
    with pytest.raises(IndexFileError, match="has changed"):
        build_index(run, [tiles], out)


def test_an_index_is_mended_with_whichever_of_its_tiles(run, world, tmp_path):
    shards = ShardSet(world.root / "satellite.h5")
    for name, part in (("a", slice(0, 60)), ("b", slice(60, 96))):
        images, positions = shards.read(range(96))[part], world.positions[part]
        write_shards(tmp_path / f"{name}.h5", "satellite", shards.ids[part], images, positions)
    out = tmp_path / "city.index"
    build_index(run, [tmp_path / "a.h5"], out)
    grown = add_references(out, [tmp_path / "b.h5"])
    for number, name in ((1, "b"), (0, "b"), (1, "a")):
        (part_folder(out, f"{number:05d}") / "vectors.npy").unlink()
        mended = build_index(run, [tmp_path / f"{name}.h5"], out)
        assert mended.ids == grown.ids
        assert mended.verify() == []
    np.testing.assert_allclose(
        mended.vectors(np.arange(96)), grown.vectors(np.arange(96)), atol=1e-6
    )


def test_tiles_that_moved_are_not_embedded_again(run, world, tmp_path, monkeypatch):
    out, tiles, moved = (tmp_path / name for name in ("city.index", "tiles.h5", "moved.h5"))
    shutil.copy(world.root / "satellite.h5", tiles)
    build_index(run, [tiles], out)
    tiles.rename(moved)
    with pytest.raises(IndexFileError, match="cannot be read"):
        Index(out).tile(0)
    monkeypatch.setattr(parts, "_make_part", None)
    again = build_index(run, [moved], out, overwrite=True)
    np.testing.assert_array_equal(again.tile(0), ShardSet(moved)[0])


def test_of_tiles_that_overlap_only_the_new_ones_are_added(run, world, tmp_path):
    shards = ShardSet(world.root / "satellite.h5")
    middle = slice(20, 70)
    images, positions = shards.read(range(96)), world.positions
    write_shards(
        tmp_path / "a.h5", "satellite", shards.ids[middle], images[middle], positions[middle]
    )
    out = tmp_path / "city.index"
    build_index(run, [tmp_path / "a.h5"], out)
    grown = add_references(out, [world.root / "satellite.h5"])
    assert sorted(grown.ids) == sorted(shards.ids)
    assert [part.rows for part in grown.header.parts] == [50, 20, 26]
    whole = build_index(run, [world.root / "satellite.h5"], tmp_path / "whole.index")
    for name in shards.ids[::7]:
        rows = [np.array([index.row_of[name]]) for index in (grown, whole)]
        np.testing.assert_allclose(grown.vectors(rows[0]), whole.vectors(rows[1]), atol=1e-6)
        np.testing.assert_array_equal(grown.tile(int(rows[0][0])), whole.tile(int(rows[1][0])))


def test_a_killed_build_goes_on_with_what_is_missing(run, world, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 40)
    out, real, made = tmp_path / "city.index", parts._make_part, []

    def make(*args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args[1].name)
        return real(*args)

    monkeypatch.setattr(parts, "_make_part", make)
    with pytest.raises(KeyboardInterrupt):
        build_index(run, [world.root / "satellite.h5"], out)
    with pytest.raises(IndexFileError, match="no finished index"):
        Index(out)
    made.clear()
    index = build_index(run, [world.root / "satellite.h5"], out)
    assert made == ["00002"]
    assert len(index) == 96
    assert index.verify() == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / HEADER).unlink(), "no finished index"),
        (lambda out: (out / HEADER).write_text("{"), "damaged"),
        (lambda out: (out / HEADER).write_text('{"format": "else"}'), "no index of georetrieval"),
        (lambda out: edit(out, version=1), "version 1"),
        (lambda out: edit(out, removed=[1]), "was edited"),
        (lambda out: cut(part_folder(out, "00000") / "codes.npy"), "makes only what is missing"),
        (lambda out: cut(part_folder(out, "00000") / "ids.json"), "makes only what is missing"),
        (lambda out: (part_folder(out, "00000") / "vectors.npy").unlink(), "or missing"),
    ],
)
def test_a_damaged_index_is_named_with_a_way_out(run, world, tmp_path, damage, message):
    out = tmp_path / "city.index"
    build_index(run, [world.root / "satellite.h5"], out)
    damage(out)
    with pytest.raises(IndexFileError, match=message):
        Index(out)


def test_what_cannot_be_read_is_not_said_to_be_damaged(run, world, tmp_path):
    """A folder stands for a file that the system does not let one read."""
    out = tmp_path / "city.index"
    build_index(run, [world.root / "satellite.h5"], out)
    for path in (part_folder(out, "00000") / "ids.json", out / HEADER):
        path.rename(tmp_path / path.name)
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            Index(out)
        path.rmdir()
        (tmp_path / path.name).rename(path)
    Index(out)


def test_a_folder_of_other_things_does_not_become_an_index(run, world, tmp_path):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "parts/mine.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(IndexFileError, match="is no index"):
            build_index(run, [world.root / "satellite.h5"], folder, overwrite=overwrite)
    assert (folder / "parts" / "mine.txt").read_text() == "mine"


def edit(out: Path, **values: object) -> None:
    content = json.loads((out / HEADER).read_text())
    (out / HEADER).write_text(json.dumps({**content, **values}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000] or b"[")


def test_changed_bytes_are_found_by_verify(run, world, tmp_path):
    index = build_index(run, [world.root / "satellite.h5"], tmp_path / "city.index")
    path = part_folder(index.folder, "00000") / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert index.verify() == [f"{path} is damaged"]


def test_a_changed_confidence_model_is_found_by_verify_and_not_used(run, world, tmp_path):
    index = build_index(run, [world.root / "satellite.h5"], tmp_path / "city.index")
    values = {"known": {"least": 0.5}}
    index.store_confidence(values)
    assert index.confidence == values
    assert index.verify() == []
    path = index.folder / "confidence.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    (found,) = index.verify()
    assert found.startswith(f"{path} is damaged")
    with pytest.raises(IndexFileError, match="georetrieval confidence"):
        _ = index.confidence


def test_references_that_cannot_be_located_are_refused(run, world, tmp_path):
    shards = ShardSet(world.root / "satellite.h5")
    write_shards(tmp_path / "nowhere.h5", "satellite", list(shards.ids), shards.read(range(96)))
    with pytest.raises(DataError, match="have no position"):
        build_index(run, [tmp_path / "nowhere.h5"], tmp_path / "a.index")
    with pytest.raises(DataError, match="references are satellite"):
        build_index(run, [world.root / "bev.h5"], tmp_path / "a.index")
    with pytest.raises(DataError, match="two tiles have the id"):
        build_index(run, [world.root / "satellite.h5"] * 2, tmp_path / "a.index")
    small, place = np.zeros((1, 16, 16, 3), np.uint8), np.array([[48.0, 11.0]])
    write_shards(tmp_path / "b.h5", "satellite", ["new"], small, place, resolution=0.25)
    both = "satellite tiles of 16 pixels at 0.25 m a pixel and satellite tiles of 32 pixels at an"
    with pytest.raises(DataError, match=both):
        build_index(run, [world.root / "satellite.h5", tmp_path / "b.h5"], tmp_path / "a.index")


def test_another_run_s_vectors_are_not_mixed_in(run, world, tmp_path):
    out = tmp_path / "city.index"
    build_index(run, [world.root / "satellite.h5"], out)
    other = Run(untrained(tmp_path / "other", "panorama", "bev", seed=5))
    other.write_settings(run.read_settings())
    for call in (
        lambda: build_index(other, [world.root / "satellite.h5"], out),
        lambda: add_references(out, [world.root / "satellite.h5"], run=other),
    ):
        with pytest.raises(IndexFileError, match="made by other checkpoints"):
            call()
    before = Index(out)
    replaced = build_index(other, [world.root / "satellite.h5"], out, overwrite=True)
    with pytest.raises(IndexFileError, match="other weights while"):
        before.store_confidence({"unknown": {}})
    assert Index(out).confidence is None
    assert replaced.header == Index(out).header
    assert Index(out).run.samefile(other.folder)


# Approximate search


def test_approximate_search_agrees_after_exact_ranking(run, world, tmp_path):
    pytest.importorskip("faiss")
    out = tmp_path / "city.index"
    index = build_index(run, [world.root / "satellite.h5"], out, approximate=True)
    assert index.approximate is not None
    queries = unit(8, index.header.model.dimension)
    exactly = index.search(queries, 5, exact=True)
    roughly = index.search(queries, 5)
    np.testing.assert_array_equal(roughly.rows, exactly.rows)  # the short list holds all 96
    np.testing.assert_allclose(roughly.scores, exactly.scores, atol=1e-6)
    assert build_index(run, [world.root / "satellite.h5"], out, approximate=False).verify() == []
    again = build_index(run, [world.root / "satellite.h5"], out, approximate=True)
    assert again.header.approximate == 1  # also where all else was there already
    cut(out / "approximate.faiss")
    assert add_references(out, [], approximate=True).verify() == []
    gone = index.ids[int(exactly.rows[0, 0])]
    left = remove_tiles(out, [gone])
    assert left.search(queries[:1], 4).rows[0].tolist() == exactly.rows[0, 1:].tolist()
