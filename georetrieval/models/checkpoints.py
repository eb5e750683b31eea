"""Files of weights (safetensors with their settings inside) and the state to resume from.

Both are written beside their place and renamed, so that a killed run leaves a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from georetrieval.config import EncoderSettings
from georetrieval.errors import CheckpointError
from georetrieval.models.branch import Branch

FORMAT = "georetrieval-branch"
STATE = "georetrieval-state"


def save_branch(path: Path, branch: Branch, settings: EncoderSettings, kind: str) -> None:
    """Write a branch's weights with what is needed to build it again.

    Parameters
    ----------
    path
        A ``.safetensors`` file.
    kind
        The query view: ``panorama`` or ``bev``.
    """
    tensors = {name: value.contiguous() for name, value in branch.state_dict().items()}
    # One entry: safetensors writes several in any order, and equal runs should make equal files.
    about = {"kind": kind, "encoder": settings.model_dump(mode="json")}
    metadata = {FORMAT: json.dumps(about, sort_keys=True)}
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata)
    publish(part, path)


def load_branch(path: Path) -> tuple[Branch, EncoderSettings, str]:
    """Build the branch of a file of weights.

    Returns
    -------
    branch, settings, kind
        In evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or not one of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if FORMAT not in metadata:
        raise CheckpointError(f"{path} is not a checkpoint of georetrieval train")
    try:
        about = json.loads(metadata[FORMAT])
        kind, settings = about["kind"], EncoderSettings.model_validate(about["encoder"])
        branch = Branch(settings, load=False)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its model cannot be built: {error}") from error
    try:
        branch.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {settings.name}: {error}") from error
    return branch.eval(), settings, kind


def checkpoint_hash(path: Path) -> str:
    """Return 16 hex digits that name a file's content, for embeddings made with it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to continue: tensors, numbers and text only."""
    part = path.with_name(path.name + ".part")
    torch.save({"format": STATE, **state}, part)
    publish(part, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read a state; nothing in it is executed.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): delete it and train without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != STATE:
        raise CheckpointError(f"{path} is not a state of georetrieval train")
    return state


def publish(part: Path, path: Path) -> None:
    """Give a file its name once it is on the disk, so that a power cut leaves a whole one."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def digest(*values: Any) -> str:
    """Return a digest of JSON values, to tell whether a run may continue under them."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
