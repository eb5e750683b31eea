import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from bevgen import ShardSet
from georetrieval.config import BranchSettings, EncoderSettings, OptimSettings, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import Batch, PairReader
from georetrieval.errors import CheckpointError, DataError, SettingsError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import load_branch
from georetrieval.retrieval.evaluation import evaluate
from georetrieval.run import Run
from georetrieval.training import loop as training
from georetrieval.training.loop import train
from georetrieval.training.optim import learning_rate, make_optimizer
from georetrieval.training.processes import Processes, join_processes
from georetrieval.training.state import State, read_state, write_state
from georetrieval.training.tracking import Tracker, Watcher
from tests.helpers.paths import ROOT
from tests.helpers.several import first_gradients, work
from tests.helpers.world import make_world, tiny_settings, write_shards

# Everything random at once, with state in norms: what a resumed run must get right.
EVERYTHING: dict[str, Any] = {
    "encoder__name": "test_efficientnet",
    "optim__accumulate": 3,
    "optim__epochs": 4,
    "sampling__mine_every": 2,
    "augment__turn": 0.5,
    "augment__turn_reference": 0.2,
    "augment__compression": 0.5,
    "augment__photometric": 0.5,
    "augment__blur_or_sharpen": 0.5,
    "augment__dropout": 0.5,
    "augment__rotated_negatives": 1,
    "encoder__round_queries": True,
}
LAYER_NORM = ["test_convnext2", "test_vit"]


class Acting(Watcher):
    """Does something after a step, and keeps what it hears."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.act, self.steps = act, 0
        self.figures: list[dict[str, float]] = []
        self.named: list[str] = []
        self.losses: list[float] = []

    def branch(self, name: str, settings: BranchSettings, pairs: int) -> None:
        self.named.append(name)

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        self.steps += 1
        self.losses.append(loss)
        self.act(self.steps)

    def evaluated(self, epoch: int, figures: dict[str, float]) -> None:
        self.figures.append(figures)


# Learning


def test_an_update_cuts_each_gradient_and_keeps_the_scale_from_1_to_100() -> None:
    branch = Branch(EncoderSettings(name="test_convnext2", pretrained=False))
    parameters = list(branch.parameters())
    sgd, scaler = torch.optim.SGD(parameters, lr=9.0), torch.amp.GradScaler("cpu", enabled=False)
    state = State(branch, branch, sgd, scaler)

    def update(gradient: float) -> None:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, gradient)
        training.update(state, 0.5, OptimSettings(clip_value=2.0))

    before = [parameter.detach().clone() for parameter in parameters]
    update(1e6)
    assert all(
        torch.equal(new, old - 0.5 * 2.0) for new, old in zip(parameters, before, strict=True)
    )
    for gradient, scale in ((1e6, 1.0), (-1e6, 100.0)):
        for _ in range(6):
            update(gradient)
        assert branch.scale == pytest.approx(scale)


def test_a_tiny_model_learns_the_tiny_world(world, tmp_path):
    settings = tiny_settings(
        "panorama",
        "bev",
        optim__epochs=16,
        optim__learning_rate=2e-3,
        sampling__batch_size=32,
        augment__flip=0.5,
        evaluate_every=8,
    )
    heard = Acting()
    train(settings, world.root, tmp_path / "run", watcher=heard)
    assert heard.named == ["panorama", "bev"]
    found = evaluate(tmp_path / "run", Dataset(settings.data, world.root), "test")
    recall = {method.name: method.figures["R@1"].value for method in found.methods}
    chance = 100 / 16
    assert recall["panorama"] > 6 * chance
    assert recall["bev"] > 10 * chance
    assert recall["both"] > 10 * chance


def test_trained_on_wrong_pairs_recall_is_chance(tmp_path):
    world = make_world(tmp_path / "world", val=32, test=96)
    settings = tiny_settings(optim__epochs=12, optim__learning_rate=2e-3, sampling__batch_size=32)
    shown = {}
    for name in ("right", "wrong"):
        if name == "wrong":
            # Each query belongs to the next place of its split.
            groups = {
                split: np.flatnonzero(np.array(world.splits) == split)
                for split in ("train", "val", "test")
            }
            order = np.concatenate([np.roll(group, 1) for group in groups.values()])
            world.write_pairs([world.ids[k] for k in order])
        heard = Acting()
        train(settings, world.root, tmp_path / name, watcher=heard)
        found = evaluate(tmp_path / name, Dataset(settings.data, world.root), "test").methods[0]
        shown[name] = (found.figures, heard.losses)
    right, wrong = shown["right"][0], shown["wrong"][0]
    assert right["R@1"].value > 60
    # Of 96: 1.04 % and 10.4 % by chance, give or take 3.2; the median rank is 48.5 by chance.
    assert wrong["R@1"].value <= 5
    assert wrong["R@10"].value <= 21
    assert 34 <= wrong["median rank"].value <= 63
    assert min(shown["right"][1]) < min(shown["wrong"][1])


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__precision": "bfloat16"},
        {"data": {"heading": "unknown"}, "augment__turn": 0.5},
        {"augment__turn": 1, "augment__free_turn": True},
        {"data": {"heading": "unknown", "fov": 180}, "encoder__name": "convnext_atto"},
        {"encoder__query_size": (48, 48), "encoder__reference_size": (64, 64)},
        {"encoder__name": "test_vit", "encoder__gradient_checkpointing": True},
        {"sampling__geographic": False, "sampling__mine_every": 0},
        {"encoder__channels_last": False, "optim__accumulate": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_option_trains(small_world, tmp_path, changes):
    run = tmp_path / "run"
    settings = tiny_settings("panorama", "bev", optim__epochs=1, sampling__batch_size=8, **changes)
    train(settings, small_world.root, run)
    lines = Run(run).read_metrics()
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert all(math.isfinite(loss) and 0 < loss < 15 for loss in losses)
    assert [line["R@10"] for line in lines if "R@10" in line] == [100, 100]  # six in the gallery
    for name in ("panorama", "bev"):
        _, encoder, kind = load_branch(run / f"{name}.safetensors")
        assert kind == name
        assert encoder == settings.branches()[name].encoder


def test_each_of_several_right_references_is_trained_on(small_world, tmp_path, monkeypatch):
    world = small_world
    place = {name: k for k, name in enumerate(world.ids)}
    rows = [f"{q},{q},{s}" for q, s in zip(world.ids[16:], world.splits[16:], strict=True)]
    for first, second in zip(world.ids[0:16:2], world.ids[1:16:2], strict=True):
        rows += [f"{first},{first},train", f"{first},{second},train"]
    (world.root / "pairs.csv").write_text("query,reference,split\n" + "\n".join(rows))
    seen: list[list[tuple[int, int]]] = []
    read = PairReader.read

    def watched(self: PairReader, batches: list[np.ndarray]) -> Iterator[Batch]:
        for batch in read(self, batches):
            pairs = self.pairs
            chosen = zip(pairs.queries[batch.pairs], pairs.references[batch.pairs], strict=True)
            seen.append([(int(q), int(r)) for q, r in chosen])
            yield batch

    monkeypatch.setattr(PairReader, "read", watched)
    train(tiny_settings(optim__epochs=1, sampling__batch_size=8), world.root, tmp_path / "run")
    used = {pair for batch in seen for pair in batch}
    expected = {(place[q], place[r]) for q, r, _ in (row.split(",") for row in rows[12:])}
    assert used == expected
    assert len(used) == 16
    for batch in seen:
        assert len({query for query, _ in batch}) == len(batch) == 8


def test_what_a_run_reports(small_world, tmp_path):
    run = tmp_path / "run"
    settings = tiny_settings(optim__epochs=4, sampling__batch_size=8, optim__warmup_epochs=1)
    heard = Acting()
    train(settings, small_world.root, run, watcher=heard)
    lines = Run(run).read_metrics()
    steps = [line for line in lines if "loss" in line]
    assert [line["epoch"] for line in steps] == [k / 2 for k in range(8)]
    assert [line["loss"] for line in steps] == heard.losses
    rates = [line["learning_rate"] for line in steps]
    cosine = [0.5 * (1 + math.cos(math.pi * (k / 2 - 1) / 3)) for k in range(2, 8)]
    np.testing.assert_allclose(rates, [0, 0.5e-3, *(1e-3 * c for c in cosine)])
    evaluated = [line for line in lines if "R@1" in line]
    assert [line["epoch"] for line in evaluated] == [2, 4]
    assert [{k: line[k] for k in ("R@1", "R@5", "R@10")} for line in evaluated] == heard.figures
    assert {line["branch"] for line in lines} == {"bev"}
    assert sorted(path.name for path in run.iterdir()) == [
        "bev.safetensors",
        "bev.state",
        "metrics.jsonl",
        "settings.json",
    ]


def test_gradients_of_a_step_are_the_mean_of_its_batches(world, tmp_path):
    sums = []
    for count in (1, 2):
        settings = tiny_settings("bev", sampling__batch_size=12, optim__accumulate=count)
        found = first_gradients(settings, world.root, tmp_path, Processes(), 2)
        assert found["losses"][0] != found["losses"][1]
        sums.append(found["gradients"])
    for name, gradient in sums[0].items():
        torch.testing.assert_close(sums[1][name] * 2, gradient)


# Several processes


def layer_norm_model(name: str) -> Settings:
    return tiny_settings(
        encoder__name=name,
        encoder__gradient_checkpointing=name == "test_vit",
        augment__flip=0,
        optim__accumulate=2,
        sampling__batch_size=12,
    )


@pytest.fixture(scope="module")
def several(world, tmp_path_factory) -> Path:
    """What two processes did: see `work`."""
    folder = tmp_path_factory.mktemp("several")
    models = [layer_norm_model(name) for name in LAYER_NORM]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        whole = tiny_settings(**EVERYTHING)
        spawn(work, (2, models, whole, world.root, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("model", range(len(LAYER_NORM)), ids=LAYER_NORM)
def test_gradients_of_two_processes_equal_those_of_one(world, several, tmp_path, model):
    settings = layer_norm_model(LAYER_NORM[model])
    one = first_gradients(settings, world.root, tmp_path, Processes(), 2)
    assert "logit_scale" in one["gradients"]
    assert len(one["gradients"]) > 20
    assert one["losses"][0] != one["losses"][1]
    for rank in (0, 1):
        share = torch.load(several / f"{rank}.pt", weights_only=True)[model]
        np.testing.assert_allclose(share["losses"], one["losses"], rtol=1e-6)
        assert share["gradients"].keys() == one["gradients"].keys()
        for name, expected in one["gradients"].items():
            largest = expected.abs().max().item()
            assert largest > 0, name
            torch.testing.assert_close(
                share["gradients"][name], expected, atol=1e-4 * largest, rtol=1e-4, msg=name
            )


def test_two_processes_stop_together_and_resume_bit_for_bit(several):
    assert (several / "0.interrupted").exists()
    assert (several / "1.interrupted").exists()  # only the first was asked to
    same_end(several / "cut", several / "whole")


def write_settings(settings: Settings, path: Path) -> Path:
    path.write_text(json.dumps(settings.model_dump(mode="json")), "utf-8")
    return path


def torchrun(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1"),
            *(f"--nproc-per-node={count}", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"),
            *("--local-addr=127.0.0.1", "-m", "tests.helpers.train_script"),
            *map(str, arguments),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_torchrun_trains_with_two_processes(world, tmp_path):
    # BatchNorm: its statistics differ between processes, and mining must not.
    path = write_settings(tiny_settings(**EVERYTHING), tmp_path / "settings.json")
    run = tmp_path / "run"
    result = torchrun(2, path, world.root, run)
    assert result.returncode == 0, result.stderr
    lines = Run(run).read_metrics()
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 16
    assert np.isfinite(losses).all()
    assert [line["epoch"] for line in lines if "R@1" in line] == [2, 4]
    assert result.stdout.count("step ") == 16  # only the first process speaks
    state = read_state(run / "bev.state")
    assert state["processes"] == 2
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    load_branch(run / "bev.safetensors")
    # One process cannot go on where two were.
    with pytest.raises(CheckpointError, match="2 processes"):
        train(tiny_settings(**EVERYTHING), world.root, run, resume=True)


# Interrupted and resumed


def same_end(run: Path, other: Path) -> None:
    """Check that two runs ended alike, bit for bit."""
    states = [read_state(folder / "bev.state") for folder in (run, other)]
    assert states[0]["epoch"] == states[1]["epoch"]
    assert states[0]["best"] == states[1]["best"]
    assert states[0]["model"].keys() == states[1]["model"].keys()
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    adam = [state["optimizer"]["state"] for state in states]
    assert adam[0].keys() == adam[1].keys()
    for key, values in adam[0].items():
        for name, value in values.items():
            assert torch.equal(value, adam[1][key][name]), (key, name)
    weights = [(folder / "bev.safetensors").read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]
    lines = [
        [
            {k: v for k, v in line.items() if k not in ("time", "images_per_second")}
            for line in Run(folder).read_metrics()
        ]
        for folder in (run, other)
    ]
    assert lines[0] == lines[1]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Path:
    """A run that nothing interrupted: four epochs of four batches, updates after 3 and 4."""
    run = tmp_path_factory.mktemp("whole")
    train(tiny_settings(**EVERYTHING), world.root, run)
    return run


def test_the_same_seed_gives_the_same_run(world, whole, tmp_path):
    train(tiny_settings(**EVERYTHING), world.root, tmp_path)
    same_end(tmp_path, whole)


def test_another_seed_gives_another_run(world, whole, tmp_path):
    train(tiny_settings(**EVERYTHING, seed=1), world.root, tmp_path)
    with pytest.raises(AssertionError):
        same_end(tmp_path, whole)


@pytest.mark.parametrize(
    ("step", "number", "epoch", "kept"),
    [
        (1, signal.SIGINT, 0, 3),  # within an accumulation: its end is awaited
        (3, signal.SIGINT, 0, 3),
        (4, signal.SIGINT, 0, 4),
        (6, signal.SIGTERM, 1, 3),  # what a cluster sends
        (12, signal.SIGINT, 2, 4),  # the next epoch needs the neighbours that this one mined
        (16, signal.SIGINT, 3, 4),
    ],
)
def test_interrupted_runs_resume_bit_for_bit(world, whole, tmp_path, step, number, epoch, kept):
    def strike(steps: int) -> None:
        if steps == step:
            os.kill(os.getpid(), number)

    settings = tiny_settings(**EVERYTHING)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(settings, world.root, tmp_path, watcher=Acting(strike))
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    state = read_state(tmp_path / "bev.state")
    assert (state["epoch"], state["step"]) == (epoch, kept)
    train(settings, world.root, tmp_path, resume=True)
    same_end(tmp_path, whole)


@pytest.mark.parametrize(
    ("call", "epoch", "step"),
    [
        (1, 1, 4),  # evaluating after two epochs: not done yet
        (3, 2, 0),  # mining for the third
    ],
)
def test_interrupted_between_epochs(world, whole, tmp_path, monkeypatch, call, epoch, step):
    embed = training.embed_rows
    calls = []

    def struck(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return embed(*args, **options)

    monkeypatch.setattr(training, "embed_rows", struck)
    settings = tiny_settings(**EVERYTHING)
    with pytest.raises(KeyboardInterrupt):
        train(settings, world.root, tmp_path)
    state = read_state(tmp_path / "bev.state")
    assert (state["epoch"], state["step"]) == (epoch, step)
    assert len(calls) == call
    train(settings, world.root, tmp_path, resume=True)
    same_end(tmp_path, whole)


def test_a_second_interrupt_saves_nothing(world, tmp_path):
    def strike(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny_settings(**EVERYTHING), world.root, tmp_path, watcher=Acting(strike))
    state = read_state(tmp_path / "bev.state")  # of the beginning
    assert (state["epoch"], state["step"]) == (0, 0)


def test_long_epochs_are_saved_within(world, whole, tmp_path, monkeypatch):
    class PowerCutError(Exception):
        pass

    def crash(steps: int) -> None:
        if steps == 8:  # after three and before the update of the fourth
            raise PowerCutError

    settings = tiny_settings(**EVERYTHING)
    monkeypatch.setattr(training, "SAVE_SECONDS", -1.0)
    with pytest.raises(PowerCutError):
        train(settings, world.root, tmp_path, watcher=Acting(crash))
    monkeypatch.undo()
    state = read_state(tmp_path / "bev.state")
    assert (state["epoch"], state["step"]) == (1, 3)
    train(settings, world.root, tmp_path, resume=True)
    same_end(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_struck_process_can_be_continued(world, whole, tmp_path, number):
    settings = write_settings(tiny_settings(**EVERYTHING), tmp_path / "settings.json")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tests.helpers.train_script", settings, world.root, run]
    with subprocess.Popen(
        [*command, "0.2"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        steps = 0
        for line in process.stdout:
            steps += line.startswith("step ")
            if steps == 6:  # in the second epoch
                process.send_signal(number)
                break
        rest = process.stdout.read()
        code = process.wait(60)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert rest.count("step ") <= 4
    state = read_state(run / "bev.state")
    if number == signal.SIGINT:
        assert (state["epoch"], state["step"]) in ((1, 3), (1, 4))
    else:
        assert (state["epoch"], state["step"]) == (1, 0)  # the end of the first
    train(tiny_settings(**EVERYTHING), world.root, run, resume=True)
    same_end(run, whole)


def test_nothing_but_the_same_run_is_resumed(world, whole, tmp_path):
    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    with pytest.raises(CheckpointError, match="holds a run: add --resume"):
        train(tiny_settings(**EVERYTHING), world.root, copy("again"))
    for k, (changes, said) in enumerate(
        (
            ({"optim__epochs": 5}, r"bev.optim.epochs: \d+ before"),
            ({"seed": 1}, "seed: 0 before"),
            ({"evaluate_every": 1}, r"evaluate_every: \d+ before"),
            ({"data": {"heading": "unknown"}}, "data.heading: known before"),
        )
    ):
        with pytest.raises(CheckpointError, match=rf"with other settings \({said}\): resume with"):
            train(tiny_settings(**EVERYTHING | changes), world.root, copy(f"{k}"), resume=True)
    other = make_world(tmp_path / "other", train=63)
    with pytest.raises(CheckpointError, match="with other data: resume with"):
        train(tiny_settings(**EVERYTHING), other.root, copy("other data"), resume=True)
    # The same data in another place are the same data.
    moved = Path(shutil.copytree(world.root, tmp_path / "moved"))
    train(tiny_settings(**EVERYTHING), moved, copy("moved run"), resume=True)


def test_damaged_states_are_named(world, tmp_path):
    settings = tiny_settings()
    state = tmp_path / "bev.state"
    state.write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="delete it and train without --resume"):
        train(settings, world.root, tmp_path, resume=True)
    torch.save({"model": {}}, state)
    with pytest.raises(CheckpointError, match="not a state"):
        train(settings, world.root, tmp_path, resume=True)
    write_state(tmp_path / "some.state", {"epoch": 3})
    assert read_state(tmp_path / "some.state")["epoch"] == 3
    assert not list(tmp_path.glob("*.part"))


# Refusals


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"sampling__batch_size": 9, "processes": 2}, SettingsError, "not a multiple of the 2"),
        ({"encoder__query_size": (16, 16)}, SettingsError, "cannot take bev images of 16x16"),
        (
            {"encoder__query_size": (32, 64), "augment__turn": 0.5},
            SettingsError,
            "cannot be turned by 90 degrees",
        ),
        ({"encoder__name": "no_such"}, SettingsError, "timm has no model"),
        ({"data": {"train_split": "all"}}, DataError, "no pairs of split 'all'"),
        ({"data": {"pairs": "none.csv"}}, DataError, "cannot be read"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(world, tmp_path, changes, error, said):
    processes = Processes(0, changes.get("processes", 1))
    settings = tiny_settings(**{k: v for k, v in changes.items() if k != "processes"})
    with pytest.raises(error, match=said):
        train(settings, world.root, tmp_path, processes=processes)


def test_a_branch_that_the_settings_lack(world, tmp_path):
    with pytest.raises(SettingsError, match="no branch 'panorama'; there are bev"):
        train(tiny_settings("bev"), world.root, tmp_path, branches=["panorama"])


def test_a_branch_keeps_the_settings_that_it_was_trained_by(world, tmp_path):
    """Also where the other branch is added by settings that do not repeat its own."""
    first = tiny_settings("bev", optim__epochs=1, optim__weight_decay=0.02)
    train(first, world.root, tmp_path)
    second = tiny_settings("panorama", "bev", optim__epochs=2)
    train(second, world.root, tmp_path, branches=["panorama"], resume=True)
    found = Run(tmp_path).read_settings()
    assert (found.bev, found.panorama) == (first.bev, second.panorama)


def test_devices(monkeypatch):
    assert join_processes("cpu") == Processes()
    with pytest.raises(SettingsError, match="must be auto, cpu or cuda"):
        join_processes("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="no GPU"):
            join_processes("cuda")


def test_one_reference_for_all_makes_no_batch(small_world, tmp_path):
    small_world.write_pairs([small_world.ids[0]] * len(small_world.ids))
    with pytest.raises(DataError, match="16 pairs make no batch"):
        train(tiny_settings(), small_world.root, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(small_world, tmp_path):
    settings = tiny_settings(
        optim__learning_rate=1e30, optim__warmup_epochs=0, sampling__batch_size=8
    )
    with pytest.raises(DataError, match="loss of branch bev became nan in epoch"):
        train(settings, small_world.root, tmp_path)


def test_doubtful_data_are_said_aloud(small_world, tmp_path, caplog):
    images = ShardSet(small_world.root / "bev.h5").read(range(len(small_world.ids)))
    write_shards(small_world.root / "bev.h5", "bev", small_world.ids, images)  # no positions
    settings = tiny_settings(optim__epochs=1, sampling__batch_size=8, data={"pairs": False})
    train(settings, small_world.root, tmp_path)
    assert "positions are not known" in caplog.text
    assert "28 validation queries are trained on" in caplog.text


# Parts


def test_learning_rate_rises_and_falls_as_written():
    settings = OptimSettings(epochs=10, warmup_epochs=2, learning_rate=4.0)
    found = [learning_rate(moment, settings) for moment in (0, 1, 2, 6, 10)]
    np.testing.assert_allclose(found, [0, 2, 4, 2, 0], atol=1e-12)
    without = OptimSettings(epochs=1, warmup_epochs=0, learning_rate=4.0)
    assert learning_rate(0, without) == 4
    only = OptimSettings(epochs=1, warmup_epochs=1, learning_rate=4.0)
    assert learning_rate(0.75, only) == 3


def test_all_parameters_decay_where_asked():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.LayerNorm(2)})
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(())))
    settings = OptimSettings(weight_decay=0.5, decay_all=True, learning_rate=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert len(before) == 5
    for name, parameter in model.named_parameters():  # by the rate times the decay
        torch.testing.assert_close(parameter.detach(), before[name] * 0.95)


def test_only_matrices_decay():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.LayerNorm(2)})
    decayed, others = make_optimizer(model, OptimSettings(weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3
    assert [p.shape for p in decayed["params"]] == [(2, 3)]
    assert others["weight_decay"] == 0
    assert len(others["params"]) == 3


@pytest.fixture
def tracker(tmp_path) -> Iterator[Tracker]:
    tracker = Tracker(Run(tmp_path))
    yield tracker
    tracker.close()


def test_figures_can_be_read_while_the_run_goes_on(tmp_path, tracker):
    assert Run(tmp_path).read_metrics() == []
    tracker.log("bev", 0.123456, loss=2.5)
    (line,) = Run(tmp_path).read_metrics()
    assert (line["branch"], line["epoch"], line["loss"]) == ("bev", 0.1235, 2.5)


def test_a_line_that_was_cut_loses_only_itself(tmp_path, tracker):
    tracker.log("bev", 0, loss=3.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"branch": "bev", "epo')
    resumed = Tracker(Run(tmp_path))
    resumed.log("bev", 1, loss=2.0)
    resumed.close()
    assert [line["loss"] for line in Run(tmp_path).read_metrics()] == [3.0, 2.0]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_what_was_done_again_replaces_what_was_lost(tmp_path, tracker):
    for moment, loss in ((0, 9.0), (0.5, 8.0), (1.0, 7.0), (1.5, 6.0)):
        tracker.log("bev", moment, loss=loss)
    tracker.log("bev", 1, **{"R@1": 1.0})
    tracker.log("panorama", 0, loss=1.0)
    tracker.log("bev", 0.5, loss=8.5)  # resumed after a crash
    tracker.log("bev", 1, **{"R@1": 2.0})
    tracker.log("bev", 1, loss=7.5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"branch": "bev", "epo')
    found = [
        (x["branch"], x["epoch"], x.get("loss"), x.get("R@1")) for x in Run(tmp_path).read_metrics()
    ]
    assert found == [
        ("bev", 0, 9.0, None),
        ("bev", 0.5, 8.5, None),
        ("bev", 1, None, 2.0),
        ("bev", 1, 7.5, None),
        ("panorama", 0, 1.0, None),
    ]
