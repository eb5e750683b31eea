"""Weights that others published: whether they are here, or can be fetched from the model hub."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import timm

from georetrieval.config import EncoderSettings
from georetrieval.errors import CheckpointError
from georetrieval.models.weights import weights_file

OPEN_CLIP = "open_clip:"
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Published:
    """Where a model's weights are published.

    Attributes
    ----------
    repository
        On the hub.
    files
        Names that the weights may have there.
    """

    repository: str
    files: tuple[str, ...]

    def cached(self) -> Path | None:
        """Return the file on this machine, if an earlier use has fetched it."""
        for name in self.files:
            found = huggingface_hub.try_to_load_from_cache(self.repository, name)
            if isinstance(found, str):
                return Path(found)
        return None


def published(name: str) -> Published | None:
    """Find where a model's weights are published; None if nobody has published any."""
    if name.startswith(OPEN_CLIP):
        import open_clip

        model = name.removeprefix(OPEN_CLIP)
        for tag in open_clip.list_pretrained_tags_by_model(model)[:1]:
            repository = open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "")
            return Published(repository.rstrip("/"), OPEN_CLIP_FILES)
        return None
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        return None
    return Published(cfg.hf_hub_id or "", TIMM_FILES)


def obstacle(settings: EncoderSettings) -> str:
    """Say why the weights that settings ask for cannot be had, and what to do; empty if they can.

    Nothing is fetched: it is asked whether there is a file, or a hub that answers.
    """
    name, wanted = settings.name, settings.pretrained
    if isinstance(wanted, str):
        try:
            weights_file(wanted)
        except CheckpointError as error:
            return str(error)
        return ""
    if not wanted:
        return ""
    source = published(name)
    if source is None:
        return f"nobody has published weights of {name}. {way_out(None)}"
    if source.repository and source.cached() is None and not hub_answers():
        hub = huggingface_hub.constants.ENDPOINT
        return (
            f"the published weights of {name} are not on this machine, and {hub} does not answer."
            f" {way_out(source)}"
        )
    return ""


def way_out(source: Published | None) -> str:
    """Say how to go on without the hub."""
    way = (
        "name a file with encoder.pretrained = FILE, or ask for random weights with"
        " encoder.pretrained = false (training takes far longer)"
    )
    if source is None or not source.repository:
        return way[0].upper() + way[1:]
    fetch = f"Fetch them where there is a network (hf download {source.repository}, then copy"
    return f"{fetch} its cache here), {way}"


@cache
def hub_answers() -> bool:
    """Tell whether the model hub can be reached; its client alone would try for a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # the proxy knows
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    try:
        socket.create_connection((hub.hostname or "", port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
