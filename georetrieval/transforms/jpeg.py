"""What a JPEG file takes from images, on whole batches on the device, without the file.

Baseline JPEG as OpenCV and Pillow write it unless told otherwise: YCbCr, chroma at half the
resolution, the standard's example tables scaled by libjpeg's rule, and read with libjpeg's smooth
chroma. The entropy coding loses nothing and is left out. (ITU-T T.81, and T.871 for the colours.)

Written here since torchvision compresses on the CPU, one quality for all, and Kornia rounds
smoothly to have gradients: here each image has its own quality, and every device gives the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels of a side
MCU = 16  # pixels of a side of the smallest unit: four blocks of luma, one of each chroma

# T.81, tables K.1 and K.2.
_LUMA = """
    16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56
    14 17 22 29 51 87 80 62   18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99"""
_CHROMA = (
    """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99 """
    + "99 " * 32
)
_TABLES = torch.tensor([[int(n) for n in table.split()] for table in (_LUMA, _CHROMA)]).float()

# T.871, section 7: luma and two chroma, without their offset of 128.
_YCC = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
_RGB = torch.linalg.inv(_YCC)


def _cosines() -> Tensor:
    """Return the orthonormal DCT-II of 8 points: frequencies x points."""
    frequency, point = torch.arange(BLOCK)[:, None], torch.arange(BLOCK) + 0.5
    rows = torch.cos(math.pi / BLOCK * frequency * point) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows


_DCT = _cosines()


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Return what a JPEG file would give back.

    Parameters
    ----------
    images : (n, 3, H, W) float in 0 to 1
        RGB, on any device.
    quality : (n,) int
        1 to 100 as libjpeg counts.

    Returns
    -------
    (n, 3, H, W) float, multiples of 1/255
        Not the same bits as libjpeg's, whose transform rounds to integers: one grey level off here
        and there, some more in blocks of which a frequency lies between two steps.
    """
    height, width = images.shape[2:]
    pixels = (images * 255).round()
    pixels = F.pad(pixels, (0, -width % MCU, 0, height % 2), mode="replicate")
    colours = torch.einsum("ij,njhw->nihw", _YCC.to(images), pixels)
    luma = colours[:, :1].round() - 128
    chroma = F.avg_pool2d(colours[:, 1:].round(), 2)
    # Halves are rounded down and up in turn, as libjpeg does.
    chroma[..., ::2] -= 0.125
    chroma[..., 1::2] += 0.125
    chroma = chroma.round()
    tables = scaled_tables(quality).to(images)
    luma = _quantised(luma, tables[:, :1])[..., :height, :width]
    # What pads a plane does not smooth into it.
    chroma = _quantised(chroma, tables[:, 1:])[..., : (height + 1) // 2, : (width + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    colours = torch.cat([luma + 128, chroma[..., :height, :width].round()], 1)
    pixels = torch.einsum("ij,njhw->nihw", _RGB.to(images), colours)
    return pixels.round().clamp(0, 255) / 255


def scaled_tables(quality: Tensor) -> Tensor:
    """Return the steps of luma and chroma for each quality (n,), as (n, 2, 64) float."""
    quality = quality.float().cpu()
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((_TABLES * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Round the frequencies of planes around 0 (n, c, H, W) to steps (n, 1, 64); pads below."""
    planes = F.pad(planes, (0, 0, 0, -planes.shape[2] % BLOCK), mode="replicate")
    n, count, height, width = planes.shape
    transform = _DCT.to(planes)
    steps = tables.view(n, 1, 1, BLOCK, 1, BLOCK)
    # Rows of blocks, and in them the block's rows; each matrix product is one for all blocks.
    blocks = planes.reshape(n, count, height // BLOCK, BLOCK, width)
    frequencies = (transform @ blocks).unflatten(4, (-1, BLOCK)) @ transform.T
    frequencies = (frequencies / steps).round_().mul_(steps)
    blocks = transform.T @ (frequencies @ transform).flatten(4)
    return blocks.reshape(n, count, height, width).round_().clamp_(-128, 127)
