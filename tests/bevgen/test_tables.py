"""poses.csv and pairs.csv: read as people write them, and written so that they are read alike."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevgen import InputError, Pair, PoseRow, read_pairs, read_poses, write_pairs, write_poses

# --- poses ---


def poses(folder, text):
    path = folder / "poses.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_poses(path)


def test_poses(tmp_path):
    rows = poses(
        tmp_path,
        "\ufefffile,id,heading,pitch,roll,height,latitude,longitude,date\r\n"
        "a/1.jpg,first,359.5,-90,180,1.9,49.0,-1.5,2021-07-29\r\n"
        "\r\n"
        "./b.jpg,,,,,,,,\r\n"
        '"c, d\u00e9.jpg", x y ,1e1,,,,,,\r\n'
        "back\\slash.jpg,,-5,,,,,,\r\n"
        ",,,,,,,,\r\n",
    )
    assert list(rows) == ["a/1.jpg", "b.jpg", "c, d\u00e9.jpg", "back\\slash.jpg"]
    assert rows["a/1.jpg"] == PoseRow(
        "a/1.jpg",
        "first",
        heading=359.5,
        pitch=-90.0,
        roll=180.0,
        height=1.9,
        latitude=49.0,
        longitude=-1.5,
        date="2021-07-29",
    )
    assert rows["b.jpg"] == PoseRow("b.jpg")
    assert rows["c, d\u00e9.jpg"] == PoseRow("c, d\u00e9.jpg", "x y", heading=10.0)


def test_poses_columns_in_any_order(tmp_path):
    rows = poses(tmp_path, "height , file\n2.5,a.jpg\n")
    assert rows["a.jpg"] == PoseRow("a.jpg", height=2.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("heading\n1\n", "line 1: no column file"),
        ("file,headin\n", "line 1: unknown column 'headin'; did you mean heading?"),
        ("file,Lat\n", "line 1: unknown column 'Lat'; did you mean latitude?"),
        ("file,qqqq\n", "line 1: unknown column 'qqqq'; known are file, id, heading"),
        ("file;heading\na.jpg;3\n", "separate the columns by commas"),
        ("file,\n", "line 1: unknown column ''"),
        ("file,roll,roll\n", "line 1: column roll twice"),
        ("file,heading\na.jpg,north\n", "line 2: heading must be a number"),
        ('file,heading\na.jpg,"12,5"\n', "line 2: heading must be a number"),
        ("file,heading\na.jpg,nan\n", "line 2: heading must be a number"),
        ("file,heading\na.jpg,inf\n", "line 2: heading must be a number"),
        ("file,pitch\na.jpg,0\nb.jpg,90.1\n", "line 3: pitch must be -90 to 90, not 90.1"),
        ("file,roll\na.jpg,-181\n", "line 2: roll must be"),
        ("file,tilt_error\na.jpg,-1\n", "line 2: tilt_error is a standard deviation"),
        ("file,height\na.jpg,0\n", "line 2: height must be above 0"),
        ("file,height\na.jpg,1e300\n", "line 2: height must be above 0 and at most 10000"),
        ("file,heading\na.jpg,1e308\n", "line 2: heading must be -36000 to 36000"),
        ("file,latitude,longitude\na.jpg,91,0\n", "line 2: latitude must be"),
        ("file,latitude,longitude\na.jpg,9,181\n", "line 2: longitude must be"),
        ("file,latitude,longitude\na.jpg,9,\n", "line 2: latitude and longitude go together"),
        ("file,pitch\na.jpg,0\n./a.jpg,1\n", "line 3: a.jpg has a row on line 2 already"),
        ("file,pitch\na.jpg\n", "line 2: 1 cell, but the first line names 2 columns"),
        ("file,pitch\na.jpg,1,2\n", "line 2: 3 cells"),
        ("file,pitch\n,1\n", "line 2: no file"),
        ('file,id\na.jpg,"open\n', "not comma-separated text"),
        (b"file\nok.jpg\nd\xe9.jpg\n", "line 3: not UTF-8"),
    ],
)
def test_poses_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        poses(tmp_path, text)
    assert "poses.csv" in str(caught.value)


def test_poses_that_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read: No such file"):
        read_poses(tmp_path / "nowhere.csv")


# --- pairs ---


def pairs(folder: Path, text: str | bytes) -> list[Pair]:
    path = folder / "pairs.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_pairs(path))


def test_pairs(tmp_path):
    found = pairs(
        tmp_path,
        "\ufeffreference, query,role,d_row,d_col,split\r\n"
        "r0,q0,positive,-71.5,3,train\r\n"
        "\r\n"
        '"r, 1",q1,,,,val\r\n'
        "r2,q1,semi,1e1,,val\r\n"
        "r3,,gallery,,,\r\n"
        ",,,,,\r\n",
    )
    assert found == [
        Pair("q0", "r0", "positive", -71.5, 3.0, "train"),
        Pair("q1", "r, 1", "positive", None, None, "val"),
        Pair("q1", "r2", "semi", 10.0, None, "val"),
        Pair("", "r3", "gallery", None, None, ""),
    ]


def test_pairs_without_splits_say_nothing_of_them(tmp_path):
    assert pairs(tmp_path, "query,reference\nq,r\n") == [Pair("q", "r")]


def test_pairs_are_read_row_by_row(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("query,reference\nq0,r0\nq1\n")
    rows = read_pairs(path)
    assert next(rows) == Pair("q0", "r0")
    with pytest.raises(InputError, match="line 3: 1 cell, but the first line names 2 columns"):
        next(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty: its first line must name the columns, query and reference among them"),
        ("query,tile\nq,r\n", "line 1: unknown column 'tile'; known are query, reference, role"),
        ("query,Split\nq,r\n", "line 1: unknown column 'Split'; did you mean split?"),
        ("query,role\nq,semi\n", "line 1: no column reference"),
        ("query;reference\nq;r\n", "separate the columns by commas"),
        ("query,reference,query\n", "line 1: column query twice"),
        ("query,reference,role\nq,r,best\n", "line 2: role must be one of positive, semi,"),
        (
            "query,reference,role\nq,r,\nq,r,gallery\n",
            "line 3: a row needs a query and a reference",
        ),
        ("query,reference\n,r\n", "line 2: a row needs a query and a reference"),
        ("query,reference\nq,\n", "line 2: a row needs a query and a reference"),
        ("query,reference,d_row\nq,r,far\n", "line 2: d_row must be a number of pixels"),
        ("query,reference,d_col\nq,r,nan\n", "line 2: d_col must be a number of pixels"),
        ("query,reference,d_col\nq,r,1e6\n", "line 2: d_col must be a number of pixels"),
        ("query,reference\nq,r,s\n", "line 2: 3 cells"),
        ('query,reference\nq,"open\n', "not comma-separated text"),
        (b"query,reference\nok,r\nd\xe9,r\n", "line 3: not UTF-8"),
    ],
)
def test_pairs_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        pairs(tmp_path, text)
    assert "pairs.csv" in str(caught.value)


def test_pairs_that_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read: No such file"):
        list(read_pairs(tmp_path / "nowhere.csv"))


# --- written and read again ---

NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=9)
OFFSETS = st.none() | st.floats(-1e5, 1e5)
PAIRS = st.builds(
    Pair, NAMES, NAMES, st.sampled_from(["positive", "semi"]), OFFSETS, OFFSETS, NAMES
)
DEGREES = st.none() | st.floats(-90, 90)
POSES = st.builds(PoseRow, NAMES, st.none() | NAMES, DEGREES, DEGREES, DEGREES)


@given(rows=st.lists(PAIRS, max_size=5))
def test_pairs_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    assert write_pairs(path, iter(rows)) == len(rows)
    assert list(read_pairs(path)) == rows


@given(rows=st.lists(POSES, max_size=5, unique_by=lambda row: row.file))
def test_poses_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("poses") / "poses.csv"
    assert write_poses(path, iter(rows)) == len(rows)
    assert [row.heading for row in read_poses(path).values()] == [row.heading for row in rows]
    assert [row.id for row in read_poses(path).values()] == [row.id for row in rows]


def test_some_columns_alone_are_written_and_nothing_is_left_of_a_failure(tmp_path):
    path = tmp_path / "poses.csv"
    write_poses(path, [PoseRow("a.jpg", "a", latitude=1.5, longitude=-2.0)], ("file", "latitude"))
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["file", "latitude"], ["a.jpg", "1.5"]]

    def broken():
        yield PoseRow("b.jpg")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_poses(path, broken())
    assert [p.name for p in tmp_path.iterdir()] == ["poses.csv"]
    assert "a.jpg" in path.read_text()
