"""Find the images below a folder, or those of them that a list names, and give them ids."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bevgen.errors import InputError
from bevgen.tables import read_text

logger = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


def find_images(root: Path, list_file: Path | None = None) -> list[tuple[str, int]]:
    """Find the images below a folder, or those of them that a list names.

    Without a list: all files that end in .jpg, .jpeg, .png, .webp, .tif or .tiff in any case, in
    the folder and its sub-folders. Symbolic links are followed. Files and folders whose names begin
    with a dot are left out. What cannot be read is logged as a warning and left out.

    Parameters
    ----------
    root
        The folder.
    list_file
        UTF-8 text, one path a line, relative to ``root``; whatever the ending.

    Returns
    -------
    list of (str, int)
        Path relative to ``root`` with forward slashes, and size in bytes, sorted by path.

    Raises
    ------
    InputError
        If there is no such folder or list, nothing is found, or the list names a file that is
        missing, outside the folder, or twice.
    """
    root = Path(root)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {problem}; name the folder that the panoramas are in")
    if list_file is not None:
        return sorted(_listed(root, Path(list_file)))
    found = sorted(_walk(root))
    if not found:
        raise InputError(f"no images ({' '.join(ENDINGS)}) in {root} or its sub-folders")
    return found


def default_id(source: str) -> str:
    """Return the id of a panorama unless told otherwise: its relative path without the ending."""
    name, dot, ending = source.rpartition(".")
    return name if dot + ending.lower() in ENDINGS else source


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Yield images below a folder, unsorted.

    Each folder comes with the (device, inode) of those above it: a link back to one of them is a
    loop and is not entered, while two links to one folder elsewhere are both followed.
    """
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(root), "", ())]
    while pending:
        folder, prefix, above = pending.pop()
        try:
            status = Path(folder).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                logger.debug("%s leads back to a folder above it: not entered", folder)
                continue
            with os.scandir(folder) as scan:  # pathlib would stat every file once more
                entries = list(scan)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be read: {error.strerror}; its images would be missing"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            relative = prefix + entry.name
            try:
                if entry.is_dir():
                    pending.append((entry.path, f"{relative}/", (*above, identity)))
                elif entry.name.lower().endswith(ENDINGS):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        relative.encode()
                        yield relative, status.st_size
            except OSError:  # such as a link to nowhere: reading it will say what is wrong
                yield relative, 0
            except UnicodeEncodeError:
                logger.warning("%r is left out: rename it, its name is not UTF-8", entry.path)


def _listed(root: Path, list_file: Path) -> Iterator[tuple[str, int]]:
    """Yield the images that a list names, in its order."""
    lines: dict[str, int] = {}
    missing: list[str] = []
    for number, line in enumerate(read_text(list_file).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        path = PurePosixPath(line)
        if path.is_absolute() and path.is_relative_to(root.absolute()):
            path = path.relative_to(root.absolute())
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{list_file}, line {number}: {line} is outside of {root}; paths are relative to it"
            )
        relative = str(path)
        if relative in lines:
            raise InputError(
                f"{list_file}, line {number}: {relative} is on line {lines[relative]} already;"
                f" keep one of them"
            )
        lines[relative] = number
        try:
            status = (root / path).stat()
        except (OSError, ValueError):  # ValueError: a null character
            missing.append(relative)
            continue
        if stat.S_ISREG(status.st_mode):
            yield relative, status.st_size
        else:
            missing.append(relative)
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{len(missing)} of the {len(lines)} files that {list_file} names are not in {root}:"
            f" {some}; correct the list, or name the folder that its paths are relative to"
        )
    if not lines:
        raise InputError(f"{list_file} names no files; write one path a line, relative to {root}")
