import json
from pathlib import Path

import pytest

from georetrieval.config import Settings, load_settings, recipes, settings_json
from georetrieval.errors import SettingsError


def load(tmp_path: Path, text: str, *overrides: str) -> Settings:
    path = tmp_path / "run.toml"
    path.write_text(text, "utf-8")
    return load_settings(path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


def test_defaults_are_the_papers(tmp_path):
    settings = load(tmp_path, "")
    for branch in settings.branches().values():
        assert branch.encoder.name == "convnext_base.fb_in22k_ft_in1k_384"
        assert branch.sampling.batch_size == 128
        assert (branch.sampling.take, branch.sampling.pool) == (64, 128)
        assert (branch.optim.learning_rate, branch.optim.weight_decay) == (1e-3, 0.01)
        assert (branch.augment.flip, branch.augment.turn) == (0.5, 0.75)
        assert branch.optim.label_smoothing == 0.1


def test_file_values_arrive(tmp_path):
    settings = load(
        tmp_path, "seed = 4\n[bev.encoder]\nquery_size = [128, 96]\n[bev.optim]\nepochs = 7\n"
    )
    assert settings.seed == 4
    assert settings.bev is not None
    assert settings.bev.encoder.query_size == (128, 96)
    assert settings.bev.optim.epochs == 7
    assert settings.panorama is not None
    assert settings.panorama.optim.epochs == 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sead = 1", "sead; did you mean seed?"),
        ("[bev.optim]\nlearning_rat = 1", "bev.optim.learning_rat; did you mean learning_rate?"),
        ("[data]\npanoramas = 'x'", "data.panoramas; did you mean panorama?"),
        ("[panorama.samplings]\ntake = 1", "panorama.samplings; did you mean sampling?"),
        ("[bev.augment]\nzzz = 1", "bev.augment.zzz; there are flip, turn,"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(tmp_path, text, said):
    assert f"unknown setting {said}" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[bev.augment]\nflip = 1.5", "bev.augment.flip"),
        ("[bev.optim]\nepochs = 'many'", "bev.optim.epochs"),
        ("[bev.encoder]\nquery_size = [0, 4]", "bev.encoder.query_size.0"),
        ("[bev.sampling]\nbatch_size = 1", "bev.sampling.batch_size"),
        ("[data]\nheading = 'north'", "data.heading"),
    ],
)
def test_wrong_values_are_named(tmp_path, text, where):
    assert f"{where}: " in refusal(tmp_path, text)


def test_a_wrong_value_of_an_override_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(SettingsError, match=r"^--set: seed: "):
        load(tmp_path, "", "seed=-1")
    with pytest.raises(SettingsError, match=r"^--set: bev.encoder.query_size.0: "):
        load(tmp_path, "", "bev.encoder.query_size=[0, 4]")
    with pytest.raises(SettingsError, match=r"^.*\.toml: seed: "):
        load(tmp_path, "seed = -1", "bev.optim.epochs=3")


def test_two_faults_are_both_named(tmp_path):
    message = refusal(tmp_path, "sead = 1\n[bev.optim]\nepochs = 0")
    assert "sead" in message
    assert "bev.optim.epochs" in message


def test_broken_toml_says_file_and_line(tmp_path):
    message = refusal(tmp_path, "seed = 1\nabout = \nseed = 2")
    assert "run.toml" in message
    assert "line 2" in message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml does not exist"):
        load_settings(tmp_path / "none.toml")


def test_overrides_have_the_types_of_toml(tmp_path):
    settings = load(
        tmp_path,
        "[bev.optim]\nepochs = 3",
        "bev.optim.epochs=10",
        "bev.optim.learning_rate=2e-4",
        "bev.encoder.query_size=[64, 128]",
        "bev.encoder.pretrained=false",
        "bev.encoder.name=open_clip:RN50",
        'about="two words = one text"',
        "panorama=false",
    )
    assert settings.bev is not None
    assert settings.bev.optim.epochs == 10
    assert settings.bev.optim.learning_rate == 2e-4
    assert settings.bev.encoder.query_size == (64, 128)
    assert settings.bev.encoder.pretrained is False
    assert settings.bev.encoder.name == "open_clip:RN50"
    assert settings.about == "two words = one text"
    assert list(settings.branches()) == ["bev"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("seed.x=3", "seed is a value, not a section"),
        ("bev.optim.epoch=3", "did you mean epochs?"),
    ],
)
def test_wrong_overrides_are_explained(tmp_path, override, said):
    assert said in refusal(tmp_path, "seed = 1", override)


def test_false_switches_off_what_toml_cannot_leave_empty(tmp_path):
    settings = load(tmp_path, "bev = false\n[data]\npairs = false")
    assert list(settings.branches()) == ["panorama"]
    assert settings.data.pairs is None
    assert "nothing to train" in refusal(tmp_path, "bev = false\npanorama = false")


def test_stored_settings_can_be_read_again(tmp_path):
    settings = load(tmp_path, "bev = false\n[data]\nheading = 'unknown'\npairs = false")
    assert Settings.model_validate(json.loads(settings_json(settings))) == settings


def test_every_recipe_of_the_package_is_valid():
    for path in recipes().values():
        assert load_settings(path).about
