"""The parts of an index: which tiles each holds, and their vectors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ShardSet
from bevgen.terminal import counted
from georetrieval.config import BRANCHES, BranchName, EncoderSettings
from georetrieval.errors import DataError, IndexFileError
from georetrieval.models.checkpoints import digest
from georetrieval.models.encoder import Encoder
from georetrieval.retrieval.embedding import embed_rows
from georetrieval.retrieval.evaluation import fuse
from georetrieval.retrieval.index.exact import encode
from georetrieval.retrieval.index.files import (
    CODES,
    IDS,
    PART_FILES,
    PART_ROWS,
    POSITIONS,
    SCALES,
    VECTORS,
    ModelKey,
    Part,
    file_checksum,
    part_folder,
    write_array,
    write_bytes,
)
from georetrieval.retrieval.index.opening import pixels_checksum

PART_FILE = "part.json"

Progress = Callable[[str, int, int], None]
Encoders = dict[BranchName, tuple[Encoder, EncoderSettings]]


def open_references(path: Path) -> ShardSet:
    """Open references, which must have positions."""
    shards = ShardSet(path)
    if shards.kind in BRANCHES:
        raise DataError(f"{path} holds {shards.kind} images: references are satellite or map tiles")
    unknown = np.isnan(shards.columns["latitude"] + shards.columns["longitude"])
    if unknown.any():
        raise DataError(
            counted(int(unknown.sum()), f"tile of {path} has", f"tiles of {path} have")
            + " no position, such as"
            f" {shards.ids[int(unknown.argmax())]!r}: store them with `bevgen pack --poses`, or"
            " cut tiles from a map with `georetrieval tiles`"
        )
    return shards


def plan_parts(
    out: Path, references: Sequence[ShardSet], number: int = 0, have: Collection[str] = ()
) -> tuple[Part, ...]:
    """Divide the tiles that ``have`` lacks into parts, numbered from ``number``.

    A part is some consecutive rows of one file, at most `PART_ROWS`.

    Raises
    ------
    DataError
        If two tiles have one id.
    """
    parts: list[Part] = []
    seen = set(have)
    for shards in references:
        new = [row for row, name in enumerate(shards.ids) if name not in have]
        for row in new:
            if shards.ids[row] in seen:
                raise DataError(
                    f"two tiles have the id {shards.ids[row]!r}, the second in {shards.path}: ids"
                    " must be unique in an index"
                )
            seen.add(shards.ids[row])
        for rows in _runs(new):
            parts.append(_part(f"{number + len(parts):05d}", shards, rows, out))
    return tuple(parts)


def _runs(rows: Sequence[int]) -> Iterator[range]:
    """Yield ascending rows as ranges of consecutive ones, none longer than `PART_ROWS`."""
    start = 0
    for k in range(1, len(rows) + 1):
        if k == len(rows) or rows[k] != rows[k - 1] + 1 or k - start == PART_ROWS:
            yield range(rows[start], rows[k - 1] + 1)
            start = k


def _part(name: str, shards: ShardSet, rows: range, out: Path) -> Part:
    """Describe some rows of a file as a part that is not yet made."""
    tiles = digest(shards.ids[rows.start : rows.stop], _positions(shards, rows).tolist())
    pixels = pixels_checksum(shards, rows)
    return Part(name, len(rows), relative(shards, out), rows.start, tiles, pixels, {})


def relative(shards: ShardSet, out: Path) -> str:
    """Return a shard file as a header names it: relative to the index."""
    return os.path.relpath(shards.path, out.absolute())


def _positions(shards: ShardSet, rows: range) -> NDArray[np.float64]:
    """Return latitudes and longitudes (n, 2) of some rows."""
    columns = (shards.columns[name] for name in ("latitude", "longitude"))
    return np.stack([column[rows.start : rows.stop] for column in columns], axis=1)


def check_unchanged(part: Part, shards: ShardSet, out: Path) -> None:
    """Refuse a part of tiles that are no longer what they were."""
    rows = range(part.first_row, part.first_row + part.rows)
    if _part(part.name, shards, rows, out) != replace(part, checksums={}):
        raise IndexFileError(
            f"{shards.path} has changed since {out} was made of it: --overwrite embeds what has"
            " changed, and keeps the rest"
        )


def make_parts(
    out: Path,
    key: ModelKey,
    encoders: Encoders,
    planned: Sequence[Part],
    references: Sequence[ShardSet],
    device: torch.device | None,
    on_progress: Progress,
) -> tuple[Part, ...]:
    """Embed what is planned; parts that an earlier, killed call finished are taken."""
    device = device or torch.device("cpu")
    opened = {relative(shards, out): shards for shards in references}
    total = sum(part.rows for part in planned)
    done, parts = 0, []
    for part in planned:
        plain = replace(part, checksums={})
        made = _finished_part(out, plain, key)
        if made is None:
            shards = opened.get(part.references)
            if shards is None:
                shards = open_references(Path(os.path.normpath(out / part.references)))
            check_unchanged(part, shards, out)
            made = _make_part(out, plain, key, encoders, shards, device)
        parts.append(made)
        done += part.rows
        on_progress("embedding tiles", done, total)
    return tuple(parts)


def _finished_part(out: Path, plain: Part, key: ModelKey) -> Part | None:
    """Return the part that an earlier call made, if it is of just these tiles."""
    folder = part_folder(out, plain.name)
    try:
        kept = json.loads((folder / PART_FILE).read_text("utf-8"))
        part = replace(Part(**kept["part"]), references=plain.references)  # which may have moved
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = replace(part, checksums={}) == plain and kept["model"] == _part_model(key)
    whole = same and all(
        (folder / name).exists() and file_checksum(folder / name) == part.checksums[name]
        for name in PART_FILES
    )
    return part if whole else None


def _part_model(key: ModelKey) -> dict[str, Any]:
    return {"checkpoints": key.checkpoints, "weight": key.weight}


def _make_part(
    out: Path,
    plain: Part,
    key: ModelKey,
    encoders: Encoders,
    shards: ShardSet,
    device: torch.device,
) -> Part:
    """Embed some rows and write their files; the folder gets its name last."""
    rows = range(plain.first_row, plain.first_row + plain.rows)
    own = {
        name: embed_rows(
            encoder.to(device), shards, np.array(rows), settings.reference_size, device=device
        ).cpu()
        for name, (encoder, settings) in encoders.items()
    }
    if len(own) == 2:
        joined = fuse(own["panorama"], own["bev"], key.weight)
    else:
        joined = next(iter(own.values()))
    vectors = joined.numpy().astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError("embeddings are not finite: the model has diverged")
    coded = encode(vectors)
    folder = part_folder(out, plain.name)
    begun = folder.with_name(folder.name + ".part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    arrays = {
        VECTORS: vectors,
        CODES: coded.codes,
        SCALES: coded.scales,
        POSITIONS: _positions(shards, rows),
    }
    checksums = {name: write_array(begun / name, array) for name, array in arrays.items()}
    names = shards.ids[rows.start : rows.stop]
    write_bytes(begun / IDS, json.dumps(names, ensure_ascii=False).encode())
    checksums[IDS] = file_checksum(begun / IDS)
    part = replace(plain, checksums=checksums)
    content = {
        "model": _part_model(key),
        "part": {name: getattr(part, name) for name in Part.__slots__},
    }
    write_bytes(begun / PART_FILE, json.dumps(content).encode())
    shutil.rmtree(folder, ignore_errors=True)
    begun.replace(folder)
    return part
