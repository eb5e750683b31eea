"""A run's folder: the same whether Python or the command line made it."""

import json
import subprocess
import sys

import pytest

import georetrieval as face
from georetrieval import cli
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError
from georetrieval.retrieval.evaluation import evaluate
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run
from georetrieval.training.loop import train
from tests.helpers.world import tiny_settings


def georetrieval(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_trained_from_python_evaluated_on_the_command_line(small_world, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    settings = tiny_settings("panorama", "bev", optim__epochs=1, sampling__batch_size=8)
    monkeypatch.chdir(small_world.root.parent)
    train(settings, small_world.root.relative_to(small_world.root.parent), run)
    monkeypatch.chdir(tmp_path)  # the data are found from anywhere
    assert georetrieval("evaluate", "--run", run, "--split", "test") == 0
    assert georetrieval("report", "--run", run) == 0
    assert {path.name for path in run.folder.iterdir() if path.is_file()} == {
        *("panorama.safetensors", "panorama.state", "bev.safetensors", "bev.state"),
        *("settings.json", "metrics.jsonl", "evaluation-test.json", "report.html"),
    }
    assert run.read_settings().data.root == small_world.root
    found = Evaluation.load(run.evaluation("test"))
    again = evaluate(run, Dataset(settings.data, small_world.root), "test")
    assert [m.ranks for m in again.methods] == [m.ranks for m in found.methods]
    # And it is resumed there: nothing is left to do.
    recipe = tmp_path / "recipe.json"
    values = settings.model_dump(mode="json", exclude_none=True)
    recipe.write_text("".join(toml(values)), "utf-8")
    words = ("train", "--data", small_world.root, "--recipe", recipe, "--run", run, "--resume")
    assert georetrieval(*words) == 0


def toml(values: dict, prefix: str = "") -> list[str]:
    """Write nested values as TOML."""
    plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
    lines = [f"[{prefix}]\n"] if prefix else []
    lines += [f"{k} = {json.dumps(v)}\n" for k, v in plain.items()]
    for key, inner in values.items():
        if isinstance(inner, dict):
            lines += toml(inner, f"{prefix}.{key}" if prefix else key)
    return lines


def test_trained_on_the_command_line_evaluated_from_python(small_world, tmp_path):
    run = Run(tmp_path / "run")
    settings = tiny_settings("bev", optim__epochs=1, sampling__batch_size=8)
    recipe = small_world.root / "georetrieval.toml"
    values = settings.model_dump(mode="json", exclude_none=True) | {"panorama": False}
    recipe.write_text("".join(toml(values)), "utf-8")
    assert georetrieval("train", "--data", small_world.root, "--run", run) == 0
    assert list(run.states()) == list(run.checkpoints()) == ["bev"]
    found = evaluate(run, Dataset(run.read_settings().data), "test", name="mine")
    assert list(run.evaluations()) == ["mine"]
    assert Evaluation.load(run.evaluation("mine")) == found
    train(settings, small_world.root, run, resume=True)
    with pytest.raises(CheckpointError, match="holds a run: add --resume"):
        train(settings, small_world.root, run)
    steps = [line["epoch"] for line in run.read_metrics() if "loss" in line]
    assert steps == [0, 0.5]


def test_the_split_called_test_is_the_headline(tmp_path):
    run = Run(tmp_path)
    for name in ("cross", "test-unknown", "test", "a"):
        run.evaluation(name).write_text("{}")
    assert list(run.evaluations()) == ["test", "a", "cross", "test-unknown"]


def test_no_run_and_a_damaged_one_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run: train first"):
        Run(tmp_path).read_settings()
    for text in (b"", b"{", b'{"seed": "x"}', b"\xff"):
        (tmp_path / "settings.json").write_bytes(text)
        with pytest.raises(CheckpointError, match=r"settings\.json is damaged"):
            Run(tmp_path).read_settings()


def test_the_public_face_in_four_calls(small_world, tmp_path, monkeypatch):
    recipe = small_world.root / "georetrieval.toml"
    settings = tiny_settings("bev", optim__epochs=1, sampling__batch_size=8, seed=5)
    values = settings.model_dump(mode="json", exclude_none=True) | {"panorama": False}
    recipe.write_text("".join(toml(values)), "utf-8")
    monkeypatch.chdir(tmp_path)
    read = face.load_settings(str(recipe), ["bev.optim.weight_decay=0.5"])
    assert read.bev is not None
    assert read.bev.optim.weight_decay == 0.5
    face.train(read, str(small_world.root), "run")
    found = face.evaluate("run")
    assert (found.split, len(found.queries)) == ("test", 6)
    page = face.write_report("run")
    assert page == Run.at("run").report_path
    assert "6 queries" in page.read_text("utf-8")


def test_the_public_face_is_light_and_whole():
    script = (
        "import sys, georetrieval; heavy = {'torch', 'numba', 'h5py', 'pydantic', 'timm'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "[getattr(georetrieval, name) for name in georetrieval.__all__]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        face.no_such  # noqa: B018
