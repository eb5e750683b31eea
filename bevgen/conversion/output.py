"""An output on the disk: what is left of other runs, and errors in writing."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bevgen.errors import BevgenError
from bevgen.shards import PARTS, PLAN_FILE, shard_folder


def leftovers(out: Path) -> list[Path]:
    """Files that a killed run left unfinished."""
    found = [*out.parent.glob(f"{glob.escape(out.name)}.*"), *shard_folder(out).glob("*.part*")]
    return [path for path in found if path.name.endswith(PARTS)]


def remove_output(out: Path) -> None:
    """Remove an output with its folder of shards, and nothing that is not bevgen's."""
    out.unlink(missing_ok=True)
    folder = shard_folder(out)
    if folder.is_dir():
        for pattern in ("[0-9][0-9][0-9][0-9][0-9]*.h5*", f"{PLAN_FILE}*"):
            for path in folder.glob(pattern):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say what an error in writing means for the run: a BevgenError instead."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _error_number(error)
        if number is None and isinstance(error, RuntimeError):
            raise
        why = str(error) if number is None else os.strerror(number)
        if number in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full"
        raise BevgenError(
            f"{path} could not be written: {why}. Finished shards are kept: mend the cause and run"
            " the same command again"
        ) from error


def _error_number(error: BaseException | None) -> int | None:
    """Return the system's number of an error, which HDF5 has in its text, or in an earlier one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := re.search(r"errno = (\d+)", str(error)):
            return int(found[1])
        error = error.__context__
    return None
