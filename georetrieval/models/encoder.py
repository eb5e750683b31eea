"""Encoders by name: a model of timm, or the image tower of a CLIP model."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from georetrieval.config import BranchName, EncoderSettings, Size
from georetrieval.errors import CheckpointError, SettingsError
from georetrieval.models.published import OPEN_CLIP, obstacle, published, way_out
from georetrieval.models.weights import branch_scale, load_weights, no_weights, weights_file
from georetrieval.transforms.orientation import cut_circle

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Trunk = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]


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
        If weights that are asked for cannot be had, or do not fit it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: EncoderSettings, *, load: bool = True) -> None:
        super().__init__()
        self.round_queries = settings.round_queries
        wanted = settings if load else settings.model_copy(update={"pretrained": False})
        if settings.name.startswith(OPEN_CLIP):
            self.trunk, mean, std = _open_clip_tower(wanted)
        else:
            self.trunk, mean, std = _timm_trunk(wanted)
        if settings.gradient_checkpointing:
            trunk: Any = self.trunk
            trunk.set_grad_checkpointing(True)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def as_query(self, images: Tensor, kind: BranchName) -> Tensor:
        """Cut queries (n, 3, H, W) as this model wants them; see ``round_queries``."""
        return cut_circle(images) if self.round_queries and kind == "bev" else images

    def forward(self, images: Tensor) -> Tensor:
        """Embed (n, 3, H, W) float in 0 to 1 as (n, D) float32 of length 1."""
        features = self.trunk((images - self.mean) / self.std)
        return F.normalize(features.float(), dim=-1)


@torch.no_grad()
def check_size(encoder: Encoder, size: Size, model: str, images: str) -> None:
    """Refuse a model that cannot take images of a size.

    Parameters
    ----------
    encoder
        Left in the mode it was in.
    size
        Height and width in the network.
    model, images
        What the refusal calls them.

    Raises
    ------
    SettingsError
        It names both, and says what the model said.
    """
    training = encoder.training
    try:
        encoder.eval()(torch.zeros(1, 3, *size, device=encoder.mean.device))
    except Exception as error:  # whatever a model says to a size that it was not made for
        raise SettingsError(
            f"{model} cannot take {images} of {size[0]}x{size[1]} pixels ({error})"
        ) from error
    finally:
        encoder.train(training)


def _timm_trunk(settings: EncoderSettings) -> Trunk:
    name, pretrained = settings.name, settings.pretrained
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        _refuse("timm", name, architecture, timm.list_models())
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise SettingsError(f"timm has no weights {name!r}; it has {tags or 'none'}")
    if pretrained is True:
        source = _source(settings)
        # The file itself, where it is here: the hub need not answer then.
        here = source.cached() if source.repository else None
        overlay = {"pretrained_cfg_overlay": {"file": str(here)}} if here else {}
        try:
            trunk = _timm_model(name, pretrained=True, num_classes=0, **overlay)
        except Exception as error:  # whatever the hub and its client raise
            raise _unfetched(settings, error) from error
    else:
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


def _open_clip_tower(settings: EncoderSettings) -> Trunk:
    import open_clip

    name, pretrained = settings.name.removeprefix(OPEN_CLIP), settings.pretrained
    if name not in open_clip.list_models():
        _refuse("open_clip", name, name, open_clip.list_models())
    if settings.query_size != settings.reference_size:
        raise SettingsError(
            f"{settings.name} takes one size of images: make query_size and reference_size equal"
        )
    height, width = settings.query_size or (None, None)
    # The ResNets know only squares, by one number.
    size: Any = height if height == width else settings.query_size
    file = weights_file(pretrained) if isinstance(pretrained, str) else None
    if file is not None and (reason := no_weights(file)):
        raise CheckpointError(f"{file} holds no weights: {reason}")
    ours = file is not None and branch_scale(file) is not None
    weights = None
    if pretrained is True:
        _source(settings)
        weights = open_clip.list_pretrained_tags_by_model(name)[0]
    elif file is not None and not ours:
        weights = str(file)
    try:
        visual: Any = open_clip.create_model(name, weights, force_image_size=size).visual
    except TypeError as error:
        raise SettingsError(
            f"{settings.name} takes square images only, not {height}x{width}"
        ) from error
    except Exception as error:  # whatever the hub, its client and unpickling raise
        if file is not None:
            raise CheckpointError(f"{file} does not fit {settings.name}: {error}") from error
        raise _unfetched(settings, error) from error
    if file is not None and ours:
        load_weights(visual, file)
    return (
        visual,
        getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN,
        getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD,
    )


def _refuse(library: str, name: str, model: str, models: list[str]) -> None:
    near = difflib.get_close_matches(model, models, 3)
    hint = f"; it has {', '.join(near)}" if near else ""
    raise SettingsError(f"{library} has no model {name!r}{hint}")


def _source(settings: EncoderSettings) -> Any:
    """Find where a model's weights are published; refuse at once where they cannot be had."""
    if reason := obstacle(settings):
        raise CheckpointError(reason)
    return published(settings.name)


def _unfetched(settings: EncoderSettings, error: Exception) -> CheckpointError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return CheckpointError(
        f"the published weights of {settings.name} could not be fetched ({reason})."
        f" {way_out(published(settings.name))}"
    )
