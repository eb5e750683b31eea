"""What a run will do: its inputs in shards, and what the output already holds of them.

Planning reads names and sizes, never an image. A run whose inputs fit one shard writes that one
file; otherwise the shards lie in a folder, beside a `plan.json` until the index is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bevgen.conversion.existing import Existing, read_content, read_existing, shard_number
from bevgen.conversion.inputs import Item, list_items
from bevgen.conversion.settings import Settings, differing_fields
from bevgen.errors import InputError, RefusedError, ShardError
from bevgen.shards import PLAN_FILE, ShardHeader, check_place, shard_folder
from bevgen.terminal import counted

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """One shard file: where, what of (source -> fingerprint), and the items if it is to be made."""

    path: Path
    inputs: Mapping[str, int]
    digest: str
    items: tuple[Item, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that may begin: nothing in it contradicts what lies on disk.

    Attributes
    ----------
    root, out
        Folder of the images; the output file.
    settings
        What changes the pixels.
    shards
        All of them in the order of rows, those that exist included.
    complete
        Whether the output already holds all of it; then ``shards`` is empty.
    overwrite
        Whether what lies there is removed first.
    """

    root: Path
    out: Path
    settings: Settings
    shards: tuple[PlannedShard, ...]
    complete: bool = False
    overwrite: bool = False

    @property
    def single(self) -> bool:
        """Whether the output is one file rather than an index with a folder."""
        return len(self.shards) == 1 and self.shards[0].path == self.out

    @property
    def todo(self) -> list[PlannedShard]:
        """The shards that this run makes."""
        return [shard for shard in self.shards if shard.items is not None]

    @property
    def images(self) -> int:
        """Inputs of all shards."""
        return sum(len(shard.inputs) for shard in self.shards)

    @property
    def images_todo(self) -> int:
        """Inputs of the shards that this run makes."""
        return sum(len(shard.inputs) for shard in self.todo)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored image."""
        height, width, channels = self.settings.image_shape
        return height * width * channels

    @property
    def bytes_needed(self) -> int:
        """Disk that the run takes at most, a validity mask for each row left out."""
        return self.images_todo * (self.row_bytes + 512)

    @property
    def digest(self) -> str:
        """Digest of all shards' inputs."""
        return _digest(shard.digest for shard in self.shards)

    def header(self, shard: PlannedShard) -> ShardHeader:
        """Return what is written into a shard besides its rows."""
        settings = self.settings
        return ShardHeader(settings.kind, settings.image_shape, settings.to_json(), shard.digest)

    def write(self) -> None:
        """Put the plan beside the shards, so that a later run can tell what was meant."""
        folder = shard_folder(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "settings": self.settings.to_json(),
            "shards": [{"name": s.path.name, "inputs": dict(s.inputs)} for s in self.shards],
        }
        part = folder / f"{PLAN_FILE}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / PLAN_FILE)


def plan_run(
    root: Path,
    out: Path,
    settings: Settings,
    *,
    list_file: Path | None = None,
    poses: Path | None = None,
    keep_endings: bool = False,
    shard_size: int = 256,
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """Decide what is to be done, or refuse.

    Parameters
    ----------
    root, out
        Folder of the images; the output file.
    settings
        What changes the pixels.
    list_file
        The images to take, one path a line; None takes all below ``root``.
    poses
        poses.csv.
    keep_endings
        Whether ids are paths with their endings, where poses.csv gives none.
    shard_size
        Images in a shard, at least 1.
    extend
        Add new images to an existing output.
    overwrite
        Replace an existing output.
    retry_failed
        Make those shards again in which images failed.

    Raises
    ------
    InputError
        If the images, the poses or the ids cannot be used.
    RefusedError
        If the output holds something else; the message names the difference and the option.
    """
    if shard_size < 1:
        raise InputError(f"shard size must be at least 1 image, not {shard_size}")
    if overwrite and (extend or retry_failed):
        raise InputError("--overwrite starts anew: leave out --extend and --retry-failed")
    check_place(out)
    items = {
        item.source: item for item in list_items(root, settings, list_file, poses, keep_endings)
    }
    if overwrite:
        _refuse_foreign(out)
    existing = read_existing(out) if not overwrite or _continues(out, settings, items) else None
    if existing is None:
        shards = _new_shards(list(items.values()), out, shard_size)
        return Plan(root, out, settings, tuple(shards), overwrite=overwrite)
    _refuse_mixing(out, existing, settings)
    _refuse_changes(out, existing, items, extend, retry_failed)
    _refuse_equal_ids(out, existing, items)
    return _continue(root, out, settings, existing, items, shard_size, retry_failed)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _planned(path: Path, inputs: Mapping[str, int], items: Sequence[Item] | None) -> PlannedShard:
    digest = _digest(f"{value:016x}" for value in sorted(inputs.values()))
    return PlannedShard(path, inputs, digest, None if items is None else tuple(items))


def _shard_of(path: Path, items: Sequence[Item]) -> PlannedShard:
    return _planned(path, {item.source: item.fingerprint for item in items}, items)


def _new_shards(
    items: list[Item], out: Path, shard_size: int, taken: Collection[Path] = ()
) -> list[PlannedShard]:
    """Cut items into shards: the output itself where one holds them all and none exist yet."""
    if len(items) <= shard_size and not taken:
        return [_shard_of(out, items)]
    folder = shard_folder(out)
    paths = (path for k in count() if (path := folder / f"{k:05d}.h5") not in taken)
    starts = range(0, len(items), shard_size)
    return [
        _shard_of(path, items[start : start + shard_size])
        for start, path in zip(starts, paths, strict=False)
    ]


def _refuse_foreign(out: Path) -> None:
    """Refuse to overwrite what no HDF5 tool wrote."""
    if out.exists():
        with out.open("rb") as file:
            if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
                raise RefusedError(
                    f"{out} exists and is no HDF5 file: name another output, or move it away"
                )


def _continues(out: Path, settings: Settings, items: Mapping[str, Item]) -> bool:
    """Whether a run of just this, which was to overwrite the output, has begun and not finished.

    Killed and called again by the same command, it must not lose what it has made.
    """
    if out.exists():
        return False
    try:
        existing = read_existing(out)
    except (RefusedError, ShardError):  # damaged: overwriting is the way out
        return False
    if existing is None or existing.open_ended:
        return False
    if differing_fields(existing.settings, settings.to_json()):
        return False
    return dict(existing.inputs) == {s: item.fingerprint for s, item in items.items()}


def _refuse_mixing(out: Path, existing: Existing, settings: Settings) -> None:
    different = differing_fields(existing.settings, settings.to_json())
    if different:
        raise RefusedError(
            f"{out} was made with other settings ({'; '.join(different)}):"
            " use the same, name another output, or replace it with --overwrite"
        )


def _refuse_changes(
    out: Path,
    existing: Existing,
    items: Mapping[str, Item],
    extend: bool,
    retry_failed: bool,
) -> None:
    """Refuse inputs that were removed, changed or added, unless an option says what to do.

    Of failed inputs, removed ones are no loss, and mended ones wait for ``retry_failed``. What
    changed before it was made does not matter.
    """
    old, failed = existing.inputs, existing.failed
    changed = [s for s, item in items.items() if s in old and old[s] != item.fingerprint]
    mended = [s for s in changed if s in failed]
    changed = [s for s in changed if s in existing.ids]
    removed = [s for s in old if s not in items and s not in failed]
    added = [s for s in items if s not in old]
    if removed and not extend:
        raise RefusedError(
            f"{_some(removed)} of {out} {_are(removed)} no longer among the inputs: put"
            f" {_them(removed)} back, keep finished rows and go on with --extend, or replace the"
            " output with --overwrite"
        )
    if changed:
        raise RefusedError(
            f"{_some(changed)} changed since {out} was made: replace it with --overwrite, or name"
            " another output"
        )
    if added and not (extend or existing.open_ended):
        raise RefusedError(
            f"{_some(added)} {_are(added)} new since {out} was planned: add {_them(added)} with"
            " --extend, or replace the output with --overwrite"
        )
    if mended and not retry_failed:
        raise RefusedError(
            f"{_some(mended)} could not be used for {out} and changed since: add --retry-failed"
        )


def _refuse_equal_ids(out: Path, existing: Existing, items: Mapping[str, Item]) -> None:
    """Refuse inputs with the id of a row that stays without its input."""
    kept = {name: source for source, name in existing.ids.items() if source not in items}
    for item in items.values() if kept else ():
        if item.id in kept:
            raise InputError(
                f"{item.source} has the id {item.id!r} of {kept[item.id]}, which is no longer"
                f" among the inputs but has a row in {out}: give it another id in a poses file"
                " (columns file, id)"
            )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{counted(len(names), 'input')} ({shown}{more})"


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _them(names: Sequence[str]) -> str:
    return "them" if len(names) > 1 else "it"


def _continue(
    root: Path,
    out: Path,
    settings: Settings,
    existing: Existing,
    items: Mapping[str, Item],
    shard_size: int,
    retry_failed: bool,
) -> Plan:
    """Plan over what exists: finished shards are kept, the others and the new ones made."""
    retry = {s for s in existing.failed if s in items} if retry_failed else set[str]()
    added = items.keys() - existing.inputs.keys()
    if out.exists() and not (added or retry) and all(s in existing.made for s in existing.shards):
        return Plan(root, out, settings, (), complete=True)
    shards: list[PlannedShard] = []
    for path, inputs in existing.shards.items():
        made = path in existing.made
        if inputs is None and made:
            inputs = read_content(path).inputs
        if path == out and added:  # the single output becomes the first shard
            path = shard_folder(out) / "00000.h5"
        if inputs is None:  # lost
            continue
        if made and retry.isdisjoint(inputs):
            shards.append(_planned(path, inputs, None))
            continue
        if made:
            _refuse_loss(inputs, items, existing)
        if present := [items[source] for source in inputs if source in items]:
            shards.append(_shard_of(path, present))
    held = {source for shard in shards for source in shard.inputs}
    rest = [item for source, item in items.items() if source not in held]
    if rest:
        shards += _new_shards(rest, out, shard_size, taken={shard.path for shard in shards})
        shards.sort(key=lambda shard: shard_number(shard.path) if shard.path != out else 0)
    return Plan(root, out, settings, tuple(shards))


def _refuse_loss(inputs: Collection[str], items: Mapping[str, Item], existing: Existing) -> None:
    """Refuse to make a shard again without all that its rows were made from."""
    gone = [s for s in inputs if s not in items and s not in existing.failed]
    if gone:
        raise RefusedError(
            f"{_some(gone)} {_are(gone)} no longer among the inputs, and {_them(gone)} would be"
            " lost from a shard that is to be made again: put back what is missing, or leave out"
            " --retry-failed"
        )
