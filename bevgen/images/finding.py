"""Find the images below a folder, or those of them that a list names, and give them ids."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bevgen.errors import InputError
from bevgen.images.formats import (
    ENDINGS,
    HEAD_BYTES,
    HEIF_ENDINGS,
    OTHER_ENDINGS,
    SYSTEM_FOLDERS,
    begins_like_image,
    reads_heif,
)
from bevgen.tables import read_text, respelled, warn_respelled
from bevgen.terminal import counted

logger = logging.getLogger(__name__)

_SHOWN = 4


def find_images(root: Path, list_file: Path | None = None) -> list[tuple[str, int]]:
    """Find the images below a folder, or those of them that a list names.

    Without a list: all files that end in .jpg, .jpeg, .png, .webp, .tif or .tiff in any case, in
    the folder and its sub-folders; .heic, .heif, .hif and .avif where they can be read; and files
    of unknown endings that begin like one of these. Symbolic links are followed. Files and folders
    whose names begin with a dot are left out, and so are system folders with thumbnails or what was
    deleted. One warning says how many files were not looked at, and why.

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
    passed = _PassedOver()
    found = sorted(_walk(root, passed))
    if not found:
        more = f"; not looked at: {passed}" if passed else ""
        raise InputError(f"no images ({' '.join(ENDINGS)}) in {root} or its sub-folders{more}")
    if passed:
        logger.warning("not looked at in %s: %s", root, passed)
    return found


def default_id(source: str) -> str:
    """Return the id of a panorama unless told otherwise: its relative path without the ending."""
    name, dot, ending = source.rpartition(".")
    return name if dot + ending.lower() in (*ENDINGS, *HEIF_ENDINGS) else source


@dataclass(slots=True)
class _PassedOver:
    """What a search did not look at; its text is one line for the user, empty if it is nothing."""

    endings: Counter[str] = field(default_factory=Counter)
    heif: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    no_files: int = 0

    def __bool__(self) -> bool:
        return bool(str(self))

    def __str__(self) -> str:
        parts: list[str] = []
        for kind, count in sorted(self.heif.items()):
            way = "pip install 'bevgen[heif]'" if kind == "HEIC" else "a Pillow with AVIF"
            parts.append(f"{counted(count, f'{kind} file')} ({way} reads them)")
        if self.endings:
            count = counted(self.endings.total(), "file")
            parts.append(f"{count} of other kinds ({_most(self.endings)})")
        if self.folders:
            count = counted(self.folders.total(), "system folder")
            parts.append(f"{count} ({_most(self.folders)})")
        if self.hidden:
            parts.append(f"{counted(self.hidden, 'image')} whose name begins with a dot")
        if self.no_files:
            parts.append(
                counted(
                    self.no_files, "pipe, device or broken link", "pipes, devices or broken links"
                )
            )
        return ", ".join(parts)


def _most(counts: Counter[str]) -> str:
    """Name the commonest few, and how many more there are."""
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{name} {count:,}" for name, count in ranked[:_SHOWN]]
    return ", ".join([*shown, f"{len(ranked) - _SHOWN:,} more"] if len(ranked) > _SHOWN else shown)


def _is_image(entry: os.DirEntry[str], passed: _PassedOver) -> bool:
    """Whether a file is to be looked at; only one whose ending is unknown is opened."""
    name = entry.name.lower()
    if name.endswith(ENDINGS):
        return True
    if name.endswith(HEIF_ENDINGS):
        kind = "AVIF" if name.endswith(".avif") else "HEIC"
        if not reads_heif(kind):
            passed.heif[kind] += 1
            return False
        return True
    ending = PurePosixPath(name).suffix
    if ending not in OTHER_ENDINGS and not name.endswith("~"):
        if not entry.is_file():
            passed.no_files += 1
            return False
        try:
            with Path(entry.path).open("rb", buffering=0) as file:
                if begins_like_image(file.read(HEAD_BYTES)):
                    return True
        except OSError as error:
            logger.debug("%s is not opened: %s", entry.path, error)
    passed.endings[ending.encode("utf-8", "replace").decode() or "no ending"] += 1
    return False


def _walk(root: Path, passed: _PassedOver) -> Iterator[tuple[str, int]]:
    """Yield images below a folder, unsorted, and count what is not looked at.

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
            relative = prefix + entry.name
            try:
                if entry.name.lower() in SYSTEM_FOLDERS and entry.is_dir():
                    passed.folders[entry.name] += 1
                elif entry.name.startswith("."):
                    passed.hidden += entry.name.lower().endswith(ENDINGS)
                elif entry.is_dir():
                    pending.append((entry.path, f"{relative}/", (*above, identity)))
                elif _is_image(entry, passed):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        relative.encode()
                        yield relative, status.st_size
                    else:
                        passed.no_files += 1
            except OSError:  # such as a link to nowhere: reading it will say what is wrong
                yield relative, 0
            except UnicodeEncodeError:
                logger.warning("%r is left out: rename it, its name is not UTF-8", entry.path)


class DiskNames:
    """Spells paths as a folder's files are spelt, however accented letters are composed.

    Each folder below it is read once.

    Parameters
    ----------
    root
        The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inside: dict[Path, list[str]] = {}

    def of(self, relative: str) -> str:
        """Return the path of the file that is meant; the same if it is there, or nothing like it.

        Parameters
        ----------
        relative
            Path relative to the folder, with forward slashes.
        """
        if relative.isascii() or (self.root / relative).exists():
            return relative
        found = self.root
        for part in PurePosixPath(relative).parts:
            found /= respelled([part], self._names(found)).get(part, part)
        return found.relative_to(self.root).as_posix()

    def _names(self, folder: Path) -> list[str]:
        if folder not in self._inside:
            try:
                self._inside[folder] = os.listdir(folder)  # noqa: PTH208  # names, not paths
            except OSError:
                self._inside[folder] = []
        return self._inside[folder]


def _listed(root: Path, list_file: Path) -> Iterator[tuple[str, int]]:
    """Yield the images that a list names, in its order."""
    lines: dict[str, int] = {}
    missing: list[str] = []
    names, changed = DiskNames(root), 0
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
        relative = names.of(str(path)) if "\0" not in line else str(path)
        changed += relative != str(path)
        if relative in lines:
            raise InputError(
                f"{list_file}, line {number}: {relative} is on line {lines[relative]} already;"
                f" keep one of them"
            )
        lines[relative] = number
        try:
            status = (root / relative).stat()
        except (OSError, ValueError):  # ValueError: a null character
            missing.append(relative)
            continue
        if stat.S_ISREG(status.st_mode):
            yield relative, status.st_size
        else:
            missing.append(relative)
    warn_respelled(list_file, changed)
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"not in {root}: {len(missing):,} of {counted(len(lines), 'file')} that {list_file}"
            f" names: {some}; correct the list, or name the folder that its paths are relative to"
        )
    if not lines:
        raise InputError(f"{list_file} names no files; write one path a line, relative to {root}")
