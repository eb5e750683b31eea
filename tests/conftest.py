"""What all tests share: one core each, Ctrl-C, and folders."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Each of pytest-xdist's workers, and each process that a test starts, computes on one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, also where they run in the background of a script.

    A shell starts that with Ctrl-C ignored, and every process hands it down.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return a folder in memory where there is one, for tests that sync hundreds of files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
