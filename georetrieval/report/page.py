"""The whole page of a run, from its files to one HTML file.

The page needs no other file and no network: styles, drawings and pictures lie inside it, and a
content security policy keeps it so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import georetrieval
from bevgen import only_writer, written_whole
from bevgen.terminal import counted
from georetrieval.config import BranchName, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError
from georetrieval.models.checkpoints import checkpoint_hash
from georetrieval.report.overview import make_overview
from georetrieval.report.results import Titled, describe
from georetrieval.report.training import training_curves
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run

PAPER = "https://arxiv.org/abs/2408.05475"


def write_report(
    run: Run | Path | str,
    dataset: Dataset | None = None,
    evaluations: Sequence[Evaluation] | None = None,
    out: Path | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Path:
    """Write the page of a run.

    Parameters
    ----------
    run
        Its settings, figures and checkpoints are told of as far as they are there.
    dataset
        Of the training; pictures are taken from it. An evaluation on other data takes them from
        the folder that it names, while that exists. None for the run's own.
    evaluations
        The first one is the headline. There may be none. None for those that the run keeps, by
        their names.
    out
        The ``.html`` file; None for the run's ``report.html``.
    names
        What to call the evaluations; by default their split, data and heading.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    GeoretrievalError
        If a checkpoint cannot be read or the file cannot be written.
    RefusedError
        If another process is writing that page.
    """
    run = Run.at(run)
    out = out or run.report_path
    if dataset is None:
        dataset = Dataset(run.read_settings().data)
    if evaluations is None:
        kept = {name: Evaluation.load(path) for name, path in run.evaluations().items()}
        evaluations, names = list(kept.values()), list(kept)
    titled = title_evaluations(evaluations, names)
    with only_writer(out):
        text = _render(run, dataset, titled)
        with written_whole(out) as part:
            # An id may be the name of a file, and that need not be valid text.
            part.write_text(text, "utf-8", errors="replace")
    return out


def _render(run: Run, dataset: Dataset, titled: Sequence[Titled]) -> str:
    """Fill the page's template."""
    settings = read_settings(run)
    hashes = run_checkpoints(run)
    lines = run.read_metrics()
    page = environment().get_template("page.html")
    return page.render(
        overview=make_overview(run, dataset, settings, titled, hashes, lines),
        training=training_curves(lines, settings),
        evaluations=[describe(one, dataset, hashes, count=len(titled)) for one in titled],
        settings_text=_settings_text(run),
        paper=PAPER,
        version=georetrieval.__version__,
        today=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def environment() -> Environment:
    """Return the templates, which escape all that is put into them."""
    made = Environment(
        loader=PackageLoader("georetrieval.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["thousands"] = "{:,}".format
    made.filters["counted"] = counted
    made.globals["zip"] = zip
    return made


def title_evaluations(
    evaluations: Sequence[Evaluation], names: Sequence[str] | None = None
) -> list[Titled]:
    """Name evaluations: as told, or by split, by data where they differ, and the protocol."""
    if names is None:
        several = len({one.data for one in evaluations}) > 1
        names = [
            (f"{Path(one.data).name}, " if several else "")
            + one.split
            + ("" if one.protocol == "heading known" else f", {one.protocol}")
            for one in evaluations
        ]
    titled = []
    for number, (one, name) in enumerate(zip(evaluations, names, strict=True)):
        before = list(names[:number]).count(name)
        unique = f"{name} ({before + 1})" if before else name
        titled.append(Titled(one, unique, f"evaluation-{number + 1}"))
    return titled


def read_settings(run: Run) -> Settings | None:
    """Read the run's settings; None if there are none that this version understands."""
    try:
        return run.read_settings()
    except (OSError, CheckpointError):
        return None


def run_checkpoints(run: Run) -> dict[BranchName, str]:
    """Return the hash of each branch's weights in a run's folder."""
    return {name: checkpoint_hash(path) for name, path in run.checkpoints().items()}


def _settings_text(run: Run) -> str:
    """Return the run's settings as they stand in its folder, laid out; empty if there are none."""
    try:
        text = run.settings_path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    with suppress(json.JSONDecodeError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text
