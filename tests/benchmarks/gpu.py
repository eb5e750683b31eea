"""Row 13: projection from device memory to device memory, against a copy of the bytes it moves."""

from __future__ import annotations

from collections.abc import Mapping

from bevgen import Projector
from bevgen.geometry import PanoramaView, needed_rows
from tests.benchmarks.frame import Contest, NotHereError, Row, Setup, Way

SIZE, VIEW = 512, PanoramaView(832, 1664)


def prepare(setup: Setup) -> Mapping[str, Way]:
    import torch

    if setup.device != "cuda" or not torch.cuda.is_available():
        raise NotHereError("an NVIDIA GPU and --device cuda")
    count = setup.pick(128, 2)
    projector = Projector(height=1.5, size=SIZE)
    shape = (count, VIEW.height, VIEW.width, 3)
    panoramas = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    bevs = torch.empty((count, SIZE, SIZE, 3), dtype=torch.uint8, device="cuda")
    first, last = needed_rows(projector.grid, VIEW, projector.pose)
    moved = count * ((last - first) * VIEW.width * 3 + SIZE * SIZE * 3)
    source = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")  # read once, written once
    target = torch.empty_like(source)

    def ours() -> None:
        projector(panoramas, out=bevs)
        torch.cuda.synchronize()

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    ours()
    return {"bevgen": Way(ours, count), "a copy": Way(copy, count)}


CONTESTS = [
    Contest(
        "gpu",
        "panoramas of 1664x832 in device memory to BEVs of 512x512 there; 0.6x is 60 % of the"
        " bandwidth of a copy of as many bytes",
        "image",
        prepare,
        [Row("13", "projection on a GPU", "bevgen", "a copy", 0.6, 0.8)],
        clock="wall",
    )
]
