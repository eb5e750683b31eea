"""Vectors rounded to int8, and products of them where this processor multiplies bytes right.

Such products take a quarter of the time of float32's on processors that have instructions for them,
and less than half of it with AVX2, where bytes go to 90.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 2048  # vectors rounded at once
SAFE = 1.0001  # more than float32 loses in a length


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Vectors as bytes times a step each.

    Attributes
    ----------
    exact : (N, D) float32
    bytes : (N, D) int8
    levels
        The largest byte.
    steps : (N,) float32
    lengths, errors : (N,) float64
        Lengths of the exact vectors, and of what rounding took from them.
    """

    exact: NDArray[np.float32]
    bytes: Tensor
    levels: int
    steps: NDArray[np.float32]
    lengths: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Tensor, levels: int = 127) -> Rounded:
        """Round (N, D) float32 vectors to bytes from -levels to levels, some thousand at a time."""
        whole = torch.empty(vectors.shape, dtype=torch.int8)
        steps, lengths, errors = [], [], []
        for start in range(0, len(vectors), CHUNK):
            part = vectors[start : start + CHUNK]
            step = (part.abs().amax(1) / levels).clamp(min=1e-30)
            nearest = (part / step[:, None]).round()
            whole[start : start + CHUNK] = nearest
            rest = part - nearest * step[:, None]
            steps.append(step.numpy())
            lengths.append(part.norm(dim=1).double().numpy())
            errors.append(rest.norm(dim=1).double().numpy())
        exact = vectors.contiguous().numpy()
        steps, lengths, errors = map(np.concatenate, (steps, lengths, errors))
        return cls(exact, whole, levels, steps, SAFE * lengths, SAFE * errors)


def levels(dimensions: int) -> int:
    """Return the largest byte whose products this processor makes fast and without error; or 0.

    Without VNNI, oneDNN adds two products of unsigned and signed bytes in 16 bits. With bytes up to
    127 that overflows; with up to 90, which as unsigned ones are up to 180, never: 2 x 180 x 90 is
    less than 2**15.
    """
    if not has_fast_products():
        return 0
    return next((n for n in (127, 90) if is_exact(multiply_bytes, dimensions, n)), 0)


def has_fast_products() -> bool:
    """Whether oneDNN has fast code for bytes on this processor: any that has AVX2.

    With that alone products take less than half of the time of float32's, with VNNI a fraction.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def multiply_bytes(queries: Tensor, references: Tensor, largest: int) -> Tensor:
    """Return the (n, m) float32 products of (n, D) and (m, D) int8 from -largest to largest.

    Right where `is_exact` says so: the operators are private to torch, and without VNNI or AMX sums
    saturate. They multiply unsigned bytes, of which a zero point is taken, by signed ones.
    """
    unsigned = (queries + largest).view(torch.uint8)  # bytes wrap
    packed = torch.ops.onednn.qlinear_prepack(references, None)
    return torch.ops.onednn.qlinear_pointwise(
        unsigned, 1.0, largest, packed, torch.ones(1), torch.zeros(1, dtype=torch.int64), None,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip


@cache
def is_exact(
    multiply: Callable[[Tensor, Tensor, int], Tensor], dimensions: int, largest: int = 127
) -> bool:
    """Whether this processor multiplies bytes from -largest to largest without an error.

    Tried once per process and number of dimensions, as the code that runs depends on both: with
    the largest and smallest bytes, whose sums saturate first, and with any bytes, in shapes that
    fill a kernel's blocks, leave a rest, or are but a few vectors.
    """
    random = np.random.default_rng(0)
    for n, m in ((257, 515), (64, 64), (3, 5)):
        shapes = ((n, dimensions), (m, dimensions))
        a, b = (random.integers(-largest, largest + 1, shape, np.int8) for shape in shapes)
        for values in (a, b):
            half = len(values) // 2
            values[:half] = random.choice([-largest, largest], (half, 1))
        expected = (a.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32)
        try:
            found = multiply(torch.from_numpy(a), torch.from_numpy(b), largest)
        except (AttributeError, NotImplementedError, RuntimeError):
            return False
        if not np.array_equal(found.numpy(), expected):
            return False
    return True
