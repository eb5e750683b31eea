"""docs/robustness.md tells what happens: a few of its situations, and all of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness import PAGE, try_all
from tests.situations import SITUATIONS
from tests.situations.frame import Ended, Situation, Told

FEW = (
    "`merge` twice into one file",
    "`merge` when no more can be written",
    "`bevgen level` into a folder without the right to write",
    "extended XMP in JPEG, last part first",
    "EXIF, seconds of 0/0",
    "`info --rows` into a pipe whose reader has gone",
    "`convert` with `NUMBA_DISABLE_JIT=1`",
    "a heading of 1e308 in `poses.csv`",
    "`project()`: a heading of 1e308",
)


def test_a_few_situations_end_as_the_page_says(tmp_path: Path) -> None:
    chosen = [situation for situation in SITUATIONS if situation.name in FEW]
    assert len(chosen) == len(FEW)
    rows, wrong = try_all(chosen, tmp_path, threads=2)
    assert wrong == {}
    text = PAGE.read_text("utf-8")
    assert [row for row in rows.values() if row not in text] == []


def test_the_page_has_a_row_for_every_situation() -> None:
    text = PAGE.read_text("utf-8")
    names = [situation.name for situation in SITUATIONS]
    assert len(set(names)) == len(names) > 100
    assert [name for name in names if f"\n| {name} | " not in text] == []
    assert f": {len(names)} situations." in " ".join(text.split())
    assert [kind for kind in {one.kind for one in SITUATIONS} if f"\n## {kind}\n" not in text] == []


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (1, "Error: no", ""),
        (0, "Error: no", "exit codes"),
        (1, "Error: yes", "is not in"),
    ],
)
def test_what_is_not_expected_is_told(tmp_path: Path, code: int, text: str, wrong: str) -> None:
    one = Situation("kind", "name", lambda place: Told.of(Ended(code, text)), (1,), "Error: no")
    rows, found = try_all([one], tmp_path)
    assert (list(rows), [wrong in why for why in found.values()]) == (
        ([], [True]) if wrong else (["name"], [])
    )
