"""Ids meet however their accented letters are composed: in pairs, positions, photos and indexes."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from bevgen import ShardSet
from georetrieval.config import BRANCHES, BranchName, DataSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.pairs import Pairs, join
from georetrieval.data.positions import read_positions
from georetrieval.errors import DataError
from georetrieval.localization import find_photos
from georetrieval.retrieval.index import Index, build_index, remove_tiles
from georetrieval.retrieval.splits import _common_ids
from tests.helpers.runs import panoramas
from tests.helpers.town import make_town
from tests.helpers.world import write_shards

NAMES = ("Müller 1", "Müller 2", "plain")
Form = Literal["NFC", "NFD"]


@pytest.fixture(params=[("NFD", "NFC"), ("NFC", "NFD")], ids="".join)
def forms(request: pytest.FixtureRequest) -> tuple[Form, Form]:
    """How shards write names, and how tables do."""
    return request.param


def spelt(form: Form, *texts: str) -> list[str]:
    return [unicodedata.normalize(form, text) for text in texts]


def shards(path: Path, kind: str, ids: list[str]) -> ShardSet:
    images = np.zeros((len(ids), 4, 4, 3), np.uint8)
    positions = np.array([[k, 2.0 * k] for k in range(len(ids))], float)
    return ShardSet(write_shards(path, kind, ids, images, positions))


def test_pairs_and_ids_meet(tmp_path, forms, caplog):
    in_shards, in_table = forms
    queries = shards(tmp_path / "bev.h5", "bev", spelt(in_shards, *NAMES))
    tiles = spelt(in_shards, "Straße é", *NAMES)
    references = shards(tmp_path / "satellite.h5", "satellite", tiles)
    table = tmp_path / "pairs.csv"
    rows = [
        f"{spelt(in_table, query)[0]},{spelt(in_table, tile)[0]},{role},{split}\n"
        for query, tile, role, split in (
            (NAMES[0], NAMES[0], "positive", "train"),
            (NAMES[0], "Straße é", "semi", "train"),
            (NAMES[2], NAMES[2], "positive", "train"),
            (NAMES[1], NAMES[1], "positive", "test"),
        )
    ]
    table.write_text("query,reference,role,split\n" + "".join(rows), "utf-8")
    pairs = join(queries, references, table, "train")
    assert (pairs.queries.tolist(), pairs.references.tolist()) == ([0, 2], [1, 3])
    assert [rows.tolist() for rows in pairs.semi] == [[0], []]
    assert pairs.gallery.tolist() == [0, 1, 3]  # the test's own tile is hidden however it is spelt
    assert pairs.ids == spelt(in_table, NAMES[0], NAMES[2])
    assert "pairs.csv writes the accented letters of 1 name differently from" in caplog.text
    assert "of 3 names" in caplog.text
    assert "left out" not in caplog.text


def test_both_branches_have_the_same_queries_without_a_table(tmp_path, forms):
    for name, kind, form in zip(("panorama", "bev"), ("panorama", "bev"), forms, strict=True):
        shards(tmp_path / f"{name}.h5", kind, spelt(form, *NAMES))
    shards(tmp_path / "satellite.h5", "satellite", spelt("NFD", *NAMES))
    with Dataset(DataSettings(root=tmp_path, pairs=None)) as dataset:
        joined: dict[BranchName, Pairs] = {n: dataset.pairs(n, "test") for n in BRANCHES}
        assert _common_ids(dataset, joined) == spelt("NFD", *NAMES)


def test_what_is_written_in_two_ways_at_once_is_nobody_s(tmp_path, caplog):
    composed, decomposed = spelt("NFC", "é")[0], spelt("NFD", "é")[0]
    queries = shards(tmp_path / "bev.h5", "bev", [composed, decomposed])
    references = shards(tmp_path / "satellite.h5", "satellite", ["t", "u"])
    table = tmp_path / "pairs.csv"
    table.write_text(f"query,reference\n{composed},t\n{decomposed},u\n", "utf-8")
    pairs = join(queries, references, table, None)
    assert (pairs.queries.tolist(), pairs.references.tolist()) == ([0, 1], [0, 1])
    assert not caplog.text


def test_positions_meet(tmp_path, forms):
    in_shards, in_table = forms
    table = tmp_path / "places.csv"
    lines = [f"{name},{k},2\n" for k, name in enumerate(spelt(in_table, *NAMES, "Łódź"))]
    table.write_text("id,latitude,longitude\n" + "".join(lines), "utf-8")
    found, planar = read_positions(table, spelt(in_shards, *reversed(NAMES)))
    assert (found.tolist(), planar) == ([[2, 2], [1, 2], [0, 2]], False)
    with pytest.raises(DataError, match="lacks 1 of 1 query, such as Möller"):
        read_positions(table, spelt("NFC", "Möller"))


def test_photos_and_tiles_of_an_index_meet(tmp_path, forms):
    on_disk, in_table = forms
    folder = panoramas(tmp_path / "photos", [f"{name}.png" for name in spelt(on_disk, *NAMES)])
    wanted = spelt(in_table, *NAMES[1:])
    found = [path.stem for path, _ in find_photos([folder], ids=wanted)]
    assert sorted(found) == sorted(spelt(on_disk, *NAMES[1:]))

    town = make_town(tmp_path / "town", 3)
    with ShardSet(town.tiles) as tiles:
        write_shards(
            tmp_path / "t.h5", "satellite", spelt(on_disk, *NAMES), tiles.read([0, 1, 2]),
            town.positions,
        )  # fmt: skip
    out = tmp_path / "city.index"
    build_index(town.run, [tmp_path / "t.h5"], out)
    remove_tiles(out, spelt(in_table, *NAMES[:1]))
    index = Index(out)
    assert sorted(index.row_of) == sorted(spelt(on_disk, *NAMES[1:]))
