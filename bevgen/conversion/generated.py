"""Shards of images that a caller makes, such as tiles cut from a map; resumable like `convert`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.conversion.output import KEPT, remove_leftovers, remove_output
from bevgen.conversion.settings import differing_fields
from bevgen.errors import InputError, RefusedError, ShardError
from bevgen.locking import only_writer
from bevgen.shards import (
    Failure,
    Row,
    ShardHeader,
    begin_shard,
    check_place,
    finish_shard,
    read_header,
    settings_text,
    shard_folder,
    write_index,
)
from bevgen.writing import write_errors


class Made(NamedTuple):
    """One image: pixels (H, W, C) uint8, what of them is valid (None: all), and its columns."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None
    columns: Mapping[str, float]
    date: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_shards` did: rows and failures in the output, and images made by this call."""

    rows: int
    failures: int
    made: int


def write_shards(
    out: Path | str,
    kind: str,
    image_shape: tuple[int, int, int],
    settings: Mapping[str, Any],
    ids: Sequence[str],
    make: Callable[[int], Made | str],
    *,
    sources: Sequence[str] | None = None,
    shard_size: int = 256,
    threads: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Written:
    """Make images and store them as shards, or what is missing of them.

    Parameters
    ----------
    out
        The output file (HDF5); more than ``shard_size`` images get a folder of shards beside it.
    kind
        ``satellite``, ``map``, ``panorama``, ``drone`` or ``bev``.
    image_shape
        Height, width and channels.
    settings
        Everything that changes pixels, as JSON values; a call with other settings is refused.
    ids
        Of the images, in the order of rows. Shards are found again by ids and sources.
    make
        Takes the number of an id, and returns its image, or the reason why there is none; called
        by several threads.
    sources
        What each was made from; the ids by default.
    shard_size
        Images in a shard: what is made again after a crash.
    threads
        That call ``make``.
    overwrite
        Replace an output that is there.
    on_progress
        Hears how many images are done, of how many.

    Raises
    ------
    InputError
        If there is nothing to make, or two ids are equal.
    RefusedError
        If the output holds something else, or another run is at work on it.
    BevgenError
        If the output cannot be written.
    """
    out, sources = Path(out), sources or ids
    check_place(out)
    if not ids or len(set(ids)) < len(ids):
        raise InputError(f"{out}: ids must be unique, and at least one")
    parts = [range(k, min(k + shard_size, len(ids))) for k in range(0, len(ids), shard_size)]
    folder = shard_folder(out)
    paths = [out] if len(parts) == 1 else [folder / f"{k:05d}.h5" for k in range(len(parts))]
    plans = [_digest(f"{ids[k]}\0{sources[k]}" for k in part) for part in parts]
    plan = plans[0] if len(parts) == 1 else _digest(plans)
    with only_writer(out), write_errors(out, KEPT):
        if overwrite:
            remove_output(out)
        made = 0
        if not _complete(out, settings, plan):
            for path, part, own in zip(paths, parts, plans, strict=True):
                header = ShardHeader(kind, image_shape, settings, own)
                if not _finished(path, header):
                    task = _Task(path, header, part, ids, sources, make)
                    for done in task.run(threads):
                        on_progress(part.start + done, len(ids))
                    made += len(part)
                on_progress(part.stop, len(ids))
            if len(parts) > 1:
                write_index(out, paths, settings, plan)
        remove_leftovers(out)
    whole = read_header(out)
    return Written(whole.rows, whole.failures, made)


def _digest(parts: Iterator[str] | Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _complete(out: Path, settings: Mapping[str, Any], plan: str) -> bool:
    """Whether the output is there; one of other settings or other images is refused."""
    if not out.exists():
        return False
    try:
        header = read_header(out)
    except ShardError as error:
        raise RefusedError(
            f"{out} exists and is not a finished output of bevgen ({error}): name another output,"
            " or replace it with --overwrite"
        ) from error
    if different := differing_fields(header.settings, dict(settings)):
        raise RefusedError(
            f"{out} was made with other settings ({'; '.join(different)}): use the same, name"
            " another output, or replace it with --overwrite"
        )
    if header.plan != plan:
        raise RefusedError(
            f"{out} holds other images than are asked for now: name another output, or replace it"
            " with --overwrite"
        )
    return True


def _finished(path: Path, header: ShardHeader) -> bool:
    try:
        found = read_header(path)
    except ShardError:
        return False
    same = settings_text(found.settings) == settings_text(header.settings)
    return same and found.plan == header.plan


@dataclass(frozen=True, slots=True)
class _Task:
    """Makes one shard."""

    path: Path
    header: ShardHeader
    part: range
    ids: Sequence[str]
    sources: Sequence[str]
    make: Callable[[int], Made | str]

    def run(self, threads: int) -> Iterator[int]:
        """Make the images in threads; yields how many are done."""
        begun = begin_shard(self.path, len(self.part), self.header)
        rows: list[Row] = []
        failures: list[Failure] = []

        def one(slot: int) -> Row | Failure:
            number = self.part[slot]
            source = self.sources[number]
            made = self.make(number)
            if isinstance(made, str):
                return Failure(source, number, made)
            crc, mask_crc = begun.write(slot, made.image, made.valid)
            name = self.ids[number]
            return Row(slot, name, source, number, crc, mask_crc, made.columns, made.date)

        pool = ThreadPoolExecutor(threads)
        try:
            for done, result in enumerate(pool.map(one, range(len(self.part))), 1):
                if isinstance(result, Row):
                    rows.append(result)
                else:
                    failures.append(result)
                yield done
        finally:
            pool.shutdown(cancel_futures=True)
        finish_shard(begun, rows, failures)
