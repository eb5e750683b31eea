"""Random changes of a training batch: pairs rotated alike, each image changed in looks."""

from __future__ import annotations

import torch
from torch import Tensor

from georetrieval.config import AugmentSettings, BranchName
from georetrieval.transforms.orientation import flip, limit_fov, rotate
from georetrieval.transforms.photometric import chance, change_appearance


def augment_pairs(
    query: Tensor,
    reference: Tensor,
    kind: BranchName,
    settings: AugmentSettings,
    generator: torch.Generator,
    *,
    fov: float = 360.0,
) -> tuple[Tensor, Tensor]:
    """Change a training batch.

    Parameters
    ----------
    query, reference : (n, 3, H, W) float in 0 to 1
        The reference, and a BEV, must be square to be rotated.
    kind
        Panoramas rotate by rolling their columns.
    settings
        Probabilities and strengths.
    generator
        On the CPU.
    fov
        What the query shows once it is rotated; see `limit_fov`.

    Returns
    -------
    query, reference
        Of the same shapes, but for panoramas of a limited field of view.
    """
    n = len(query)
    flipped = chance(n, settings.flip, generator)
    query, reference = flip(query, flipped), flip(reference, flipped)
    if settings.turn:
        rotated = chance(n, settings.turn, generator)
        if settings.free_turn:
            degrees = torch.rand(n, generator=generator) * 360
        else:
            degrees = _quarters(n, generator)
        degrees = torch.where(rotated, degrees, 0.0)
        query = rotate(query, degrees, kind)
        reference = rotate(reference, degrees, "bev")
    if settings.turn_reference:
        rotated = chance(n, settings.turn_reference, generator)
        degrees = torch.where(rotated, _quarters(n, generator), 0.0)
        reference = rotate(reference, degrees, "bev")
    query = limit_fov(query, fov, kind)
    return (
        change_appearance(query, settings, settings.query_grid, generator),
        change_appearance(reference, settings, settings.reference_grid, generator),
    )


def _quarters(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, 4, (n,), generator=generator) * 90.0
