"""A run: the folder that training fills and all other commands read.

Every file name in it is spelt here and nowhere else::

    settings.json            what was trained on what
    panorama.safetensors     a branch's weights that did best on the validation split
    panorama.state           what training needs to continue (bev.* likewise)
    metrics.jsonl            a line of figures for each step and evaluation
    tensorboard/             the same, on request
    embeddings/              vectors that an evaluation made, used again by the next
    evaluation-NAME.json     a result of `evaluate`
    report.html              the page about all of it
    training.lock            while it is written
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import ValidationError

from bevgen import WriteError, only_writer, written_whole
from georetrieval.config import BRANCHES, BranchName, Settings, explain, settings_json
from georetrieval.errors import CheckpointError

EVALUATION = "evaluation-"
WAY_BACK = "copy it again from where the run was made, or train into another folder"
LONGEST = 150  # of a result's name in that of its file: disks take 255 bytes


def file_name(name: str) -> str:
    """Quote what no file may be called, and shorten what is too long for a disk."""
    quoted = quote(name, safe=" ,+=()", errors="replace")
    if len(quoted) > LONGEST:
        ending = sha256(name.encode("utf-8", "replace")).hexdigest()[:12]
        quoted = f"{quoted[:LONGEST]}-{ending}"
    return quoted


@dataclass(frozen=True, slots=True)
class Run:
    """The files of a run.

    Attributes
    ----------
    folder
        It need not be there before something is written.
    """

    folder: Path

    @classmethod
    def at(cls, where: Run | str | os.PathLike[str]) -> Run:
        """Take a run as it is, or name one by its folder."""
        return where if isinstance(where, Run) else cls(Path(where))

    def __str__(self) -> str:
        return str(self.folder)

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Make the folder, and hold the run: nobody else trains into it or imports weights.

        Raises
        ------
        RefusedError
            If another process does.
        WriteError
            If nothing can be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{self} cannot be made: {error.strerror}") from error
        with only_writer(self.folder / "training"):  # inside, as nothing else may be written beside
            yield

    # Paths

    @property
    def settings_path(self) -> Path:
        """JSON of `Settings`."""
        return self.folder / "settings.json"

    @property
    def metrics_path(self) -> Path:
        """Figures, a JSON object a line; see `read_metrics`."""
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard_path(self) -> Path:
        """Folder of event files."""
        return self.folder / "tensorboard"

    @property
    def report_path(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"

    def checkpoint(self, branch: BranchName) -> Path:
        """Return the file of a branch's weights, by `georetrieval.models.checkpoints`."""
        return self.folder / f"{branch}.safetensors"

    def state(self, branch: BranchName) -> Path:
        """Return the file that a branch's training continues from."""
        return self.folder / f"{branch}.state"

    def embeddings(self, name: str) -> Path:
        """Return a file of vectors that evaluations use again."""
        return self.folder / "embeddings" / f"{file_name(name)}.npz"

    def evaluation(self, name: str) -> Path:
        """Return the file of a result."""
        return self.folder / f"{EVALUATION}{file_name(name)}.json"

    # What there is

    def checkpoints(self) -> dict[BranchName, Path]:
        """Return the weights that are there, by branch."""
        return {name: self.checkpoint(name) for name in BRANCHES if self.checkpoint(name).exists()}

    def states(self) -> dict[BranchName, Path]:
        """Return the branches whose training has begun."""
        return {name: self.state(name) for name in BRANCHES if self.state(name).exists()}

    def evaluations(self) -> dict[str, Path]:
        """Return the results that are there, by name; the one called test first."""
        paths = self.folder.glob(f"{EVALUATION}*.json")
        found = {unquote(path.stem.removeprefix(EVALUATION)): path for path in paths}
        return dict(sorted(found.items(), key=lambda item: (item[0] != "test", item[0])))

    # Content

    def read_settings(self) -> Settings:
        """Read what the run was trained with.

        Raises
        ------
        CheckpointError
            If the folder holds no run, or its settings are damaged.
        """
        path = self.settings_path
        try:
            return Settings.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{self} holds no run: train first, or name the run's folder with --run"
            ) from None
        except ValidationError as error:
            raise CheckpointError(f"{path} is damaged: {explain(error)}; {WAY_BACK}") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is damaged: it is no text; {WAY_BACK}") from error

    def write_settings(self, settings: Settings) -> None:
        """Write what the run is trained with; ``data.root`` should be absolute."""
        with written_whole(self.settings_path) as part:
            part.write_text(settings_json(settings), "utf-8")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the figures, in order of branch and epoch.

        A line cut by a crash is left out, and so is what a resumed run did again.
        """
        path = self.metrics_path
        kept: dict[str, list[dict[str, Any]]] = {}
        for text in path.read_text("utf-8").splitlines() if path.exists() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if not isinstance(line, dict) or not {"branch", "epoch"} <= line.keys():
                continue
            lines = kept.setdefault(line["branch"], [])
            while lines and (
                lines[-1]["epoch"] > line["epoch"]
                or (lines[-1]["epoch"] == line["epoch"] and lines[-1].keys() == line.keys())
            ):
                lines.pop()
            lines.append(line)
        return [line for lines in kept.values() for line in lines]
