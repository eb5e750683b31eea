"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from bevgen.commands import PATH
from bevgen.presets import PRESETS

if TYPE_CHECKING:
    from bevgen.conversion.settings import BevSettings

F = TypeVar("F", bound=Callable[..., Any])


def all_of(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Apply options so that help lists them in the order given."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def input_folder(what: str) -> Callable[[F], F]:
    """Take ``--in``."""
    return click.option(
        "-i", "--in", "root", type=PATH, required=True, metavar="FOLDER",
        help=f"Folder of {what}; sub-folders too.",
    )  # fmt: skip


def shard_file(function: F) -> F:
    """Take the file that a command reads."""
    return click.argument("path", metavar="FILE", type=PATH)(function)


def output(what: str) -> Callable[[F], F]:
    """Take ``--out``."""
    return click.option("-o", "--out", type=PATH, required=True, metavar="FILE", help=what)


class Finite(click.FloatRange):
    """A number in a range: not nan, which lies in any, and not infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert and check a value."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be used", param, ctx)
        return number


overwrite = click.option("--overwrite", is_flag=True, help="Replace what the output holds.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

vertical_fov = click.option(
    "--vertical-fov", type=(float, float), metavar="TOP BOTTOM",
    help="Elevations of the panoramas' upper and lower edge, degrees."
    "  [default: from each file, else 90 -90]",
)  # fmt: skip

list_file = click.option(
    "--list", "list_file", type=PATH, metavar="FILE",
    help="Take only these images: one path a line, relative to --in.",
)  # fmt: skip

mask = click.option(
    "--mask", type=PATH, metavar="IMAGE",
    help="White where panoramas are used, black where they show a car or a cap, which is then not"
    " seen; of their size, or proportional to it. bevgen mask makes one.",
)  # fmt: skip

roll_sign = click.option(
    "--roll-sign", type=click.Choice(["right-down", "left-down"]),
    help="What a positive roll in GPano metadata means.  [default: right-down]",
)  # fmt: skip

_geometry = all_of(
    click.option(
        "--preset", type=click.Choice(list(PRESETS)),
        help="Start from what is known of a dataset (bevgen presets lists it); the options below"
        " override it.",
    ),
    click.option("--height", type=float, help="Camera above the ground, metres.  [default: 2.0]"),
    click.option("--size", type=int, help="Pixels on each side of the BEV.  [default: 512]"),
    click.option("--resolution", type=float, help="Metres per BEV pixel.  [default: 0.06]"),
    click.option(
        "--heading", type=float, metavar="DEG",
        help="Compass direction of the centre column.  [default: from each file, else 0]",
    ),
    click.option(
        "--pitch", type=float, metavar="DEG", help="Nose up.  [default: from each file, else 0]"
    ),
    click.option(
        "--roll", type=float, metavar="DEG",
        help="Right side down.  [default: from each file, else 0]",
    ),
    vertical_fov,
    click.option(
        "--no-antialias", "antialias", flag_value=False, type=bool, default=None,
        help="Sample points near the camera instead of averaging.",
    ),
    click.option(
        "--compat", type=click.Choice(["ep-bev"]), help="Reproduce the published script's pixels."
    ),
    mask,
    roll_sign,
)  # fmt: skip
_GEOMETRY_NAMES = [param.name for param in click.command()(_geometry(lambda: None)).params]


class BevOptions(NamedTuple):
    """The options of a bird's-eye view as they were typed; None where one was not."""

    preset: str | None
    given: Mapping[str, Any]

    def settings(self) -> BevSettings:
        """Return the settings: options override the preset."""
        from bevgen.conversion.settings import BevSettings
        from bevgen.images.mask import read_mask

        path = self.given["mask"]
        mask = None if path is None else read_mask(path)
        return BevSettings.from_preset(self.preset, **{**self.given, "mask": mask})

    def origins(self) -> dict[str, str]:
        """Say of each setting whether it is from an option or the preset."""
        from bevgen.conversion.settings import BevSettings

        return BevSettings.origins(self.preset, **self.given)


def geometry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take the options of a bird's-eye view, and hand them over as one, ``bev``."""

    @wraps(function)
    def gathered(**values: Any) -> Any:
        given = {name: values.pop(name) for name in _GEOMETRY_NAMES}
        return function(bev=BevOptions(given.pop("preset"), given), **values)

    return _geometry(gathered)


poses = click.option(
    "--poses", type=PATH, metavar="CSV",
    help="Columns file and any of id, heading, pitch, roll, height, latitude, longitude, date;"
    " takes precedence over every other source.",
)  # fmt: skip

inputs = all_of(
    list_file,
    poses,
    click.option(
        "--keep-endings", is_flag=True,
        help="Ids are paths with their endings, so that a.jpg and a.png differ.",
    ),
)  # fmt: skip

running = all_of(
    click.option(
        "--scheduler", default="threads", show_default=True, metavar="WHERE",
        help="threads, processes, sync, tcp://HOST:PORT or a scheduler file (.json) of Dask.",
    ),
    click.option("--workers", type=int, metavar="N", help="How many at once.  [default: cores]"),
    click.option(
        "--shard-size", type=int, default=256, show_default=True, metavar="N",
        help="Images in a shard: what is redone at most after a crash.",
    ),
    overwrite,
    click.option("--extend", is_flag=True, help="Add new images to an existing output."),
    click.option("--retry-failed", is_flag=True, help="Try again images that were skipped."),
    click.option(
        "--max-failures", metavar="N|P%",
        help="Exit with 3 if more images (or per cent of them) were skipped.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and stop."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option("-v", "--verbose", is_flag=True, help="Name each image that is skipped."),
    as_json,
)  # fmt: skip
