from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

PROGRAMS = [
    path.stem for path in (ROOT / "pipelines").glob("*.py") if "__main__" in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_what_a_program_does(name: str) -> None:
    """Also with `python -OO`, which removes docstrings."""
    line = [sys.executable, "-OO", "-m", f"pipelines.{name}", "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    usage, about, *_ = done.stdout.split("\n\n")
    assert usage.startswith("Usage: ")
    assert about.startswith("  ")
    assert about.endswith(".")
