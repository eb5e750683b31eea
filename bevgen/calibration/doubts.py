"""Say what speaks against each figure that was found."""

from __future__ import annotations

from bevgen.calibration.estimation import Calibration
from bevgen.calibration.rings import is_cut
from bevgen.calibration.sample import Sample

SQUARE = 0.02  # part by which pixels may differ from square unless it was meant


def doubts_about(found: Calibration, sample: Sample) -> list[str]:
    """Return sentences that begin with the figure they are about; none if nothing was found.

    To what the pictures say (`Calibration.doubts`) comes what the sample says of the field.
    """
    if found.verdict == "not found":
        return []
    doubts = [*found.doubts, _about_horizon(found, sample), _about_squareness(sample)]
    return [doubt for doubt in doubts if doubt]


def _about_horizon(found: Calibration, sample: Sample) -> str:
    error = found.horizon_error
    if error is None or not found.horizon_is_off:
        return ""
    first = sample.loaded[0]
    top, bottom = first.view.lens.vertical_fov
    off = abs(error.value) * first.shape[0] / (top - bottom)
    advice = "add --horizon" if is_cut((top, bottom)) else "are they whole panoramas?"
    return (
        f"horizon: it seems to lie {off:.1f} rows {'higher' if error.value > 0 else 'lower'} in"
        f" the images than the vertical field {top:g} {bottom:g} has it; {advice}"
    )


def _about_squareness(sample: Sample) -> str:
    first = sample.loaded[0]
    rows, columns = first.shape
    (top, bottom), (left, right) = first.view.lens.vertical_fov, first.view.lens.horizontal_fov
    stretch = (top - bottom) / rows / ((right - left) / columns) - 1
    given = sample.vertical_fov
    if given is None or not is_cut(given) or abs(stretch) <= SQUARE:
        return ""
    return (
        f"height: by --vertical-fov, pixels are {abs(stretch):.1%} "
        f"{'taller' if stretch > 0 else 'less tall'} than wide: unless the images were"
        " stretched so, it is wrong, and the height by as much; leave it out and add --horizon,"
        " which takes pixels to be square"
    )
