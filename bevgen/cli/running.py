"""What convert and pack have in common: show the plan, the progress and the report."""

from __future__ import annotations

import json
import logging
import math
import shlex
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bevgen.cli.progress import ProgressLines
from bevgen.commands import EXIT_FAILED, EXIT_FAILURES, EXIT_INTERRUPTED
from bevgen.conversion.job import Decoder, check_device
from bevgen.conversion.plan import Plan, plan_run
from bevgen.conversion.report import Report, Watcher
from bevgen.conversion.run import convert
from bevgen.conversion.schedule import worker_count
from bevgen.conversion.settings import BevSettings, Settings
from bevgen.project import Device
from bevgen.terminal import counted, size_text

MOST_CAUSES = 10


def run_command(
    root: Path,
    out: Path,
    make_settings: Callable[[], Settings],
    *,
    max_failures: str | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    scheduler: str,
    workers: int | None,
    decoder: Decoder = "auto",
    device: Device = "auto",
    **inputs: Any,
) -> int:
    """Run, with a live bar on stderr, and return the exit code."""
    # Names of files are printed as they are: no markup, no emoji, no line breaks in paths.
    console = Console(
        stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[_ConsoleHandler(console)],
    )
    # That a cluster was lost is said by our own error, without tracebacks.
    for name in ("batched", "client", "core"):
        logging.getLogger(f"distributed.{name}").disabled = True
    if quiet and verbose:
        raise click.UsageError("-q prints errors only, -v more than usual: give one of them")
    limit = _parse_limit(max_failures)
    settings = make_settings()
    if dry_run:
        if worker_count(scheduler, workers) is not None:
            check_device(device)
        plan = plan_run(root, out, settings, **inputs)
        _print_plan(console, plan)
        if as_json:
            click.echo(json.dumps(_plan_json(plan), indent=2))
        return 0
    with _Bar(console) as bar:
        try:
            report = convert(
                root, out, settings, scheduler=scheduler, workers=workers, decoder=decoder,
                device=device,
                watcher=bar, **inputs,
            )  # fmt: skip
        except KeyboardInterrupt:
            bar.stop()
            done = "Finished shards are kept" if bar.plan else "Nothing was changed"
            click.echo(f"Interrupted. {done}; continue with:", err=True)
            click.echo(f"  {resume_line(bar.plan)}", err=True)
            return EXIT_INTERRUPTED
    _print_report(console, report, settings.kind)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    images = report.all_rows + report.all_failures
    if not report.all_rows:
        click.echo(f"Error: no image could be used (of {images:,})", err=True)
        return EXIT_FAILED
    if limit is not None and report.all_failures > limit(images):
        click.echo(
            f"Error: {report.all_failures:,} of"
            f" {counted(images, 'image was skipped', 'images were skipped')}: more than"
            f" --max-failures {max_failures}",
            err=True,
        )
        return EXIT_FAILURES
    return 0


def resume_line(begun: Plan | None) -> str:
    """Return the command that continues this one; what was overwritten is gone already."""
    again = [word for word in sys.argv[1:] if begun is None or word != "--overwrite"]
    return shlex.join(["bevgen", *again])


def _parse_limit(text: str | None) -> Callable[[int], float] | None:
    """Take ``12`` or ``1%``: how many of so many images may fail."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
        if not 0 <= value < math.inf:
            raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a number of images nor a percentage such as 1%",
            param_hint="--max-failures",
        ) from None
    return (lambda images: images * value / 100) if text.endswith("%") else (lambda _: value)


class _ConsoleHandler(logging.Handler):
    """Prints log records above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        self.console.print(self.format(record))


class _Bar(Watcher):
    """Images, rate, time left, failures: a bar on a terminal, else lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.plan: Plan | None = None
        self.done = self.failed = 0
        self.lock = threading.Lock()
        self.lines = ProgressLines(console)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, visible=False, rate="", failures="")

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the screen."""
        self.progress.stop()

    def planned(self, plan: Plan) -> None:
        """Print the plan and show the bar."""
        self.plan = plan
        _print_plan(self.console, plan)
        self.lines = ProgressLines(self.console)
        if not plan.complete:
            self.progress.reset(
                self.task, total=plan.images_todo, description=plan.out.name, visible=True
            )

    def advanced(self, done: int, failed: int) -> None:
        """Move the bar; one thread at a time, so that counts are right and only rise."""
        with self.lock:
            self._advance(done, failed)

    def _advance(self, done: int, failed: int) -> None:
        self.done, self.failed = self.done + done + failed, self.failed + failed
        skipped = f"{self.failed} skipped" if self.failed else ""
        if self.plan is not None:
            more = f", {skipped}" if skipped else ""
            self.lines.update(self.plan.out.name, self.done, self.plan.images_todo, more)
        speed = self.progress.tasks[0].speed
        self.progress.update(
            self.task,
            advance=done + failed,
            rate=f"{speed:.0f}/s" if speed else "",
            failures=skipped,
        )


def _print_plan(console: Console, plan: Plan) -> None:
    if plan.complete:
        console.print(f"{plan.out} is complete: nothing to do")
        return
    height, width, _ = plan.settings.image_shape
    scale = ""
    if isinstance(plan.settings, BevSettings):
        grid = plan.settings.grid
        scale = f" at {grid.resolution:g} m a pixel, {grid.extent:.1f} m across"
    kept = plan.images - plan.images_todo
    shards = len(plan.todo)
    free = shutil.disk_usage(plan.out.absolute().parent).free
    console.print(
        f"{counted(plan.images_todo, 'image')} from {plan.root}"
        + (f" ({kept:,} more are done)" if kept else "")
    )
    console.print(f"to {plan.out}: {height}x{width} pixels{scale}")
    console.print(
        f"{counted(shards, 'shard')}, {size_text(plan.bytes_needed)} of disk needed,"
        f" {size_text(free)} free"
    )


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "out": str(plan.out),
        "images": plan.images_todo,
        "kept": plan.images - plan.images_todo,
        "shards": len(plan.todo),
        "bytes": plan.bytes_needed,
        "complete": plan.complete,
        "settings": plan.settings.to_json(),
    }


def _print_report(console: Console, report: Report, kind: str) -> None:
    if not report.images:
        return
    rate = report.images / report.seconds
    console.print(
        f"{report.out}: {report.rows:,} stored, {report.failures:,} skipped"
        f" in {_duration(report.seconds)} ({rate:.1f} images/s)"
    )
    means = (
        f"{stage} {seconds / report.images * 1e3:.1f} ms"
        for stage, seconds in report.stage_seconds.items()
    )
    console.print(f"an image took: {', '.join(means)}")
    if report.unknown_headings:
        says = "--heading or --poses" if kind == "bev" else "--poses"  # options of bevgen pack
        console.print(
            counted(
                report.unknown_headings,
                "image has no heading and is taken to look north",
                "images have no heading and are taken to look north",
            )
            + f" ({says} says it)"
        )
    if report.unknown_positions:
        console.print(
            counted(report.unknown_positions, "image has no position", "images have no position")
        )
    if report.unsigned_positions:
        console.print(
            counted(
                report.unsigned_positions,
                "of them has one in XMP without its hemispheres, which is not used",
                "of them have one in XMP without its hemispheres, which is not used",
            )
            + ": say it in --poses"
        )
    if report.finer:
        console.print(
            counted(
                report.finer, "panorama is coarser than its", "panoramas are coarser than their"
            )
            + " BEV everywhere: a larger --resolution loses nothing"
        )
    causes = sorted(report.reasons.items(), key=lambda r: -r[1][0])
    for reason, (count, examples) in causes[:MOST_CAUSES]:
        console.print(f"  {count:,} x {reason} ({', '.join(examples)})")
    if more := causes[MOST_CAUSES:]:
        files = sum(count for _, (count, _) in more)
        console.print(f"  and {files:,} for {counted(len(more), 'more reason')}")
    if report.failures:
        console.print(f"all of them: bevgen info {shlex.quote(str(report.out))} --failures")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
