"""Embeddings as files: computed once, searched often, bound to the weights that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ShardSet, written_whole
from georetrieval.config import BranchName
from georetrieval.data.loading import read_chunks
from georetrieval.errors import DataError
from georetrieval.models.encoder import Encoder, check_size
from georetrieval.transforms.network_input import to_network
from georetrieval.transforms.orientation import limit_fov, rotate, visible_columns


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors of some rows of a shard file.

    Attributes
    ----------
    ids : list of str
    matrix : (N, D) float32
        Unit vectors.
    positions : (N, 2) float64
        Latitude and longitude in degrees, NaN where unknown.
    checkpoint
        Hash of the weights.
    data
        Digest of the shards' plan and settings, and of the images' checksums.
    """

    ids: list[str]
    matrix: NDArray[np.float32]
    positions: NDArray[np.float64]
    checkpoint: str
    data: str = ""

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all."""
        with written_whole(path) as part, part.open("wb") as file:
            np.savez(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                matrix=self.matrix,
                positions=self.positions,
                checkpoint=np.array(self.checkpoint),
                data=np.array(self.data),
            )

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        """Read a file of `save`.

        Raises
        ------
        DataError
            If it cannot be read.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
                return cls(
                    parts["ids"].tolist(),
                    parts["matrix"],
                    parts["positions"],
                    str(parts["checkpoint"]),
                    str(parts["data"]),
                )
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise DataError(f"{path} holds no embeddings: {error}") from error


@torch.no_grad()
def embed_rows(
    encoder: Encoder,
    shards: ShardSet,
    rows: NDArray[np.int64],
    size: tuple[int, int] | None,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    batch_size: int = 128,
    threads: int = 2,
    kind: BranchName | None = None,
    degrees: NDArray[np.float64] | None = None,
    fov: float = 360.0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Embed rows of shards.

    Parameters
    ----------
    encoder
        Left in the mode it was in; used in evaluation mode.
    shards, rows
        What to embed, in this order.
    size
        Height and width for the network; None as stored.
    device, precision
        Where, and in which arithmetic.
    batch_size, threads
        Images at once; readers.
    kind
        Of queries; None for references, which are embedded whole.
    degrees : (n,) float64, optional
        Rotates each query first, for evaluation with unknown heading.
    fov
        What is left of each query; see `limit_fov`.
    on_progress
        Hears how many images are done.

    Returns
    -------
    (n, D) float32 on the device

    Raises
    ------
    SettingsError
        If the encoder cannot take images of that size.
    """
    height, width = size or shards.image_shape[:2]
    seen = visible_columns(width, fov) if kind == "panorama" else width
    check_size(encoder, (height, seen), "the encoder", f"{shards.kind} images")
    training = encoder.training
    encoder.eval()
    parts, done = [], 0
    mixed = precision != torch.float32
    try:
        for images in read_chunks(shards, rows, batch_size, threads=threads):
            batch = to_network(images, size, device)
            if kind is not None:
                if degrees is not None:
                    angles = torch.from_numpy(degrees[done : done + len(batch)]).float()
                    batch = rotate(batch, angles, kind)
                batch = encoder.as_query(limit_fov(batch, fov, kind), kind)
            with torch.autocast(device.type, precision, enabled=mixed):
                parts.append(encoder(batch))
            done += len(batch)
            on_progress(done)
    finally:
        encoder.train(training)
    return torch.cat(parts)
