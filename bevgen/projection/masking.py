"""What of every panorama is not the street, and the BEV pixels that would show it.

A mask is projected as the panorama is: a BEV pixel is hidden if any panorama pixel that it is mixed
from is. Without a mask nothing of this is run.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import Pose

if TYPE_CHECKING:
    from bevgen.projection.planning import Planner

_SAME_SHAPE = 0.01  # relative difference of aspect ratios: sizes are rounded


@dataclass(frozen=True, slots=True)
class Mask:
    """Which pixels of panoramas are used; `Mask.of` makes it. Small enough to travel to workers.

    Attributes
    ----------
    shape
        Rows and columns.
    packed
        A bit for each pixel, compressed.
    """

    shape: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, use: Any) -> Mask:
        """Take a mask as arrays say it.

        Parameters
        ----------
        use : (H, W) bool or uint8
            True, or 128 and more, where pixels are used.

        Raises
        ------
        InputError
            If it is no such array, or uses nothing.
        """
        if isinstance(use, Mask):
            return use
        pixels = np.asarray(use)
        if pixels.ndim != 2 or pixels.dtype not in (np.bool_, np.uint8) or not pixels.size:
            raise InputError(
                "a mask must be a bool or uint8 array (H, W), True or white where panoramas are"
                f" used, not {pixels.dtype} of shape {pixels.shape}"
            )
        used = pixels if pixels.dtype == np.bool_ else pixels >= 128
        if not used.any():
            raise InputError("the mask hides everything: white is what is used, black is hidden")
        return cls((used.shape[0], used.shape[1]), zlib.compress(np.packbits(used).tobytes(), 6))

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that no other mask has."""
        content = f"{self.shape[0]}x{self.shape[1]}".encode() + zlib.decompress(self.packed)
        return hashlib.sha256(content).hexdigest()[:16]

    @property
    def use(self) -> NDArray[np.bool_]:
        """The pixels (H, W), read-only."""
        return _unpacked(self)

    def fitted(
        self, shape: tuple[int, int], resized: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Return the pixels for panoramas of a shape; what is hidden in part is hidden.

        Parameters
        ----------
        shape
            Rows and columns of the panorama.
        resized
            Those that it was resized to, if it was.

        Raises
        ------
        InputError
            If the shapes are not proportional.
        """
        height, width = shape
        if abs(self.shape[1] * height / (self.shape[0] * width) - 1) > _SAME_SHAPE:
            raise InputError(
                f"a mask of {self.shape[1]} x {self.shape[0]} pixels is not proportional to a"
                f" panorama of {width} x {height}: it must have that size, or be reduced or"
                " enlarged evenly"
            )
        height, width = resized or shape
        return _fitted(self, (int(height), int(width)))


@lru_cache(maxsize=4)
def _unpacked(mask: Mask) -> NDArray[np.bool_]:
    height, width = mask.shape
    bits = np.frombuffer(zlib.decompress(mask.packed), np.uint8)
    use = np.unpackbits(bits, count=height * width).reshape(mask.shape).view(np.bool_)
    use.flags.writeable = False
    return use


@lru_cache(maxsize=4)
def _fitted(mask: Mask, shape: tuple[int, int]) -> NDArray[np.bool_]:
    if mask.shape == shape:
        return mask.use
    # Sums over the mask's pixels that each panorama pixel touches.
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(~mask.use, axis=0), axis=1, out=total[1:, 1:])
    (top, bottom), (left, right) = (_touched(n, m) for n, m in zip(shape, mask.shape, strict=True))
    hidden = total[bottom][:, right] - total[top][:, right]
    hidden -= total[bottom][:, left] - total[top][:, left]
    use = hidden == 0
    use.flags.writeable = False
    return use


def _touched(count: int, of: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last (exclusive) of ``of`` pixels that each of ``count`` pixels touches."""
    edges = np.arange(count + 1, dtype=np.int64) * of
    first, last = edges[:-1] // count, -(-edges[1:] // count)
    if count >= of:  # enlarged: the one that holds the pixel's centre
        first = (2 * edges[:-1] + of) // (2 * count)
        last = first + 1
    return first, last


def hidden_by(mask: Mask, planner: Planner, pose: Pose) -> NDArray[np.bool_]:
    """Return the BEV pixels (size, size) that would show what a mask hides, shared.

    Raises
    ------
    InputError
        If the mask does not fit the planner's view.
    """
    kept = _recent if planner.grid.size <= 1024 else _last
    return kept(mask, planner, pose)


def _hidden_by(mask: Mask, planner: Planner, pose: Pose) -> NDArray[np.bool_]:
    from bevgen.projection.cpu import sample_from_host

    size, view = planner.grid.size, planner.view
    hides = (~mask.fitted((view.height, view.width))).astype(np.float32)
    part = np.empty((1, size**2, 1), np.float32)
    poses = np.array([[pose.height, pose.heading, pose.pitch, pose.roll]], np.float64)
    sample_from_host(hides[None, :, :, None], planner, poses, part)
    hidden = part.reshape(size, size) > 0
    hidden.flags.writeable = False
    return hidden


_recent, _last = lru_cache(maxsize=16)(_hidden_by), lru_cache(maxsize=1)(_hidden_by)
