"""Numba's compiler: where compiled code is kept, and when it is out of date.

Import `njit` from here and not from Numba, which looks at the file of a cached function alone,
though what it compiles holds the helpers and constants of other files too; and which refuses to
compile at all in a container without a home, or packages that nobody may write to.

Compiled code calls helpers of its own folder only. Functions that Python calls say ``cache=True``;
their helpers need not, as they are compiled into them.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
from numba import config
from numba.core.caching import IndexDataCacheFile

__all__ = ["cache_folder", "is_kept", "njit", "sources_digest"]

log = logging.getLogger(__name__)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Numba's decorator of these options; it releases the GIL.

    With ``cache=True`` compiled code is kept on disk until a source file of the function's folder
    changes.
    """
    decorate: Any = cast(Any, numba.njit)(**{"nogil": True, **options})

    def decorator(function: Callable[..., Any]) -> Any:
        compiled = decorate(function)
        if options.get("cache") and hasattr(compiled, "_cache"):  # JIT may be disabled
            _stamp(compiled)
        return compiled

    return decorator


@cache
def sources_digest(folder: Path) -> str:
    """Return a digest of all Python files in a folder, but not those in folders below it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return where compiled code is kept: beside the source, at home, or where Numba is told."""
    return Path(str(numba.njit(cache=True)(cache_folder).stats.cache_path))  # compiles nothing


def is_kept(compiled: Any) -> bool:
    """Whether there is code on disk for a cached function, up to date with its source."""
    return bool(compiled._cache._cache_file._load_index())


class _CacheFile(IndexDataCacheFile):
    """Numba's files of one function, each of which says itself what it holds.

    Numba's index alone says so, and it is written first: where a process is killed in between, the
    disk is full, or two compile at the same time, it names a file of older or of other code.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code."""
        super().save(key, (self._source_stamp, key, data))

    def load(self, key: Any) -> Any:
        """Return the code that was kept; None where there is none."""
        match super().load(key):
            case (self._source_stamp, stored, data) if stored == key:
                return data
        return None


def _stamp(compiled: Any) -> None:
    """Let a function's compiled code be as old as the folder of its source.

    Numba has no public way to say so; its own stamp is the time and size of the one file.
    """
    folder = Path(compiled.py_func.__code__.co_filename).parent
    cache = compiled._cache
    name = cache._impl.filename_base
    cache._cache_file = _CacheFile(cache.cache_path, name, sources_digest(folder))


def _find_place() -> None:
    """Let Numba keep compiled code in the temporary folder if there is no better place."""
    try:
        numba.njit(cache=True)(_find_place)  # compiles nothing, but looks for the place
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
