"""Neighbours on the map: found by a command, stored beside the shards, used by training."""

import csv
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from georetrieval.cli import main
from georetrieval.config import Settings
from georetrieval.data.neighbours import Neighbours
from georetrieval.errors import DataError
from georetrieval.training.loop import train
from georetrieval.training.state import read_state
from georetrieval.training.tracking import Watcher
from tests.helpers.world import World, make_world, tiny_settings

NAME = "neighbours-pairs-train.npz"
POOL = 8  # of tiny_settings


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world of its own for each test, as files are added to it."""
    return make_world(tmp_path / "world", train=24, val=4, test=4)


def command(world: World, *words: object, settings: Settings | None = None) -> int:
    """Type georetrieval neighbours."""
    path = world.root.with_name("recipe.toml")
    path.write_text(to_toml(settings or tiny_settings("panorama", "bev")), "utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["neighbours", "--data", str(world.root), "--recipe", str(path), *map(str, words)])
    return int(stopped.value.code or 0)


def to_toml(settings: Settings) -> str:
    """Write the settings that differ from the defaults as dotted keys."""

    def lines(values: dict[str, object], before: str) -> list[str]:
        found = []
        for key, value in values.items():
            if isinstance(value, dict):
                found += lines(value, f"{before}{key}.")
            elif isinstance(value, bool) or value is None:
                found.append(f"{before}{key} = {str(bool(value)).lower()}")
            else:
                found.append(f"{before}{key} = {value!r}")
        return found

    return "\n".join(lines(settings.model_dump(mode="json", exclude_unset=True), ""))


def stored(world: World, name: str = NAME) -> dict[str, NDArray]:
    """Read the file without our code."""
    with np.load(world.root / name) as file:
        return {key: file[key] for key in file}


def trained_ids(world: World) -> list[str]:
    return [name for name, split in zip(world.ids, world.splits, strict=True) if split == "train"]


def metres(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distances between all places, by vectors and an arc tangent."""
    lat, lon = np.radians(places).T
    v = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    cross = np.linalg.norm(np.cross(v[:, None], v[None]), axis=2)
    return 6371008.8 * np.arctan2(cross, v @ v.T)


def check(found: dict[str, NDArray], ids: Sequence[str], expected: NDArray, count: int) -> None:
    """Compare a file with all distances."""
    assert found["ids"].tolist() == list(ids)
    far = expected + np.diag(np.full(len(expected), np.inf))
    order = np.argsort(far, axis=1)[:, :count]
    assert found["neighbours"].dtype == np.int32
    np.testing.assert_array_equal(found["neighbours"], order)
    near = np.take_along_axis(far, order, axis=1)
    np.testing.assert_allclose(found["metres"], near, rtol=1e-5)


@pytest.mark.parametrize("count", [5, POOL, 23])
def test_the_shards_neighbours_are_those_of_brute_force(world, capsys, count):
    assert command(world, "--pool", count) == 0
    ids = trained_ids(world)
    places = world.positions[[world.ids.index(name) for name in ids]]
    check(stored(world), ids, metres(places), count)
    assert f"{count} neighbours of each of 24 places" in capsys.readouterr().out
    assert not list(world.root.glob("*.part"))


def write_positions(path: Path, columns: Sequence[str], rows: dict[str, Sequence[float]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([name, *values] for name, values in rows.items())
    return path


@pytest.mark.parametrize("axes", [("easting", "northing"), ("latitude", "longitude")])
def test_positions_may_come_from_a_table(world, tmp_path, axes):
    random = np.random.default_rng(1)
    planar = axes[0] == "easting"
    low, high = ((0, 0), (3e5, 8e6)) if planar else ((-80, -180), (80, 180))
    rows = {name: random.uniform(low, high) for name in random.permutation(world.ids)}
    table = write_positions(tmp_path / "places.csv", ["id", *axes], rows)
    assert command(world, "--positions", table) == 0
    ids = trained_ids(world)
    places = np.array([rows[name] for name in ids])
    plane = np.linalg.norm(places[:, None] - places[None], axis=2)
    found = stored(world)
    check(found, ids, plane if planar else metres(places), POOL)
    assert (str(found["source"]), bool(found["planar"])) == ("places.csv", planar)


def test_the_split_and_the_pairs_name_the_file(world):
    world.write_pairs(name="pairs-same.csv")
    assert command(world, "--set", "data.pairs=pairs-same.csv", "--split", "test") == 0
    found = stored(world, "neighbours-pairs-same-test.npz")
    assert set(found["ids"]) == {
        name for name, split in zip(world.ids, world.splits, strict=True) if split == "test"
    }
    assert found["neighbours"].shape == (4, 3)
    assert command(world, "--set", "data.pairs=false") == 0
    assert stored(world, "neighbours-ids.npz")["neighbours"].shape == (32, POOL)


def once(**changes: object) -> Settings:
    """Train one epoch on neighbours from the map."""
    return tiny_settings("bev", optim__epochs=1, sampling__mine_every=0, **changes)


def neighbours_of(run: Path) -> NDArray[np.int32]:
    return read_state(run / "bev.state")["neighbours"].numpy()


def test_training_takes_the_stored_neighbours(world, tmp_path, caplog):
    assert command(world, "--pool", POOL + 3) == 0
    path = world.root / NAME
    right = Neighbours.load(path)
    # Deliberately others: the farthest first.
    others = Neighbours(
        right.ids, right.rows[:, ::-1].copy(), right.metres, right.positions, right.planar
    )
    others.save(path)
    with caplog.at_level(logging.INFO, "georetrieval"):
        train(once(), world.root, tmp_path / "run")
    np.testing.assert_array_equal(neighbours_of(tmp_path / "run"), others.rows[:, :POOL])
    assert f"neighbours on the map: {path}, from shards" in caplog.text


def test_training_stores_what_it_finds(world, tmp_path, caplog):
    path = world.root / NAME
    with caplog.at_level(logging.INFO, "georetrieval"):
        train(once(), world.root, tmp_path / "run")
    assert f"found, and stored in {path}" in caplog.text
    before = path.read_bytes()
    np.testing.assert_array_equal(neighbours_of(tmp_path / "run"), stored(world)["neighbours"])
    caplog.clear()
    train(once(), world.root, tmp_path / "again")
    assert path.read_bytes() == before
    for name in ("neighbours", "members"):
        first, again = (read_state(tmp_path / run / "bev.state")[name] for run in ("run", "again"))
        assert first.equal(again)
    path.unlink()
    assert command(world, settings=once()) == 0
    assert stored(world)["neighbours"].tolist() == neighbours_of(tmp_path / "run").tolist()


class Interrupting(Watcher):
    """Presses Ctrl-C at the first step."""

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_keeps_the_neighbours_that_it_began_with(world, tmp_path):
    settings = tiny_settings("bev", optim__epochs=2, sampling__mine_every=0)
    train(settings, world.root, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, world.root, tmp_path / "cut", watcher=Interrupting())
    right = Neighbours.load(world.root / NAME)
    turned = right.rows[:, ::-1].copy()
    Neighbours(right.ids, turned, right.metres, right.positions).save(world.root / NAME)
    train(settings, world.root, tmp_path / "cut", resume=True)
    whole, cut = ((tmp_path / run / "bev.safetensors").read_bytes() for run in ("whole", "cut"))
    assert whole == cut
    train(settings, world.root, tmp_path / "other")
    assert (tmp_path / "other/bev.safetensors").read_bytes() != whole


def move(world: World, table: Path) -> None:
    """Store neighbours from wrong places as if they were the shards'."""
    rows = {name: (k * k % 37, k) for k, name in enumerate(world.ids)}
    write_positions(table, ["id", "latitude", "longitude"], rows)
    assert command(world, "--positions", table) == 0
    found = Neighbours.load(world.root / NAME)
    Neighbours(found.ids, found.rows, found.metres, found.positions).save(world.root / NAME)


@pytest.mark.parametrize("fault", ["pool", "pairs", "positions"])
def test_a_file_that_does_not_fit_is_left_alone(world, tmp_path, caplog, fault):
    if fault == "pool":
        assert command(world, "--pool", POOL - 1) == 0
    elif fault == "pairs":
        assert command(world) == 0
        world.splits[3] = "test"
        world.write_pairs()
    else:
        move(world, tmp_path / "places.csv")
    before = (world.root / NAME).read_bytes()
    train(once(), world.root, tmp_path / "run")
    said = {"pool": "7 neighbours of each; 8", "pairs": "24 other pairs; here are 23"}
    assert f"{world.root / NAME} does not fit: " in caplog.text
    assert said.get(fault, "other positions now") in caplog.text
    assert (world.root / NAME).read_bytes() == before
    places = world.positions[[world.ids.index(name) for name in trained_ids(world)]]
    far = metres(places) + np.diag(np.full(len(places), np.inf))
    np.testing.assert_array_equal(
        neighbours_of(tmp_path / "run"), np.argsort(far, axis=1)[:, :POOL]
    )


def test_positions_from_a_table_need_not_be_those_of_the_shards(world, tmp_path, caplog):
    rows = {name: (k * 7919 % 10007, k * k) for k, name in enumerate(world.ids)}
    table = write_positions(tmp_path / "utm.csv", ["id", "easting", "northing"], rows)
    assert command(world, "--positions", table) == 0
    with caplog.at_level(logging.INFO, "georetrieval"):
        train(once(), world.root, tmp_path / "run")
    assert "from utm.csv" in caplog.text
    np.testing.assert_array_equal(neighbours_of(tmp_path / "run"), stored(world)["neighbours"])


def test_the_largest_pool_of_the_branches_is_stored(world, tmp_path, caplog):
    both = tiny_settings("panorama", "bev", optim__epochs=1, sampling__mine_every=0)
    assert both.panorama is not None
    wider = both.panorama.sampling.model_copy(update={"pool": 12})
    panorama = both.panorama.model_copy(update={"sampling": wider})
    both = both.model_copy(update={"panorama": panorama})
    train(both, world.root, tmp_path / "run", branches=["bev"])
    assert neighbours_of(tmp_path / "run").shape == (24, POOL)
    assert stored(world)["neighbours"].shape == (24, 12)
    train(both, world.root, tmp_path / "run", branches=["panorama"], resume=True)
    assert not [r for r in caplog.records if "does not fit" in r.getMessage()]


def test_a_folder_that_cannot_be_written_stops_no_training(world, tmp_path, caplog, capsys):
    pairs = world.write_pairs(name=f"{'p' * 230}.csv")  # names of files end at 255 characters
    settings = once(data={"pairs": pairs.name})
    train(settings, world.root, tmp_path / "run")
    assert "not stored" in caplog.text
    assert f"neighbours-{pairs.stem}" in caplog.text
    assert (tmp_path / "run/bev.safetensors").exists()
    assert command(world, settings=settings) == 1
    assert f"neighbours-{pairs.stem}" in capsys.readouterr().err


def test_runs_that_begin_together_write_whole_files(tmp_path):
    """Such as the two branches on a GPU each: who reads finds one file or the other."""
    ids = [f"p{k}" for k in range(2000)]
    random = np.random.default_rng(0)
    some = [Neighbours.find(ids, random.uniform(0, 80, (2000, 2)), n) for n in (16, 48, 32, 40)]
    path = tmp_path / NAME
    some[0].save(path)

    def save(found: Neighbours) -> None:
        for _ in range(15):
            found.save(path)

    with ThreadPoolExecutor(len(some)) as pool:
        jobs = [pool.submit(save, found) for found in some]
        while not all(job.done() for job in jobs):
            read = Neighbours.load(path)
            (one,) = (found for found in some if found.rows.shape == read.rows.shape)
            np.testing.assert_array_equal(read.metres, one.metres)
        for job in jobs:
            job.result()
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_pool_that_training_would_not_take_is_said(world, capsys, caplog):
    assert command(world, "--pool", POOL - 1) == 0
    assert "looks at 8 neighbours of each, and will not take a file of 7" in caplog.text
    caplog.clear()
    assert command(world, "--pool", POOL + 1) == 0
    assert not caplog.records


def without_positions(world: World) -> None:
    """Write the shards again, positions left out."""
    from bevgen import ShardSet
    from tests.helpers.world import write_shards

    for kind in ("panorama", "bev", "satellite"):
        with ShardSet(world.root / f"{kind}.h5") as shards:
            images = np.stack([shards[k] for k in range(len(shards))])
        (world.root / f"{kind}.h5").unlink()
        write_shards(world.root / f"{kind}.h5", kind, world.ids, images)


def test_unknown_positions(world, tmp_path, capsys, caplog):
    without_positions(world)
    assert command(world) == 1
    assert "panorama.h5 has no position for 24 of 24 queries" in capsys.readouterr().err
    assert not (world.root / NAME).exists()
    settings = tiny_settings("bev", optim__epochs=3, sampling__mine_every=0)
    train(settings, world.root, tmp_path / "random")
    assert caplog.text.count("drawn at random") == 1
    assert read_state(tmp_path / "random/bev.state")["neighbours"] is None
    rows = {name: (k * 7919 % 10007, k * k) for k, name in enumerate(world.ids)}
    table = write_positions(tmp_path / "utm.csv", ["id", "easting", "northing"], rows)
    assert command(world, "--positions", table) == 0
    train(once(), world.root, tmp_path / "run")
    np.testing.assert_array_equal(neighbours_of(tmp_path / "run"), stored(world)["neighbours"])


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "range", "own", "float"])
def test_a_damaged_file_is_named(world, tmp_path, damage):
    assert command(world) == 0
    path = world.root / NAME
    good = path.read_bytes()
    right = Neighbours.load(path)
    rows = right.rows.copy()
    rows[2, 1] = 24 if damage == "range" else 2
    if damage == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif damage == "flip":
        at = good.index(right.rows.tobytes()) + 5
        path.write_bytes(good[:at] + bytes([good[at] ^ 64]) + good[at + 1 :])
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"neighbours")
    else:
        table = rows.astype(np.float32) if damage == "float" else rows
        Neighbours(right.ids, table, right.metres, right.positions).save(path)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="make it anew with georetrieval neighbours") as caught:
        train(once(), world.root, tmp_path / "run")
    assert str(path) in str(caught.value)
    assert command(world) == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("columns", "values", "said"),
    [
        (["id", "x", "y"], (1, 2), "columns must be id, and latitude"),
        (["name", "easting", "northing"], (1, 2), "columns must be id, and latitude"),
        (
            ["id", "easting", "northing"],
            (1, "east"),
            "line 2: no easting and northing: '1', 'east'",
        ),
        (["id", "latitude", "longitude"], (91, 2), "line 2: no latitude and longitude: '91', '2'"),
        (["id", "latitude", "longitude"], ("nan", 2), "line 2: no latitude"),
        (["id", "easting", "northing"], (1,), "line 2: no easting"),
    ],
)
def test_tables_of_positions_that_cannot_be_used(world, tmp_path, capsys, columns, values, said):
    table = write_positions(tmp_path / "places.csv", columns, dict.fromkeys(world.ids, values))
    assert command(world, "--positions", table) == 1
    assert f"{table}" in (text := capsys.readouterr().err)
    assert said in text
    assert "Traceback" not in text


def test_queries_that_a_table_lacks_or_contradicts(world, tmp_path, capsys):
    rows = {name: (k, 2) for k, name in enumerate(world.ids)}
    one, *_ = trained_ids(world)
    del rows[one]
    table = write_positions(tmp_path / "places.csv", ["id", "easting", "northing"], rows)
    assert command(world, "--positions", table) == 1
    assert f"{table} lacks 1 of 24 queries, such as {one}" in capsys.readouterr().err
    with table.open("a") as file:
        file.write(f"{one},5,6\n{one},5,7\n")
    assert command(world, "--positions", table) == 1
    assert f"{one} is elsewhere in a line above" in capsys.readouterr().err
    assert command(world, "--positions", tmp_path / "no.csv") == 1
    assert "no.csv cannot be read" in capsys.readouterr().err


def test_a_run_on_the_command_line_says_what_it_takes(world, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(once()), "utf-8")
    line = [sys.executable, "-m", "georetrieval", "train", "--data", world.root, "--device", "cpu"]
    for run, said in (("one", "found, and stored in"), ("two", "from shards")):
        words = [*line, "--recipe", path, "--run", tmp_path / run]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        text = " ".join(done.stderr.split())
        assert "neighbours on the map: " in text
        assert said in text
