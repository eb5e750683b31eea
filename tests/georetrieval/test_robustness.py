"""What users do that nobody meant: two at once, wrong files, full disks, numbers out of range."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.run import get_args_parser

from bevgen import RefusedError, ShardSet, only_writer
from georetrieval import cli
from georetrieval.cli.train import command as train_command
from georetrieval.config import EncoderSettings, Settings, load_settings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError, DataError, SettingsError, SplitError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import load_branch
from georetrieval.models.weights import read_weights
from georetrieval.run import Run
from georetrieval.training.loop import train
from georetrieval.training.processes import join_processes
from georetrieval.training.state import read_state
from tests.helpers.paths import ROOT
from tests.helpers.world import World, tiny_settings, write_shards

QUICK = {"optim__epochs": 1, "sampling__batch_size": 8}


def georetrieval(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0)


def write_recipe(world: World) -> Path:
    """Write a recipe that trains the BEV branch for an epoch, into the data folder."""
    path = world.root / "georetrieval.toml"
    path.write_text(
        "panorama = false\n[bev.encoder]\nname = 'test_convnext2'\npretrained = false\n"
        "[bev.sampling]\nbatch_size = 8\npool = 8\ntake = 4\n[bev.augment]\nturn = 0\n"
        "[bev.optim]\nepochs = 1\nprecision = 'float32'\n"
    )
    return path


# Two at once


def test_a_second_training_into_one_run_is_refused(world, small_world, tmp_path):
    run, settings = tmp_path / "run", tmp_path / "settings.json"
    values = tiny_settings(optim__epochs=5000).model_dump(mode="json")
    settings.write_text(json.dumps(values), "utf-8")
    words = ["-m", "tests.helpers.train_script", settings, world.root, run, "0.1"]
    with subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("step ")
        before = (run / "settings.json").read_bytes()
        with pytest.raises(RefusedError, match=f"another run is writing .*process {first.pid}"):
            train(tiny_settings(**QUICK), small_world.root, run)
        with pytest.raises(RefusedError):
            train(tiny_settings(optim__epochs=5000), world.root, run, resume=True)
        first.send_signal(signal.SIGINT)
        first.stdout.read()
        assert first.wait() == 130
    assert (run / "settings.json").read_bytes() == before
    assert not (run / "training.lock").exists()


def test_two_results_pages_or_neighbours_of_one_name_are_refused(small_world, tmp_path, capsys):
    run = Run(tmp_path / "run")
    train(tiny_settings(**QUICK), small_world.root, run)
    write_recipe(small_world)
    neighbours = ("neighbours", "--data", small_world.root)
    for path, *words in (
        (run.evaluation("test"), "evaluate", "--run", run),
        (run.report_path, "report", "--run", run),
        (small_world.root / "neighbours-pairs-train.npz", *neighbours),
    ):
        before = path.read_bytes() if path.exists() else None
        with only_writer(path):
            assert georetrieval(*words) == 1
        assert f"another run is writing {path} (process {os.getpid()}" in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == before
        assert georetrieval(*words) == 0
        assert path.exists()
    # Results of two names are written side by side.
    with only_writer(run.evaluation("test")):
        assert georetrieval("evaluate", "--run", run, "--name", "other") == 0
    assert not list(tmp_path.rglob("*.lock"))


# Wrong files


@pytest.fixture
def swapped(small_world) -> World:
    """A small world whose bev.h5 holds the satellite tiles."""
    images = ShardSet(small_world.root / "satellite.h5").read(range(len(small_world.ids)))
    path = small_world.root / "bev.h5"
    write_shards(path, "satellite", small_world.ids, images, small_world.positions)
    write_recipe(small_world)
    return small_world


@pytest.mark.parametrize("command", ["train", "train --dry-run", "neighbours"])
def test_tiles_in_the_place_of_birds_eye_views_are_refused(swapped, tmp_path, capsys, command):
    words = [*command.split(), "--data", swapped.root]
    if command == "train":
        words += ["--run", tmp_path / "run"]
    assert georetrieval(*words) == 1
    said = capsys.readouterr().err
    assert "bev.h5 holds satellite images, where data.bev takes bev images" in said
    assert georetrieval(*words, "--set", "data.any_modality=true") == 0


def test_evaluate_and_embed_ask_what_images_are(small_world, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_settings(**QUICK), small_world.root, run)
    images = ShardSet(small_world.root / "panorama.h5").read(range(len(small_world.ids)))
    wrong = write_shards(tmp_path / "p.h5", "panorama", small_world.ids, images)
    assert georetrieval("evaluate", "--run", run, "--reference", wrong) == 1
    assert "p.h5 holds panorama images, where data.reference takes" in capsys.readouterr().err
    bevs = small_world.root / "bev.h5"  # the queries themselves: all would be found
    assert georetrieval("evaluate", "--run", run, "--reference", bevs) == 1
    assert "bev.h5 holds bev images, where data.reference takes" in capsys.readouterr().err
    words = ("embed", wrong, "--checkpoint", run / "bev.safetensors", "-o", tmp_path / "e.npz")
    assert georetrieval(*words) == 1
    assert "holds panorama images, which the bev branch was not" in capsys.readouterr().err
    assert georetrieval(*words, "--as", "reference") == 0
    assert georetrieval("evaluate", "--run", run, "--reference", wrong, "--any-modality") == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_named(tmp_path, content, said):
    for name, read in (
        ("w.pth", read_weights),
        ("w.safetensors", read_weights),
        ("bev.safetensors", load_branch),
        ("bev.state", read_state),
        ("vit.pth", lambda path: make_encoder(path, "open_clip:ViT-B-32")),
        ("net.pth", lambda path: make_encoder(path, "test_convnext2")),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=said) as caught:
            read(path)
        assert name in str(caught.value)


def make_encoder(path: Path, name: str) -> object:
    return Branch(EncoderSettings(name=name, pretrained=str(path)))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "bev.safetensors", "bev.state"])
def test_damaged_weights_are_not_explained_in_a_librarys_words(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(bytes(range(1, 256)) * 9)
    read = {"bev.safetensors": load_branch, "bev.state": read_state}.get(name, read_weights)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read(path)
    for word in ("header", "torch", "Pickle", "weights_only"):
        assert word not in str(caught.value).replace(str(tmp_path), "")


def test_damaged_settings_of_a_run_are_said_in_a_sentence(small_world, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_settings(**QUICK), small_world.root, run)
    settings = (run / "settings.json").read_text()
    for text, said in (
        (settings[:40], "Invalid JSON: EOF while parsing"),
        (settings.replace('"seed": ', '"seeds": '), "unknown setting seeds; did you mean seed?"),
        (settings.replace('"epochs": 1', '"epochs": "x"'), "bev.optim.epochs: Input should be"),
    ):
        assert text != settings
        (run / "settings.json").write_text(text)
        assert georetrieval("evaluate", "--run", run) == 1
        shown = capsys.readouterr().err
        assert said in shown
        assert "settings.json is damaged: " in shown
        assert "copy it again from where the run was made" in shown
        assert "pydantic" not in shown
        assert len(shown.strip().splitlines()) == 1


def test_pickles_are_refused_without_the_advice_to_run_them(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(CheckpointError, match="save the model's state_dict") as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(CheckpointError, match="a holds NaN"):
        read_weights(path)
    import timm

    for scale in (float("nan"), 1e9, -3.0):
        trunk = timm.create_model("test_convnext2", num_classes=0).state_dict()
        tensors = {f"model.{k}": v for k, v in trunk.items()}
        torch.save({**tensors, "logit_scale": torch.tensor(scale)}, path)
        words = ("import-weights", path, "--kind", "bev", "--out", tmp_path / "run")
        assert georetrieval(*words, "--encoder", "test_convnext2") == 1
        assert "logit_scale" in capsys.readouterr().err
        assert not (tmp_path / "run" / "bev.safetensors").exists()


def test_an_unknown_split_lists_those_there_are(small_world):
    with pytest.raises(SplitError, match="no pairs of split 'tset'; its splits: test, train, val"):
        Dataset(tiny_settings().data, small_world.root).pairs("bev", "tset")


def test_ids_with_endings_are_shown_beside_those_without(small_world):
    rows = [f"{name}.jpg,{name},train" for name in small_world.ids]
    (small_world.root / "pairs.csv").write_text("query,reference,split\n" + "\n".join(rows))
    first = small_world.ids[0]
    with pytest.raises(DataError, match=f"write '{first}', not '{first}.jpg'"):
        Dataset(tiny_settings().data, small_world.root).pairs("bev", "train")


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\n")
    assert load_settings(path).seed == 3


# Disks


def limited(count: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command that may write files of so many bytes at most, as if the disk were full."""
    script = (
        "import resource, sys;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({count}, resource.RLIM_INFINITY));"
        "from georetrieval.cli import main; main(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_full_disk_ends_training_with_a_way_on(small_world, tmp_path, capsys):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    write_recipe(small_world)
    run = tmp_path / "run"
    words = ("train", "--data", small_world.root, "--run", run)
    done = limited(100_000, *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "bev.state could not be written" in done.stderr
    assert "then give the same command" in " ".join(done.stderr.split())
    assert [path.name for path in run.iterdir() if path.suffix != ".jsonl"] == ["settings.json"]
    assert georetrieval(*words) == 0  # what was said to do
    state = (run / "bev.state").read_bytes()
    done = limited(100_000, *words, "--resume", "--set", "bev.optim.epochs=1")
    assert done.returncode in (0, 1)
    assert (run / "bev.state").read_bytes() == state  # whole, whatever happened
    assert not list(run.glob("*.part"))


def test_where_nothing_can_be_written_is_said_at_once(small_world, tmp_path, capsys):
    write_recipe(small_world)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert georetrieval("train", "--data", small_world.root, "--run", blocked / "run") == 1
    assert f"{blocked / 'run'} cannot be made: Not a directory" in capsys.readouterr().err


def test_files_get_the_mode_that_the_umask_gives(small_world, tmp_path):
    before = os.umask(0o027)
    try:
        train(tiny_settings(**QUICK), small_world.root, tmp_path / "run")
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "run").iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o640}, modes


def test_weights_without_a_state_say_how_to_go_on(small_world, tmp_path):
    run = Run(tmp_path / "run")
    train(tiny_settings(**QUICK), small_world.root, run)
    state, weights = run.state("bev").read_bytes(), run.checkpoint("bev").read_bytes()
    run.state("bev").unlink()
    with pytest.raises(CheckpointError, match="has no state to continue from"):
        train(tiny_settings(**QUICK), small_world.root, run)
    run.checkpoint("bev").unlink()
    run.state("bev").write_bytes(state)
    with pytest.raises(CheckpointError, match="best weights so far, is missing"):
        train(tiny_settings(**QUICK), small_world.root, run, resume=True)
    run.checkpoint("bev").write_bytes(weights)
    train(tiny_settings(**QUICK), small_world.root, run, resume=True)


# Numbers and the environment


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"loader_threads": 10**9},
        {"bev": {"optim": {"learning_rate": float("nan")}}},
        {"bev": {"optim": {"learning_rate": float("inf")}}},
        {"bev": {"optim": {"weight_decay": float("inf")}}},
        {"bev": {"optim": {"epochs": 10**12}}},
        {"bev": {"encoder": {"query_size": [10**9, 10**9]}}},
        {"data": {"fov": float("nan")}},
    ],
    ids=str,
)
def test_numbers_have_a_range(change):
    with pytest.raises(ValueError, match="validation error"):
        Settings.model_validate(change)


def test_a_negative_seed_is_wrong_usage(small_world, tmp_path, capsys):
    write_recipe(small_world)
    words = ("train", "--data", small_world.root, "--run", tmp_path / "run", "--set", "seed=-1")
    assert georetrieval(*words) == 2
    assert "seed: Input should be greater than or equal to 0, not -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set in the environment, but RANK and MASTER_ADDR"),
        (
            {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK in the environment is 'x', no number",
        ),
    ],
)
def test_half_of_what_torchrun_sets_is_refused(monkeypatch, environment, said):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        join_processes("cpu")


def test_a_rank_that_is_left_from_elsewhere_means_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "x")
    assert join_processes("cpu").count == 1


def test_torchrun_leaves_every_option_of_train_to_train(capsys):
    for parameter in train_command.params:
        passed = []
        for option in parameter.opts:
            words = ["-m", "georetrieval", "train", option, "value"]
            try:
                found = get_args_parser().parse_args(["--nproc-per-node=2", *words])
            except SystemExit:  # it takes the option for one of its own
                continue
            assert found.training_script_args == ["train", option, "value"]
            passed.append(option)
        assert passed, parameter.opts
