"""File names match however their accented letters are composed, in every table of every command."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from bevgen.calibration import find_pairs
from bevgen.errors import InputError
from bevgen.ground import Uncertainty
from bevgen.images.finding import DiskNames, find_images
from bevgen.labels import place_labels, read_labels
from bevgen.mosaic.frames import read_sequence
from bevgen.preview import own_info
from bevgen.tables import read_poses, respelled

NAMES = ("Café/Müller 1.png", "Café/Müller 2.png", "Café/plain.png")
Form = Literal["NFC", "NFD"]
FORMS: tuple[Form, Form] = ("NFC", "NFD")
POSES = "file,heading,height,latitude,longitude\n"


def spelt(form: Form, text: str) -> str:
    return unicodedata.normalize(form, text)


@pytest.fixture(params=[("NFD", "NFC"), ("NFC", "NFD")], ids="".join)
def forms(request: pytest.FixtureRequest) -> tuple[Form, Form]:
    """How the disk writes names, and how tables do."""
    return request.param


@pytest.fixture
def folder(tmp_path: Path, forms: tuple[Form, Form]) -> Path:
    """Three panoramas on a line, and poses.csv beside the folder."""
    on_disk, in_table = forms
    rows = []
    for k, name in enumerate(NAMES):
        path = tmp_path / "in" / spelt(on_disk, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 256, (32, 64, 3), np.uint8)
        Image.fromarray(noise).save(path)
        rows.append(f"{spelt(in_table, name)},{10 + k},2.{k},{48 + k * 1e-4:.4f},11.5\n")
    (tmp_path / "poses.csv").write_text(POSES + "".join(rows), "utf-8")
    return tmp_path / "in"


def test_only_what_is_certain_is_taken_for_the_same():
    composed, decomposed = (spelt(form, "é") for form in FORMS)
    assert respelled([composed, "x"], [decomposed, "x"]) == {composed: decomposed}
    assert respelled([composed, decomposed], [decomposed]) == {}  # both are meant
    assert respelled([composed], [composed, decomposed]) == {}
    # Two ways to write one letter, and two letters: nobody knows which is which.
    angstrom = {form: spelt(form, "Å") for form in FORMS}
    assert respelled(["\u212b"], angstrom.values()) == {}
    assert respelled(["\u212b", angstrom["NFC"]], [angstrom["NFD"]]) == {
        angstrom["NFC"]: angstrom["NFD"]
    }


def test_lists_name_files_however_they_are_composed(folder, forms, caplog):
    on_disk, in_table = forms
    listed = folder.parent / "list.txt"
    listed.write_text("\n".join(spelt(in_table, name) for name in NAMES[:2]), "utf-8")
    found = [source for source, _ in find_images(folder, listed)]
    assert found == [spelt(on_disk, name) for name in NAMES[:2]]
    assert "list.txt writes the accented letters of 2 names differently" in caplog.text
    listed.write_text("\n".join(spelt(form, NAMES[0]) for form in forms), "utf-8")
    with pytest.raises(InputError, match=r"line 2: .* is on line 1 already"):
        find_images(folder, listed)
    missing = spelt(in_table, "Café/Möller.png")
    listed.write_text(missing, "utf-8")
    with pytest.raises(InputError, match="1 of 1 file that"):
        find_images(folder, listed)
    assert DiskNames(folder).of(missing).endswith("ller.png")


def test_tables_of_poses_do_in_every_command(folder, forms, caplog):
    on_disk = forms[0]
    poses = folder.parent / "poses.csv"
    files = [source for source, _ in find_images(folder)]
    assert sorted(read_poses(poses, files)) == files
    assert caplog.text.count("composed or decomposed") == 1
    for k, name in enumerate(NAMES):
        assert own_info(folder / spelt(on_disk, name), poses).heading == 10 + k
    sequence = read_sequence(folder, read_poses(poses), 2.0)
    assert [frame.row.heading for frame in sequence.frames] == [10, 11, 12]
    # Labels as the table has them, and as the disk has them.
    for form in forms:
        points = folder.parent / "labels.csv"
        points.write_text(f"file,x,y\n{spelt(form, NAMES[0])},30,30\n", "utf-8")
        placed = place_labels(read_labels(points), read_poses(poses), folder, Uncertainty())
        assert (len(placed.geojson["features"]), placed.skipped) == (1, [])


def test_pairs_meet_however_they_are_composed(folder, forms, tmp_path, caplog):
    on_disk, in_table = forms
    tiles = tmp_path / "tiles"
    for name in NAMES:
        path = tiles / spelt(in_table, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    by_id = find_pairs(folder, tiles, poses=tmp_path / "poses.csv")
    assert [pair.own.heading for pair in by_id] == [10, 11, 12]
    assert all(spelt("NFC", pair.tile.stem) == spelt("NFC", Path(pair.id).stem) for pair in by_id)
    assert len(caplog.text.splitlines()) == 2  # one of the poses, one of the tiles
    table = tmp_path / "pairs.csv"
    rows = [f"{spelt(in_table, name[:-4])},{spelt(on_disk, name[:-4])}\n" for name in NAMES]
    table.write_text("query,reference\n" + "".join(rows), "utf-8")
    assert [pair.tile for pair in find_pairs(folder, tiles, pairs_file=table)] == [
        pair.tile for pair in by_id
    ]
