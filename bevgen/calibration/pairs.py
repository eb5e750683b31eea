"""Which panorama was taken on which satellite tile, and where in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bevgen.calibration.rings import AZIMUTHS, View
from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import FULL_CIRCLE, Pose
from bevgen.images.decoding import open_image, read_image
from bevgen.images.finding import default_id, find_images
from bevgen.images.metadata import PanoramaInfo, info_from_name, info_from_row
from bevgen.images.view import panorama_view
from bevgen.projection.masking import Mask
from bevgen.tables import read_pairs, read_poses, respelled, warn_respelled

_ROWS = 1024  # more rows of a panorama than this tell nothing more


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The files of a panorama and its tile.

    Attributes
    ----------
    id
        Of the panorama.
    source
        The panorama's file, relative to its folder.
    panorama, tile
        Files.
    d_row, d_col
        The camera is ``d_row`` pixels below and ``d_col`` left of the tile's centre, as in VIGOR.
    own
        What poses.csv says of the panorama.
    """

    id: str
    source: str
    panorama: Path
    tile: Path
    d_row: float
    d_col: float
    own: PanoramaInfo


def find_pairs(
    root: Path | str,
    reference: Path | str,
    *,
    pairs_file: Path | None = None,
    poses: Path | None = None,
) -> list[PairFiles]:
    """Join the panoramas of a folder to the tiles of another.

    Parameters
    ----------
    root, reference
        Folders, of panoramas and of tiles.
    pairs_file
        CSV with the columns query, reference (ids) and any of role, d_row, d_col, split; only rows
        whose role is positive count. Without it equal ids are pairs.
    poses
        poses.csv of the panoramas; it may give ids of their own.

    Returns
    -------
    list of PairFiles
        In the order of the panoramas' files. Panoramas and tiles without the other are left out.

    Raises
    ------
    InputError
        If a folder or file cannot be used, or nothing pairs.
    """
    root, reference = Path(root), Path(reference)
    panoramas = [source for source, _ in find_images(root)]
    rows = read_poses(poses, panoramas) if poses is not None else {}
    ids = {source: row.id for source, row in rows.items()}
    sources = _by_id(root, panoramas, ids, ", or give ids in a poses file (columns file, id)")
    files = _by_id(reference, [source for source, _ in find_images(reference)], {}, "")
    tiles = {name: reference / file for name, file in files.items()}
    places = (
        _tiles_of(pairs_file) if pairs_file is not None else {i: (i, 0.0, 0.0) for i in sources}
    )
    queries = respelled(sources, places)
    references = respelled((place[0] for place in places.values()), tiles)
    warn_respelled(pairs_file or reference, len(queries.keys() | references.keys()))
    found = []
    for name, source in sources.items():
        tile, *offset = places.get(queries.get(name, name), ("", 0.0, 0.0))
        tile = references.get(tile, tile)
        if tile in tiles:
            own = info_from_row(rows.get(source))
            found.append(PairFiles(name, source, root / source, tiles[tile], *offset, own=own))
    if not found:
        by = f"by {pairs_file}" if pairs_file is not None else "by equal ids (see --pairs)"
        raise InputError(
            f"no panorama of {root} has a tile in {reference} {by}: their ids are like"
            f" {next(iter(sources))!r} and {next(iter(tiles))!r}"
        )
    return found


def _by_id(
    folder: Path, files: Iterable[str], own: Mapping[str, str | None], otherwise: str
) -> dict[str, str]:
    """Files of a folder by their ids; ``otherwise`` is what can be done where two share one."""
    found: dict[str, str] = {}
    for source in files:
        name = own.get(source) or default_id(source)
        if found.setdefault(name, source) != source:
            raise InputError(
                f"{found[name]} and {source} in {folder} have one id, {name!r}: move the one that"
                f" is not to be used to another folder{otherwise}"
            )
    return found


def choose(pairs: list[PairFiles], count: int) -> list[PairFiles]:
    """Take so many, at random but the same ones every time."""
    if count >= len(pairs):
        return pairs
    chosen = np.random.default_rng(0).choice(len(pairs), count, replace=False)
    return [pairs[i] for i in sorted(chosen.tolist())]


def _tiles_of(path: Path) -> dict[str, tuple[str, float, float]]:
    """Return the tile of each query, and the camera's offset in it; of several tiles the first."""
    found: dict[str, tuple[str, float, float]] = {}
    for pair in read_pairs(path):
        if pair.role == "positive":
            found.setdefault(pair.query, (pair.reference, pair.d_row or 0.0, pair.d_col or 0.0))
    return found


def load_view(
    pair: PairFiles,
    *,
    vertical_fov: tuple[float, float] | None = None,
    centred: bool = False,
    mask: Mask | None = None,
) -> tuple[View, PanoramaInfo, tuple[int, int]]:
    """Read the two images of a pair for `bevgen.calibrate`.

    Parameters
    ----------
    pair
        Which.
    vertical_fov
        Top and bottom of the panorama in degrees; else what its metadata say.
    centred
        If nobody says, take pixels to be square and the horizon to be half way up.
    mask
        Which pixels of the panorama show the street.

    Returns
    -------
    view : View
        Of small grey pictures, but the camera's place is in pixels of the tile as it is on disk.
    known : PanoramaInfo
        What poses.csv, the file and its name say; the view has its heading, pitch and roll.
    shape : (int, int)
        Rows and columns of the panorama's file.

    Raises
    ------
    PanoramaError
        If one of the files cannot be used.
    """
    try:
        panorama, info = read_image(pair.panorama)
    except PanoramaError as error:
        raise PanoramaError(f"{pair.panorama}: {error}") from error
    try:
        tile, _ = read_image(pair.tile)
    except PanoramaError as error:
        raise PanoramaError(f"{pair.tile}: {error}") from error
    file = info.fallback(info_from_name(pair.source))
    known = pair.own.fallback(file)
    rows, columns = panorama.shape[:2]
    if vertical_fov is None and file.vertical_fov is None and centred:
        left, right = file.horizontal_fov or FULL_CIRCLE
        half = min(90.0, rows * (right - left) / columns / 2)
        vertical_fov = (half, -half)
    try:
        view = panorama_view((rows, columns), file, vertical_fov)
    except PanoramaError as error:
        advice = "" if vertical_fov or file.vertical_fov else ", or look for it with --horizon"
        raise PanoramaError(f"{pair.panorama}: {error}{advice}") from error
    left, right = view.horizontal_fov
    width = min(columns, max(2, round(2 * AZIMUTHS * (right - left) / 360)))
    grey = _grey(panorama, min(rows, _ROWS), width)
    lens = replace(view, height=grey.shape[0], width=grey.shape[1])
    pose = Pose(1.0, known.heading or 0.0, known.pitch or 0.0, known.roll or 0.0)
    try:
        use = None if mask is None else mask.fitted((rows, columns), grey.shape)
    except InputError as error:
        raise PanoramaError(f"{pair.panorama}: {error}") from error
    place = tile.shape[0] / 2 + pair.d_row, tile.shape[1] / 2 - pair.d_col
    return View(grey, lens, pose, _grey(tile, *tile.shape[:2]), *place, use), known, (rows, columns)


def known_of(pair: PairFiles) -> PanoramaInfo:
    """Return what poses.csv, the panorama's file and its name say; a JPEG file is not decoded.

    Raises
    ------
    PanoramaError
        If the file cannot be used.
    """
    try:
        file = open_image(pair.panorama).info
    except PanoramaError as error:
        raise PanoramaError(f"{pair.panorama}: {error}") from error
    return pair.own.fallback(file).fallback(info_from_name(pair.source))


def _grey(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX))
