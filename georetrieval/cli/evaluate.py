"""`georetrieval evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.terminal import Cell, counted, print_table
from georetrieval.cli import COMMANDS, options

if TYPE_CHECKING:
    from georetrieval.retrieval.results import Evaluation


@click.command("evaluate", help=COMMANDS["evaluate"])
@options.run
@click.option(
    "--data",
    "root",
    type=options.PATH,
    metavar="FOLDER",
    help="Other shards than the run was trained on, laid out alike.",
)
@click.option("--split", default="test", show_default=True, help="Split of pairs.csv.")
@click.option(
    "--reference", type=options.PATH, metavar="FILE", help="Other references, such as map.h5."
)
@click.option(
    "--heading",
    type=click.Choice(["known", "unknown"]),
    help="Unknown rotates each query by a random angle.  [default: as in training]",
)
@options.fov
@click.option(
    "--gallery",
    type=click.Choice(["all", "matched"]),
    default="all",
    show_default=True,
    help="Matched leaves out references that belong to no query: distractors.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the result.  [default: the split and what differs from training, such as"
    " test-unknown-fov90]",
)
@click.option(
    "--any-modality",
    is_flag=True,
    help="Take shards whatever their images are, such as satellite tiles as queries.",
)
@options.device
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    run: Path,
    root: Path | None,
    split: str,
    reference: Path | None,
    heading: str | None,
    fov: float | None,
    gallery: str,
    name: str | None,
    any_modality: bool,
    device: str,
    as_json: bool,
) -> None:
    """Search a split with each branch and with both; print and keep the figures."""
    from rich.console import Console
    from rich.progress import Progress

    from georetrieval.data.dataset import Dataset
    from georetrieval.retrieval.evaluation import evaluate
    from georetrieval.retrieval.results import as_table
    from georetrieval.run import Run
    from georetrieval.training.processes import join_processes

    settings = Run(run).read_settings()
    changes = {"reference": reference, "heading": heading, "fov": fov}
    changes["any_modality"] = any_modality or None
    data = settings.data.model_copy(update={k: v for k, v in changes.items() if v is not None})
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}

        def on_progress(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(f"embedding {title}", total=total)
            progress.update(tasks[title], completed=done)

        result = evaluate(
            Run(run),
            Dataset(data, root),
            split,
            name=name,
            matched=gallery == "matched",
            device=join_processes(device).device,
            on_progress=on_progress,
        )
    if as_json:
        click.echo(json.dumps(as_table(result), indent=2))
        return
    _print_table(result)


def _print_table(result: Evaluation) -> None:
    # With a small gallery, without semi-positives, one to one: these say nothing more.
    same = {"R@1%"} if result.gallery < 200 else set()
    if not any(result.others) and len(set(result.references)) == len(result.queries):
        same.add("AP")
    if all(m.figures["hit rate"].value == m.figures["R@1"].value for m in result.methods):
        same.add("hit rate")
    shown = [name for name in result.methods[0].figures if name not in same]
    rows: list[list[Cell]] = []
    for method in result.methods:
        weight = f"(panorama {method.weight:g})"
        name: Cell = (method.name, weight) if method.name.startswith("both") else method.name
        figures = (method.figures[name] for name in shown)
        rows.append([name, *((f"{f.value:.1f}", f"{f.low:.0f}-{f.high:.0f}") for f in figures)])
    print_table(
        ["method", *shown],
        rows,
        title=f"{counted(len(result.queries), 'query', 'queries')} of split {result.split} among"
        f" {counted(result.gallery, 'reference')}, {result.protocol}",
        caption="per cent, rank and metres, with 95 % intervals (bootstrap over queries)",
    )
