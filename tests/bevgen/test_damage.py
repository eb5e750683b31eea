"""Damaged files never end a run, hang it, or cost a good image."""

import numpy as np
import pytest

from bevgen import ShardSet, verify
from tests.helpers.damage import damaged_folder, fates, run_convert, valid_files
from tests.robustness import convert_odd_folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """BEV of each format's good file, made without bad company."""
    folder = tmp_path_factory.mktemp("alone")
    for name, data in valid_files().items():
        (folder / f"good.{name}").write_bytes(data)
    for name in valid_files():
        (folder / f"{name}.txt").write_text(f"good.{name}")
        run_convert(folder, folder / f"{name}.h5", "--list", folder / f"{name}.txt")
    return {name: ShardSet(folder / f"{name}.h5")[0] for name in valid_files()}


def check(folder, count, seed, undisturbed, *options):
    images = folder / "images"
    images.mkdir()
    good = damaged_folder(images, count, seed)
    out = folder / "bev.h5"
    report = run_convert(images, out, *options)
    fate = fates(out)
    assert len(fate) == count + len(good) == report["rows"] + report["failures"]
    assert all(reason for reason in fate.values() if reason is not None)
    # A reason that begins so is a bug of ours: nothing but PanoramaError may come out.
    assert not [reason for reason in fate.values() if reason and reason.startswith("unexpected")]
    with ShardSet(out) as shards:
        rows = {source: row for row, source in enumerate(shards.sources)}
        for source in good:
            assert fate[source] is None
            assert np.array_equal(shards[rows[source]], undisturbed[source.split(".")[-1]])
    assert not verify(out).problems
    assert report["failures"] > count / 4


@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_damaged_files(tmp_path, undisturbed, seed):
    check(tmp_path, 100, seed, undisturbed, "--shard-size", "40")


@pytest.mark.faults
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
@pytest.mark.parametrize("seed", range(100, 105))
def test_thousands_of_damaged_files(tmp_path, undisturbed, seed, scheduler):
    check(tmp_path, 1000, seed, undisturbed, "--shard-size", "100", "--scheduler", scheduler)


def test_every_kind_of_odd_file_meets_its_fate(tmp_path):
    expected, fate = convert_odd_folder(tmp_path)
    assert {name: reason is None for name, reason in fate.items()} == expected
