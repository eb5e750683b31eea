"""Jobs on threads, on processes, in line, and on Dask clusters of real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bevgen.conversion.schedule import run, worker_count
from bevgen.errors import BevgenError, InputError
from tests.helpers.runs import (
    HANGS,
    SMALL,
    assert_same_output,
    bevgen,
    copies,
    panoramas,
    shards_of,
    start,
    wait_until,
)

# --- on one machine ---


@dataclass(frozen=True)
class Sum:
    """A job that adds numbers, and keeps a record in a file."""

    name: int
    record: Path
    fails: str = ""

    def note(self, step: str) -> None:
        with self.record.open("a") as file:
            file.write(f"{step} {self.name}\n")
        if step == self.fails:
            if "exit" in str(self.record):
                os._exit(1)
            raise BevgenError(f"{step} of job {self.name}")

    def begin(self) -> int:
        self.note("begin")
        return 100 * self.name

    def pieces(self) -> Sequence[range]:
        return [range(3), range(3, 5)]

    def fill(self, begun: int, piece: range) -> int:
        self.note("fill")
        time.sleep(0.001)
        return sum(begun + k for k in piece)

    def finish(self, begun: int, filled: list[int]) -> tuple[int, list[int]]:
        self.note("finish")
        return begun, filled


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_each_result_is_handed_over_in_this_thread(tmp_path: Path, scheduler: str) -> None:
    results, threads = [], set()

    def on_done(result: Any) -> None:
        results.append(result)
        threads.add(threading.get_ident())

    jobs = [Sum(k, tmp_path / "record") for k in range(5)]
    run(jobs, on_done, scheduler=scheduler, workers=2)
    assert sorted(results) == [(100 * k, [300 * k + 3, 200 * k + 7]) for k in range(5)]
    assert threads == {threading.get_ident()}


def test_runs_side_by_side_do_not_hear_of_each_other(tmp_path: Path) -> None:
    results: dict[int, list[Any]] = {0: [], 1000: []}

    def go(first: int) -> None:
        jobs = [Sum(first + k, tmp_path / str(first)) for k in range(30)]
        run(jobs, results[first].append, scheduler="threads", workers=2)

    threads = [threading.Thread(target=go, args=[first]) for first in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, found in results.items():
        assert sorted(begun for begun, _ in found) == [100 * (first + k) for k in range(30)]


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_few_jobs_are_begun_and_not_finished(tmp_path: Path, scheduler: str) -> None:
    """Each holds memory, and a file of its full size that a kill leaves behind."""
    record = tmp_path / "record"
    run([Sum(k, record) for k in range(60)], lambda result: None, scheduler=scheduler, workers=3)
    begun = most = 0
    for line in record.read_text().splitlines():
        begun += line.startswith("begin") - line.startswith("finish")
        most = max(most, begun)
    assert begun == 0
    assert most <= 6


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
@pytest.mark.parametrize("step", ["begin", "fill", "finish"])
def test_an_error_ends_the_run_early(tmp_path: Path, scheduler: str, step: str) -> None:
    record, ended = tmp_path / "record", []
    jobs = [Sum(k, record, step if k == 30 else "") for k in range(60)]
    with pytest.raises(BevgenError, match=f"{step} of job 30"):
        run(
            jobs, lambda result: None, scheduler=scheduler, workers=2,
            on_early_end=lambda: ended.append(True),
        )  # fmt: skip
    assert ended == [True]
    assert len(record.read_text().splitlines()) < 160  # of 240


def test_a_process_that_is_killed_is_an_error_with_advice(tmp_path: Path) -> None:
    jobs = [Sum(k, tmp_path / "exit", "fill" if k == 3 else "") for k in range(20)]
    with pytest.raises(BevgenError, match=r"worker process was killed.*fewer --workers"):
        run(jobs, lambda result: None, scheduler="processes", workers=2)


def test_workers() -> None:
    assert worker_count("sync", 8) == 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert worker_count("threads", None) == cores
    assert worker_count("processes", 3) == 3
    assert worker_count("tcp://host:8786", None) is None
    assert worker_count("some/where.json", None) is None
    for wrong in ("thread", "host:8786", "", "processes "):
        with pytest.raises(InputError, match="threads, processes, sync, an address such as tcp:"):
            worker_count(wrong, None)
    for scheduler in ("threads", "tcp://host:8786"):
        with pytest.raises(InputError, match="workers must be at least 1, not 0"):
            worker_count(scheduler, 0)
    with pytest.raises(InputError, match="has its own workers"):
        worker_count("tcp://host:8786", 2)


# --- on a cluster ---

WORKER = "from distributed.cli.dask_worker import main; main()"


class Cluster:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.environment = {**os.environ, **environment}
        self.processes: list[subprocess.Popen[bytes]] = []
        code = "from distributed.cli.dask_scheduler import main; main()"
        self.scheduler = self._start([
            sys.executable, "-c", code, "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--no-show", "--scheduler-file", str(self.file),
        ])  # fmt: skip
        self._wait("Scheduler at:")
        self.address = json.loads(self.file.read_text())["address"]

    def worker(self, code: str = "", inside: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start one and wait until it is part of the cluster; ``code`` runs in it first."""
        process = self._start([
            *inside, sys.executable, "-c", code + WORKER, self.address, "--no-nanny",
            "--no-dashboard", "--nthreads", "1", "--host", "127.0.0.1",
            "--local-directory", str(self.folder),
        ])  # fmt: skip
        self._wait("Registered to:")
        return process

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            process.kill()
            process.wait()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        self.log = self.folder / f"log{len(self.processes)}.txt"
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, cwd=Path.cwd()
            )
        self.processes.append(process)
        return process

    def _wait(self, words: str) -> None:
        end = time.monotonic() + HANGS
        while words not in self.log.read_text():
            assert self.processes[-1].poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)


@contextmanager
def a_cluster(folder: Path, workers: int, **environment: str) -> Iterator[Cluster]:
    folder.mkdir()
    cluster = Cluster(folder, **environment)
    try:
        for _ in range(workers):
            cluster.worker()
        yield cluster
    finally:
        cluster.stop(*cluster.processes)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with a_cluster(tmp_path_factory.mktemp("cluster") / "c", 2) as cluster:
        yield cluster


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return panoramas(tmp_path / "in", 24)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.h5"


def test_a_cluster_makes_the_same_files(
    cluster: Cluster, images: Path, out: Path, tmp_path: Path
) -> None:
    (images / "p003.png").write_bytes(b"broken")
    (tmp_path / "here").mkdir()
    words = ("convert", "--in", "in", *SMALL, "--vertical-fov", 60, -60)
    more = ("--shard-size", 5, "--verbose")
    bevgen(*words, "--out", "here/o.h5", *more, cwd=tmp_path, env=importable())
    for scheduler in (cluster.file, cluster.address):
        done = bevgen(
            *words, "--out", "out/o.h5", *more, "--scheduler", scheduler, "--overwrite",
            cwd=tmp_path, env=importable(),
        )  # fmt: skip
        assert "p003.png: skipped: " in done.stderr
        assert "23 stored, 1 skipped" in done.stderr
        assert_same_output(out, tmp_path / "here" / "o.h5")


def importable() -> dict[str, str]:
    """Environment in which bevgen is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path.cwd())}


def test_a_cluster_that_loses_a_worker_makes_the_same_files(
    cluster: Cluster, out: Path, tmp_path: Path
) -> None:
    images = copies(tmp_path / "in", 60)
    words = ("convert", "--in", images, "--size", 700, "--shard-size", 5)
    third = cluster.worker()
    process = start(*words, "--out", out, "--scheduler", cluster.address)
    assert wait_until(lambda: len(shards_of(out)) >= 2, process)
    cluster.stop(third)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    (tmp_path / "here").mkdir()
    bevgen(*words, "--out", tmp_path / "here" / "o.h5")
    assert_same_output(out, tmp_path / "here" / "o.h5")


def test_a_cluster_without_workers_says_what_is_waited_for(out: Path, tmp_path: Path) -> None:
    """Its only worker dies: said once, with a way on and a way out; the next worker goes on."""
    images = copies(tmp_path / "in", 60)
    words = ["convert", "--in", images, "--out", out, "--size", 700, "--shard-size", 5]
    code = (
        "import sys\nfrom bevgen.conversion import schedule\nschedule.PATIENCE = 1.0\n"
        "from bevgen.cli import main\nmain(sys.argv[1:])"
    )
    text = (tmp_path / "log").read_text
    with a_cluster(tmp_path / "cluster", 1) as alone:
        worker = alone.processes[-1]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words), "--scheduler", alone.address],
            stdout=subprocess.PIPE, stderr=(log := (tmp_path / "log").open("w")), text=True,
        )  # fmt: skip
        try:
            assert wait_until(lambda: len(shards_of(out)) >= 1, process)
            alone.stop(worker)
            assert wait_until(lambda: "has had no worker for 1 s: waiting" in text(), process)
            assert f"`dask worker {alone.address}`, or end the run with Ctrl-C" in text()
            alone.worker()
            assert process.wait(HANGS) == 0, text()
        finally:
            process.kill()
            process.communicate()
            log.close()
    assert text().count("has had no worker") == 1


def test_an_interrupted_run_on_a_cluster_can_be_continued(
    cluster: Cluster, out: Path, tmp_path: Path
) -> None:
    images = copies(tmp_path / "in", 80)
    words = ("convert", "--in", images, "--size", 700, "--shard-size", 5)
    process = start(*words, "--out", out, "--scheduler", cluster.file)
    assert wait_until(lambda: len(shards_of(out)) >= 2, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    kept = len(shards_of(out))
    assert 2 <= kept < 16
    bevgen(*shlex.split(stderr.splitlines()[-1])[1:])  # while workers may still be at it
    (tmp_path / "here").mkdir()
    bevgen(*words, "--out", tmp_path / "here" / "o.h5")
    assert_same_output(out, tmp_path / "here" / "o.h5")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import bevgen._version; bevgen._version.__version__ = '0.0.9'; ",
            r"runs bevgen 0\.0\.9, this is .*: install one version everywhere",
        ),
        (
            "import sys; sys.modules['bevgen'] = None; ",
            r"cannot run bevgen \(.*\): install bevgen .* there",
        ),
    ],
    ids=["other version", "none"],
)
def test_workers_with_another_version_are_refused(
    cluster: Cluster, images: Path, out: Path, code: str, reason: str
) -> None:
    worker = cluster.worker(code)
    try:
        done = bevgen(
            "pack", "--in", images, "--out", out, "--kind", "map", "--size", 8,
            "--scheduler", cluster.address, expect=2,
        )  # fmt: skip
    finally:
        cluster.stop(worker)
    message = done.stderr.splitlines()[-1]
    assert message.startswith("Error: worker tcp://127.0.0.1:")
    assert re.search(reason, message), message
    assert not out.with_suffix(".shards").exists()


@pytest.mark.parametrize("hidden", ["in", "out"])
def test_workers_that_do_not_see_the_folders_are_refused(
    cluster: Cluster, images: Path, out: Path, hidden: str
) -> None:
    folder = {"in": images, "out": out.parent}[hidden]
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs none {shlex.quote(str(folder.parent))}"
    if hidden == "out":
        mount = f"mount -t tmpfs none {shlex.quote(str(folder))}"
    if subprocess.run([*inside, "bash", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    worker = cluster.worker(inside=[*inside, "bash", "-c", mount + ' && exec "$@"', "bash"])
    try:
        done = bevgen(
            "pack", "--in", images, "--out", out, "--kind", "map", "--size", 8,
            "--scheduler", cluster.address, expect=2,
        )  # fmt: skip
    finally:
        cluster.stop(worker)
    message = done.stderr.splitlines()[-1]
    assert f"does not see {folder}" in message
    assert "a file system that all machines share" in message
    assert list(out.parent.iterdir()) == []


def test_schedulers_that_cannot_be_used(images: Path, out: Path, tmp_path: Path) -> None:
    words = ("pack", "--in", images, "--out", out, "--kind", "map", "--size", 8, "--scheduler")
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "list.json").write_text("[1]")
    for name in ("missing", "empty", "list"):
        file = tmp_path / f"{name}.json"
        done = bevgen(*words, file, expect=2)
        assert f"{file} is not the file of a Dask scheduler" in done.stderr
        assert f"dask scheduler --scheduler-file {file}" in done.stderr
    done = bevgen(*words, "nonsense://127.0.0.1:1", expect=2)
    assert "no Dask scheduler answers at nonsense://127.0.0.1:1: unknown address" in done.stderr
    done = bevgen(*words, "tcp://127.0.0.1:1", expect=2)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr
    assert list(out.parent.iterdir()) == []


def test_a_cluster_that_is_lost_can_be_continued_without(tmp_path: Path, out: Path) -> None:
    images = copies(tmp_path / "in", 60)
    words = ("convert", "--in", images, "--out", out, "--size", 700, "--shard-size", 5)
    with a_cluster(tmp_path / "c", 0) as cluster:
        done = bevgen(*words, "--scheduler", cluster.file, expect=2)
        assert f"the Dask scheduler at {cluster.file} has no workers" in done.stderr
        cluster.worker()
        process = start(*words, "--scheduler", cluster.file)
        assert wait_until(lambda: len(shards_of(out)) >= 2, process)
        cluster.stop(cluster.scheduler)
        _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    (message,) = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert f"the Dask cluster at {cluster.file} was lost" in message
    assert "Finished shards are kept: run the same command again" in message
    bevgen(*words)
    (tmp_path / "here").mkdir()
    bevgen(*words, "--out", tmp_path / "here" / "o.h5")
    assert_same_output(out, tmp_path / "here" / "o.h5")


def test_a_job_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    once = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "PYTHONPATH": str(Path.cwd())}
    with a_cluster(tmp_path / "c", 2, **once) as cluster:
        script = (
            "import sys; from pathlib import Path; from bevgen.conversion.schedule import run;"
            "from tests.bevgen.test_schedule import Sum\n"
            "jobs = [Sum(k, Path(sys.argv[1]), 'fill' if k == 3 else '') for k in range(5)]\n"
            "try: run(jobs, print, scheduler=sys.argv[2], shared_folders=[Path.cwd()])\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path / "exit", cluster.address],
            capture_output=True, text=True, check=False, timeout=HANGS,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "BevgenError the Dask cluster at tcp://" in done.stdout
    assert "died while running it" in done.stdout
