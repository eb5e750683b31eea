"""The processes that train together, and how they are asked to stop."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist

from georetrieval.errors import GeoretrievalError, SettingsError

MAP_ABOVE, TRIM_ABOVE = -3, -1
"""The options of glibc's ``mallopt``: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD."""
VARIABLES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among all that train together, as torchrun starts them."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


def join_processes(device: str) -> Processes:
    """Join the other processes, if torchrun started this one.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    SettingsError
        If there is no such device, or the environment names the other processes only in part.
    GeoretrievalError
        If the others do not answer.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device must be auto, cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("there is no GPU that torch can use: train with --device cpu")
    started = _started_by_torchrun()
    cuda = device != "cpu" and torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise SettingsError(
            f"process {local} of this machine has no GPU of its own, as there are"
            f" {torch.cuda.device_count()}: start as many processes as GPUs, or use --device cpu"
        )
    here = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(here)
    if not started:
        return Processes(device=here)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=2))
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise GeoretrievalError(f"the other processes cannot be joined: {reason}") from error
        # Threads of the group that outlive Python may end the process with an error.
        atexit.register(_leave_processes)
    return Processes(dist.get_rank(), dist.get_world_size(), here)


def keep_freed_memory() -> None:
    """Have the C library keep what a training step on a CPU frees, for the next step.

    Else its activations, some MB each, are given back, and the system clears every page anew: a
    fifth of a small network's time. Nothing happens where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(MAP_ABOVE, 1 << 30):  # 32 MB is what older ones allow
            mallopt(MAP_ABOVE, 32 << 20)
        mallopt(TRIM_ABOVE, (1 << 31) - 1)


def _started_by_torchrun() -> bool:
    """Tell whether the environment names the other processes, and refuse half of the names."""
    found = {name: os.environ.get(name) for name in VARIABLES}
    if found["WORLD_SIZE"] is None:
        return False
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise SettingsError(
            f"WORLD_SIZE is set in the environment, but {' and '.join(missing)} not: start several"
            " processes with torchrun, which sets them all, or unset WORLD_SIZE"
        )
    for name in ("WORLD_SIZE", "RANK", "MASTER_PORT", "LOCAL_RANK"):
        if not os.environ.get(name, "0").isdecimal():
            raise SettingsError(f"{name} in the environment is {os.environ[name]!r}, no number")
    return True


def _leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class StopRequest:
    """While this context is open, the first Ctrl-C or SIGTERM only asks to stop.

    A second Ctrl-C interrupts at once. Outside of the main thread nothing is caught.

    Attributes
    ----------
    asked : bool
        Whether to stop at the next good moment.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: a handler that is not Python's, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
