"""What a calibration of a sample found: as values, as lines to read, and as options to go on with.

The verdict is decided here, once: what was found, and what speaks against it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bevgen.calibration.doubts import doubts_about
from bevgen.calibration.estimation import Calibration, ImageHeading, calibrate, find_heading
from bevgen.calibration.sample import Sample, nothing

SURE = 0.9  # confidence from which the heading of a panorama counts
SMALL = 0.5  # degrees of offset that are not worth an option


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What was found, of what, and how far to trust it.

    Attributes
    ----------
    found
        The values; its verdict is ``weak`` at best where there are doubts.
    sample
        What was compared.
    headings
        One for each pair of the sample, where each panorama has its own.
    resolution
        Metres per pixel of the tiles; None where unknown.
    doubts
        What speaks against the values, in sentences that begin with the figure they are about.
    """

    found: Calibration
    sample: Sample
    headings: Sequence[ImageHeading]
    resolution: float | None
    doubts: Sequence[str]

    @property
    def offset(self) -> float:
        """Degrees to add to all headings."""
        return self.found.heading.value if self.found.heading is not None else 0.0

    @property
    def vertical_fov(self) -> tuple[float, float] | None:
        """The vertical field to convert with: found, or as given; None to take each file's."""
        if self.found.horizon is None:
            return self.sample.vertical_fov
        return lowered(self.sample.loaded[0].view.lens.vertical_fov, self.found.horizon.value)

    def options(self) -> list[str]:
        """Return the options of ``bevgen convert`` that say what was found; none if in doubt."""
        if self.found.verdict != "clear":
            return []
        ratio = self.found.ratio.value
        # Where metres are not known, any pair of numbers does whose quotient is the ratio.
        height, metres = 2.0, 2.0 / ratio
        if self.resolution is not None:
            height, metres = ratio * self.resolution, self.resolution
        words = ["--height", f"{height:.4g}", "--resolution", f"{metres:.5g}"]
        known = any(one.known.heading is not None for one in self.sample.loaded)
        if self.found.heading is not None and not known and abs(self.offset) >= SMALL:
            words += ["--heading", f"{self.offset:.1f}"]
        if (fov := self.vertical_fov) is not None:
            digits = "g" if self.found.horizon is None else ".2f"
            words += ["--vertical-fov", *(f"{v:{digits}}" for v in fov)]
        return words

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        found, sample = self.found, self.sample
        result: dict[str, Any] = {
            "verdict": found.verdict,
            "strength": round(found.strength, 2),
            "pairs": len(sample.loaded),
            "skipped": list(sample.skipped),
            "ratio": asdict(found.ratio),
        }
        if self.resolution is not None:
            result["height"] = {k: v * self.resolution for k, v in asdict(found.ratio).items()}
        if found.heading is not None:
            result["heading"] = asdict(found.heading)
        if found.horizon is not None:
            result |= self._horizon()
        if self.headings:
            result["headings"] = {
                one.pair.id: asdict(heading)
                for one, heading in zip(sample.loaded, self.headings, strict=True)
            }
        if found.horizon_error is not None:
            result["horizon_error"] = asdict(found.horizon_error)
        return result | {
            "doubts": list(self.doubts),
            "known_headings": sample.knows_headings,
            "known_heights": any(one.pair.own.height is not None for one in sample.loaded),
            "options": self.options(),
        }

    def _horizon(self) -> dict[str, Any]:
        """Row of the horizon in the panoramas, and the vertical field that goes with it."""
        assert self.found.horizon is not None
        first = self.sample.loaded[0]
        (top, bottom), rows = first.view.lens.vertical_fov, first.shape[0]
        per_degree = rows / (top - bottom)
        row = {k: (top - v) * per_degree for k, v in asdict(self.found.horizon).items()}
        return {
            "horizon_row": {"value": row["value"], "low": row["high"], "high": row["low"]},
            "rows": rows,
            "vertical_fov": self.vertical_fov,
        }

    def lines(self) -> list[str]:
        """Return all of it as lines to read."""
        result = self.to_json()
        if self.found.verdict == "not found":
            return [f"verdict            not found ({result['pairs']} pairs)"]
        lines = []
        if "height" in result:
            lines.append(f"camera height      {_interval(result['height'], 3, ' m')}")
        lines.append(f"height in pixels   {_interval(result['ratio'], 2)}")
        if "heading" in result:
            lines.append(f"heading offset     {_interval(result['heading'], 1, '°')}")
        if "horizon_row" in result:
            lines.append(f"horizon, row       {_interval(result['horizon_row'], 1)}")
        if self.headings:
            sure = sum(heading.confidence >= SURE for heading in self.headings)
            lines.append(f"headings           sure of {sure} of {result['pairs']}")
        lines.append(
            f"verdict            {self.found.verdict} ({result['pairs']} pairs,"
            f" {self.found.strength:.0f} standard deviations above wrong pairs)"
        )
        return lines + [f"but: {doubt}" for doubt in self.doubts]

    def next_steps(self, root: Path, poses: Path | None, poses_out: Path | None) -> list[str]:
        """Return the command to go on with, and what it lacks.

        Parameters
        ----------
        root
            Folder of the panoramas.
        poses
            What was known of them.
        poses_out
            Where headings were written.
        """
        if self.found.verdict != "clear":
            return ["no command to convert with: settle first what is said above"]
        lines = []
        per_image = self.sample.heading == "per-image"
        words = ["bevgen", "convert", "--in", str(root), "--out", "bev.h5", *self.options()]
        if poses_out is not None or (poses is not None and not per_image):
            words += ["--poses", str(poses_out or poses)]
            known = any(one.pair.own.height is not None for one in self.sample.loaded)
            if poses_out is None and known:
                lines.append(
                    f"to convert, take the column height out of {poses}: it overrides --height"
                )
        elif per_image:
            lines.append("to convert, write the headings: add --write-poses poses.csv")
        if poses_out is None and self.sample.knows_headings and abs(self.offset) >= SMALL:
            lines.append("to convert, add the offset to each heading: --write-poses poses.csv does")
        return [*lines, shlex.join(words)]


def calibrate_sample(
    sample: Sample,
    *,
    resolution: float | None = None,
    on_progress: Callable[[int, int], None] = nothing,
) -> CalibrationReport:
    """Calibrate, find each heading if asked for, and decide how far to trust the result.

    Parameters
    ----------
    sample
        What is compared, and how.
    resolution
        Metres per pixel of the tiles; None where unknown.
    on_progress
        As in `bevgen.calibrate`.

    Raises
    ------
    InputError
        If there are too few pairs.
    """
    views = sample.views
    found = calibrate(
        views,
        ratios=sample.ratios(resolution),
        heading=sample.heading,
        horizon=sample.horizon,
        on_progress=on_progress,
    )
    doubts = doubts_about(found, sample)
    if doubts:
        found = replace(found, verdict="weak")
    each = sample.heading == "per-image"
    headings = [find_heading(view, found) for view in views] if each else []
    return CalibrationReport(found, sample, headings, resolution, doubts)


def lowered(vertical_fov: tuple[float, float], degrees: float) -> tuple[float, float]:
    """Lower a vertical field by so many degrees, within the sphere."""
    top, bottom = vertical_fov
    return min(90.0, top - degrees), max(-90.0, bottom - degrees)


def _interval(value: dict[str, float], digits: int, unit: str = "") -> str:
    low, best, high = (  # no -0.0
        f"{round(value[name], digits) + 0.0:.{digits}f}" for name in ("low", "value", "high")
    )
    return f"{best + unit:12} {low} to {high}"
