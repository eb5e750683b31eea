"""What drawings of both packages share."""

from __future__ import annotations

import math


def round_length(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a positive value."""
    power = math.floor(math.log10(value))
    return max(
        length
        for k in (power, power + 1)
        for factor in (1, 2, 5)
        if (length := float(f"{factor}e{k}")) <= value * (1 + 1e-12)
    )
