"""The house is as docs/architecture.md says: every room is there, and none is too large."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGES = ("bevgen", "georetrieval", "pipelines")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
FILE_LINES, BODY_LINES = 500, 60


def exists(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_room_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:bevgen|georetrieval|pipelines)(?:\.[a-z_0-9]+)+)", PAGE)
    assert len(named) > 30
    assert [
        name for name in named if not exists(name) and not exists(name.rpartition(".")[0])
    ] == []


def test_the_tables_name_what_is_in_each_room() -> None:
    for room, holds in re.findall(r"^\| `([\w.]+)`[^|]* \| (.*) \|$", PAGE, re.MULTILINE):
        if (ROOT / room.replace(".", "/")).is_dir():
            inside = re.findall(r"`([a-z_0-9]+)`", holds)
            assert [name for name in inside if not exists(f"{room}.{name}")] == [], room


def test_every_room_that_is_there_is_named() -> None:
    folders = {path.parent for path in FILES}
    rooms = {".".join(folder.relative_to(ROOT).parts) for folder in folders} - set(PACKAGES)
    rooms |= {f"{p.parent.name}.{p.stem}" for p in FILES if p.parent.parent == ROOT}
    rooms = {name for name in rooms if not name.split(".")[-1].startswith("_")}
    tops = {name for name in rooms if name.count(".") == 1 and not name.startswith("pipelines.")}
    assert sorted(name for name in tops if f"`{name}`" not in PAGE) == []


def bodies(path: Path) -> Iterator[tuple[str, int]]:
    """Functions of a file, and the lines of their bodies without the docstring."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            if body:
                yield function.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_file_and_no_function_is_too_long_to_be_read_in_one_sitting() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES} == {}
    long = {
        f"{path.stem}.{name}"
        for path in FILES
        for name, lines in bodies(path)
        if lines > BODY_LINES
    }
    sizes = PAGE[PAGE.index("## Sizes") :]
    assert long == set(re.findall(r"`([a-z_]+\.[a-z_]+)`", sizes)), "see Sizes in architecture.md"
