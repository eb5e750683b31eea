"""The page of `georetrieval serve` as a browser shows it (Debian: chromium): drop, and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from georetrieval.localization import Locator
from georetrieval.retrieval.index import build_index
from georetrieval.serve import create_app
from tests.georetrieval.test_serve import served
from tests.helpers.browser import needs_chromium, probed
from tests.helpers.town import Town, make_town

pytestmark = needs_chromium

# A page of the same site that drops a file on the page in its frame, as a hand would.
DROP = """<!doctype html>
<style>body { margin: 0 } iframe { border: 0; width: 100vw; height: 100vh }</style>
<iframe id="frame" src="/"></iframe>
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
frame.onload = async () => {
  const inside = frame.contentDocument, view = frame.contentWindow;
  const places = [];
  new view.MutationObserver(() => places.push(inside.getElementById("place").textContent))
    .observe(inside.getElementById("place"), { childList: true });
  inside.querySelector(CHOICE).checked = true;
  const photos = [];
  for (const name of NAMES) photos.push(await (await fetch(`/photo/${name}`)).blob());
  for (const [k, name] of NAMES.entries()) {
    const transfer = new view.DataTransfer();
    transfer.items.add(new view.File([photos[k]], name));
    inside.getElementById("drop").dispatchEvent(
      new view.DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
  const answer = inside.getElementById("answer"), status = inside.getElementById("status");
  for (let k = 0; k < 400 && answer.hidden && !status.classList.contains("error"); k++)
    await wait(50);
  await wait(1500);
  const pictures = [...inside.images].filter((one) => one.getClientRects().length);
  const found = document.createElement("template");
  found.id = "probe";
  found.dataset.found = JSON.stringify({
    places,
    status: status.textContent,
    candidates: inside.querySelectorAll("#candidates li").length,
    pins: inside.querySelectorAll(".leaflet-marker-icon").length,
    ground: inside.querySelectorAll(".leaflet-overlay-pane img").length,
    over: inside.getElementById("over").getAttribute("style"),
    broken: pictures.filter((one) => !one.complete || !one.naturalWidth).map((one) => one.src),
    loaded: view.performance.getEntriesByType("resource").map((one) => one.name)
      .filter((name) => /^https?:/.test(name) && !name.startsWith(location.origin)),
  });
  document.documentElement.append(found);
};
</script>
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = make_town(tmp_path_factory.mktemp("town"))
    build_index(town.run, [town.tiles], town.root / "town.index")
    return town


def dropped(
    town: Town, photos: Sequence[Path], folder: Path, choice: str, *flags: str
) -> tuple[dict[str, Any], list[str]]:
    """Drop photos on the page at once; return what is to be seen, and what the console says."""
    text = DROP.replace("NAMES", json.dumps([photo.name for photo in photos]))
    text = text.replace("CHOICE", json.dumps(f"input[value='{choice}']"))

    async def page(request: Request) -> Response:
        return HTMLResponse(text)

    async def file(request: Request) -> Response:
        return FileResponse({photo.name: photo for photo in photos}[request.path_params["name"]])

    app = create_app(Locator(town.root / "town.index"))
    app.router.routes[:0] = [Route("/drop", page), Route("/photo/{name}", file)]
    with served(app) as port:
        address, profile = f"http://127.0.0.1:{port}/drop", folder / "profile"
        return probed(address, profile, *flags, milliseconds=60_000)


def test_a_dropped_panorama_is_located_on_the_map(town: Town, tmp_path: Path):
    found, console = dropped(town, [town.photos[5]], tmp_path, "", "--window-size=1400,900")
    assert console == []
    best = Locator(town.root / "town.index").locate(town.photos[5]).best
    assert best is not None
    (place,) = found["places"]
    assert f"{best.latitude:.5f}" in place
    assert f"{best.longitude:.5f}" in place
    assert found["candidates"] == 5
    assert found["pins"] == 1
    assert found["ground"] > 0
    assert "width" in found["over"]
    assert found["broken"] == []
    assert found["loaded"] == []


def test_what_is_no_panorama_is_said_on_the_page(town: Town, tmp_path: Path):
    text = tmp_path / "../text.jpg"
    text.write_text("no image")
    found, _ = dropped(town, [text], tmp_path, "")
    assert "not an image" in found["status"]
    assert found["places"] == []


def test_of_two_photos_the_first_is_forgotten(town: Town, tmp_path: Path):
    """Its answer comes while the second is being located."""
    found, console = dropped(town, town.photos[4:6], tmp_path, "")
    assert console == []
    best = Locator(town.root / "town.index").locate(town.photos[5]).best
    assert best is not None
    (place,) = found["places"]
    assert f"{best.latitude:.5f}" in place
