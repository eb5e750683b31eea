"""Symmetric InfoNCE with label smoothing, over the batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, gather_features
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
        """Compare a batch of pairs.

        Parameters
        ----------
        query, reference : (n, D) unit vectors
            Row i of one belongs to row i of the other. Queries beyond the references belong to
            none: no reference should pick them.
        scale
            What similarities are multiplied by.
        """
        query, others = query[: len(reference)], query[len(reference) :]
        by_query, by_reference = self.get_logits(query, reference, scale)
        if len(others):
            by_reference = torch.cat([by_reference, self._pair(others, reference, scale).T], 1)
        target = self.get_ground_truth(query.device, len(by_query))
        losses = [
            F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
            for logits in (by_query, by_reference)
        ]
        return (losses[0] + losses[1]) / 2

    def _pair(self, others: Tensor, reference: Tensor, scale: Tensor) -> Tensor:
        """Logits of all processes' further queries against all their references."""
        if self.world_size > 1:
            found: Any = gather_features(
                others, reference, gather_with_grad=True, rank=self.rank, world_size=self.world_size
            )
            others, reference = found
        return scale * others @ reference.T
