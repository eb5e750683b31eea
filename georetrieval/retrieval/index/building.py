"""Build an index, add to it, and remove from it; a killed build goes on where it stopped."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bevgen import ShardSet, only_writer
from bevgen.tables import respelled, warn_respelled
from bevgen.writing import write_errors
from georetrieval.config import EncoderSettings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError, DataError, IndexFileError, SettingsError
from georetrieval.models.checkpoints import load_hashed
from georetrieval.models.encoder import Encoder
from georetrieval.retrieval.index.approximate import build_approximate
from georetrieval.retrieval.index.files import (
    APPROXIMATE,
    CONFIDENCE,
    HEADER,
    PARTS,
    IndexHeader,
    ModelKey,
    Tiles,
    file_checksum,
    read_header,
    remove_strays,
    write_header,
)
from georetrieval.retrieval.index.opening import Index
from georetrieval.retrieval.index.parts import (
    Encoders,
    Progress,
    check_unchanged,
    make_parts,
    open_references,
    plan_parts,
    relative,
)
from georetrieval.run import Run

EXACT_ROWS = 1_000_000
"""Tiles up to which all searches are exact."""
KEPT = "What is finished is kept: mend the cause and give the same command again"


def build_index(
    run: Run | Path | str,
    references: Sequence[Path | str],
    out: Path | str,
    *,
    weight: float = 0.5,
    resolution: float | None = None,
    approximate: bool | None = None,
    overwrite: bool = False,
    device: torch.device | None = None,
    on_progress: Progress = lambda *_: None,
) -> Index:
    """Embed references and write an index of them, or what is missing of it.

    Parameters
    ----------
    run
        Its checkpoints embed; queries are drawn as those that it was trained on.
    references
        Shard files of tiles with positions.
    out
        The index: a folder.
    weight
        Of the panorama's similarity where there are two branches.
    resolution
        Metres per pixel of the tiles as they are stored, where their shards do not say it.
    approximate
        Whether to search approximately; None for more than `EXACT_ROWS` tiles.
    overwrite
        Replace an index that is there.
    device
        Where to embed.
    on_progress
        Hears what is done, how much of it, of how much.

    Raises
    ------
    IndexFileError
        If there is an index of another model or of other tiles, or its tiles have changed.
    GeoretrievalError
        If the run or the references cannot be used.
    """
    run, out = Run.at(run), Path(out)
    key, encoders = _load_model(run, weight, out)
    opened = [open_references(Path(path)) for path in references]
    tiles = _tiles(opened, resolution)
    header = IndexHeader(key, tiles, plan_parts(out, opened))
    if out.exists() and not _may_be_index(out):
        raise IndexFileError(f"{out} exists and is no index: name another one")
    with only_writer(out), write_errors(out, KEPT):
        if (out / HEADER).exists() and not overwrite:
            # Complete: what was added or removed since stays, and damaged parts are made again.
            wanted, header = header, read_header(out)
            _refuse_other(header, wanted, opened, out)
        (out / PARTS).mkdir(parents=True, exist_ok=True)
        for name in (HEADER, APPROXIMATE, CONFIDENCE) if overwrite else ():
            (out / name).unlink(missing_ok=True)
        parts = make_parts(out, key, encoders, header.parts, opened, device, on_progress)
        if parts == header.parts:
            return _choose_search(Index(out), approximate, on_progress)
        return _finish(out, replace(header, parts=parts), approximate, on_progress)


def add_references(
    out: Path | str,
    references: Sequence[Path | str],
    *,
    run: Run | Path | str | None = None,
    resolution: float | None = None,
    approximate: bool | None = None,
    device: torch.device | None = None,
    on_progress: Progress = lambda *_: None,
) -> Index:
    """Add tiles to an index; those that it has are left as they are. Arguments as `build_index`.

    With ``approximate`` of None an index that is searched approximately searches the new tiles
    exactly, until it is called with True.

    Raises
    ------
    IndexFileError
        If the index was made by other checkpoints than the run has, or of other tiles, or its
        tiles have changed.
    """
    out = Path(out)
    opened = [open_references(Path(path)) for path in references]
    with only_writer(out), write_errors(out, KEPT):
        index = Index(out)  # not before: another call may just have added to it
        header = index.header
        key, encoders = _load_model(Run.at(run or index.run), header.model.weight, out)
        check_model(header.model, key, out)
        if opened:
            _refuse_other_tiles(header, _tiles(opened, resolution), out)
        _refuse_changed(header, opened, out)
        start = 1 + max((int(part.name) for part in header.parts), default=-1)
        planned = plan_parts(out, opened, start, index.row_of)
        parts = make_parts(out, key, encoders, planned, opened, device, on_progress)
        header = replace(header, parts=header.parts + parts)
        return _finish(out, header, approximate, on_progress)


def remove_tiles(out: Path | str, ids: Collection[str]) -> Index:
    """Take tiles out of an index; their vectors stay on disk until it is built anew.

    Raises
    ------
    DataError
        If it has no tile of such an id.
    """
    out = Path(out)
    with only_writer(out), write_errors(out):
        index = Index(out)  # not before: another call may just have changed it
        same = respelled(ids, index.row_of)
        warn_respelled("the list of tiles to remove", len(same), than=out)
        ids = [same.get(name, name) for name in ids]
        unknown = [name for name in ids if name not in index.row_of]
        if unknown:
            raise DataError(
                f"{index.folder} has no tile {unknown[0]!r}"
                + (f", and {len(unknown) - 1:,} more are not there" if len(unknown) > 1 else "")
            )
        kept = index.kept.copy()
        kept[[index.row_of[name] for name in ids]] = False
        removed = tuple(np.flatnonzero(~kept).tolist())
        write_header(index.folder, replace(index.header, removed=removed))
    return Index(out)


def _may_be_index(out: Path) -> bool:
    """Whether a path is an index, or what a killed call left of one: other folders stay as is."""
    own = {PARTS, APPROXIMATE, CONFIDENCE}
    return out.is_dir() and (
        (out / HEADER).exists()
        or all(
            one.name in own or one.name.endswith((".part", ".DS_Store")) for one in out.iterdir()
        )
    )


def check_model(kept: ModelKey, now: ModelKey, out: Path) -> None:
    """Refuse vectors of other weights.

    Raises
    ------
    IndexFileError
        If the checkpoints differ.
    """
    if kept.checkpoints != now.checkpoints:
        raise IndexFileError(
            f"{out} was made by other checkpoints than those of {now.run}"
            f" ({_hashes(kept)} there, {_hashes(now)} now): name the run that made it with --run,"
            " or build an index for this one"
        )


def _hashes(key: ModelKey) -> str:
    return ", ".join(f"{name} {value[:8]}" for name, value in key.checkpoints.items())


def _load_model(run: Run, weight: float, out: Path) -> tuple[ModelKey, Encoders]:
    """Load a run's encoders, and say which they are and how their queries are drawn."""
    paths = run.checkpoints()
    if not paths:
        raise CheckpointError(f"{run} holds no checkpoints: train first, or name another --run")
    if not 0 <= weight <= 1:
        raise SettingsError(f"the panorama's weight is 0 to 1, not {weight:g}")
    encoders: Encoders = {}
    hashes: dict[str, str] = {}
    for name, path in paths.items():
        branch, settings, hashes[name], _ = load_hashed(path)
        encoders[name] = (branch.encoder, settings)
    data = Dataset(run.read_settings().data)
    queries: dict[str, dict[str, Any]] = {}
    north_up = True
    for name in paths:
        if not data.path(name).exists():
            queries[name] = {}
            continue
        shards = data.shards(name)
        queries[name] = shards.settings
        if name == "panorama" and not shards.settings.get("turn_to_north"):
            headings = shards.columns["heading"]
            north_up = not np.any(np.abs((headings + 180) % 360 - 180) > 1)
    return (
        ModelKey(
            checkpoints=hashes,
            dimensions={name: _dimension(*encoder) for name, encoder in encoders.items()},
            weight=weight if len(paths) == 2 else float("panorama" in paths),
            run=os.path.relpath(run.folder.absolute(), out.absolute()),
            queries=queries,
            north_up=north_up,
        ),
        encoders,
    )


@torch.no_grad()
def _dimension(encoder: Encoder, settings: EncoderSettings) -> int:
    """Return how many numbers an encoder makes of an image."""
    return encoder.eval()(torch.zeros(1, 3, *(settings.reference_size or (64, 64)))).shape[1]


def _tiles(references: Sequence[ShardSet], resolution: float | None) -> Tiles:
    """Say what the references are, which must be of one kind."""
    if resolution is not None and not 0 < resolution < math.inf:
        raise SettingsError(f"the resolution is metres per pixel, above 0, not {resolution:g}")
    found = set[Tiles]()
    for shards in references:
        own = shards.settings.get("resolution", resolution)
        if resolution not in (None, own):
            raise SettingsError(
                f"{shards.path} says that a pixel is {own:g} m, and --resolution {resolution:g}:"
                " leave out the option"
            )
        found.add(Tiles(shards.kind, shards.image_shape[0], own))
    if len(found) != 1:
        listed = " and ".join(sorted(map(str, found))) or "none"
        raise DataError(f"an index holds tiles of one kind, size and scale, not {listed}")
    return found.pop()


def _refuse_other(
    header: IndexHeader, wanted: IndexHeader, references: Sequence[ShardSet], out: Path
) -> None:
    """Refuse to go on with an index unless it holds what is wanted, and perhaps more."""
    check_model(header.model, wanted.model, out)
    _refuse_other_tiles(header, wanted.tiles, out)
    _refuse_changed(header, references, out)
    held = {(part.tiles, part.pixels) for part in header.parts}
    asked = {(part.tiles, part.pixels) for part in wanted.parts}
    if not header.model.same_vectors(wanted.model) or not asked <= held:
        raise IndexFileError(
            f"{out} exists and holds other tiles, or the same with another weight: add tiles with"
            " --add, replace it with --overwrite, or name another index"
        )


def _refuse_other_tiles(header: IndexHeader, tiles: Tiles, out: Path) -> None:
    if tiles != header.tiles:
        way = "say theirs with --resolution, " if tiles.resolution is None else ""
        raise IndexFileError(
            f"{out} holds {header.tiles}, and these are {tiles}: {way}replace it with --overwrite,"
            " or name another index"
        )


def _refuse_changed(header: IndexHeader, references: Sequence[ShardSet], out: Path) -> None:
    """Refuse to go on with vectors of tiles that are no longer what they were."""
    opened = {relative(shards, out): shards for shards in references}
    for part in header.parts:
        if part.references in opened:
            check_unchanged(part, opened[part.references], out)


def _finish(
    out: Path, header: IndexHeader, approximate: bool | None, on_progress: Progress
) -> Index:
    """Write the header, and the file for approximate search if there is to be one."""
    write_header(out, header)
    remove_strays(out, {part.name for part in header.parts})
    return _choose_search(Index(out), approximate, on_progress)


def _choose_search(index: Index, approximate: bool | None, on_progress: Progress) -> Index:
    """Write or remove the file for approximate search, if it is not as it is to be."""
    out, header = index.folder, index.header
    path, crc = out / APPROXIMATE, header.checksums.get(APPROXIMATE)
    whole = header.approximate == len(header.parts)
    whole = whole and path.exists() and file_checksum(path) == crc
    large = len(index.ids) > EXACT_ROWS and not header.approximate
    if not whole and (approximate or (approximate is None and large)):
        build_approximate(
            path,
            index.blocks,
            on_progress=lambda done, total: on_progress("approximate search", done, total),
        )
        checksums = {**header.checksums, APPROXIMATE: file_checksum(path)}
        write_header(out, replace(header, approximate=len(header.parts), checksums=checksums))
    elif approximate is False and header.approximate:
        checksums = {k: crc for k, crc in header.checksums.items() if k != APPROXIMATE}
        write_header(out, replace(header, approximate=0, checksums=checksums))
        path.unlink(missing_ok=True)
    else:
        return index
    return Index(out)
