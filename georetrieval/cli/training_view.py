"""How training looks in a terminal: a bar for each branch, a line for each evaluation."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from georetrieval.config import BranchSettings
from georetrieval.training import Watcher


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
            disable=not shown,
        )
        self.task = self.progress.add_task("", total=None, text="")
        self.name, self.loss = "", 0.0

    def __enter__(self) -> TrainingView:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def branch(self, name: str, settings: BranchSettings, pairs: int) -> None:
        """Start a bar."""
        self.name = name
        self.progress.reset(self.task, total=settings.optim.epochs, description=name, text="")
        self.console.print(
            f"{name}: {pairs:,} pairs, {settings.optim.epochs} epochs, {settings.encoder.name}"
        )

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        """Move the bar."""
        self.loss = loss
        text = f"epoch {int(epoch) + 1}  loss {loss:.3f}  {images_per_second:.0f} images/s"
        self.progress.update(self.task, completed=epoch, text=text)

    def evaluated(self, epoch: int, figures: dict[str, float]) -> None:
        """Print a line."""
        if self.shown:
            text = "  ".join(f"{key} {value:.1f} %" for key, value in figures.items())
            self.console.print(f"  epoch {epoch}: loss {self.loss:.3f}; validation {text}")
