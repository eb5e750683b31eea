"""How training looks: a line for each evaluation; between them a bar, or lines in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bevgen.terminal import counted
from georetrieval.config import BranchSettings
from georetrieval.training.tracking import Watcher

LINE_SECONDS = 60.0  # between lines where there is no terminal


class TrainingView(Watcher):
    """Shows epochs, loss, images a second and the time left.

    Parameters
    ----------
    console
        Where to.
    shown
        False in all processes but the first.
    """

    def __init__(self, console: Console, *, shown: bool = True) -> None:
        self.console, self.shown = console, shown
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self.task = self.progress.add_task("", total=None, text="")
        self.name, self.loss, self.line = "", 0.0, time.monotonic()

    def __enter__(self) -> TrainingView:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def branch(self, name: str, settings: BranchSettings, pairs: int) -> None:
        """Start a bar."""
        self.name = name
        self.progress.reset(self.task, total=settings.optim.epochs, description=name, text="")
        self.line = time.monotonic()
        self.console.print(
            f"{name}: {counted(pairs, 'pair')}, {counted(settings.optim.epochs, 'epoch')},"
            f" {settings.encoder.name}"
        )

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        """Move the bar; print a line if there is none and the last one is old."""
        self.loss = loss
        text = f"epoch {int(epoch) + 1}  loss {loss:.3f}  {images_per_second:.0f} images/s"
        self.progress.update(self.task, completed=epoch, text=text)
        now = time.monotonic()
        if self.shown and not self.console.is_terminal and now - self.line > LINE_SECONDS:
            self.line = now
            self.console.print(f"  {self.name}: {text}")

    def evaluated(self, epoch: int, figures: dict[str, float]) -> None:
        """Print a line."""
        if self.shown:
            text = "  ".join(f"{key} {value:.1f} %" for key, value in figures.items())
            self.console.print(f"  epoch {epoch}: loss {self.loss:.3f}; validation {text}")
