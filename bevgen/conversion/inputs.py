"""The inputs of a run: files, their ids, and what poses.csv says; no image is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bevgen.conversion.products import check_angles
from bevgen.conversion.settings import Settings
from bevgen.errors import InputError
from bevgen.images.finding import default_id, find_images
from bevgen.images.metadata import PanoramaInfo, info_from_row
from bevgen.tables import PoseRow, read_poses
from bevgen.terminal import counted

# What poses.csv may say; an output remembers it by these names and this order.
POSE_FIELDS = ("heading", "pitch", "roll", "height", "latitude", "longitude", "date")


@dataclass(frozen=True, slots=True)
class Item:
    """One input: path relative to the folder, id, what poses.csv says, and a fingerprint of all."""

    source: str
    id: str
    fingerprint: int
    own: PanoramaInfo


def list_items(
    root: Path,
    settings: Settings,
    list_file: Path | None,
    poses: Path | None,
    keep_endings: bool = False,
) -> Iterable[Item]:
    """Find the inputs, with ids and poses, in the order of their paths.

    An id that poses.csv does not give is the path, without its ending unless ``keep_endings``.

    Raises
    ------
    InputError
        If two inputs have one id, or poses.csv names files that are not there or says what the
        settings cannot follow.
    """
    found = find_images(root, list_file)
    rows: Mapping[str, PoseRow] = {}
    if poses is not None:
        rows = read_poses(poses, (source for source, _ in found))
        unknown = sorted(rows.keys() - {source for source, _ in found})
        if unknown and list_file is None:
            raise InputError(
                f"{poses}: {counted(len(unknown), 'file is', 'files are')} not in {root}, such as"
                f" {unknown[0]}:"
                " paths must be relative to the input folder"
            )
    ids = [
        row.id if (row := rows.get(source)) is not None and row.id is not None
        else source if keep_endings
        else default_id(source)
        for source, _ in found
    ]  # fmt: skip
    _refuse_shared(ids, [source for source, _ in found])
    for (source, size), name in zip(found, ids, strict=True):
        info = info_from_row(rows.get(source))
        check_angles(settings, info)
        yield Item(source, name, _fingerprint(source, size, name, info), info)


def _refuse_shared(ids: Sequence[str], sources: Sequence[str]) -> None:
    """Refuse ids that several files have; say of how many, and what can be done."""
    owners: dict[str, str] = {}
    shared: dict[str, tuple[str, str]] = {}
    for name, source in zip(ids, sources, strict=True):
        if (owner := owners.setdefault(name, source)) != source:
            shared.setdefault(name, (owner, source))
    if not shared:
        return
    name, (first, second) = next(iter(shared.items()))
    more = f" ({len(shared):,} ids are shared like this)" if len(shared) > 1 else ""
    raise InputError(
        f"{first} and {second} have one id, {name!r}{more}: keep the endings in the ids with"
        " --keep-endings, give ids in a poses file (columns file, id), or leave files out with"
        " --list"
    )


def _fingerprint(source: str, size: int, name: str, info: PanoramaInfo) -> int:
    """64 bits of everything about an input that a later run can see without opening it."""
    said = [str(getattr(info, field)) for field in POSE_FIELDS]
    text = "\0".join((source, str(size), name, *said))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
