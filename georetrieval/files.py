"""Files that appear whole or not at all: the one way in which georetrieval writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from georetrieval.errors import WriteError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and rename it once it is on the disk.

    A killed process leaves what was there before; two that write one file at the same time never
    meet, and the later one wins.

    Parameters
    ----------
    path
        The file; its folder must be there.

    Yields
    ------
    Path
        Where to write: an empty file beside it, of this call alone.

    Raises
    ------
    WriteError
        If the system refuses: the folder is missing or read-only, the disk is full.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            # Libraries may put a file of theirs in its place, which only its owner can read.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(mode)
        part.replace(path)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
