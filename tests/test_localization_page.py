"""docs/localization.md, command by command as a reader types it, on a smaller town."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from georetrieval.config import settings_json
from tests.helpers.paths import ROOT
from tests.helpers.world import tiny_settings
from tests.test_docs import blocks

PAGE = ROOT / "docs" / "localization.md"
SMALLER = {
    "--places 320 --validation 0.3": "--places 66 --validation 0.7 --test 0.1",
    "--panorama-width 512": "--panorama-width 128",
    "--tile-size 128": "--tile-size 32",
    "--size 128": "--size 32",
    "--resolution 0.390625": "--resolution 1.5625",
    "--size 96x192": "--size 32x64",
    "--recipe city": "--recipe tiny.toml",
    "--step 10": "--step 40",
}


def smaller(line: str) -> str:
    for old, new in SMALLER.items():
        line = line.replace(old, new)
    return line


def toml(folder: Path) -> None:
    """Write settings that train in seconds."""
    values = json.loads(settings_json(tiny_settings("panorama", "bev")))

    def lines(name: str, table: dict) -> list[str]:
        plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, dict)}
        out = [f"[{name}]"] if name else []
        out += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
        for key, value in table.items():
            if isinstance(value, dict):
                out += lines(f"{name}.{key}" if name else key, value)
        return out

    (folder / "tiny.toml").write_text("\n".join(lines("", values)) + "\n")


def served(line: str, folder: Path, environment: dict[str, str]) -> None:
    """Start the page as it is typed, look at it, and stop it with Ctrl-C."""
    words = [*line.split(), "--port", "0"]
    with subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as page:
        try:
            assert page.stdout is not None
            address = page.stdout.readline().split()[0]
            with urllib.request.urlopen(address) as answer:
                assert b"Where was it taken?" in answer.read()
        finally:
            page.terminate()


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    toml(tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    monkeypatch.chdir(tmp_path)
    count, names = 0, {}
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile(block.text, str(PAGE), "exec"), names)
        if block.language != "bash":
            continue
        for line in block.text.splitlines():
            if "localization_study" in line:  # an hour; tests/pipelines tests its figures
                continue
            count += 1
            typed = smaller(line)
            if "georetrieval serve" in typed:
                served(typed, tmp_path, environment)
                continue
            done = subprocess.run(
                typed, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode in ((0, 3) if "georetrieval locate" in typed else (0,)), (
                typed + done.stdout + done.stderr
            )
    assert count >= 12
    best = names["best"]
    assert best.latitude is not None
    assert (tmp_path / "town" / "found.csv").read_text().startswith("photo,rank,tile")


def test_sentences_that_the_page_explains_are_those_that_are_said():
    said = re.findall(
        r"^\| `([^`]+)`", PAGE.read_text("utf-8").split("## When it goes wrong")[1], re.M
    )
    source = "".join(path.read_text("utf-8") for path in (ROOT / "georetrieval").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)
    assert len(said) >= 6
    for sentence in said:
        if sentence.startswith("not found"):
            continue
        for part in re.split(r" \.\.\. |uint16|area\.geojson|8000", sentence):
            assert part.strip() in source, part
