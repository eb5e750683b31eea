"""Turn an image of any mode that the four formats bring into sRGB of 8 bits."""

from __future__ import annotations

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from bevgen.errors import PanoramaError

logger = logging.getLogger(__name__)


def as_srgb(image: Image.Image) -> Image.Image:
    """Convert an image to sRGB.

    Raises
    ------
    PanoramaError
        If its pixels are floating-point, signed or of 32 bits.
    """
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise PanoramaError(f"{kind} pixels: convert it to 8 or 16 bits first")
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return _transformed(image, lab)
    # The transparent colour of palettes; converting with it warns or changes the palette.
    image.info.pop("transparency", None)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        transform = to_srgb(profile, image.mode)
        if transform is not None:
            return _transformed(image, transform)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Round 16-bit grey to 8 bits: 0 stays 0, 65535 becomes 255."""
    values = np.asarray(image).astype(np.uint32)
    largest = 65535
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(ExifTags.Base.BitsPerSample) == (12,):  # Pillow leaves them 0 to 4095
            largest = 4095
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0:  # and white at 0
            values = largest - values
    grey = Image.fromarray(((values * 255 + largest // 2) // largest).astype(np.uint8))
    grey.info = image.info
    return grey


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform by which pixels of an ICC profile become sRGB; None if it is not needed or broken.

    A profile is sRGB if it leaves a lattice of colours within one grey level: there are dozens of
    sRGB profiles, under many names. Transforms may be used by several threads at once.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
        )
    except Exception as error:
        logger.debug("ICC profile is damaged or of other colours, and left aside: %s", error)
        return None
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 18, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    colours = Image.fromarray(lattice if mode == "RGB" else lattice[..., 0])
    before = np.asarray(colours.convert("RGB"), np.int16)
    after = np.asarray(_transformed(colours, transform), np.int16)
    return None if np.abs(after - before).max() <= 1 else transform


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Apply a colour transform to a copy."""
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # only in place there is no result
    return result
