"""Carry out a plan: a job for each shard, resumable at any instant, and a report.

A shard appears under its name only when it is whole; the output appears last. Killed at any
moment, the next run makes what is missing and arrives at the same bytes.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import get_args

from bevgen.conversion.job import Decoder, ShardJob, Work, check_device
from bevgen.conversion.output import KEPT, leftovers, remove_leftovers, remove_output
from bevgen.conversion.plan import Plan, plan_run
from bevgen.conversion.report import Report, ShardReport, Watcher
from bevgen.conversion.schedule import run, worker_count
from bevgen.conversion.settings import Settings
from bevgen.errors import InputError
from bevgen.images.row_decoder import WORTH_COMPILING
from bevgen.locking import only_writer
from bevgen.project import Device
from bevgen.shards import (
    PLAN_FILE,
    check_disk,
    check_place,
    read_header,
    shard_folder,
    write_index,
)
from bevgen.writing import write_errors

log = logging.getLogger(__name__)


def convert(
    root: Path | str,
    out: Path | str,
    settings: Settings,
    *,
    list_file: Path | None = None,
    poses: Path | None = None,
    keep_endings: bool = False,
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

    Images that cannot be used are skipped with a reason. A run that was interrupted, killed, or
    ran out of disk continues with the same call.

    Parameters
    ----------
    root, out
        Folder of the images; the output file (HDF5).
    settings
        `BevSettings` or `ImageSettings`.
    list_file, poses, keep_endings, shard_size, extend, overwrite, retry_failed
        As in `bevgen.conversion.plan.plan_run`.
    scheduler, workers
        As in `bevgen.conversion.schedule.run`.
    decoder
        ``"pillow"`` leaves all decoding to Pillow; ``"rows"`` gives the same pixels sooner, as it
        decodes of plain JPEG files only the rows that are needed, but is compiled once on a
        machine; ``"auto"`` takes it as soon as its compiled code is there, and from 100 images on
        has it compiled in the background.
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
    with only_writer(out):
        plan = plan_run(
            root,
            out,
            settings,
            list_file=list_file,
            poses=poses,
            keep_endings=keep_endings,
            shard_size=shard_size,
            extend=extend,
            overwrite=overwrite,
            retry_failed=retry_failed,
        )
        watcher.planned(plan)
        report = Report(out)
        if not plan.complete:
            _check_disk(plan)
        with write_errors(out, KEPT):
            if not plan.complete:
                _run_jobs(plan, report, watcher, scheduler, workers, count, decoder, device)
            _complete(plan)
        whole = read_header(out)
    report.all_rows, report.all_failures = whole.rows, whole.failures
    report.seconds = time.monotonic() - start
    return report


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
    images = plan.images_todo
    if decoder == "auto" and not inside:  # each worker would compile for itself
        decoder = "rows" if images >= WORTH_COMPILING else "pillow"
    # Pieces of 64 hide Dask's cost; smaller ones keep all workers busy in a small run.
    piece = 64 if count is None else min(max(images // (4 * count), 1), 64)
    work = Work(plan.root.absolute(), plan.settings, piece, count is None, decoder, device, images)
    told = (watcher, stop) if inside else (None, None)
    jobs = [
        ShardJob(work, shard.path.absolute(), shard.items or (), plan.header(shard), *told)
        for shard in plan.todo
    ]

    def on_done(shard: ShardReport) -> None:
        report.add(shard)
        if not inside:
            for failure in shard.failures:
                log.info("%s: skipped: %s", failure.source, failure.reason)
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
    remove_leftovers(plan.out)
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
    remove_leftovers(plan.out)


def _check_disk(plan: Plan) -> None:
    """Refuse to begin what the disk has no room for."""
    stale = leftovers(plan.out)  # removed before the run begins
    if plan.overwrite:
        stale += [plan.out, *shard_folder(plan.out).glob("*.h5")]
    freed = 0
    for path in stale:
        with suppress(FileNotFoundError):
            freed += path.stat().st_blocks * 512
    check_disk(plan.out, plan.bytes_needed, freed)
