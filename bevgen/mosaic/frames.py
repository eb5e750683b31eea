"""The frames of a sequence: what is known of each, its pixels when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.ground import LocalPlane
from bevgen.images.decoding import open_image, read_image
from bevgen.images.finding import default_id, find_images
from bevgen.images.metadata import PanoramaInfo, info_from_name, info_from_row
from bevgen.images.view import panorama_view
from bevgen.mosaic.cores import on_all_cores
from bevgen.mosaic.pictures import Array, LevelViews
from bevgen.project import project_view
from bevgen.projection.masking import Mask
from bevgen.tables import PoseRow, respelled, warn_respelled

VIEW = BevGrid(416, 0.025)  # what is registered, for a camera 1 high
KEPT = 400e6  # bytes of decoded frames that are kept while tiles are drawn
STANDING = 0.5  # metres: a camera that never gets farther from its mean does not move


@dataclass(frozen=True, slots=True)
class Frame:
    """A panorama of a sequence: its file, the part of the sphere that it shows, what is known."""

    file: str
    view: PanoramaView
    row: PoseRow


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Frames in the order of the drive, and metres around the middle of their positions.

    Attributes
    ----------
    folder
        Of the panoramas.
    frames
        All with a position.
    plane
        Metres on Earth.
    height
        Of all cameras above the ground, in metres.
    guess : (N, 5) float64
        East and north in metres, heading, pitch and roll in degrees, as GPS and compass say.
    knows_headings
        Whether they are the frames' own; otherwise those of the drive's direction.
    mask
        Which pixels of the panoramas count; None for all.
    """

    folder: Path
    frames: list[Frame]
    plane: LocalPlane
    height: float
    guess: Array
    knows_headings: bool
    mask: Mask | None = None

    def rows(self, placements: Array) -> list[PoseRow]:
        """Rows of poses.csv for placements (N, 5)."""
        latitudes, longitudes = self.plane.to_geographic(placements[:, 0], placements[:, 1])
        rows = []
        for k, frame in enumerate(self.frames):
            heading, pitch, roll = (round(v, 3) for v in placements[k, 2:].tolist())
            where = (round(float(latitudes[k]), 9), round(float(longitudes[k]), 9))
            name, date = frame.row.id, frame.row.date
            rows.append(
                PoseRow(frame.file, name, heading % 360, pitch, roll, self.height, *where, date)
            )
        return rows

    def reader(self) -> Callable[[int], tuple[NDArray[np.uint8], NDArray]]:
        """Give a function that reads frame k: (H, W, 3) pixels, and (H, W) what counts of them.

        The last ones read are kept, 24 of them or as many as `KEPT` bytes hold.
        """
        largest = max(frame.view.height * frame.view.width for frame in self.frames)
        counts = lru_cache(2)(self.counts)

        @lru_cache(int(np.clip(KEPT // (3 * largest), 2, 24)))
        def read(k: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            pixels, _ = read_image(self.folder / self.frames[k].file)
            return pixels, counts(pixels.shape)

        return read

    def counts(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """255 where (H, W) a panorama counts, 0 where the mask hides it."""
        if self.mask is None:
            return np.full(shape[:2], 255, np.uint8)
        return self.mask.fitted((shape[0], shape[1])).astype(np.uint8) * 255


def read_sequence(
    folder: Path,
    poses: dict[str, PoseRow],
    height: float,
    *,
    names: list[str] | None = None,
    vertical_fov: tuple[float, float] | None = None,
    mask: Mask | None = None,
    skip: Callable[[str, str], None] = lambda name, reason: None,
) -> Sequence:
    """Read what is known of a folder's panoramas.

    Parameters
    ----------
    folder
        Of the panoramas.
    poses
        Rows of poses.csv by file: takes precedence over what files say.
    height
        Metres of the cameras above the ground, where poses.csv does not say it.
    names
        Which files, in the order of the drive; all in the order of their names by default.
    vertical_fov
        Top and bottom of the panoramas in degrees; by default what each file says.
    mask
        As in `Sequence`.
    skip
        Called with the name of each frame that cannot be used, and why.

    Raises
    ------
    InputError
        If fewer than two frames can be used, or the camera does not move.
    """
    frames: list[Frame] = []
    names = names or [source for source, _ in find_images(folder)]
    rows = respelled(names, poses)
    warn_respelled("poses.csv", len(rows))
    for name in names:
        try:
            frame = _frame(folder, name, poses.get(rows.get(name, name)), height, vertical_fov)
            if mask is not None:
                mask.fitted((frame.view.height, frame.view.width))
        except (OSError, PanoramaError, InputError) as error:
            skip(name, str(error))
            continue
        if frame.row.latitude is None:
            skip(name, "no position, neither in poses.csv nor in the file")
            continue
        frames.append(frame)
    if len(frames) < 2:
        raise InputError(f"a mosaic takes two panoramas or more, and {folder} gave {len(frames)}")
    known = np.array([(f.row.latitude, f.row.longitude) for f in frames], float)
    # Unwrapped, so that the mean of 179.9 and -179.9 is 180.
    longitudes = np.unwrap(known[:, 1], period=360)
    plane = LocalPlane(float(known[:, 0].mean()), float((longitudes.mean() + 180) % 360 - 180))
    east, north = plane.from_geographic(known[:, 0], longitudes)
    if np.hypot(east - east.mean(), north - north.mean()).max() < STANDING:
        raise InputError(
            f"all {len(frames)} panoramas stand on one spot, within {STANDING:g} m: a mosaic takes"
            " a camera that moves; bevgen convert makes a picture of the ground around one"
        )
    knows = all(f.row.heading is not None for f in frames)
    headings = [f.row.heading for f in frames] if knows else _along(east, north)
    # Unwrapped, so that the mean of 350 and 10 degrees is north.
    heading = np.unwrap(np.array(headings, float), period=360)
    tilts = np.array([(f.row.pitch or 0.0, f.row.roll or 0.0) for f in frames])
    guess = np.column_stack([east, north, heading, tilts])
    return Sequence(folder, frames, plane, _height(frames, height), guess, knows, mask)


def _frame(
    folder: Path,
    name: str,
    row: PoseRow | None,
    height: float,
    vertical_fov: tuple[float, float] | None,
) -> Frame:
    image = open_image(folder / name)
    own = info_from_row(row).fallback(PanoramaInfo(height=height))
    known = own.fallback(image.info).fallback(info_from_name(name))
    said = (known.heading, known.pitch, known.roll, known.height)
    own_id = row.id if row and row.id else default_id(name)
    where = (known.latitude, known.longitude)
    return Frame(
        name,
        panorama_view(image.shape, known, vertical_fov),
        PoseRow(name, own_id, *said, *where, known.date),
    )


def _height(frames: list[Frame], height: float) -> float:
    """One height for all, as pictures of the ground cannot tell it."""
    return float(np.median([frame.row.height or height for frame in frames]))


def _along(east: Array, north: Array) -> Array:
    """Direction (N,) of the drive at each frame, from three frames to both sides."""
    headings = np.empty(len(east))
    for k in range(len(east)):
        near = np.arange(max(k - 3, 0), min(k + 4, len(east)))
        slopes = [np.polynomial.polynomial.polyfit(near - k, v[near], 1)[1] for v in (east, north)]
        headings[k] = np.rad2deg(np.arctan2(*slopes))
    return headings


def level_views(sequence: Sequence, watch: Callable[[str, int, int], None]) -> LevelViews:
    """Project all frames as if they looked north, for `bevgen.mosaic.registration.register`."""
    count = len(sequence.frames)
    images = np.empty((count, VIEW.size, VIEW.size), np.uint8)
    partly = sequence.mask is not None or any(not _whole(f.view) for f in sequence.frames)
    seen = np.empty(images.shape, bool) if partly else None

    def fill(k: int) -> None:
        frame = sequence.frames[k]
        pixels, _ = read_image(sequence.folder / frame.file)
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        bev, valid = project_view(grey, VIEW, frame.view, Pose(1.0))
        images[k] = bev[..., 0]
        if seen is not None:
            hidden = sequence.counts(grey.shape)[..., None]
            counts, _ = project_view(hidden, VIEW, frame.view, Pose(1.0))
            seen[k] = valid & (counts[..., 0] > 252)

    for k, _ in enumerate(on_all_cores(fill, range(count))):
        watch("reading", k, count)
    return LevelViews(images, seen, VIEW.resolution)


def _whole(view: PanoramaView) -> bool:
    return view.wraps and view.vertical_fov[1] <= -75 and view.vertical_fov[0] >= 0
