"""Which frames show the same ground, and how one lies to the other: searched for by pictures.

Lengths are in camera heights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bevgen.mosaic.cores import on_all_cores
from bevgen.mosaic.pictures import Array, Details, Level, Picture, Window, turned

TURNS = np.arange(-24.0, 24.1, 3.0)  # degrees tried around the compass heading
MIN_OVERLAP = 1.6  # square heights of common ground below which two frames say nothing
LEAST_SCORE = 0.22  # correlation of detail below which a pair was not found
SEARCH = Level(0.05, 0.08, 0.32, 3.2, 0.0)

_WINDOW = Window(0.0, 0.0, round(2 * SEARCH.far / SEARCH.resolution), SEARCH.resolution)
_SIZE: Any = fft.next_fast_len(2 * _WINDOW.size, real=True)  # of transforms: no shift meets itself
_SHIFT = (np.arange(_SIZE) - _SIZE // 2) * _WINDOW.resolution


class Edge(NamedTuple):
    """Frame ``j`` as seen from frame ``i``: heights to the right and ahead of it, and degrees."""

    i: int
    j: int
    right: float
    ahead: float
    turn: float
    score: float


Watch = Callable[[str, int, int], None]


def search_all(
    details: Details, wanted: list[tuple[int, int]], track: Array, sigma: float, watch: Watch
) -> list[Edge]:
    """Search for pairs (i, j), and keep those that were found.

    Parameters
    ----------
    details
        At the level `SEARCH`.
    wanted
        Which pairs.
    track : (N, 5)
        Where frames stand, about; angles in degrees.
    sigma
        Standard deviation of where one stands to the other.
    watch
        Called with what is done, and how much of it of how much.
    """
    near: dict[int, list[int]] = {}
    for i, j in wanted:
        if np.hypot(*(track[j] - track[i])[:2]) <= 2 * SEARCH.far + 2 * sigma:
            near.setdefault(j, []).append(i)
    edges: list[Edge] = []
    found = on_all_cores(lambda j: search(details, near[j], j, track, sigma), near)
    for number, some in enumerate(found):
        watch("searching", number, len(near))
        edges += [edge for edge in some if edge.score > LEAST_SCORE]
    return edges


def search(details: Details, others: list[int], j: int, track: Array, sigma: float) -> list[Edge]:
    """Find frame j around each of some others.

    Normalised cross-correlation of masked pictures, all shifts at once by Fourier transform; what
    is far from the step that ``track`` foretells must agree better.
    """
    matches = [_Match(details, i, track[i], track[j], sigma) for i in others]
    for turn in TURNS.tolist():
        other = _Spectra.of(details, j, track[j, 2] + turn)
        for match in matches:
            match.compare(other, turn)
    edges = []
    for i, match in zip(others, matches, strict=True):
        score, east, north, turn = match.best
        right, ahead = turned(np.array([east, north]), -track[i, 2]).tolist()
        edges.append(Edge(i, j, right, ahead, float(track[j, 2] + turn - track[i, 2]), score))
    return edges


class _Spectra(NamedTuple):
    """Transforms of a frame's detail, its square, and where it shows ground, at some heading."""

    image: NDArray[np.complex64]
    square: NDArray[np.complex64]
    ground: NDArray[np.complex64]

    @classmethod
    def of(cls, details: Details, k: int, heading: float) -> _Spectra:
        stand = np.array([0, 0, heading, 0, 0])
        ground = details.draw_ground(k, stand, _WINDOW).astype(np.float32)
        image = details.draw(details.picture(k), stand, _WINDOW) * ground
        pictures = (image, image**2, ground)
        return cls(*(np.asarray(fft.rfft2(a, (_SIZE, _SIZE)), np.complex64) for a in pictures))


def _sums(a: NDArray[np.complex64], b: NDArray[np.complex64]) -> Picture:
    """Sum the products of two pictures at all shifts."""
    return np.asarray(fft.irfft2(a * b.conj(), (_SIZE, _SIZE)), np.float32)


class _Match:
    """A frame that another one is laid onto: the best of what was compared.

    Attributes
    ----------
    best
        Score, shift east and north, and turn.
    """

    def __init__(self, details: Details, i: int, at: Array, other: Array, sigma: float) -> None:
        self.best = (-1.0, 0.0, 0.0, 0.0)
        self._spectra = _Spectra.of(details, i, at[2])
        east, north = (other - at)[:2].tolist()
        off = np.hypot(_SHIFT[None, :] - east, -_SHIFT[:, None] - north) / max(sigma, 0.3)
        self._penalty = np.where(off < 4, 0.01 * off**2, np.inf).astype(np.float32)
        # Where all frames show the same ring around the nadir, turning changes none of its sums.
        self._alike = len(details.grounds) == 1
        self._common: tuple[Picture, Picture] | None = None

    def compare(self, other: _Spectra, turn: float) -> None:
        """Compare at all shifts with another frame, turned by so many degrees."""
        image, square, ground = self._spectra
        if self._common is None or not self._alike:
            common = fft.fftshift(_sums(ground, other.ground)) * _WINDOW.resolution**2
            # Little common ground agrees by chance.
            trust = np.sqrt(np.clip(common / 8, 0, 1)) * (common > MIN_OVERLAP)
            self._common = trust, _sums(square, other.ground)
        trust, own = self._common
        energy = own * _sums(ground, other.square)
        score = fft.fftshift(_sums(image, other.image) / np.sqrt(np.maximum(energy, 1e-6)))
        score = score * trust - self._penalty
        row, column = np.unravel_index(score.argmax(), score.shape)
        east, north = float(_SHIFT[column]), -float(_SHIFT[row])
        self.best = max(self.best, (float(score[row, column]), east, north, turn))
