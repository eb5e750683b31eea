"""What is printed comes out on terminals of any encoding and width."""

import io
import os
import pty
import subprocess
import sys

import numpy as np
import pytest

from bevgen import terminal
from bevgen.cli import main
from bevgen.terminal import print_table, size_text
from tests.helpers.runs import SMALL, bevgen, panoramas
from tests.helpers.world import write_shards

ROWS = [
    ["panorama", ("31.2", "22-40"), ("55.0", "44-65"), "1.5"],
    [("both, weight chosen", "(panorama 0.65)"), ("37.5", "29-46"), ("60.1", "50-70"), "76.0"],
]
FIGURES = ["31.2", "22-40", "55.0", "44-65", "1.5", "37.5", "29-46", "60.1", "50-70", "76.0"]
NAMES = ["method", "R@1", "R@5", "median metres"]


class Screen:
    """A stdout of some encoding and width."""

    def __init__(self, patch: pytest.MonkeyPatch, encoding: str, columns: str | None) -> None:
        self.bytes = io.BytesIO()
        stream = io.TextIOWrapper(self.bytes, encoding, write_through=True)
        self.encoding = encoding
        patch.setattr(sys, "stdout", stream)
        patch.setenv("COLUMNS", columns or "80")
        if columns is None:
            patch.delenv("COLUMNS")

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize("columns", [None, "0", "1", "-3", "40", "79", "200", "wide"])
def test_no_figure_is_hidden_at_any_width(monkeypatch, encoding, columns):
    screen = Screen(monkeypatch, encoding, columns)
    terminal.prepare()
    print_table(NAMES, ROWS, title="8 queries, field of view 90°", caption="per cent ▁█")
    text = screen.text
    for figure in [*FIGURES, "both, weight chosen", "(panorama 0.65)", "8 queries", "per cent"]:
        assert figure in text
    assert "…" not in text
    if columns == "40":
        assert max(map(len, text.splitlines())) <= 40
        assert "  R@1           31.2  (22-40)\n" in text


def test_a_table_is_not_bound_to_a_width_where_there_is_no_terminal(monkeypatch):
    screen = Screen(monkeypatch, "utf-8", None)
    print_table(["photo", "place"], [["a" * 200, "here"]])
    (row,) = [line for line in screen.text.splitlines() if "here" in line]
    assert "a" * 200 in row


def test_cells_are_no_markup(monkeypatch):
    screen = Screen(monkeypatch, "utf-8", "100")
    print_table(["[b]id[/b]"], [["[/x] :smile:"]], title="[red]")
    assert "[/x] :smile:" in screen.text
    assert "[b]id[/b]" in screen.text


def test_what_an_encoding_lacks_is_spelled_or_escaped(monkeypatch):
    screen = Screen(monkeypatch, "latin-1", None)
    terminal.prepare()
    print("é ±1 ▁▄█ Łódź \udce9 東")  # noqa: T201
    assert screen.text == "é ±1 _=# \\u0141ód\\u017a \\udce9 \\u6771\n"


def test_rows_of_any_id_are_listed_on_any_terminal(tmp_path, monkeypatch):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    shards = write_shards(tmp_path / "map.h5", "map", ["Łódź", "東"], images)
    for encoding, listed in (
        ("utf-8", ["Łódź", "東"]),
        ("latin-1", [r"\u0141ód\u017a", r"\u6771"]),
    ):
        screen = Screen(monkeypatch, encoding, "40")
        with pytest.raises(SystemExit) as done:
            main(["info", str(shards), "--rows"])
        assert not done.value.code
        assert [row.split("\t")[0] for row in screen.text.splitlines()] == ["id", *listed]


COMMANDS = [
    ("bevgen", "--help"),
    ("bevgen", "convert", "--help"),
    ("georetrieval", "recipes"),
    ("georetrieval", "recipes", "city", "--dry-run"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("encoding", "columns"), [("latin-1", "40"), ("ascii", "0")])
def test_commands_print_on_old_terminals(command, encoding, columns):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": columns}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip()


def test_a_reader_that_has_seen_enough_is_no_error():
    for package in ("bevgen", "georetrieval"):
        done = subprocess.run(
            f"{sys.executable} -m {package} --help | head -c 1; exit ${{PIPESTATUS[0]}}",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert b"Error" not in done.stderr


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def closed_terminal() -> int:
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("log", [full_disk, closed_terminal])
def test_a_log_that_cannot_be_written_ends_no_work(tmp_path, log):
    panoramas(tmp_path / "street", 2)
    stderr = log()
    words = ["convert", "--in", tmp_path / "street", "--out", tmp_path / "bev.h5", *SMALL]
    options = {"capture_output": False, "stderr": stderr, "stdin": subprocess.DEVNULL}
    bevgen(*words, "--height", "2", **options)
    bevgen(*words, "--hight", "2", expect=2, **options)
    os.close(stderr)
    assert "complete" in bevgen(*words, "--height", "2").stderr


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (63_749, "63.7 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (3_150_000, "3.15 MB"),
        (999_700_000_000, "1 TB"),
        (77_600_000_000_000, "77.6 TB"),
    ],
)
def test_sizes_are_written_in_three_digits(count: int, text: str) -> None:
    assert size_text(count) == text
