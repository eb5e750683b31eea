"""A photo as the networks see it: BEV and panorama, drawn as for training, at any heading."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevgen import (
    BevSettings,
    ImageSettings,
    PanoramaInfo,
    Pose,
    PoseRow,
    find_images,
    info_from_name,
    info_from_row,
    make_row,
    read_image,
    read_poses,
    settings_from_json,
)
from bevgen.tables import respelled
from georetrieval.config import EncoderSettings
from georetrieval.errors import IndexFileError, SettingsError
from georetrieval.models.encoder import Encoder
from georetrieval.retrieval.evaluation import fuse
from georetrieval.retrieval.index import ModelKey
from georetrieval.transforms.network_input import to_network
from georetrieval.transforms.orientation import rotate

BATCH = 64
"""Images embedded at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A panorama with what is known of its pose.

    Attributes
    ----------
    source
        File, or a name.
    pixels : (H, W, 3) uint8
        Equirectangular.
    own
        What the caller or poses.csv says of it; overrides the file.
    file
        What its metadata and its name say.
    """

    source: str
    pixels: NDArray[np.uint8]
    own: PanoramaInfo
    file: PanoramaInfo

    @property
    def heading(self) -> float | None:
        """Compass direction of the centre column in degrees; None where nobody says it."""
        return self.own.fallback(self.file).heading


def open_photo(path: Path | str, own: PanoramaInfo | None = None) -> Photo:
    """Read a panorama with its metadata.

    Raises
    ------
    PanoramaError
        If it cannot be read; the message is the reason without the file's name.
    """
    pixels, info = read_image(Path(path))
    file = info.fallback(info_from_name(str(path)))
    return Photo(str(path), pixels, own or PanoramaInfo(), file)


def find_photos(
    paths: Iterable[Path],
    poses: Path | None = None,
    height: float | None = None,
    ids: Collection[str] | None = None,
) -> Iterator[tuple[Path, PanoramaInfo]]:
    """Yield files and those of folders, with what is known of each besides its metadata.

    Parameters
    ----------
    paths
        Files and folders.
    poses
        A table of them; files are relative to their folder.
    height
        Metres above the ground, where the table says nothing.
    ids
        Only photos with one of these ids: the table's, else the name without its ending.

    Raises
    ------
    SettingsError
        If a path does not exist.
    InputError
        If the table or the height cannot be used.
    """
    if height is not None:
        Pose(height)  # which refuses what is out of range
    files: list[tuple[Path, str]] = []
    for path in paths:
        if not path.exists():
            raise SettingsError(f"{path} does not exist")
        if path.is_dir():
            files += [(path / source, source) for source, _ in find_images(path)]
        else:
            files.append((path, path.name))
    rows = read_poses(poses, (source for _, source in files)) if poses is not None else {}
    names = [_photo_id(source, rows.get(source)) for _, source in files]
    same = respelled(names, ids or ())
    for (file, source), name in zip(files, names, strict=True):
        if ids is None or same.get(name, name) in ids:
            own = info_from_row(rows.get(source))
            yield file, own if own.height is not None else replace(own, height=height)


def _photo_id(source: str, row: PoseRow | None) -> str:
    """Return a photo's id: the table's, else the name without its ending."""
    return row.id if row is not None and row.id else str(Path(source).with_suffix(""))


class QueryViews:
    """Draws the views of a photo that a model was trained on, and embeds them.

    Parameters
    ----------
    key
        Of an index.
    encoders
        By branch, with their settings.
    device
        Where to embed.

    Raises
    ------
    IndexFileError
        If the index does not say how queries are drawn.
    """

    def __init__(
        self,
        key: ModelKey,
        encoders: dict[str, tuple[Encoder, EncoderSettings]],
        device: torch.device,
    ) -> None:
        self.key, self.encoders, self.device = key, encoders, device
        self.settings = {name: _drawing(name, key) for name in key.checkpoints}
        for encoder, _ in encoders.values():
            encoder.to(device).eval()

    @property
    def bev_settings(self) -> BevSettings | None:
        """How BEVs are drawn; None without a BEV branch."""
        found = self.settings.get("bev")
        return found if isinstance(found, BevSettings) else None

    def bev(self, photo: Photo, heading: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Draw the north-up BEV as if the centre column looked at ``heading``.

        Returns
        -------
        bev : (size, size, 3) uint8
        valid : (size, size) bool

        Raises
        ------
        PanoramaError
            If the photo is no panorama.
        """
        settings = self.bev_settings
        assert settings is not None
        settings = _as_the_photo_says(settings, photo)
        own = replace(photo.own, heading=heading)
        if photo.own.height is None and photo.file.height is None:
            own = replace(own, height=settings.height)
        drawn = make_row(settings, photo.pixels, own, photo.file)
        valid = np.ones(drawn.image.shape[:2], bool) if drawn.valid is None else drawn.valid
        return drawn.image, valid

    def tensors(self, photo: Photo, headings: NDArray[np.float64]) -> dict[str, Tensor]:
        """Draw each branch's view at each of R headings: float (R, 3, H, W) in 0 to 1.

        The BEV is projected anew for each heading; a panorama is resized once, turned to north by
        the first heading at full width, and rolled by whole columns for the others.

        Raises
        ------
        PanoramaError
            If the photo is no panorama, or is to be turned and is not a whole circle.
        """
        drawn = {}
        for name, settings in self.settings.items():
            size = self.encoders[name][1].query_size
            if isinstance(settings, BevSettings):
                images = [self.bev(photo, float(heading))[0] for heading in headings]
                batch = torch.from_numpy(np.stack(images))
                drawn[name] = to_network(batch, size, self.device)
                continue
            own = replace(photo.own, heading=float(headings[0]))
            image = make_row(settings, photo.pixels, own, photo.file).image
            one = to_network(torch.from_numpy(image[None].copy()), size, self.device)
            more = np.asarray(headings - headings[0]) if self.key.north_up else 0 * headings
            angles = -torch.from_numpy(more).float()
            drawn[name] = rotate(one.expand(len(headings), -1, -1, -1), angles, "panorama")
        return drawn

    @torch.no_grad()
    def embed(self, drawn: dict[str, Tensor]) -> NDArray[np.float32]:
        """Embed views (n, 3, H, W) of each branch and join them: (n, D) float32."""
        own = {}
        for name, images in drawn.items():
            encoder = self.encoders[name][0]
            kind = "bev" if name == "bev" else "panorama"
            parts = (encoder.as_query(part, kind) for part in images.split(BATCH))
            own[name] = torch.cat([encoder(part) for part in parts]).cpu()
        if len(own) == 2:
            return fuse(own["panorama"], own["bev"], self.key.weight).numpy()
        return next(iter(own.values())).numpy()


def _as_the_photo_says(settings: BevSettings, photo: Photo) -> BevSettings:
    """Take back what was said of the panoramas of training where a photo speaks for itself.

    A photo of 2:1 is a whole sphere where theirs were crops of less than half of it.
    """
    names = "pitch", "roll", "vertical_fov"
    said = [name for name in names if getattr(photo.file, name) is not None]
    height, width = photo.pixels.shape[:2]
    top, bottom = settings.vertical_fov or (90.0, -90.0)
    if top - bottom < 90 and abs(width / height - 2) <= 0.02 and not photo.file.horizontal_fov:
        said.append("vertical_fov")
    return replace(settings, **dict.fromkeys(said))


def _drawing(name: str, key: ModelKey) -> BevSettings | ImageSettings:
    values: dict[str, Any] = key.queries.get(name, {})
    try:
        settings = settings_from_json(values)
    except (TypeError, ValueError) as error:
        raise IndexFileError(
            f"the index does not say how {name} queries are drawn: its run's shards were not there"
            f" or not made by bevgen ({error}); build the index where they are"
        ) from error
    if isinstance(settings, ImageSettings):
        return replace(settings, turn_to_north=key.north_up)
    return settings
