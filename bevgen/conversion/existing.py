"""What earlier runs left at an output: rows, failures, and the plan of a run that has not finished.

Read-only. Whether it may be continued, and how, is decided in `bevgen.conversion.plan`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevgen.errors import RefusedError, ShardError
from bevgen.shards import PLAN_FILE, read_header, read_inputs, shard_folder

logger = logging.getLogger(__name__)

_SHARD_NAME = re.compile(r"\d{5,}\.h5", re.ASCII)


@dataclass(frozen=True, slots=True)
class Existing:
    """What earlier runs left at the output.

    Attributes
    ----------
    settings
        Of all its shards.
    inputs
        Source -> fingerprint of what it is meant to hold, made or not.
    ids
        Source -> id of each row that is made.
    failed
        Sources that are skipped.
    shards
        All shards in the order of rows, and the inputs of each; None where its file tells them.
    made
        Those of them that are finished.
    open_ended
        Whether inputs that no shard holds belong to it anyway.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, int]
    ids: Mapping[str, str]
    failed: Collection[str]
    shards: Mapping[Path, Mapping[str, int] | None]
    made: Collection[Path]
    open_ended: bool = False


def read_existing(out: Path) -> Existing | None:
    """Look at the output; None where there is nothing.

    The output, where there is one, is the authority: a run removes it before it touches any
    shard, and writes it last. Without it, the plan file tells what an unfinished run meant.
    """
    plan_file = shard_folder(out) / PLAN_FILE
    if out.exists():
        return _read_output(out)
    if plan_file.exists():
        return _read_unfinished(plan_file)
    return _read_shards(out)


def _read_output(out: Path) -> Existing:
    """Read a finished output; a shard that is missing is made again."""
    try:
        content = read_content(out)
        paths = [out.parent / name for name in read_header(out).files]
    except ShardError as error:
        raise RefusedError(
            f"{out} exists and is not a finished output of bevgen ({error}):"
            " name another output, or move the file away"
        ) from error
    if paths and paths[0].parent != shard_folder(out):
        raise RefusedError(
            f"{out} was renamed and its folder {paths[0].parent.name} was not: give it its old"
            " name, or make one file of both with `bevgen merge`"
        )
    found = _shard_files(out)
    _refuse_strays(out, found - set(paths))
    if not paths:
        paths, found = [out], {out}
    for path in paths:
        if path not in found:
            logger.warning("%s is missing: its images are made again", path)
    return Existing(
        content.settings,
        content.inputs,
        content.ids,
        content.failed,
        {out: content.inputs} if paths == [out] else dict.fromkeys(paths),
        found,
    )


def _read_unfinished(plan_file: Path) -> Existing:
    """Read the plan of a run that has not finished, and which of its shards are made."""
    folder = plan_file.parent
    try:
        content = json.loads(plan_file.read_text("utf-8"))
        settings = dict(content["settings"])
        shards = {folder / shard["name"]: dict(shard["inputs"]) for shard in content["shards"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RefusedError(
            f"{plan_file} cannot be read ({error}): delete it to go on with the shards that are"
            " there, or start anew with --overwrite"
        ) from error
    made: dict[Path, _Content] = {}
    for path, inputs in shards.items():
        try:
            found = read_content(path)
        except ShardError:
            continue  # not there, or damaged
        if (found.settings, found.inputs) == (settings, inputs):
            made[path] = found
    return Existing(
        settings,
        {source: value for inputs in shards.values() for source, value in inputs.items()},
        {source: name for found in made.values() for source, name in found.ids.items()},
        {source for found in made.values() for source in found.failed},
        shards,
        made,
    )


def _read_shards(out: Path) -> Existing | None:
    """Read shards whose index was removed, to have a damaged one made again, say."""
    made = {path: read_content(path) for path in sorted(_shard_files(out), key=shard_number)}
    if not made:
        return None
    settings = next(iter(made.values())).settings
    inputs: dict[str, int] = {}
    for path, found in made.items():
        if found.settings != settings or not inputs.keys().isdisjoint(found.inputs):
            _refuse_strays(out, {path})
        inputs |= found.inputs
    return Existing(
        settings,
        inputs,
        {source: name for found in made.values() for source, name in found.ids.items()},
        {source for found in made.values() for source in found.failed},
        {path: found.inputs for path, found in made.items()},
        made,
        open_ended=True,
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """What a finished file was made with and from; ``inputs`` in the order of the sources."""

    settings: Mapping[str, Any]
    inputs: dict[str, int]
    ids: dict[str, str]
    failed: frozenset[str]


def read_content(path: Path) -> _Content:
    """Read what a finished file was made with and from, or raise a `ShardError`."""
    settings, found = read_header(path).settings, read_inputs(path)
    inputs = dict(zip(found.sources, found.fingerprints.tolist(), strict=True))
    inputs |= {failure.source: failure.fingerprint for failure in found.failures}
    return _Content(
        settings,
        dict(sorted(inputs.items())),
        dict(zip(found.sources, found.ids, strict=True)),
        frozenset(failure.source for failure in found.failures),
    )


def _shard_files(out: Path) -> set[Path]:
    return {path for path in shard_folder(out).glob("*.h5") if _SHARD_NAME.fullmatch(path.name)}


def shard_number(path: Path) -> int:
    """Return where a shard stands in the order of rows."""
    return int(path.stem)


def _refuse_strays(out: Path, strays: Collection[Path]) -> None:
    if strays:
        raise RefusedError(
            f"{shard_folder(out)} holds shards of another run, such as {min(strays).name}:"
            " name another output, or replace them with --overwrite"
        )
