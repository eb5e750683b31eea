"""Who hears how training goes: a watcher, a JSONL file, TensorBoard or W&B on request."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from bevgen import WriteError
from georetrieval.config import BranchSettings
from georetrieval.errors import SettingsError
from georetrieval.run import Run


class Watcher:
    """Hears how training goes, and does nothing."""

    def branch(self, name: str, settings: BranchSettings, pairs: int) -> None:
        """Hear that a branch begins."""

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        """Hear of each step."""

    def evaluated(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear of each evaluation."""


class Tracker:
    """Appends figures to the run, a line each, readable while the run goes on.

    Parameters
    ----------
    run
        It is there.
    tensorboard, wandb
        Send the figures there too.

    Raises
    ------
    SettingsError
        If a package asked for is not installed.
    """

    def __init__(self, run: Run, *, tensorboard: bool = False, wandb: bool = False) -> None:
        self._path = run.metrics_path
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        if self._file.tell() and not self._path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a line that a full disk or a power cut tore loses only itself
        self._writer = self._wandb = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise SettingsError("--tensorboard needs: pip install tensorboard") from None
            self._writer = SummaryWriter(str(run.tensorboard_path))
        if wandb:
            try:
                import wandb as client  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise SettingsError("--wandb needs: pip install wandb") from None
            self._wandb = client.init(project="georetrieval", name=run.folder.name, dir=str(run))

    def log(self, branch: str, epoch: float, **figures: Any) -> None:
        """Write some figures of a branch at a moment, in epochs since its start."""
        line = {
            "time": round(time.time(), 3),
            "branch": branch,
            "epoch": round(epoch, 4),
            **figures,
        }
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise WriteError(f"{self._path} could not be written: {error.strerror}") from error
        numbers = {f"{branch}/{k}": v for k, v in figures.items() if isinstance(v, int | float)}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, global_step=round(epoch * 1000))
        if self._wandb is not None:
            self._wandb.log({**numbers, f"{branch}/epoch": epoch})

    def step(
        self, branch: str, epoch: float, loss: float, rate: float, scale: float, speed: float
    ) -> None:
        """Write the figures of a step: learning rate, similarity's scale, images a second."""
        self.log(
            branch,
            epoch,
            loss=loss,
            learning_rate=rate,
            scale=scale,
            images_per_second=round(speed, 1),
        )

    def close(self) -> None:
        """Flush and close."""
        with suppress(OSError):  # a disk that is full has been reported
            self._file.close()
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()
