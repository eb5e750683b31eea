"""What is told of a run: its progress while it goes (`Watcher`), and afterwards what it did."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bevgen.conversion.plan import Plan
from bevgen.shards import Failure

STAGES = ("decode", "project", "write")
EXAMPLES = 3
# What differs between two reasons with one cause: numbers, and bytes that a file begins with.
_VARYING = re.compile(r"""(\bb'(?:[^'\\]|\\.)*'|\bb"(?:[^"\\]|\\.)*"|\d+(?:\.\d+)?)""", re.ASCII)


class Watcher:
    """Hears how a run goes, and does nothing. Several threads may call it."""

    def planned(self, plan: Plan) -> None:
        """Hear of the plan, before anything is written."""

    def advanced(self, done: int, failed: int) -> None:
        """Hear how many more images are stored, and how many more skipped."""


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes
    ----------
    out
        The output.
    rows, failures
        Images stored and skipped by this run.
    unknown_headings
        Images stored by this run as if they looked north, because nobody says where they look.
    unknown_positions
        Images stored by this run of which nobody says where they were taken, where headings matter.
    unsigned_positions
        Those of them whose XMP has a position of which nothing says in which hemispheres it is.
    finer
        BEVs stored by this run whose pixels are finer than their panorama's everywhere.
    all_rows, all_failures
        Images stored and skipped in the output, those of earlier runs included.
    shards
        Shards made by this run.
    seconds
        From plan to index.
    stage_seconds
        Time spent on each of `STAGES`, summed over workers.
    reasons
        Why images were skipped, by cause: how often, and a few examples. Where files with one
        cause differ in a number, such as their size, it reads ``...``.
    """

    out: Path
    rows: int = 0
    failures: int = 0
    unknown_headings: int = 0
    unknown_positions: int = 0
    unsigned_positions: int = 0
    finer: int = 0
    all_rows: int = 0
    all_failures: int = 0
    shards: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    _parts: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False)

    @property
    def images(self) -> int:
        """Images that this run worked on."""
        return self.rows + self.failures

    def add(self, shard: ShardReport) -> None:
        """Count one more shard."""
        self.rows += shard.rows
        self.failures += len(shard.failures)
        self.unknown_headings += shard.unknown_headings
        self.unknown_positions += shard.unknown_positions
        self.unsigned_positions += shard.unsigned_positions
        self.finer += shard.finer
        self.shards += 1
        for stage, seconds in shard.stage_seconds.items():
            self.stage_seconds[stage] += seconds
        for failure in shard.failures:
            self._add_reason(failure)

    def _add_reason(self, failure: Failure) -> None:
        """Count a failure with those of its cause; the text keeps what all of them have."""
        parts = _VARYING.split(failure.reason)  # every second one varies
        cause = "\0".join(parts[::2])
        before = self._parts.get(cause, parts)
        common = [a if a == b else "..." for a, b in zip(before, parts, strict=True)]
        count, examples = self.reasons.pop("".join(before), (0, []))
        self._parts[cause] = common
        self.reasons["".join(common)] = (count + 1, [*examples, failure.source][:EXAMPLES])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "failures": self.failures,
            "unknown_headings": self.unknown_headings,
            "unknown_positions": self.unknown_positions,
            "unsigned_positions": self.unsigned_positions,
            "finer": self.finer,
            "all_rows": self.all_rows,
            "all_failures": self.all_failures,
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "stage_seconds": {key: round(value, 3) for key, value in self.stage_seconds.items()},
            "reasons": [
                {"reason": reason, "count": count, "examples": examples}
                for reason, (count, examples) in self.reasons.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of one shard."""

    rows: int
    failures: tuple[Failure, ...]
    unknown_headings: int
    unknown_positions: int
    unsigned_positions: int
    finer: int
    stage_seconds: dict[str, float]
