"""Random changes of whole batches on the device: views turned together, colours changed apart.

Images are float (n, 3, H, W) in 0 to 1. Random numbers come from a CPU generator, so that one seed
gives one result on every device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bevgen import to_chw
from georetrieval.config import AugmentSettings, BranchName
from georetrieval.transforms.jpeg import compress


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
            degrees = _quarters(n, generator)
        degrees = torch.where(turned, degrees, 0.0)
        query = turn(query, degrees, kind)
        reference = turn(reference, degrees, "bev")
    if settings.turn_reference:
        turned = _chance(n, settings.turn_reference, generator)
        degrees = torch.where(turned, _quarters(n, generator), 0.0)
        reference = turn(reference, degrees, "bev")
    query = limit_view(query, fov, kind)
    return (
        _change(query, settings, settings.query_grid, generator),
        _change(reference, settings, settings.reference_grid, generator),
    )


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Mirror some images left to right; ``which`` is bool (n,)."""
    return torch.where(which.to(images.device)[:, None, None, None], images.flip(3), images)


def turn(images: Tensor, degrees: Tensor, kind: BranchName) -> Tensor:
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


def limit_view(images: Tensor, fov: float, kind: BranchName) -> Tensor:
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


def _quarters(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, 4, (n,), generator=generator) * 90.0


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + torch.rand(shape, generator=generator) * (high - low)


def _around_one(n: int, spread: float, generator: torch.Generator) -> Tensor:
    return 1 + (torch.rand(n, generator=generator) * 2 - 1) * spread


# From RGB to luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = torch.linalg.inv(_YIQ)


def _change(
    images: Tensor, settings: AugmentSettings, grid: float, generator: torch.Generator
) -> Tensor:
    """Change each image of a view on its own, in the published order."""
    images = images.clone()
    _compress(images, settings, generator)
    _jitter(images, settings, generator)
    _refocus(images, settings, generator)
    return _drop(images, settings, grid, generator)


# Numbers are drawn for all images, so that what one gets does not hang on the others.


def _compress(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> None:
    n = len(images)
    chosen = _chance(n, settings.compression, generator)
    quality = torch.randint(settings.quality, 101, (n,), generator=generator)
    if chosen.any():
        which = chosen.to(images.device)
        images[which] = compress(images[which], quality[chosen])


def _jitter(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> None:
    n = len(images)
    recolour, brighten = (_chance(n, settings.photometric, generator) for _ in range(2))
    brightness, contrast, saturation, hue = (
        _around_one(n, settings.jitter, generator) for _ in range(4)
    )
    gamma = _around_one(n, settings.gamma, generator)
    if recolour.any():
        matrices = _colour_matrices(brightness, saturation, (hue - 1) * 2 * math.pi)[recolour]
        which = recolour.to(images.device)
        images[which] = _recolour(images[which], matrices, contrast[recolour])
    if settings.gamma and brighten.any():
        which = brighten.to(images.device)
        images[which] = images[which] ** gamma[brighten].to(images)[:, None, None, None]


def _colour_matrices(brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    chroma = torch.zeros(len(hue), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * hue.cos()
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * hue.sin(), saturation * hue.sin()
    return (_RGB @ chroma @ _YIQ) * brightness[:, None, None]


def _recolour(images: Tensor, matrices: Tensor, contrast: Tensor) -> Tensor:
    images = torch.einsum("nij,njhw->nihw", matrices.to(images), images)
    luma = (images.mean((2, 3)) @ _YIQ[0].to(images))[:, None, None, None]
    return ((images - luma) * contrast.to(images)[:, None, None, None] + luma).clamp(0, 1)


def _refocus(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> None:
    """Blur or sharpen some images."""
    n = len(images)
    chosen, sharpen = _chance(n, settings.blur_or_sharpen, generator), _chance(n, 0.5, generator)
    blur, sharp = _blur_kernels(n, generator), _sharpening_kernels(n, generator)
    if not chosen.any():
        return
    kernels = torch.where(sharpen[:, None, None], sharp, blur)[chosen]
    which = chosen.to(images.device)
    images[which] = _filtered(images[which], kernels)


REACH = 3  # pixels from a kernel's centre to its edge


def _blur_kernels(n: int, generator: torch.Generator) -> Tensor:
    """Draw generalised Gaussians (n, 7, 7): oblong, peaked or flat, and a little uneven.

    exp(-d ** beta / 2), where d is the squared distance in deviations along two turned axes.
    """
    reach = torch.randint(1, REACH + 1, (n, 1, 1), generator=generator)
    sigma = _between(0.2, 1.0, (2, n, 1, 1), generator)
    angle = _between(-math.pi / 2, math.pi / 2, (n, 1, 1), generator)
    peaked = _chance(n, 0.5, generator)[:, None, None]
    beta = torch.where(
        peaked,
        _between(0.5, 1.0, (n, 1, 1), generator),
        _between(1.0, 8.0, (n, 1, 1), generator),
    )
    uneven = _between(0.9, 1.1, (n, 2 * REACH + 1, 2 * REACH + 1), generator)
    offset = torch.arange(-REACH, REACH + 1)
    row, column = offset[:, None], offset
    along = (column * angle.cos() + row * angle.sin()) / sigma[0]
    across = (row * angle.cos() - column * angle.sin()) / sigma[1]
    kernels = torch.exp(-0.5 * (along**2 + across**2) ** beta) * uneven
    kernels = kernels * (torch.maximum(row.abs(), column.abs()) <= reach)
    return kernels / kernels.sum((1, 2), keepdim=True)


def _sharpening_kernels(n: int, generator: torch.Generator) -> Tensor:
    """Draw what mixes an image with its 3 x 3 edges (n, 7, 7), and may darken it a little."""
    share = _between(0.2, 0.5, (n,), generator)
    lightness = _between(0.5, 1.0, (n,), generator)
    kernels = torch.zeros(n, 2 * REACH + 1, 2 * REACH + 1)
    kernels[:, REACH - 1 : REACH + 2, REACH - 1 : REACH + 2] = -share[:, None, None]
    kernels[:, REACH, REACH] = 1 - share + share * (8 + lightness)
    return kernels


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter each image by its own kernel (n, 7, 7)."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (REACH,) * 4, mode="replicate")
    weights = kernels.to(images).repeat_interleave(channels, 0)[:, None]
    found = F.conv2d(padded.flatten(0, 1)[None], weights, groups=n * channels)
    return found.reshape(n, channels, height, width).clamp(0, 1)


HOLES = 25


def _drop(
    images: Tensor, settings: AugmentSettings, grid: float, generator: torch.Generator
) -> Tensor:
    """Blacken a grid of small holes or some large ones in some images."""
    n, _, height, width = images.shape
    chosen, as_grid = _chance(n, settings.dropout, generator), _chance(n, 0.5, generator)
    pitch = max(width // 10, 2)
    start = torch.randint(pitch, (2, n, 1), generator=generator)
    many = torch.randint(10, HOLES + 1, (n, 1), generator=generator)
    low, high = max(height // 10, 1), max(height // 5, 1)
    sides = torch.randint(low, high + 1, (2, n, HOLES, 1), generator=generator)
    corners = torch.rand(2, n, HOLES, 1, generator=generator)
    if not chosen.any():
        return images
    small = (chosen & as_grid)[:, None]
    large = (chosen & ~as_grid)[:, None] & (torch.arange(HOLES) < many)
    hole = min(max(int(pitch * grid), 1), pitch - 1)
    # A hole is a span of rows by a span of columns: (n, 1 + 25, H) and (n, 1 + 25, W).
    spans = []
    for axis, length in enumerate((height, width)):
        pixels = torch.arange(length)
        stripe = ((pixels + start[axis]) % pitch < hole) & small
        first = (corners[axis] * (length - sides[axis] + 1)).long()
        inside = (pixels >= first) & (pixels < first + sides[axis]) & large[..., None]
        spans.append(torch.cat([stripe[:, None], inside], 1).to(images.device, images.dtype))
    holes = torch.einsum("nkh,nkw->nhw", *spans) > 0
    return images.masked_fill(holes[:, None], 0.0)


def unknown_headings(count: int, seed: int) -> NDArray[np.float64]:
    """Return the angles by which evaluation with unknown heading turns the queries."""
    return np.random.default_rng([seed, 360]).uniform(0, 360, count)
