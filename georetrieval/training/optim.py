"""AdamW, and a learning rate that warms up linearly and falls as a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from georetrieval.config import OptimSettings


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Return AdamW; unless ``decay_all``, norms, biases and the scale are not decayed."""
    least = 0 if settings.decay_all else 2  # dimensions
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= least]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < least]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate(epoch: float, settings: OptimSettings) -> float:
    """Return the learning rate at a moment, in epochs since the start (0 to ``epochs``)."""
    warmup, end = settings.warmup_epochs, settings.epochs
    if epoch < warmup:
        return settings.learning_rate * epoch / warmup
    progress = (epoch - warmup) / max(end - warmup, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
