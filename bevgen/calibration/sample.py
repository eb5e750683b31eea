"""Read a sample of pairs, and refuse one whose images cannot be compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bevgen.calibration.agreement import Heading
from bevgen.calibration.pairs import PairFiles, load_view
from bevgen.calibration.rings import View, is_cut
from bevgen.errors import InputError, PanoramaError
from bevgen.images.metadata import PanoramaInfo
from bevgen.projection.masking import Mask

HEIGHTS = (0.5, 8.0)  # metres that are tried
PARTS = (200, 6)  # parts of the tile's side that are tried where metres are not known


def nothing(*_: object) -> None:
    """Hear of something, and do nothing."""


class Loaded(NamedTuple):
    """One pair of the sample; ``shape`` is that of the panorama's file."""

    pair: PairFiles
    view: View
    known: PanoramaInfo
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """Pairs that are compared, and how.

    Attributes
    ----------
    loaded
        The pairs.
    skipped
        Why others could not be used.
    heading
        As in `bevgen.calibrate`.
    vertical_fov
        As given; None to take that of each file.
    horizon
        Whether the horizon is looked for.
    mask
        Which pixels of the panoramas show the street; None for all.
    """

    loaded: Sequence[Loaded]
    skipped: Sequence[str]
    heading: Heading
    vertical_fov: tuple[float, float] | None
    horizon: bool
    mask: Mask | None = None

    @property
    def views(self) -> list[View]:
        """Panoramas and tiles."""
        return [one.view for one in self.loaded]

    @property
    def knows_headings(self) -> bool:
        """Whether the heading of any panorama is known, and used."""
        known = any(one.known.heading is not None for one in self.loaded)
        return known and self.heading != "per-image"

    def load(self, pair: PairFiles) -> Loaded:
        """Read one more pair as those of the sample were read."""
        return _load(pair, self.heading, self.vertical_fov, self.horizon, self.mask)

    def ratios(self, resolution: float | None) -> tuple[float, float]:
        """Lowest and highest camera height to try, in pixels of the tile."""
        if resolution is not None:
            return HEIGHTS[0] / resolution, HEIGHTS[1] / resolution
        side = min(self.loaded[0].view.tile.shape) if self.loaded else 1
        return side / PARTS[0], side / PARTS[1]


def read_sample(
    pairs: Sequence[PairFiles],
    *,
    heading: Heading = "common",
    vertical_fov: tuple[float, float] | None = None,
    horizon: bool = False,
    mask: Mask | None = None,
    on_skip: Callable[[str], None] = nothing,
    on_progress: Callable[[int, int], None] = nothing,
) -> Sample:
    """Read the images of some pairs; files that cannot be used are skipped with a reason.

    Parameters
    ----------
    pairs
        Which.
    heading, vertical_fov, horizon, mask
        As in `Sample`.
    on_skip
        Called with each reason.
    on_progress
        Called with the pairs read and to read.

    Raises
    ------
    InputError
        If tiles are of several sizes, or the horizon is looked for where it is known, or panoramas
        are of several sizes.
    """
    loaded: list[Loaded] = []
    skipped: list[str] = []
    for i, pair in enumerate(pairs):
        try:
            loaded.append(_load(pair, heading, vertical_fov, horizon, mask))
        except PanoramaError as error:
            skipped.append(str(error))
            on_skip(str(error))
        on_progress(i + 1, len(pairs))
    _check_sizes(loaded, horizon)
    return Sample(loaded, skipped, heading, vertical_fov, horizon, mask)


def _load(
    pair: PairFiles,
    heading: Heading,
    vertical_fov: tuple[float, float] | None,
    horizon: bool,
    mask: Mask | None,
) -> Loaded:
    view, known, shape = load_view(pair, vertical_fov=vertical_fov, centred=horizon, mask=mask)
    if heading == "per-image":  # each shall have its own
        view = replace(view, pose=replace(view.pose, heading=0.0))
    return Loaded(pair, view, known, shape)


def _check_sizes(loaded: Sequence[Loaded], horizon: bool) -> None:
    for one in loaded[1:]:
        first = loaded[0]
        if one.view.tile.shape != first.view.tile.shape:
            (h, w), (h2, w2) = first.view.tile.shape, one.view.tile.shape
            raise InputError(
                f"tiles must be of one size and scale: {first.pair.tile} is {w} x {h} pixels,"
                f" {one.pair.tile} {w2} x {h2}"
            )
        if horizon and one.shape != first.shape:
            (h, w), (h2, w2) = first.shape, one.shape
            raise InputError(
                f"--horizon needs panoramas of one size: {first.pair.panorama} is {w} x {h} pixels,"
                f" {one.pair.panorama} {w2} x {h2}"
            )
    if horizon and loaded and not is_cut(loaded[0].view.lens.vertical_fov):
        raise InputError(
            "--horizon is for panoramas cut above and below: these reach straight up or down, so"
            " their horizon is known; leave it out (a tilt is pitch and roll, in --poses)"
        )
