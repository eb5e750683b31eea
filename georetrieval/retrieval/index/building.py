"""Build an index, add to it, and remove from it; a killed build goes on where it stopped."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ShardSet, only_writer
from bevgen.tables import respelled, warn_respelled
from bevgen.terminal import counted
from bevgen.writing import write_errors
from georetrieval.config import BRANCHES, BranchName, EncoderSettings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError, DataError, IndexFileError, SettingsError
from georetrieval.models.checkpoints import digest, load_hashed
from georetrieval.models.encoder import Encoder
from georetrieval.retrieval.embedding import embed_rows
from georetrieval.retrieval.evaluation import fuse
from georetrieval.retrieval.index.approximate import build_approximate
from georetrieval.retrieval.index.exact import encode
from georetrieval.retrieval.index.files import (
    APPROXIMATE,
    CODES,
    CONFIDENCE,
    HEADER,
    IDS,
    PART_FILES,
    PART_ROWS,
    PARTS,
    POSITIONS,
    SCALES,
    VECTORS,
    IndexHeader,
    ModelKey,
    Part,
    Tiles,
    file_checksum,
    part_folder,
    read_header,
    remove_strays,
    write_array,
    write_bytes,
    write_header,
)
from georetrieval.retrieval.index.opening import Index, pixels_checksum
from georetrieval.run import Run

EXACT_ROWS = 1_000_000
"""Tiles up to which all searches are exact."""
KEPT = "What is finished is kept: mend the cause and give the same command again"
PART_FILE = "part.json"

Progress = Callable[[str, int, int], None]
Encoders = dict[BranchName, tuple[Encoder, EncoderSettings]]


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
    opened = [_references(Path(path)) for path in references]
    tiles = _tiles(opened, resolution)
    header = IndexHeader(key, tiles, _plan(out, opened))
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
        parts = _make_parts(out, key, encoders, header.parts, opened, device, on_progress)
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
    opened = [_references(Path(path)) for path in references]
    with only_writer(out), write_errors(out, KEPT):
        index = Index(out)  # not before: another call may just have added to it
        header = index.header
        key, encoders = _load_model(Run.at(run or index.run), header.model.weight, out)
        check_model(header.model, key, out)
        if opened:
            _refuse_other_tiles(header, _tiles(opened, resolution), out)
        _refuse_changed(header, opened, out)
        start = 1 + max((int(part.name) for part in header.parts), default=-1)
        planned = _plan(out, opened, start, index.row_of)
        parts = _make_parts(out, key, encoders, planned, opened, device, on_progress)
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


def _references(path: Path) -> ShardSet:
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
    opened = {_relative(shards, out): shards for shards in references}
    for part in header.parts:
        if part.references in opened:
            _check_unchanged(part, opened[part.references], out)


def _check_unchanged(part: Part, shards: ShardSet, out: Path) -> None:
    rows = range(part.first_row, part.first_row + part.rows)
    if _part(part.name, shards, rows, out) != replace(part, checksums={}):
        raise IndexFileError(
            f"{shards.path} has changed since {out} was made of it: --overwrite embeds what has"
            " changed, and keeps the rest"
        )


def _plan(
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
    return Part(name, len(rows), _relative(shards, out), rows.start, tiles, pixels, {})


def _relative(shards: ShardSet, out: Path) -> str:
    return os.path.relpath(shards.path, out.absolute())


def _positions(shards: ShardSet, rows: range) -> NDArray[np.float64]:
    """Return latitudes and longitudes (n, 2) of some rows."""
    columns = (shards.columns[name] for name in ("latitude", "longitude"))
    return np.stack([column[rows.start : rows.stop] for column in columns], axis=1)


def _make_parts(
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
    opened = {_relative(shards, out): shards for shards in references}
    total = sum(part.rows for part in planned)
    done, parts = 0, []
    for part in planned:
        plain = replace(part, checksums={})
        made = _finished_part(out, plain, key)
        if made is None:
            shards = opened.get(part.references)
            if shards is None:
                shards = _references(Path(os.path.normpath(out / part.references)))
            _check_unchanged(part, shards, out)
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
