"""Images of a shard file as files: PNG, JPEG or GeoTIFF, by ids or as published loaders ask."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from bevgen.cores import usable_cores
from bevgen.errors import BevgenError, InputError, RefusedError
from bevgen.geometry import BevGrid
from bevgen.locking import only_writer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bevgen.shards import ShardSet

Format = Literal["png", "jpg", "geotiff"]
Layout = Literal["ids", "ep-bev"]
LONGEST_NAME = 255  # bytes of a file name, on nearly every file system
JOURNAL = ".bevgen-export.json"
"""Says, in a folder that is being written, what of; so that the same export can go on there."""

PART = ".bevgen-{}.part"  # what an unfinished file is called


@dataclass(slots=True)
class ExportReport:
    """What an export did.

    Attributes
    ----------
    written, kept
        Files made, and files of an earlier, interrupted export that were there.
    skipped
        Images that got no file, each with the reason.
    """

    written: int = 0
    kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Files that are there now."""
        return self.written + self.kept


def export_images(
    shards: ShardSet,
    out: Path | str,
    *,
    format: Format = "png",  # noqa: A002 - the word of the command and of Pillow
    layout: Layout = "ids",
    overwrite: bool = False,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write a file for each image of a shard file, on all cores.

    Each file appears when it is complete. An export that was interrupted goes on where it stopped
    when it is asked for again.

    Parameters
    ----------
    shards
        Opened.
    out
        Folder to write to.
    format
        ``png`` is lossless; ``jpg`` is quality 95, 4:4:4; ``geotiff`` is a Cloud Optimized GeoTIFF
        in the local UTM zone, with alpha: of BEVs with position and heading, others are skipped.
    layout
        ``ids``: ID.png, in sub-folders where ids have them; ``ep-bev``: JPEG files in one folder,
        named as the panoramas; where those of several folders have one name, as of CVACT's small
        and test, in a folder ``bev`` beside each of these folders.
    overwrite
        Replace files that exist.
    threads
        At work; None for one per core.
    on_progress
        Called with the images done and their total.

    Raises
    ------
    InputError
        If images cannot be such files, or ids and sources are no names of files.
    RefusedError
        If something is in the way, or another process writes there.
    BevgenError
        If a file cannot be written, or two images would be one file on this disk.
    """
    out = Path(out)
    _check_channels(shards, format)
    names, labels = _names(shards, format, layout)
    _check_names(names, labels, out, layout)
    reasons = unplaced(shards) if format == "geotiff" else [""] * len(shards)
    if out.exists() and not out.is_dir():
        raise RefusedError(f"{out} is a file: name a folder")
    identity = {"plan": shards.plan, "format": format, "layout": layout}
    targets = [out / name for name in names]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with only_writer(out):
            begun = _begun(out, identity)  # not before: another may have just ended
            if begun:
                for folder in {target.parent for target in targets}:
                    for stray in folder.glob(PART.format("*")):
                        stray.unlink()
            else:
                _check_folder(targets, overwrite)
                (out / JOURNAL).write_text(json.dumps(identity), "utf-8")
            job = _Job(shards, targets, labels, format, overwrite and not begun, begun)
            report = job.run(reasons, threads or usable_cores(), on_progress)
            (out / JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise BevgenError(f"{out} could not be written: {error.strerror or error}") from error
    return report


def footprints(shards: ShardSet) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the squares of ground that BEVs show as GeoJSON, and those skipped with reasons.

    Raises
    ------
    InputError
        If the file holds no BEVs.
    """
    from bevgen.georeference import footprint

    features, skipped = [], []
    latitudes, longitudes = (shards.columns[n].tolist() for n in ("latitude", "longitude"))
    for i, reason in enumerate(unplaced(shards)):
        if reason:
            skipped.append((f"id {shards.ids[i]!r}", reason))
            continue
        ring = footprint(_grid(shards), latitudes[i], longitudes[i])
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"id": shards.ids[i], "source": shards.sources[i]},
            }
        )
    return {"type": "FeatureCollection", "features": features}, skipped


def unplaced(shards: ShardSet) -> list[str]:
    """Why each BEV has no place on a map; empty where it has one.

    Raises
    ------
    InputError
        If the file holds no BEVs.
    """
    if shards.kind != "bev":
        raise InputError(f"{shards.path} holds {shards.kind} images: BEVs alone know their ground")
    reasons = []
    columns = (shards.columns[name].tolist() for name in ("latitude", "longitude", "heading"))
    for latitude, longitude, heading in zip(*columns, strict=True):
        values = {"position": latitude + longitude, "heading": heading}
        missing = next((name for name, value in values.items() if math.isnan(value)), "")
        reasons.append(missing and f"no {missing}; give it in a poses file and convert again")
    return reasons


@dataclass(slots=True)
class _Job:
    """The files of one export; ``begun`` if an earlier one was interrupted here."""

    shards: ShardSet
    targets: Sequence[Path]
    labels: Sequence[str]
    format: Format
    overwrite: bool
    begun: bool

    def run(
        self,
        reasons: Sequence[str],
        threads: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> ExportReport:
        """Write all files but those with a reason against it."""
        report = ExportReport()
        owners: dict[tuple[int, int], int] = {}
        waiting: dict[Future[bool], int] = {}
        done = 0

        def settle(futures: set[Future[bool]]) -> None:
            nonlocal done
            for i, future in sorted(((waiting.pop(f), f) for f in futures), key=lambda one: one[0]):
                if future.result():
                    report.written += 1
                else:
                    report.kept += 1
                status = self.targets[i].stat()
                first = owners.setdefault((status.st_dev, status.st_ino), i)
                if first != i:
                    raise self._met(first, i)
                done += 1
                if on_progress:
                    on_progress(done, len(self.targets))

        with ThreadPoolExecutor(threads) as pool:
            try:
                for i in range(len(self.targets)):
                    if reasons[i]:
                        report.skipped.append((self.labels[i], reasons[i]))
                        done += 1
                        continue
                    waiting[pool.submit(self._write, i)] = i
                    if len(waiting) >= 4 * threads:
                        settle(wait(waiting, return_when=FIRST_COMPLETED).done)
                settle(wait(waiting).done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return report

    def _write(self, i: int) -> bool:
        """Write one file, whole or not at all; return False if it was there already."""
        target = self.targets[i]
        if self.begun and target.is_file() and target.stat().st_size:
            return False
        part = target.with_name(PART.format(f"{os.getpid()}-{i}"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.format == "geotiff":
                self._draw_geotiff(part, i)
            else:
                _draw(part, self.shards[i], self.format)
            if not self.overwrite and not (self.begun and target.is_file()):
                self._claim(i)
            part.replace(target)
        except OSError as error:
            raise BevgenError(
                f"{self.labels[i]} could not be written to {target}: {error.strerror or error}"
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()  # renamed by now, unless something failed
        return True

    def _claim(self, i: int) -> None:
        """Create a file; unlike replacing, that fails where the disk has one of that name."""
        target = self.targets[i]
        try:
            target.open("xb").close()
        except FileExistsError:
            same = (k for k in range(i) if self.targets[k].exists())
            met = next((k for k in same if self.targets[k].samefile(target)), None)
            if met is not None:
                raise self._met(met, i) from None
            raise RefusedError(
                f"{target} has appeared: name another folder, or add --overwrite"
            ) from None

    def _met(self, first: int, second: int) -> BevgenError:
        return BevgenError(
            f"{self.labels[first]} and {self.labels[second]} are one file on this disk,"
            f" {self.targets[second]}, which does not tell their names apart: export to another"
            " disk, or give them other ids in a poses file (columns file, id)"
        )

    def _draw_geotiff(self, path: Path, i: int) -> None:
        from bevgen.georeference import write_geotiff

        shards = self.shards
        values = {name: column[i].item() for name, column in shards.columns.items()}
        unknown = ("", "nan")
        tags = {name: text for name, value in values.items() if (text := str(value)) not in unknown}
        tags |= {"id": shards.ids[i], "source": shards.sources[i]}
        position = (values["latitude"], values["longitude"])
        write_geotiff(path, shards[i], shards.valid(i), _grid(shards), *position, tags)


def _draw(path: Path, image: NDArray[np.uint8], format: Format) -> None:  # noqa: A002
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if format == "png":
        picture.save(path, "PNG")
    else:
        picture.save(path, "JPEG", quality=95, subsampling="4:4:4")


def _grid(shards: ShardSet) -> BevGrid:
    return BevGrid(shards.settings["size"], shards.settings["resolution"])


def _begun(out: Path, identity: dict[str, str]) -> bool:
    """Whether the same export was interrupted in this folder."""
    try:
        return json.loads((out / JOURNAL).read_text("utf-8")) == identity
    except (OSError, ValueError):
        return False


def _names(
    shards: ShardSet,
    format: Format,  # noqa: A002
    layout: Layout,
) -> tuple[list[PurePosixPath], list[str]]:
    """Return each image's file, relative to the folder, and what it is called in messages."""
    if layout == "ep-bev":
        sources = [PurePosixPath(source) for source in shards.sources]
        names = [_jpeg_name(source) for source in sources]
        if len(set(names)) < len(names):
            folders = [source.parent.parent / "bev" for source in sources]
            names = [folder / name for folder, name in zip(folders, names, strict=True)]
        return names, [f"source {source!r}" for source in shards.sources]
    suffix = "tif" if format == "geotiff" else format
    names = [PurePosixPath(f"{name}.{suffix}") for name in shards.ids]
    return names, [f"id {name!r}" for name in shards.ids]


def _jpeg_name(source: PurePosixPath) -> PurePosixPath:
    name = PurePosixPath(source.name)
    return name if name.suffix.lower() in (".jpg", ".jpeg") else PurePosixPath(f"{name.stem}.jpg")


def _check_channels(shards: ShardSet, format: Format) -> None:  # noqa: A002
    channels = shards.image_shape[2]
    if format == "geotiff" and channels not in (1, 3):
        raise InputError(f"{shards.path}: images of {channels} channels cannot be GeoTIFF files")
    if channels > 4 or (format == "jpg" and channels not in (1, 3)):
        raise InputError(f"{shards.path}: images of {channels} channels cannot be {format} files")


def _check_names(names: list[PurePosixPath], labels: list[str], out: Path, layout: Layout) -> None:
    """Refuse names, which come from files, that lead out of the folder, meet, or are too long."""
    other = "ids" if layout == "ep-bev" else "ep-bev"
    ids = " or give {} in a poses file (columns file, id)" if layout == "ids" else ""
    owner: dict[PurePosixPath, int] = {}
    for i, name in enumerate(names):
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{labels[i]} leads out of {out}: it cannot be a file name")
        if any(len(part.encode("utf-8", "surrogateescape")) > LONGEST_NAME for part in name.parts):
            raise InputError(
                f"{labels[i]} is too long for a file name: choose --layout {other}"
                + ids.format("it a shorter id")
            )
        first = owner.setdefault(name, i)
        if first != i:
            raise InputError(
                f"{labels[first]} and {labels[i]} would both be written to {name}: choose"
                f" --layout {other}" + ids.format("them other ids")
            )
    for i, name in enumerate(names):
        for folder in name.parents:
            if folder in owner:
                raise InputError(
                    f"{labels[owner[folder]]} would be the file {folder} and {labels[i]} needs a"
                    f" folder of that name: choose --layout {other}, or another --format"
                )


def _check_folder(targets: Sequence[Path], overwrite: bool) -> None:
    for target in targets:
        if target.is_dir():
            raise RefusedError(f"{target} is a folder: name another folder to write to")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise RefusedError(f"{target} exists: name another folder, or add --overwrite")
