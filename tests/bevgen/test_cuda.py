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
    assert "22 passed, 5 skipped" in done.stdout


COMPILE = """
from numba import cuda
from numpy import dtype
from bevgen.projection.cuda_kernels import Format, hiding_of, kernels_of
def compiled(kernel):
    ptx, _ = cuda.compile_ptx(kernel.body, kernel.signature, cc=(9, 0))
    assert ".visible .entry" in ptx
    assert ptx.split("{")[0].count(".param .") == len(kernel.signature)  # as it is launched
    return ptx
for form in (
    Format(3, dtype("uint64"), dtype("uint32")),
    Format(4, dtype("uint64"), dtype("float16"), planar=True),
    Format(1, dtype("float32"), dtype("float32"), shifting=True),
):
    kernels = kernels_of(form)
    for kernel in kernels:
        assert ".f64" not in compiled(kernel) or kernel is kernels.posed  # slow on most GPUs
for result in ("uint8", "float16", "float32"):
    compiled(hiding_of(dtype(result)))
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
