"""A bar on stderr for work that counts its steps; lines now and then where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

LINE_SECONDS = 30.0


class ProgressLines:
    """Prints how far work is, for logs of batch systems: a bar would fill them with itself.

    Parameters
    ----------
    console
        Where to; nothing is printed on a terminal.
    seconds
        Between two lines.
    """

    def __init__(self, console: Console, seconds: float = LINE_SECONDS) -> None:
        self.console, self.seconds = console, seconds
        self.start = self.last = time.monotonic()

    def update(self, name: str, done: int, total: int, more: str = "") -> None:
        """Print a line if the last one is old."""
        now = time.monotonic()
        if self.console.is_terminal or now - self.last < self.seconds or not done:
            return
        self.last = now
        left = (total - done) * (now - self.start) / done
        rate = done / (now - self.start)
        self.console.print(
            f"{name}: {done:,}/{total:,}, {rate:.1f}/s, {left / 60:.1f} min left{more}"
        )


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar; the function it gives takes how many steps are done, and of how many."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    lines = ProgressLines(console)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            lines.update(description, done, total)

        yield on_progress


@contextmanager
def progress_steps() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each of several steps; its function takes also what is done."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    lines: dict[str, ProgressLines] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def watch(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)
            lines.setdefault(what, ProgressLines(console)).update(what, done, total)

        yield watch
