"""What one of several processes does in the tests of training with several."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from georetrieval.config import Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import PairReader
from georetrieval.run import Run
from georetrieval.training.loop import learn, plan_epoch, train
from georetrieval.training.loss import InfoNCE
from georetrieval.training.processes import Processes, StopRequest
from georetrieval.training.setup import Setup
from georetrieval.training.state import State
from georetrieval.training.tracking import Watcher


def first_gradients(
    settings: Settings, root: Path, run: Path, processes: Processes, batches: int
) -> dict[str, Any]:
    """Return the gradients that some batches leave, and their losses."""
    torch.set_num_threads(1)
    setup = Setup.prepare("bev", settings, Dataset(settings.data, root), Run(run), processes)
    state = State.begin(setup)
    state.batches = plan_epoch(setup, state, StopRequest())
    state.model.train()
    compare = InfoNCE(
        label_smoothing=settings.branches()["bev"].optim.label_smoothing,
        rank=processes.rank,
        world_size=processes.count,
    )
    parts = [
        torch.from_numpy(batch).chunk(processes.count)[processes.rank].numpy()
        for batch in state.batches[:batches]
    ]
    queries, references = (setup.dataset.shards(key) for key in ("bev", "reference"))
    losses = []
    for batch in PairReader(queries, references, setup.pairs).read(parts):
        losses.append(learn(setup, state, batch, compare))
        state.step += 1
    found = {name: p.grad for name, p in state.branch.named_parameters() if p.grad is not None}
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
