"""Commands as a user types them: embed, evaluate by protocol, training that TensorBoard shows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from bevgen import ShardSet
from georetrieval.cli import main
from georetrieval.config import EncoderSettings, settings_json
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import checkpoint_hash, load_branch, save_branch
from georetrieval.retrieval.embedding import Embeddings
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run
from georetrieval.training.state import State
from tests.helpers.paths import ROOT
from tests.helpers.runs import all_help
from tests.helpers.world import World, tiny_settings, write_shards

VIT = EncoderSettings(
    name="test_vit", pretrained=False, query_size=(32, 128), reference_size=(48, 48)
)


def georetrieval(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained run of both branches."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("panorama", "bev"):
        torch.manual_seed(0)
        save_branch(folder / f"{name}.safetensors", Branch(VIT), VIT, name)
    text = settings_json(tiny_settings("panorama", "bev"))
    (folder / "settings.json").write_text(text, "utf-8")
    return folder


def embedded(run: Path, images: np.ndarray, size: tuple[int, int], cut: slice) -> torch.Tensor:
    branch, *_ = load_branch(run / "panorama.safetensors")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        return branch.encoder(pixels[..., cut])


def test_help_does_not_depend_on_docstrings():
    """`python -OO` removes them."""
    text = all_help("georetrieval")
    assert "Find where a street panorama was taken" in text
    assert all_help("georetrieval", "-OO") == text


@pytest.mark.parametrize("words", [["locate", ".", "--index", "x"], ["train"], ["recipes"]])
def test_what_is_not_installed_is_named(tmp_path, words):
    for name in ("torch", "pydantic"):
        missing = f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        (tmp_path / f"{name}.py").write_text(missing)
    done = subprocess.run(
        [sys.executable, "-m", "georetrieval", *words],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: georetrieval needs ")
    assert done.stderr.endswith('pip install "bevgen[georetrieval]"\n')


# Embed


@pytest.mark.parametrize(
    ("kind", "words", "size", "cut"),
    [
        ("panorama", [], (32, 128), slice(None)),
        ("panorama", ["--fov", "90"], (32, 128), slice(48, 80)),
        ("satellite", [], (48, 48), slice(None)),
    ],
)
def test_embed_writes_what_the_branch_makes_of_each_kind(
    world, run, tmp_path, capsys, kind, words, size, cut
):
    shards, out = world.root / f"{kind}.h5", tmp_path / "e.npz"
    checkpoint = run / "panorama.safetensors"
    words = ["embed", shards, "--checkpoint", checkpoint, "--out", out, *words]
    assert georetrieval(*words) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{out}: 96 embeddings of 64 numbers\n", "")
    found = Embeddings.load(out)
    images = ShardSet(shards)
    assert found.ids == list(images.ids)
    assert found.checkpoint == checkpoint_hash(checkpoint)
    np.testing.assert_array_equal(found.positions, world.positions)
    expected = embedded(run, np.asarray(images.read(range(96))), size, cut)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-5)
    assert found.matrix.dtype == np.float32


def test_embed_of_images_without_positions(run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3)).astype(np.uint8)
    shards = write_shards(tmp_path / "map.h5", "map", ["a", "b", "c"], images)
    out = tmp_path / "e.npz"
    checkpoint = run / "bev.safetensors"
    assert georetrieval("embed", shards, "--checkpoint", checkpoint, "-o", out) == 0
    assert np.isnan(Embeddings.load(out).positions).all()


def test_embed_refuses_in_words(world, run, tmp_path, capsys):
    out, checkpoint = tmp_path / "e.npz", run / "panorama.safetensors"
    satellite, panorama = (world.root / f"{kind}.h5" for kind in ("satellite", "panorama"))
    for words, code, said in (
        ([satellite, "--checkpoint", checkpoint, "--fov", "90"], 2, "--fov is for queries"),
        ([panorama, "--checkpoint", checkpoint, "--fov", "50"], 2, "images of 32x18 pixels"),
        ([satellite, "--checkpoint", tmp_path / "none.safetensors"], 1, "cannot be read"),
        ([tmp_path / "none.h5", "--checkpoint", checkpoint], 1, "none.h5"),
        ([panorama, "--checkpoint", checkpoint, "--fov", "400"], 2, "range"),
    ):
        assert georetrieval("embed", *words, "--out", out) == code
        assert said in capsys.readouterr().err
        assert not out.exists()
    before = checkpoint.read_bytes()
    assert georetrieval("embed", panorama, "--checkpoint", checkpoint, "--out", checkpoint) == 1
    assert "is read: name another output" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


# Evaluate


def test_each_protocol_has_a_name_a_file_and_a_title(world, run, capsys):
    evaluate = ["evaluate", "--run", run, "--data", world.root]
    for words, name, title in (
        ([], "test", "16 references, heading known"),
        (["--heading", "unknown"], "test-unknown", "heading unknown"),
        (["--fov", "180"], "test-fov180", "field of view 180°"),
        (
            ["--heading", "unknown", "--fov", "90", "--gallery", "matched"],
            "test-unknown-fov90-matched",
            "heading unknown, field of view 90°, no distractors",
        ),
        (["--fov", "90", "--name", "mine"], "mine", "field of view 90°"),
    ):
        assert georetrieval(*evaluate, *words) == 0
        assert title in " ".join(capsys.readouterr().out.split())
        assert (run / f"evaluation-{name}.json").exists()
    found = json.loads((run / "evaluation-test-unknown-fov90-matched.json").read_text("utf-8"))
    assert (found["heading"], found["fov"], found["matched"]) == ("unknown", 90, True)
    assert georetrieval(*evaluate, "--fov", "90", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["protocol"] for row in rows] == ["heading known, field of view 90°"] * 4
    assert "AP" in rows[0]
    assert georetrieval("report", "--run", run, "--data", world.root) == 0
    page = (run / "report.html").read_text("utf-8")
    assert "heading unknown, field of view 90°, no distractors" in page
    assert "Queries showed 90 degrees" in page


def test_no_result_replaces_another(world, run, tmp_path, capsys):
    other = world.root / "other.h5"
    if not other.exists():
        other.symlink_to(world.root / "satellite.h5")
    moved = tmp_path / "elsewhere"
    moved.symlink_to(world.root)
    away = tmp_path / "second"
    away.mkdir()
    for path in world.root.iterdir():
        (away / path.name).symlink_to(path)
    settings = tiny_settings("panorama", "bev")
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"root": world.root})}
    )
    Run(run).write_settings(settings)
    evaluate = ["evaluate", "--run", run]
    for words in ([], ["--reference", "other.h5"], ["--data", away], ["--data", moved]):
        assert georetrieval(*evaluate, *words) == 0
    names = ["test", "test-data-second", "test-references-other"]
    assert list(Run(run).evaluations()) == names
    plain = Evaluation.load(run / "evaluation-test.json")
    assert Path(plain.data).resolve() == world.root.resolve()
    searched = Evaluation.load(run / "evaluation-test-references-other.json").reference
    assert searched == "other.h5"

    # A name that was asked for holds one search.
    capsys.readouterr()
    assert georetrieval(*evaluate, "--name", "test", "--reference", "other.h5") == 1
    said = capsys.readouterr().err
    assert "evaluation-test.json is the result of another search (references satellite.h5)" in said
    assert georetrieval(*evaluate, "--name", "test", "--fov", "180") == 1
    assert Evaluation.load(run / "evaluation-test.json").fov == 360

    # Figures of weights that the run no longer holds are kept.
    torch.manual_seed(1)
    save_branch(run / "bev.safetensors", Branch(VIT), VIT, "bev")
    assert georetrieval(*evaluate) == 0
    kept = [path for name, path in Run(run).evaluations().items() if "weights" in name]
    assert [Evaluation.load(path).checkpoints for path in kept] == [plain.checkpoints]
    assert Evaluation.load(run / "evaluation-test.json").checkpoints != plain.checkpoints
    assert georetrieval(*evaluate) == 0
    assert len(Run(run).evaluations()) == 4  # the same once more replaces itself alone


@pytest.mark.parametrize("split", ["a/../b", "été", "100%", "x" * 300, "a b: c?", ".."])
def test_any_split_has_a_file(small_world, run, split):
    world: World = small_world
    rows = [f'"{name}","{name}","{split}"' for name in world.ids[:24]]
    (world.root / "pairs.csv").write_text("query,reference,split\n" + "\n".join(rows), "utf-8")
    assert georetrieval("evaluate", "--run", run, "--data", world.root, "--split", split) == 0
    ((name, path),) = Run(run).evaluations().items()
    assert path.parent == run
    assert Evaluation.load(path).split == split
    assert name == split or (len(split) == 300 and name.startswith("x" * 150))
    assert georetrieval("report", "--run", run, "--data", world.root) == 0


def test_a_view_too_narrow_for_the_model_is_refused_in_words(world, run, capsys):
    assert georetrieval("evaluate", "--run", run, "--data", world.root, "--fov", "70") == 2
    assert "cannot take panorama images of 32x25 pixels" in capsys.readouterr().err


def test_several_right_references_are_all_marked_in_the_report(small_world, run):
    world: World = small_world
    tested = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"]
    rows = [f"{q},{r},test" for q in tested for r in tested[:3]]
    (world.root / "pairs.csv").write_text("query,reference,split\n" + "\n".join(rows))
    assert georetrieval("evaluate", "--run", run, "--data", world.root) == 0
    assert georetrieval("report", "--run", run, "--data", world.root) == 0
    found = json.loads((run / "evaluation-test.json").read_text("utf-8"))
    assert found["others"] == [tested[1:3]] * len(tested)
    page = (run / "report.html").read_text("utf-8")
    right, best = set(tested[:3]), found["methods"][-1]["top"]
    # Random queries and failures are shown, each with its five best.
    cards = page.split('<article class="card')[1:]
    assert cards
    for card in cards:
        shown = next(i for i, name in enumerate(found["queries"]) if f"<code>{name}<" in card)
        assert card.count('<li class="right') >= len(right & set(best[shown]))


# Training


def test_what_is_interrupted_before_its_first_save_starts_again(
    small_world, tmp_path, monkeypatch, capfd
):
    recipe, run = tmp_path / "r.toml", tmp_path / "run"
    recipe.write_text(
        "panorama = false\n[bev.encoder]\nname = 'test_convnext2'\npretrained = false\n"
        "[bev.sampling]\nbatch_size = 8\n[bev.optim]\nepochs = 1\nprecision = 'float32'\n"
    )
    words = ["train", "--data", small_world.root, "--recipe", recipe, "--run", run]
    with monkeypatch.context() as patch:
        patch.setattr(State, "begin", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert georetrieval(*words) == 130
    said = capfd.readouterr().err
    assert "before there was anything to save" in said
    assert "--resume" not in said
    assert georetrieval(*words) == 0


def test_tensorboard_gets_every_figure(small_world, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "panorama = false\nevaluate_every = 1\n[bev.encoder]\nname = 'test_convnext2'\n"
        "pretrained = false\n[bev.sampling]\nbatch_size = 8\n"
        "[bev.optim]\nepochs = 2\nprecision = 'float32'\n"
    )
    run = tmp_path / "run"
    words = ["train", "--data", small_world.root, "--recipe", recipe, "--run", run]
    assert georetrieval(*words, "--tensorboard") == 0
    shown = EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    lines = Run(run).read_metrics()
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [event.value for event in shown.Scalars("bev/loss")] == pytest.approx(losses)
    # A thousandth of an epoch is a step of TensorBoard's.
    assert [event.step for event in shown.Scalars("bev/loss")] == [0, 500, 1000, 1500]
    assert [event.step for event in shown.Scalars("bev/R@1")] == [1000, 2000]
    kept = {"loss", "learning_rate", "scale", "images_per_second", "R@1", "R@5", "R@10", "mrr"}
    assert set(shown.Tags()["scalars"]) == {f"bev/{name}" for name in kept}
