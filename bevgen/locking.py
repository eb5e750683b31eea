"""One writer at a time: a lock on an output, for every command that writes."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bevgen.errors import RefusedError

log = logging.getLogger(__name__)


@contextmanager
def only_writer(out: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold a lock on an output; the system releases it even if this process is killed.

    Parameters
    ----------
    out
        What is written: a file, or a folder.
    lock
        The file that is locked, removed in the end; None for one beside the output.

    Raises
    ------
    RefusedError
        If another run holds it, or nothing can be written there.
    """
    path = lock or out.with_name(out.name + ".lock")
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise RefusedError(f"nothing can be written beside {out}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
                raise BlockingIOError  # its owner has just ended and removed it
        except BlockingIOError:
            file.seek(0)
            owner = file.read().decode("utf-8", "replace").strip()
            raise RefusedError(
                f"another run is writing {out} ({owner or 'just started'}):"
                " wait for it, or name another output"
            ) from None
        except OSError as error:
            log.warning("%s: this file system has no locks (%s): start one run only", out, error)
        try:
            with suppress(OSError):  # a full disk: the lock holds without its owner's name
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            path.unlink(missing_ok=True)
