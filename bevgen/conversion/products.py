"""What changes an output's pixels: typed, stored in its shards, compared on resume, carried out.

Nothing here depends on workers, device or package version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import (
    FULL_CIRCLE,
    FULL_SPHERE,
    MAX_SIZE,
    BevGrid,
    PanoramaView,
    Pose,
    needed_rows,
)
from bevgen.images.metadata import PanoramaInfo
from bevgen.images.panorama import panorama_view
from bevgen.presets import PRESETS
from bevgen.project import Compat, Device, check_compat, project_view

CHANNELS = 3
# Goes up when the same settings would give other pixels, so that the two are never mixed; counted
# from the first release on. A GPU's rounding may differ by one grey level, and is not counted.
PIXEL_RULE = 1


class Picture(NamedTuple):
    """One row to be stored: pixels, what of them is visible (None: all), and its columns."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None
    columns: dict[str, float]
    date: str


@dataclass(frozen=True, slots=True)
class BevSettings:
    """How panoramas become BEVs; see `bevgen.project` for the values' meaning.

    ``heading``, ``pitch`` and ``roll`` of None are taken from each file, 0 where it says nothing;
    ``vertical_fov`` of None too, a full sphere where the file says nothing. What poses.csv says of
    a panorama goes before all of them.

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

    kind: ClassVar[str] = "bev"

    def __post_init__(self) -> None:
        _ = self.grid, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE)
        # One spelling of each value: what is stored is what is compared.
        object.__setattr__(self, "size", int(self.size))
        for name in ("height", "resolution", "heading", "pitch", "roll"):
            if (value := getattr(self, name)) is not None and isinstance(value, Real):
                object.__setattr__(self, name, float(value))
        if self.vertical_fov is not None:
            top, bottom = self.vertical_fov
            object.__setattr__(self, "vertical_fov", (float(top), float(bottom)))
        pose = Pose(self.height, self.heading or 0.0, self.pitch or 0.0, self.roll or 0.0)
        if self.compat is not None:
            check_compat(self.compat, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE), pose)
            object.__setattr__(self, "antialias", False)  # stored as what is done

    @classmethod
    def from_preset(cls, name: str | None, **options: Any) -> BevSettings:
        """Take a preset's settings; an option that is not None goes before the preset's value.

        Raises
        ------
        InputError
            If there is no such preset, or a value is out of range.
        """
        values: dict[str, Any] = {}
        if name is not None:
            if name not in PRESETS:
                raise InputError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
            preset = PRESETS[name]
            values = {
                f.name: getattr(preset, f.name) for f in fields(cls) if hasattr(preset, f.name)
            }
        values |= {key: value for key, value in options.items() if value is not None}
        return cls(**values)

    @property
    def grid(self) -> BevGrid:
        """The ground that each BEV shows."""
        return BevGrid(self.size, self.resolution)

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
        return _json_values(self)

    def check(self, own: PanoramaInfo) -> None:
        """Refuse what poses.csv says of a panorama if these settings cannot follow it.

        Raises
        ------
        InputError
            If it has angles, and ``compat`` draws without.
        """
        if self.compat is not None and (own.heading or own.pitch or own.roll):
            raise InputError(
                f"--compat {self.compat} draws without heading, pitch and roll: leave it out, or"
                " take these columns out of the poses file"
            )

    def rows(
        self, shape: tuple[int, int], own: PanoramaInfo, file: PanoramaInfo
    ) -> tuple[int, int] | None:
        """Rows of pixels (first, last exclusive) that `picture` reads of an image of this shape.

        Raises
        ------
        PanoramaError
            If the image is no panorama.
        """
        view, pose = self._view_and_pose(shape, self._known(own, file), file)
        return needed_rows(self.grid, view, pose)

    def picture(
        self,
        image: NDArray[np.uint8],
        own: PanoramaInfo,
        file: PanoramaInfo,
        device: Device = "auto",
    ) -> Picture:
        """Project one panorama.

        Parameters
        ----------
        image : (H, W, 3) uint8
        own
            What poses.csv says of it.
        file
            What the file and its name say.
        device
            ``"cuda"`` for a GPU, else the CPU.

        Raises
        ------
        PanoramaError
            If the image is no panorama, or shows none of the ground.
        """
        known = self._known(own, file)
        view, pose = self._view_and_pose(image.shape[:2], known, file)
        bev, valid = project_view(
            image,
            self.grid,
            view,
            pose,
            antialias=self.antialias,
            compat=self.compat,
            device=device,
        )
        if not valid.any():
            raise PanoramaError("shows none of the ground: are field of view and pose right?")
        return Picture(bev, None if valid.all() else valid, _columns(known), known.date or "")

    def _known(self, own: PanoramaInfo, file: PanoramaInfo) -> PanoramaInfo:
        """Merge poses.csv, options and file, in this order."""
        options = PanoramaInfo(
            heading=self.heading, pitch=self.pitch, roll=self.roll, height=self.height
        )
        if self.compat is not None:  # it draws all at 0
            options = replace(options, heading=0.0, pitch=0.0, roll=0.0)
        return own.fallback(options).fallback(file)

    def _view_and_pose(
        self, shape: tuple[int, int], known: PanoramaInfo, file: PanoramaInfo
    ) -> tuple[PanoramaView, Pose]:
        view = panorama_view(shape, file, self.vertical_fov)
        pose = Pose(
            known.height or self.height,
            known.heading or 0.0,
            known.pitch or 0.0,
            known.roll or 0.0,
        )
        return view, pose


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
        if not self.turn_to_north:  # as before there was a choice
            del values["turn_to_north"]
        return values

    def check(self, own: PanoramaInfo) -> None:
        """Accept whatever poses.csv says: it does not change these pixels."""

    def rows(self, shape: tuple[int, int], own: PanoramaInfo, file: PanoramaInfo) -> None:
        """All rows are needed; arguments as for BEVs."""

    def picture(
        self,
        image: NDArray[np.uint8],
        own: PanoramaInfo,
        file: PanoramaInfo,
        device: Device = "auto",
    ) -> Picture:
        """Turn one image if asked to, and resize it by Lanczos filtering; arguments as for BEVs.

        Raises
        ------
        PanoramaError
            If it is to be turned and is not a whole circle.
        """
        from PIL import Image

        known = own.fallback(file)
        if self.turn_to_north and known.heading is not None:
            image, known = _turned_to_north(image, known)
        if image.shape[:2] != (self.height, self.width):
            resized = Image.fromarray(image).resize(
                (self.width, self.height), Image.Resampling.LANCZOS
            )
            image = np.asarray(resized)
        return Picture(image, None, _columns(known), known.date or "")


def _turned_to_north(
    image: NDArray[np.uint8], known: PanoramaInfo
) -> tuple[NDArray[np.uint8], PanoramaInfo]:
    """Roll the columns so that the centre looks north, and say so.

    By whole columns at full width: half a column is a tenth of a degree, less than headings are
    known to, and all pixels stay as they were taken.
    """
    left, right = known.horizontal_fov or FULL_CIRCLE
    if right - left < 360:
        raise PanoramaError(
            f"shows {right - left:.4g} degrees of the circle: only whole panoramas can be turned to"
            " north"
        )
    columns = round((known.heading or 0.0) * image.shape[1] / 360)
    # Pitch and roll were about axes that look elsewhere now.
    return np.roll(image, columns, axis=1), replace(known, heading=0.0, pitch=None, roll=None)


IMAGE_KINDS = ("satellite", "map", "panorama", "drone")
Settings = BevSettings | ImageSettings


def settings_from_json(values: Mapping[str, Any]) -> Settings:
    """Return the settings that shards were made with: what `to_json` of either kind gave.

    Raises
    ------
    InputError
        If they are no settings of BEVs or plain images, or of a release with other pixels.
    """
    given = dict(values)
    kind, rule = given.pop("kind", None), given.pop("pixel_rule", None)
    if rule != PIXEL_RULE:
        raise InputError(f"these are not settings that this release draws by: {dict(values)}")
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


def _columns(info: PanoramaInfo) -> dict[str, float]:
    names = ("heading", "pitch", "roll", "height", "latitude", "longitude")
    return {name: value for name in names if (value := getattr(info, name)) is not None}
