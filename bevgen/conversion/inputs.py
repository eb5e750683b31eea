"""The inputs of a run: files, their ids, and what poses.csv says; no image is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bevgen.conversion.products import check_angles
from bevgen.conversion.settings import Settings
from bevgen.errors import InputError
from bevgen.images.finding import default_id, find_images
from bevgen.images.metadata import PanoramaInfo, info_from_row
from bevgen.tables import read_poses

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
    root: Path, settings: Settings, list_file: Path | None, poses: Path | None
) -> Iterable[Item]:
    """Find the inputs, with ids and poses, in the order of their paths.

    Raises
    ------
    InputError
        If two inputs have one id, or poses.csv names files that are not there or says what the
        settings cannot follow.
    """
    found = find_images(root, list_file)
    rows = read_poses(poses) if poses is not None else {}
    if poses is not None:
        unknown = sorted(rows.keys() - {source for source, _ in found})
        if unknown and list_file is None:
            raise InputError(
                f"{poses}: {len(unknown)} files are not in {root}, such as {unknown[0]}:"
                " paths must be relative to the input folder"
            )
    owners: dict[str, str] = {}
    for source, size in found:
        row = rows.get(source)
        name = default_id(source) if row is None or row.id is None else row.id
        if (owner := owners.setdefault(name, source)) != source:
            raise InputError(
                f"{owner} and {source} have one id, {name!r}:"
                " give them ids in a poses file (columns file, id), or leave one out with --list"
            )
        info = info_from_row(row)
        check_angles(settings, info)
        yield Item(source, name, _fingerprint(source, size, name, info), info)


def _fingerprint(source: str, size: int, name: str, info: PanoramaInfo) -> int:
    """64 bits of everything about an input that a later run can see without opening it."""
    said = [str(getattr(info, field)) for field in POSE_FIELDS]
    text = "\0".join((source, str(size), name, *said))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
