from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from bevgen import ShardSet
from georetrieval.cli import main
from georetrieval.cli.serve import as_in_urls
from georetrieval.errors import GeoretrievalError, SettingsError
from georetrieval.localization import Locator
from georetrieval.retrieval.index import build_index, remove_tiles
from georetrieval.run import Run
from georetrieval.serve import create_app, listen
from georetrieval.serve.pictures import extent, tiles_in_view
from tests.helpers.town import Town, make_town
from tests.helpers.world import write_shards

LIMIT = 300_000
LOCAL = "127.0.0.1"
HERE = f"http://{LOCAL}"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = make_town(tmp_path_factory.mktemp("town"))
    build_index(town.run, [town.tiles], town.root / "town.index")
    return town


@pytest.fixture(scope="module")
def app(town: Town):
    return create_app(Locator(town.root / "town.index"), max_bytes=LIMIT)


@pytest.fixture
def client(app) -> TestClient:
    return TestClient(app, base_url=HERE)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is sent go to a folder of this test, which tests beside it do not write to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def left_behind() -> list[Path]:
    return list(Path(gettempdir()).glob("georetrieval-*"))


def test_a_photo_is_answered_with_places_and_pictures(client, town):
    data = town.photos[4].read_bytes()
    said = client.post("/locate?name=p004.png&heading=0", content=data)
    assert said.status_code == 200
    answer = said.json()
    expected = Locator(town.root / "town.index").locate(town.photos[4])
    first = answer["candidates"][0]
    assert answer["source"] == "p004.png"
    assert len(answer["candidates"]) == 5
    assert answer["photo"].startswith("data:image/jpeg;base64,")
    assert answer["bev"].startswith("data:image/webp;base64,")
    (south, west), (north, east) = first["bounds"]
    assert south < first["latitude"] < north
    assert west < first["longitude"] < east
    assert first["id"] in {candidate.id for candidate in expected.candidates}
    assert left_behind() == []


def test_the_page_its_files_and_the_map_come_from_here_alone(client, town):
    page = client.get("/")
    assert "12 satellite tiles" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "//" not in page.text.replace("<!doctype", "").split("<body>")[0].replace("</", "")
    for name in ("page.js", "page.css", "leaflet/leaflet.js", "leaflet/LICENSE"):
        assert client.get(f"/static/{name}").status_code == 200
    view = "west=10.9&south=47.9&east=11.1&north=48.1"
    rows = [tile["row"] for tile in client.get(f"/tiles?{view}").json()]
    assert sorted(rows) == list(range(12))
    assert client.get("/tiles?west=20&south=0&east=21&north=1").json() == []
    tile = client.get("/tile/3")
    assert tile.headers["content-type"] == "image/jpeg"
    assert tile.content[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tile/99", 404),
        ("/tile/x", 404),
        ("/tiles?west=0", 400),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/locate", 405),
    ],
)
def test_what_is_not_there_is_not_served(client, path, status):
    assert client.get(path).status_code == status


def test_what_is_no_panorama_is_said_in_a_sentence(client, town):
    for data, match in [
        (b"no image at all", "not an image"),
        (b"\xff\xd8\xff", ""),
        (b"", "choose a panorama"),
    ]:
        said = client.post("/locate?name=a.jpg", content=data)
        assert said.status_code in (400, 422)
        assert match in said.json()["error"]
    data = town.photos[0].read_bytes()
    said = client.post("/locate?heading=north", content=data)
    assert said.status_code == 400
    assert "degrees" in said.json()["error"]
    assert left_behind() == []


@pytest.mark.parametrize("heading", ["nan", "inf", "1e308"])
def test_a_heading_that_is_no_direction_is_refused(client, town, heading):
    data = town.photos[0].read_bytes()
    said = client.post(f"/locate?heading={heading}", content=data)
    assert said.status_code == 400
    assert "heading must be finite degrees" in said.json()["error"]


def test_what_the_system_refuses_is_said_in_a_sentence(client, town, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    said = client.post("/locate", content=town.photos[0].read_bytes())
    assert said.status_code == 500
    assert said.json() == {"error": "No such file or directory"}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("geo")] == [
        "/locate: No such file or directory"
    ]


def test_the_map_is_whole_across_the_180th_meridian_and_from_afar(town, tmp_path):
    root = tmp_path / "town"
    shutil.copytree(town.root, root)
    longitudes = np.array([179.998, 179.999, 180.0, -179.999, -179.998, -179.997])
    positions = np.stack([np.full(6, -17.0), longitudes], axis=1)
    pixels = ShardSet(town.tiles).read(range(6))
    write_shards(root / "far.h5", "satellite", town.ids[:6], pixels, positions)
    index = build_index(Run(root / "run"), [root / "far.h5"], root / "far.index")
    (south, west), (north, east) = extent(index)
    assert (south, north) == (-17.0, -17.0)
    assert (west, east) == (179.998, pytest.approx(180.003))
    for west, east, shift in [
        (179.9, 180.1, 0.0),
        (-180.1, -179.9, -360.0),
        (179.9, -179.9, 0.0),
        (-200.0, 200.0, None),
        (-180.0, 180.0, None),
        (-900.0, 900.0, None),
    ]:
        found = tiles_in_view(index, west, -18.0, east, -16.0)
        assert sorted(tile["row"] for tile in found) == list(range(6)), (west, east)
        for tile in found:
            (_, left), (_, right) = tile["bounds"]
            true = longitudes[tile["row"]] % 360
            assert ((left + right) / 2 - true + 180) % 360 - 180 == pytest.approx(0)
            if shift is not None:
                assert (left + right) / 2 == pytest.approx(true + shift)
    assert tiles_in_view(index, 179.9, -18.0, 179.99, -16.0) == []


def test_a_name_that_climbs_out_of_its_folder_is_a_name_and_no_path(client, town, tmp_path):
    target = tmp_path / "evil.png"
    for name in (f"../../../..{target}", "..\\..\\evil.png", str(target)):
        said = client.post("/locate", params={"name": name}, content=town.photos[0].read_bytes())
        assert said.status_code == 200
        assert said.json()["source"] == "evil.png"
    assert not target.exists()
    assert left_behind() == []


def test_other_hosts_and_other_sites_get_nothing(client, town):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8000"}).status_code == 200
    data = town.photos[0].read_bytes()
    said = client.post("/locate", content=data, headers={"origin": "https://evil.example"})
    assert said.status_code == 403
    said = client.post("/locate?heading=0", content=data, headers={"origin": HERE})
    assert said.status_code == 200


@contextmanager
def served(app) -> Iterator[int]:
    """Serve on a free port; gives the port."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with listen(LOCAL, 0) as listening:
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("chunked", [False, True])
def test_of_an_upload_of_4_gb_no_more_than_the_limit_is_read(app, chunked):
    how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 4000000000"
    with served(app) as port, socket.create_connection(("127.0.0.1", port)) as sent:
        sent.sendall(f"POST /locate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{how}\r\n\r\n".encode())
        block, total = b"x" * 50_000, 0
        sent.settimeout(600)
        try:
            while chunked and total < 20 * LIMIT:
                sent.sendall(b"%x\r\n" % len(block) + block + b"\r\n")
                total += len(block)
        except OSError:
            pass  # closed
        answer = b""
        while b"}" not in answer and (more := sent.recv(65536)):
            answer += more
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"send a smaller one" in answer
    assert left_behind() == []


def test_of_an_upload_that_is_cut_off_nothing_is_left_and_nothing_said(app, capfd):
    with served(app) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as sent:
                head = f"POST /locate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9000"
                sent.sendall(f"{head}\r\n\r\n".encode() + b"x" * 500)
        time.sleep(0.5)  # so that the server has seen it before it is told to end
    assert left_behind() == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("map.example.org", "map.example.org"),
        ("*.example.org", "*.example.org"),
        ("*", "*"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::7", "[2001:db8::7]"),
        ("[2001:db8::7]", "[2001:db8::7]"),
    ],
)
def test_hosts_are_written_as_in_the_header(name, shown):
    assert as_in_urls(name) == shown


@pytest.mark.parametrize("name", ["map:8000", "http://map", "*map", "a b", "", "map/"])
def test_what_is_no_host_is_refused(name):
    with pytest.raises(SettingsError, match="takes a name or an address alone"):
        as_in_urls(name)


def test_letting_others_in_takes_a_name_for_them(town, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--index", str(town.root / "town.index"), "--host", "0.0.0.0"])
    assert stopped.value.code == 2
    assert "--allow-host" in capsys.readouterr().err


# The command


def test_an_index_without_tiles_has_no_page(town, tmp_path, capsys):
    root = tmp_path / "town"
    shutil.copytree(town.root, root)
    remove_tiles(root / "town.index", town.ids)
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--index", str(root / "town.index"), "--port", "0"])
    assert stopped.value.code == 1
    assert "holds no tiles any more" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(town, capsys):
    with listen(LOCAL, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            main(["serve", "--index", str(town.root / "town.index"), "--port", str(port)])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"Error: port {port} is taken by another program: ")
    assert said.out == ""


def test_a_port_that_only_root_may_take_is_said():
    lowest = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not lowest.exists() or int(lowest.read_text()) <= 1:
        pytest.skip("every user may take every port of this system")
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(GeoretrievalError, match="port 1 is not for every user"):
            listen(LOCAL, 1)
    finally:
        if user == 0:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("nosuch.invalid", "there is no host 'nosuch.invalid'"),
        ("", "there is no host ''"),
        ("a..b", "there is no host 'a..b'"),
        ("203.0.113.5", "203.0.113.5 is no address of this computer"),  # of documentation, RFC 5737
    ],
)
def test_a_host_that_is_not_this_computer_is_said(host, problem):
    with pytest.raises(SettingsError, match=problem):
        listen(host, 0)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        (LOCAL, LOCAL),
        pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
    ],
)
def test_a_free_port_is_taken_and_ctrl_c_ends_the_page(town, host, shown):
    words = ["-m", "georetrieval", "serve", "--index", str(town.root / "town.index")]
    words += ["--host", host, "--port", "0"]
    pipe = subprocess.PIPE
    page = subprocess.Popen(
        [sys.executable, *words], stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        address = page.stdout.readline().split()[0]
        assert address.startswith(f"http://{shown}:")
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"Where was it taken?" in answer.read()
        page.send_signal(signal.SIGINT)
        out, err = page.communicate(timeout=60)
    finally:
        page.kill()
    assert page.returncode == 130
    assert (out, err.strip()) == ("", "Interrupted.")
