"""Published weights come in and embed as timm does; what goes out embeds as what stays."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from georetrieval.cli import main
from georetrieval.config import EncoderSettings, load_settings
from georetrieval.errors import CheckpointError, GeoretrievalError, SettingsError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import load_branch, save_branch
from georetrieval.models.encoder import Encoder
from georetrieval.models.exchange import export_onnx, export_safetensors, import_branch
from georetrieval.models.weights import read_weights
from tests.helpers.world import tiny_settings

MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
ATTO = EncoderSettings(name="convnext_atto.d2_in1k")


class Published(nn.Module):
    """What the published projects train and save: a trunk and a scale."""

    def __init__(self, name: str = "convnext_atto", **options: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.model = timm.create_model(name, num_classes=0, **options)
        self.logit_scale = nn.Parameter(torch.ones([]) * np.log(1 / 0.03))

    @torch.no_grad()
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        return nn.functional.normalize(self.model.eval()((images - mean) / std), dim=-1)


class Wrapped(nn.Module):
    """What nn.DataParallel makes of names, where there is no GPU."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.fixture(scope="module")
def published() -> Published:
    return Published()


def forms(published: Published) -> dict[str, object]:
    state = published.state_dict()
    inner = {f"model.module.{k}": v for k, v in published.model.state_dict().items()}
    return {
        "as saved": state,
        "parallel": Wrapped(published).state_dict(),
        "parallel inside": {"logit_scale": state["logit_scale"], **inner},
        "twice": Wrapped(Wrapped(published)).state_dict(),
        "compiled": {f"_orig_mod.{k}": v for k, v in state.items()},
        "in a dictionary": {"epoch": 3, "state_dict": {"model": state}},
        "double": {k: v.double() for k, v in state.items()},
        "with a classifier": {
            **state,
            "model.head.fc.weight": torch.zeros(5, 320),
            "model.head.fc.bias": torch.zeros(5),
        },
    }


def georetrieval(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


IMAGES = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
@pytest.mark.parametrize("form", list(forms(Published())))
def test_published_weights_embed_exactly_as_timm_does(published, tmp_path, form):
    path = tmp_path / "weights_e40_91.2.pth"
    torch.save(forms(published)[form], path)
    import_branch(path, tmp_path / "run" / "panorama.safetensors", "panorama", ATTO)
    branch, settings, kind = load_branch(tmp_path / "run" / "panorama.safetensors")
    assert kind == "panorama"
    assert settings.name == ATTO.name
    assert torch.equal(branch.encoder(IMAGES), published.embed(IMAGES))
    assert branch.logit_scale.exp().item() == pytest.approx(1 / 0.03, rel=1e-6)


@torch.no_grad()
def test_the_published_encoder_is_the_default(tmp_path, capsys):
    """The real names and shapes of ConvNeXt-B, 88 million parameters."""
    model = Published("convnext_base")
    path = tmp_path / "weights.pth"
    torch.save(Wrapped(model).state_dict(), path)
    out = tmp_path / "run"
    words = ["import-weights", str(path), "--kind", "bev", "--out", str(out)]
    assert georetrieval(*words, "--query-size", "384x384", "--reference-size", "384x384") == 0
    assert "87,566,464 parameters, scale 33.3" in capsys.readouterr().out
    branch, settings, _ = load_branch(out / "bev.safetensors")
    assert settings.name == "convnext_base.fb_in22k_ft_in1k_384"
    assert settings.query_size == settings.reference_size == (384, 384)
    assert torch.equal(branch.encoder(IMAGES[:1]), model.embed(IMAGES[:1]))


def test_other_models_are_told_apart(published, tmp_path):
    path, out = tmp_path / "w.pth", tmp_path / "bev.safetensors"
    torch.save(published.state_dict(), path)
    with pytest.raises(CheckpointError) as caught:
        import_branch(path, out, "bev", EncoderSettings(name="convnext_femto"))
    message = str(caught.value)
    assert "w.pth" in message
    assert "stem.0.weight is 40x3x4x4, not 48x3x4x4; stem.0.bias is 40, not 48" in message
    assert "--encoder" in message
    assert "more" in message
    torch.save({f"{k}": v for k, v in published.state_dict().items() if "gamma" not in k}, path)
    with pytest.raises(CheckpointError, match=r"stages\.0\.blocks\.0\.gamma is missing"):
        import_branch(path, out, "bev", ATTO)
    torch.save({**published.state_dict(), "model.neck.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"neck\.weight is unknown to the model\."):
        import_branch(path, out, "bev", ATTO)
    assert not out.exists()


class Trap:
    """Writes a file if unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_run(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"logit_scale": torch.zeros(()), "model.x": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth holds no weights that can be read"):
        import_branch(path, tmp_path / "b.safetensors", "bev", ATTO)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "no tensors with names, but a list"),
        ({"logit_scale": torch.zeros(()), "model.x": 3}, "'model.x' is no tensor but a int"),
        ({"module.x": torch.zeros(1), "model.x": torch.zeros(1)}, "more than one model: x"),
        ({"model.x": torch.zeros(1)}, "has no logit_scale"),
        ({}, "no tensors with names"),
    ],
)
def test_files_that_are_no_published_weights(tmp_path, content, said):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=said):
        import_branch(path, tmp_path / "bev.safetensors", "bev", ATTO)


def test_a_file_that_is_missing_or_cut(published, tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        read_weights(path)
    torch.save(published.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        read_weights(path)


# A run of imported weights


def test_imported_branches_are_evaluated_and_trained_from(world, tmp_path, capsys, published):
    run, weights = tmp_path / "run", {}
    for kind in ("panorama", "bev"):
        weights[kind] = tmp_path / f"{kind}.pth"
        torch.save(published.state_dict(), weights[kind])
        words = ["import-weights", weights[kind], "--kind", kind, "--out", run]
        assert georetrieval(*words, "--encoder", "convnext_atto") == 0
    assert georetrieval("evaluate", "--run", run, "--data", world.root, "--json") == 0
    found = json.loads((run / "evaluation-test.json").read_text("utf-8"))
    assert [m["name"] for m in found["methods"]][:3] == ["panorama", "bev", "both"]
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    assert "panorama.pth (sha256" in settings["about"]
    assert "bev.pth (sha256" in settings["about"]
    assert settings["bev"]["encoder"]["name"] == "convnext_atto"
    # Neither import nor training writes over them.
    assert georetrieval(*words, "--encoder", "convnext_atto") == 1
    assert "exists already" in capsys.readouterr().err
    assert georetrieval("report", "--run", run, "--data", world.root) == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("panorama = false\n")
    assert georetrieval("train", "--data", world.root, "--recipe", recipe, "--run", run) == 1
    assert "has no state to continue from" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.parametrize("form", ["ours", "published", "exported"])
def test_training_starts_from_any_of_these_files(published, tmp_path, form):
    source = tmp_path / "published.pth"
    torch.save(published.state_dict(), source)
    ours = tmp_path / "bev.safetensors"
    import_branch(source, ours, "bev", ATTO)
    exported = tmp_path / "plain.safetensors"
    assert export_safetensors(ours, exported) == len(published.model.state_dict())
    path = {"ours": ours, "published": source, "exported": exported}[form]
    branch = Branch(EncoderSettings(name=ATTO.name, pretrained=str(path)))
    assert torch.equal(branch.eval().encoder(IMAGES), published.embed(IMAGES))
    # The scale belongs to a branch, not to an encoder.
    scale = 1 / 0.07 if form == "exported" else 1 / 0.03
    assert branch.logit_scale.exp().item() == pytest.approx(scale, rel=1e-6)


def test_an_open_clip_tower_starts_from_a_checkpoint(tmp_path):
    values = {"name": "open_clip:ViT-S-32", "query_size": (64, 64), "reference_size": (64, 64)}
    first = Branch(EncoderSettings.model_validate({**values, "pretrained": False}))
    with torch.no_grad():
        first.logit_scale.fill_(1.5)
    path = tmp_path / "bev.safetensors"
    save_branch(path, first, EncoderSettings.model_validate(values), "bev")
    second = Branch(EncoderSettings.model_validate({**values, "pretrained": str(path)}))
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_the_settings_of_another_encoder_do_not_fit(published, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(published.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"stem\.0\.weight is 40x3x4x4, not 48x3x4x4"):
        Encoder(EncoderSettings(name="convnext_femto", pretrained=str(path)))


# Out


def make_checkpoint(folder: Path, name: str, size: tuple[int, int] | None = None) -> Path:
    torch.manual_seed(1)
    settings = EncoderSettings(name=name, pretrained=False, query_size=size, reference_size=size)
    path = folder / "bev.safetensors"
    folder.mkdir(exist_ok=True)
    save_branch(path, Branch(settings), settings, "bev")
    return path


@torch.no_grad()
def test_exported_tensors_are_a_plain_model_of_timm(tmp_path):
    checkpoint = make_checkpoint(tmp_path, "convnext_atto")
    out = tmp_path / "plain.safetensors"
    export_safetensors(checkpoint, out)
    model = timm.create_model("convnext_atto", num_classes=0)
    model.load_state_dict(load_file(out))
    with safe_open(out, "pt") as file:
        about = json.loads(file.metadata()["georetrieval-encoder"])
    assert about["model"] == "convnext_atto"
    assert (about["mean"], about["std"]) == (MEAN, STD)
    mean, std = (torch.tensor(about[key])[:, None, None] for key in ("mean", "std"))
    found = nn.functional.normalize(model.eval()((IMAGES - mean) / std))
    torch.testing.assert_close(found, load_branch(checkpoint)[0].encoder(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize(("name", "size"), [("test_convnext2", (64, 96)), ("test_vit", (32, 64))])
def test_onnx_runtime_embeds_raw_images_alike(tmp_path, name, size):
    import onnx
    import onnxruntime

    checkpoint = make_checkpoint(tmp_path, name)
    out = tmp_path / "bev.onnx"
    assert export_onnx(checkpoint, out, size) < 1e-5
    onnx.checker.check_model(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    encoder = load_branch(checkpoint)[0].encoder
    for count in (1, 5):
        images = torch.rand(count, 3, *size)
        (found,) = session.run(["embeddings"], {"images": images.numpy()})
        assert np.abs(found - encoder(images).numpy()).max() < 1e-5
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["model"]) == name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bev.onnx", "bev.safetensors"]


def test_a_graph_that_embeds_otherwise_is_not_written(tmp_path, monkeypatch):
    """A model whose weights hold NaN agrees with nothing."""
    checkpoint = make_checkpoint(tmp_path, "test_convnext2")
    branch, settings, _ = load_branch(checkpoint)
    with torch.no_grad():
        next(branch.parameters()).fill_(float("nan"))
        branch.encoder.trunk.get_parameter("stem.0.weight").fill_(float("nan"))
    save_branch(checkpoint, branch, settings, "bev")
    with pytest.raises(GeoretrievalError, match=r"differ from torch's by up to inf"):
        export_onnx(checkpoint, tmp_path / "bev.onnx", (64, 64))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bev.safetensors"]


def test_export_by_command(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "run", "test_convnext2", (64, 64))
    run = checkpoint.parent
    assert georetrieval("export", run, "--branch", "bev", "--to", tmp_path / "e.onnx") == 0
    said = capsys.readouterr().out
    assert "images (batch, 3, 64, 64), RGB in 0 to 1" in said
    assert "largest difference" in said
    assert georetrieval("export", run, "--branch", "bev", "--to", tmp_path / "e.safetensors") == 0
    assert "tensors" in capsys.readouterr().out
    for words, code, text in (
        (["--branch", "panorama", "--to", "x.onnx"], 1, "no weights of the branch panorama"),
        (["--branch", "bev", "--to", "x.pt"], 2, "must end in"),
        (["--branch", "bev", "--to", checkpoint], 2, "is the checkpoint itself"),
        (["--branch", "bev", "--to", "x.onnx", "--input-size", "64"], 2, "such as 384x768"),
        (["--branch", "bev", "--to", "x.safetensors", "--input-size", "6x6"], 2, "for .onnx"),
    ):
        assert georetrieval("export", run, *words) == code
        assert text in capsys.readouterr().err
    make_checkpoint(run, "test_convnext2")
    assert georetrieval("export", run, "--branch", "bev", "--to", tmp_path / "n.onnx") == 2
    assert "--input-size, such as 384x384" in capsys.readouterr().err


def test_sizes_that_the_model_cannot_take(tmp_path):
    checkpoint = make_checkpoint(tmp_path, "test_vit")
    with pytest.raises(SettingsError, match="images of 50x64 pixels"):
        export_onnx(checkpoint, tmp_path / "bev.onnx", (50, 64))


def test_without_the_packages_the_extra_is_named(tmp_path, monkeypatch):
    checkpoint = make_checkpoint(tmp_path, "test_convnext2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SettingsError, match=r"needs onnxscript: pip install 'bevgen\[export\]'"):
        export_onnx(checkpoint, tmp_path / "bev.onnx", (64, 64))


def test_a_recipe_may_start_from_a_checkpoint(small_world, tmp_path):
    """One step at a learning rate of almost nothing leaves the weights that were given."""
    from georetrieval.training.loop import train

    checkpoint = make_checkpoint(tmp_path, "test_convnext2")
    recipe = tmp_path / "r.toml"
    recipe.write_text("panorama = false\n")
    override = f"bev.encoder.pretrained={checkpoint}"
    chosen = load_settings(recipe, [override]).bev
    assert chosen is not None
    settings = tiny_settings(
        encoder__pretrained=chosen.encoder.pretrained,
        optim__learning_rate=1e-12,
        optim__epochs=1,
        sampling__batch_size=8,
    )
    train(settings, small_world.root, tmp_path / "run")
    before, after = (load_file(p) for p in (checkpoint, tmp_path / "run" / "bev.safetensors"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
