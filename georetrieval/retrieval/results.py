"""Results of an evaluation: values that are saved, printed and reported."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bevgen import written_whole
from georetrieval.config import BranchName, DataSettings
from georetrieval.errors import DataError
from georetrieval.retrieval.metrics import Estimate


@dataclass(frozen=True, slots=True)
class Method:
    """Result of one way to search.

    Attributes
    ----------
    name
        ``panorama``, ``bev``, ``both``, or ``both, weight chosen``.
    weight
        Of the panorama's similarity, 0 to 1.
    figures
        See `georetrieval.retrieval.metrics.summarize`.
    ranks : list of int
        Of the right reference for each query, 0 is a hit.
    top : list of list of str
        Ids of the best matches of each query.
    scores
        Their similarities.
    metres : list of float
        From each query to its best match, None where unknown.
    """

    name: str
    weight: float
    figures: dict[str, Estimate]
    ranks: list[int]
    top: list[list[str]]
    scores: list[list[float]]
    metres: list[float | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All methods on one split.

    Attributes
    ----------
    data, reference, split, heading
        What was searched: folder, shards of the references, split; whether orientation was known.
    gallery
        References searched.
    queries, references : list of str
        Ids, and the id of the right reference, the first of several.
    positions, reference_positions : list of (latitude, longitude)
        None where unknown.
    checkpoints
        Hash of each branch's weights.
    methods
        Results.
    fov
        Degrees that each query shows, 360 for all around.
    matched
        Whether references that belong to no query were left out of the gallery.
    others : list of list of str
        Ids of each query's further right references; an empty list where no query has any.
    """

    data: str
    reference: str
    split: str
    heading: str
    gallery: int
    queries: list[str]
    references: list[str]
    positions: list[tuple[float, float] | None]
    reference_positions: dict[str, tuple[float, float]]
    checkpoints: dict[BranchName, str]
    methods: list[Method]
    fov: float = 360.0
    matched: bool = False
    others: list[list[str]] = field(default_factory=list)

    @property
    def protocol(self) -> str:
        """How the queries were posed and what they were searched among, in words."""
        parts = [f"heading {self.heading}"]
        if self.fov < 360:
            parts.append(f"field of view {self.fov:g}°")
        if self.matched:
            parts.append("no distractors")
        return ", ".join(parts)

    def right(self, index: int) -> set[str]:
        """Return the ids of all right references of a query."""
        return {self.references[index], *(self.others[index] if self.others else ())}

    def differences(self, data: DataSettings, root: Path, split: str, matched: bool) -> list[str]:
        """Say what this result searched otherwise than an evaluation that is about to begin.

        A folder that is gone counts as moved.
        """
        place = Path(self.data)
        pairs = {
            "data": (place.resolve(), root.resolve() if place.exists() else place.resolve()),
            "references": (self.reference, str(data.reference)),
            "split": (self.split, split),
            "heading": (self.heading, data.heading),
            "field of view": (self.fov, data.fov),
            "distractors": ("no" if self.matched else "yes", "no" if matched else "yes"),
        }
        return [f"{what} {old}" for what, (old, new) in pairs.items() if old != new]

    def save(self, path: Path) -> None:
        """Write JSON."""
        with written_whole(path) as part:
            part.write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read JSON of `save`.

        Raises
        ------
        DataError
            If it is none, or of another version.
        """
        try:
            return cls._of(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not an evaluation that this version can read ({error}): delete it, or"
                " evaluate again"
            ) from error

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Evaluation:
        for method in values["methods"]:
            method["figures"] = {k: Estimate(**v) for k, v in method["figures"].items()}
        values["methods"] = [Method(**method) for method in values["methods"]]
        values["positions"] = [place and tuple(place) for place in values["positions"]]
        places = values["reference_positions"]
        values["reference_positions"] = {name: tuple(place) for name, place in places.items()}
        return cls(**values)


def result_name(
    own: DataSettings | None, data: DataSettings, root: Path, split: str, matched: bool
) -> str:
    """Name a result by all that changes its figures, such as ``test-unknown-fov90``.

    Parameters
    ----------
    own
        What the run was trained on, which goes without saying; None where that is unknown.
    data, root
        What is searched.
    split, matched
        See `georetrieval.retrieval.evaluation.evaluate`.
    """
    parts = [split]
    if data.heading == "unknown":
        parts.append("unknown")
    if data.fov < 360:
        parts.append(f"fov{data.fov:g}")
    if matched:
        parts.append("matched")
    if own is not None and own.reference != data.reference:
        parts.append(f"references-{data.reference.with_suffix('')}")
    trained_on = own.root if own is not None else None
    # A folder that is gone was moved.
    if trained_on is not None and trained_on.exists() and trained_on.resolve() != root.resolve():
        parts.append(f"data-{root.resolve().name}")
    return "-".join(parts)


def as_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row of figures for each method, for printing."""
    return [
        {
            "method": m.name,
            "weight": m.weight,
            "protocol": evaluation.protocol,
            "gallery": evaluation.gallery,
            **{k: str(v) for k, v in m.figures.items()},
        }
        for m in evaluation.methods
    ]
