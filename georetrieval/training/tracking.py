"""What a run reports while it works: a JSONL file always, TensorBoard or W&B on request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from georetrieval.errors import SettingsError


class Tracker:
    """Appends figures to ``metrics.jsonl``, a line each, readable while the run goes on.

    Parameters
    ----------
    run
        Folder of the run.
    tensorboard, wandb
        Send the figures there too.

    Raises
    ------
    SettingsError
        If a package asked for is not installed.
    """

    def __init__(self, run: Path, *, tensorboard: bool = False, wandb: bool = False) -> None:
        self._file = (run / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._writer = self._wandb = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise SettingsError("--tensorboard needs: pip install tensorboard") from None
            self._writer = SummaryWriter(str(run / "tensorboard"))
        if wandb:
            try:
                import wandb as client  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise SettingsError("--wandb needs: pip install wandb") from None
            self._wandb = client.init(project="georetrieval", name=run.name, dir=str(run))

    def log(self, branch: str, epoch: float, **figures: Any) -> None:
        """Write some figures of a branch at a moment, in epochs since its start."""
        line = {
            "time": round(time.time(), 3),
            "branch": branch,
            "epoch": round(epoch, 4),
            **figures,
        }
        self._file.write(json.dumps(line) + "\n")
        numbers = {f"{branch}/{k}": v for k, v in figures.items() if isinstance(v, int | float)}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, global_step=round(epoch * 1000))
        if self._wandb is not None:
            self._wandb.log({**numbers, f"{branch}/epoch": epoch})

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read a run's figures, in order of branch and epoch.

    A line cut by a crash is left out, and so is what a resumed run did again.
    """
    path = run / "metrics.jsonl"
    kept: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines = kept.setdefault(line["branch"], [])
        while lines and (
            lines[-1]["epoch"] > line["epoch"]
            or (lines[-1]["epoch"] == line["epoch"] and lines[-1].keys() == line.keys())
        ):
            lines.pop()
        lines.append(line)
    return [line for lines in kept.values() for line in lines]
