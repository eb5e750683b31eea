"""A dry run against what training then does: steps, rates, and the bytes that really live."""

import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from georetrieval.cli import main
from georetrieval.config import OptimSettings, Settings, load_settings, recipes
from georetrieval.errors import SettingsError
from georetrieval.models.branch import Branch
from georetrieval.run import Run
from georetrieval.training.forecast import Forecast, estimate_memory, forecast, sparkline
from georetrieval.training.loop import train
from georetrieval.training.loss import InfoNCE
from tests.helpers.world import tiny_settings


def allocated_peak(branch: Branch, sizes: dict[str, tuple[int, int]], count: int) -> int:
    """Return the most bytes that torch's allocator really gave out in a step, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        images = [torch.rand(count, 3, *sizes[view]) for view in ("query", "reference")]
        InfoNCE(label_smoothing=0.1)(*branch(*images)).backward()
    assert watched.profiler is not None
    results = watched.profiler.kineto_results
    assert results is not None
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    now = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [("convnext_atto", False), ("convnext_atto", True), ("test_resnet", False)],
)
def test_the_estimate_is_near_what_the_allocator_gives(name, checkpointing):
    encoder = tiny_settings(encoder__name=name, encoder__gradient_checkpointing=checkpointing)
    assert encoder.bev is not None
    sizes = {"query": (64, 128), "reference": (96, 96)}
    branch = Branch(encoder.bev.encoder).train()
    count = 12  # more than what the estimate is made from
    real = allocated_peak(branch, sizes, count)
    found = estimate_memory(branch, sizes, count, torch.float32)
    assert found.weights == found.gradients == 4 * sum(p.numel() for p in branch.parameters())
    assert found.optimizer == 2 * found.weights
    assert found.gradients + found.step == pytest.approx(real, rel=0.15)


def estimated(settings: Settings) -> Forecast:
    (one,) = forecast(settings)
    return one


def sized(*branches: str, **changes: object) -> Settings:
    sizes = {"encoder__query_size": (64, 128), "encoder__reference_size": (64, 64)}
    return tiny_settings(*branches, **{**sizes, **changes})


def test_checkpointing_and_narrow_views_need_less():
    plain = estimated(sized("panorama", encoder__name="convnext_atto"))
    frugal = estimated(
        sized("panorama", encoder__name="convnext_atto", encoder__gradient_checkpointing=True)
    )
    narrow = estimated(sized("panorama", encoder__name="convnext_atto", data={"fov": 90}))
    assert frugal.memory.pair < 0.5 * plain.memory.pair
    assert narrow.sizes == {"query": (64, 32), "reference": (64, 64)}
    assert narrow.memory.pair == pytest.approx((32 + 64) / (128 + 64) * plain.memory.pair, rel=0.2)


def test_half_the_precision_keeps_about_half_of_a_step():
    full = estimated(sized(encoder__name="convnext_atto", encoder__query_size=(64, 64)))
    half = estimated(
        sized(
            encoder__name="convnext_atto",
            encoder__query_size=(64, 64),
            optim__precision="bfloat16",
        )
    )
    assert 0.4 * full.memory.pair < half.memory.pair < 0.75 * full.memory.pair
    assert half.memory.weights == full.memory.weights


def test_steps_and_rates_are_those_of_training(small_world, tmp_path):
    # Pairs of one reference never share a batch, so two references make batches of two.
    world = small_world
    references = [world.ids[k % 2] for k in range(16)] + world.ids[16:]
    world.write_pairs(references)
    settings = tiny_settings(
        sampling__batch_size=4, optim__epochs=2, optim__warmup_epochs=1, sampling__geographic=False
    )
    (found,) = forecast(settings, world.root)
    train(settings, world.root, tmp_path / "run")
    lines = [line for line in Run(tmp_path / "run").read_metrics() if "loss" in line]
    first = [line for line in lines if line["epoch"] < 1]
    assert found.pairs == 16
    assert found.steps == len(first) == 8
    assert found.sizes == {"query": (32, 32), "reference": (32, 32)}
    by_epoch = {line["epoch"]: line["learning_rate"] for line in lines}
    assert found.rates[:2] == [by_epoch[0], by_epoch[1]]
    assert found.rates[2] == 0


def test_without_data_the_recipe_or_the_user_says_how_many_pairs():
    assert estimated(sized(encoder__query_size=(64, 64))).steps is None
    published = sized(encoder__query_size=(64, 64), data={"train_pairs": 35532})
    assert estimated(published).steps == math.ceil(35532 / 16)
    (told,) = forecast(published, pairs=100)
    assert (told.pairs, told.steps) == (100, 7)


def test_what_cannot_be_trained_is_refused_before_there_is_data():
    with pytest.raises(SettingsError, match=r"set bev\.encoder\.query_size"):
        forecast(tiny_settings())
    with pytest.raises(SettingsError, match="cannot be turned"):
        forecast(sized(augment__turn=0.5))
    one = {"encoder__reference_size": (32, 64)}
    with pytest.raises(SettingsError, match=r"reference images of 32x64.*turn_reference to 0"):
        forecast(sized("panorama", **one, augment__turn_reference=0.5))
    with pytest.raises(SettingsError, match=r"set augment\.turn and augment\.turn_reference to 0"):
        forecast(sized("panorama", **one, augment__turn=0.5, augment__turn_reference=0.5))
    assert forecast(sized("panorama", **one))
    oblong = {"encoder__query_size": (32, 64), "encoder__reference_size": (32, 32)}
    assert forecast(sized(**oblong, augment__turn_reference=0.5))
    with pytest.raises(SettingsError, match="cannot take panorama images of 64x10 pixels"):
        forecast(sized("panorama", data={"fov": 28}))


def test_the_curve_rises_once_and_falls():
    line = sparkline(OptimSettings(epochs=10, warmup_epochs=2), 20)
    assert len(line) == 20
    top = line.index("█")
    assert list(line[:top]) == sorted(line[:top])
    assert list(line[top:]) == sorted(line[top:], reverse=True)
    assert line[-1] == "▁"


def georetrieval(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def test_dry_runs_by_command_write_nothing(small_world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "panorama = false\n[bev.encoder]\nname = 'test_convnext2'\npretrained = false\n"
        "[bev.sampling]\nbatch_size = 8\n[bev.optim]\nepochs = 3\n"
    )
    words = ["train", "--recipe", recipe, "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    assert georetrieval(*words, "--data", small_world.root) == 0
    said = capsys.readouterr().out
    assert "16 pairs make 2 batches of 8 an epoch, 6 in 3 epochs" in said
    assert "query 32x32, reference 32x32" in said
    assert "heading known, field of view 360 degrees" in said
    assert georetrieval(*words, "--data", tmp_path / "none") == 2
    assert "set bev.encoder.query_size" in capsys.readouterr().err
    sizes = [f"bev.encoder.{view}_size=[64, 64]" for view in ("query", "reference")]
    words += [word for size in sizes for word in ("--set", size)]
    assert georetrieval(*words, "--data", tmp_path / "none", "--pairs", 33) == 0
    assert "33 pairs make 5 batches of 8 an epoch, 15 in 3" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert georetrieval("train", "--recipe", recipe, "--branch", "panorama", "--dry-run") == 2
    assert "no branch 'panorama'; there are bev" in capsys.readouterr().err
    assert georetrieval("train", "--recipe", recipe, "--pairs", 33) == 2
    assert "goes with --dry-run" in capsys.readouterr().err


def test_recipes_are_listed_shown_and_forecast(capsys):
    assert georetrieval("recipes") == 0
    listed = capsys.readouterr().out
    for name, path in recipes().items():
        assert name in listed
        assert load_settings(path).about in listed
    assert georetrieval("recipes", "city") == 0
    assert capsys.readouterr().out == recipes()["city"].read_text("utf-8")
    assert georetrieval("recipes", "city", "--dry-run", "--pairs", 900) == 0
    said = capsys.readouterr().out
    assert "panorama: tf_efficientnet_lite0" in said
    assert said.count("900 pairs make 29 batches of 32 an epoch") == 2
    assert georetrieval("recipes", "city", "--pairs", 900) == 2
    assert georetrieval("recipes", "--dry-run") == 2
    assert georetrieval("recipes", "town") == 2
    assert "there are" in capsys.readouterr().err
