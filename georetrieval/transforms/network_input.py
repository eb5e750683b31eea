"""From stored pixels to what a network takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bevgen import to_chw


def to_network(images: Tensor, size: tuple[int, int] | None, device: torch.device) -> Tensor:
    """Bring uint8 (n, H, W, 3) to the device as float (n, 3, height, width) in 0 to 1."""
    if device.type == "cpu":
        images = torch.from_numpy(to_chw(images.numpy()))  # several times as fast as torch's way
    else:
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
    if size is not None and tuple(images.shape[2:]) != tuple(size):
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images
