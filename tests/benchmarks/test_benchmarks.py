"""The benchmarks' commands work, and say what they should of figures that are known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.frame import Contest, Row, Setup, Way, judge, measure, verdict
from tests.benchmarks.report import markdown, write_docs


def run(*words, folder):
    return subprocess.run(
        [
            *[sys.executable, "-m", "tests.benchmarks", *words, "--tiny", "--rounds", "1"],
            *["--folder", str(folder / "work"), "--out", str(folder / "out")],
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_contests_run_and_their_tables_hold_every_row(tmp_path):
    names = ["loader", "recall", "neighbours", "neighbours-million", "batches", "scaling-convert"]
    names += ["convert", "training"]
    done = run(*names, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in names}
    for result in results.values():
        assert result["machine"]["packages"]["numpy"]
        for way in result["ways"].values():
            assert all(seconds > 0 for seconds in way["wall"] + way["cpu"])
    numbers = [row["number"] for result in results.values() for row in result["rows"]]
    rows = {"1", "2", "8a", "8b", "9", "9b", "9c", "9d", "10", "10b", "11", "14", "14b"}
    assert set(numbers) == rows
    for number in numbers:
        assert f"| {number} |" in done.stdout
    taken = results["scaling-convert"]["ways"]["20 images"]["bytes"]
    assert 50e6 < taken < 500e6  # a Python process with Numba, not this one


def test_an_unknown_contest_is_named(tmp_path):
    done = run("recal", folder=tmp_path)
    assert done.returncode == 2
    assert "no contest recal" in done.stderr


def times(wall, cpu=None, taken=None):
    return {"wall": wall, "cpu": cpu or wall, "bytes": taken}


def test_a_ratio_is_the_median_over_rounds_of_the_lower_clock():
    ways = {"ours": times([1, 2, 1], [1, 1, 1]), "peer": times([10, 30, 50], [8, 9, 7])}
    row = Row("1", "work", "ours", "peer", 8, 15)
    assert judge(row, ways, "cpu")[0]["figure"] == 8
    assert judge(row, ways, "wall")[0]["figure"] == 15


@pytest.mark.parametrize(
    ("must", "aim", "expected"),
    [(5, 12, "met"), (5, 10, "aim met"), (11, 12, "missed"), (None, None, "shown only")],
)
def test_verdicts(must, aim, expected):
    ways = {"ours": times([1.0]), "peer": times([10.0])}
    (line,) = judge(Row("1", "work", "ours", "peer", must, aim), ways, "cpu")
    assert verdict(line) == expected


def test_seconds_and_memory_are_upper_limits():
    ways = {"ours": times([1.2], taken=5), "peer": times([2.4], taken=100)}
    (line,) = judge(Row("1", "start", "ours", None, 1.5, 1), ways, "cpu")
    assert verdict(line) == "met"
    _, line = judge(Row("1", "work", "ours", "peer", 1, memory=0.04), ways, "cpu")
    assert line["figure"] == 0.05
    assert verdict(line) == "missed"
    _, line = judge(Row("1", "work", "ours", None, 2, memory=8), ways, "cpu")
    assert line["figure"] == 5
    assert verdict(line) == "met"


def test_ways_take_turns_and_figures_are_per_piece():
    calls = []
    contest = Contest(
        "turns",
        "two ways",
        "piece",
        lambda setup: {name: Way(lambda name=name: calls.append(name), 4) for name in "ab"},
        [Row("1", "work", "a", "b")],
    )
    result = measure(contest, Setup(Path()), 3)
    assert calls == list("ab" + "ab" + "ba" + "ab")  # a warm-up, then rounds
    assert len(result["ways"]["a"]["wall"]) == 3


def test_tables_go_between_the_marks_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    write_docs(page, markdown([]))
    text = page.read_text()
    assert text.startswith("before\n<!-- results -->\n\n| # | what |")
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_docs(page, "")
