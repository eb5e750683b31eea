"""Tests of the GPU path: on a real one, or in the simulator (see tests/bevgen/test_cuda.py)."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _gpu() -> None:
    cuda = pytest.importorskip("numba.cuda")
    if not cuda.is_available():
        pytest.skip("no GPU, and not in the simulator")
