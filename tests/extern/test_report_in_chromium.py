"""The report as a browser shows it (Debian: chromium): from a file, without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from georetrieval.data.dataset import Dataset
from georetrieval.report import write_report
from georetrieval.run import Run
from tests.helpers.browser import chromium, needs_chromium, probed
from tests.helpers.reports import Reported, make_run

pytestmark = needs_chromium

# Runs in the page once all its pictures have come or failed.
PROBE = """
<script>
addEventListener("load", () => {
  const pictures = [...document.images];
  const sound = (p) => p.complete && p.naturalWidth === Number(p.getAttribute("width"));
  const visible = (node) => node.getClientRects().length > 0;
  const shown = () => [...document.querySelectorAll(".plan .layer")].map(visible);
  const before = shown();
  document.querySelector(".switch button").click();
  const after = shown();
  const picture = document.querySelector(".card img");
  const narrow = picture.getBoundingClientRect().width;
  picture.click();
  const wide = picture.getBoundingClientRect().width;
  const root = document.documentElement;
  const cut = [...document.querySelectorAll("svg text")].filter((text) => {
    const box = text.getBoundingClientRect();
    const frame = text.ownerSVGElement.getBoundingClientRect();
    return visible(text) && (box.left < frame.left - 1 || box.right > frame.right + 1);
  });
  parent.postMessage({
    pictures: pictures.length,
    broken: pictures.filter((p) => !sound(p)).map((p) => p.alt),
    before, after, narrow, wide,
    width: innerWidth, content: root.scrollWidth,
    cut: cut.map((text) => text.textContent),
    green: getComputedStyle(document.querySelector(".right img")).outlineColor,
    loaded: performance.getEntriesByType("resource").map((r) => r.name.slice(0, 40))
      .filter((name) => !name.startsWith("data:")),
  }, "*");
});
</script>
"""
# A browser's window has a least width; a frame in it may be as narrow as a phone.
FRAME = """<!doctype html>
<script>
addEventListener("message", (event) => {
  const found = document.createElement("template");
  found.id = "probe";
  found.dataset.found = JSON.stringify(event.data);
  document.documentElement.append(found);
});
</script>
<iframe src="%s" style="border: 0; width: %dpx; height: 900px"></iframe>
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    reported = make_run(tmp_path_factory.mktemp("in chromium"), name="run é #1")
    out = reported.run / "report.html"
    write_report(
        Run(reported.run), Dataset(reported.data, reported.root), [reported.evaluation], out
    )
    page = out.read_text("utf-8")
    (reported.run / "probed.html").write_text(page.replace("</body>", PROBE + "</body>"), "utf-8")
    return reported


def probe(reported: Reported, folder: Path, width: int) -> dict[str, Any]:
    frame = folder / "frame.html"
    frame.write_text(FRAME % ((reported.run / "probed.html").as_uri(), width), "utf-8")
    found, console = probed(frame.as_uri(), folder / "profile", "--window-size=1700,1000")
    assert console == []
    return found


def test_pictures_are_decoded_nothing_is_loaded_and_clicks_work(reported: Reported, tmp_path: Path):
    found = probe(reported, tmp_path, 1200)
    # 8 queries and 5 failures with two views and five matches, 6 right ones that stand apart.
    assert found["pictures"] == 13 * 7 + 6
    assert found["broken"] == []
    assert found["loaded"] == []
    assert found["green"] == "rgb(18, 138, 75)"
    assert found["before"] == [False, False, False, True]
    assert found["after"] == [True, False, False, False]
    assert found["wide"] > 1.5 * found["narrow"]


@pytest.mark.parametrize("width", [360, 500, 800, 1600])
def test_nothing_is_cut_at_any_width(reported: Reported, tmp_path: Path, width: int):
    found = probe(reported, tmp_path, width)
    assert found["width"] == width
    assert found["content"] <= width
    assert found["cut"] == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_light_and_dark(reported: Reported, tmp_path: Path, dark: bool):
    picture = tmp_path / "page.png"
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _, console = chromium(
        (reported.run / "report.html").as_uri(),
        tmp_path / "profile",
        "--window-size=1100,2600",
        f"--screenshot={picture}",
        *flags,
    )
    assert console == []
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (2600, 1100, 3)
    paper = (20, 23, 28) if dark else (246, 245, 241)
    assert (pixels == paper).all(axis=-1).mean() > 0.3
    curve = (116, 165, 245) if dark else (42, 103, 201)  # the panorama branch's
    assert (np.abs(pixels - curve).max(axis=-1) < 12).sum() > 500
    ink = (230, 232, 236) if dark else (29, 33, 41)
    assert (np.abs(pixels - ink).max(axis=-1) < 12).sum() > 2000


def test_the_page_prints(reported: Reported, tmp_path: Path):
    paper = tmp_path / "page.pdf"
    page = reported.run / "report.html"
    _, console = chromium(page.as_uri(), tmp_path / "profile", f"--print-to-pdf={paper}")
    assert console == []
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 3 <= pages <= 12
