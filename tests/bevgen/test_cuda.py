"""The GPU's path where there is no GPU: in the simulator, as compiled code, and in its absence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from bevgen import InputError, project
from tests.helpers.paths import ROOT


def test_in_the_simulator() -> None:
    """In a process of its own: the simulator is chosen before Numba is imported."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    done = subprocess.run(
        [sys.executable, *words],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "15 passed, 1 skipped" in done.stdout


COMPILE = """
import sys
from numba import cuda, types
from bevgen.projection.cuda import _sample_centres, _sample_means
ints, floats = types.int32[::1], types.float32[::1]
for source in (types.uint8, types.float32):
    for result in (types.uint8, types.float32, types.float16):
        ink = (types.boolean, floats, floats, types.boolean, result[:, :, ::1])
        for kernel, arrays in ((_sample_centres, 3), (_sample_means, 5)):
            signature = (source[:, :, :, ::1], *[ints] * arrays, *ink)
            ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=(9, 0))
            assert ".visible .entry" in ptx and ".f64" not in ptx  # slow on most GPUs
"""


def test_compiles_for_a_real_one() -> None:
    """Needs NVIDIA's compiler, which `pip install 'bevgen[cuda]'` brings, but no GPU."""
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_a_gpu() -> None:
    from numba import cuda

    if cuda.is_available():
        pytest.skip("there is a GPU")
    image = np.zeros((16, 32, 3), np.uint8)
    with pytest.raises(InputError, match=r"needs an NVIDIA GPU .* Use the device cpu"):
        project(image, device="cuda")
    assert project(image, device="auto").shape == (512, 512, 3)
    with pytest.raises(InputError, match='"auto", "cpu" or "cuda"'):
        project(image, device="gpu")  # pyright: ignore[reportArgumentType]
