"""What training a branch changes, and the file that it continues from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from bevgen import written_whole
from georetrieval.errors import CheckpointError
from georetrieval.models.branch import Branch
from georetrieval.models.weights import no_weights
from georetrieval.training.checks import check_sizes
from georetrieval.training.optim import make_optimizer
from georetrieval.training.setup import Setup

FORMAT = "georetrieval-state"


@dataclass(slots=True, eq=False)
class State:
    """Where a branch's training stands.

    Attributes
    ----------
    branch
        Encoder and scale, on the device.
    model
        The same, as training calls it: shared among processes, compiled.
    optimizer, scaler
        With what they have summed up.
    epoch, step
        Epochs done, and batches done of the one under way.
    batches : list of (n,) int64
        The epoch's pairs, over all processes; empty between epochs.
    neighbours : (P, K) int32, optional
        Of each pair, nearest first; from them batches are made.
    best
        The best mean reciprocal rank on the validation split; -1 before the first.
    saved
        When this was last saved, by the clock of `time.monotonic`.
    """

    branch: Branch
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    step: int = 0
    batches: list[NDArray[np.int64]] = field(default_factory=list)
    neighbours: NDArray[np.int32] | None = None
    best: float = -1.0
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, setup: Setup, *, load: bool = True) -> Self:
        """Build the branch, with pretrained weights if the settings ask for them.

        Parameters
        ----------
        setup
            Of the branch.
        load
            Whether to look for pretrained weights; not needed where a saved state follows.

        Raises
        ------
        SettingsError, CheckpointError
            If there is no such model, its weights are not to be had, or it cannot take the images.
        """
        processes, encoder = setup.processes, setup.branch.encoder
        torch.manual_seed(setup.settings.seed)
        # The others receive the first process's weights.
        branch = Branch(encoder, load=load and processes.first)
        check_sizes(
            branch.encoder, setup.name, setup.settings, setup.dataset.image_sizes(setup.name)
        )
        branch = branch.to(processes.device)
        if encoder.channels_last:
            branch = branch.to(memory_format=torch.channels_last)
        model: nn.Module = branch
        if processes.count > 1:
            ids = [processes.device] if processes.device.type == "cuda" else None
            model = nn.parallel.DistributedDataParallel(branch, device_ids=ids)
        if encoder.compile:
            model = torch.compile(model)  # pyright: ignore[reportAssignmentType]
        scaler = torch.amp.GradScaler(
            processes.device.type, enabled=setup.precision == torch.float16
        )
        return cls(branch, model, make_optimizer(branch, setup.branch.optim), scaler)

    def end_epoch(self) -> None:
        """Count an epoch as done."""
        self.epoch, self.step, self.batches = self.epoch + 1, 0, []

    def save(self, setup: Setup) -> None:
        """Write the branch's state file, in the first process alone.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        self.saved = time.monotonic()
        if not setup.processes.first:
            return
        near, members = self.neighbours, np.concatenate([np.empty(0, np.int64), *self.batches])
        write_state(
            setup.run.state(setup.name),
            {
                "settings": setup.digest(),
                "processes": setup.processes.count,
                "model": self.branch.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "best": self.best,
                "members": torch.from_numpy(members),
                "sizes": torch.tensor([len(batch) for batch in self.batches], dtype=torch.int64),
                "neighbours": None if near is None else torch.from_numpy(near),
            },
        )

    def restore(self, setup: Setup) -> None:
        """Take over the branch's state file; a branch that had not begun stays as it is.

        Raises
        ------
        CheckpointError
            If the file is damaged, or of other settings, other data or other processes.
        """
        path, processes = setup.run.state(setup.name), setup.processes
        found = [read_state(path) if processes.first and path.exists() else None]
        if processes.count > 1:
            dist.broadcast_object_list(found, device=processes.device)
        values = found[0]
        if values is None:
            return
        if values["settings"] != setup.digest():
            raise CheckpointError(
                f"{path} was made with other {setup.changes()}: resume with the same, or name a"
                " new --run"
            )
        if values["processes"] != processes.count:
            raise CheckpointError(
                f"{path} was made by {values['processes']} processes: resume with as many"
            )
        weights = setup.run.checkpoint(setup.name)
        if processes.first and values["best"] >= 0 and not weights.exists():
            raise CheckpointError(
                f"{weights}, the best weights so far, is missing: put it back, or delete {path} to"
                " train the branch anew"
            )
        self.branch.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.scaler.load_state_dict(values["scaler"])
        self.epoch, self.step, self.best = values["epoch"], values["step"], values["best"]
        sizes, members = values["sizes"].tolist(), values["members"].numpy()
        self.batches = np.split(members, np.cumsum(sizes)[:-1]) if sizes else []
        near = values["neighbours"]
        self.neighbours = None if near is None else near.numpy()


def write_state(path: Path, values: dict[str, Any]) -> None:
    """Write tensors, numbers and text under names.

    Raises
    ------
    WriteError
        If they cannot be written.
    """
    with written_whole(path) as part:
        try:
            torch.save({"format": FORMAT, **values}, part)
        except RuntimeError as error:  # torch's name for a disk that is full
            raise OSError(str(error).partition("\n")[0]) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote; nothing in it is executed.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    reason, values = no_weights(path), None
    try:
        if not reason:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception:  # whatever unpickling and torch's own formats raise, in words of their own
        reason = "it is damaged"
    if reason:
        raise CheckpointError(
            f"{path} cannot be read ({reason}): delete it and train without --resume"
        )
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a state of georetrieval train")
    return values
