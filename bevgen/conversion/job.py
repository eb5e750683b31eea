"""Make one shard: decode, make each row, write it into its slot, close the file."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args
from uuid import uuid4

import numpy as np

from bevgen.conversion.inputs import Item
from bevgen.conversion.output import KEPT
from bevgen.conversion.products import product_of
from bevgen.conversion.report import STAGES, ShardReport, Watcher
from bevgen.conversion.settings import BevSettings, Settings
from bevgen.errors import BevgenError, DeviceError, InputError
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.images import row_decoder
from bevgen.images.decoding import open_image
from bevgen.images.metadata import info_from_name
from bevgen.project import Device, project_view
from bevgen.shards import Failure, PartialShard, Row, ShardHeader, begin_shard, finish_shard
from bevgen.writing import write_errors

log = logging.getLogger(__name__)

Decoder = Literal["auto", "rows", "pillow"]


@dataclass(frozen=True, slots=True)
class Work:
    """What all jobs of a run have in common.

    Attributes
    ----------
    root
        Folder of the images.
    settings
        What is made of them.
    piece
        Images that are worked on one after another, at most.
    contested
        For a cluster, where a worker that was given up may still be writing the same shard.
    decoder, device
        As in `bevgen.convert`.
    images
        Of the whole run: for few a decoder is neither compiled nor loaded.
    """

    root: Path
    settings: Settings
    piece: int
    contested: bool
    decoder: Decoder = "pillow"
    device: Device = "auto"
    images: int = 0


@dataclass(slots=True)
class Filled:
    """What became of one piece of a shard.

    ``unsigned`` counts images whose position lacks its hemispheres, ``finer`` BEVs that are finer
    than the image.
    """

    rows: list[Row]
    failures: list[Failure]
    stage_seconds: dict[str, float]
    unsigned: int = 0
    finer: int = 0


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Makes one shard; see `bevgen.conversion.schedule.Job`.

    ``watcher`` and ``stop`` are for jobs that stay in this process: the one hears of each image,
    the other ends the job between two images.
    """

    work: Work
    path: Path
    items: tuple[Item, ...]
    header: ShardHeader
    watcher: Watcher | None = None
    stop: threading.Event | None = None

    def begin(self) -> PartialShard:
        """Allocate the file under another name."""
        check_device(self.work.device)  # a cluster's worker has its own
        if isinstance(self.work.settings, BevSettings):
            load_kernels(self.work.decoder, self.work.device)
            if self.work.decoder == "auto":
                row_decoder.begin_loading(self.work.images)
        attempt = uuid4().hex[:8] if self.work.contested else ""
        with write_errors(self.path, KEPT):
            return begin_shard(self.path, len(self.items), self.header, attempt=attempt)

    def pieces(self) -> list[range]:
        """Cut the slots into ranges."""
        slots = range(len(self.items))
        return [slots[k : k + self.work.piece] for k in range(0, len(slots), self.work.piece)]

    def fill(self, begun: PartialShard, piece: range) -> Filled:
        """Decode, project and write some images, each into its slot."""
        filled = Filled([], [], dict.fromkeys(STAGES, 0.0))
        for slot in piece:
            if self.stop is not None and self.stop.is_set():
                raise InterruptedError
            item = self.items[slot]
            try:
                filled.rows.append(self._row(begun, slot, item, filled))
            except DeviceError:
                raise
            except BevgenError as error:
                if not self.work.root.is_dir():  # an unmounted disk must not skip all images
                    raise BevgenError(
                        f"{self.work.root} is not there any more. Finished shards are kept: put it"
                        " back and run the same command again"
                    ) from error
                self._skip(filled, item, str(error))
            except OSError:
                raise  # what reading may raise is a BevgenError: the output cannot be written
            except Exception as error:  # one image must not end a run of millions
                log.exception("%s: unexpected error", item.source)
                self._skip(filled, item, f"unexpected {type(error).__name__}: {error}")
            else:
                if self.watcher is not None:
                    self.watcher.advanced(1, 0)
        return filled

    def finish(self, begun: PartialShard, filled: list[Filled]) -> ShardReport:
        """Complete the file and give it its name."""
        start = time.perf_counter()
        rows = [row for part in filled for row in part.rows]
        failures = [failure for part in filled for failure in part.failures]
        with write_errors(self.path, KEPT):
            finish_shard(begun, rows, failures)
        seconds = {stage: sum(part.stage_seconds[stage] for part in filled) for stage in STAGES}
        seconds["write"] += time.perf_counter() - start
        counted = rows if self.work.settings.uses_heading else []
        headings = sum("heading" not in row.columns for row in counted)
        positions = sum("latitude" not in row.columns for row in counted)
        unsigned = sum(part.unsigned for part in filled) if counted else 0
        finer = sum(part.finer for part in filled)
        return ShardReport(
            len(rows), tuple(failures), headings, positions, unsigned, finer, seconds
        )

    def _row(self, begun: PartialShard, slot: int, item: Item, filled: Filled) -> Row:
        times = [time.perf_counter()]
        file = open_image(self.work.root / item.source)
        info = file.info.fallback(info_from_name(item.source))
        prepared = product_of(self.work.settings, self.work.device).prepare(
            file.shape, item.own, info
        )
        by_rows = self.work.decoder == "rows" or (
            self.work.decoder == "auto" and row_decoder.is_loaded()
        )
        image = file.pixels(prepared.rows if by_rows else None)
        times.append(time.perf_counter())
        picture = prepared.make(image)
        times.append(time.perf_counter())
        crc32, mask_crc32 = begun.write(slot, picture.image, picture.valid)
        times.append(time.perf_counter())
        for stage, start, stop in zip(STAGES, times, times[1:], strict=False):
            filled.stage_seconds[stage] += stop - start
        unsigned = picture.info.unsigned_position
        if picture.info.latitude is None and unsigned is not None:
            log.info(
                "%s: nothing says the hemispheres of %g, %g in its XMP", item.source, *unsigned
            )
            filled.unsigned += 1
        filled.finer += prepared.finer
        return Row(
            slot=slot,
            id=item.id,
            source=item.source,
            fingerprint=item.fingerprint,
            crc32=crc32,
            mask_crc32=mask_crc32,
            columns=picture.columns,
            date=picture.info.date or "",
        )

    def _skip(self, filled: Filled, item: Item, reason: str) -> None:
        log.info("%s: skipped: %s", item.source, reason)
        filled.failures.append(Failure(item.source, item.fingerprint, reason))
        if self.watcher is not None:
            self.watcher.advanced(0, 1)


def check_device(device: Device) -> None:
    """Refuse a device that this machine does not have.

    Raises
    ------
    InputError
        If it is unknown, or there is no GPU.
    """
    if device not in get_args(Device):
        raise InputError(f"device must be one of {', '.join(get_args(Device))}, not {device!r}")
    if device == "cuda":
        from bevgen.projection.backends import cuda_backend

        cuda_backend().require_gpu()


@cache
def load_kernels(decoder: Decoder, device: Device) -> None:
    """Compile what BEVs need, or load it: no image is to blame where that fails.

    Raises
    ------
    BevgenError
        If it cannot be compiled, or what is kept of it is damaged; a DeviceError of a GPU.
    """
    from bevgen.compiling import cache_folder

    try:
        image = np.zeros((16, 32, 3), np.uint8)
        project_view(image, BevGrid(1, 1.0), PanoramaView(16, 32), Pose(), device=device)
        if decoder == "rows":
            row_decoder.load()
    except (DeviceError, InputError):  # which say themselves what to do
        raise
    except Exception as error:
        raise BevgenError(
            f"bevgen's compiled code cannot be made or loaded ({type(error).__name__}: {error}):"
            f" delete the files *.nbi and *.nbc in {cache_folder()}, or name another folder"
            " in the environment variable NUMBA_CACHE_DIR"
        ) from error
