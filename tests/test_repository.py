"""What surrounds the packages fits them: workflows, hooks, citation, versions."""

from __future__ import annotations

import re
import tomllib

import yaml

import bevgen
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))


def test_workflows_run_what_the_makefile_has():
    (path,) = (ROOT / ".github" / "workflows").iterdir()
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {word for line in lines for word in re.findall(r"\bmake ([\w-]+)", line)}
    assert {"lint", "docs", "test", "wheel", "check-extern"} <= made <= TARGETS
    tested = jobs["tests"]["strategy"]["matrix"]
    assert tested["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert "macos-latest" in [more["os"] for more in tested["include"]]
    assert f">={tested['python'][0]}" == PROJECT["requires-python"]


def test_everything_that_must_hold_runs_before_a_change_lands():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert set(re.findall(r"^make ([\w-]+)", script, re.MULTILINE)) <= TARGETS
    for name in ("lint", "docs", "test"):
        assert f"make {name}\n" in script


def test_hooks_can_be_run():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    own = [hook for repo in hooks if repo["repo"] == "local" for hook in repo["hooks"]]
    assert {hook["entry"].split()[0] for hook in own} == {
        ".venv/bin/ruff",
        ".venv/bin/lint-imports",
    }
    assert all("rev" in repo for repo in hooks if repo["repo"] != "local")


def test_there_is_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == bevgen.__version__
    assert citation["license"] == PROJECT["license"]
