"""Run jobs by Dask: on threads, processes, in line, or a cluster. The only user of Dask.

A job makes one shard in three steps: begin, fill piece by piece, finish. On one machine the
pieces of a shard run side by side; on a cluster a job stays whole, so that one worker alone
writes its file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bevgen.errors import InputError

LOCAL = ("threads", "processes", "sync")


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
        return 1 if scheduler == "sync" else workers or len(os.sched_getaffinity(0))
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
    on_early_end
        Called when an error or an interrupt ends the run, before it waits for steps under way.
    shared_folders
        Folders that every worker of a cluster must see; in the last one a file is written to try.

    Raises
    ------
    InputError
        If the scheduler cannot be used, does not answer, or a worker of the cluster does not see
        the folders or runs another version.
    """
    count = worker_count(scheduler, workers)
    if count is None:
        _run_on_cluster(jobs, on_done, scheduler, shared_folders)
    else:
        _run_here(jobs, on_done, scheduler, count, on_early_end)


def _run_here(
    jobs: Iterable[Job],
    on_done: Callable[[Any], None],
    scheduler: str,
    workers: int,
    on_early_end: Callable[[], None],
) -> None:
    from dask.base import compute
    from dask.callbacks import Callback
    from dask.delayed import delayed

    finals = []
    for job in jobs:
        begun = delayed(job.begin, pure=False)()
        filled = [delayed(job.fill, pure=False)(begun, piece) for piece in job.pieces()]
        finals.append(delayed(job.finish, pure=False)(begun, filled))
    keys = {final.key for final in finals}

    def posttask(key: Any, value: Any, *_: Any) -> None:
        if key in keys:
            on_done(value)

    with Callback(posttask=posttask), _pool(scheduler, workers) as pool:
        try:
            compute(*finals, scheduler=scheduler, pool=pool, optimize_graph=False)
        except BaseException:
            on_early_end()
            raise


@contextmanager
def _pool(scheduler: str, workers: int) -> Iterator[Executor | None]:
    """Open a pool that an interrupted run leaves without waiting for what has not begun."""
    if scheduler == "sync":
        yield None
        return
    pool = (
        ThreadPoolExecutor(workers, "bevgen")
        if scheduler == "threads"
        else ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent
        )
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _whole(job: Job) -> Any:
    begun = job.begin()
    return job.finish(begun, [job.fill(begun, piece) for piece in job.pieces()])


def _run_on_cluster(
    jobs: Iterable[Job],
    on_done: Callable[[Any], None],
    scheduler: str,
    shared_folders: Sequence[Path],
) -> None:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError(
            "a Dask cluster needs the package distributed: pip install 'bevgen[cluster]'"
        ) from None
    file = scheduler if scheduler.endswith(".json") else None
    try:
        client: Any = Client(None if file else scheduler, scheduler_file=file, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        _check_workers(client, scheduler, shared_folders)
        waiting = iter(jobs)
        running = as_completed()
        # A few jobs ahead of the workers: memory stays flat, and an interrupt has little to undo.
        ahead = 2 * sum(client.nthreads().values())
        for job in waiting:
            running.add(client.submit(_whole, job, pure=False))
            ahead -= 1
            if ahead == 0:
                break
        for future in running:
            on_done(future.result())
            if (job := next(waiting, None)) is not None:
                running.add(client.submit(_whole, job, pure=False))


def _check_workers(client: Any, scheduler: str, folders: Sequence[Path]) -> None:
    """Try on every worker what would otherwise fail image by image."""
    import bevgen

    token = folders[-1] / f".bevgen-{uuid.uuid4().hex}"
    token.touch()
    try:
        found = client.run(_look_around, [*folders, token])
    finally:
        token.unlink(missing_ok=True)
    if not found:
        raise InputError(f"the Dask scheduler at {scheduler} has no workers")
    for worker, (version, missing) in found.items():
        if version != bevgen.__version__:
            raise InputError(
                f"worker {worker} runs bevgen {version or '(none)'}, this is"
                f" {bevgen.__version__}: install one version everywhere"
            )
        if missing:
            raise InputError(
                f"worker {worker} does not see {missing[0]} as this machine does: use folders"
                " of a file system that all machines share, under one path"
            )


def _look_around(paths: Sequence[Path]) -> tuple[str | None, list[Path]]:
    import bevgen

    return bevgen.__version__, [path for path in paths if not path.exists()]
