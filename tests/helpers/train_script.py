"""Trains in a process of its own, as a user's terminal or torchrun would start it.

Usage: python -m tests.helpers.train_script SETTINGS.json WORLD RUN [resume] [SECONDS]

Prints a line for each step, and waits SECONDS after it, so that a test can strike at one.
"""

import json
import sys
import time
from pathlib import Path

import torch

from georetrieval.config import Settings
from georetrieval.training.loop import train
from georetrieval.training.processes import join_processes
from georetrieval.training.tracking import Watcher

torch.set_num_threads(1)


class Slow(Watcher):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        sys.stdout.write(f"step {epoch} {loss}\n")
        sys.stdout.flush()
        time.sleep(self.seconds)


def main(settings: str, root: str, run: str, *options: str) -> None:
    seconds = [float(option) for option in options if option != "resume"]
    try:
        train(
            Settings.model_validate(json.loads(Path(settings).read_text("utf-8"))),
            Path(root),
            Path(run),
            resume="resume" in options,
            processes=join_processes("cpu"),
            watcher=Slow(seconds[0] if seconds else 0.0),
        )
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
