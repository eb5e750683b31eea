"""Train a branch: read from top to bottom.

An epoch: choose which pairs share a batch, then for each batch turn, change, embed, compare, step.
Every random number follows from (seed, epoch, step), so that a run that was stopped anywhere
continues as if it had not been.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from georetrieval.config import BranchName, BranchSettings, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import Batch, PairReader, Pairs
from georetrieval.data.neighbours import largest_pool, near_on_map
from georetrieval.errors import CheckpointError, DataError, SettingsError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import digest, load_state, save_branch, save_state
from georetrieval.models.checks import check_batches, check_sizes, check_turns
from georetrieval.retrieval.embedding import embed_rows
from georetrieval.retrieval.metrics import rank_references
from georetrieval.run import Run
from georetrieval.training.loss import InfoNCE
from georetrieval.training.optim import learning_rate, make_optimizer
from georetrieval.training.processes import Processes, StopRequest
from georetrieval.training.sampling import plan_batches, similarity_neighbours
from georetrieval.training.tracking import Tracker
from georetrieval.transforms.augment import augment_pairs
from georetrieval.transforms.network_input import to_network
from georetrieval.transforms.orientation import rotate, unknown_headings

log = logging.getLogger(__name__)

SAVE_SECONDS = 600.0  # what a crash within a long epoch costs at most


@dataclass(slots=True)
class Progress:
    """Where a branch's training stands; all that a resumed run needs besides the weights."""

    epoch: int = 0
    step: int = 0
    members: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    neighbours: NDArray[np.int32] | None = None
    best: float = -1.0

    @property
    def batches(self) -> list[NDArray[np.int64]]:
        """The epoch's batches over all processes; empty between epochs."""
        return np.split(self.members, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else []


class Watcher:
    """Hears how training goes, and does nothing."""

    def branch(self, name: str, settings: BranchSettings, pairs: int) -> None:
        """Hear that a branch begins."""

    def step(self, epoch: float, loss: float, images_per_second: float) -> None:
        """Hear of each step."""

    def evaluated(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear of each evaluation."""


def train(
    settings: Settings,
    root: Path,
    run: Run | Path,
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
    processes = processes or Processes()
    chosen = settings.branches()
    names = list(chosen) if branches is None else branches
    for name in names:
        if name not in chosen:
            raise SettingsError(
                f"the settings have no branch {name!r}; there are {', '.join(chosen)}"
            )
    run = Run.at(run)
    placed = settings.model_copy(
        update={"data": settings.data.model_copy(update={"root": root.absolute()})}
    )
    if processes.first:
        _check_begun(run, resume=resume)
        run.create()
        if not resume:
            run.write_settings(placed)
    tracker = Tracker(run, tensorboard=tensorboard, wandb=wandb) if processes.first else None
    try:
        for name in names:
            job = BranchTraining(
                name, settings, root, run, processes, tracker, watcher or Watcher()
            )
            job.fit(resume=resume)
    finally:
        if tracker is not None:
            tracker.close()
    if processes.first:
        # Again, as a resumed run may have moved its data; not before they were found the same.
        run.write_settings(placed)


def _check_begun(run: Run, *, resume: bool) -> None:
    """Refuse to train over what is there, or to resume what is not."""
    begun = run.states()
    if begun and not resume:
        raise CheckpointError(f"{run} holds a run: add --resume, or name a new folder with --run")
    if not resume and (found := run.checkpoints()):
        first = next(iter(found.values()))
        raise CheckpointError(f"{first} was not trained here: name a new folder with --run")
    if resume and not begun:
        raise CheckpointError(f"{run} holds nothing to resume: leave out --resume")


class BranchTraining:
    """One branch with its data, model and optimizer."""

    def __init__(
        self,
        name: BranchName,
        settings: Settings,
        root: Path,
        run: Run,
        processes: Processes,
        tracker: Tracker | None,
        watcher: Watcher,
    ) -> None:
        self.name: BranchName = name
        self.settings, self.run = settings, run
        self.branch_settings = settings.branches()[name]
        self.processes, self.tracker, self.watcher = processes, tracker, watcher
        data = settings.data
        self.dataset = Dataset(data, root)
        self.queries = self.dataset.shards(name)
        self.references = self.dataset.shards("reference")
        self.pairs = self.dataset.pairs(name, data.train_split).each()
        self.validation = self.dataset.pairs(name, data.validation_split)
        if shared := len(set(self.pairs.ids) & set(self.validation.ids)):
            log.warning("%d validation queries are trained on: their recall says little", shared)
        stored = self.dataset.image_sizes(name)
        check_batches(self.branch_settings, processes.count)
        check_turns(name, settings, stored)

        torch.manual_seed(settings.seed)
        # The others receive the first process's weights.
        self.branch = Branch(self.branch_settings.encoder, load=processes.first)
        check_sizes(self.branch.encoder, name, settings, stored)
        self.branch.to(processes.device)
        if self.branch_settings.encoder.channels_last:
            self.branch = self.branch.to(memory_format=torch.channels_last)
        self.model: nn.Module = self.branch
        if processes.count > 1:
            ids = [processes.device] if processes.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(self.branch, device_ids=ids)
        if self.branch_settings.encoder.compile:
            self.model = torch.compile(self.model)  # pyright: ignore[reportAttributeAccessIssue]
        optim = self.branch_settings.optim
        self.optimizer = make_optimizer(self.branch, optim)
        self.precision: torch.dtype = getattr(torch, optim.precision)
        self.scaler = torch.amp.GradScaler(
            processes.device.type, enabled=self.precision == torch.float16
        )
        self.loss = InfoNCE(
            label_smoothing=optim.label_smoothing,
            rank=processes.rank,
            world_size=processes.count,
        )
        self.progress = Progress()
        self.stop = StopRequest()
        self.saved = time.monotonic()

    def fit(self, *, resume: bool) -> None:
        """Train to the last epoch; saved are the ends of epochs, long stretches, interrupts."""
        optim, progress = self.branch_settings.optim, self.progress
        if resume:
            progress = self.progress = self._load_state()
        if self.processes.first:
            self.watcher.branch(self.name, self.branch_settings, len(self.pairs))
        with self.stop:
            while progress.epoch < optim.epochs:
                if not progress.batches:
                    self._plan_epoch()
                self._train_epoch()
                done = progress.epoch + 1
                if done % self.settings.evaluate_every == 0 or done == optim.epochs:
                    self._evaluate(done)
                progress.epoch, progress.step = done, 0
                progress.sizes = np.empty(0, np.int64)
                self._save_state()
                self._between_updates()

    def _plan_epoch(self) -> None:
        """Choose the epoch's batches: near on the map at first, alike in the embedding later."""
        progress = self.progress
        plan = [self._batches() if self.processes.first else []]
        if self.processes.count > 1:
            # One plan for all: embeddings, and so neighbours, may differ between processes.
            dist.broadcast_object_list(plan, device=self.processes.device)
        if not plan[0]:
            raise DataError(
                f"{len(self.pairs)} pairs make no batch: their references must be at least"
                f" {max(2, self.processes.count)}"
            )
        progress.members = np.concatenate(plan[0])
        progress.sizes = np.array([len(batch) for batch in plan[0]])

    def _batches(self) -> list[NDArray[np.int64]]:
        sampling, progress = self.branch_settings.sampling, self.progress
        if sampling.mine_every and progress.epoch and not progress.epoch % sampling.mine_every:
            progress.neighbours = self._mine(sampling.pool)
        elif sampling.geographic and not progress.epoch:
            near = near_on_map(self.dataset, self.pairs, largest_pool(self.settings))
            progress.neighbours = None if near is None else near[:, : sampling.pool].copy()
        return plan_batches(
            self.pairs.classes(),
            progress.neighbours,
            batch_size=sampling.batch_size,
            take=sampling.take,
            seed=_seed(self.settings.seed, progress.epoch),
            multiple=self.processes.count,
        )

    def _train_epoch(self) -> None:
        progress, optim = self.progress, self.branch_settings.optim
        batches = progress.batches
        mine = [np.array_split(b, self.processes.count)[self.processes.rank] for b in batches]
        reader = PairReader(
            self.queries, self.references, self.pairs, threads=self.settings.loader_threads
        )
        self.model.train()
        clock = time.perf_counter()
        for batch in reader.read(mine[progress.step :]):
            moment = progress.epoch + progress.step / len(batches)
            rate = learning_rate(moment, optim)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            done = progress.step + 1
            update = done == len(batches) or done % optim.accumulate == 0
            loss = self._step(batch, update=update)
            progress.step = done
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            if self.processes.first:
                speed = 2 * len(batch.pairs) * self.processes.count / seconds
                self.watcher.step(moment, loss, speed)
                if self.tracker is not None:
                    self.tracker.log(
                        self.name,
                        moment,
                        loss=loss,
                        learning_rate=rate,
                        scale=self.branch.logit_scale.exp().item(),
                        images_per_second=round(speed, 1),
                    )
            if update:
                self._between_updates()

    def _step(self, batch: Batch, *, update: bool) -> float:
        """Learn from one batch: turn and change the views, embed, compare, step."""
        encoder, optim = self.branch_settings.encoder, self.branch_settings.optim
        device = self.processes.device
        seed = _seed(
            self.settings.seed, self.progress.epoch, self.progress.step, self.processes.rank
        )
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # for layers that drop out
        query = to_network(batch.query, encoder.query_size, device)
        reference = to_network(batch.reference, encoder.reference_size, device)
        if self.settings.data.heading == "unknown":
            query = rotate(query, torch.rand(len(query), generator=generator) * 360, self.name)
        query, reference = augment_pairs(
            query,
            reference,
            self.name,
            self.branch_settings.augment,
            generator,
            fov=self.settings.data.fov,
        )
        if encoder.channels_last:
            query = query.contiguous(memory_format=torch.channels_last)
            reference = reference.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            embedded = self.model(query, reference)
        loss = self.loss(*embedded)  # in float32: bfloat16 would round scores to half a per cent
        # Each process holds the loss of the whole batch; gathering sums its gradient over the
        # processes, and DDP's mean makes up for that.
        self.scaler.scale(loss / optim.accumulate).backward()
        value = loss.item()
        if not math.isfinite(value):
            raise DataError(
                f"the loss of branch {self.name} became {value} in epoch {self.progress.epoch}:"
                " lower the learning rate or use precision float32"
            )
        if update:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_value_(self.branch.parameters(), optim.clip_value)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                self.branch.logit_scale.clamp_(0, math.log(100))
        return value

    def _embed(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed a split's queries, and its gallery."""
        encoder, device = self.branch_settings.encoder, self.processes.device
        options: dict[str, Any] = {
            "device": device,
            "precision": self.precision,
            "threads": self.settings.loader_threads,
            "on_progress": lambda _: self._stop_if(self.stop.asked),
        }
        degrees = None
        if self.settings.data.heading == "unknown":
            degrees = unknown_headings(len(pairs), self.settings.seed)
        queries = embed_rows(
            self.branch.encoder,
            self.queries,
            pairs.queries,
            encoder.query_size,
            kind=self.name,
            degrees=degrees,
            fov=self.settings.data.fov,
            **options,
        )
        gallery = embed_rows(
            self.branch.encoder, self.references, pairs.gallery, encoder.reference_size, **options
        )
        return queries, gallery

    def _mine(self, pool: int) -> NDArray[np.int32]:
        """Find pairs that the current model confuses (dynamic similarity sampling)."""
        trained = np.unique(self.pairs.references)  # the rest of the gallery is not asked for
        queries, gallery = self._embed(replace(self.pairs, gallery=trained))
        own = np.searchsorted(trained, self.pairs.references)
        return similarity_neighbours(queries, gallery[torch.from_numpy(own)], pool)

    def _evaluate(self, epoch: int) -> None:
        """Rank the validation split after some epochs, and keep the weights that did best."""
        if self.processes.first:
            queries, gallery = self._embed(self.validation)
            right = self.validation
            positive = np.searchsorted(right.gallery, right.references)
            others = [np.searchsorted(right.gallery, rows) for rows in right.others]
            rank = rank_references(queries, gallery, positive, others=others).rank
            figures = {f"R@{k}": round(100 * float((rank < k).mean()), 3) for k in (1, 5, 10)}
            # The mean reciprocal rank tells apart what R@1 calls equal.
            score = float((1 / (rank + 1.0)).mean())
            self.watcher.evaluated(epoch, figures)
            if self.tracker is not None:
                self.tracker.log(self.name, epoch, **figures, mrr=round(score, 5))
            if score > self.progress.best:
                self.progress.best = score
                path = self.run.checkpoint(self.name)
                save_branch(path, self.branch, self.branch_settings.encoder, self.name)
        if self.processes.count > 1:
            dist.barrier()

    def _between_updates(self) -> None:
        """Save now and then, and stop if a process was asked to."""
        asked = self.stop.asked
        if self.processes.count > 1:
            flag = torch.tensor(float(asked), device=self.processes.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            asked = bool(flag)
        self._stop_if(asked)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save_state()

    def _stop_if(self, asked: bool) -> None:
        if asked:
            self._save_state()
            raise KeyboardInterrupt

    def _save_state(self) -> None:
        self.saved = time.monotonic()
        if not self.processes.first:
            return
        progress = self.progress
        near = progress.neighbours
        state = {
            "settings": self._digest(),
            "processes": self.processes.count,
            "model": self.branch.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": progress.epoch,
            "step": progress.step,
            "best": progress.best,
            "members": torch.from_numpy(progress.members),
            "sizes": torch.from_numpy(progress.sizes),
            "neighbours": None if near is None else torch.from_numpy(near),
        }
        save_state(self.run.state(self.name), state)

    def _digest(self) -> str:
        """Return a digest of all that decides what a run does, but for where its files lie."""
        data = self.settings.data
        return digest(
            self.branch_settings.model_dump(mode="json"),
            [data.heading, data.fov, self.settings.seed, self.settings.evaluate_every],
            [self.queries.plan, self.queries.settings],
            [self.references.plan, self.references.settings],
            [self.pairs.ids, self.pairs.references.tolist(), self.validation.ids],
        )

    def _load_state(self) -> Progress:
        """Continue from the saved state; a branch that had not begun starts anew."""
        path = self.run.state(self.name)
        states = [load_state(path) if self.processes.first and path.exists() else None]
        if self.processes.count > 1:
            dist.broadcast_object_list(states, device=self.processes.device)
        state = states[0]
        if state is None:
            return Progress()
        if state["settings"] != self._digest():
            raise CheckpointError(
                f"{path} was made with other settings or data: resume with the same, or name a new"
                " --run"
            )
        if state["processes"] != self.processes.count:
            raise CheckpointError(
                f"{path} was made by {state['processes']} processes: resume with as many"
            )
        self.branch.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        near = state["neighbours"]
        return Progress(
            epoch=state["epoch"],
            step=state["step"],
            members=state["members"].numpy(),
            sizes=state["sizes"].numpy(),
            neighbours=None if near is None else near.numpy(),
            best=state["best"],
        )


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
