"""Random changes of whole batches on the device: views turned together, colours changed apart.

Images are float (n, 3, H, W) in 0 to 1. Random numbers come from a CPU generator, so that one seed
gives one result on every device.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bevgen import to_chw
from georetrieval.config import AugmentSettings

QueryKind = Literal["panorama", "bev"]


def to_network(images: Tensor, size: tuple[int, int] | None, device: torch.device) -> Tensor:
    """Bring uint8 (n, H, W, 3) to the device as float (n, 3, height, width) in 0 to 1."""
    if device.type == "cpu":
        images = torch.from_numpy(to_chw(images.numpy()))  # several times as fast as torch's way
    else:
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
    if size is not None and tuple(images.shape[2:]) != tuple(size):
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images


def augment_pairs(
    query: Tensor,
    reference: Tensor,
    kind: QueryKind,
    settings: AugmentSettings,
    generator: torch.Generator,
    *,
    fov: float = 360.0,
) -> tuple[Tensor, Tensor]:
    """Change a training batch.

    Parameters
    ----------
    query, reference : (n, 3, H, W) float in 0 to 1
        The reference, and a BEV, must be square to be turned.
    kind
        Panoramas turn by rolling their columns, BEVs by rotating.
    settings
        Probabilities and strengths.
    generator
        On the CPU.
    fov
        What the query shows once it is turned; see `limit_view`.

    Returns
    -------
    query, reference
        Of the same shapes, but for panoramas of a limited field of view.
    """
    n = len(query)
    flip = _chance(n, settings.flip, generator)
    query, reference = mirror(query, flip), mirror(reference, flip)
    if settings.turn:
        turned = _chance(n, settings.turn, generator)
        if settings.free_turn:
            degrees = torch.rand(n, generator=generator) * 360
        else:
            degrees = torch.randint(1, 4, (n,), generator=generator) * 90.0
        degrees = torch.where(turned, degrees, 0.0)
        query = turn(query, degrees, kind)
        reference = turn(reference, degrees, "bev")
    query = limit_view(query, fov, kind)
    return (
        _drop(_photometric(query, settings, generator), settings, generator),
        _drop(_photometric(reference, settings, generator), settings, generator),
    )


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Mirror some images left to right; ``which`` is bool (n,)."""
    return torch.where(which.to(images.device)[:, None, None, None], images.flip(3), images)


def turn(images: Tensor, degrees: Tensor, kind: QueryKind) -> Tensor:
    """Turn each view counter-clockwise as seen from above; what was east comes to north at 90.

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
        result[free] = _rotate(images[free], degrees[~exact])
    return result


def limit_view(images: Tensor, fov: float, kind: QueryKind) -> Tensor:
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


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    angle = torch.deg2rad(degrees).to(images)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel of the result comes from, in image axes (right, down).
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _chance(n: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def _around_one(n: int, spread: float, generator: torch.Generator) -> Tensor:
    return 1 + (torch.rand(n, generator=generator) * 2 - 1) * spread


# From RGB to luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = torch.linalg.inv(_YIQ)


def _photometric(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    # Numbers are drawn for all images, so that what one gets does not hang on the others.
    n = len(images)
    recolour = _chance(n, settings.photometric, generator)
    brightness, contrast, saturation, hue = (
        _around_one(n, settings.jitter, generator) for _ in range(4)
    )
    gamma = _around_one(n, settings.gamma, generator)
    refocus = _chance(n, settings.blur_or_sharpen, generator)
    focus = torch.rand(n, generator=generator) * 2 - 1
    images = images.clone()
    if recolour.any():
        matrices = _colour_matrices(brightness, saturation, (hue - 1) * math.pi)[recolour]
        which = recolour.to(images.device)
        images[which] = _recolour(images[which], matrices, contrast[recolour], gamma[recolour])
    if refocus.any():
        which = refocus.to(images.device)
        images[which] = _refocus(images[which], focus[refocus])
    return images


def _colour_matrices(brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    chroma = torch.zeros(len(hue), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * hue.cos()
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * hue.sin(), saturation * hue.sin()
    return (_RGB @ chroma @ _YIQ) * brightness[:, None, None]


def _recolour(images: Tensor, matrices: Tensor, contrast: Tensor, gamma: Tensor) -> Tensor:
    contrast, gamma = (v.to(images)[:, None, None, None] for v in (contrast, gamma))
    images = torch.einsum("nij,njhw->nihw", matrices.to(images), images)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean).clamp(0, 1) ** gamma


def _refocus(images: Tensor, focus: Tensor) -> Tensor:
    """Blur (-1: a 3x3 mean) or sharpen (1: as much the other way)."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (images + (images - blurred) * focus.to(images)[:, None, None, None]).clamp(0, 1)


def _drop(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Blacken a grid of small holes or a few large ones in some images."""
    n, _, height, width = images.shape
    which = _chance(n, settings.dropout, generator)
    as_grid = _chance(n, 0.5, generator)
    low, high = max(height // 16, 4), max(height // 6, 5)
    pitch = torch.randint(low, high + 1, (n, 1), generator=generator)
    start = torch.rand(2, n, 1, generator=generator) * pitch
    corner = torch.rand(2, n, 8, 1, generator=generator)
    side = 0.05 + 0.07 * torch.rand(n, 8, 1, generator=generator)
    if not which.any():
        return images
    # A hole is a span of rows by a span of columns: (n, 1 or 8, H) and (n, 1 or 8, W).
    stripes, spans = [], []
    for axis, length in enumerate((height, width)):
        pixels = torch.arange(length)
        stripe = (pixels + start[axis]) % pitch < 0.4 * pitch
        stripes.append((stripe & (which & as_grid)[:, None])[:, None])
        place = pixels / length - corner[axis]
        spans.append((place >= 0) & (place < side) & (which & ~as_grid)[:, None, None])
    rows, columns = (
        torch.cat([stripe, span], 1).to(images.device, images.dtype)
        for stripe, span in zip(stripes, spans, strict=True)
    )
    holes = torch.einsum("nkh,nkw->nhw", rows, columns) > 0
    return images.masked_fill(holes[:, None], 0.0)


def unknown_headings(count: int, seed: int) -> NDArray[np.float64]:
    """Return the angles by which evaluation with unknown heading turns the queries."""
    return np.random.default_rng([seed, 360]).uniform(0, 360, count)
