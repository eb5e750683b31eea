"""Rows 5 to 7: projection alone, from pixels in memory to pixels in memory.

CVACT-like work: a panorama of 1664 x 832 RGB pixels, a BEV of 512 x 512 at 0.06 m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels
from bevgen.project import project_view
from tests.benchmarks.frame import Contest, Row, Setup, Way

GRID, VIEW, CAMERA = BevGrid(512, 0.06), PanoramaView(832, 1664), Pose(1.5)
Ways = Mapping[str, Callable[[], Any]]


def panorama() -> NDArray[np.uint8]:
    """Smooth noise: what is in the pixels does not change the time."""
    noise = np.random.default_rng(0).integers(0, 256, (104, 208, 3), np.uint8)
    return cv2.resize(noise, (VIEW.width, VIEW.height), interpolation=cv2.INTER_CUBIC)


def _ours(image: NDArray[np.uint8], out: NDArray[np.uint8], pose: Pose, antialias: bool) -> Any:
    return project_view(image, GRID, VIEW, pose, antialias=antialias, out=out)[0]


def remap_ways() -> Ways:
    """Return ways to apply a map that is there already, without anti-aliasing."""
    image, out = panorama(), np.empty((512, 512, 3), np.uint8)
    column, row, _ = (a.astype(np.float32) for a in panorama_pixels(GRID, VIEW, CAMERA))
    fixed = cv2.convertMaps(column, row, cv2.CV_16SC2)
    remap = partial(
        cv2.remap,
        image,
        dst=np.empty_like(out),
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return {
        "bevgen": partial(_ours, image, out, CAMERA, False),
        "cv2.remap, fixed-point maps": partial(remap, map1=fixed[0], map2=fixed[1]),
        "cv2.remap, float maps": partial(remap, map1=column, map2=row),
    }


def antialias_ways() -> Ways:
    """Return the default, and points alone."""
    image, out = panorama(), np.empty((512, 512, 3), np.uint8)
    return {
        "bevgen, anti-aliased": partial(_ours, image, out, CAMERA, True),
        "bevgen, points": partial(_ours, image, out, CAMERA, False),
    }


def ep_bev_map(heading: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Panorama columns and rows of all BEV pixels by the published formula, turned by radians."""
    offset = torch.arange(GRID.size) - (GRID.size / 2 - 0.5)
    i, j = torch.meshgrid(offset, offset, indexing="ij")
    azimuth = torch.remainder(torch.atan2(i, j) - math.pi / 2 + heading, 2 * math.pi)
    radius = torch.sqrt(i**2 + j**2) * GRID.resolution
    zenith = torch.atan2(radius, torch.full_like(radius, -CAMERA.height))
    return azimuth / (2 * math.pi) * VIEW.width, zenith / math.pi * VIEW.height


def sample_by_hand(image: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Bilinear values of (C, H, W) float by gathering the four neighbours."""
    _, height, width = image.shape
    left, upper = u.floor().long(), v.floor().long()
    right, lower = (left + 1).clamp(max=width - 1), (upper + 1).clamp(max=height - 1)
    a, b = u - left, v - upper
    left, upper = left.clamp(max=width - 1), upper.clamp(max=height - 1)
    return (
        image[:, upper, left] * ((1 - a) * (1 - b))
        + image[:, upper, right] * (a * (1 - b))
        + image[:, lower, left] * ((1 - a) * b)
        + image[:, lower, right] * (a * b)
    )


def pose_ways() -> Ways:
    """Return ways to project with a pose of its own for every image; the map is made each time.

    The published script knows no pitch and roll, and takes floats: its way gets its own formula,
    and the conversion to float for nothing.
    """
    image, out = panorama(), np.empty((512, 512, 3), np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()
    number = count()

    def ours(antialias: bool) -> None:
        k = next(number)
        pose = Pose(1.5, 7.0 * k, math.sin(k) * 3, math.cos(1.7 * k) * 3)
        _ours(image, out, pose, antialias)

    def by_hand() -> None:
        sample_by_hand(tensor, *ep_bev_map(0.1 * next(number)))

    def by_torch() -> None:
        u, v = ep_bev_map(0.1 * next(number))
        at = torch.stack([u / VIEW.width * 2 - 1, v / VIEW.height * 2 - 1], dim=-1)[None]
        F.grid_sample(tensor[None], at, mode="bilinear", align_corners=True)

    return {
        "bevgen": partial(ours, False),
        "bevgen, anti-aliased": partial(ours, True),
        "map in torch, bilinear by hand": by_hand,
        "map in torch, F.grid_sample": by_torch,
    }


def errors() -> dict[str, float]:
    """Largest errors in grey levels against the float64 reference, over the worst of images."""
    image = np.random.default_rng(1).integers(0, 256, (VIEW.height, VIEW.width, 3), np.uint8)
    column, row, _ = panorama_pixels(GRID, VIEW, CAMERA)
    left, upper = np.floor(column).astype(int), np.floor(row).astype(int)
    a, b = (column - left)[..., None], (row - upper)[..., None]
    x = [left % VIEW.width, (left + 1) % VIEW.width]
    y = [np.clip(upper + k, 0, VIEW.height - 1) for k in (0, 1)]
    exact = (image[y[0], x[0]] * (1 - a) + image[y[0], x[1]] * a) * (1 - b)
    exact += (image[y[1], x[0]] * (1 - a) + image[y[1], x[1]] * a) * b
    fixed = cv2.convertMaps(column.astype(np.float32), row.astype(np.float32), cv2.CV_16SC2)
    theirs = cv2.remap(image, *fixed, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    ours = project_view(image, GRID, VIEW, CAMERA, antialias=False)[0]
    return {"bevgen": np.abs(ours - exact).max(), "cv2.remap": np.abs(theirs - exact).max()}


def contestants(make: Callable[[], Ways], setup: Setup) -> Mapping[str, Way]:
    """Each way often enough to be timed."""
    repeats = setup.pick(20, 1)

    def often(run: Callable[[], Any]) -> None:
        for _ in range(repeats):
            run()

    return {name: Way(partial(often, run), repeats) for name, run in make().items()}


CONTESTS = [
    Contest(
        "remap",
        "1664x832 RGB pixels in memory to 512x512, the map is there, no anti-aliasing",
        "image",
        partial(contestants, remap_ways),
        [Row("5", "remap", "bevgen", "cv2.remap, fixed-point maps", 2, 3)],
    ),
    Contest(
        "poses",
        "the same with a pose of its own for each image, so the map is made each time",
        "image",
        partial(contestants, pose_ways),
        [Row("6", "a pose for each image", "bevgen", "map in torch, bilinear by hand", 10, 20)],
    ),
    Contest(
        "antialiasing",
        "the map is there, with and without anti-aliasing; 0.83x is 20 % of extra time",
        "image",
        partial(contestants, antialias_ways),
        [Row("7", "anti-aliasing", "bevgen, anti-aliased", "bevgen, points", 1 / 1.2, 1 / 1.1)],
    ),
]
