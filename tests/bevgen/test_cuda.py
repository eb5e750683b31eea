"""The GPU's path where there is no GPU: in the simulator, as compiled code, and in its absence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from packaging.requirements import Requirement

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
    assert "21 passed, 5 skipped" in done.stdout


COMPILE = """
import sys
from numba import cuda, types
from bevgen.projection.cuda_kernels import Format, hide_parts, kernels_of
integer, flag = types.int64, types.boolean
ints, floats, doubles = types.int32[::1], types.float32[::1], types.float64
formats = (
    (Format(3, True, False, True, packed=True), types.uint64, types.uint32),
    (Format(4, True, True, False), types.uint64, types.float16),
    (Format(1, False, False, False, shifting=True), types.float32, types.float32),
)
for form, source, result in formats:
    kernels = kernels_of(form)
    images = source[::1], *[integer] * 3
    view, stored = (integer, integer, flag), (floats, floats, result[::1])
    model = doubles[:, ::1], doubles[::1], integer, doubles, flag
    for kernel, arguments in (
        (kernels.centres, (integer, *view, *[ints] * 3, integer)),
        (kernels.means, (integer, *view, *[ints] * 5, integer)),
        (kernels.posed, (*view, *model)),
    ):
        ptx, _ = cuda.compile_ptx(kernel.py_func, (*images, *arguments, *stored), cc=(9, 0))
        assert ".visible .entry" in ptx
        assert kernel is kernels.posed or ".f64" not in ptx  # slow on most GPUs
for result in (types.uint8, types.float16, types.float32):
    sizes, arrays = (integer, integer, flag), (floats, types.boolean[::1], result[::1])
    ptx, _ = cuda.compile_ptx(hide_parts.py_func, (floats, *sizes, *arrays), cc=(9, 0))
    assert ".visible .entry" in ptx
"""


def test_compiles_for_a_real_one() -> None:
    """Needs NVIDIA's compiler, which `pip install 'bevgen[cuda]'` brings, but no GPU."""
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_extras_leave_numpy_where_numba_cuda_knows_it() -> None:
    """NumPy 2.5 has dropped a name that numba-cuda up to 0.30.4 calls while it is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, toolkit in (("cuda", "cu12"), ("cuda13", "cu13")):
        asked = [Requirement(text) for text in project["optional-dependencies"][extra]]
        named = {one.name: one for one in asked}
        assert named["numba-cuda"].extras == {toolkit}
        assert named["numpy"].specifier.contains("2.4.6")
        assert not named["numpy"].specifier.contains("2.5.0")


BROKEN = """
import sys
import numba
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "numba.cuda":
            raise AttributeError("module 'numpy' has no attribute 'row_stack'")
sys.modules.pop("numba.cuda", None)
vars(numba).pop("cuda", None)
sys.meta_path.insert(0, Finder())
import numpy as np
from bevgen import InputError, project
try:
    project(np.zeros((16, 32, 3), np.uint8), size=4, device="cuda")
except InputError as error:
    print(error)
"""


def test_a_broken_installation_is_not_a_failing_gpu() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True
    )
    assert "cannot be imported (AttributeError: module 'numpy' has no attribute" in done.stdout
    assert "pip install --upgrade 'bevgen[cuda]'" in done.stdout


def test_interpreted_code_is_refused() -> None:
    script = "import numpy as np, bevgen; bevgen.project(np.zeros((16, 32, 3), np.uint8), size=4)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "InputError: NUMBA_DISABLE_JIT is set" in done.stderr


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
