"""What one of several processes does in the tests of training with several."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from georetrieval.config import Settings
from georetrieval.data.loading import PairReader
from georetrieval.training.loop import BranchTraining, Watcher, train
from georetrieval.training.processes import Processes


def first_gradients(
    settings: Settings, root: Path, run: Path, processes: Processes, batches: int
) -> dict[str, Any]:
    """Return the gradients that some batches leave, and their losses."""
    torch.set_num_threads(1)
    job = BranchTraining("bev", settings, root, run, processes, None, Watcher())
    job._plan_epoch()
    job.model.train()
    parts = [
        torch.from_numpy(batch).chunk(processes.count)[processes.rank].numpy()
        for batch in job.progress.batches[:batches]
    ]
    losses = []
    for batch in PairReader(job.queries, job.references, job.pairs).read(parts):
        losses.append(job._step(batch, update=False))
        job.progress.step += 1
    found = {name: p.grad for name, p in job.branch.named_parameters() if p.grad is not None}
    return {"gradients": found, "losses": losses}


class Interrupting(Watcher):
    """Sends Ctrl-C after the first process's fourth step."""

    steps = 0

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        self.steps += 1
        if self.steps == 4:
            os.kill(os.getpid(), signal.SIGINT)


def work(
    rank: int, count: int, models: list[Settings], whole: Settings, root: Path, folder: Path
) -> None:
    """Do one process's part; the rendezvous is a file.

    Each process leaves RANK.pt with the gradients of each model, then trains whole, and once
    more with an interruption.
    """
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=count
    )
    processes = Processes(rank, count)
    found = [first_gradients(model, root, folder, processes, 2) for model in models]
    torch.save(found, folder / f"{rank}.pt")
    train(whole, root, folder / "whole", processes=processes)
    try:
        train(whole, root, folder / "cut", processes=processes, watcher=Interrupting())
    except KeyboardInterrupt:
        (folder / f"{rank}.interrupted").touch()
    train(whole, root, folder / "cut", processes=processes, resume=True)
    dist.destroy_process_group()
