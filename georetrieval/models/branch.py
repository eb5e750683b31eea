"""Encoders by name, and branches: one encoder that both of a branch's views share."""

from __future__ import annotations

import difflib
import logging
import math
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from georetrieval.config import EncoderSettings
from georetrieval.errors import CheckpointError, SettingsError
from georetrieval.models.weights import branch_scale, load_weights, weights_file

log = logging.getLogger(__name__)

OPEN_CLIP = "open_clip:"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """Images to unit vectors.

    Parameters
    ----------
    settings
        Which model; see `EncoderSettings`.
    load
        Whether to look for pretrained weights; not needed when a checkpoint follows.

    Raises
    ------
    SettingsError
        If there is no such model.
    CheckpointError
        If given weights do not fit it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: EncoderSettings, *, load: bool = True) -> None:
        super().__init__()
        pretrained = settings.pretrained if load else False
        if settings.name.startswith(OPEN_CLIP):
            self.trunk, mean, std = _open_clip_tower(settings, pretrained)
        else:
            self.trunk, mean, std = _timm_trunk(settings.name, pretrained)
        if settings.gradient_checkpointing:
            trunk: Any = self.trunk
            trunk.set_grad_checkpointing(True)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed (n, 3, H, W) float in 0 to 1 as (n, D) float32 of length 1."""
        features = self.trunk((images - self.mean) / self.std)
        return F.normalize(features.float(), dim=-1)


class Branch(nn.Module):
    """An encoder for a query view and the reference, with the scale of their similarity.

    The scale is learnt, from 1/0.07 on, as in CLIP, or from that of the weights that the encoder
    starts with; the paper trains its branches apart.
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

    def forward(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed both views; returns the two (n, D) and the scale."""
        return self.encoder(query), self.encoder(reference), self.logit_scale.exp()


Trunk = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]


def _timm_trunk(name: str, pretrained: bool | str) -> Trunk:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise SettingsError(
            f"timm has no model {name!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise SettingsError(f"timm has no weights {name!r}; it has {tags or 'none'}")
    trunk = None
    if pretrained is True:
        try:
            with _hub_unless_unreachable():
                trunk = _timm_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # whatever the model hub and its client raise without a network
            _say_random(name, error)
    if trunk is None:
        # The classifier is kept until weights from a file have been matched.
        trunk = _timm_model(name, pretrained=False)
        if isinstance(pretrained, str):
            load_weights(trunk, weights_file(pretrained))
        trunk.reset_classifier(0)
    cfg = trunk.pretrained_cfg
    return trunk, cfg.get("mean", IMAGENET_MEAN), cfg.get("std", IMAGENET_STD)


def _timm_model(name: str, **options: Any) -> Any:
    try:
        # A ViT takes images of any size only when told so; most other models know no such option.
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, **options)


def _open_clip_tower(settings: EncoderSettings, pretrained: bool | str) -> Trunk:
    import open_clip

    name = settings.name.removeprefix(OPEN_CLIP)
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), 3)
        raise SettingsError(
            f"open_clip has no model {name!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    if settings.query_size != settings.reference_size:
        raise SettingsError(
            f"{settings.name} takes one size of images: make query_size and reference_size equal"
        )
    height, width = settings.query_size or (None, None)
    # The ResNets know only squares, by one number.
    size: Any = height if height == width else settings.query_size
    model = None
    if pretrained is True:
        tags = open_clip.list_pretrained_tags_by_model(name)
        try:
            with _hub_unless_unreachable():
                model = open_clip.create_model(name, tags[0], force_image_size=size)
        except Exception as error:  # as above; IndexError where nobody has published any
            _say_random(settings.name, error)
    elif isinstance(pretrained, str) and branch_scale(weights_file(pretrained)) is None:
        file = str(weights_file(pretrained))
        try:
            model = open_clip.create_model(name, file, force_image_size=size)
        except Exception as error:
            raise CheckpointError(f"{file} does not fit {settings.name}: {error}") from error
    if model is None:
        try:
            model = open_clip.create_model(name, force_image_size=size)
        except TypeError as error:
            raise SettingsError(
                f"{settings.name} takes square images only, not {height}x{width}"
            ) from error
    visual: Any = model.visual
    if isinstance(pretrained, str) and branch_scale(weights_file(pretrained)) is not None:
        load_weights(visual, weights_file(pretrained))
    return (
        visual,
        getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN,
        getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD,
    )


def _say_random(name: str, error: Exception) -> None:
    log.warning(
        "%s: random weights, since published ones could not be had: %s",
        name,
        "nobody has published any"
        if isinstance(error, IndexError)
        else str(error).partition("\n")[0] or type(error).__name__,
    )


@contextmanager
def _hub_unless_unreachable() -> Iterator[None]:
    """Let the model hub's client use its cache alone where the hub does not answer.

    Left to itself, it tries again for most of a minute.
    """
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    if not before and not urllib.request.getproxies():
        try:
            port = hub.port or (80 if hub.scheme == "http" else 443)
            socket.create_connection((hub.hostname or "", port), timeout=5).close()
        except OSError:
            huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
