"""Carry out a plan: a job for each shard, resumable at any instant, and a report.

A shard appears under its name only when it is whole; the output appears last. Killed at any
moment, the next run makes what is missing and arrives at the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import logging
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

import numpy as np
from PIL import Image

from bevgen.conversion.plan import Item, Plan, plan_run
from bevgen.conversion.products import Settings
from bevgen.conversion.schedule import run, worker_count
from bevgen.errors import BevgenError, DeviceError, InputError, RefusedError
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.images.metadata import info_from_name
from bevgen.images.panorama import open_image
from bevgen.project import Device, project_view
from bevgen.shards import (
    PARTS,
    PLAN_FILE,
    Failure,
    PartialShard,
    Row,
    ShardHeader,
    begin_shard,
    check_place,
    finish_shard,
    read_header,
    shard_folder,
    write_index,
)

log = logging.getLogger(__name__)

Decoder = Literal["auto", "rows", "pillow"]
# Below so many images, compiling the decoder of rows may take longer than it saves.
MANY = 500
STAGES = ("decode", "project", "write")
EXAMPLES = 3


class Watcher:
    """Hears how a run goes, and does nothing. Several threads may call it."""

    def planned(self, plan: Plan) -> None:
        """Hear of the plan, before anything is written."""

    def advanced(self, done: int, failed: int) -> None:
        """Hear how many more images are stored, and how many more set aside."""


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes
    ----------
    out
        The output.
    rows, failures
        Images stored and set aside by this run.
    unknown_headings
        Images stored by this run as if they looked north, because nobody says where they look.
    all_rows, all_failures
        Images stored and set aside in the output, those of earlier runs included.
    shards
        Shards made by this run.
    seconds
        From plan to index.
    stage_seconds
        Time spent on each of `STAGES`, summed over workers.
    reasons
        Why images were set aside: how often, and a few examples.
    """

    out: Path
    rows: int = 0
    failures: int = 0
    unknown_headings: int = 0
    all_rows: int = 0
    all_failures: int = 0
    shards: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images that this run worked on."""
        return self.rows + self.failures

    def add(self, shard: ShardReport) -> None:
        """Count one more shard."""
        self.rows += shard.rows
        self.failures += len(shard.failures)
        self.unknown_headings += shard.unknown_headings
        self.shards += 1
        for stage, seconds in shard.stage_seconds.items():
            self.stage_seconds[stage] += seconds
        for failure in shard.failures:
            count, examples = self.reasons.get(failure.reason, (0, []))
            self.reasons[failure.reason] = (count + 1, [*examples, failure.source][:EXAMPLES])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "failures": self.failures,
            "unknown_headings": self.unknown_headings,
            "all_rows": self.all_rows,
            "all_failures": self.all_failures,
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "stage_seconds": {key: round(value, 3) for key, value in self.stage_seconds.items()},
            "reasons": [
                {"reason": reason, "count": count, "examples": examples}
                for reason, (count, examples) in self.reasons.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of one shard."""

    rows: int
    failures: tuple[Failure, ...]
    unknown_headings: int
    stage_seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Filled:
    """What became of one piece of a shard."""

    rows: list[Row]
    failures: list[Failure]
    stage_seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Makes one shard; see `bevgen.conversion.schedule.Job`.

    ``watcher`` and ``stop`` are for jobs that stay in this process: the one hears of each image,
    the other ends the job between two images. ``contested`` is for a cluster, where a worker that
    was given up may still be writing the same shard.
    """

    root: Path
    path: Path
    items: tuple[Item, ...]
    settings: Settings
    header: ShardHeader
    piece: int
    contested: bool
    decoder: Decoder = "pillow"
    device: Device = "auto"
    watcher: Watcher | None = None
    stop: threading.Event | None = None

    def begin(self) -> PartialShard:
        """Allocate the file under another name."""
        check_device(self.device)  # a cluster's worker has its own
        if self.settings.kind == "bev":
            load_kernels(self.decoder, self.device)
        attempt = uuid4().hex[:8] if self.contested else ""
        with disk_errors(self.path):
            return begin_shard(self.path, len(self.items), self.header, attempt=attempt)

    def pieces(self) -> list[range]:
        """Cut the slots into ranges."""
        slots = range(len(self.items))
        return [slots[k : k + self.piece] for k in range(0, len(slots), self.piece)]

    def fill(self, begun: PartialShard, piece: range) -> _Filled:
        """Decode, project and write some images, each into its slot."""
        filled = _Filled([], [], dict.fromkeys(STAGES, 0.0))
        for slot in piece:
            if self.stop is not None and self.stop.is_set():
                raise InterruptedError
            item = self.items[slot]
            try:
                filled.rows.append(self._row(begun, slot, item, filled.stage_seconds))
            except DeviceError:
                raise
            except BevgenError as error:
                if not self.root.is_dir():  # an unmounted disk must not set all images aside
                    raise BevgenError(
                        f"{self.root} is not there any more. Finished shards are kept: put it back"
                        " and run the same command again"
                    ) from error
                self._set_aside(filled, item, str(error))
            except OSError:
                raise  # what reading may raise is a BevgenError: the output cannot be written
            except Exception as error:  # one image must not end a run of millions
                log.exception("%s: unexpected error", item.source)
                self._set_aside(filled, item, f"unexpected {type(error).__name__}: {error}")
            else:
                if self.watcher is not None:
                    self.watcher.advanced(1, 0)
        return filled

    def finish(self, begun: PartialShard, filled: list[_Filled]) -> ShardReport:
        """Complete the file and give it its name."""
        start = time.perf_counter()
        rows = [row for part in filled for row in part.rows]
        failures = [failure for part in filled for failure in part.failures]
        with disk_errors(self.path):
            finish_shard(begun, rows, failures)
        seconds = {stage: sum(part.stage_seconds[stage] for part in filled) for stage in STAGES}
        seconds["write"] += time.perf_counter() - start
        unknown = sum("heading" not in row.columns for row in rows)
        unknown *= self.settings.uses_heading
        return ShardReport(len(rows), tuple(failures), unknown, seconds)

    def _row(self, begun: PartialShard, slot: int, item: Item, seconds: dict[str, float]) -> Row:
        times = [time.perf_counter()]
        file = open_image(self.root / item.source)
        info = file.info.fallback(info_from_name(item.source))
        rows = self.settings.rows(file.shape, item.own, info)
        image = file.pixels(rows if self.decoder == "rows" else None)
        times.append(time.perf_counter())
        picture = self.settings.picture(image, item.own, info, self.device)
        times.append(time.perf_counter())
        crc32, mask_crc32 = begun.write(slot, picture.image, picture.valid)
        times.append(time.perf_counter())
        for stage, start, stop in zip(STAGES, times, times[1:], strict=False):
            seconds[stage] += stop - start
        return Row(
            slot=slot,
            id=item.id,
            source=item.source,
            fingerprint=item.fingerprint,
            crc32=crc32,
            mask_crc32=mask_crc32,
            columns=picture.columns,
            date=picture.date,
        )

    def _set_aside(self, filled: _Filled, item: Item, reason: str) -> None:
        log.info("%s: set aside: %s", item.source, reason)
        filled.failures.append(Failure(item.source, item.fingerprint, reason))
        if self.watcher is not None:
            self.watcher.advanced(0, 1)


def convert(
    root: Path | str,
    out: Path | str,
    settings: Settings,
    *,
    list_file: Path | None = None,
    poses: Path | None = None,
    shard_size: int = 256,
    scheduler: str = "threads",
    workers: int | None = None,
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    decoder: Decoder = "auto",
    device: Device = "auto",
    watcher: Watcher | None = None,
) -> Report:
    """Turn a folder of images into shards: BEVs, or plain images of one size.

    Images that cannot be used are set aside with a reason. A run that was interrupted, killed, or
    ran out of disk continues with the same call.

    Parameters
    ----------
    root, out
        Folder of the images; the output file (HDF5).
    settings
        `BevSettings` or `ImageSettings`.
    list_file, poses, shard_size, extend, overwrite, retry_failed
        As in `bevgen.conversion.plan.plan_run`.
    scheduler, workers
        As in `bevgen.conversion.schedule.run`.
    decoder
        ``"pillow"`` leaves all decoding to Pillow; ``"rows"`` gives the same pixels sooner, as it
        decodes of plain JPEG files only the rows that are needed, but is compiled once on a
        machine; ``"auto"`` takes it for 500 images and more.
    device
        ``"cuda"`` projects on the GPU of each worker; ``"auto"`` and ``"cpu"`` do not.
    watcher
        Is told of plan and progress.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If images, poses, ids, scheduler or device cannot be used.
    RefusedError
        If the output holds something else, another run is at work on it, or the disk is too small.
    BevgenError
        If the output cannot be written.
    KeyboardInterrupt
        If interrupted; what is finished stays.
    """
    start = time.monotonic()
    root, out = Path(root), Path(out)
    watcher = watcher or Watcher()
    count = worker_count(scheduler, workers)
    check_place(out)
    if decoder not in get_args(Decoder):
        raise InputError(f"decoder must be one of {', '.join(get_args(Decoder))}, not {decoder!r}")
    if count is not None:
        check_device(device)
    with only_run(out):
        plan = plan_run(
            root,
            out,
            settings,
            list_file=list_file,
            poses=poses,
            shard_size=shard_size,
            extend=extend,
            overwrite=overwrite,
            retry_failed=retry_failed,
        )
        watcher.planned(plan)
        report = Report(out)
        if not plan.complete:
            _check_disk(plan)
        with disk_errors(out):
            if not plan.complete:
                _run_jobs(plan, report, watcher, scheduler, workers, count, decoder, device)
            _complete(plan)
        whole = read_header(out)
    report.all_rows, report.all_failures = whole.rows, whole.failures
    report.seconds = time.monotonic() - start
    return report


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
    try:
        image = np.zeros((16, 32, 3), np.uint8)
        project_view(image, BevGrid(1, 1.0), PanoramaView(16, 32), Pose(), device=device)
        if decoder == "rows":
            from bevgen.images.jpeg import decode_rows

            file = BytesIO()
            Image.fromarray(image).save(file, "JPEG")
            decode_rows(file.getvalue(), 0, 16)
    except DeviceError:
        raise
    except Exception as error:
        raise BevgenError(
            f"bevgen's compiled code cannot be made or loaded ({type(error).__name__}: {error}):"
            f" delete the files *.nbi and *.nbc in {_compiled_folder()}, or name another folder"
            " in the environment variable NUMBA_CACHE_DIR"
        ) from error


def _compiled_folder() -> Path:
    """Return where Numba keeps compiled code: beside the source, at home, or where it is told."""
    from bevgen.compiling import cache_folder

    return cache_folder()


def _run_jobs(
    plan: Plan,
    report: Report,
    watcher: Watcher,
    scheduler: str,
    workers: int | None,
    count: int | None,
    decoder: Decoder,
    device: Device,
) -> None:
    """Make the missing shards; only threads of this process can be watched and stopped inside."""
    inside = scheduler in ("threads", "sync")
    stop = threading.Event()
    # Pieces of 64 hide Dask's cost; smaller ones keep all workers busy in a small run.
    if decoder == "auto":
        decoder = "rows" if plan.images_todo >= MANY else "pillow"
    piece = 64 if count is None else min(max(plan.images_todo // (4 * count), 1), 64)
    jobs = [
        ShardJob(
            plan.root.absolute(),
            shard.path.absolute(),
            shard.items or (),
            plan.settings,
            plan.header(shard),
            piece,
            count is None,
            decoder,
            device,
            watcher if inside else None,
            stop if inside else None,
        )
        for shard in plan.todo
    ]

    def on_done(shard: ShardReport) -> None:
        report.add(shard)
        if not inside:
            for failure in shard.failures:
                log.info("%s: set aside: %s", failure.source, failure.reason)
            watcher.advanced(shard.rows, len(shard.failures))

    run(
        jobs,
        on_done,
        scheduler=scheduler,
        workers=workers,
        on_start=lambda: _prepare(plan),
        on_early_end=stop.set,
        shared_folders=[plan.root.absolute(), plan.out.absolute().parent],
    )


def _prepare(plan: Plan) -> None:
    """Make the disk agree with the plan, which is the authority once the output is gone."""
    if plan.overwrite:
        remove_output(plan.out)
    for part in leftovers(plan.out):
        part.unlink()
    if plan.single:
        return
    plan.write()
    if plan.out.exists():
        first = plan.shards[0]
        if first.items is None and not read_header(plan.out).files:
            plan.out.replace(first.path)  # a single file becomes the first of several
        else:
            plan.out.unlink()  # an index that will not be true any more
    for shard in plan.todo:
        shard.path.unlink(missing_ok=True)


def _complete(plan: Plan) -> None:
    """Write the index, whose presence means complete, and drop what is of no use any more."""
    if not (plan.single or plan.complete):
        files = [shard.path for shard in plan.shards]
        write_index(plan.out, files, plan.settings.to_json(), plan.digest)
    (shard_folder(plan.out) / PLAN_FILE).unlink(missing_ok=True)
    for part in leftovers(plan.out):
        part.unlink()


def leftovers(out: Path) -> list[Path]:
    """Files that a killed run left unfinished."""
    found = [*out.parent.glob(f"{glob.escape(out.name)}.*"), *shard_folder(out).glob("*.part*")]
    return [path for path in found if path.name.endswith(PARTS)]


def remove_output(out: Path) -> None:
    """Remove an output with its folder of shards, and nothing that is not bevgen's."""
    out.unlink(missing_ok=True)
    folder = shard_folder(out)
    if folder.is_dir():
        for pattern in ("[0-9][0-9][0-9][0-9][0-9]*.h5*", f"{PLAN_FILE}*"):
            for path in folder.glob(pattern):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _check_disk(plan: Plan) -> None:
    stale = leftovers(plan.out)  # removed before the run begins
    if plan.overwrite:
        stale += [plan.out, *shard_folder(plan.out).glob("*.h5")]
    free = shutil.disk_usage(plan.out.absolute().parent).free
    free += sum(path.stat().st_blocks * 512 for path in stale if path.exists())
    if plan.bytes_needed > free:
        raise RefusedError(
            f"{plan.out} needs {plan.bytes_needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g}"
            " GB free: free some, name an output on another disk, or choose a smaller --size"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say what an error in writing means for the run."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _error_number(error)
        if number is None and isinstance(error, RuntimeError):
            raise
        why = str(error) if number is None else os.strerror(number)
        if number in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full"
        raise BevgenError(
            f"{path} could not be written: {why}. Finished shards are kept: mend the cause and run"
            " the same command again"
        ) from error


def _error_number(error: BaseException | None) -> int | None:
    """Return the system's number of an error, which HDF5 has in its text, or in an earlier one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := re.search(r"errno = (\d+)", str(error)):
            return int(found[1])
        error = error.__context__
    return None


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold a lock on the output; the system releases it even if this process is killed."""
    path = out.with_name(out.name + ".lock")
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise RefusedError(f"nothing can be written beside {out}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
                raise BlockingIOError  # its owner has just ended and removed it
        except BlockingIOError:
            file.seek(0)
            owner = file.read().decode("utf-8", "replace").strip()
            raise RefusedError(
                f"another run is writing {out} ({owner or 'just started'}):"
                " wait for it, or name another output"
            ) from None
        except OSError as error:
            log.warning("%s: this file system has no locks (%s): start one run only", out, error)
        try:
            with suppress(OSError):  # a full disk: the lock holds without its owner's name
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            path.unlink(missing_ok=True)
