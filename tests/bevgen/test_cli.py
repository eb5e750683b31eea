"""What info, verify, merge, export, pack and preview print, and the code with which they exit.

`bevgen convert` has tests of its own (test_convert, test_plan).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bevgen.shards import ShardSet, shard_folder, write_index
from tests.helpers.runs import SMALL, all_help, bevgen, panoramas, tree
from tests.helpers.shards import SETTINGS, picture, write_shard


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index over two shards; not to be changed."""
    path = tmp_path_factory.mktemp("output") / "bev.h5"
    files = [shard_folder(path) / f"{k:05d}.h5" for k in range(2)]
    write_shard(files[0], [("a", "a.png"), ("b/c", "b/c.JPG")])
    write_shard(files[1], [("d", "d.tif")])
    write_index(path, files, SETTINGS, "ff00")
    return path


def error(*words: object, code: int = 1) -> str:
    """Run what fails, and return what says why, one line after the usage if any."""
    done = bevgen(*words, expect=code)
    assert done.stdout == ""
    usage, found, message = done.stderr.rstrip("\n").rpartition("Error: ")
    assert found, done.stderr
    assert usage.startswith("Usage: ") if usage else "\n" not in message, done.stderr
    return message


# --- help ---------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_each_has_help() -> None:
    text = bevgen("--help").stdout
    for name in ("convert", "pack", "preview", "info", "verify", "merge", "export"):
        assert f"  {name} " in text
    for name in ("pack", "preview", "merge", "export"):
        assert "--overwrite" in bevgen(name, "-h").stdout
    assert "--rows" in bevgen("info", "--help").stdout
    assert "--json" in bevgen("verify", "--help").stdout
    assert "No such command 'exprot'" in error("exprot", code=2)
    assert "Missing argument 'FILE'" in error("info", code=2)


def test_nothing_depends_on_docstrings_or_asserts(tmp_path: Path) -> None:
    """`python -OO` removes both."""
    text = all_help("bevgen")
    assert "Street panoramas to bird's-eye views" in text
    assert all_help("bevgen", "-OO") == text
    images, plain, optimized = panoramas(tmp_path / "in", 2), tmp_path / "a.h5", tmp_path / "b.h5"
    words = ("-m", "bevgen", "convert", "-i", images, *SMALL, "--workers", "1", "-o")
    subprocess.run([sys.executable, *words, plain], capture_output=True, check=True)
    subprocess.run([sys.executable, "-OO", *words, optimized], capture_output=True, check=True)
    with ShardSet(plain) as a, ShardSet(optimized) as b:
        np.testing.assert_array_equal(a.read(range(2)), b.read(range(2)))


# --- info ---------------------------------------------------------------------------------------


def test_info_says_what_a_file_holds(output: Path) -> None:
    lines = bevgen("info", output).stdout.splitlines()
    assert lines == [
        f"file:              {output}",
        "kind:              bev",
        "images:            3",
        "image shape:       16 x 16 x 3",
        "bytes:             2,304",
        "shard files:       2",
        "skipped:           2",
        "known:             heading of 2, pitch of none, roll of none, height of none,"
        " latitude of 2, longitude of none",
        "heading unknown:   1",
        "settings:          size 16",
        "plan:              ff00",
    ]
    assert json.loads(bevgen("info", output, "--json").stdout) == {
        "file": str(output),
        "kind": "bev",
        "images": 3,
        "image_shape": [16, 16, 3],
        "bytes": 2304,
        "shard_files": 2,
        "failures": 2,
        "known": {
            **dict.fromkeys(("pitch", "roll", "height", "longitude"), 0),
            **dict.fromkeys(("heading", "latitude"), 2),
        },
        "unknown_headings": 1,
        "settings": SETTINGS,
        "plan": "ff00",
    }


def test_info_lists_rows_and_failures(tmp_path: Path) -> None:
    """Whatever is in a name, a line is a row and a tab ends a cell."""
    path = write_shard(tmp_path / "bev.h5", [("a", "a.jpg"), ("t\tn\nb\\", "\x1b\udcff.jpg")])
    assert bevgen("info", path, "--rows").stdout.splitlines() == [
        "id\tsource\theading\tpitch\troll\theight\tlatitude\tlongitude\tdate",
        "a\ta.jpg\t90.5\t\t\t\t47.12345679\t\t2024-05-01",
        "t\\tn\\nb\\\\\t\\x1b\\udcff.jpg\t\t\t\t\t\t\t",
    ]
    unknown = dict.fromkeys(("heading", "pitch", "roll", "height", "latitude", "longitude", "date"))
    assert json.loads(bevgen("info", path, "--rows", "--json").stdout) == [
        unknown
        | {"id": "a", "source": "a.jpg"}
        | {"heading": 90.5, "latitude": 47.123456789, "date": "2024-05-01"},
        unknown | {"id": "t\tn\nb\\", "source": "\x1b\udcff.jpg"},
    ]
    assert bevgen("info", path, "--failures").stdout == "bad\\tone.jpg\tcannot be decoded\n"
    assert json.loads(bevgen("info", path, "--failures", "--json").stdout) == [
        {"source": "bad\tone.jpg", "reason": "cannot be decoded"}
    ]
    assert "one at a time" in error("info", path, "--rows", "--failures", code=2)


def test_unknown_headings_are_counted_where_they_matter(tmp_path: Path) -> None:
    panoramas(tmp_path / "in", 4, (16, 32))
    (tmp_path / "poses.csv").write_text("file,heading\np000.png,0\np002.png,41.5\n")
    poses = ("--poses", tmp_path / "poses.csv", "--json", "--in", tmp_path / "in")
    plain = ("pack", "--kind", "panorama", "--size", "8x16")
    for name, words, unknown in (
        ("bev", ("convert", "--size", "8", "--resolution", "2"), 2),
        ("set", ("convert", "--size", "8", "--resolution", "2", "--heading", "3"), 0),
        ("turned", (*plain, "--turn-to-north"), 2),
        ("plain", plain, 0),
    ):
        out = tmp_path / f"{name}.h5"
        done = bevgen(*words, *poses, "--out", out)
        assert json.loads(done.stdout)["unknown_headings"] == unknown
        assert ("2 images have no heading" in done.stderr) == bool(unknown)
        # Only an option that the command has is named.
        assert ("(--poses says it)" in done.stderr) == (name == "turned")
        found = json.loads(bevgen("info", out, "--json").stdout)
        assert found.get("unknown_headings") == (None if name == "plain" else unknown)


def test_quiet_and_verbose_contradict_each_other(tmp_path: Path) -> None:
    panoramas(tmp_path / "in", 1)
    words = ("convert", "--in", tmp_path / "in", "--out", tmp_path / "bev.h5", "-q", "-v")
    assert "give one of them" in error(*words, code=2)
    assert not (tmp_path / "bev.h5").exists()


# --- verify -------------------------------------------------------------------------------------


def test_verify_tells_sound_from_damaged_from_missing(output: Path, tmp_path: Path) -> None:
    done = bevgen("verify", output)
    assert done.stdout == f"{output}: all 3 images are sound (shard files: 2)\n"
    assert done.stderr == ""
    path = write_shard(tmp_path / "bev.h5", [("a", "a.jpg"), ("b", "b.jpg")])
    content = path.read_bytes()
    at = content.index(picture(1).tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    done = bevgen("verify", path, expect=1)
    assert done.stdout.startswith(f"{path}: damaged: the image of row 1 (id 'b')")
    assert done.stderr == f"Error: {path} is damaged (problems: 1)\n"
    done = bevgen("verify", path, "--json", expect=1)
    result = json.loads(done.stdout)
    assert (result["rows"], result["shards"], len(result["problems"])) == (2, 1, 1)
    missing = tmp_path / "missing.h5"
    assert error("verify", missing) == f"{missing}: there is no such file"
    assert error("verify", tmp_path) == f"{tmp_path}: cannot be opened: it is a folder"
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    assert error("verify", text).startswith(f"{text}: not HDF5")


# --- merge --------------------------------------------------------------------------------------


def test_merge_makes_one_file_and_refuses_to_disturb(output: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.h5"
    assert bevgen("merge", output, "--out", out).stdout == f"{out}: 3 images\n"
    with ShardSet(out) as one, ShardSet(output) as many:
        assert np.array_equal(one.read(range(3)), many.read(range(3)))
    before = tree(output.parent)
    assert "add --overwrite" in error("merge", output, "--out", out)
    bevgen("merge", output, "--out", out, "--overwrite")
    assert "into itself" in error("merge", output, "--out", output, "--overwrite")
    shard = shard_folder(output) / "00000.h5"
    assert "folder of shards" in error("merge", output, "--out", shard, "--overwrite")
    assert "folder of shards" in error("merge", out, "--out", output, "--overwrite")
    assert "must end in .h5" in error("merge", output, "--out", tmp_path / "one", code=2)
    assert "create it first" in error("merge", output, "--out", tmp_path / "x" / "one.h5")
    assert "no such file" in error("merge", tmp_path / "y.h5", "--out", tmp_path / "z.h5")
    assert tree(output.parent) == before
    assert list(tree(tmp_path)) == ["one.h5"]


# --- export -------------------------------------------------------------------------------------


def test_export_by_ids_is_lossless(output: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    assert bevgen("export", output, "--out", out).stdout == f"{out}: 3 images\n"
    assert list(tree(out)) == ["a.png", "b/c.png", "d.png"]
    with ShardSet(output) as shards:
        for i, name in enumerate(tree(out)):
            with Image.open(out / name) as image:
                assert image.format == "PNG"
                assert np.array_equal(np.asarray(image), shards[i])
    (out / "d.png").write_text("mine")
    before = tree(out)
    assert error("export", output, "--out", out).endswith(
        "a.png exists: name another folder, or add --overwrite"
    )
    assert tree(out) == before
    bevgen("export", output, "--out", out, "--overwrite")
    assert tree(out)["d.png"][:4] == b"\x89PNG"


def test_export_for_ep_bev_is_jpeg_whatever_the_source_was(output: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    bevgen("export", output, "--out", out, "--layout", "ep-bev")
    assert sorted(tree(out)) == ["a.jpg", "c.JPG", "d.jpg"]
    for i, name in enumerate(["a.jpg", "c.JPG", "d.jpg"]):
        with Image.open(out / name) as image, ShardSet(output) as shards:
            assert image.format == "JPEG"
            layers = vars(image)["layer"]
            assert layers[1][1:3] == layers[0][1:3]  # colours as fine as brightness
            assert np.abs(np.asarray(image).astype(int) - shards[i]).max() < 8
    words = ("--layout", "ep-bev", "--format", "png")
    assert "leave out --format png" in error("export", output, "--out", out, *words, code=2)


def test_export_for_ep_bev_holds_small_and_test_of_cvact_together(tmp_path: Path) -> None:
    sources = [f"ANU_data_{k}/streetview/-x_grdView.jpg" for k in ("small", "test")]
    sources.append("ANU_data_test/streetview/y_grdView.png")
    path = write_shard(tmp_path / "bev.h5", [(name[9:], name) for name in sources])
    out = tmp_path / "CVACT"
    bevgen("export", path, "--out", out, "--layout", "ep-bev")
    assert list(tree(out)) == [
        "ANU_data_small/bev/-x_grdView.jpg",
        "ANU_data_test/bev/-x_grdView.jpg",
        "ANU_data_test/bev/y_grdView.jpg",
    ]


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        (["./a", "a"], [], "id './a' and id 'a' would both be written to a.png"),
        (["x.png/y", "x"], [], "id 'x' would be the file x.png and id 'x.png/y' needs a folder"),
        (["y" * 300], [], "is too long for a file name"),
        (["é" * 126], [], "is too long for a file name"),  # 256 bytes with its ending
        (["../a"], [], "leads out of"),
        (["/a"], [], "leads out of"),
        (["a/z", "b/z"], ["--layout", "ep-bev"], "would both be written to bev/z.jpg"),
    ],
)
def test_export_refuses_names_that_cannot_be(
    tmp_path: Path, rows: list[str], words: list[str], message: str
) -> None:
    path = write_shard(tmp_path / "bev.h5", [(name, f"{name}.jpg") for name in rows])
    out = tmp_path / "images"
    assert message in error("export", path, "--out", out, *words, code=2)
    assert not out.exists()


def test_export_says_what_is_in_the_way(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "bev.h5", [("a", "a.jpg"), ("b/c", "b.jpg")])
    (tmp_path / "file").write_text("mine")
    assert "is a file: name a folder" in error("export", path, "--out", tmp_path / "file")
    out = tmp_path / "images"
    (out / "a.png").mkdir(parents=True)
    assert "a.png is a folder" in error("export", path, "--out", out, "--overwrite")
    (out / "a.png").rmdir()
    (out / "b").write_text("mine")
    assert "id 'b/c' could not be written" in error("export", path, "--out", out)
    assert sorted(tree(out)) == [".bevgen-export.json", "a.png", "b"]  # and no unfinished file
    (out / "b").unlink()
    done = bevgen("export", path, "--out", out)
    assert done.stdout == f"{out}: 2 images, 1 of them there already\n"
    assert sorted(tree(out)) == ["a.png", "b/c.png"]


def test_export_of_other_channels(tmp_path: Path) -> None:
    grey = write_shard(tmp_path / "grey.h5", [("a", "a.jpg")], (16, 16, 1))
    bevgen("export", grey, "--out", tmp_path / "grey", "--format", "jpg")
    with Image.open(tmp_path / "grey" / "a.jpg") as image:
        assert (image.format, image.mode) == ("JPEG", "L")
    alpha = write_shard(tmp_path / "alpha.h5", [("a", "a.jpg")], (16, 16, 4))
    words = ("--out", tmp_path / "alpha")
    assert "images of 4 channels" in error("export", alpha, *words, "--format", "jpg", code=2)
    bevgen("export", alpha, *words)
    with Image.open(tmp_path / "alpha" / "a.png") as image:
        assert np.array_equal(np.asarray(image), ShardSet(alpha)[0])


# --- pack and preview ---------------------------------------------------------------------------


def test_pack_stores_images_of_one_size(tmp_path: Path) -> None:
    folder, out = panoramas(tmp_path / "in", 2), tmp_path / "out.h5"
    words = ("pack", "--in", folder, "--out", out, "--kind", "satellite", "--size", "8x12")
    result = json.loads(bevgen(*words, "--json", "-q").stdout)
    assert result["rows"] == 2
    with ShardSet(out) as shards:
        assert (shards.kind, shards.image_shape, len(shards)) == ("satellite", (8, 12, 3), 2)
    assert "complete: nothing to do" in bevgen(*words).stderr
    assert "neither N nor HEIGHTxWIDTH" in error(*words[:-1], "8by12", code=2)
    assert "--kind" in error("pack", "--in", folder, "--out", out, "--size", 8, code=2)


def test_preview_writes_a_picture_and_refuses_what_would_destroy(tmp_path: Path) -> None:
    name = panoramas(tmp_path, ["a.png"]) / "a.png"
    out = tmp_path / "sheet.jpg"
    words = ("preview", "--in", name, "--size", 32, "--resolution", 0.5, "--out")
    assert f"{out}: " in bevgen(*words, out).stdout
    with Image.open(out) as image:
        assert image.format == "JPEG"
    assert "add --overwrite" in error(*words, out)
    assert "is read: name another output" in error(*words, name, "--overwrite")
    assert "must end in" in error(*words, tmp_path / "sheet.bmp", code=2)
    assert "is a folder" in error("preview", "--in", tmp_path, "--out", out, code=2)


def test_an_output_that_has_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "bev.shards"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    done = bevgen("info", tmp_path / "bev.h5", expect=1)
    assert "has not finished: run the same command again" in done.stderr
