"""Train a branch: read from top to bottom.

An epoch: choose which pairs share a batch, then for each batch change the images, embed, compare,
step. Every random number follows from (seed, epoch, step), so that a run that was stopped anywhere
continues as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from bevgen.terminal import counted
from georetrieval.config import BranchName, OptimSettings, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import Batch, PairReader
from georetrieval.data.neighbours import largest_pool, near_on_map
from georetrieval.data.pairs import Pairs
from georetrieval.errors import CheckpointError, DataError
from georetrieval.models.checkpoints import save_branch
from georetrieval.retrieval.embedding import embed_rows
from georetrieval.retrieval.ranking import rank_references
from georetrieval.run import Run
from georetrieval.training.loss import InfoNCE
from georetrieval.training.optim import learning_rate
from georetrieval.training.processes import Processes, StopRequest, keep_freed_memory
from georetrieval.training.sampling import plan_batches, similarity_neighbours
from georetrieval.training.setup import Setup
from georetrieval.training.state import State
from georetrieval.training.tracking import Tracker, Watcher
from georetrieval.transforms.augment import augment_pairs
from georetrieval.transforms.network_input import to_network
from georetrieval.transforms.orientation import cut_circle, other_headings, rotate, unknown_headings

SAVE_SECONDS = 600.0  # what a crash within a long epoch costs at most


def train(
    settings: Settings,
    root: Path | str,
    run: Run | Path | str,
    *,
    branches: Sequence[BranchName] | None = None,
    resume: bool = False,
    processes: Processes | None = None,
    tensorboard: bool = False,
    wandb: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Train the branches one after another, as the paper does.

    Parameters
    ----------
    settings
        What to train.
    root
        Folder that the data paths are relative to.
    run
        Folder to write; see `georetrieval.run`.
    branches
        Names of those to train; None for all that the settings have.
    resume
        Continue where the run in the folder stopped.
    processes
        From `join_processes`.
    tensorboard, wandb
        See `Tracker`.
    watcher
        Hears of progress.

    Raises
    ------
    GeoretrievalError
        If settings, data or checkpoints cannot be used, or the run exists and is not resumed.
    KeyboardInterrupt
        If interrupted by Ctrl-C or SIGTERM; the state is saved first.
    """
    run, processes, watcher = Run.at(run), processes or Processes(), watcher or Watcher()
    root = Path(root)
    if processes.device.type == "cpu":
        keep_freed_memory()
    chosen = settings.chosen(branches)
    placed = settings.data.model_copy(update={"root": root.absolute()})
    placed = settings.model_copy(update={"data": placed})
    with run.only_writer() if processes.first else nullcontext():
        if processes.first:
            check_begun(run, resume=resume)
            if not resume:
                run.write_settings(placed)
        tracker = Tracker(run, tensorboard=tensorboard, wandb=wandb) if processes.first else None
        try:
            for name in chosen:
                with Dataset(settings.data, root) as dataset:
                    setup = Setup.prepare(name, settings, dataset, run, processes)
                    begun = resume and run.state(name).exists()
                    state = State.begin(setup, load=not begun)
                    if resume:
                        state.restore(setup)
                    if not begun:
                        state.save(setup)  # what is written from now on can be continued
                    fit(setup, state, watcher, tracker)
        finally:
            if tracker is not None:
                tracker.close()
        if processes.first:
            # Again, as a resumed run may have moved its data; not before they were found the same.
            run.write_settings(_keep_others(run, placed, chosen))


def _keep_others(run: Run, settings: Settings, trained: Iterable[BranchName]) -> Settings:
    """Leave the run's other branches the settings that they were trained by."""
    others = run.states().keys() - set(trained)
    if not others or not run.settings_path.exists():
        return settings
    before = run.read_settings()
    return settings.model_copy(update={name: getattr(before, name) for name in others})


def check_begun(run: Run, *, resume: bool) -> None:
    """Refuse to train over what is there, or to resume what is not."""
    begun = run.states()
    if begun and not resume:
        raise CheckpointError(f"{run} holds a run: add --resume, or name a new folder with --run")
    if not resume and (found := run.checkpoints()):
        first = next(iter(found.values()))
        raise CheckpointError(
            f"{first} has no state to continue from, as it was imported or its training was cut"
            f" off: name a new folder with --run, where encoder.pretrained = {str(first)!r} starts"
            " from it, or delete it"
        )
    if resume and not begun:
        raise CheckpointError(f"{run} holds nothing to resume: leave out --resume")


def fit(setup: Setup, state: State, watcher: Watcher, tracker: Tracker | None) -> None:
    """Train a branch from its state to its last epoch.

    The state is saved at the end of each epoch, now and then within long ones, and when asked to
    stop. The best weights on the validation split are written whenever there are better ones.
    """
    optim, processes, dataset = setup.branch.optim, setup.processes, setup.dataset
    queries, references = dataset.shards(setup.name), dataset.shards("reference")
    reader = PairReader(queries, references, setup.pairs, threads=setup.settings.loader_threads)
    compare = InfoNCE(
        label_smoothing=optim.label_smoothing, rank=processes.rank, world_size=processes.count
    )
    if processes.first:
        watcher.branch(setup.name, setup.branch, len(setup.pairs))
    with StopRequest() as stop:
        while state.epoch < optim.epochs:
            if not state.batches:
                state.batches = plan_epoch(setup, state, stop)
            shares = [np.array_split(b, processes.count)[processes.rank] for b in state.batches]
            state.model.train()
            clock = time.perf_counter()
            for batch in reader.read(shares[state.step :]):
                moment = state.epoch + state.step / len(shares)
                rate = learning_rate(moment, optim)
                loss = learn(setup, state, batch, compare)
                state.step += 1
                summed = state.step == len(shares) or state.step % optim.accumulate == 0
                if summed:
                    update(state, rate, optim)
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                if processes.first:
                    speed = 2 * len(batch.pairs) * processes.count / seconds
                    watcher.step(moment, loss, speed)
                    if tracker is not None:
                        tracker.step(setup.name, moment, loss, rate, state.branch.scale, speed)
                if summed:
                    save_or_stop(setup, state, stop)
            done = state.epoch + 1
            if done % setup.settings.evaluate_every == 0 or done == optim.epochs:
                validate(setup, state, stop, watcher, tracker)
            state.end_epoch()
            state.save(setup)
            save_or_stop(setup, state, stop)


def plan_epoch(setup: Setup, state: State, stop: StopRequest) -> list[NDArray[np.int64]]:
    """Choose the epoch's batches: near on the map at first, alike in the embedding later.

    Returns
    -------
    list of (n,) int64
        Pairs, the same in all processes: their embeddings, and so the neighbours, may differ.
    """
    sampling, processes = setup.branch.sampling, setup.processes
    plan: list[list[NDArray[np.int64]]] = [[]]
    if processes.first:
        if sampling.mine_every and state.epoch and not state.epoch % sampling.mine_every:
            state.neighbours = mine(setup, state, stop)
        elif sampling.geographic and not state.epoch:
            near = near_on_map(setup.dataset, setup.pairs, largest_pool(setup.settings))
            state.neighbours = None if near is None else near[:, : sampling.pool].copy()
        plan[0] = plan_batches(
            setup.pairs.classes(),
            state.neighbours,
            batch_size=sampling.batch_size,
            take=sampling.take,
            seed=seed(setup.settings.seed, state.epoch),
            multiple=processes.count,
        )
    if processes.count > 1:
        dist.broadcast_object_list(plan, device=processes.device)
    if not plan[0]:
        raise DataError(
            counted(len(setup.pairs), "pair makes", "pairs make")
            + f" no batch: there must be {max(2, processes.count)} references or more"
        )
    return plan[0]


def learn(setup: Setup, state: State, batch: Batch, compare: InfoNCE) -> float:
    """Add a batch's gradients to those of the step: change the images, embed them, compare.

    Returns
    -------
    float
        The loss over all processes.

    Raises
    ------
    DataError
        If it is not finite.
    """
    device, optim = setup.processes.device, setup.branch.optim
    number = seed(setup.settings.seed, state.epoch, state.step, setup.processes.rank)
    torch.manual_seed(number)  # for layers that drop out
    query, reference = augmented(setup, batch, torch.Generator().manual_seed(number))
    mixed = setup.precision != torch.float32
    with torch.autocast(device.type, setup.precision, enabled=mixed):
        embedded = state.model(query, reference)
    loss = compare(*embedded)  # in float32: bfloat16 would round scores to half a per cent
    # Each process holds the loss of the whole batch; gathering sums its gradient over the
    # processes, and DDP's mean makes up for that.
    state.scaler.scale(loss / optim.accumulate).backward()
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(
            f"the loss of branch {setup.name} became {value} in epoch {state.epoch}:"
            " lower the learning rate or use precision float32"
        )
    return value


def augmented(setup: Setup, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a batch's (n, 3, H, W) queries and references as the network sees them.

    With rotated negatives there are more queries: their copies at other headings follow.
    """
    data, encoder, device = setup.settings.data, setup.branch.encoder, setup.processes.device
    query = to_network(batch.query, encoder.query_size, device)
    reference = to_network(batch.reference, encoder.reference_size, device)
    if data.heading == "unknown":
        query = rotate(query, torch.rand(len(query), generator=generator) * 360, setup.name)
    query, reference = augment_pairs(
        query, reference, setup.name, setup.branch.augment, generator, fov=data.fov
    )
    if copies := setup.branch.augment.rotated_negatives:
        decoys = other_headings(query, copies, setup.name, generator)
        query = torch.cat([query, decoys])
    if encoder.round_queries and setup.name == "bev":
        query = cut_circle(query)
    if encoder.channels_last:
        query = query.contiguous(memory_format=torch.channels_last)
        reference = reference.contiguous(memory_format=torch.channels_last)
    return query, reference


def update(state: State, rate: float, optim: OptimSettings) -> None:
    """Step by the gradients that were summed, each cut to a magnitude."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_value_(state.branch.parameters(), optim.clip_value)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        state.branch.logit_scale.clamp_(0, math.log(100))


def mine(setup: Setup, state: State, stop: StopRequest) -> NDArray[np.int32]:
    """Find pairs that the current model confuses (dynamic similarity sampling)."""
    trained = np.unique(setup.pairs.references)  # the rest of the gallery is not asked for
    queries, gallery = embed(setup, state, replace(setup.pairs, gallery=trained), stop)
    own = np.searchsorted(trained, setup.pairs.references)
    pool = setup.branch.sampling.pool
    return similarity_neighbours(queries, gallery[torch.from_numpy(own)], pool)


def validate(
    setup: Setup, state: State, stop: StopRequest, watcher: Watcher, tracker: Tracker | None
) -> None:
    """Rank the validation split after an epoch, and keep the weights that did best."""
    if setup.processes.first:
        split, epoch = setup.validation, state.epoch + 1
        queries, gallery = embed(setup, state, split, stop)
        positive = np.searchsorted(split.gallery, split.references)
        others = [np.searchsorted(split.gallery, rows) for rows in split.others]
        rank = rank_references(queries, gallery, positive, others=others).rank
        figures = {f"R@{k}": round(100 * float((rank < k).mean()), 3) for k in (1, 5, 10)}
        # The mean reciprocal rank tells apart what R@1 calls equal.
        score = float((1 / (rank + 1.0)).mean())
        watcher.evaluated(epoch, figures)
        if tracker is not None:
            tracker.log(setup.name, epoch, **figures, mrr=round(score, 5))
        if score > state.best:
            state.best = score
            path = setup.run.checkpoint(setup.name)
            save_branch(path, state.branch, setup.branch.encoder, setup.name)
    if setup.processes.count > 1:
        dist.barrier()


def embed(setup: Setup, state: State, split: Pairs, stop: StopRequest) -> tuple[Tensor, Tensor]:
    """Embed a split's queries and its gallery by the current weights."""

    def heed(_: int) -> None:
        if stop.asked:
            interrupt(setup, state)

    data, encoder, dataset = setup.settings.data, setup.branch.encoder, setup.dataset
    options: dict[str, Any] = {
        "device": setup.processes.device,
        "precision": setup.precision,
        "threads": setup.settings.loader_threads,
        "on_progress": heed,
    }
    unknown = data.heading == "unknown"
    queries = embed_rows(
        state.branch.encoder,
        dataset.shards(setup.name),
        split.queries,
        encoder.query_size,
        kind=setup.name,
        degrees=unknown_headings(len(split), setup.settings.seed) if unknown else None,
        fov=data.fov,
        **options,
    )
    references, size = dataset.shards("reference"), encoder.reference_size
    return queries, embed_rows(state.branch.encoder, references, split.gallery, size, **options)


def save_or_stop(setup: Setup, state: State, stop: StopRequest) -> None:
    """Save now and then, and stop if any of the processes was asked to."""
    asked = stop.asked
    if setup.processes.count > 1:
        flag = torch.tensor(float(asked), device=setup.processes.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        asked = bool(flag)
    if asked:
        interrupt(setup, state)
    if time.monotonic() - state.saved > SAVE_SECONDS:
        state.save(setup)


def interrupt(setup: Setup, state: State) -> None:
    """Save and stop."""
    state.save(setup)
    raise KeyboardInterrupt


def seed(*parts: int) -> int:
    """Return a number that follows from others, for the generators of one step."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
