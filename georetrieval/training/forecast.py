"""What a training run will do and need, told before it starts and without its data."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from georetrieval.config import BranchName, OptimSettings, Settings, Size
from georetrieval.data.dataset import Dataset
from georetrieval.models.branch import Branch
from georetrieval.models.published import obstacle
from georetrieval.training.checks import check_batches, check_sizes, check_turns, input_sizes
from georetrieval.training.loss import InfoNCE
from georetrieval.training.optim import learning_rate
from georetrieval.training.sampling import plan_batches

FLOAT = 4  # bytes of a float32
MEASURED = (2, 4)  # pairs in the batches that memory is extrapolated from
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that training a branch takes on its device, by estimate.

    Attributes
    ----------
    weights, gradients, optimizer
        Of float32 numbers: one for each parameter, one, and AdamW's two.
    pair
        What the step keeps for each further pair of the batch.
    step
        What a step of the whole batch keeps at its peak, gradients left out.
    """

    weights: int
    gradients: int
    optimizer: int
    pair: int
    step: int

    @property
    def total(self) -> int:
        """All of it; the device's own libraries come on top."""
        return self.weights + self.gradients + self.optimizer + self.step


@dataclass(frozen=True, slots=True)
class Forecast:
    """What training a branch will be.

    Attributes
    ----------
    branch, encoder
        Names.
    parameters
        Of the encoder and the scale.
    sizes
        Height and width of ``query`` and ``reference`` in the network.
    batch_size, epochs
        Pairs in a batch; passes over all pairs.
    pairs, steps
        Of the training split, and batches in an epoch; None where nobody said how many.
    rates
        Learning rate at the start of each epoch, and at the end of the last.
    memory
        On one device, for a whole batch.
    obstacle
        Why the weights to start from cannot be had, and what to do; empty where they can.
    """

    branch: BranchName
    encoder: str
    parameters: int
    sizes: dict[str, Size]
    batch_size: int
    epochs: int
    pairs: int | None
    steps: int | None
    rates: list[float]
    memory: Memory
    obstacle: str


def forecast(
    settings: Settings,
    root: Path | None = None,
    *,
    branches: Sequence[BranchName] | None = None,
    pairs: int | None = None,
) -> list[Forecast]:
    """Say what a run will do.

    Parameters
    ----------
    settings
        Of the run. Sizes that they leave open are those of the shards.
    root
        Folder of the data; what is not there is done without. None looks for none.
    branches
        Names; None for all.
    pairs
        Of the training split; None for those of the data or, without data, of the recipe.

    Raises
    ------
    SettingsError
        If the settings cannot be trained, such as a model that cannot take the images.
    DataError
        If there is data that cannot be used.
    """
    dataset = None if root is None else Dataset(settings.data, root)
    return [_forecast(name, settings, dataset, pairs) for name in settings.chosen(branches)]


def _forecast(
    name: BranchName, settings: Settings, dataset: Dataset | None, pairs: int | None
) -> Forecast:
    branch_settings = settings.branches()[name]
    encoder, optim = branch_settings.encoder, branch_settings.optim
    stored, classes = _look(name, dataset)
    sizes = input_sizes(name, settings, stored)
    check_batches(branch_settings, 1)
    check_turns(name, settings, stored)
    branch = Branch(encoder, load=False)
    check_sizes(branch.encoder, name, settings, stored)
    batch = branch_settings.sampling.batch_size
    if pairs is None:
        pairs = settings.data.train_pairs if classes is None else len(classes)
    elif classes is not None and pairs != len(classes):
        classes = None
    steps = None if pairs is None else math.ceil(pairs / batch)
    if classes is not None:
        # A batch holds no reference twice, so there may be more than the pairs fill; drawn as
        # if at random, which may differ by a few from what training draws.
        steps = len(plan_batches(classes, None, batch_size=batch, take=0, seed=settings.seed))
    return Forecast(
        branch=name,
        encoder=encoder.name,
        parameters=sum(p.numel() for p in branch.parameters()),
        sizes=sizes,
        batch_size=batch,
        epochs=optim.epochs,
        pairs=pairs,
        steps=steps,
        rates=[learning_rate(epoch, optim) for epoch in range(optim.epochs + 1)],
        memory=estimate_memory(branch, sizes, batch, getattr(torch, optim.precision)),
        obstacle=obstacle(encoder),
    )


def _look(name: BranchName, dataset: Dataset | None) -> tuple[dict[str, Size], np.ndarray | None]:
    """Return the shards' image sizes and the training pairs' classes, as far as they are there."""
    if dataset is None:
        return {}, None
    stored, pairs = dataset.image_sizes(name), dataset.pairs_path
    if len(stored) < 2 or (pairs is not None and not pairs.exists()):
        return stored, None
    return stored, dataset.pairs(name, dataset.settings.train_split).each().classes()


def sparkline(optim: OptimSettings, width: int = 40) -> str:
    """Draw the learning rate over all epochs in a line of text, each column at its middle."""
    middles = (np.arange(width) + 0.5) / width * optim.epochs
    shares = [learning_rate(moment, optim) / optim.learning_rate for moment in middles]
    return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] for share in shares)


def estimate_memory(
    branch: Branch, sizes: dict[str, Size], batch_size: int, precision: torch.dtype
) -> Memory:
    """Estimate what training takes, from steps carried out on tensors without data.

    Forward, loss and backward run on two small batches of fake tensors, which have shapes but
    hold nothing, while the bytes that live at one time are counted; the peak grows linearly with
    the batch. The operations are those of the CPU: a GPU also keeps workspaces and the library's
    own some hundred MB, and in mixed precision does a few operations, such as layer norms, in
    float32. On ConvNeXt-T its forward pass keeps a tenth more by the same count.

    Parameters
    ----------
    branch
        On the CPU. Its tensors become fake: build another to train.
    sizes
        Height and width of ``query`` and ``reference``.
    batch_size
        Pairs.
    precision
        Of the arithmetic.
    """
    weights = FLOAT * sum(p.numel() for p in branch.parameters())
    with FakeTensorMode():
        _make_fake(branch)
        low, high = (_step_peak(branch.train(), sizes, count, precision) for count in MEASURED)
    pair = (high - low) / (MEASURED[1] - MEASURED[0])
    peak = high + pair * (batch_size - MEASURED[1])
    step = max(round(peak) - weights, 0)
    return Memory(weights, weights, 2 * weights, round(pair), step)


def _make_fake(module: nn.Module) -> None:
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
        for name, value in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty(value.shape, dtype=value.dtype))


def _step_peak(branch: Branch, sizes: dict[str, Size], count: int, precision: torch.dtype) -> int:
    """Return the bytes of gradients and activations that live at one time in a step."""
    images = [torch.empty(count, 3, *sizes[role]) for role in ("query", "reference")]
    branch.zero_grad(set_to_none=True)
    with _Live([*branch.parameters(), *branch.buffers()]) as live:
        live.see(images)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            embedded = branch(*images)
        InfoNCE(label_smoothing=0.1)(*embedded).backward()
    return live.peak


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that live, beyond those that were there before."""

    def __init__(self, before: Sequence[Tensor]) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[Any]] = {}
        self._now = self.peak = 0
        self.see(before)
        self._now = self.peak = 0

    def see(self, tensors: Any) -> None:
        """Count the storages that are new."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._count(storage, storage._cdata, storage.nbytes())

    def _count(self, storage: Any, key: int, size: int) -> None:
        def gone(_: object) -> None:
            del self._known[key]
            self._now -= size

        self._known[key] = weakref.ref(storage, gone)
        self._now += size
        self.peak = max(self.peak, self._now)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.see(result)
        return result
