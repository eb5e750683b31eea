"""Lay a BEV over tiles: which fits, and where in it the camera stood, looking where.

What is compared are directions of edges, which need no training and survive other light, colours
and seasons. A Fourier transform tries all shifts at once, for each rotation: first coarsely on
every candidate, then finely on the few that fit best. How much agreement is chance, all the other
shifts and rotations of the same pair tell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bevgen import LocalPlane
from georetrieval.localization.location import Candidate

if TYPE_CHECKING:
    from georetrieval.localization.query import Photo, QueryViews
    from georetrieval.retrieval.index import Index

NEAR, FAR = 3.0, 20.0
"""Metres from the camera within which ground is compared: not the car, nor what is smeared."""
CELL = 0.4
"""Metres of a cell."""
STEP = 4.0
"""Degrees between rotations."""
SMOOTHING, SURROUND = 1.0, 6.0
"""Cells by which pictures are smoothed, and over which an edge's strength is compared."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a BEV lies best on a tile.

    Attributes
    ----------
    east, north
        Metres from the tile's centre to the camera.
    turn
        Degrees to add to the heading that the BEV was drawn with.
    agreement
        Of edges: standard deviations of chance above its mean.
    likeness
        Correlation of light and dark over the ground that both show, -1 to 1.
    metres, degrees
        Standard deviations of position (each direction) and heading, from how sharp the peak is.
    """

    east: float
    north: float
    turn: float
    agreement: float
    metres: float
    degrees: float
    likeness: float = 0.0


@dataclass(frozen=True, slots=True)
class GroundAlignment:
    """Aligns candidates by the ground that BEV and tile share; an `Alignment`.

    Attributes
    ----------
    reach
        Metres that the camera may be from a tile's centre, both ways; at most a quarter tile.
    known, searched
        Degrees to try on both sides of a heading that was given, and of one the encoders chose.
    similarity
        Weight of the encoders' score in the order, in standard deviations for each unit.
    finer
        Candidates, those that fit best, whose rotation is looked at more closely.
    """

    reach: float = 12.5
    known: float = 4.0
    searched: float = 12.0
    similarity: float = 10.0
    finer: int = 20

    def align(
        self,
        photo: Photo,
        views: QueryViews,
        candidates: Sequence[Candidate],
        index: Index,
        *,
        known: bool,
    ) -> list[Candidate]:
        """Return the same candidates, best first, each with where the camera stood in its tile.

        Parameters
        ----------
        photo, views
            What to draw the BEV from, and how.
        candidates
            With the headings that the search chose.
        index
            Whose tiles they are.
        known
            Whether the heading was given, and only little is to be searched.
        """
        resolution = index.header.tiles.resolution
        if views.bev_settings is None or resolution is None or not candidates:
            return list(candidates)
        headings = np.array([candidate.heading or 0.0 for candidate in candidates])
        bev, seen = views.bev(photo, float(headings[0]))
        tiles = np.stack([index.tile(candidate.row) for candidate in candidates])
        fits = self.fit(
            bev, seen, views.bev_settings.resolution, tiles, resolution,
            turns=headings - headings[0], within=self.known if known else self.searched,
            opposite=not known,
        )  # fmt: skip
        placed = [_placed(one, fit, headings[0]) for one, fit in zip(candidates, fits, strict=True)]
        return sorted(placed, key=self._worth, reverse=True)

    def _worth(self, candidate: Candidate) -> float:
        return (candidate.agreement or 0.0) + self.similarity * candidate.score

    def fit(
        self,
        bev: NDArray[np.uint8],
        seen: NDArray[np.bool_],
        bev_resolution: float,
        tiles: NDArray[np.uint8],
        resolution: float,
        *,
        turns: NDArray[np.float64],
        within: float,
        opposite: bool = False,
    ) -> list[Fit]:
        """Lay a BEV over tiles.

        Parameters
        ----------
        bev : (S, S, 3) uint8
        seen : (S, S) bool
            What of it the panorama shows.
        bev_resolution, resolution
            Metres per pixel of BEV and tiles.
        tiles : (n, H, W, 3) uint8
        turns : (n,) float64
            Degrees by which to turn the BEV clockwise for each tile.
        within
            How far the truth may be from that.
        opposite
            Whether it may as well be the other way round: many a street looks alike from both ends.
        """
        ground = _Ground(bev, seen, bev_resolution, tiles, resolution, self.reach, CELL)
        around = np.arange(-(within // STEP), within // STEP + 1) * STEP
        ways = (0.0, 180.0) if opposite else (0.0,)
        found = [
            max(
                (ground.best(k, np.round(turn / STEP) * STEP + way + around) for way in ways),
                key=lambda fit: fit.agreement,
            )
            for k, turn in enumerate(turns)
        ]
        for k in np.argsort([-fit.agreement for fit in found])[: self.finer].tolist():
            finer = ground.best(k, found[k].turn + np.linspace(-STEP / 2, STEP / 2, 5))
            found[k] = finer
        likenesses = ground.likenesses(found)
        return [replace(fit, likeness=like) for fit, like in zip(found, likenesses, strict=True)]


class _Ground:
    """A BEV and tiles as directions of edges on cells of one size, ready for all shifts at once."""

    def __init__(
        self,
        bev: NDArray[np.uint8],
        seen: NDArray[np.bool_],
        bev_resolution: float,
        tiles: NDArray[np.uint8],
        resolution: float,
        reach: float,
        cell: float,
    ) -> None:
        self.cell = cell
        below = _on_cells(tiles, cell / resolution)
        cells = min(round(2 * (FAR + 1) / cell), below.shape[2])
        whole = torch.ones(below.shape[2:], dtype=torch.bool)
        above = _on_cells(bev[None], cell / bev_resolution, cells)
        shown = _on_cells(seen[None, :, :, None], cell / bev_resolution, cells)[0, 0] > 0.99
        axis = (torch.arange(cells) + 0.5 - cells / 2) * cell
        away = torch.hypot(axis[None], axis[:, None])
        self.compared = shown & (away > NEAR) & (away < FAR)
        self.edges = edge_directions(above, self.compared)
        self.light = _contrast(above, self.compared), _contrast(below, whole)
        self.reach = min(int(reach / cell), below.shape[2] // 4)
        self.padded = below.shape[2] + self.reach
        self.tiles = torch.fft.fft2(edge_directions(below, whole), (self.padded, self.padded))
        self.start = (below.shape[2] - cells) / 2
        self.turned: dict[float, Tensor] = {}

    def spectra(self, turns: np.ndarray) -> Tensor:
        """Transform the BEV's edges at some rotations: (R, P, P)."""
        new = [turn for turn in turns.tolist() if turn not in self.turned]
        if new:
            edges = rotate(self.edges, torch.tensor(new))
            values = torch.fft.fft2(edges, (self.padded, self.padded)).conj()
            self.turned |= dict(zip(new, values, strict=True))
        return torch.stack([self.turned[turn] for turn in turns.tolist()])

    def best(self, tile: int, turns: np.ndarray) -> Fit:
        """Find the best rotation and shift of the BEV on one tile."""
        agreement = torch.fft.ifft2(self.spectra(turns) * self.tiles[tile]).real
        level, spread = agreement.mean(), agreement.std() + 1e-9
        middle = math.floor(self.start)
        rows = (torch.arange(-self.reach, self.reach + 1) + middle) % self.padded
        near = ((agreement[:, rows][:, :, rows] - level) / spread).numpy()
        k, i, j = np.unravel_index(near.argmax(), near.shape)
        value = float(near[k, i, j])
        (turn, bend), (down, steep), (right, steeper) = (
            _between(np.take(near[s], place))
            for s, place in (
                ((slice(None), i, j), _around(k, len(turns))),
                ((k, slice(None), j), _around(i, near.shape[1])),
                ((k, i, slice(None)), _around(j, near.shape[2])),
            )
        )
        step = float(turns[1] - turns[0]) if len(turns) > 1 else 0.0
        offset = middle - self.start - self.reach
        sharp = max(steep * steeper, 1e-12) ** 0.25  # the square root of the mean curvature
        return Fit(
            east=(j + right + offset) * self.cell,
            north=-(i + down + offset) * self.cell,
            turn=float(turns[k]) + turn * step,
            agreement=value,
            # The precision of a matched filter: 1 / (signal to noise x root of relative curvature).
            metres=self.cell / max(math.sqrt(max(value, 0.0)) * sharp, 0.1),
            degrees=step / max(math.sqrt(max(value * bend, 1e-12)), 0.1),
        )

    def likenesses(self, fits: Sequence[Fit]) -> list[float]:
        """Correlate light and dark where each fit lays the BEV on its tile."""
        (light, below), count = self.light, len(fits)
        turn, east, north = (
            torch.tensor([getattr(fit, name) for fit in fits], dtype=torch.float32)
            for name in ("turn", "east", "north")
        )
        both = torch.stack([light[0, 0], self.compared.float()]).expand(count, -1, -1, -1)
        turned = F.grid_sample(both, _turning(turn, both.shape), align_corners=False)
        cells, width = light.shape[2], below.shape[2]
        axis = (torch.arange(cells) + 0.5 - cells / 2)[None]
        x = ((axis + east[:, None] / self.cell) / (width / 2))[:, None, :].expand(-1, cells, -1)
        y = ((axis - north[:, None] / self.cell) / (width / 2))[:, :, None].expand(-1, -1, cells)
        under = F.grid_sample(below, torch.stack([x, y], -1), align_corners=False)[:, 0]
        shown = (turned[:, 1] > 0.99) & (x.abs() < 1) & (y.abs() < 1)
        one, other = turned[:, 0] * shown, under * shown
        lengths = (one.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1)).clamp_min(1e-6)
        return ((one * other).sum((1, 2)) / lengths).tolist()


def edge_directions(images: Tensor, seen: Tensor) -> Tensor:
    """Turn pictures into directions of edges.

    Parameters
    ----------
    images : (n, 1, H, W) float
    seen : (H, W) bool
        What counts.

    Returns
    -------
    (n, H, W) complex64
        The angle is twice the edge's, so that light beside dark and dark beside light are one; the
        modulus is about 1 where the edge is as strong as those around it, 0 where nothing counts.
    """
    mask = seen.float()[None, None]
    smooth = _blur(images * mask, SMOOTHING) / _blur(mask, SMOOTHING).clamp_min(0.05)
    down = F.pad(smooth[:, :, 2:] - smooth[:, :, :-2], (0, 0, 1, 1))
    right = F.pad(smooth[..., 2:] - smooth[..., :-2], (1, 1))
    inside = 1 - F.max_pool2d(1 - mask, 5, 1, 2)
    strength = torch.hypot(right, down) * inside
    around = _blur(strength, SURROUND) / _blur(inside, SURROUND).clamp_min(0.05)
    # A step of one grey level is noise and stays small.
    edges = torch.complex(right, down) ** 2 / strength.clamp_min(1e-6) / (around + 1.0)
    return (edges * inside)[:, 0]


def rotate(edges: Tensor, degrees: Tensor) -> Tensor:
    """Rotate directions of edges (1, C, C) clockwise by each angle: (R, C, C)."""
    size = torch.Size([len(degrees), 2, *edges.shape[1:]])
    grid = _turning(degrees, size)
    parts = torch.view_as_real(edges[0]).permute(2, 0, 1)[None].expand(size)
    turned = F.grid_sample(parts, grid, align_corners=False)
    angle = torch.deg2rad(degrees.float())[:, None, None]
    return torch.complex(turned[:, 0], turned[:, 1]) * torch.polar(
        torch.ones_like(angle), 2 * angle
    )


def _turning(degrees: Tensor, size: torch.Size) -> Tensor:
    """Where each pixel of pictures (R, C, H, W) turned clockwise comes from."""
    angle = torch.deg2rad(degrees.float())
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, sin, zero, -sin, cos, zero], 1).reshape(-1, 2, 3)
    return F.affine_grid(matrix, list(size), align_corners=False)


def _contrast(images: Tensor, seen: Tensor) -> Tensor:
    """Light and dark (n, 1, H, W) relative to the surroundings, whatever their contrast."""
    mask = seen.float()[None, None]
    around = _blur(mask, SURROUND).clamp_min(0.05)
    above = (images - _blur(images * mask, SURROUND) / around) * mask
    return above / ((_blur(above**2, SURROUND) / around).sqrt() + 2.0)  # of two grey levels: noise


def _on_cells(images: NDArray[np.generic], scale: float, cells: int | None = None) -> Tensor:
    """Average (n, H, W, C) to cells ``scale`` pixels wide: (n, 1, h, w), all or the middle ones."""
    pixels = torch.from_numpy(images).float().mean(3)[:, None]
    size = round(pixels.shape[2] / scale), round(pixels.shape[3] / scale)
    small = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    if cells is None:
        return small
    before = [cells - n for n in size]
    pad = [before[1] // 2, before[1] - before[1] // 2, before[0] // 2, before[0] - before[0] // 2]
    return F.pad(small, pad)


def _blur(images: Tensor, scale: float) -> Tensor:
    """Smooth (n, 1, H, W) by a Gaussian of so many pixels; zeros lie outside."""
    down, across = (_gaussian(size, scale) for size in images.shape[2:])
    return down @ images @ across


@functools.cache
def _gaussian(size: int, scale: float) -> Tensor:
    """Make the matrix that smooths ``size`` values; a product is faster than a convolution."""
    reach = round(3 * scale)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / scale) ** 2)
    away = torch.arange(size)[:, None] - torch.arange(size) + reach
    inside = (away >= 0) & (away <= 2 * reach)
    return (kernel / kernel.sum())[away.clamp(0, 2 * reach)] * inside


def _around(place: int, count: int) -> list[int]:
    middle = min(max(place, 1), count - 2) if count > 2 else place
    return [max(middle - 1, 0), middle, min(middle + 1, count - 1)]


def _between(values: np.ndarray) -> tuple[float, float]:
    """Place (-0.5 to 0.5 from the middle one) of a parabola's top, and its curvature, positive."""
    before, here, after = values.tolist()
    bend = max(2 * here - before - after, 1e-6)
    return min(max(0.5 * (after - before) / bend, -0.5), 0.5), bend


def _placed(candidate: Candidate, fit: Fit, base: float) -> Candidate:
    plane = LocalPlane(candidate.latitude, candidate.longitude)
    latitude, longitude = plane.to_geographic(fit.east, fit.north)
    return replace(
        candidate,
        latitude=float(latitude),
        longitude=float(longitude),
        heading=(base + fit.turn) % 360,
        agreement=fit.agreement,
        likeness=fit.likeness,
        metres=fit.metres,
        degrees=fit.degrees,
    )
