"""Run jobs by Dask: on threads, processes, in line, or a cluster. The only user of Dask.

A job makes one shard in three steps: begin, fill piece by piece, finish. On one machine the
pieces of a shard run side by side; on a cluster a job stays whole, so that one worker alone
writes its file.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from bevgen._version import __version__
from bevgen.cores import usable_cores
from bevgen.errors import BevgenError, InputError

logger = logging.getLogger(__name__)

LOCAL = ("threads", "processes", "sync")
PATIENCE = 30.0
"""Seconds without a worker after which it is said that one is waited for."""


class Job(Protocol):
    """Work on one file. Results must be small, and picklable unless they stay in this process."""

    def begin(self) -> Any:
        """Prepare; the result is handed to the other steps."""

    def pieces(self) -> Sequence[Any]:
        """Name the parts that `fill` can do on their own, in any order and at once."""
        ...

    def fill(self, begun: Any, piece: Any) -> Any:
        """Do one part."""

    def finish(self, begun: Any, filled: list[Any]) -> Any:
        """Close; the result is handed to the caller."""


def worker_count(scheduler: str, workers: int | None) -> int | None:
    """How many images are worked on at once; None on a cluster, which knows itself.

    Raises
    ------
    InputError
        If ``scheduler`` or ``workers`` cannot be used.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    if scheduler in LOCAL:
        return 1 if scheduler == "sync" else workers or usable_cores()
    if "://" not in scheduler and not scheduler.endswith(".json"):
        raise InputError(
            f"scheduler must be {', '.join(LOCAL)}, an address such as tcp://host:8786,"
            f" or a scheduler file (.json), not {scheduler!r}"
        )
    if workers is not None:
        raise InputError("a Dask cluster has its own workers: leave out --workers")
    return None


def run(
    jobs: Sequence[Job],
    on_done: Callable[[Any], None],
    *,
    scheduler: str = "threads",
    workers: int | None = None,
    on_start: Callable[[], None] = lambda: None,
    on_early_end: Callable[[], None] = lambda: None,
    shared_folders: Sequence[Path] = (),
) -> None:
    """Run all jobs; each one's result goes to ``on_done``, in this thread, as soon as it is there.

    Parameters
    ----------
    jobs
        What to do.
    on_done
        Takes the result of `Job.finish`.
    scheduler
        ``threads``, ``processes``, ``sync``, an address of a Dask scheduler, or a scheduler file.
    workers
        Threads or processes; None for one per core of this machine.
    on_start
        Called before the first job, when the scheduler has been found fit.
    on_early_end
        Called when an error or an interrupt ends the run, before it waits for steps under way.
    shared_folders
        Folders that every worker of a cluster must see; in the last one a file is written to try.

    Raises
    ------
    InputError
        If the scheduler cannot be used, does not answer, or a worker of the cluster does not see
        the folders or runs another version.
    BevgenError
        If workers or the cluster are lost.
    """
    count = worker_count(scheduler, workers)
    if count is None:
        _run_on_cluster(jobs, on_done, scheduler, on_start, shared_folders)
    else:
        on_start()
        _run_here(jobs, on_done, scheduler, count, on_early_end)


def _run_here(
    jobs: Iterable[Job],
    on_done: Callable[[Any], None],
    scheduler: str,
    workers: int,
    on_early_end: Callable[[], None],
) -> None:
    from dask import local, threaded
    from dask import multiprocessing as processes
    from dask.base import compute
    from dask.delayed import delayed

    # Given by its name, Dask would import distributed to look for a cluster.
    get = {"threads": threaded.get, "processes": processes.get, "sync": local.get_sync}[scheduler]
    finals = []
    for k, job in enumerate(jobs):  # by these names Dask takes neighbours one after the other
        begun = delayed(job.begin)(dask_key_name=f"{k:08d}-begin")
        filled = [
            delayed(job.fill)(begun, piece, dask_key_name=f"{k:08d}-fill-{n:08d}")
            for n, piece in enumerate(job.pieces())
        ]
        finals.append(delayed(job.finish)(begun, filled, dask_key_name=f"{k:08d}-finish"))
    keys = {final.key for final in finals}

    def posttask(key: Any, value: Any, *_: Any) -> None:
        if key in keys:
            on_done(value)

    # Callbacks given as an argument are this run's alone; those of a context are everybody's.
    callbacks = [(None, None, None, posttask, None)]
    options = {"callbacks": callbacks, "chunksize": 1, "optimize_graph": False}
    with _pool(scheduler, workers) as pool:
        try:
            compute(*finals, scheduler=get, pool=pool, **options)
        except BaseException:
            on_early_end()
            raise


@contextmanager
def _pool(scheduler: str, workers: int) -> Iterator[Executor | None]:
    """Open a pool that an interrupted run leaves without waiting for what has not begun."""
    if scheduler == "sync":
        yield None
        return
    others = set(multiprocessing.active_children())
    pool = (
        ThreadPoolExecutor(workers, "bevgen")
        if scheduler == "threads"
        else ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _follow_parent)
    )
    try:
        yield pool
    except BaseException as error:
        if scheduler == "processes":
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        if isinstance(error, BrokenExecutor):
            raise BevgenError(
                "a worker process was killed, for lack of memory perhaps: finished shards are kept;"
                " run the same command again, with fewer --workers"
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end with it even if it is killed.

    Otherwise a worker could still write to a file that the next run is making.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _whole(job: Job, version: str) -> Any:
    if __version__ != version:  # a worker that joined later
        raise InputError(_one_version("a worker", __version__, version))
    begun = job.begin()
    return job.finish(begun, [job.fill(begun, piece) for piece in job.pieces()])


def _run_on_cluster(
    jobs: Iterable[Job],
    on_done: Callable[[Any], None],
    scheduler: str,
    on_start: Callable[[], None],
    shared_folders: Sequence[Path],
) -> None:
    try:
        from distributed import Client, as_completed
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise InputError(
            "a Dask cluster needs the package distributed: pip install 'bevgen[cluster]'"
        ) from None
    address = _read_address(Path(scheduler)) if scheduler.endswith(".json") else scheduler
    try:
        client: Any = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        _check_workers(client, scheduler, shared_folders)
        on_start()
        waiting = iter(jobs)

        def submit(job: Job) -> Any:
            with _interrupts_wait():
                return client.submit(_whole, job, version=__version__, pure=False)

        # A few jobs ahead of the workers: memory stays flat, and an interrupt has little to undo.
        ahead = 2 * sum(client.nthreads().values())
        running = as_completed([submit(job) for job in islice(waiting, ahead)])
        try:
            with _says_when_alone(client, scheduler, address):
                for future in running:
                    on_done(future.result())
                    for job in islice(waiting, 1):
                        running.add(submit(job))
        except (CancelledError, CommClosedError, ImportError, KilledWorker) as error:
            why = " ".join(str(error).split())
            raise BevgenError(
                f"the Dask cluster at {scheduler} was lost ({why}). Finished shards are kept:"
                " run the same command again when it is back"
            ) from error


@contextmanager
def _says_when_alone(client: Any, scheduler: str, address: str) -> Iterator[None]:
    """Say that a worker is waited for, when the last one has been gone for a while.

    Dask keeps the jobs and gives them to the next worker, and is silent about it.
    """
    ended = threading.Event()

    def watch() -> None:
        since: float | None = None
        said = False
        while not ended.wait(PATIENCE / 10):
            try:
                alone = not client.scheduler_info()["workers"]
            except Exception as error:  # the cluster is lost, which the main thread reports
                logger.debug("the scheduler does not answer: %s", error)
                continue
            now = time.monotonic()
            since = (since or now) if alone else None
            said = said and alone
            if since is not None and not said and now - since >= PATIENCE:
                said = True
                logger.warning(
                    "the Dask cluster at %s has had no worker for %.0f s: waiting for one. Start"
                    " one with `dask worker %s`, or end the run with Ctrl-C: finished shards stay",
                    scheduler,
                    PATIENCE,
                    address,
                )

    # Not waited for at the end: asked of a cluster that is lost, it may hear nothing for long.
    threading.Thread(target=watch, name="bevgen-workers", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait for the end: struck while they are made, Dask's futures print a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if asked:
            signal.raise_signal(signal.SIGINT)


def _read_address(file: Path) -> str:
    try:
        return json.loads(file.read_text("utf-8"))["address"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{file} is not the file of a Dask scheduler ({error}): start one with"
            f" `dask scheduler --scheduler-file {file}`"
        ) from error


def _check_workers(client: Any, scheduler: str, folders: Sequence[Path]) -> None:
    """Try on every worker what would otherwise fail image by image."""
    token = folders[-1] / f".bevgen-{uuid.uuid4().hex}"
    token.touch()
    try:
        found = client.run(_look_around, [*folders, token], on_error="return")
    finally:
        token.unlink(missing_ok=True)
    if not found:
        raise InputError(f"the Dask scheduler at {scheduler} has no workers")
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            raise InputError(
                f"worker {worker} cannot run bevgen ({answer}): install bevgen {__version__} there"
            )
        version, missing = answer
        if version != __version__:
            raise InputError(_one_version(f"worker {worker}", version, __version__))
        if missing:
            raise InputError(
                f"worker {worker} does not see {missing[0]} as this machine does: use folders"
                " of a file system that all machines share, under one path"
            )


def _look_around(paths: Sequence[Path]) -> tuple[str, list[Path]]:
    return __version__, [path for path in paths if not path.exists()]


def _one_version(who: str, theirs: str, ours: str) -> str:
    return f"{who} runs bevgen {theirs}, this is {ours}: install one version everywhere"
