"""What is done to both images of a pair alike: rotated, flipped, limited to a field of view.

Images are float (n, 3, H, W), on any device.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from georetrieval.config import BranchName

APART = 12.0


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Flip some images left to right; ``which`` is bool (n,)."""
    return torch.where(which.to(images.device)[:, None, None, None], images.flip(3), images)


def rotate(images: Tensor, degrees: Tensor, kind: BranchName) -> Tensor:
    """Rotate each image counter-clockwise as seen from above; what was east comes to north at 90.

    Parameters
    ----------
    images : (n, 3, H, W) float
        Panoramas, or north-up squares.
    degrees : (n,) float
        Multiples of 90 move pixels of squares exactly; other angles interpolate, and what comes
        from outside is 0.
    kind
        ``panorama`` rolls columns to the left by ``degrees / 360`` of the width, rounded to
        pixels; ``bev`` rotates.
    """
    if kind == "panorama":
        width = images.shape[3]
        shift = (degrees / 360 * width).round().long().to(images.device)
        columns = (torch.arange(width, device=images.device)[None] + shift[:, None]) % width
        return images.gather(3, columns[:, None, None].expand_as(images))
    result = images.clone()
    quarters = degrees / 90
    exact = quarters == quarters.round()
    for k in range(1, 4):
        which = (exact & (quarters.long() % 4 == k)).to(images.device)
        if which.any():
            result[which] = torch.rot90(images[which], k, (2, 3))
    if not exact.all():
        free = (~exact).to(images.device)
        result[free] = _interpolate(images[free], degrees[~exact])
    return result


def cut_circle(images: Tensor) -> Tensor:
    """Leave of squares (n, 3, S, S) the circle that fits in, black elsewhere."""
    axis = (torch.arange(images.shape[3], device=images.device) + 0.5) * 2 / images.shape[3] - 1
    return images * (axis[None] ** 2 + axis[:, None] ** 2 <= 1)


def other_headings(
    images: Tensor, copies: int, kind: BranchName, generator: torch.Generator
) -> Tensor:
    """Rotate each query by angles that are not its own: (copies * n, 3, H, W).

    Angles are at least `APART` degrees; nearer ones show the same place, and almost the same way.
    """
    count = copies * len(images)
    degrees = torch.rand(count, generator=generator) * (360 - 2 * APART) + APART
    return rotate(images.repeat(copies, 1, 1, 1), degrees, kind)


def limit_fov(images: Tensor, fov: float, kind: BranchName) -> Tensor:
    """Leave of each query what a camera of a limited horizontal field of view shows.

    The window lies around the panorama's centre column, and so around a BEV's upward direction,
    which is north where the heading is known. A panorama is cropped, not resized: a degree keeps
    its pixels, so that weights meet things at the size that they know, and less is computed.

    Parameters
    ----------
    images : (n, 3, H, W) float
    fov
        Degrees, above 0 to 360.
    kind
        Of a ``panorama`` the middle ``fov / 360`` of its columns is returned; of a ``bev`` the
        sector seen from its centre, black elsewhere.
    """
    if fov == 360:
        return images
    height, width = images.shape[2:]
    if kind == "panorama":
        columns = visible_columns(width, fov)
        start = (width - columns) // 2
        return images[..., start : start + columns]
    east = torch.arange(width, device=images.device) + 0.5 - width / 2
    north = height / 2 - torch.arange(height, device=images.device)[:, None] - 0.5
    azimuth = torch.rad2deg(torch.atan2(east, north))
    return images * (azimuth.abs() <= fov / 2)


def visible_columns(width: int, fov: float) -> int:
    """Return how many of a whole panorama's columns a field of view in degrees takes."""
    return max(round(width * fov / 360), 1)


def _interpolate(images: Tensor, degrees: Tensor) -> Tensor:
    angle = torch.deg2rad(degrees).to(images)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel of the result comes from, in image axes (right, down).
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def unknown_headings(count: int, seed: int) -> NDArray[np.float64]:
    """Return the angles by which evaluation with unknown heading rotates the queries."""
    return np.random.default_rng([seed, 360]).uniform(0, 360, count)
