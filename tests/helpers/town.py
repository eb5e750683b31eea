"""A tiny town: panorama files, shards of both branches and of tiles, and a run of random weights.

A tile is the BEV of its place, so that even random weights find most places.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bevgen import BevSettings, ImageSettings, ShardSet, convert
from georetrieval.config import DataSettings, EncoderSettings
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import save_branch
from georetrieval.run import Run
from tests.helpers.runs import panoramas
from tests.helpers.world import tiny_settings, write_shards

ENCODER = EncoderSettings(name="test_convnext2", pretrained=False)
BEV = BevSettings(size=32, resolution=0.5)


@dataclass(frozen=True)
class Town:
    """Folders and files of the town."""

    root: Path
    ids: list[str]
    positions: np.ndarray
    run: Run

    @property
    def photos(self) -> list[Path]:
        return [self.root / "photos" / f"{name}.png" for name in self.ids]

    @property
    def poses(self) -> Path:
        return self.root / "poses.csv"

    @property
    def tiles(self) -> Path:
        return self.root / "satellite.h5"


def make_town(root: Path, count: int = 12, *, headings: bool = False) -> Town:
    """Draw places 50 metres apart; with ``headings`` the cameras look anywhere, which poses say."""
    names = [f"p{k:03d}.png" for k in range(count)]
    panoramas(root / "photos", names)
    random = np.random.default_rng(5)
    positions = np.stack([48 + np.arange(count) * 5e-4, np.full(count, 11.0)], axis=1)
    looks = random.uniform(0, 360, count).round(1) if headings else np.zeros(count)
    with (root / "poses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "id", "heading", "latitude", "longitude"])
        for name, look, (latitude, longitude) in zip(names, looks, positions, strict=True):
            writer.writerow([name, name[:-4], look, f"{latitude:.6f}", f"{longitude:.6f}"])
    poses = root / "poses.csv"
    convert(root / "photos", root / "bev.h5", BEV, poses=poses)
    panorama = ImageSettings("panorama", 32, 64, turn_to_north=headings)
    convert(root / "photos", root / "panorama.h5", panorama, poses=poses)
    bevs = ShardSet(root / "bev.h5")
    ids = list(bevs.ids)
    write_shards(root / "satellite.h5", "satellite", ids, bevs.read(range(count)), positions)
    run = Run(root / "run")
    run.folder.mkdir()
    for name in ("panorama", "bev"):
        torch.manual_seed(0)
        save_branch(run.checkpoint(name), Branch(ENCODER), ENCODER, name)
    data = DataSettings(root=root, pairs=None)
    run.write_settings(tiny_settings("panorama", "bev", data=data))
    return Town(root, ids, positions, run)
