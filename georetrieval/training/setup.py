"""What training a branch is given, and never changes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Self

import torch

from bevgen.terminal import counted
from georetrieval.config import BranchName, BranchSettings, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.pairs import Pairs
from georetrieval.models.checkpoints import digest
from georetrieval.run import Run
from georetrieval.training.checks import check_batches, check_turns
from georetrieval.training.processes import Processes

log = logging.getLogger(__name__)


LATER = (("encoder", "round_queries", False), ("augment", "rotated_negatives", 0))
"""Settings that were added to format 1, and what they were before."""


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """A branch, its data, and where its results go.

    Attributes
    ----------
    name
        Of the branch.
    settings
        Of the whole run.
    dataset
        Its shards, open.
    pairs
        To train on: one for each right reference of each query.
    validation
        The split that chooses the weights that are kept.
    run
        The files to write.
    processes
        This process, among all that train together.
    """

    name: BranchName
    settings: Settings
    dataset: Dataset
    pairs: Pairs
    validation: Pairs
    run: Run
    processes: Processes

    @classmethod
    def prepare(
        cls, name: BranchName, settings: Settings, dataset: Dataset, run: Run, processes: Processes
    ) -> Self:
        """Open and join the data.

        Raises
        ------
        GeoretrievalError
            If data or settings cannot be trained.
        """
        pairs = dataset.pairs(name, settings.data.train_split).each()
        validation = dataset.pairs(name, settings.data.validation_split)
        if shared := len(set(pairs.ids) & set(validation.ids)):
            log.warning(
                "%s trained on: their recall says little",
                counted(shared, "validation query is", "validation queries are"),
            )
        check_batches(settings.branches()[name], processes.count)
        check_turns(name, settings, dataset.image_sizes(name))
        return cls(name, settings, dataset, pairs, validation, run, processes)

    @property
    def branch(self) -> BranchSettings:
        """The branch's own settings."""
        return self.settings.branches()[self.name]

    @property
    def precision(self) -> torch.dtype:
        """In which the encoder computes."""
        return getattr(torch, self.branch.optim.precision)

    def digest(self) -> str:
        """Return a digest of all that decides what a run does, but for where its files lie."""
        data, branch = self.settings.data, self.branch.model_dump(mode="json")
        for part, name, usual in LATER:
            if branch[part][name] == usual:
                del branch[part][name]  # a run that was begun before there was the setting goes on
        queries, references = self.dataset.shards(self.name), self.dataset.shards("reference")
        return digest(
            branch,
            [data.heading, data.fov, self.settings.seed, self.settings.evaluate_every],
            [queries.plan, queries.settings],
            [references.plan, references.settings],
            [self.pairs.ids, self.pairs.references.tolist(), self.validation.ids],
        )

    def changes(self) -> str:
        """Name what is other than in the run's settings; where nothing is, it must be the data."""
        old, new = (_decisive(s, self.name) for s in (self.run.read_settings(), self.settings))
        named = [f"{key}: {old.get(key)} before" for key in new if old.get(key) != new[key]]
        return f"settings ({', '.join(named)})" if named else "data"


def _decisive(settings: Settings, name: BranchName) -> dict[str, Any]:
    """Return by its key each setting that decides what training a branch does."""
    data = settings.data
    values: dict[str, Any] = {
        "seed": settings.seed,
        "evaluate_every": settings.evaluate_every,
        "data.heading": data.heading,
        "data.fov": data.fov,
    }
    branch = settings.branches().get(name)
    for part, fields in ({} if branch is None else branch.model_dump(mode="json")).items():
        values |= {f"{name}.{part}.{key}": value for key, value in fields.items()}
    return values
