"""Panoramas of open country: clouds and sky, and below a skyline the sea or dry land."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bevgen.geometry import PanoramaView, Pose

Floats = NDArray[np.float64]
Skyline = Callable[[Floats], Floats]  # elevations in degrees at azimuths in radians

SEA, FIELD, DESERT = (0.16, 0.27, 0.36), (0.36, 0.42, 0.18), (0.78, 0.66, 0.48)
_PALE, _BLUE, _WHITE = (0.80, 0.86, 0.90), (0.30, 0.50, 0.80), (0.95, 0.95, 0.96)
_EYE = 2.0  # metres above what lies below
_FINER = 2  # rays along each side of a pixel


def horizon(azimuth: Floats) -> Floats:
    """Where the sky ends at sea and over plains."""
    return np.zeros_like(azimuth)


def landscape(
    pose: Pose,
    skyline: Skyline = horizon,
    *,
    width: int = 1024,
    ground: tuple[float, float, float] = SEA,
    haze: float = 0.2,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Draw a panorama (width / 2, width, 3), as a JPEG file of quality 90 shows it.

    Parameters
    ----------
    pose
        How the camera stands; only its angles count.
    skyline
        Where the sky ends.
    ground
        Red, green and blue, 0 to 1, of what is below it.
    haze
        Part of the contrast that is lost at the skyline, 0 to 1.
    seed
        Of clouds, waves and grain.
    """
    rng = np.random.default_rng(seed)
    fine = width * _FINER
    right, up = (np.arange(n) + 0.5 for n in (fine, fine // 2))
    azimuth, elevation = (
        np.radians(a)[..., None]
        for a in PanoramaView(fine // 2, fine).to_angles(right, up[:, None])
    )
    axes = pose.world_from_camera().T
    rays = np.cos(elevation) * (np.sin(azimuth) * axes[0] + np.cos(azimuth) * axes[1])
    x, y, z = np.moveaxis(rays + np.sin(elevation) * axes[2], -1, 0)
    above = np.maximum(z, 0)
    cloud = _noise(rng, x / (above + 0.1), y / (above + 0.1)) * np.minimum(8 * above, 1)
    sky = _mix(_mix(_PALE, _BLUE, 1 - np.exp(-4 * above)), _WHITE, np.clip(cloud, 0, 1))
    away = _EYE / np.maximum(-z, 1e-3)
    wave = _noise(rng, x * away, y * away) / (1 + away / 20)
    below = np.degrees(np.arcsin(z)) - skyline(np.arctan2(x, y))
    lit = np.asarray(ground) * (1 + 0.2 * wave[..., None])
    land = _mix(lit, _PALE, haze * np.exp(np.minimum(below, 0) / 0.3))
    colour = np.where(below[..., None] > 0, sky, land)
    colour = colour.reshape(width // 2, _FINER, width, _FINER, 3).mean(axis=(1, 3))
    grain = rng.normal(0, 2, (*colour.shape[:2], 1))
    data = io.BytesIO()
    Image.fromarray(np.clip(255 * colour + grain + 0.5, 0, 255).astype(np.uint8)).save(
        data, "JPEG", quality=90
    )
    return np.asarray(Image.open(data))


def _mix(one: ArrayLike, other: ArrayLike, share: Floats) -> Floats:
    share = share[..., None]
    return np.asarray(one) * (1 - share) + np.asarray(other) * share


def _noise(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Smooth random heights of deviation 1 at points in metres; they repeat after 16."""
    size = 512
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size, 1 / size)] * 2))
    power = np.where((frequency >= 8) & (frequency < 128), (frequency + 1) ** -1.7, 0)
    heights = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * power).real
    heights /= heights.std()
    return heights[tuple((v * size / 16).astype(int) % size for v in (x, y))]
