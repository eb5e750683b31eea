"""Numba's compiler, also where compiled code cannot be kept beside its source or at home.

Import `njit` from here and not from Numba. In a container without a home, and of packages that
nobody may write to, Numba would refuse to compile at all.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from numba import config, njit

__all__ = ["njit"]

log = logging.getLogger(__name__)


def _find_place() -> None:
    """Let Numba keep compiled code in the temporary folder if there is no better place."""
    try:
        njit(cache=True)(_find_place)  # compiles nothing, but looks for the place
    except RuntimeError:
        place = _own_folder()
        config.CACHE_DIR = str(place)  # pyright: ignore[reportAttributeAccessIssue]
        log.info("compiled code is kept in %s: name a better place in NUMBA_CACHE_DIR", place)


def _own_folder() -> Path:
    """Return a temporary folder that nobody else can write to: what lies in it is executed."""
    place = Path(tempfile.gettempdir()) / f"bevgen-compiled-{os.getuid()}"
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    status = place.lstat()
    private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    if not (stat.S_ISDIR(status.st_mode) and private):
        place = Path(tempfile.mkdtemp(prefix="bevgen-compiled-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


_find_place()
