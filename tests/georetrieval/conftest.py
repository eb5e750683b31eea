from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.world import World, make_world

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of 64 places to learn from, 16 to choose by and 16 to test on; read only."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    """A world of a few places, to write into."""
    return make_world(tmp_path / "small", train=16, val=6, test=6)
