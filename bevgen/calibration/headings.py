"""Write the headings of all pairs, not only of the sample, as poses.csv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bevgen.calibration.estimation import find_heading
from bevgen.calibration.pairs import PairFiles, known_of
from bevgen.calibration.report import SURE, CalibrationReport
from bevgen.calibration.sample import nothing
from bevgen.errors import PanoramaError
from bevgen.images.metadata import PanoramaInfo
from bevgen.tables import POSE_COLUMNS, PoseRow, write_poses

# The height is what was looked for: a column of it would take precedence over --height.
COLUMNS = tuple(name for name in POSE_COLUMNS if name != "height")


def write_headings(
    path: Path,
    pairs: Sequence[PairFiles],
    report: CalibrationReport,
    *,
    on_skip: Callable[[str], None] = nothing,
    on_progress: Callable[[int, int], None] = nothing,
) -> int:
    """Write poses.csv with the headings of the pairs that are sure, and return of how many.

    Parameters
    ----------
    path
        The table; is replaced if it exists.
    pairs
        All of them.
    report
        Of a sample of them.
    on_skip
        Called with the reason of each panorama that cannot be used.
    on_progress
        Called with the pairs done and to do.
    """
    rows: list[PoseRow] = []
    own = _own_headings(report) if report.sample.heading == "per-image" else None
    for i, pair in enumerate(pairs):
        try:
            heading, known = own(pair) if own is not None else _moved(pair, report)
        except PanoramaError as error:
            on_skip(str(error))
        else:
            if heading is not None:
                rows.append(_row(pair, heading, known))
        on_progress(i + 1, len(pairs))
    return write_poses(path, rows, COLUMNS)


def _row(pair: PairFiles, heading: float, known: PanoramaInfo) -> PoseRow:
    return PoseRow(
        pair.source,
        pair.id,
        round(heading, 2),
        known.pitch,
        known.roll,
        latitude=known.latitude,
        longitude=known.longitude,
        date=known.date,
    )


def _moved(pair: PairFiles, report: CalibrationReport) -> tuple[float | None, PanoramaInfo]:
    """Add the offset to what is known.

    The offset says nothing of a panorama of unknown heading where it was found from known ones.
    """
    known = known_of(pair)
    if known.heading is None and report.sample.knows_headings:
        return None, known
    return ((known.heading or 0.0) + report.offset) % 360, known


def _own_headings(
    report: CalibrationReport,
) -> Callable[[PairFiles], tuple[float | None, PanoramaInfo]]:
    """Find headings of single panoramas; those of the sample are there already."""
    there = zip(report.sample.loaded, report.headings, strict=True)
    sample = {one.pair.id: (own, one.known) for one, own in there}

    def find(pair: PairFiles) -> tuple[float | None, PanoramaInfo]:
        if pair.id in sample:
            own, known = sample[pair.id]
        else:
            one = report.sample.load(pair)
            own, known = find_heading(one.view, report.found), one.known
        return (own.heading if own.confidence >= SURE else None), known

    return find
