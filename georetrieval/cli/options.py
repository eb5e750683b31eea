"""Options that several commands share, and how a run is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.commands import PATH, TYPED
from georetrieval.errors import SettingsError

if TYPE_CHECKING:
    from georetrieval.config import Settings

SETTINGS_FILE = "georetrieval.toml"


class _Size(click.ParamType):
    """Height and width in pixels."""

    name = "HxW"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read ``384x768``."""
        height, _, width = value.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is no height and width in pixels, such as 384x768", param, ctx)
        return int(height), int(width)


SIZE = _Size()

data = click.option(
    "--data",
    "root",
    type=PATH,
    default=Path(),
    metavar="FOLDER",
    help="Folder of the shards.  [default: here]",
)
recipe = click.option(
    "--recipe",
    type=TYPED,
    metavar="NAME|FILE",
    help=f"A recipe of the package, or a TOML file.  [default: {SETTINGS_FILE} in --data]",
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one setting, such as bev.optim.epochs=10; may be repeated.",
)
index_run = click.option(
    "--run",
    type=PATH,
    metavar="FOLDER",
    help="The run that made the index.  [default: where it was]",
)
run = click.option(
    "--run",
    "--run-folder",  # torchrun takes --run for the start of an option of its own
    "run",
    type=PATH,
    default=Path("run"),
    show_default=True,
    metavar="FOLDER",
    help="Folder of checkpoints, figures and report.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
fov = click.option(
    "--fov",
    type=click.FloatRange(0, 360, min_open=True),
    metavar="DEGREES",
    help="Horizontal field of view that queries show.",
)
dry_run = click.option(
    "--dry-run",
    is_flag=True,
    help="Print sizes, steps, learning rate and memory; needs no data, and writes nothing.",
)
pairs = click.option(
    "--pairs",
    type=click.IntRange(min=2),
    metavar="N",
    help="Training pairs for --dry-run.  [default: those of the data, or as published]",
)


def recipe_settings(root: Path, recipe: str | None, overrides: Sequence[str]) -> Settings:
    """Read the settings that --data, --recipe and --set ask for.

    Raises
    ------
    SettingsError
        If there are none, or they cannot be used.
    """
    from georetrieval.config import load_settings, recipes

    path = root / SETTINGS_FILE
    if recipe in recipes():
        path = recipes()[recipe]
    elif recipe is not None:
        path = Path(recipe)
        if not path.exists():
            raise SettingsError(
                f"no recipe {recipe!r}; there are {', '.join(recipes())}, or give a TOML file"
            )
    elif not path.exists():
        raise SettingsError(
            f"there is no {path}. Prepare a folder of shards with one of the pipelines"
            " (make demo shows the whole way), name it with --data, or choose a recipe with"
            f" --recipe: {', '.join(recipes())}, or a TOML file"
        )
    return load_settings(path, overrides)
