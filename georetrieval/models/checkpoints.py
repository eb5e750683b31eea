"""Files of a branch's weights: safetensors, with the settings to build it inside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bevgen import written_whole
from georetrieval.config import BRANCHES, BranchName, EncoderSettings, explain
from georetrieval.errors import CheckpointError
from georetrieval.models.branch import Branch
from georetrieval.models.weights import no_weights

FORMAT = "georetrieval-branch"


def save_branch(path: Path, branch: Branch, settings: EncoderSettings, kind: BranchName) -> None:
    """Write a branch's weights with what is needed to build it again.

    Parameters
    ----------
    path
        A ``.safetensors`` file.
    kind
        What its queries are.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    tensors = {name: value.contiguous() for name, value in branch.state_dict().items()}
    # One entry: safetensors writes several in any order, and equal runs should make equal files.
    about = {"kind": kind, "encoder": settings.model_dump(mode="json")}
    metadata = {FORMAT: json.dumps(about, sort_keys=True)}
    with written_whole(path) as part:
        save_tensors(tensors, part, metadata)


def load_branch(path: Path) -> tuple[Branch, EncoderSettings, BranchName]:
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
    if reason := no_weights(path):
        raise CheckpointError(f"{path} cannot be read: {reason}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read: it is damaged, or no file of safetensors"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if FORMAT not in metadata:
        raise CheckpointError(f"{path} is not a checkpoint of georetrieval train")
    try:
        about = json.loads(metadata[FORMAT])
        kind, settings = about["kind"], EncoderSettings.model_validate(about["encoder"])
        if kind not in BRANCHES:
            raise ValueError(f"there is no branch {kind!r}")
        branch = Branch(settings, load=False)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: its model cannot be built: {explain(error, EncoderSettings)}"
        ) from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its model cannot be built: {error}") from error
    try:
        branch.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {settings.name}: {error}") from error
    return branch.eval(), settings, kind


def load_hashed(path: Path) -> tuple[Branch, EncoderSettings, str, BranchName]:
    """Load a branch with the hash of its file, of which a training may put a better one in place.

    Raises
    ------
    CheckpointError
        As `load_branch`.
    """
    while True:
        before, name = _stamp(path), checkpoint_hash(path)
        branch, settings, kind = load_branch(path)
        if _stamp(path) == before:
            return branch, settings, name, kind


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return numbers that change when a file is replaced or rewritten."""
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def checkpoint_hash(path: Path) -> str:
    """Return 16 hex digits that name a file's content, for embeddings made with it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; what goes wrong is an `OSError`, as everywhere else."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def digest(*values: Any) -> str:
    """Return a digest of JSON values, to tell whether a run may continue under them."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
