"""What a run will do: its inputs in shards, and what the output already holds of them.

Planning reads names and sizes, never an image. A run whose inputs fit one shard writes that one
file; otherwise the shards lie in a folder, beside a `plan.json` until the index is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bevgen.errors import InputError, RefusedError, ShardError
from bevgen.metadata import PanoramaInfo, PoseRow, read_poses
from bevgen.panorama import default_id, find_images
from bevgen.settings import Settings, differing_fields
from bevgen.shards import ShardHeader, read_header, read_inputs, shard_folder

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Item:
    """One input: path relative to the folder, id, what poses.csv says, and a fingerprint of all."""

    source: str
    id: str
    fingerprint: int
    own: PanoramaInfo


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


@dataclass(frozen=True, slots=True)
class _Existing:
    """What lies at the output: settings, all inputs (source -> fingerprint), the failed ones.

    ``unfinished`` holds each shard's name and inputs as the plan file has them, None where the
    output is complete.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, int]
    failed: Collection[str]
    unfinished: tuple[tuple[str, Mapping[str, int]], ...] | None


def plan_run(
    root: Path,
    out: Path,
    settings: Settings,
    *,
    list_file: Path | None = None,
    poses: Path | None = None,
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
    items = {item.source: item for item in list_items(root, list_file, poses)}
    if out.is_dir():
        raise RefusedError(f"{out} is a folder: name a file, such as {out / 'bev.h5'}")
    existing = None if overwrite else _read_existing(out)
    if existing is None:
        shards = tuple(_new_shards(list(items.values()), out, shard_size))
        if not overwrite:
            shards = _keep_finished(out, shards, settings)
        return Plan(root, out, settings, shards, overwrite=overwrite)
    _refuse_mixing(out, existing, settings)
    added = _compare_inputs(out, existing, items, extend, retry_failed)
    return _continue(root, out, settings, existing, items, added, shard_size, retry_failed)


def list_items(root: Path, list_file: Path | None, poses: Path | None) -> Iterable[Item]:
    """Find the inputs, with ids and poses, in the order of their paths.

    Raises
    ------
    InputError
        If two inputs have one id, or poses.csv names files that are not there.
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
    nothing = PoseRow(None, PanoramaInfo())
    for source, size in found:
        row = rows.get(source, nothing)
        name = row.id if row.id is not None else default_id(source)
        if (owner := owners.setdefault(name, source)) != source:
            raise InputError(
                f"{owner} and {source} have one id, {name!r}:"
                " give them ids in a poses file (columns file, id), or leave one out with --list"
            )
        yield Item(source, name, _fingerprint(source, size, name, row.info), row.info)


def _fingerprint(source: str, size: int, name: str, info: PanoramaInfo) -> int:
    """64 bits of everything about an input that a later run can see without opening it."""
    text = "\0".join((source, str(size), name, repr(info)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _planned(path: Path, inputs: Mapping[str, int], items: Sequence[Item] | None) -> PlannedShard:
    digest = _digest(f"{value:016x}" for value in sorted(inputs.values()))
    return PlannedShard(path, inputs, digest, None if items is None else tuple(items))


def _shard_of(path: Path, items: Sequence[Item]) -> PlannedShard:
    return _planned(path, {item.source: item.fingerprint for item in items}, items)


def _new_shards(
    items: list[Item], out: Path, shard_size: int, taken: Collection[str] = ()
) -> list[PlannedShard]:
    """Cut items into shards: the output itself where one holds them all and none exist yet."""
    if len(items) <= shard_size and not taken:
        return [_shard_of(out, items)]
    folder = shard_folder(out)
    first = 1 + max((int(Path(name).stem) for name in taken), default=-1)
    starts = range(0, len(items), shard_size)
    return [
        _shard_of(folder / f"{first + k:05d}.h5", items[start : start + shard_size])
        for k, start in enumerate(starts)
    ]


def _read_existing(out: Path) -> _Existing | None:
    """Look at the output; None where there is nothing.

    The plan file, where there is one, is the authority: its run has not finished.
    """
    plan_file = shard_folder(out) / PLAN_FILE
    if plan_file.exists():
        content = json.loads(plan_file.read_text("utf-8"))
        shards = tuple((s["name"], s["inputs"]) for s in content["shards"])
        inputs = {source: value for _, part in shards for source, value in part.items()}
        return _Existing(content["settings"], inputs, (), shards)
    if not out.exists():
        return None
    try:
        settings, inputs = read_header(out).settings, read_inputs(out)
    except ShardError as error:
        raise RefusedError(
            f"{out} exists and is not a finished output of bevgen ({error}):"
            " name another output, or move the file away"
        ) from error
    failed = {failure.source for failure in inputs.failures}
    return _Existing(settings, _all_inputs(out), failed, None)


def _all_inputs(path: Path) -> dict[str, int]:
    """Source -> fingerprint of a file's rows and failures, in the order of the paths."""
    inputs = read_inputs(path)
    rows = dict(zip(inputs.sources, inputs.fingerprints.tolist(), strict=True))
    rows |= {failure.source: failure.fingerprint for failure in inputs.failures}
    return dict(sorted(rows.items()))


def _existing_shards(out: Path, existing: _Existing) -> list[tuple[Path, Mapping[str, int]]]:
    """Each shard's path and inputs."""
    if existing.unfinished is not None:
        return [(shard_folder(out) / name, inputs) for name, inputs in existing.unfinished]
    files = read_header(out).files
    if not files:
        return [(out, existing.inputs)]
    return [(path := out.parent / name, _all_inputs(path)) for name in files]


def _refuse_mixing(out: Path, existing: _Existing, settings: Settings) -> None:
    different = differing_fields(existing.settings, settings.to_json())
    if different:
        raise RefusedError(
            f"{out} was made with other settings ({'; '.join(different)}):"
            " use the same, name another output, or replace it with --overwrite"
        )


def _compare_inputs(
    out: Path,
    existing: _Existing,
    items: Mapping[str, Item],
    extend: bool,
    retry_failed: bool,
) -> list[Item]:
    """Return the new inputs, and refuse any other difference.

    Of failed inputs, removed ones are no loss, and mended ones wait for ``retry_failed``.
    """
    old, failed = existing.inputs, existing.failed
    unfinished = existing.unfinished is not None
    changed = [s for s, item in items.items() if s in old and old[s] != item.fingerprint]
    mended = [s for s in changed if s in failed]
    changed = [s for s in changed if s not in failed]
    removed = [s for s in old if s not in items and s not in failed]
    added = [item for source, item in items.items() if source not in old]
    if removed and (unfinished or not extend):
        raise RefusedError(
            f"{_some(removed)} of {out} are no longer among the inputs: put them back,"
            + (
                " or replace the output with --overwrite"
                if unfinished
                else " keep their rows with --extend, or replace the output with --overwrite"
            )
        )
    if changed:
        raise RefusedError(
            f"{_some(changed)} changed since {out} was made: replace it with --overwrite"
        )
    if added and not extend:
        raise RefusedError(
            f"{_some([item.source for item in added])} are new since {out} was planned:"
            " add them with --extend, or replace the output with --overwrite"
        )
    if mended and not retry_failed:
        raise RefusedError(f"{_some(mended)} failed in {out} and changed since: add --retry-failed")
    return added


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} input{'s' if len(names) > 1 else ''} ({shown}{more})"


def _continue(
    root: Path,
    out: Path,
    settings: Settings,
    existing: _Existing,
    items: Mapping[str, Item],
    added: list[Item],
    shard_size: int,
    retry_failed: bool,
) -> Plan:
    """Plan over what exists: finished shards are kept, the others and the new ones made."""
    unfinished = existing.unfinished is not None
    retry = retry_failed and bool(existing.failed)
    if not (unfinished or added or retry):
        return Plan(root, out, settings, (), complete=True)
    shards: list[PlannedShard] = []
    for path, inputs in _existing_shards(out, existing):
        if path == out and added:  # the single output becomes the first shard
            path = shard_folder(out) / "00000.h5"
        kept = _planned(path, inputs, None)
        if unfinished:
            redo = not any(_holds(p, kept.digest) for p in (path, out))
        else:
            redo = retry and not inputs.keys().isdisjoint(existing.failed)
        if redo:
            kept = _shard_of(path, [items[source] for source in inputs if source in items])
        shards.append(kept)
    if added:
        shards += _new_shards(added, out, shard_size, taken=[s.path.name for s in shards])
    return Plan(root, out, settings, tuple(shards))


def _keep_finished(
    out: Path, shards: tuple[PlannedShard, ...], settings: Settings
) -> tuple[PlannedShard, ...]:
    """Keep shards whose index was removed, to have a damaged one made again, say."""
    folder = shard_folder(out)
    strays = set(folder.glob("*.h5")) - {shard.path for shard in shards}
    kept = []
    for shard in shards:
        if shard.path.exists():
            try:
                header = read_header(shard.path)
            except ShardError:
                pass  # damaged: make it again
            else:
                if (header.settings, header.plan) != (settings.to_json(), shard.digest):
                    strays.add(shard.path)
                shard = replace(shard, items=None)
        kept.append(shard)
    if strays:
        raise RefusedError(
            f"{folder} holds shards of another run, such as {min(strays).name}:"
            " name another output, or replace them with --overwrite"
        )
    return tuple(kept)


def _holds(path: Path, digest: str) -> bool:
    """Whether a finished shard lies there with just these inputs."""
    try:
        return read_header(path).plan == digest
    except ShardError:
        return False
