"""README and quickstart are run as a reader would; all commands in the docs must exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from bevgen.cli import bevgen_command
from georetrieval.cli import georetrieval_command
from tests.helpers.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^(`{3,}|:{3,})(\{[\w-]+\} ?)?([^\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
# What differs from run to run and from disk to disk.
VARIES = re.compile(r"[\d.]+(?= (?:s|ms|images/s|[kMGT]B free)\b)")


class Block(NamedTuple):
    """A fenced block: its language, its caption if any, its text."""

    language: str
    caption: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text("utf-8")):
        text = match[4]
        caption = None
        if match[2] and (option := re.match(r":caption: (.*)\n\n?", text)):
            caption, text = option[1], text[option.end() :]
        found.append(Block(match[3].strip(), caption, text))
    return found


def typed_lines(page: Path) -> list[str]:
    """Command lines of ours in blocks, continued ones joined."""
    lines = []
    for block in blocks(page):
        if block.language in ("console", "bash", "sh", "shell", ""):
            joined = block.text.replace("\\\n", " ")
            lines += [line.removeprefix("$ ") for line in joined.splitlines()]
    return [
        line for line in lines if re.match(r"(bevgen|georetrieval|python -m pipelines\.)", line)
    ]


def mentioned_lines(page: Path) -> list[str]:
    """Commands and bare options in running text, such as `bevgen info --rows`."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return re.findall(r"`((?:bevgen|georetrieval) [a-z][^`]*)`", text)


def words_of(line: str) -> list[str]:
    """Words of a command line, without what follows a pipe or a #."""
    return shlex.split(re.split(r" [|>] ", line)[0], comments=True)


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    if words[0] == "python":
        return importlib.import_module(words[2]).main, words[3:]
    group = {"bevgen": bevgen_command, "georetrieval": georetrieval_command}[words[0]]
    command = group.get_command(click.Context(group), words[1])
    assert command is not None, f"no command {words[1]!r}"
    return command, words[2:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_can_be_typed(page):
    for line in typed_lines(page):
        words = words_of(line)
        if words[1].startswith("--"):
            continue
        command, arguments = find_command(words)
        try:
            command.make_context(" ".join(words), arguments)
        except click.exceptions.Exit:
            pass  # --help
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_mentioned_in_the_docs_exist(page):
    for line in mentioned_lines(page):
        words = words_of(line)
        command, arguments = find_command(words)
        known = {name for option in command.params for name in option.opts} | {"--help"}
        options = [word for word in arguments if word.startswith("-")]
        assert set(options) <= known, f"{page.name}: {line}: unknown option"


def test_the_check_of_commands_would_notice_a_mistake(tmp_path):
    """An option that does not exist, and one that was left out."""
    page = tmp_path / "page.md"
    page.write_text("```bash\nbevgen convert --in a --out b --heigth 2\n```\n")
    with pytest.raises(pytest.fail.Exception, match="heigth"):
        test_commands_in_the_docs_can_be_typed(page)
    page.write_text("```console\n$ bevgen convert --in a \\\n    --height 2\n```\n")
    with pytest.raises(pytest.fail.Exception, match="--out"):
        test_commands_in_the_docs_can_be_typed(page)
    page.write_text("See `bevgen info --row`.")
    with pytest.raises(AssertionError, match="unknown option"):
        test_commands_mentioned_in_the_docs_exist(page)


def comparable(text: str) -> list[str]:
    lines = [VARIES.sub("N", line.rstrip()) for line in text.splitlines()]
    return [line for line in lines if line]


def run_console(block: Block, folder: Path) -> None:
    """Run each command of a session, and compare what is printed with what the page shows."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
    }
    for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, shown = session.partition("\n")
        done = subprocess.run(
            line,
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert comparable(done.stdout) == comparable(shown), line


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a page's blocks in their order; a `text` block is what the Python before it prints."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    printed: str | None = None
    count = 0
    for block in blocks(page):
        count += block.language in ("console", "python")
        if block.caption is not None:
            (folder / block.caption).write_text(block.text, "utf-8")
        elif block.language == "console":
            run_console(block, folder)
        elif block.language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(block.text, str(page), "exec"), names)
            printed = output.getvalue()
        elif block.language == "text" and printed is not None:
            assert comparable(printed) == comparable(block.text)
            printed = None
    return count


@pytest.fixture
def reader_folder(tmp_path: Path) -> Path:
    """What a reader has: a clone's test images, under the names that the pages use."""
    data = ROOT / "tests" / "data"
    shutil.copytree(data / "street", tmp_path / "tests" / "data" / "street")
    return tmp_path


def test_quickstart_runs_as_printed(reader_folder, monkeypatch):
    assert run_page(ROOT / "docs" / "quickstart.md", reader_folder, monkeypatch) >= 10


def test_readme_runs_as_printed(reader_folder, monkeypatch):
    (reader_folder / "streetview").mkdir()
    for photo in (reader_folder / "tests" / "data" / "street").glob("*.jpg"):
        shutil.copy(photo, reader_folder / "streetview")
    assert run_page(ROOT / "README.md", reader_folder, monkeypatch) >= 2


def test_levelling_runs_as_printed(reader_folder, monkeypatch):
    assert run_page(ROOT / "docs" / "level.md", reader_folder, monkeypatch) >= 1


def test_masking_runs_as_printed(reader_folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_page(ROOT / "docs" / "masks.md", reader_folder, monkeypatch) >= 3


def test_measuring_runs_as_printed(reader_folder, monkeypatch):
    assert run_page(ROOT / "docs" / "measuring.md", reader_folder, monkeypatch) >= 3


@pytest.mark.parametrize("page", ["mosaic.md", "real-images.md"])
def test_mosaics_print_what_the_pages_say_but_for_the_last_digits(page, reader_folder):
    sessions = [b for b in blocks(ROOT / "docs" / page) if b.language == "console"]
    (session,) = (b for b in sessions if "bevgen mosaic" in b.text)
    line, *shown = session.text.removeprefix("$ ").splitlines()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        line, shell=True, cwd=reader_folder, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    number = re.compile(r"\d+(?:\.\d+)?")
    assert [number.sub("N", row) for row in done.stdout.splitlines()] == [
        number.sub("N", row) for row in shown
    ]
    # Decoders and vector units round differently: a hundredth here and there.
    printed, promised = (list(map(float, number.findall(t))) for t in (done.stdout, session.text))
    assert printed == pytest.approx(promised[-len(printed) :], rel=0.03, abs=0.03)


def test_pictures_and_pages_that_the_readme_links_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|href)=\"([^\"#]+)\"", text)
    targets = {a or b for a, b in links}
    local = {target for target in targets if not target.startswith("http")}
    assert local
    assert {target for target in local if not (ROOT / target).exists()} == set()


# --- as built ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it."""
    out = tmp_path_factory.mktemp("docs") / "html"
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", out]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_pages_load_nothing_from_a_network(built):
    loaded = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)|<link\b([^>]*)>")
    for page in built.rglob("*.html"):
        for source, link in loaded.findall(page.read_text("utf-8")):
            assert not re.search(r"(?:https?:)?//", source or link), (
                f"{page.name}: {source or link}"
            )
    for style in built.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text("utf-8"))


def test_formulas_are_drawn_and_none_stands_raw(built):
    page = (built / "geometry.html").read_text("utf-8")
    assert page.count("<math ") >= len(
        re.findall(r"\$[^$]+\$", (ROOT / "docs/geometry.md").read_text())
    )
    aligned = re.search(r'<div class="math"><math .*?</math></div>', page, re.DOTALL)
    assert aligned is not None
    assert aligned[0].count("<mtr>") == 3  # a row for each of the mapping's lines
    for path in built.glob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"\\\(|\\\[|\\(?:tfrac|frac|sqrt|tan)\b", text), path.name


def test_the_first_page_begins_with_tasks_and_pictures(built):
    page = (built / "index.html").read_text("utf-8")
    pictures = re.findall(
        r'<a class="reference internal" href="([\w-]+)\.html"><span[^>]*><img ', page
    )
    assert len(pictures) >= 5
    for name in pictures:
        assert (built / f"{name}.html").exists()
