"""The shard format, checked through plain h5py, plain file reads and real processes."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bevgen.errors import InputError, RefusedError, ShardError
from bevgen.shards import (
    COLUMNS,
    Failure,
    Row,
    ShardHeader,
    ShardSet,
    begin_shard,
    finish_shard,
    merge,
    read_header,
    read_inputs,
    shard_folder,
    verify,
    write_index,
)

SETTINGS = {"grid": {"size": 4, "resolution": 0.06}, "compat": None, "name": "Zürich"}
SHAPE = (4, 6, 3)


def header(shape: tuple[int, int, int] = SHAPE, **changes) -> ShardHeader:
    return ShardHeader(
        **{
            "kind": "bev",
            "image_shape": shape,
            "settings": SETTINGS,
            "plan": "ab12",
            **changes,
        }
    )


def pictures(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_shard(
    path: Path,
    images: Sequence[np.ndarray | None],
    masks: Sequence[np.ndarray | None] | None = None,
    head: ShardHeader | None = None,
    first: int = 0,
) -> None:
    """Write a shard in which the slots of images that are None failed."""
    head = head or header()
    partial = begin_shard(path, len(images), head)
    rows, failures = [], []
    for slot, image in enumerate(images):
        name = f"strasse/pano {first + slot} ü"
        if image is None:
            failures.append(Failure(f"{name}.jpg", 2**63 + slot, "cannot be decoded: Größe 0"))
            continue
        crc, mask_crc = partial.write(slot, image, None if masks is None else masks[slot])
        columns = {"heading": float(slot), "latitude": 47.5}
        date = "2024-05-01" if slot % 2 else ""
        rows.append(Row(slot, name, f"{name}.jpg", 2**64 - 1 - slot, crc, mask_crc, columns, date))
    finish_shard(partial, rows, failures)


def write_output(path: Path, sizes: Sequence[int], seed: int = 0) -> np.ndarray:
    """Write an index over shards of the given sizes; return the images of all rows."""
    images = pictures(sum(sizes), seed=seed)
    files, start = [], 0
    for k, size in enumerate(sizes):
        files.append(shard_folder(path) / f"{k:05d}.h5")
        given_images = list(images[start : start + size]) or [None]
        write_shard(files[-1], given_images, head=header(plan=f"{k:02x}"), first=start)
        start += size
    write_index(path, files, SETTINGS, "ff00")
    return images


def names(folder: Path | str) -> list[str]:
    return sorted(file.name for file in Path(folder).iterdir())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def offset_of(path: Path, name: str) -> int:
    with h5py.File(path) as h5:
        return h5[name].id.get_offset()


# --- writing and reading back -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_written_is_read_back(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)))
    slots = data.draw(st.integers(1, 7))
    made = data.draw(st.lists(st.booleans(), min_size=slots, max_size=slots))
    masking = data.draw(st.sampled_from(["none", "all true", "shared", "each", "some"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    images = rng.integers(0, 256, (slots, *shape), dtype=np.uint8)
    shared = rng.random(shape[:2]) < 0.5
    shared[0, 0] = False
    masks: list[np.ndarray | None] = {
        "none": [None] * slots,
        "all true": [np.ones(shape[:2], dtype=bool)] * slots,
        "shared": [shared] * slots,
        "each": list(rng.random((slots, *shape[:2])) < 0.5),
        "some": [shared if slot % 2 else None for slot in range(slots)],
    }[masking]
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    ids = data.draw(st.lists(text, min_size=slots, max_size=slots, unique=True))
    values = data.draw(st.lists(st.floats(), min_size=slots, max_size=slots))
    numbers = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=slots, max_size=slots))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bev.h5"
        partial = begin_shard(path, slots, header(shape))
        rows, failures = [], []
        for slot in range(slots):
            crc, mask_crc = partial.write(slot, images[slot], masks[slot])
            if made[slot]:
                columns = {"pitch": values[slot]}
                rows.append(Row(slot, ids[slot], ids[slot], numbers[slot], crc, mask_crc, columns))
            else:
                failures.append(Failure(ids[slot], numbers[slot], "why"))
        finish_shard(partial, rows, failures)
        assert names(folder) == ["bev.h5"]
        kept = [slot for slot in range(slots) if made[slot]]
        with ShardSet(path) as shards:
            assert len(shards) == len(kept)
            assert shards.ids == shards.sources == [ids[slot] for slot in kept]
            assert shards.failures == tuple(failures)
            assert np.array_equal(
                shards.columns["pitch"], [values[slot] for slot in kept], equal_nan=True
            )
            assert np.isnan(shards.columns["roll"]).all()
            assert np.array_equal(shards.read(range(len(kept))), images[kept])
            for row, slot in enumerate(kept):
                mask = masks[slot]
                expected = np.ones(shape[:2], dtype=bool) if mask is None else mask
                assert shards.valid(row).dtype == np.bool_
                assert np.array_equal(shards.valid(row), expected)
        assert list(read_inputs(path).fingerprints) == [numbers[slot] for slot in kept]
        assert verify(path).problems == ()


@pytest.mark.parametrize(
    ("masks", "stored"),
    [
        ([None, np.ones((4, 6), dtype=bool)], None),
        ([np.eye(4, 6, dtype=bool)] * 2, (4, 6)),
        ([np.eye(4, 6, dtype=bool), np.zeros((4, 6), dtype=bool)], (2, 4, 6)),
        ([np.eye(4, 6, dtype=bool), None], (2, 4, 6)),
    ],
)
def test_masks_take_their_shortest_form(tmp_path: Path, masks, stored) -> None:
    write_shard(tmp_path / "bev.h5", list(pictures(2)), masks)
    with h5py.File(tmp_path / "bev.h5") as h5:
        assert (h5["valid"].shape if "valid" in h5 else None) == stored


def test_plain_h5py_reads_all_that_is_documented(tmp_path: Path) -> None:
    images = pictures(3)
    write_shard(tmp_path / "bev.h5", [images[0], None, images[2]])
    with h5py.File(tmp_path / "bev.h5") as h5:
        assert h5["images"].dtype == np.uint8
        assert h5["images"].chunks is None
        assert np.array_equal(h5["images"], images[[0, 2]])
        assert list(h5["ids"].asstr()) == ["strasse/pano 0 ü", "strasse/pano 2 ü"]
        assert list(h5["sources"].asstr()) == ["strasse/pano 0 ü.jpg", "strasse/pano 2 ü.jpg"]
        assert list(h5["crc32"]) == [zlib.crc32(images[0].tobytes()), zlib.crc32(images[2])]
        assert list(h5["fingerprints"]) == [2**64 - 1, 2**64 - 3]
        assert list(h5["heading"]) == [0.0, 2.0]
        assert all(h5[name].dtype == np.float64 for name in COLUMNS)
        source, fingerprint, reason = h5["failures"][0]
        assert (source.decode(), fingerprint) == ("strasse/pano 1 ü.jpg", 2**63 + 1)
        assert reason.decode() == "cannot be decoded: Größe 0"
        attributes = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in h5.attrs.items()
        }
        del attributes["tables_crc32"]
        stored = attributes.pop("settings")
        assert attributes == {
            "format": "bevgen-shards",
            "version": 1,
            "kind": "bev",
            "plan": "ab12",
            "complete": 1,
        }
        assert json.loads(stored) == SETTINGS
        assert stored == ('{"compat":null,"grid":{"resolution":0.06,"size":4},"name":"Zürich"}')


def test_file_has_exact_length_after_failures(tmp_path: Path) -> None:
    shape = (64, 64, 3)
    images = list(pictures(10, shape))
    write_shard(tmp_path / "all.h5", images, head=header(shape))
    write_shard(tmp_path / "some.h5", [*images[:3], *[None] * 7], head=header(shape))
    whole, few = ((tmp_path / name).stat().st_size for name in ("all.h5", "some.h5"))
    assert abs((whole - few) - 7 * 64 * 64 * 3) < 4096
    assert np.array_equal(ShardSet(tmp_path / "some.h5").read([0, 1, 2]), images[:3])


def test_equal_inputs_make_equal_files(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_shard(tmp_path / name, [*pictures(3), None])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_zero_rows_are_a_legal_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "bev.h5", [None, None])
    with ShardSet(tmp_path / "bev.h5") as shards:
        assert len(shards) == 0
        assert len(shards.failures) == 2
        assert shards.ids == []
        assert shards.image_shape == SHAPE
        assert shards.read([]).shape == (0, *SHAPE)
        with pytest.raises(IndexError, match="row 0 is out of range"):
            shards[0]
    assert verify(tmp_path / "bev.h5").problems == ()


def test_file_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    partial = begin_shard(tmp_path / "bev.h5", 2, header())
    crc, _ = partial.write(0, pictures(1)[0], None)
    finish_shard(partial, [Row(0, name, name, 1, crc, None, {})], [Failure(name, 2, "bad \0 byte")])
    shards = ShardSet(tmp_path / "bev.h5")
    assert os.fsencode(shards.sources[0]) == b"caf\xe9.jpg"
    assert shards.failures[0].reason == "bad \ufffd byte"


def test_threads_and_processes_write_slots_at_once(tmp_path: Path) -> None:
    images, masks = pictures(64), np.random.default_rng(1).random((64, 4, 6)) < 0.5
    partial = begin_shard(tmp_path / "bev.h5", 64, header())
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(partial.write, range(48), images[:48], masks[:48]))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        others = list(pool.map(partial.write, range(48, 64), images[48:], masks[48:]))
    written = [*threaded, *others]
    rows = [Row(k, str(k), str(k), k, *written[k], {}) for k in range(64)]
    finish_shard(partial, rows, [])
    shards = ShardSet(tmp_path / "bev.h5")
    assert np.array_equal(shards.read(range(64)), images)
    assert all(np.array_equal(shards.valid(k), masks[k]) for k in range(64))


def test_nothing_has_the_final_name_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bev.h5"
    partial = begin_shard(path, 2, header())
    partial.write(0, pictures(1)[0], np.zeros((4, 6), dtype=bool))
    assert names(path.parent) == ["bev.h5.part", "bev.h5.part.valid"]
    with pytest.raises(ShardError, match=r"bev\.h5\.part: not a finished"):
        ShardSet(f"{path}.part")
    # A run that was interrupted here begins again, and nothing stale shows through.
    images = list(pictures(2, seed=5))
    write_shard(path, images)
    assert names(path.parent) == ["bev.h5"]
    shards = ShardSet(path)
    assert np.array_equal(shards.read([0, 1]), images)
    assert shards.valid(0).all()


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    write_shard(path, list(pictures(1)))
    before = path.read_bytes()
    script = (
        "import os, sys, numpy, pathlib\n"
        "from bevgen.shards import ShardHeader, begin_shard, finish_shard, Row\n"
        "import bevgen.shards.writer as writer\n"
        "writer.publish = lambda part, path: os._exit(9)\n"
        "p = begin_shard(pathlib.Path(sys.argv[1]), 1, ShardHeader('bev', (2, 2, 1), {}, ''))\n"
        "crc, _ = p.write(0, numpy.zeros((2, 2, 1), numpy.uint8), None)\n"
        "finish_shard(p, [Row(0, 'a', 'a', 0, crc, None, {})], [])\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 9
    assert path.read_bytes() == before
    (problem,) = verify(path).problems
    assert "bev.h5.part: left over" in problem


@pytest.mark.parametrize(
    ("slot", "image", "mask", "message"),
    [
        (2, pictures(1)[0], None, "slot 2 is not one of its 2"),
        (0, pictures(1)[0].astype(np.float32), None, r"got float32 of \(4, 6, 3\)"),
        (0, pictures(1, (4, 4, 3))[0], None, r"uint8 image of \(4, 6, 3\), got uint8 of \(4, 4,"),
        (0, pictures(1)[0], np.ones((4, 6), dtype=np.uint8), "expected a bool mask"),
    ],
)
def test_write_refuses_what_does_not_fit(tmp_path: Path, slot, image, mask, message) -> None:
    partial = begin_shard(tmp_path / "bev.h5", 2, header())
    with pytest.raises(ValueError, match=message):
        partial.write(slot, image, mask)


def test_finish_refuses_wrong_rows(tmp_path: Path) -> None:
    partial = begin_shard(tmp_path / "bev.h5", 2, header())
    row = Row(1, "a", "a.jpg", 1, 0, None, {})
    with pytest.raises(ValueError, match="slot order"):
        finish_shard(partial, [row, row], [])
    with pytest.raises(ValueError, match=r"a\.jpg: unknown columns \['yaw'\]"):
        finish_shard(partial, [Row(0, "a", "a.jpg", 1, 0, None, {"yaw": 1.0})], [])
    with pytest.raises(ValueError, match="at least one slot"):
        begin_shard(tmp_path / "bev.h5", 0, header())
    with pytest.raises(ValueError, match="JSON compliant"):
        begin_shard(tmp_path / "bev.h5", 1, header(settings={"height": float("nan")}))


def test_strided_images_are_written_as_they_look(tmp_path: Path) -> None:
    image = pictures(1, (6, 4, 3))[0].transpose(1, 0, 2)[:, ::-1]
    write_shard(tmp_path / "bev.h5", [image])
    assert np.array_equal(ShardSet(tmp_path / "bev.h5")[0], image)


# --- the reader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [3, 4, 2], [0, 3, 0, 0, 2, 0], [1] * 40])
def test_index_joins_its_shards(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "bev.h5"
    images = write_output(path, sizes)
    shards = ShardSet(path)
    count = len(images)
    assert len(shards) == len(shards.ids) == count
    assert [shards.row(name) for name in shards.ids] == list(range(count))
    assert np.array_equal(np.stack(list(shards)), images)
    assert all(shards.valid(row).all() for row in range(count))
    assert np.array_equal(shards[-1], images[-1])
    order = np.random.default_rng(0).integers(-count, count, 50)
    assert np.array_equal(shards.read(order), images[order])
    assert (shards.kind, shards.settings, shards.plan) == ("bev", SETTINGS, "ff00")
    assert len(shards.failures) == sizes.count(0)
    assert verify(path) == verify(path).__class__(count, len(sizes), ())
    summary = read_header(path)
    assert (summary.rows, summary.failures, len(summary.files)) == (
        count,
        sizes.count(0),
        len(sizes),
    )
    with h5py.File(path) as h5:
        assert list(h5["first_row"]) == list(np.cumsum([0, *sizes])[:-1])
        linked = [h5[f"shards/{k:05d}/images"][...] for k in range(len(sizes))]
    assert np.array_equal(np.concatenate(linked), images)


def test_maps_are_dropped_where_files_are_scarce(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("bevgen.shards.reader._map_limit", lambda: 3)
    images = write_output(tmp_path / "bev.h5", [2] * 20)
    shards = ShardSet(tmp_path / "bev.h5")
    before = len(list(Path("/dev/fd").iterdir()))
    assert np.array_equal(shards.read(range(40)), images)
    assert np.array_equal(np.stack([shards[k] for k in (0, 39, 6, 7, 0)]), images[[0, 39, 6, 7, 0]])
    assert len(list(Path("/dev/fd").iterdir())) <= before + 3


def test_images_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    write_output(tmp_path / "bev.h5", [2, 2])
    shards = ShardSet(tmp_path / "bev.h5")
    image = shards[3]
    assert not image.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    shards.close()
    assert image.sum() >= 0  # what was handed out stays readable
    with pytest.raises(ValueError, match="was closed"):
        shards[0]


def test_read_into_out(tmp_path: Path) -> None:
    images = write_output(tmp_path / "bev.h5", [3, 3])
    shards = ShardSet(tmp_path / "bev.h5")
    whole = np.zeros((5, *SHAPE), dtype=np.uint8)
    assert np.shares_memory(shards.read([4, 0], whole[1:3]), whole)
    assert np.array_equal(whole[1:3], images[[4, 0]])
    assert not whole[[0, 3, 4]].any()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((2, 4, 6, 1), np.uint8), r"of \(2, 4, 6, 3\), not uint8 of \(2, 4, 6, 1\)"),
        (np.zeros((2, 4, 6, 3), np.int8), r"not int8 of"),
        (np.zeros((2, 4, 3, 6), np.uint8).transpose(0, 1, 3, 2), "not one that is strided"),
        ([0], "not list"),
    ],
)
def test_read_refuses_an_out_that_does_not_fit(tmp_path: Path, out, message) -> None:
    write_output(tmp_path / "bev.h5", [3, 3])
    with pytest.raises(ValueError, match=message):
        ShardSet(tmp_path / "bev.h5").read([0, 1], out)


@pytest.mark.parametrize("indices", [[0.5], [True, False], [[0, 1]], ["a"], 3])
def test_read_refuses_what_are_not_indices(tmp_path: Path, indices) -> None:
    write_output(tmp_path / "bev.h5", [2])
    with pytest.raises(TypeError, match="indices must be a sequence of integers"):
        ShardSet(tmp_path / "bev.h5").read(indices)


def test_what_is_not_there(tmp_path: Path) -> None:
    write_output(tmp_path / "bev.h5", [2, 1])
    shards = ShardSet(tmp_path / "bev.h5")
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=rf"row {wrong} is out of range: .*bev\.h5 has 3 rows"):
            shards[wrong]
        with pytest.raises(IndexError, match=f"row {wrong} is out of range"):
            shards.read([0, wrong])
    with pytest.raises(KeyError, match="has the id 'nowhere'"):
        shards.row("nowhere")
    with pytest.raises(ShardError, match=r"none\.h5: there is no such file"):
        ShardSet(tmp_path / "none.h5")
    with pytest.raises(ShardError, match="cannot be opened"):
        ShardSet(tmp_path)


def test_reader_goes_to_other_processes_as_a_path(tmp_path: Path, monkeypatch) -> None:
    images = write_output(tmp_path / "bev.h5", [3, 3])
    monkeypatch.chdir(tmp_path)
    shards = ShardSet("bev.h5")
    shards.read(range(6))
    assert len(pickle.dumps(shards)) < 500
    monkeypatch.chdir("/")  # workers need not start in the same folder
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert np.array_equal(pool.submit(shards.read, [5, 0]).result(), images[[5, 0]])
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: send.send((shards.read([4, 1]), shards.ids[4]))
    )
    child.start()
    assert receive.poll(60)
    batch, name = receive.recv()
    child.join()
    assert np.array_equal(batch, images[[4, 1]])
    assert name == shards.ids[4]


def test_threads_share_a_reader(tmp_path: Path) -> None:
    images = write_output(tmp_path / "bev.h5", [5] * 12)
    shards = ShardSet(tmp_path / "bev.h5")
    orders = [np.random.default_rng(k).permutation(60) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(shards.read, orders), strict=True):
            assert np.array_equal(batch, images[order])


def test_a_folder_can_be_moved(tmp_path: Path) -> None:
    images = write_output(tmp_path / "here" / "bev.h5", [2, 2])
    (tmp_path / "here").rename(tmp_path / "there")
    path = tmp_path / "there" / "bev.h5"
    assert np.array_equal(ShardSet(path).read(range(4)), images)
    path.rename(path.with_name("renamed.h5"))  # the folder keeps the name that the index knows
    assert np.array_equal(ShardSet(path.with_name("renamed.h5")).read(range(4)), images)


def test_a_symbolic_link_to_an_index_is_enough(tmp_path: Path) -> None:
    images = write_output(tmp_path / "made.h5", [3, 2])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bev.h5").symlink_to(Path("..") / "made.h5")
    with ShardSet(elsewhere / "bev.h5") as shards:
        np.testing.assert_array_equal(shards.read(range(5)), images)
    assert not verify(elsewhere / "bev.h5").problems
    merge(elsewhere / "bev.h5", elsewhere / "one.h5")
    np.testing.assert_array_equal(ShardSet(elsewhere / "one.h5").read(range(5)), images)


def test_index_and_shards_may_be_links_of_their_own(tmp_path: Path) -> None:
    """As stores of contents make them, which keep the files under other names."""
    images = write_output(tmp_path / "bev.h5", [3, 2])
    for k, file in enumerate([tmp_path / "bev.h5", *(tmp_path / "bev.shards").iterdir()]):
        content = tmp_path / "store" / f"{k}"
        content.parent.mkdir(exist_ok=True)
        file.rename(content)
        file.symlink_to(content)
    np.testing.assert_array_equal(ShardSet(tmp_path / "bev.h5").read(range(5)), images)


def test_files_that_others_hold_open_or_locked(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    images = pictures(2)
    write_shard(path, list(images))
    for locking in (True, False):
        with h5py.File(path, locking=locking):
            assert np.array_equal(ShardSet(path)[1], images[1])
    lock = "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{lock}; sys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert np.array_equal(ShardSet(path)[1], images[1])
        other.communicate()


def test_read_only_files_and_folders(tmp_path: Path) -> None:
    images = write_output(tmp_path / "bev.h5", [2, 2])
    for path in [*tmp_path.rglob("*.h5"), shard_folder(tmp_path / "bev.h5"), tmp_path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert np.array_equal(ShardSet(tmp_path / "bev.h5").read(range(4)), images)
        assert verify(tmp_path / "bev.h5").problems == ()
    finally:
        tmp_path.chmod(0o755)
        shard_folder(tmp_path / "bev.h5").chmod(0o755)


# --- damage -------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_text(path: Path) -> None:
    path.write_text("not HDF5")


def replace_by_foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as h5:
        h5["images"] = pictures(3)


def other_settings(path: Path) -> None:
    write_shard(path, list(pictures(3)), head=header(settings={**SETTINGS, "compat": "ep-bev"}))


def other_kind(path: Path) -> None:
    write_shard(path, list(pictures(3)), head=header(kind="map"))


def other_shape(path: Path) -> None:
    write_shard(path, list(pictures(3, (4, 4, 3))), head=header((4, 4, 3)))


def other_length(path: Path) -> None:
    write_shard(path, list(pictures(2)))


def other_pixels(path: Path) -> None:
    write_shard(path, list(pictures(3, seed=9)), first=3)


def unfinished(path: Path) -> None:
    with h5py.File(path, "r+") as h5:
        del h5.attrs["complete"]


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as h5:
        h5.attrs["version"] = 2


def group_for_dataset(path: Path) -> None:
    with h5py.File(path, "r+") as h5:
        del h5["images"]
        h5.create_group("images")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "missing"),
    (cut, "truncated or damaged"),
    (replace_by_text, "not HDF5"),
    (replace_by_foreign_hdf5, "not a finished bevgen shard"),
    (other_settings, "settings differ in compat"),
    (other_kind, "kind is 'map', not 'bev'"),
    (other_shape, r"images are \(4, 4, 3\), not \(4, 6, 3\)"),
    (other_length, r"2 rows|rows are not those of the index"),
    (other_pixels, r"'crc32' of 3 rows differ, first in row 0|rows are not those of the index"),
    (unfinished, "not complete"),
    (newer, "version 2 is newer.* update bevgen"),
    (group_for_dataset, "damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_shards_are_named_by_reader_and_verify(tmp_path: Path, damage, message) -> None:
    path = tmp_path / "bev.h5"
    images = write_output(path, [3, 3, 3])
    damage(shard_folder(path) / "00001.h5")
    shards = ShardSet(path)
    assert np.array_equal(shards.read([0, 8]), images[[0, 8]])  # the others still serve
    with pytest.raises(ShardError, match=rf"00001\.h5: .*({message})"):
        shards.read([0, 4])
    report = verify(path)
    assert (report.rows, report.shards) == (9, 3)
    assert report.problems
    assert all("00001.h5: " in problem for problem in report.problems)
    with pytest.raises(ShardError, match=r"00001\.h5"):
        merge(path, tmp_path / "one.h5")
    assert names(tmp_path) == ["bev.h5", "bev.shards"]


def test_verify_names_row_and_id_of_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    write_output(path, [3, 3])
    shard = shard_folder(path) / "00001.h5"
    flip(shard, offset_of(shard, "images") + 2 * 4 * 6 * 3 + 7)
    (problem,) = verify(path).problems
    assert "00001.h5: damaged: the image of row 2 (id 'strasse/pano 5 ü')" in problem
    with pytest.raises(ShardError, match=r"00001\.h5: damaged: row 2 \(id 'strasse/pano 5 ü'\)"):
        merge(path, tmp_path / "one.h5")


@pytest.mark.parametrize(
    "name",
    ["ids", "sources", "date", "crc32", "fingerprints", "failures", "valid", *COLUMNS],
)
def test_verify_finds_a_flipped_bit_in_any_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bev.h5"
    masks = list(np.random.default_rng(0).random((4, 4, 6)) < 0.5)
    write_shard(path, [*pictures(3), None], masks)
    assert verify(path).problems == ()
    flip(path, offset_of(path, name))
    (problem,) = verify(path).problems
    assert problem.startswith(f"{path}: damaged")


@pytest.mark.parametrize("name", ["files", "first_row"])
def test_a_flipped_bit_in_the_list_of_shards_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bev.h5"
    write_output(path, [2, 2])
    flip(path, offset_of(path, name))
    (problem,) = verify(path).problems
    assert problem.startswith(f"{path}: damaged: the list of its shards")
    with pytest.raises(ShardError, match=r"bev\.h5: damaged: the list of its shards"):
        ShardSet(path)


def test_verify_finds_what_does_not_belong(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    write_output(path, [2, 2])
    folder = shard_folder(path)
    shutil.copy(folder / "00000.h5", folder / "00002.h5")
    (folder / "00001.h5.part").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "bev.h5.part").write_bytes(b"")
    problems = "\n".join(verify(path).problems)
    assert len(verify(path).problems) == 4
    for name, remark in [
        ("00002.h5", "not part of"),
        ("00001.h5.part", "left over"),
        ("notes.txt", "not part of"),
        ("bev.h5.part", "left over"),
    ]:
        assert f"{name}: {remark}" in problems


def test_verify_finds_repeated_ids(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    files = [shard_folder(path) / f"{k}.h5" for k in range(2)]
    for file in files:
        write_shard(file, list(pictures(2)))
    write_index(path, files, SETTINGS, "")
    problems = verify(path).problems
    assert len(problems) == 2
    assert "the id 'strasse/pano 0 ü' belongs to 2 rows: [0, 2]" in problems[0]


def test_verify_reports_progress(tmp_path: Path) -> None:
    write_output(tmp_path / "bev.h5", [70, 0, 5])
    calls: list[tuple[int, int]] = []
    verify(tmp_path / "bev.h5", on_progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (75, 75)


def test_a_damaged_index_is_reported_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    write_output(path, [2, 2])
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 30):
        path.write_bytes(whole[:length])
        (problem,) = verify(path).problems
        assert problem.startswith(f"{path}: ")
        with pytest.raises(ShardError, match=r"bev\.h5: "):
            ShardSet(path)
    path.unlink()
    assert verify(path).problems == (f"{path}: there is no such file",)


def damage_at_random(folder: Path, seed: int, count: int) -> None:
    """Damage files in many ways: whatever is not reported must have changed nothing."""
    path = folder / "bev.h5"
    write_output(path, [3, 3, 3])
    shard = shard_folder(path) / "00001.h5"
    sound = {file: file.read_bytes() for file in (path, shard)}

    def content() -> list[object]:
        with ShardSet(path) as shards:
            return [
                shards.ids,
                shards.sources,
                shards.failures,
                {name: column.tobytes() for name, column in shards.columns.items()},
                (shards.kind, shards.plan, shards.settings, shards.image_shape),
                shards.read(range(len(shards))).tobytes(),
            ]

    truth = content()
    rng = random.Random(seed)
    for _ in range(count):
        file = rng.choice(list(sound))
        damaged = bytearray(sound[file])
        start = rng.randrange(len(damaged))
        if rng.random() < 0.2:
            del damaged[start:]
        elif rng.random() < 0.3:
            stop = min(start + rng.choice([16, 512, 2048]), len(damaged))
            damaged[start:stop] = bytes(stop - start)
        else:
            for _ in range(rng.choice([1, 1, 4, 30])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged)
        if not verify(path).problems:
            assert content() == truth
        try:
            content()
        except ShardError as error:
            assert file.name in str(error)  # noqa: PT017
        file.write_bytes(sound[file])


def test_random_damage_is_found(tmp_path: Path) -> None:
    damage_at_random(tmp_path, seed=1, count=60)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_much_random_damage_is_found(tmp_path: Path, seed: int) -> None:
    damage_at_random(tmp_path, seed=100 + seed, count=500)


@pytest.mark.parametrize("options", [{"chunks": True}, {"chunks": True, "compression": "gzip"}])
def test_repacked_images_are_refused_with_the_remedy(tmp_path: Path, options) -> None:
    path = tmp_path / "bev.h5"
    write_shard(path, list(pictures(3)))
    with h5py.File(path, "r+") as h5:
        images = h5["images"][...]
        del h5["images"]
        h5.create_dataset("images", data=images, **options)
    with pytest.raises(ShardError, match=r"bev\.h5: was repacked: .*h5repack -f NONE -l CONTI"):
        ShardSet(path)
    assert "was repacked" in verify(path).problems[0]


def test_a_file_replaced_meanwhile_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    write_shard(path, list(pictures(2)))
    shards = ShardSet(path)
    write_shard(path, list(pictures(2, seed=1)))
    with pytest.raises(ShardError, match="was replaced"):
        shards[0]
    with pytest.raises(ShardError, match="was replaced"):
        _ = shards.ids


def test_a_file_replaced_while_it_is_opened_is_not_mixed_in(tmp_path: Path) -> None:
    path, other, ended = tmp_path / "bev.h5", tmp_path / "other.h5", Event()
    write_shard(path, list(pictures(2)))

    def replace() -> None:
        for k in count():
            if ended.is_set():
                return
            write_shard(other, list(pictures(2, seed=k % 2)))
            other.replace(path)

    read = 0
    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        try:
            while read < 100:
                with suppress(ShardError), ShardSet(path) as shards:
                    assert zlib.crc32(shards[1].tobytes()) == shards.crc32[1]
                    read += 1
        finally:
            ended.set()
        replacing.result()


def test_a_shard_replaced_while_others_are_merged_is_not_called_damaged(tmp_path: Path) -> None:
    path, other = tmp_path / "bev.h5", tmp_path / "other.h5"
    write_output(path, [2, 2])

    def replace(done: int, _: int) -> None:
        if done == 2:
            write_shard(other, list(pictures(2, seed=1)), head=header(plan="01"))
            other.replace(shard_folder(path) / "00001.h5")

    with pytest.raises(ShardError, match=r"00001\.h5: was replaced since it was opened"):
        merge(path, tmp_path / "one.h5", on_progress=replace)


def test_index_refuses_shards_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "bev.h5"
    good, bad = (shard_folder(path) / name for name in ("00000.h5", "00001.h5"))
    write_shard(good, list(pictures(2)))
    write_shard(bad, list(pictures(2)), head=header(kind="satellite"))
    with pytest.raises(ShardError, match=r"00001\.h5: its kind, image size or settings"):
        write_index(path, [good, bad], SETTINGS, "")
    with pytest.raises(ShardError, match=r"00000\.h5: its kind, image size or settings"):
        write_index(path, [good], {"other": 1}, "")
    with pytest.raises(ShardError, match=r"00002\.h5: there is no such file"):
        write_index(path, [good, shard_folder(path) / "00002.h5"], SETTINGS, "")
    with pytest.raises(ValueError, match=r"belong into .*bev\.shards"):
        write_index(path, [tmp_path / "00000.h5"], SETTINGS, "")
    with pytest.raises(ValueError, match="at least one shard"):
        write_index(path, [], SETTINGS, "")
    assert not path.exists()


# --- merging ------------------------------------------------------------------------------------

EYE, NOT_EYE = np.eye(4, 6, dtype=bool), ~np.eye(4, 6, dtype=bool)


@pytest.mark.parametrize(
    ("masks", "stored"),
    [
        ([None, None, None], None),
        ([EYE, EYE, EYE], (4, 6)),
        ([EYE, NOT_EYE, EYE], (6, 4, 6)),
        ([EYE, None, EYE], (6, 4, 6)),
    ],
)
def test_merge_makes_an_equal_file(tmp_path: Path, masks, stored) -> None:
    path, out = tmp_path / "bev.h5", tmp_path / "portable" / "one.h5"
    out.parent.mkdir()
    images = pictures(6)
    files = [shard_folder(path) / f"{k:05d}.h5" for k in range(4)]
    for k, file in enumerate(files[:3]):
        write_shard(file, list(images[2 * k : 2 * k + 2]), [masks[k]] * 2, first=2 * k)
    write_shard(files[3], [None], first=6)
    write_index(path, files, SETTINGS, "ff00")
    calls: list[tuple[int, int]] = []
    merge(path, out, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    assert names(out.parent) == ["one.h5"]
    with h5py.File(out) as h5:
        assert (h5["valid"].shape if "valid" in h5 else None) == stored
    many, one = ShardSet(path), ShardSet(out)
    assert (one.ids, one.sources, one.failures) == (many.ids, many.sources, many.failures)
    assert (one.kind, one.settings, one.plan) == (many.kind, many.settings, many.plan)
    assert all(
        np.array_equal(column, many.columns[name], equal_nan=name != "date")
        for name, column in one.columns.items()
    )
    assert np.array_equal(one.read(range(6)), images)
    assert all(np.array_equal(one.valid(row), many.valid(row)) for row in range(6))
    assert verify(out).problems == ()


def test_merge_of_one_file_is_a_copy(tmp_path: Path) -> None:
    write_shard(tmp_path / "bev.h5", [*pictures(3), None])
    merge(tmp_path / "bev.h5", tmp_path / "copy.h5")
    assert (tmp_path / "copy.h5").read_bytes() == (tmp_path / "bev.h5").read_bytes()


def test_merge_of_nothing_but_failures(tmp_path: Path) -> None:
    write_output(tmp_path / "bev.h5", [0, 0])
    merge(tmp_path / "bev.h5", tmp_path / "one.h5")
    assert len(ShardSet(tmp_path / "one.h5").failures) == 2
    assert verify(tmp_path / "one.h5").problems == ()


def test_merge_overwrites_only_when_asked(tmp_path: Path) -> None:
    images = write_output(tmp_path / "bev.h5", [2, 2])
    out = tmp_path / "one.h5"
    out.write_text("precious")
    with pytest.raises(
        RefusedError, match=r"one\.h5 exists: name another file, or add --overwrite"
    ):
        merge(tmp_path / "bev.h5", out)
    assert out.read_text() == "precious"
    merge(tmp_path / "bev.h5", out, overwrite=True)
    assert np.array_equal(ShardSet(out).read(range(4)), images)
    with pytest.raises(RefusedError, match="into itself"):
        merge(tmp_path / "bev.h5", tmp_path / "bev.h5", overwrite=True)


def test_merge_leaves_other_outputs_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "bev.h5", tmp_path / "other.h5"
    write_output(path, [2, 2])
    write_output(other, [2])
    (tmp_path / "begun.shards").mkdir()
    (tmp_path / "begun.shards" / "plan.json").write_text("{}")
    (tmp_path / "link").symlink_to(shard_folder(path), target_is_directory=True)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for name, message in [
        ("other.h5", "has a folder of shards, other.shards"),
        ("begun.h5", "has a folder of shards, begun.shards"),
        ("bev.shards/00000.h5", "lies in a folder of shards"),
        ("bev.shards/00007.h5", "lies in a folder of shards"),
        ("link/00000.h5", "lies in a folder of shards"),
        ("other.shards/00000.h5", "lies in a folder of shards"),
        ("missing/one.h5", "does not exist: create it first"),
        ("begun.shards", "is a folder"),
    ]:
        with pytest.raises(RefusedError, match=message):
            merge(path, tmp_path / name, overwrite=True)
    with pytest.raises(InputError, match=r"must end in \.h5"):
        merge(path, tmp_path / "one.hdf5")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_merge_asks_for_room_before_it_copies(tmp_path: Path) -> None:
    """The input is a sparse file of more bytes than the disk has left."""
    write_shard(tmp_path / "bev.h5", list(pictures(2)))
    free = shutil.disk_usage(tmp_path).free
    try:
        os.truncate(tmp_path / "bev.h5", free + (1 << 32))
    except OSError:
        pytest.skip("this file system has no files of that size")
    with pytest.raises(RefusedError, match=r"one\.h5 needs .* GB and the disk has .* GB free"):
        merge(tmp_path / "bev.h5", tmp_path / "one.h5")
    assert names(tmp_path) == ["bev.h5"]


@pytest.mark.parametrize("shared", [True, False])
def test_merge_notices_damaged_masks(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "bev.h5"
    files = [shard_folder(path) / f"{k:05d}.h5" for k in range(2)]
    for k, file in enumerate(files):
        write_shard(file, list(pictures(2)), [EYE, EYE if shared else NOT_EYE], first=2 * k)
    write_index(path, files, SETTINGS, "ff00")
    flip(files[1], offset_of(files[1], "valid"))
    (problem,) = verify(path).problems
    with pytest.raises(ShardError) as caught:
        merge(path, tmp_path / "one.h5")
    assert str(caught.value) == problem
    assert problem.startswith(f"{files[1]}: damaged: 'valid'")
    assert names(tmp_path) == ["bev.h5", "bev.shards"]


def test_importing_shards_is_light() -> None:
    code = (
        "import sys, bevgen.shards; heavy = {'torch', 'dask', 'numba', 'PIL', 'rich', 'scipy'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
