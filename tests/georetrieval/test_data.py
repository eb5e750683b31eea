from pathlib import Path

import numpy as np
import pytest

from bevgen import ShardSet
from georetrieval.data.loading import PairReader, read_chunks, read_rows
from georetrieval.data.pairs import join
from georetrieval.errors import DataError, SplitError
from tests.helpers.world import write_shards


def shards(folder: Path, name: str, ids: list[str], *, size: int = 4) -> ShardSet:
    """Rows whose pixels are their row number."""
    images = np.empty((len(ids), size, size, 3), np.uint8)
    images[:] = np.arange(len(ids), dtype=np.uint8)[:, None, None, None]
    positions = np.array([[k, 2.0 * k] for k in range(len(ids))], float)
    path = write_shards(folder / f"{name}.h5", "satellite", ids, images, positions)
    return ShardSet(path)


@pytest.fixture
def queries(tmp_path):
    return shards(tmp_path, "queries", ["q0", "q1", "q2", "q3"])


@pytest.fixture
def references(tmp_path):
    return shards(tmp_path, "references", ["r0", "r1", "r2", "r3", "r4", "r5"])


def csv_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode())
    return path


def test_without_a_file_equal_ids_pair(tmp_path):
    queries = shards(tmp_path, "a", ["x", "only here", "y"])
    references = shards(tmp_path, "b", ["y", "z", "x"])
    pairs = join(queries, references, None, "train")
    assert pairs.ids == ["x", "y"]
    assert pairs.queries.tolist() == [0, 2]
    assert pairs.references.tolist() == [2, 0]
    assert pairs.gallery.tolist() == [0, 1, 2]
    assert pairs.positions.tolist() == [[0, 0], [2, 4]]


def test_splits_roles_and_gallery(tmp_path, queries, references):
    path = csv_of(
        tmp_path,
        "query,reference,role,d_row,d_col,split\n"
        "q1,r2,positive,3,4,val\n"
        "q1,r3,semi,,,val\n"
        "q0,r1,positive,0,0,train\n"
        "q0,r3,semi,,,train\n"
        "q2,r4,,,,train\n"  # no role: positive
        "q3,r1,positive,,,train\n",  # many queries to one reference
    )
    train = join(queries, references, path, "train")
    assert train.ids == ["q0", "q2", "q3"]
    assert train.references.tolist() == [1, 4, 1]
    assert [rows.tolist() for rows in train.semi] == [[3], [], []]
    # r2 is val's alone; r0 and r5 are named nowhere and distract in both.
    assert train.gallery.tolist() == [0, 1, 3, 4, 5]
    val = join(queries, references, path, "val")
    assert val.ids == ["q1"]
    assert [rows.tolist() for rows in val.semi] == [[3]]
    assert val.gallery.tolist() == [0, 2, 3, 5]
    everything = join(queries, references, path, None)
    assert len(everything) == 4
    assert everything.gallery.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_gallery_may_hold_more_than_its_queries_name(tmp_path, queries, references):
    """VIGOR: the test is searched in all tiles, those of training places among them."""
    path = csv_of(
        tmp_path,
        "query,reference,role,split\n"
        "q0,r0,positive,train\n"
        "q1,r1,positive,train\n"
        "q2,r2,positive,test\n"
        ",r1,gallery,test\n"
        ",r3,gallery,test\n",
    )
    test = join(queries, references, path, "test")
    assert test.ids == ["q2"]
    assert test.gallery.tolist() == [1, 2, 3, 4, 5]  # r0 is train's alone
    # r3, which nobody's query names, is searched where it is said, and r4 and r5 everywhere.
    assert join(queries, references, path, "train").gallery.tolist() == [0, 1, 4, 5]


def test_several_positives_are_kept_for_search_and_taken_apart_for_training(
    tmp_path, queries, references
):
    path = csv_of(
        tmp_path,
        "query,reference,role\n"
        "q0,r0,positive\nq0,r1,positive\nq0,r0,positive\nq0,r9,positive\n"  # once more, and gone
        "q1,r2,positive\nq1,r5,semi\nq1,r0,semi\nq2,r2,positive\nq2,r3,positive\n",
    )
    pairs = join(queries, references, path, None)
    assert pairs.ids == ["q0", "q1", "q2"]
    assert pairs.references.tolist() == [0, 2, 2]
    assert [rows.tolist() for rows in pairs.others] == [[1], [], [3]]
    each = pairs.each()
    assert each.ids == ["q0", "q0", "q1", "q2", "q2"]
    assert each.queries.tolist() == [0, 0, 1, 2, 2]
    assert each.references.tolist() == [0, 1, 2, 2, 3]
    assert [rows.tolist() for rows in each.others] == [[]] * 5
    assert [rows.tolist() for rows in each.semi] == [[], [], [5, 0], [], []]
    # q1 and q2 share r2, and so r3 is no negative of q1's.
    a, b, c, d, e = each.classes()
    assert a == b
    assert c == d == e
    assert a != c
    matched = pairs.matched()
    assert matched.gallery.tolist() == [0, 1, 2, 3]
    assert [rows.tolist() for rows in matched.semi] == [[], [0], []]
    assert matched.ids == pairs.ids


def test_with_one_positive_each_the_classes_are_the_references(tmp_path, queries, references):
    path = csv_of(tmp_path, "query,reference\nq0,r4\nq1,r2\nq2,r4\n")
    pairs = join(queries, references, path, None)
    assert pairs.each() is pairs
    assert pairs.classes().tolist() == [4, 2, 4]


def test_bom_and_windows_line_ends(tmp_path, queries, references):
    path = csv_of(tmp_path, "\ufeffquery,reference,split\r\nq0,r0,train\r\nq1,r5,train\r\n")
    assert join(queries, references, path, "train").references.tolist() == [0, 5]


def test_a_file_without_splits_serves_every_split(tmp_path, queries, references):
    path = csv_of(tmp_path, "reference,query\nr0,q0\nr1,q1\n")
    assert join(queries, references, path, "val").ids == ["q0", "q1"]


def test_skipped_rows_are_left_out_aloud(tmp_path, queries, references, caplog):
    path = csv_of(tmp_path, "query,reference\nq0,r0\nq9,r1\nq1,r9\nq2,r2\n")
    pairs = join(queries, references, path, "train")
    assert pairs.ids == ["q0", "q2"]
    assert "2 of 4 pairs" in caplog.text


def test_only_keeps_the_order_asked_for(tmp_path, queries, references):
    path = csv_of(tmp_path, "query,reference,role\nq0,r0,\nq1,r1,\nq2,r2,\nq2,r5,semi\n")
    some = join(queries, references, path, None).only(["q2", "q0"])
    assert some.ids == ["q2", "q0"]
    assert some.references.tolist() == [2, 0]
    assert [rows.tolist() for rows in some.semi] == [[5], []]
    assert some.positions.tolist() == [[2, 4], [0, 0]]
    assert some.gallery.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query,tile\nq0,r0\n", "unknown column 'tile'"),
        ("", "is empty"),
        ("query,reference,role\nq0,r0,\nq1,r1,maybe\n", "line 3: role must be one of positive"),
        ("query,reference,split\nq0,r0,train\nq1,r1\n", "line 3: 2 cells"),
    ],
)
def test_errors_name_file_and_line(tmp_path, queries, references, text, said):
    path = csv_of(tmp_path, text)
    with pytest.raises(DataError) as caught:
        join(queries, references, path, "train")
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_split_that_is_not_there(tmp_path, queries, references):
    path = csv_of(tmp_path, "query,reference,split\nq0,r0,train\n")
    with pytest.raises(SplitError, match="no pairs of split 'test'"):
        join(queries, references, path, "test")


def test_ids_that_never_meet_are_shown(tmp_path, queries, references):
    with pytest.raises(DataError, match=r"like 'q0' and .* like 'r0'"):
        join(queries, references, None, None)


def test_missing_and_binary_files(tmp_path, queries, references):
    with pytest.raises(DataError, match="cannot be read"):
        join(queries, references, tmp_path / "none.csv", None)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"query,reference\n\xff\xfe\n")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        join(queries, references, path, None)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_the_order_asked_for(tmp_path, queries, references, threads):
    path = csv_of(tmp_path, "query,reference\nq0,r5\nq1,r4\nq2,r3\nq3,r2\n")
    pairs = join(queries, references, path, None)
    wanted = [np.array(b) for b in ([3, 0], [1], [2, 1, 0], [3], [0, 2])]
    batches = list(PairReader(queries, references, pairs, threads=threads).read(wanted))
    assert [b.pairs.tolist() for b in batches] == [w.tolist() for w in wanted]
    for batch, rows in zip(batches, wanted, strict=True):
        assert batch.query.shape == (len(rows), 4, 4, 3)
        assert batch.query[:, 0, 0, 0].tolist() == rows.tolist()
        assert batch.reference[:, -1, -1, -1].tolist() == (5 - rows).tolist()


def test_reading_can_stop_early_and_errors_come_through(queries):
    chunks = read_chunks(queries, np.array([3, 1, 0, 2]), 3)
    assert next(iter(chunks))[:, 0, 0, 0].tolist() == [3, 1, 0]
    with pytest.raises(IndexError):
        list(read_chunks(queries, np.array([1, 99]), 1))
    assert read_rows(queries, np.array([2, 2]))[:, 0, 0, 0].tolist() == [2, 2]
