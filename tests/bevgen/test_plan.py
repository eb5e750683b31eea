"""What a run decides to do before it touches anything, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevgen import ShardSet, convert, verify
from bevgen.conversion.plan import Plan, plan_run
from bevgen.conversion.settings import BevSettings, ImageSettings
from bevgen.errors import InputError, RefusedError, ShardError
from tests.helpers.runs import assert_same_output, panoramas, tree

TINY = (4, 8)
SETTINGS = ImageSettings("satellite", *TINY)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Nine images, p000.png to p008.png."""
    return panoramas(tmp_path / "in", 9, TINY)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.h5"


def plan(images: Path, out: Path, settings: Any = SETTINGS, **options: Any) -> Plan:
    return plan_run(images, out, settings, **{"shard_size": 4, **options})


def make(images: Path, out: Path, settings: Any = SETTINGS, **options: Any) -> Any:
    return convert(images, out, settings, **{"shard_size": 4, "scheduler": "sync", **options})


def sources(out: Path) -> list[str]:
    with ShardSet(out) as shards:
        return list(shards.sources)


def unfinished(images: Path, out: Path, missing: list[int]) -> None:
    """Leave what a killed run leaves: finished shards and the plan, some shards not made."""
    made = plan(images, out)
    make(images, out)
    out.unlink()
    made.write()
    for number in missing:
        (out.with_suffix(".shards") / f"{number:05d}.h5").unlink()


# --- a new output ---


def test_inputs_are_cut_into_shards_in_the_order_of_their_paths(tmp_path: Path, out: Path) -> None:
    names = ["b/2.png", "a.png", "B.png", "b/10.png", "z é.png"]
    images = panoramas(tmp_path / "in", names, TINY)
    found = plan(images, out, shard_size=2)
    order = sorted(names)
    assert [list(shard.inputs) for shard in found.shards] == [order[:2], order[2:4], order[4:]]
    folder = out.with_suffix(".shards")
    assert [shard.path for shard in found.shards] == [folder / f"0000{k}.h5" for k in range(3)]
    assert [item.id for shard in found.todo for item in shard.items or ()] == [
        name.removesuffix(".png") for name in order
    ]
    assert not found.single
    assert (found.images, found.images_todo, found.complete) == (5, 5, False)
    assert tree(out.parent) == {}


@pytest.mark.parametrize(("size", "single"), [(9, True), (8, False)])
def test_what_fits_one_shard_is_one_file(images: Path, out: Path, size: int, single: bool) -> None:
    found = plan(images, out, shard_size=size)
    assert found.single is single
    assert (found.shards[0].path == out) is single


def test_a_plan_does_not_open_images(images: Path, out: Path) -> None:
    (images / "p003.png").write_bytes(b"no image")
    (images / "p004.png").chmod(0)
    assert plan(images, out).images == 9


def test_the_digest_is_of_ids_sources_sizes_and_poses_alone(
    images: Path, out: Path, tmp_path: Path
) -> None:
    first = plan(images, out).digest
    copy = shutil.copytree(images, tmp_path / "copy")
    assert plan(copy, out.with_name("other.h5"), BevSettings()).digest == first
    rows = "file,heading\np001.png,90\n"
    (tmp_path / "poses.csv").write_text(rows)
    assert plan(images, out, poses=tmp_path / "poses.csv").digest != first
    (images / "p001.png").write_bytes(b"other size")
    assert plan(images, out).digest != first


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_rows_match_names_however_they_are_composed(
    on_disk: str, in_table: str, tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.png", "Müllerstraße é.png"]
    images = panoramas(tmp_path / "in", [unicodedata.normalize(on_disk, n) for n in names], TINY)
    text = "".join(f"{unicodedata.normalize(in_table, n)},{k}\n" for k, n in enumerate(names, 10))
    (tmp_path / "poses.csv").write_text("file,heading\n" + text)
    items = plan(images, out, poses=tmp_path / "poses.csv").shards[0].items
    assert sorted(item.own.heading for item in items) == [10, 11]
    assert "composed or decomposed" in caplog.text


def test_rows_of_two_files_that_differ_in_composition_keep_their_own(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    images = panoramas(tmp_path / "in", both, TINY)
    if len(list(images.iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    text = "".join(f"{name},{k}\n" for k, name in enumerate(both))
    (tmp_path / "poses.csv").write_text("file,heading\n" + text)
    items = plan(images, out, poses=tmp_path / "poses.csv").shards[0].items
    assert {item.source: item.own.heading for item in items} == dict(zip(both, [0, 1], strict=True))
    assert not caplog.text


def test_shared_ids_are_counted(tmp_path: Path, out: Path) -> None:
    names = [f"{k}.{ending}" for k in range(12) for ending in ("png", "webp")]
    images = panoramas(tmp_path / "in", names, TINY)
    with pytest.raises(InputError, match=r"12 ids are shared like this\).*--keep-endings"):
        plan(images, out)


def test_one_id_for_two_inputs_is_refused_and_both_are_named(tmp_path: Path, out: Path) -> None:
    images = panoramas(tmp_path / "in", ["a/x.png", "a/x.webp", "y.png"], TINY)
    kept = plan(images, out, keep_endings=True)
    assert [item.id for item in kept.shards[0].items] == ["a/x.png", "a/x.webp", "y.png"]
    with pytest.raises(InputError, match=r"a/x\.png and a/x\.webp have one id, 'a/x'.*--list"):
        plan(images, out)
    poses = tmp_path / "poses.csv"
    poses.write_text("file,id\na/x.webp,other\n")
    assert plan(images, out, poses=poses).images == 3
    poses.write_text("file,id\na/x.webp,y\n")
    with pytest.raises(InputError, match=r"a/x\.webp and y\.png have one id, 'y'"):
        plan(images, out, poses=poses)
    chosen = tmp_path / "list.txt"
    chosen.write_text("a/x.png\ny.png\n")
    assert plan(images, out, list_file=chosen).images == 2


def test_poses_of_files_that_are_not_there_are_refused(
    images: Path, out: Path, tmp_path: Path
) -> None:
    poses = tmp_path / "poses.csv"
    poses.write_text("file,heading\nin/p001.png,90\n")
    with pytest.raises(InputError, match=r"in/p001\.png: paths must be relative to the input"):
        plan(images, out, poses=poses)


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("o", InputError, r"must end in \.h5, such as .*o\.h5"),
        ("bev_0.06", InputError, r"must end in \.h5"),
        ("o.hdf5", InputError, r"must end in \.h5"),
        ("missing/o.h5", RefusedError, "does not exist: create it first"),
        ("", RefusedError, r"is a folder: name a file, such as .*bev\.h5"),
    ],
)
def test_names_that_cannot_be_an_output(
    images: Path, out: Path, name: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        plan(images, out.parent / name)
    with pytest.raises(error, match=reason):
        make(images, out.parent / name)
    assert tree(out.parent) == {}


def test_wrong_options_are_named(images: Path, out: Path) -> None:
    with pytest.raises(InputError, match="shard size must be at least 1 image, not 0"):
        plan(images, out, shard_size=0)
    for other in ("extend", "retry_failed"):
        with pytest.raises(InputError, match="--overwrite starts anew"):
            plan(images, out, overwrite=True, **{other: True})


# --- a finished output ---


@pytest.mark.parametrize("size", [4, 100])
def test_nothing_is_left_to_do(images: Path, out: Path, size: int) -> None:
    make(images, out, shard_size=size)
    before = {path: path.stat().st_mtime_ns for path in [out.parent, *out.parent.rglob("*")]}
    for options in ({}, {"extend": True}, {"retry_failed": True}, {"shard_size": 3}):
        found = plan(images, out, **options)
        assert (found.complete, found.shards) == (True, ())
    report = make(images, out)
    assert (report.images, report.shards, report.all_rows) == (0, 0, 9)
    del before[out.parent]  # the lock comes and goes
    assert before == {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}


def test_other_settings_are_refused_with_both_values(images: Path, out: Path) -> None:
    settings = BevSettings(size=16, heading=90.0, vertical_fov=(45.0, -45.0))
    make(images, out, settings, shard_size=100)
    other = BevSettings(size=24, height=2.5, vertical_fov=(40.0, -45.0), antialias=False)
    with pytest.raises(RefusedError) as caught:
        plan(images, out, other)
    text = str(caught.value)
    for words in (
        "size: 16 there, 24 now",
        "height: 2.0 there, 2.5 now",
        "heading: 90.0 there",
        "vertical_fov: [45.0, -45.0] there, [40.0, -45.0] now",
        "antialias: True there, False now",
        "--overwrite",
    ):
        assert words in text
    assert "resolution" not in text
    with pytest.raises(RefusedError, match="kind: bev there, satellite now"):
        plan(images, out)


@pytest.mark.parametrize("size", [4, 100])
def test_added_inputs_are_refused_and_named(images: Path, out: Path, size: int) -> None:
    make(images, out, shard_size=size)
    panoramas(images, ["new1.png", "new2.png", "new3.png", "new4.png"], TINY)
    with pytest.raises(
        RefusedError,
        match=r"4 inputs \(new1\.png, new2\.png, new3\.png and 1 more\) are new.*--extend",
    ):
        plan(images, out)


def test_removed_inputs_are_refused_and_named(images: Path, out: Path) -> None:
    make(images, out)
    (images / "p004.png").unlink()
    with pytest.raises(
        RefusedError, match=r"1 input \(p004\.png\) of .*o\.h5 is no longer.*--extend"
    ):
        plan(images, out)
    assert plan(images, out, extend=True).complete


def test_changed_inputs_are_refused_and_named(images: Path, out: Path, tmp_path: Path) -> None:
    make(images, out)
    panoramas(images, ["p002.png"], (8, 16))
    for options in ({}, {"extend": True}, {"retry_failed": True}):
        with pytest.raises(RefusedError, match=r"1 input \(p002\.png\) changed.*--overwrite"):
            plan(images, out, **options)


def test_changed_poses_are_changed_inputs(images: Path, out: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.csv"
    poses.write_text("file,heading,id\np002.png,90,two\np003.png,,three\n")
    make(images, out, poses=poses)
    assert plan(images, out, poses=poses).complete
    poses.write_text("file,id,heading\np003.png,three,\np002.png,two,90.0\n")
    assert plan(images, out, poses=poses).complete  # says the same in another order
    with pytest.raises(RefusedError, match=r"2 inputs \(p002\.png, p003\.png\) changed"):
        plan(images, out)
    poses.write_text("file,id,heading\np003.png,three,\np002.png,two,91\n")
    with pytest.raises(RefusedError, match=r"1 input \(p002\.png\) changed"):
        plan(images, out, poses=poses)


@pytest.mark.parametrize("content", [b"", b"my holiday film", None])
def test_what_is_not_ours_is_not_touched(images: Path, out: Path, content: bytes | None) -> None:
    if content is None:
        import h5py

        with h5py.File(out, "w") as h5:
            h5["images"] = np.zeros(3)
    else:
        out.write_bytes(content)
    before = tree(out.parent)
    with pytest.raises(RefusedError, match=r"exists and is not a finished output of bevgen"):
        make(images, out)
    assert tree(out.parent) == before


def test_shards_of_nobody_are_not_touched(images: Path, out: Path) -> None:
    other = out.with_name("other.h5")
    make(images, other, ImageSettings("map", *TINY))
    other.with_suffix(".shards").rename(out.with_suffix(".shards"))
    before = tree(out.parent)
    for size in (4, 100):
        with pytest.raises(RefusedError, match=r"o\.h5 was made with other settings \(kind: map"):
            make(images, out, shard_size=size)
    assert tree(out.parent) == before


def test_a_folder_of_shards_that_belongs_to_another_file_is_not_touched(
    images: Path, out: Path, tmp_path: Path
) -> None:
    """The first shard of an extended file must not be taken from what happens to lie there."""
    make(images, out, shard_size=100)
    other = panoramas(tmp_path / "other", ["a.png", "b.png", "c.png"], TINY)
    make(other, out.with_name("x.h5"), shard_size=2)
    out.with_name("x.shards").rename(out.with_suffix(".shards"))
    panoramas(images, ["new.png"], TINY)
    before = tree(out.parent)
    with pytest.raises(RefusedError, match=r"o\.shards holds shards of another run.*00000\.h5"):
        make(images, out, extend=True)
    assert tree(out.parent) == before


def test_a_renamed_index_is_refused_before_any_work(images: Path, out: Path) -> None:
    make(images, out)
    moved = out.rename(out.with_name("moved.h5"))
    panoramas(images, ["new.png"], TINY)
    with pytest.raises(RefusedError, match=r"moved\.h5 was renamed and its folder o\.shards"):
        make(images, moved, extend=True)


def test_outputs_of_one_folder_never_share_shards(images: Path, out: Path) -> None:
    for name in ("bev_0.06.h5", "bev_0.12.h5", "bev.x.h5", "bev.h5"):
        make(images, out.with_name(name))
    for name in ("bev_0.06.h5", "bev_0.12.h5", "bev.x.h5", "bev.h5"):
        assert verify(out.with_name(name)).problems == ()


# --- more inputs ---


def test_extending_keeps_what_is_made(images: Path, out: Path) -> None:
    make(images, out, shard_size=100)
    single = out.read_bytes()
    panoramas(images, ["a.png", "p0.png", "z.png"], TINY)
    found = plan(images, out, extend=True, shard_size=2)
    assert [(s.path.name, s.items is None, list(s.inputs)) for s in found.shards[1:]] == [
        ("00001.h5", False, ["a.png", "p0.png"]),
        ("00002.h5", False, ["z.png"]),
    ]
    assert found.shards[0].items is None
    assert (found.images, found.images_todo) == (12, 3)
    make(images, out, extend=True, shard_size=2)
    assert (out.with_suffix(".shards") / "00000.h5").read_bytes() == single
    assert sources(out) == [*(f"p{k:03d}.png" for k in range(9)), "a.png", "p0.png", "z.png"]
    panoramas(images, ["b.png"], TINY)
    make(images, out, extend=True)
    assert sources(out)[-1] == "b.png"
    assert [s.name for s in sorted(out.with_suffix(".shards").iterdir())] == [
        f"0000{k}.h5" for k in range(4)
    ]
    assert verify(out).problems == ()
    assert plan(images, out).complete


def test_rows_of_removed_inputs_stay_when_extending(images: Path, out: Path) -> None:
    make(images, out)
    (images / "p001.png").unlink()
    panoramas(images, ["new.png"], TINY)
    make(images, out, extend=True)
    assert sources(out) == [*(f"p{k:03d}.png" for k in range(9)), "new.png"]
    assert verify(out).problems == ()


@pytest.mark.parametrize("size", [4, 100])
def test_the_id_of_a_row_that_stays_cannot_be_used_again(
    images: Path, out: Path, tmp_path: Path, size: int
) -> None:
    make(images, out, shard_size=size)
    (images / "p001.png").unlink()
    panoramas(images, ["p001.webp"], TINY)
    with pytest.raises(
        InputError, match=r"p001\.webp has the id 'p001' of p001\.png, which is no longer"
    ):
        make(images, out, extend=True, shard_size=size)
    poses = tmp_path / "poses.csv"
    poses.write_text("file,id\np001.webp,p001 again\n")
    make(images, out, extend=True, poses=poses, shard_size=size)
    assert verify(out).problems == ()


def test_the_same_holds_when_extending_was_interrupted(images: Path, out: Path) -> None:
    make(images, out)
    (images / "p001.png").unlink()
    panoramas(images, ["new.png"], TINY)
    plan(images, out, extend=True).write()
    out.unlink()
    panoramas(images, ["p001.webp"], TINY)
    with pytest.raises(InputError, match=r"p001\.webp has the id 'p001' of p001\.png"):
        make(images, out, extend=True)
    (images / "p001.webp").unlink()
    make(images, out, extend=True)
    assert verify(out).problems == ()
    assert len(sources(out)) == 10


def test_a_merged_file_can_be_extended(images: Path, out: Path, tmp_path: Path) -> None:
    from bevgen import merge

    make(images, out)
    merged = tmp_path / "m.h5"
    merge(out, merged)
    content = merged.read_bytes()
    assert plan(images, merged).complete
    (images / "p001.png").unlink()  # cannot be made again
    panoramas(images, ["new.png"], TINY)
    plan(images, merged, extend=True).write()  # killed here, or a moment later
    first = merged.with_suffix(".shards") / "00000.h5"
    merged.rename(first)
    make(images, merged, extend=True)
    assert first.read_bytes() == content
    assert verify(merged).problems == ()
    assert len(sources(merged)) == 10


# --- an unfinished output ---


def test_finished_shards_are_kept(images: Path, out: Path, tmp_path: Path) -> None:
    steady = tmp_path / "steady"
    steady.mkdir()
    make(images, steady / "o.h5")
    unfinished(images, out, missing=[1])
    found = plan(images, out, shard_size=1000)  # the cut is that of the first run
    assert [s.items is None for s in found.shards] == [True, False, True]
    make(images, out, shard_size=1000)
    assert_same_output(out, steady / "o.h5")


def test_a_damaged_or_foreign_shard_of_an_unfinished_run_is_made_again(
    images: Path, out: Path, tmp_path: Path
) -> None:
    steady = tmp_path / "steady"
    steady.mkdir()
    make(images, steady / "o.h5")
    unfinished(images, out, missing=[])
    folder = out.with_suffix(".shards")
    (folder / "00001.h5").write_bytes((folder / "00001.h5").read_bytes()[:-100])
    make(images, out.with_name("x.h5"), ImageSettings("map", *TINY))
    shutil.copy(out.with_name("x.shards") / "00002.h5", folder / "00002.h5")
    make(images, out)
    assert_same_output(out, steady / "o.h5")


def test_an_unfinished_run_is_not_continued_with_other_settings(images: Path, out: Path) -> None:
    unfinished(images, out, missing=[1])
    with pytest.raises(RefusedError, match="kind: satellite there, map now"):
        make(images, out, ImageSettings("map", *TINY))


def test_inputs_may_change_until_they_are_made(images: Path, out: Path) -> None:
    unfinished(images, out, missing=[1])
    panoramas(images, ["p005.png"], (8, 16))
    make(images, out)
    assert plan(images, out).complete
    assert verify(out).problems == ()


def test_inputs_that_change_after_they_were_made_stop_an_unfinished_run(
    images: Path, out: Path
) -> None:
    unfinished(images, out, missing=[1])
    panoramas(images, ["p000.png"], (8, 16))
    with pytest.raises(RefusedError, match=r"1 input \(p000\.png\) changed"):
        make(images, out)


def test_inputs_that_vanish_stop_an_unfinished_run_until_told(images: Path, out: Path) -> None:
    unfinished(images, out, missing=[1])
    for name in ("p000.png", "p004.png"):  # made already; not made yet
        (images / name).unlink()
    with pytest.raises(RefusedError, match=r"2 inputs \(p000\.png, p004\.png\).*--extend"):
        make(images, out)
    make(images, out, extend=True)
    assert sources(out) == [f"p{k:03d}.png" for k in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert verify(out).problems == ()


def test_a_shard_without_inputs_is_left_out(images: Path, out: Path) -> None:
    unfinished(images, out, missing=[1])
    for k in range(4, 8):
        (images / f"p{k:03d}.png").unlink()
    panoramas(images, ["a.png"], TINY)
    make(images, out, extend=True)
    assert sources(out) == ["p000.png", "p001.png", "p002.png", "p003.png", "a.png", "p008.png"]
    assert verify(out).problems == ()


def test_added_inputs_wait_until_told_in_an_unfinished_run_too(images: Path, out: Path) -> None:
    unfinished(images, out, missing=[1])
    panoramas(images, ["a.png"], TINY)
    with pytest.raises(RefusedError, match=r"1 input \(a\.png\) is new.*add it with --extend"):
        make(images, out)
    make(images, out, extend=True)
    assert sources(out) == [*(f"p{k:03d}.png" for k in range(9)), "a.png"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"settings": {}}', '{"settings":1,"shards":2}']
)
def test_a_damaged_plan_file_is_refused_with_two_ways_out(
    images: Path, out: Path, content: str
) -> None:
    unfinished(images, out, missing=[1])
    file = out.with_suffix(".shards") / "plan.json"
    file.write_text(content)
    with pytest.raises(RefusedError, match=r"plan\.json cannot be read.*delete it.*--overwrite"):
        make(images, out)
    assert not any(shard.items is None for shard in plan(images, out, overwrite=True).shards)
    file.unlink()
    make(images, out)
    assert verify(out).problems == ()
    assert len(sources(out)) == 9


def test_overwriting_goes_on_with_an_unfinished_run_of_just_the_same(
    images: Path, out: Path
) -> None:
    unfinished(images, out, missing=[1])
    kept = [shard.items is None for shard in plan(images, out, overwrite=True).shards]
    assert kept == [True, False, True]
    other = plan(images, out, ImageSettings("map", *TINY), overwrite=True)
    assert [shard.items is None for shard in other.shards] == [False] * 3
    (images / "p000.png").unlink()
    changed = plan(images, out, overwrite=True)
    assert [shard.items is None for shard in changed.shards] == [False] * 2
    make(images, out, overwrite=True)
    assert len(sources(out)) == 8
    assert verify(out).problems == ()


def test_overwriting_starts_anew_where_only_the_index_is_gone(images: Path, out: Path) -> None:
    make(images, out)
    out.unlink()
    assert [s.items is None for s in plan(images, out, overwrite=True).shards] == [False] * 3
    shard = out.with_suffix(".shards") / "00001.h5"
    shard.write_bytes(shard.read_bytes()[:-50])
    make(images, out, overwrite=True)
    assert verify(out).problems == ()


def test_overwriting_spares_what_no_hdf5_tool_wrote(images: Path, out: Path) -> None:
    out.write_bytes(b"my holiday film")
    with pytest.raises(RefusedError, match="is no HDF5 file: name another output"):
        make(images, out, overwrite=True)
    assert tree(out.parent) == {"o.h5": b"my holiday film"}


def test_what_is_planned_does_not_depend_on_what_is_not_said(images: Path, out: Path) -> None:
    """A later version that knows more of a panorama still knows the inputs of an older output."""
    item = next(iter(plan(images, out).shards[0].items or ()))
    size = (images / item.source).stat().st_size
    said = "\0".join(["p000.png", str(size), "p000", *["None"] * 7])
    digest = hashlib.blake2b(said.encode(), digest_size=8).digest()
    assert item.fingerprint == int.from_bytes(digest, "big")


# --- shards that were lost ---


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 2]])
def test_a_lost_shard_is_made_again(
    images: Path, out: Path, tmp_path: Path, lost: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    make(images, out)
    shutil.copytree(out.parent, tmp_path / "steady")
    for number in lost:
        (out.with_suffix(".shards") / f"{number:05d}.h5").unlink()
    found = plan(images, out)
    assert not found.complete
    assert sum(shard.items is None for shard in found.shards) == 3 - len(lost)
    assert f"0000{lost[0]}.h5 is missing: its images are made again" in caplog.text
    make(images, out)
    assert_same_output(out, tmp_path / "steady" / "o.h5")


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_damaged_shard_is_made_again_as_verify_advises(
    images: Path, out: Path, tmp_path: Path, number: int
) -> None:
    """Delete the shard and the index, and run the same command: also after an extension."""
    make(images, out)
    panoramas(images, ["a.png", "b.png"], TINY)
    make(images, out, extend=True)
    shutil.copytree(out.parent, tmp_path / "steady")
    shard = out.with_suffix(".shards") / f"{number:05d}.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    shard.unlink()
    out.unlink()
    make(images, out)
    assert_same_output(out, tmp_path / "steady" / "o.h5")


def test_damaged_shards_alone_are_not_replaced_unasked(images: Path, out: Path) -> None:
    make(images, out)
    out.unlink()
    shard = out.with_suffix(".shards") / "00001.h5"
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(ShardError, match=r"00001\.h5.*delete it"):
        make(images, out)
    shard.unlink()
    make(images, out)
    assert verify(out).problems == ()


# --- failures ---


def broken(images: Path, *names: str) -> None:
    for name in names:
        (images / name).write_bytes(b"broken")


@pytest.mark.parametrize("size", [4, 100])
def test_mended_inputs_wait_until_told(images: Path, out: Path, tmp_path: Path, size: int) -> None:
    broken(images, "p001.png", "p007.png")
    report = make(images, out, shard_size=size)
    assert (report.rows, report.failures, report.all_failures) == (7, 2, 2)
    panoramas(images, ["p001.png"], TINY)
    for options in ({}, {"extend": True}):
        with pytest.raises(RefusedError, match=r"1 input \(p001\.png\) could not be.*--retry-f"):
            plan(images, out, shard_size=size, **options)
    found = plan(images, out, shard_size=size, retry_failed=True)
    kept = [shard.items is None for shard in found.shards]
    assert kept == ([False, False, True] if size == 4 else [False])
    make(images, out, shard_size=size, retry_failed=True)
    panoramas(images, ["p007.png"], TINY)
    make(images, out, shard_size=size, retry_failed=True)
    (tmp_path / "steady").mkdir()
    make(images, tmp_path / "steady" / "o.h5", shard_size=size)
    assert_same_output(out, tmp_path / "steady" / "o.h5")


def test_removed_failures_are_no_loss(images: Path, out: Path) -> None:
    broken(images, "p001.png")
    make(images, out)
    (images / "p001.png").unlink()
    assert plan(images, out).complete
    assert plan(images, out, retry_failed=True).complete  # nothing to try


def test_retrying_does_not_lose_rows_of_removed_inputs(images: Path, out: Path) -> None:
    broken(images, "p001.png")
    make(images, out)
    (images / "p002.png").unlink()
    panoramas(images, ["p001.png"], TINY)
    with pytest.raises(RefusedError, match=r"1 input \(p002\.png\) is no longer.*--retry-failed"):
        make(images, out, extend=True, retry_failed=True)
    panoramas(images, ["p002.png"], TINY)
    (images / "p008.png").unlink()  # of another shard
    make(images, out, extend=True, retry_failed=True)
    assert len(sources(out)) == 9


def test_extending_and_retrying_at_once(images: Path, out: Path) -> None:
    broken(images, "p001.png")
    make(images, out, shard_size=100)
    panoramas(images, ["p001.png", "new.png"], TINY)
    make(images, out, shard_size=100, extend=True, retry_failed=True)
    assert sources(out) == [*(f"p{k:03d}.png" for k in range(9)), "new.png"]
    assert verify(out).problems == ()


def test_failures_of_an_unfinished_run_can_be_retried(
    images: Path, out: Path, tmp_path: Path
) -> None:
    broken(images, "p001.png", "p002.png")
    unfinished(images, out, missing=[1])
    panoramas(images, ["p001.png"], TINY)
    with pytest.raises(RefusedError, match="--retry-failed"):
        make(images, out)
    make(images, out, retry_failed=True)
    (tmp_path / "steady").mkdir()
    make(images, tmp_path / "steady" / "o.h5")
    assert_same_output(out, tmp_path / "steady" / "o.h5")


# --- every step on disk ---


@pytest.mark.parametrize(
    ("before", "files", "run"),
    [
        (None, {}, {}),
        (None, {"p001.png": "bad.png"}, {"shard_size": 100}),
        ({"shard_size": 100}, {"x.png": "good.png"}, {"extend": True}),
        ({}, {"x.png": "good.png", "p000.png": None}, {"extend": True}),
        ({"bad": ["p001.png"]}, {}, {"retry_failed": True}),
        ({"bad": ["p001.png"], "shard_size": 100}, {"p001.png": "good.png"},
         {"retry_failed": True, "shard_size": 100}),
        ({"bad": ["p001.png"]}, {"p001.png": "good.png", "x.png": "good.png"},
         {"retry_failed": True, "extend": True}),
        ({}, {"x.png": "good.png"}, {"overwrite": True, "height": 5, "shard_size": 100}),
        ({"shard_size": 100}, {}, {"overwrite": True, "height": 5}),
    ],
    ids=["new", "new single with a failure", "single extended", "extended", "retried",
         "single mended", "mended and extended", "overwritten by single", "overwritten"],
)  # fmt: skip
def test_killed_before_any_step_on_disk_the_next_run_arrives_at_the_same_files(
    memory_path: Path,
    before: dict[str, Any] | None,
    files: dict[str, str | None],
    run: dict[str, Any],
) -> None:
    before = None if before is None else dict(before)
    start = memory_path / "start"
    panoramas(start / "in", 4, TINY)
    panoramas(start, ["good.png"], TINY)
    broken(start, "bad.png")
    (start / "out").mkdir()
    broken(start / "in", *(before or {}).pop("bad", ()))
    scenario = {"before": before, "change": files, "run": run}
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.crash", json.dumps(scenario), str(memory_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["status"] == 0
    assert result["steps"] > 8
