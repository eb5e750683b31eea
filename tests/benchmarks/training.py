"""Row 14: steps of training fed from shards, from the device's memory, and from JPEG files.

With ``--device cuda`` the published recipe (ConvNeXt-B at 384 pixels, bfloat16; 128 pairs where
they fit the memory, else 96); on the CPU a small model, fast enough that a slow loader would show.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ShardSet
from georetrieval.config import Settings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import Batch, PairReader, read_ahead
from georetrieval.run import Run
from georetrieval.training.processes import Processes
from tests.benchmarks.frame import Contest, Row, Setup, Way
from tests.benchmarks.loading import bevs


def settings(stored: Path, setup: Setup) -> Settings:
    cuda = setup.device == "cuda"
    roomy = cuda and torch.cuda.mem_get_info()[1] > 95e9
    encoder = {"pretrained": False}
    if not cuda:
        encoder |= {"name": "test_convnext2", "channels_last": False}
    return Settings.model_validate(
        {
            "data": {"bev": stored, "reference": stored, "pairs": False, "any_modality": True},
            "panorama": False,
            "bev": {
                "encoder": encoder,
                "sampling": {"batch_size": setup.pick(128 if roomy else 96 if cuda else 16, 2)},
                "optim": {"precision": "bfloat16" if cuda else "float32"},
            },
            "loader_threads": max(2, os.cpu_count() or 1),
        }
    )


def prepare(setup: Setup) -> Mapping[str, Way]:
    # Seconds that others need not wait.
    from georetrieval.training import loop
    from georetrieval.training.loss import InfoNCE
    from georetrieval.training.setup import Setup as Given
    from georetrieval.training.state import State

    cuda = setup.device == "cuda"
    count, steps = setup.pick(128, 4), 2 if setup.tiny else 12 if cuda else 6
    side = 384 if cuda else 128
    stored, files = bevs(setup, count, side)
    chosen = settings(stored, setup)
    run = Path(tempfile.mkdtemp(dir=setup.folder))
    here = Processes(device=torch.device(setup.device))
    given = Given.prepare("bev", chosen, Dataset(chosen.data, stored.parent), Run(run), here)
    state, compare = State.begin(given), InfoNCE(label_smoothing=0.1)
    state.model.train()
    shards, threads = ShardSet(stored), chosen.loader_threads
    size = chosen.branches()["bev"].sampling.batch_size
    random = np.random.default_rng(0)
    batches = [random.permutation(count)[:size] for _ in range(steps)]
    reader = PairReader(shards, shards, given.pairs, threads=threads)
    kept = [
        Batch(b.pairs, b.query.to(setup.device), b.reference.to(setup.device))
        for b in reader.read(batches[:1])
    ]

    def step_through(source: Iterator[Batch]) -> None:
        for batch in source:
            loop.learn(given, state, batch, compare)
            loop.update(state, 1e-4, given.branch.optim)

    images = 2 * size * steps
    return {
        "fed from shards": Way(lambda: step_through(reader.read(batches)), images),
        "fed from device memory": Way(lambda: step_through(iter(kept * steps)), images),
        "fed from JPEG files": Way(
            lambda: step_through(read_ahead(lambda b: decoded(files, b, side), batches, threads)),
            images,
        ),
    }


def decoded(files: Sequence[Path], rows: NDArray[np.int64], side: int) -> Batch:
    """Decode and resize a query and a reference for each pair, as published, but left as uint8."""
    views = []
    for _ in range(2):
        images = [cv2.cvtColor(cv2.imread(str(files[row])), cv2.COLOR_BGR2RGB) for row in rows]
        resized = [
            cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
            for image in images
        ]
        views.append(torch.from_numpy(np.stack(resized)))
    return Batch(rows, *views)


CONTESTS = [
    Contest(
        "training",
        "training steps of the BEV branch, both views of each pair counted; JPEG files of 512x512,"
        " quality 75, decoded by as many threads as read shards",
        "image",
        prepare,
        [
            Row("14", "training", "fed from shards", "fed from device memory", 0.95, 0.99),
            Row("14b", "training", "fed from shards", "fed from JPEG files"),
        ],
        clock="wall",
    )
]
