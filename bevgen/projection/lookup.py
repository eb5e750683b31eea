"""The value between planning and sampling: where on the panorama every BEV pixel looks.

Points are panorama coordinates with pixel centres at integers, in units of 1/SUBPIXEL pixel: so
quarter turns and shifts are exact. Columns that do not wrap and rows lie within the outermost
pixels' centres, and the row of what the panorama does not show is HIDDEN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUBPIXEL_BITS = 12
SUBPIXEL = 1 << SUBPIXEL_BITS
HIDDEN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """One point for each BEV pixel, and several for those that are means of several samples.

    Near the nadir, where a BEV pixel covers many panorama pixels, it is a mean (anti-aliasing):
    pixel ``averaged[m]`` over the samples from ``first[m]`` to ``first[m + 1]``.

    Attributes
    ----------
    columns, rows : (size * size,) int32
    averaged : (pixels,) int32
        In rising order.
    first : (pixels + 1,) int32
    sample_columns, sample_rows : (samples,) int32
    valid : (size, size) bool
        What the panorama shows.
    mirrored
        Whether the last pixel looks where the first one does half a turn on, point by point, the
        last but one where the second does, and so on: without tilt they do.
    """

    columns: NDArray[np.int32]
    rows: NDArray[np.int32]
    averaged: NDArray[np.int32]
    first: NDArray[np.int32]
    sample_columns: NDArray[np.int32]
    sample_rows: NDArray[np.int32]
    valid: NDArray[np.bool_]
    mirrored: bool = False
