"""One writer to an output: a lock that the system releases even if its process is killed."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from bevgen.errors import RefusedError

log = logging.getLogger(__name__)

LOCK = ".lock"


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold the lock on an output, a file or a folder, while it is written.

    Parameters
    ----------
    out
        What is written; its own folder exists. The lock is a file beside it, removed at the end.

    Raises
    ------
    RefusedError
        If another process holds it, or nothing can be written there.
    """
    path = _beside(out)
    with _locked(path, out) as file:
        try:
            with suppress(OSError):  # a full disk: the lock holds without its owner's name
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            path.unlink(missing_ok=True)


def _beside(out: Path) -> Path:
    """Return the lock file of an output, which may be called ``.`` or ``..``."""
    whole = out if out.name.strip(".") else out.resolve()
    return whole.with_name(whole.name + LOCK)


def _locked(path: Path, out: Path) -> FileIO:
    """Open and lock the lock file of ``out``; the errors are those of `only_writer`."""
    while True:
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise RefusedError(f"nothing can be written beside {out}: {error.strerror}") from error
        try:
            _lock(file)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read().decode("utf-8", "replace").strip()
            raise RefusedError(
                f"another run is writing {out} ({owner or 'just started'}):"
                " wait for it, or name another output"
            ) from None
        except OSError as error:
            log.warning("%s: this file system has no locks (%s): start one run only", out, error)
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # its owner had ended, and removed it after we opened it


def _lock(file: FileIO) -> None:
    """Lock an open file, or raise BlockingIOError: not because of those who only look at it."""
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # they share it, which no writer does


def is_written(out: Path) -> bool:
    """Whether some process holds the lock on an output just now."""
    try:
        with _beside(out).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that could be asked
        return False
    return False
