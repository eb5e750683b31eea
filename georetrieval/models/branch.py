"""A branch: one encoder that its queries and the references share, and the similarity's scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from georetrieval.config import EncoderSettings
from georetrieval.models.encoder import Encoder
from georetrieval.models.weights import branch_scale, weights_file


class Branch(nn.Module):
    """An encoder for queries and references, with the scale of their similarity.

    The scale is learnt, from 1/0.07 on, as in CLIP, or from that of the weights that the encoder
    starts with; the paper trains its branches apart.

    Parameters
    ----------
    settings, load
        As of `Encoder`, which raises what it says.
    """

    def __init__(self, settings: EncoderSettings, *, load: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(settings, load=load)
        scale = None
        if load and isinstance(settings.pretrained, str):
            scale = branch_scale(weights_file(settings.pretrained))
        self.logit_scale = nn.Parameter(
            torch.tensor(math.log(1 / 0.07) if scale is None else scale)
        )

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before the softmax."""
        return self.logit_scale.exp().item()

    def forward(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed both images of each pair; returns the two (n, D) and the scale."""
        return self.encoder(query), self.encoder(reference), self.logit_scale.exp()
