"""Find camera height, heading and horizon by laying panoramas over satellite tiles.

Around the camera both pictures are drawn over azimuth and the logarithm of distance (`rings`), and
the directions of their edges compared at all heights and headings at once (`agreement`). What is
best, and how sure, says `estimation`; `horizon` holds near against far ground. `pairs` finds the
images, `sample` reads some of them, `doubts` and `report` decide what the result is worth, `sheet`
draws it, and `headings` writes it for all pairs.
"""

from bevgen.calibration.agreement import Heading
from bevgen.calibration.estimation import (
    Calibration,
    Estimate,
    ImageHeading,
    calibrate,
    find_heading,
)
from bevgen.calibration.pairs import PairFiles, choose, find_pairs, load_view
from bevgen.calibration.rings import View

__all__ = [
    "Calibration",
    "Estimate",
    "Heading",
    "ImageHeading",
    "PairFiles",
    "View",
    "calibrate",
    "choose",
    "find_heading",
    "find_pairs",
    "load_view",
]
