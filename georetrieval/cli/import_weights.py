"""`georetrieval import-weights`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from georetrieval.cli import COMMANDS, options
from georetrieval.errors import CheckpointError

if TYPE_CHECKING:
    from georetrieval.config import BranchName, EncoderSettings, Settings
    from georetrieval.run import Run


@click.command("import-weights", help=COMMANDS["import-weights"])
@click.argument("source", type=options.PATH, metavar="FILE")
@click.option(
    "--kind",
    type=click.Choice(["panorama", "bev"]),
    required=True,
    help="What its queries are: panoramas (Sample4Geo) or bird's-eye views (EP-BEV).",
)
@click.option(
    "-o", "--out", type=options.PATH, required=True, metavar="FOLDER", help="Folder of the run."
)
@click.option(
    "--encoder",
    metavar="NAME",
    help="The model of timm.  [default: that of the published weights, ConvNeXt-B]",
)
@click.option(
    "--query-size", type=options.SIZE, help="Of queries for the network, such as 384x768."
)
@click.option("--reference-size", type=options.SIZE, help="Of references, such as 384x384.")
def command(
    source: Path,
    kind: BranchName,
    out: Path,
    encoder: str | None,
    query_size: tuple[int, int] | None,
    reference_size: tuple[int, int] | None,
) -> None:
    """Read weights of Sample4Geo or EP-BEV into a run to evaluate or to train from."""
    from georetrieval.config import EncoderSettings
    from georetrieval.models.checkpoints import checkpoint_hash
    from georetrieval.models.exchange import PUBLISHED, import_branch
    from georetrieval.run import Run

    run = Run(out)
    path = run.checkpoint(kind)
    settings = EncoderSettings(
        name=encoder or PUBLISHED,
        pretrained=False,
        query_size=query_size,
        reference_size=reference_size,
    )
    about = f"{kind}: weights of {source.name}"
    if source.is_file():
        about += f" (sha256 {checkpoint_hash(source)}...)"
    with run.only_writer():
        if path.exists():
            raise CheckpointError(f"{path} exists already: delete it, or name another --out")
        before = run.read_settings() if run.settings_path.exists() else None
        branch = import_branch(source, path, kind, settings)
        _write_settings(run, before, kind, settings, about)
    numbers = sum(p.numel() for p in branch.encoder.parameters())
    click.echo(
        f"{path}: {settings.name}, {numbers:,} parameters,"
        f" scale {branch.logit_scale.exp().item():.1f}. Next: georetrieval evaluate --run"
        f" {shlex.quote(str(out))}"
        " --data FOLDER"
    )


def _write_settings(
    run: Run, before: Settings | None, kind: BranchName, encoder: EncoderSettings, about: str
) -> None:
    """Add the branch to the run's settings, so that other commands know the run."""
    from georetrieval.config import BranchSettings, Settings

    branch = BranchSettings(encoder=encoder)
    if before is None:
        settings = Settings(
            about=about,
            panorama=branch if kind == "panorama" else None,
            bev=branch if kind == "bev" else None,
        )
    else:
        both = "; ".join(text for text in (before.about, about) if text)
        settings = before.model_copy(update={"about": both, kind: branch})
    run.write_settings(settings)
