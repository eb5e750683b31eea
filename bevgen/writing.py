"""Files that appear whole or not at all, and what an error in writing is for the user."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from bevgen.errors import BevgenError, RefusedError, WriteError

if TYPE_CHECKING:
    from PIL import Image

FRESH = 60.0  # seconds for which an unfinished file is left alone though nobody holds it
_NUMBER = re.compile(r"(?:errno =|os error) (\d+)")  # as HDF5 and Rust have it
_SHORT = re.compile(r"requested and \d+ written|unexpected pos")  # NumPy, torch


def check_output(path: Path, *, overwrite: bool, reads: Iterable[Path | None] = ()) -> None:
    """Refuse before any work a file that could not be written, or would destroy another.

    Parameters
    ----------
    path
        The file.
    overwrite
        Whether it may be there.
    reads
        Files that are read, and must stay as they are.

    Raises
    ------
    RefusedError
        If it is a folder, lies in none, is read, or is there and not to be replaced.
    """
    if path.is_dir():
        raise RefusedError(f"{path} is a folder: name a file")
    if not path.absolute().parent.is_dir():
        raise RefusedError(f"the folder of {path} does not exist: create it first")
    if path.exists() and any(p and p.exists() and path.samefile(p) for p in reads):
        raise RefusedError(f"{path} is read: name another output")
    if path.exists() and not overwrite:
        raise RefusedError(f"{path} exists: name another output, or add --overwrite")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and rename it once it is on the disk.

    A killed process leaves what was there before; two that write one file at the same time never
    meet, and the later one wins. What killed ones left beside it is removed.

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
        with write_errors(path), part.open("xb") as file:
            _lock(file)
            # Libraries may put a file of theirs in its place, which only its owner can read.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            _sweep(path, part)
            yield part
            with part.open("rb") as written:
                _lock(written)  # if it is theirs
                os.fsync(written.fileno())
                part.chmod(mode)
                part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; return whether nobody else had."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(path: Path, own: Path) -> None:
    """Remove unfinished files of an output whose writers were killed.

    Those of living ones are locked, but for the moment in which a library puts its own file in the
    place: so a file counts only once it has not changed for a while.
    """
    for part in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        if part != own:
            with suppress(OSError), part.open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > FRESH and _lock(file):
                    part.unlink()


def write_picture(image: Image.Image, path: Path) -> None:
    """Write a drawing as PNG, or as JPEG of high quality where the ending is another.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    with written_whole(path) as part:
        if path.suffix.lower() == ".png":
            image.save(part, "PNG")
        else:
            image.save(part, "JPEG", quality=92, subsampling="4:4:4")


@contextmanager
def write_errors(path: Path, then: str = "") -> Iterator[None]:
    """Say which file could not be written, why, and what to do: a WriteError instead.

    Parameters
    ----------
    path
        The file.
    then
        A sentence on what to do, or on what is kept.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _error_number(error)
        if isinstance(error, BevgenError) or (number is None and isinstance(error, RuntimeError)):
            raise
        why = str(error) if number is None else os.strerror(number)
        if _SHORT.search(why):
            why = "the disk took only a part of it"
        if number in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full"
        raise WriteError(f"{path} could not be written: {why}{'. ' * bool(then)}{then}") from error


def _error_number(error: BaseException | None) -> int | None:
    """Return the system's number of an error, which may stand in its text or in an earlier one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := _NUMBER.search(str(error)):
            return int(found[1])
        error = error.__context__
    return None
