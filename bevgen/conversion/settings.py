"""What changes an output's pixels: typed, stored in its shards, compared on resume.

Nothing here depends on workers, device or package version. `bevgen.conversion.products` carries
the settings out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Literal

from bevgen.errors import InputError
from bevgen.geometry import FULL_SPHERE, MAX_SIZE, BevGrid, PanoramaView, Pose
from bevgen.presets import PRESETS
from bevgen.project import Compat, check_compat, check_flag
from bevgen.projection.masking import Mask

CHANNELS = 3
# Goes up when the same settings would give other pixels, so that the two are never mixed; counted
# from the first release on. A GPU's rounding may differ by one grey level, and is not counted.
PIXEL_RULE = 1
RollSign = Literal["right-down", "left-down"]
RIGHT_DOWN, LEFT_DOWN = "right-down", "left-down"


@dataclass(frozen=True, slots=True)
class BevSettings:
    """How panoramas become BEVs; see `bevgen.project` for the values' meaning.

    ``heading``, ``pitch`` and ``roll`` of None are taken from each file, 0 where it says nothing;
    ``vertical_fov`` of None too, a full sphere where the file says nothing. What poses.csv says of
    a panorama takes precedence over all of them. ``roll_sign`` is what a positive roll of GPano
    metadata means, ``right-down`` if None.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    height: float = 2.0
    size: int = 512
    resolution: float = 0.06
    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    vertical_fov: tuple[float, float] | None = None
    antialias: bool = True
    compat: Compat | None = None
    mask: Mask | None = None
    roll_sign: RollSign | None = None

    kind: ClassVar[str] = "bev"

    def __post_init__(self) -> None:
        _ = self.grid, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE)
        check_flag("antialias", self.antialias)
        # One spelling of each value: what is stored is what is compared.
        object.__setattr__(self, "size", int(self.size))
        for name in ("height", "resolution", "heading", "pitch", "roll"):
            value = getattr(self, name)
            if isinstance(value, Real) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
        if self.vertical_fov is not None:
            top, bottom = self.vertical_fov
            object.__setattr__(self, "vertical_fov", (float(top), float(bottom)))
        pose = self.pose
        if self.compat is not None:
            check_compat(self.compat, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE), pose)
            object.__setattr__(self, "antialias", False)  # stored as what is done
        if self.mask is not None:
            object.__setattr__(self, "mask", Mask.of(self.mask))
        if self.roll_sign == RIGHT_DOWN:
            object.__setattr__(self, "roll_sign", None)
        if self.roll_sign not in (None, LEFT_DOWN):
            raise InputError(
                f"roll_sign must be {RIGHT_DOWN} or {LEFT_DOWN}, not {self.roll_sign!r}"
            )

    @classmethod
    def from_preset(cls, name: str | None, **options: Any) -> BevSettings:
        """Take a preset's settings; an option that is not None overrides the preset's value.

        Raises
        ------
        InputError
            If there is no such preset, or a value is out of range.
        """
        values = {} if name is None else cls._of_preset(name)
        values |= {key: value for key, value in options.items() if value is not None}
        return cls(**values)

    @classmethod
    def origins(cls, name: str | None, **options: Any) -> dict[str, str]:
        """Say of each value of `from_preset` where it is from; defaults are left out."""
        said = {} if name is None else cls._of_preset(name)
        origins = {key: f"preset {name}" for key, value in said.items() if value is not None}
        return origins | {key: "option" for key, value in options.items() if value is not None}

    @classmethod
    def _of_preset(cls, name: str) -> dict[str, Any]:
        if name not in PRESETS:
            raise InputError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
        preset = PRESETS[name]
        return {f.name: getattr(preset, f.name) for f in fields(cls) if hasattr(preset, f.name)}

    @property
    def grid(self) -> BevGrid:
        """The ground that each BEV shows."""
        return BevGrid(self.size, self.resolution)

    @property
    def pose(self) -> Pose:
        """How the camera stands where no panorama says otherwise."""
        return Pose(self.height, self.heading or 0.0, self.pitch or 0.0, self.roll or 0.0)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a row."""
        return (self.size, self.size, CHANNELS)

    @property
    def uses_heading(self) -> bool:
        """Whether a panorama of unknown heading comes out as if it looked north."""
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, for the shards' ``settings``."""
        values = _json_values(self)
        if self.mask is not None:
            values["mask"] = self.mask.digest
        # Shards from before there was a choice have none of it, and are those of None.
        return {k: v for k, v in values.items() if k not in _LATER or v is not None}


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How plain images (satellite, map, panorama, drone) become rows of one size.

    Parameters
    ----------
    kind
        ``satellite``, ``map``, ``panorama`` or ``drone``.
    height, width
        Pixels of each row.
    turn_to_north
        Whether to turn whole panoramas by their headings, so that the centre column looks north;
        one of unknown heading stays as it was taken, as if it looked north.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    kind: str
    height: int
    width: int
    turn_to_north: bool = False

    def __post_init__(self) -> None:
        if self.kind not in IMAGE_KINDS:
            raise InputError(f"kind must be one of {', '.join(IMAGE_KINDS)}, not {self.kind!r}")
        if not (1 <= self.height <= MAX_SIZE and 1 <= self.width <= MAX_SIZE):
            raise InputError(
                f"size must be 1 to {MAX_SIZE} pixels a side, not {self.height}x{self.width}"
            )
        if self.turn_to_north and self.kind != "panorama":
            raise InputError(
                f"only panoramas can be turned to north, not images of kind {self.kind}"
            )
        object.__setattr__(self, "height", int(self.height))
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "turn_to_north", bool(self.turn_to_north))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a row."""
        return (self.height, self.width, CHANNELS)

    @property
    def uses_heading(self) -> bool:
        """Whether a panorama of unknown heading comes out as if it looked north."""
        return self.turn_to_north

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, for the shards' ``settings``."""
        values = _json_values(self)
        if not self.turn_to_north:  # as in shards from before there was a choice
            del values["turn_to_north"]
        return values


_LATER = ("mask", "roll_sign")
IMAGE_KINDS = ("satellite", "map", "panorama", "drone")
Settings = BevSettings | ImageSettings


def settings_from_json(values: Mapping[str, Any]) -> Settings:
    """Return the settings that shards were made with: what `to_json` of either kind gave.

    But for a mask: another camera carries another car.

    Raises
    ------
    InputError
        If they are no settings of BEVs or plain images, or of a release with other pixels.
    """
    given = dict(values)
    kind, rule = given.pop("kind", None), given.pop("pixel_rule", None)
    if rule != PIXEL_RULE:
        raise InputError(f"these are not settings that this release draws by: {dict(values)}")
    given.pop("mask", None)  # of the camera that took those panoramas
    if "vertical_fov" in given and given["vertical_fov"] is not None:
        given["vertical_fov"] = tuple(given["vertical_fov"])
    try:
        return BevSettings(**given) if kind == "bev" else ImageSettings(kind, **given)
    except TypeError as error:
        raise InputError(f"these are no settings of shards: {error}") from error


def differing_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name each setting whose stored value is not the one asked for now."""
    return [
        f"{key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} now"
        for key in sorted({*old, *new})
        if old.get(key, "not set") != new.get(key, "not set")
    ]


def _json_values(settings: Settings) -> dict[str, Any]:
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(settings).items()
    }
    return {"kind": settings.kind, "pixel_rule": PIXEL_RULE, **values}
