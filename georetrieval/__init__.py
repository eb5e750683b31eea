"""Cross-view geo-localization: train on bevgen's shards, evaluate, report, find a photo's place.

::

    settings = georetrieval.load_settings("city/georetrieval.toml")
    georetrieval.train(settings, "city", "run")
    found = georetrieval.evaluate("run", split="test")
    georetrieval.write_report("run")

Imports run one way: errors <- config, files <- run, data, transforms <- models <- retrieval <-
training <- localization, report <- cli. Of bevgen only its public names are used. Nothing heavy is
imported before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bevgen import WriteError
from bevgen import __version__ as __version__
from georetrieval.errors import (
    CheckpointError,
    DataError,
    GeoretrievalError,
    IndexFileError,
    SettingsError,
    SplitError,
)

if TYPE_CHECKING:
    from georetrieval.config import Settings, load_settings, recipes
    from georetrieval.data.dataset import Dataset
    from georetrieval.data.pairs import Pairs
    from georetrieval.localization import Locator
    from georetrieval.models.branch import Branch
    from georetrieval.models.checkpoints import load_branch
    from georetrieval.report import write_report
    from georetrieval.retrieval.embedding import Embeddings, embed_rows
    from georetrieval.retrieval.evaluation import evaluate
    from georetrieval.retrieval.results import Evaluation
    from georetrieval.run import Run
    from georetrieval.training.forecast import forecast
    from georetrieval.training.loop import train
    from georetrieval.training.tracking import Watcher

__all__ = [
    "Branch",
    "CheckpointError",
    "DataError",
    "Dataset",
    "Embeddings",
    "Evaluation",
    "GeoretrievalError",
    "IndexFileError",
    "Locator",
    "Pairs",
    "Run",
    "Settings",
    "SettingsError",
    "SplitError",
    "Watcher",
    "WriteError",
    "embed_rows",
    "evaluate",
    "forecast",
    "load_branch",
    "load_settings",
    "recipes",
    "train",
    "write_report",
]

_LATER = {
    "georetrieval.config": ("Settings", "load_settings", "recipes"),
    "georetrieval.data.dataset": ("Dataset",),
    "georetrieval.data.pairs": ("Pairs",),
    "georetrieval.localization": ("Locator",),
    "georetrieval.models.branch": ("Branch",),
    "georetrieval.models.checkpoints": ("load_branch",),
    "georetrieval.report": ("write_report",),
    "georetrieval.retrieval.embedding": ("Embeddings", "embed_rows"),
    "georetrieval.retrieval.evaluation": ("evaluate",),
    "georetrieval.retrieval.results": ("Evaluation",),
    "georetrieval.run": ("Run",),
    "georetrieval.training.forecast": ("forecast",),
    "georetrieval.training.loop": ("train",),
    "georetrieval.training.tracking": ("Watcher",),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'georetrieval' has no attribute {name!r}")
