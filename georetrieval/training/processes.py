"""The processes that train together, and how they are asked to stop."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist

from georetrieval.errors import SettingsError


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
        If there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device must be auto, cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("there is no GPU that torch can use: train with --device cpu")
    cuda = device != "cpu" and torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(here)
    if "WORLD_SIZE" not in os.environ:
        return Processes(device=here)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=2))
        # Threads of the group that outlive Python may end the process with an error.
        atexit.register(_leave_processes)
    return Processes(dist.get_rank(), dist.get_world_size(), here)


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
