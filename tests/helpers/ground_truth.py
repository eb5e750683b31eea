"""Ground planes whose colour is known everywhere, and panoramas of them: truth for projections.

Written backwards on purpose: a projection asks where a ground point lies on the panorama; here each
panorama pixel sends a ray, the ray is turned into the world by rotating its axes one after the
other, and the ground where it lands is asked for its colour. No code of `bevgen` is involved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
# Grey value (0 to 255) of the ground at x metres east and y metres north.
Texture = Callable[[Array, Array], Array]


def waves(x: Array, y: Array, wavelength: float = 4.5) -> Array:
    """Three cosines, 7.5 to 247.5; the phase of the third, 1, lies within its cosine."""
    k = 2 * np.pi / wavelength
    return 127.5 + 40 * (np.cos(k * x) + np.cos(k * y) + np.cos(k * (x + y) / 1.7 + 1))


def random_waves(seed: int, wavelength: float = 4.5) -> Texture:
    """Six cosines of random direction and phase, each of at least the given wavelength."""
    rng = np.random.default_rng(seed)
    direction, phase = rng.uniform(0, 2 * np.pi, (2, 6))
    k = 2 * np.pi / (wavelength * rng.uniform(1, 3, 6))
    amplitude = rng.uniform(5, 20, 6)

    def texture(x: Array, y: Array) -> Array:
        total = np.full(np.broadcast(x, y).shape, 127.5)
        for a, k_x, k_y, p in zip(
            amplitude, k * np.cos(direction), k * np.sin(direction), phase, strict=True
        ):
            total += a * np.cos(k_x * x + k_y * y + p)
        return total

    return texture


def blurred_noise(seed: int, sigma: float = 1.2) -> Texture:
    """White noise blurred by a Gaussian of ``sigma`` metres; repeats every 25.6 m."""
    pitch = 0.2
    noise = np.random.default_rng(seed).normal(size=(128, 128))
    noise = ndimage.gaussian_filter(noise, sigma / pitch, mode="wrap")
    noise = 127.5 + (noise - noise.mean()) / np.abs(noise - noise.mean()).max() * 120
    return _tiled(noise, pitch, order=3)


def fine_noise(seed: int) -> Texture:
    """Noise with a 1/f spectrum down to 2 cm; repeats every 20.48 m."""
    n, pitch = 2048, 0.01
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(np.random.default_rng(seed).normal(size=(n, n)))
    noise = np.fft.irfft2(white / frequency, (n, n))
    return _tiled(np.clip(127.5 + 40 * noise / noise.std(), 0, 255), pitch, order=1)


def _tiled(image: Array, pitch: float, order: int) -> Texture:
    """An image laid on the ground again and again, ``pitch`` metres a pixel."""
    coefficients = ndimage.spline_filter(image, order, mode="grid-wrap") if order > 1 else image

    def texture(x: Array, y: Array) -> Array:
        at = np.stack(np.broadcast_arrays(y / pitch, x / pitch))
        return ndimage.map_coordinates(
            coefficients, at, order=order, mode="grid-wrap", prefilter=False
        )

    return texture


@dataclass(frozen=True)
class Shot:
    """A panorama to be taken: its size and field in pixels and degrees, the camera's stand."""

    rows: int = 832
    columns: int = 1664
    height: float = 2.0
    heading: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    vertical_fov: tuple[float, float] = (90.0, -90.0)
    horizontal_fov: tuple[float, float] = (-180.0, 180.0)

    def axes(self) -> tuple[Array, Array, Array]:
        """Unit vectors (east, north, up) of the camera's right, forward and up."""
        turn, nose, lean = map(math.radians, (self.heading, self.pitch, self.roll))
        up = np.array([0.0, 0.0, 1.0])
        forward = np.array([math.sin(turn), math.cos(turn), 0.0])
        right = np.array([math.cos(turn), -math.sin(turn), 0.0])
        # Nose up: forward rises, up falls back.
        forward, up = (
            math.cos(nose) * forward + math.sin(nose) * up,
            math.cos(nose) * up - math.sin(nose) * forward,
        )
        # Right side down: right sinks, up leans to the right.
        right, up = (
            math.cos(lean) * right - math.sin(lean) * up,
            math.cos(lean) * up + math.sin(lean) * right,
        )
        return right, forward, up

    def rays(self, row: Array, column: Array) -> Array:
        """Unit vectors (3, ...) in the world; the upper left pixel reaches from 0 to 1."""
        (top, bottom), (left, right) = self.vertical_fov, self.horizontal_fov
        elevation = np.deg2rad(top + (bottom - top) * row / self.rows)
        azimuth = np.deg2rad(left + (right - left) * column / self.columns)
        to_right = np.cos(elevation) * np.sin(azimuth)
        to_front = np.cos(elevation) * np.cos(azimuth)
        upwards = np.sin(elevation) + 0 * azimuth
        right_axis, forward_axis, up_axis = self.axes()
        return np.stack(
            [
                to_right * right_axis[k] + to_front * forward_axis[k] + upwards * up_axis[k]
                for k in range(3)
            ]
        )

    def take(self, texture: Texture, supersample: int = 1, sky: float = 0.0) -> Array:
        """Photograph the ground (rows, columns): a ray through each pixel's centre, or n x n."""
        image = np.zeros((self.rows, self.columns))
        for v, u in np.ndindex(supersample, supersample):
            row = np.arange(self.rows)[:, None] + (v + 0.5) / supersample
            column = np.arange(self.columns)[None, :] + (u + 0.5) / supersample
            east, north, up = self.rays(row, column)
            ground = up < 0
            reach = self.height / -up[ground]
            light = np.full(image.shape, sky)
            light[ground] = texture(reach * east[ground], reach * north[ground])
            image += light
        return image / supersample**2


def seen_from_above(texture: Texture, size: int, resolution: float, supersample: int = 1) -> Array:
    """The perfect BEV (size, size): the ground at pixel centres, or the mean of n x n points."""
    total = np.zeros((size, size))
    for v, u in np.ndindex(supersample, supersample):
        north = (size / 2 - np.arange(size) - (v + 0.5) / supersample) * resolution
        east = (np.arange(size) + (u + 0.5) / supersample - size / 2) * resolution
        total += texture(*np.meshgrid(east, north))
    return total / supersample**2


def as_photo(image: Array) -> NDArray[np.uint8]:
    """Round to 8 bits; (H, W) becomes (H, W, 1)."""
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)[..., None]


def psnr(image: NDArray[Any], truth: Array, where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of a grey image, peak 255, over the pixels ``where``."""
    error = np.squeeze(image).astype(np.float64) - truth
    mean_square = np.mean(error**2 if where is None else error[where] ** 2)
    return float(10 * np.log10(255**2 / mean_square))
