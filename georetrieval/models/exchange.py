"""Branches from the weights that others published, and encoders for other software."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from bevgen import written_whole
from georetrieval.config import BranchName, EncoderSettings
from georetrieval.errors import CheckpointError, GeoretrievalError, SettingsError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import load_branch, save_branch, save_tensors
from georetrieval.models.encoder import Encoder, check_size
from georetrieval.models.weights import SCALE, load_trunk, read_weights

PUBLISHED = "convnext_base.fb_in22k_ft_in1k_384"
"""The encoder of all weights that Sample4Geo and EP-BEV published for it."""
LARGEST_SCALE = 1000
"""Of similarities; CLIP's own limit is 100."""
TOLERANCE = 1e-5
"""Largest difference between numbers of unit vectors that is taken for rounding."""


def import_branch(source: Path, path: Path, kind: BranchName, settings: EncoderSettings) -> Branch:
    """Turn a state dict of Sample4Geo or EP-BEV into a checkpoint of ours.

    Parameters
    ----------
    source
        A ``.pth`` file: a timm trunk under ``model.`` and ``logit_scale``, with or without the
        prefixes of DataParallel. Nothing in it is executed.
    path
        The ``.safetensors`` file to write.
    kind
        What its queries are.
    settings
        The encoder, a model of timm; its colours are normalised as timm says of the model, which
        is ImageNet's way for those published.

    Returns
    -------
    Branch
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or its tensors are not those of the encoder by name and shape.
    """
    given = read_weights(source)
    if SCALE not in given:
        raise CheckpointError(
            f"{source} has no {SCALE}: these are weights of an encoder alone. Train from them by"
            f" encoder.pretrained = {str(source)!r}"
        )
    settings = settings.model_copy(update={"pretrained": False})
    branch = Branch(settings)
    try:
        load_trunk(branch.encoder.trunk, given, source)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. The model is {settings.name}: name the right one with --encoder"
        ) from None
    scale = given[SCALE].float()
    if scale.numel() != 1 or not 0 <= scale.item() <= math.log(LARGEST_SCALE):
        raise CheckpointError(
            f"{source}: {SCALE} is {scale.flatten().tolist()[:3]}, not the logarithm of a scale"
            f" from 1 to {LARGEST_SCALE}"
        )
    with torch.no_grad():
        branch.logit_scale.copy_(given[SCALE].reshape(()))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_branch(path, branch.eval(), settings, kind)
    return branch


def export_safetensors(checkpoint: Path, path: Path) -> int:
    """Write a branch's encoder as timm (or open_clip's image tower) names its tensors.

    The metadata says the model, how to normalise colours and that vectors are to be normalised.

    Returns
    -------
    int
        How many tensors.
    """
    branch, settings, kind = load_branch(checkpoint)
    encoder = branch.encoder
    tensors = {name: value.contiguous() for name, value in encoder.trunk.state_dict().items()}
    # One entry: safetensors writes several in any order, and equal runs should make equal files.
    about = {**_about(encoder, settings, kind), "logit_scale": branch.logit_scale.item()}
    with written_whole(path) as part:
        save_tensors(tensors, part, {"georetrieval-encoder": json.dumps(about, sort_keys=True)})
    return len(tensors)


def export_onnx(checkpoint: Path, path: Path, size: tuple[int, int]) -> float:
    """Write a branch's encoder as an ONNX graph, and let ONNX Runtime confirm it.

    The graph takes ``images`` (batch, 3, height, width) float32, RGB in 0 to 1: colours are
    normalised inside. It returns ``embeddings`` (batch, D) float32 of length 1. The batch is of
    any size, height and width are those given here.

    Parameters
    ----------
    checkpoint
        A branch's weights.
    path
        The ``.onnx`` file, weights included.
    size
        Height and width.

    Returns
    -------
    float
        The largest difference between ONNX Runtime's numbers and torch's.

    Raises
    ------
    SettingsError
        If a package is not installed, or the encoder does not take such images.
    GeoretrievalError
        If the graph cannot be made or does not embed alike; then no file is left.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"export to ONNX needs {error.name}: pip install 'bevgen[export]'"
        ) from None
    branch, settings, kind = load_branch(checkpoint)
    encoder = branch.encoder
    check_size(encoder, size, settings.name, "images")
    with written_whole(path) as part:
        _trace(encoder, part, size)
        model = onnx.load(part)
        about = {**_about(encoder, settings, kind), "input": "RGB, 0 to 1"}
        onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in about.items()})
        onnx.save(model, part)
        difference = compare_onnx(encoder, part, size)
        if not difference <= TOLERANCE:
            raise GeoretrievalError(
                f"{path} is not written: ONNX Runtime's embeddings differ from torch's by up to"
                f" {difference:.1e}, more than {TOLERANCE:g}"
            )
    return difference


@torch.no_grad()
def compare_onnx(encoder: Encoder, path: Path, size: tuple[int, int]) -> float:
    """Return the largest difference of ONNX Runtime's numbers from torch's, on batches of 1 to 3.

    Images are random, of low and of full contrast.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count, contrast in ((1, 1.0), (3, 1.0), (2, 0.1)):
        images = torch.rand(count, 3, *size, generator=generator) * contrast
        (found,) = session.run(["embeddings"], {"images": images.numpy()})
        difference = (torch.from_numpy(found) - encoder(images)).abs().max().item()
        # NaN is larger than anything here, while max() would pass over it.
        worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


def _trace(encoder: Encoder, path: Path, size: tuple[int, int]) -> None:
    batch = torch.export.Dim("batch")
    try:
        torch.onnx.export(
            encoder,
            (torch.zeros(2, 3, *size),),
            str(path),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: batch}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # whatever the exporter meets in a model it cannot express
        reason = str(error).strip().partition("\n")[0]
        raise GeoretrievalError(f"the model cannot be expressed in ONNX: {reason}") from error


def _about(encoder: Encoder, settings: EncoderSettings, kind: BranchName) -> dict[str, Any]:
    return {
        "model": settings.name,
        "branch": kind,
        "mean": [round(value, 6) for value in encoder.mean.flatten().tolist()],
        "std": [round(value, 6) for value in encoder.std.flatten().tolist()],
        "query_size": settings.query_size,
        "reference_size": settings.reference_size,
        "output": "L2-normalised",
    }
