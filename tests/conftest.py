"""What all tests share: one core each, and folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Each of pytest-xdist's workers, and each process that a test starts, computes on one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Let each worker keep compiled code in a folder of its own, from one run to the next.

    Numba's cache is not made for processes that compile one function at once for different types:
    each believes that the next number is its own.
    """
    if hasattr(config, "workerinput") and config.cache is not None:
        place = config.cache.mkdir(f"numba-{os.environ['PYTEST_XDIST_WORKER']}")
        os.environ["NUMBA_CACHE_DIR"] = str(place)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return a folder in memory where there is one, for tests that sync hundreds of files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
