"""Symmetric InfoNCE with label smoothing, over the batches of all processes."""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor


class InfoNCE(ClipLoss):
    """Each query should pick its own reference among all of the batch, and the reverse.

    open_clip's loss, which gathers embeddings with their gradients across processes, with label
    smoothing added (0.1 in Sample4Geo and EP-BEV).

    Parameters
    ----------
    label_smoothing
        Share of the target spread over all references, 0 to 1.
    rank, world_size
        This process among all.
    """

    def __init__(self, *, label_smoothing: float, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(gather_with_grad=True, rank=rank, world_size=world_size)
        self.label_smoothing = label_smoothing

    def forward(self, query: Tensor, reference: Tensor, scale: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the loss of (n, D) unit vectors, row i of one belonging to row i of the other."""
        by_query, by_reference = self.get_logits(query, reference, scale)
        target = self.get_ground_truth(query.device, len(by_query))
        losses = [
            F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
            for logits in (by_query, by_reference)
        ]
        return (losses[0] + losses[1]) / 2
