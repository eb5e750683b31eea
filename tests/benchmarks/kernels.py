"""Projection alone, from pixels in memory to pixels in memory, beside its peers.

Run as ``python -m tests.benchmarks.kernels``. CVACT-like work, one thread: a panorama of 1664 x 832
RGB pixels, a BEV of 512 x 512 at 0.06 m. All ways take turns; a ratio is the median of the ratios
within a round, of the time that the thread itself spent.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything that reads it is imported

import math
import sys
import time
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

cv2.setNumThreads(1)

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


def measure(ways: Ways, rounds: int) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Milliseconds of every way in every round, by the thread's own time and by the wall clock."""
    for run in ways.values():
        run()
    times = {name: {"cpu": np.empty(rounds), "wall": np.empty(rounds)} for name in ways}
    names = list(ways)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            wall, cpu = time.perf_counter(), time.thread_time()
            ways[name]()
            times[name]["cpu"][k] = (time.thread_time() - cpu) * 1e3
            times[name]["wall"][k] = (time.perf_counter() - wall) * 1e3
    return times


def rows(rounds: int = 101) -> list[dict[str, Any]]:
    """Measure rows 5 to 7: a dict for each pair, times in milliseconds, ratio = peer / ours."""
    found = []
    for number, ways, own in ((5, remap_ways(), 1), (6, pose_ways(), 2), (7, antialias_ways(), 1)):
        times = measure(ways, rounds)
        names = list(ways)
        for ours in names[:own]:
            for peer in names[own:]:
                pair = times[ours], times[peer]
                ratios = {clock: pair[1][clock] / pair[0][clock] for clock in ("cpu", "wall")}
                found.append(
                    {
                        "row": number,
                        "name": f"{ours} / {peer}",
                        "ours_ms": float(np.median(pair[0]["cpu"])),
                        "peer_ms": float(np.median(pair[1]["cpu"])),
                        "ours_min_ms": float(pair[0]["cpu"].min()),
                        "peer_min_ms": float(pair[1]["cpu"].min()),
                        "ratio": float(np.median(ratios["cpu"])),
                        "ratio_wall": float(np.median(ratios["wall"])),
                    }
                )
    return found


def main() -> None:
    """Measure, and print a table."""
    lines = [
        "| row | ours / peer | ms | peer, ms | least | peer, least | ratio | by the wall clock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        cells = [row["row"], row["name"], *(f"{v:.2f}" for v in list(row.values())[2:])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for name, error in errors().items():
        lines.append(f"{name}: at most {error:.2f} grey levels off on white noise")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
