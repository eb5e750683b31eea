"""How images look, each changed on its own: JPEG, colours, focus, holes. On whole batches.

Numbers come from a CPU generator, so that one seed gives one result on every device, and are drawn
for all images, so that what one gets does not hang on the others. That is why this is written here:
torchvision draws once for a whole batch, and Kornia from torch's global generator, as many numbers
as images are changed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from georetrieval.config import AugmentSettings
from georetrieval.transforms.jpeg import compress

# From RGB to luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = torch.linalg.inv(_YIQ)


def change_appearance(
    images: Tensor, settings: AugmentSettings, grid: float, generator: torch.Generator
) -> Tensor:
    """Change each image on its own, in the published order.

    Parameters
    ----------
    images : (n, 3, H, W) float in 0 to 1
    settings
        Probabilities and strengths.
    grid
        Share of the pitch that holes in a grid take.
    generator
        On the CPU.

    Returns
    -------
    (n, 3, H, W) float in 0 to 1
    """
    images = images.clone()
    _compress(images, settings, generator)
    _jitter(images, settings, generator)
    _refocus(images, settings, generator)
    return _drop(images, settings, grid, generator)


def _compress(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> None:
    n = len(images)
    chosen = chance(n, settings.compression, generator)
    quality = torch.randint(settings.quality, 101, (n,), generator=generator)
    if chosen.any():
        which = chosen.to(images.device)
        images[which] = compress(images[which], quality[chosen])


def _jitter(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> None:
    n = len(images)
    recolour, brighten = (chance(n, settings.photometric, generator) for _ in range(2))
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
    chosen, sharpen = chance(n, settings.blur_or_sharpen, generator), chance(n, 0.5, generator)
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
    peaked = chance(n, 0.5, generator)[:, None, None]
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
    chosen, as_grid = chance(n, settings.dropout, generator), chance(n, 0.5, generator)
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


def chance(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw a bool (n,), each true with a probability."""
    return torch.rand(n, generator=generator) < probability


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + torch.rand(shape, generator=generator) * (high - low)


def _around_one(n: int, spread: float, generator: torch.Generator) -> Tensor:
    return 1 + (torch.rand(n, generator=generator) * 2 - 1) * spread
