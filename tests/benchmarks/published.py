"""The published algorithms, written anew from their descriptions, as baselines.

EP-BEV (ECCV 2024) and Sample4Geo (ICCV 2023) carry no licence, so none of their code is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

cv2.setNumThreads(1)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


# --- EP-BEV: a panorama file to a BEV file ---


def ep_bev_map(
    width: int, height: int, size: int = 512, camera: float = -1.5, metres: float = 0.06
) -> tuple[torch.Tensor, torch.Tensor]:
    """Panorama columns and rows of every BEV pixel, by the paper's formula."""
    centre = size / 2 - 0.5
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    down, right = i - centre, j - centre
    radius = torch.sqrt(down**2 + right**2)
    azimuth = torch.remainder(torch.atan2(down, right) - math.pi / 2, 2 * math.pi)
    zenith = torch.atan2(radius * metres, torch.full_like(radius, camera))
    return azimuth / (2 * math.pi) * width, zenith / math.pi * height


def sample_by_hand(image: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of (C, H, W) float by gathering four neighbours; 0 outside."""
    channels, height, width = image.shape
    left, upper = torch.floor(u), torch.floor(v)
    total = torch.zeros(channels, *u.shape)
    for x, y in ((left, upper), (left + 1, upper), (left, upper + 1), (left + 1, upper + 1)):
        weight = (1 - torch.abs(u - x)) * (1 - torch.abs(v - y))
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
        values = image.reshape(channels, -1)[:, index.reshape(-1)].reshape(channels, *u.shape)
        total += values * (weight * inside)
    return total


def ep_bev(source: Path, target: Path) -> None:
    """Decode, float, map and sample with torch, save as JPEG of quality 75."""
    pixels = np.asarray(Image.open(source).convert("RGB"))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
    u, v = ep_bev_map(image.shape[2], image.shape[1])
    bev = sample_by_hand(image, u, v).permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(bev).save(target, quality=75)


# --- Sample4Geo: loader, scoring, neighbours, batches ---


def load_image(path: Path, size: int) -> NDArray[np.float32]:
    """Read, resize and normalize one image, as float32 (3, size, size)."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    if image.shape[:2] != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
    normal = (image.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def recalls(
    queries: torch.Tensor, references: torch.Tensor, positive: NDArray[np.int64]
) -> list[float]:
    """Score all queries into one matrix, then count in a Python loop over the queries."""
    parts = [(part @ references.T).cpu() for part in queries.split(1000)]
    similarity = torch.cat(parts)
    ks = [1, 5, 10, len(references) // 100]
    hits = [0] * len(ks)
    for i in range(len(queries)):
        ranking = (similarity[i] > similarity[i, positive[i]]).sum()
        for n, k in enumerate(ks):
            if ranking < k:
                hits[n] += 1
    return [100 * count / len(queries) for count in hits]


def near_on_map(positions: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Nearest places by the dense matrix of all great-circle distances."""
    from sklearn.metrics import DistanceMetric

    matrix = DistanceMetric.get_metric("haversine").pairwise(np.deg2rad(positions))
    np.fill_diagonal(matrix, np.inf)
    return torch.from_numpy(matrix).topk(count, dim=1, largest=False).indices.numpy()


def shuffle(neighbours: Sequence[Sequence[int]], batch_size: int, take: int) -> list[list[int]]:
    """Fill batches from a list, popping its head and asking lists and sets who is in already."""
    random = np.random.default_rng(0)
    waiting = random.permutation(len(neighbours)).tolist()
    used: set[int] = set()
    batches: list[list[int]] = []
    batch: list[int] = []
    while waiting:
        pair = waiting.pop(0)
        if pair in used or pair in batch:
            continue
        batch.append(pair)
        used.add(pair)
        near = list(neighbours[pair])
        nearest, others = near[: take // 2], near[take // 2 :]
        random.shuffle(others)
        for other in nearest + others[: take - take // 2]:
            if len(batch) >= batch_size:
                break
            if other not in batch and other not in used:
                batch.append(other)
                used.add(other)
        if len(batch) >= batch_size:
            batches.append(batch)
            batch = []
    return batches
