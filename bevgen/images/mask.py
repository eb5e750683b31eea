"""Masks as image files: white where panoramas are used, black where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError, PanoramaError
from bevgen.images.decoding import read_image
from bevgen.projection.masking import Mask
from bevgen.writing import written_whole


def read_mask(path: Path) -> Mask:
    """Read a mask from an image file: what is 128 and brighter is used.

    Raises
    ------
    InputError
        If it is no image, or hides everything.
    """
    try:
        pixels, _ = read_image(path)
        return Mask.of(pixels.mean(axis=2) >= 128)
    except (PanoramaError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def write_mask(path: Path, use: NDArray[np.bool_]) -> None:
    """Write a mask as a PNG file of one bit a pixel.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    from PIL import Image

    with written_whole(path) as part:
        Image.fromarray(use).save(part, format="PNG", optimize=True)
