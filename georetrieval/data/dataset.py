"""The data of a run: a folder of shards, opened as its settings name them and joined by split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from bevgen import ShardSet
from georetrieval.config import BranchName, DataSettings
from georetrieval.data.pairs import Pairs, join
from georetrieval.errors import DataError

ShardKey = Literal["panorama", "bev", "reference"]
"""What the settings call a shard file: the queries of a branch, or the references of all."""


MODALITIES: dict[ShardKey, tuple[str, ...]] = {
    "panorama": ("panorama", "drone"),
    "bev": ("bev",),
    "reference": ("satellite", "map", "drone"),
}
"""What each may hold: a branch whose queries are references would find them all."""


class Dataset:
    """Queries of each branch, references, and the pairs that join them.

    Each file is opened when it is first asked for, and only once.

    Parameters
    ----------
    settings
        Names of the files, and of the splits.
    root
        Folder that the names are relative to; None for the one that the settings name, or else
        the working directory.
    """

    def __init__(self, settings: DataSettings, root: Path | None = None) -> None:
        self.settings = settings
        self.root = root or settings.root or Path()
        self._opened: dict[ShardKey, ShardSet] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, key: ShardKey) -> Path:
        """Return where a shard file lies; it need not be there."""
        return self.root / getattr(self.settings, key)

    @property
    def pairs_path(self) -> Path | None:
        """Where ``pairs.csv`` lies; None where equal ids pair."""
        return None if self.settings.pairs is None else self.root / self.settings.pairs

    def shards(self, key: ShardKey) -> ShardSet:
        """Open a shard file.

        Raises
        ------
        ShardError
            If it is missing, incomplete or damaged.
        DataError
            If its images are of another modality than its use asks for.
        """
        if key not in self._opened:
            found = ShardSet(self.path(key))
            if found.kind not in MODALITIES[key] and not self.settings.any_modality:
                found.close()
                raise DataError(
                    f"{self.path(key)} holds {found.kind} images, where data.{key} takes"
                    f" {' or '.join(MODALITIES[key])} images: name the right file, or say that you"
                    " mean it with data.any_modality = true (evaluate: --any-modality)"
                )
            self._opened[key] = found
        return self._opened[key]

    def pairs(self, branch: BranchName, split: str) -> Pairs:
        """Join a branch's queries of a split to their references; see `join`.

        Raises
        ------
        ShardError, DataError
            If a file cannot be used, or nothing is joined.
        """
        return join(self.shards(branch), self.shards("reference"), self.pairs_path, split)

    def image_sizes(self, branch: BranchName) -> dict[str, tuple[int, int]]:
        """Return height and width of ``query`` and ``reference`` images, of the files there are."""
        keys: dict[str, ShardKey] = {"query": branch, "reference": "reference"}
        found = {role: self.shards(key) for role, key in keys.items() if self.path(key).exists()}
        return {role: (one.image_shape[0], one.image_shape[1]) for role, one in found.items()}

    def close(self) -> None:
        """Close what was opened."""
        for shards in self._opened.values():
            shards.close()
        self._opened.clear()


def role_of(shards: ShardSet, branch: BranchName) -> Literal["query", "reference"]:
    """Tell whether a branch takes a file's images as queries or as references.

    Raises
    ------
    DataError
        If it takes them as neither.
    """
    if shards.kind == branch:
        return "query"
    if shards.kind in MODALITIES["reference"]:
        return "reference"
    raise DataError(
        f"{shards.path} holds {shards.kind} images, which the {branch} branch was not trained on:"
        " name other shards, or say what they are to it with --as"
    )
