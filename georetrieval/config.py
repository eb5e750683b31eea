"""Settings of a training run: typed, frozen, read from TOML, with unknown keys refused.

A recipe is a TOML file of these settings. The run stores the whole of them beside its checkpoints.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from georetrieval.errors import SettingsError

BranchName = Literal["panorama", "bev"]
"""A branch is called by what its queries are."""
BRANCHES: tuple[BranchName, ...] = ("panorama", "bev")
Pixels = Annotated[int, Field(ge=1, le=16384)]
Size = tuple[Pixels, Pixels]
Share = float


def _false_is_none(value: Any) -> Any:
    return None if value is False else value  # TOML has no null


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class DataSettings(_Settings):
    """Where the shards lie."""

    root: Path | None = None
    """Folder that the other paths are relative to; none is the folder given with --data."""
    panorama: Path = Path("panorama.h5")
    bev: Path = Path("bev.h5")
    reference: Path = Path("satellite.h5")
    pairs: Path | None = Path("pairs.csv")
    """Joins queries to references and names splits; false pairs equal ids, without splits."""
    train_split: str = "train"
    validation_split: str = "val"
    heading: Literal["known", "unknown"] = "known"
    """Unknown: each query is rotated by a random angle, in training and evaluation."""
    fov: float = Field(default=360.0, gt=0, le=360)
    """Horizontal field of view that queries show, degrees around the centre; a panorama is cropped,
    a BEV black outside of the sector."""
    train_pairs: int | None = Field(default=None, ge=2)
    """Of the training split as published; a dry run without the data counts with it."""

    any_modality: bool = False
    """Take shards whatever their images are, such as satellite tiles as queries."""

    _off = field_validator("pairs", mode="before")(_false_is_none)


class EncoderSettings(_Settings):
    """One encoder, shared by a branch's queries and references."""

    name: str = "convnext_base.fb_in22k_ft_in1k_384"
    """A model of timm, or ``open_clip:NAME`` for the image tower of a CLIP model."""
    pretrained: bool | str = True
    """True: published weights; false: random; a path, or ``package:NAME`` for a Python package."""
    query_size: Size | None = None
    """Height, width in pixels; none takes the shards' own."""
    reference_size: Size | None = None
    gradient_checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    round_queries: bool = False
    """Queries of the BEV branch are cut to the circle that fits in: rotated, they look no other."""


class SamplingSettings(_Settings):
    """Which pairs share a batch."""

    batch_size: int = Field(default=128, ge=2)
    """Pairs over all processes."""
    geographic: bool = True
    """Until the first mining, batches hold places that lie near each other."""
    mine_every: int = Field(default=4, ge=0)
    """Epochs between minings of similar pairs by the current embeddings; 0 never."""
    pool: int = Field(default=128, ge=2)
    """Neighbours that are looked at."""
    take: int = Field(default=64, ge=1)
    """Neighbours that join the batch: the nearest half of them, the others drawn from the pool."""


class AugmentSettings(_Settings):
    """Random changes of whole batches: flips and rotations by the pair, all others by the image."""

    flip: Share = Field(default=0.5, ge=0, le=1)
    """Both images of a pair flipped left to right."""
    turn: Share = Field(default=0.75, ge=0, le=1)
    """Both images of a pair rotated by 90, 180 or 270 degrees."""
    free_turn: bool = False
    """Rotate both by any angle instead; corners of the rotated squares are black."""
    turn_reference: Share = Field(default=0.0, ge=0, le=1)
    """The reference rotated alone by 90, 180 or 270 degrees."""
    rotated_negatives: int = Field(default=0, ge=0, le=8)
    """Copies of each query at other headings, which its reference must not pick: they teach a
    BEV branch headings, for searching where none is known; best with ``round_queries``."""
    compression: Share = Field(default=0.5, ge=0, le=1)
    """What a JPEG file takes."""
    quality: int = Field(default=90, ge=1, le=100)
    """The lowest of those files' qualities; each is as likely, up to 100."""
    photometric: Share = Field(default=0.5, ge=0, le=1)
    """Jitter of the colours; and, drawn apart, gamma."""
    jitter: float = Field(default=0.15, ge=0, le=1)
    """Brightness, contrast and saturation by at most this share, hue by this share of a turn."""
    gamma: float = Field(default=0.2, ge=0, lt=1)
    """The exponent's largest distance from 1."""
    blur_or_sharpen: Share = Field(default=0.3, ge=0, le=1)
    dropout: Share = Field(default=0.3, ge=0, le=1)
    """A grid of small holes, or 10 to 25 of 10 to 20 % of the image's height."""
    query_grid: float = Field(default=0.4, gt=0, lt=1)
    """Side of the query's small holes, as a share of their distance, a tenth of the width."""
    reference_grid: float = Field(default=0.4, gt=0, lt=1)


class OptimSettings(_Settings):
    """How the weights change."""

    epochs: int = Field(default=40, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    decay_all: bool = False
    """Decay norms, biases and the similarity's scale too, not matrices alone."""
    warmup_epochs: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    clip_value: float = Field(default=100.0, gt=0)
    """Each gradient's magnitude is cut here."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step; each has its own negatives."""
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class BranchSettings(_Settings):
    """A branch: one encoder for queries and references."""

    encoder: EncoderSettings = EncoderSettings()
    sampling: SamplingSettings = SamplingSettings()
    augment: AugmentSettings = AugmentSettings()
    optim: OptimSettings = OptimSettings()


class Settings(_Settings):
    """Everything that a run depends on."""

    about: str = ""
    """What the recipe is, and the published result it aims at."""
    data: DataSettings = DataSettings()
    panorama: BranchSettings | None = BranchSettings()
    """False switches a branch off."""
    bev: BranchSettings | None = BranchSettings()
    seed: int = Field(default=0, ge=0, lt=2**63)
    evaluate_every: int = Field(default=4, ge=1)
    """Epochs between evaluations on the validation split."""
    loader_threads: int = Field(default=2, ge=1, le=256)

    _off = field_validator("panorama", "bev", mode="before")(_false_is_none)

    @model_validator(mode="after")
    def _some_branch(self) -> Self:
        if not self.branches():
            raise ValueError("both branches are switched off: there is nothing to train")
        return self

    def branches(self) -> dict[BranchName, BranchSettings]:
        """Return the branches that are switched on, by name."""
        both: dict[BranchName, BranchSettings | None] = {
            "panorama": self.panorama,
            "bev": self.bev,
        }
        return {name: branch for name, branch in both.items() if branch is not None}

    def chosen(self, names: Sequence[BranchName] | None) -> list[BranchName]:
        """Return the branches of some names; all that are switched on if there are none.

        Raises
        ------
        SettingsError
            If one is not switched on.
        """
        there = self.branches()
        for name in names or ():
            if name not in there:
                raise SettingsError(
                    f"the settings have no branch {name!r}; there are {', '.join(there)}"
                )
        return list(names or there)


def load_settings(path: Path | str, overrides: Sequence[str] = ()) -> Settings:
    """Read a TOML file, with single values replaced.

    Parameters
    ----------
    path
        The file.
    overrides
        ``section.key=value`` each, the value as in TOML; a bare word is taken as text.

    Raises
    ------
    SettingsError
        If the file is no TOML, a key is unknown (the nearest is named) or a value cannot be used.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))  # editors of Windows begin with a mark
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    for override in overrides:
        _override(values, override)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        said = tuple(f"{override.partition('=')[0].strip()}." for override in overrides)
        wrong = [".".join(map(str, one["loc"])) for one in error.errors()]
        where = "--set" if all(f"{name}.".startswith(said) for name in wrong) else path
        raise SettingsError(f"{where}: {explain(error)}") from error


def recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    folder = resources.files("georetrieval") / "recipes"
    paths = (Path(str(entry)) for entry in folder.iterdir())
    return {path.stem: path for path in sorted(paths) if path.suffix == ".toml"}


def settings_json(settings: Settings) -> str:
    """Return settings as JSON text, for a run's folder and checkpoints."""
    return json.dumps(settings.model_dump(mode="json"), indent=2)


def _override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise SettingsError(f"--set takes KEY=VALUE, such as bev.optim.epochs=10, not {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {override}: {section} is a value, not a section")
    values[last] = value


def explain(error: ValidationError, model: type[BaseModel] = Settings) -> str:
    """Say what is wrong with each value, and name the nearest key for an unknown one.

    ``model`` is what could not be made of the values.
    """
    texts = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        if not where:
            texts.append(problem["msg"])
            continue
        if problem["type"] != "extra_forbidden":
            texts.append(f"{where}: {problem['msg']}, not {problem['input']!r}")
            continue
        known = _keys(problem["loc"][:-1], model)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        texts.append(f"unknown setting {where}{hint}")
    return "; ".join(texts)


def _keys(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for name in location:
        default = model.model_fields[str(name)].default
        model = type(default)
    return list(model.model_fields)
