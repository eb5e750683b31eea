"""What sizes a branch's images have in the network, and what of it cannot be trained."""

from __future__ import annotations

from collections.abc import Mapping

from georetrieval.config import BranchName, BranchSettings, Settings, Size
from georetrieval.errors import SettingsError
from georetrieval.models.encoder import Encoder, check_size
from georetrieval.transforms.orientation import visible_columns

ROLES = ("query", "reference")


def image_sizes(
    name: BranchName, settings: Settings, stored: Mapping[str, Size]
) -> dict[str, Size]:
    """Return height and width of a branch's query and reference, with the whole field of view.

    Parameters
    ----------
    name
        Of the branch: ``panorama`` or ``bev``.
    settings
        Of the run.
    stored
        Sizes in the shards, for those whose size the encoder's settings leave open.

    Raises
    ------
    SettingsError
        If a size is left open and the shards are not there to tell.
    """
    encoder = settings.branches()[name].encoder
    set_to = {"query": encoder.query_size, "reference": encoder.reference_size}
    sizes = {}
    for role in ROLES:
        size = set_to[role] or stored.get(role)
        if size is None:
            raise SettingsError(
                f"the size of {name} {role} images is that of the shards, which are not there:"
                f" set {name}.encoder.{role}_size"
            )
        sizes[role] = size
    return sizes


def input_sizes(
    name: BranchName, settings: Settings, stored: Mapping[str, Size]
) -> dict[str, Size]:
    """Return the sizes that enter the encoder: `image_sizes`, with a panorama's crop applied."""
    sizes = image_sizes(name, settings, stored)
    if name == "panorama":
        height, width = sizes["query"]
        sizes["query"] = height, visible_columns(width, settings.data.fov)
    return sizes


def check_sizes(
    encoder: Encoder, name: BranchName, settings: Settings, stored: Mapping[str, Size]
) -> None:
    """Refuse a model that cannot take the images, before anything is trained.

    Raises
    ------
    SettingsError
        It says which images, and which settings change them.
    """
    model = settings.branches()[name].encoder.name
    for role, size in input_sizes(name, settings, stored).items():
        try:
            check_size(encoder, size, model, f"{_called(name, role)} images")
        except SettingsError as error:
            raise SettingsError(
                f"{error}: set encoder.query_size and encoder.reference_size"
            ) from error


def check_turns(name: BranchName, settings: Settings, stored: Mapping[str, Size]) -> None:
    """Refuse to turn what is not square.

    Raises
    ------
    SettingsError
        It says which images.
    """
    augment = settings.branches()[name].augment
    sizes = image_sizes(name, settings, stored)
    for role in ROLES:
        keys = ["turn"] if augment.turn and (name, role) != ("panorama", "query") else []
        if augment.turn_reference and role == "reference":
            keys.append("turn_reference")
        height, width = sizes[role]
        if keys and height != width:
            zero = " and ".join(f"augment.{key}" for key in keys)
            raise SettingsError(
                f"{_called(name, role)} images of {height}x{width} pixels cannot be turned by 90"
                f" degrees: make them square, or set {zero} to 0"
            )


def _called(name: str, role: str) -> str:
    return name if role == "query" else "reference"


def check_batches(settings: BranchSettings, processes: int) -> None:
    """Refuse batches that cannot be shared out evenly.

    Raises
    ------
    SettingsError
        It says both numbers.
    """
    size = settings.sampling.batch_size
    if size % processes:
        raise SettingsError(f"batch_size {size} is not a multiple of the {processes} processes")
