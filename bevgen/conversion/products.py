"""What a shard can hold: a BEV, or a plain image of one size; one protocol for both.

A product looks at an image's size and metadata first (`Product.prepare`), so that an unusable image
costs no decoding and a usable one only the rows that are needed, and then makes the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bevgen.conversion.settings import LEFT_DOWN, BevSettings, ImageSettings, Settings
from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import FULL_CIRCLE, PanoramaView, Pose, is_full_sphere, needed_rows
from bevgen.images.metadata import NOTHING, PanoramaInfo, roll_turned
from bevgen.images.view import panorama_view
from bevgen.project import Device, project_view


class Picture(NamedTuple):
    """One row to be stored: pixels, what of them is visible (None: all), and what is known."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None
    info: PanoramaInfo

    @property
    def columns(self) -> dict[str, float]:
        """What is known as numbers, by column of a shard."""
        names = ("heading", "pitch", "roll", "height", "latitude", "longitude")
        return {name: known for name in names if (known := getattr(self.info, name)) is not None}


class Prepared(Protocol):
    """What is made of one image."""

    @property
    def rows(self) -> tuple[int, int] | None:
        """First and last (exclusive) of the rows that are needed of the image; None for all."""
        ...

    @property
    def finer(self) -> bool:
        """Whether what is made has finer pixels than the image, everywhere."""
        ...

    def make(self, image: NDArray[np.uint8]) -> Picture:
        """Make the row of the image's pixels, (H, W, 3) uint8.

        Raises
        ------
        PanoramaError
            If the image cannot be used.
        """
        ...


class Product(Protocol):
    """What the rows of a shard are made by."""

    def prepare(self, shape: tuple[int, int], own: PanoramaInfo, file: PanoramaInfo) -> Prepared:
        """Decide what is made of an image of this shape.

        Parameters
        ----------
        shape
            Height and width of the image in pixels.
        own
            What poses.csv says of it.
        file
            What the file and its name say.

        Raises
        ------
        PanoramaError
            If the image cannot be used.
        """
        ...


def product_of(settings: Settings, device: Device = "auto") -> Product:
    """Return what carries settings out; ``device`` is ``"cuda"`` for a GPU, else the CPU."""
    return Bev(settings, device) if isinstance(settings, BevSettings) else PlainImage(settings)


def make_row(
    settings: Settings,
    image: NDArray[np.uint8],
    own: PanoramaInfo = NOTHING,
    file: PanoramaInfo = NOTHING,
    device: Device = "auto",
) -> Picture:
    """Make of one image what shards of these settings hold of it.

    Parameters
    ----------
    settings
        `BevSettings` or `ImageSettings`.
    image : (H, W, 3) uint8
        sRGB.
    own
        What poses.csv says of it, which takes precedence over the settings.
    file
        What the file and its name say, over which the settings take precedence.
    device
        ``"cuda"`` for a GPU, else the CPU.

    Raises
    ------
    PanoramaError
        If the image cannot be used.
    """
    shape = (image.shape[0], image.shape[1])
    return product_of(settings, device).prepare(shape, own, file).make(image)


def check_angles(settings: Settings, own: PanoramaInfo) -> None:
    """Refuse what poses.csv says of a panorama if the settings cannot follow it.

    Raises
    ------
    InputError
        If it has angles, and ``compat`` draws without.
    """
    compat = settings.compat if isinstance(settings, BevSettings) else None
    if compat is not None and (own.heading or own.pitch or own.roll):
        raise InputError(
            f"--compat {compat} draws without heading, pitch and roll: leave it out, or take these"
            " columns out of the poses file"
        )


# --- a bird's-eye view ---


@dataclass(frozen=True, slots=True)
class Bev:
    """A panorama's bird's-eye view; see `Product`."""

    settings: BevSettings
    device: Device = "auto"

    def prepare(self, shape: tuple[int, int], own: PanoramaInfo, file: PanoramaInfo) -> PreparedBev:
        """Decide which part of the sphere the panorama shows, and how the camera stood."""
        settings = self.settings
        if settings.compat is not None and not is_full_sphere(*shape):
            raise PanoramaError(
                f"{shape[1]} x {shape[0]} pixels are not 2:1, and --compat {settings.compat} (which"
                f" --preset {settings.compat} includes) draws full spheres only: take the preset of"
                " its dataset, such as cvusa, in its place, or pad the panorama to 2:1"
            )
        if settings.roll_sign == LEFT_DOWN:
            file = roll_turned(file)
        options = PanoramaInfo.said_by(
            "option",
            heading=settings.heading,
            pitch=settings.pitch,
            roll=settings.roll,
            height=settings.height,
        )
        if settings.compat is not None:  # it draws all at 0
            upright = PanoramaInfo.said_by(
                f"compat {settings.compat}", heading=0.0, pitch=0.0, roll=0.0
            )
            options = upright.fallback(options)
        known = own.fallback(options).fallback(file)
        pose = Pose(
            known.height or settings.height,
            known.heading or 0.0,
            known.pitch or 0.0,
            known.roll or 0.0,
        )
        return PreparedBev(self, panorama_view(shape, file, settings.vertical_fov), pose, known)


@dataclass(frozen=True, slots=True)
class PreparedBev:
    """One panorama's part of the sphere, its pose, and all that is known of it."""

    product: Bev
    view: PanoramaView
    pose: Pose
    info: PanoramaInfo

    @property
    def rows(self) -> tuple[int, int] | None:
        """First and last (exclusive) of the panorama's rows that show the ground of the BEV."""
        return needed_rows(self.product.settings.grid, self.view, self.pose)

    @property
    def finer(self) -> bool:
        """Whether even below the camera, where it is finest, a row covers more than a BEV pixel."""
        upper, lower = self.view.vertical_fov
        row = math.radians((upper - lower) / self.view.height)
        # What the camera sees of the ground at depression d is height / tan(d) away.
        steepest = math.radians(min(-lower, 90.0))
        if steepest <= 0:
            return False
        metres = self.pose.height * row / math.sin(steepest) ** 2
        return metres > self.product.settings.resolution

    def make(self, image: NDArray[np.uint8]) -> Picture:
        """Project the panorama.

        Raises
        ------
        PanoramaError
            If it shows none of the ground, or the mask is not of its shape.
        """
        settings = self.product.settings
        if settings.mask is not None:
            try:
                settings.mask.fitted((self.view.height, self.view.width))
            except InputError as error:
                raise PanoramaError(str(error)) from error
        bev, valid = project_view(
            image,
            settings.grid,
            self.view,
            self.pose,
            antialias=settings.antialias,
            compat=settings.compat,
            mask=settings.mask,
            device=self.product.device,
        )
        shown = np.count_nonzero(valid)
        if shown == 0 and settings.mask is not None:
            raise PanoramaError("the mask hides all ground of the BEV: white is what is used")
        if shown == 0:
            raise PanoramaError("shows none of the ground: are field of view and pose right?")
        return Picture(bev, None if shown == valid.size else valid, self.info)


# --- a plain image ---


@dataclass(frozen=True, slots=True)
class PlainImage:
    """An image of one size, a panorama turned to north if asked for; see `Product`."""

    settings: ImageSettings

    def prepare(
        self, shape: tuple[int, int], own: PanoramaInfo, file: PanoramaInfo
    ) -> PreparedImage:
        """Refuse a panorama that cannot be turned."""
        known = own.fallback(file)
        left, right = known.horizontal_fov or FULL_CIRCLE
        turned = self.settings.turn_to_north and known.heading is not None
        if turned and right - left < 360:
            raise PanoramaError(
                f"shows {right - left:.4g} degrees of the circle: only whole panoramas can be"
                " turned to north"
            )
        return PreparedImage(self.settings, known, turned)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What is known of one image, and whether it is turned."""

    settings: ImageSettings
    info: PanoramaInfo
    turned: bool
    rows: None = None
    finer: bool = False

    def make(self, image: NDArray[np.uint8]) -> Picture:
        """Turn the image if asked to, and resize it by Lanczos filtering."""
        from PIL import Image

        info, height, width = self.info, self.settings.height, self.settings.width
        if self.turned:
            # By whole columns at full width: half a column is a tenth of a degree, less than
            # headings are known to, and all pixels stay as they were taken.
            columns = round((info.heading or 0.0) * image.shape[1] / 360)
            image = np.roll(image, columns, axis=1)
            # Pitch and roll were about axes that look elsewhere now.
            info = replace(info, heading=0.0, pitch=None, roll=None)
        if image.shape[:2] != (height, width):
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
            image = np.asarray(resized)
        return Picture(image, None, info)
