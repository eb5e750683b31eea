"""From one panorama to a place: search, heading, and what is said about how sure it is.

``location <- query, heading <- search, alignment, confidence <- locate <- fitting``; for frames of
a drive ``line <- trajectory <- drive``.
An `Alignment` places the camera inside the best tiles, a `Confidence` says how likely the answer
is right; both can be replaced.
"""

from georetrieval.localization.alignment import Fit, GroundAlignment
from georetrieval.localization.confidence import LogitConfidence
from georetrieval.localization.drive import locate_drive
from georetrieval.localization.fitting import fit_index
from georetrieval.localization.heading import HeadingSearch
from georetrieval.localization.locate import Locator
from georetrieval.localization.location import (
    Alignment,
    Candidate,
    Confidence,
    Location,
    Verdict,
)
from georetrieval.localization.query import Photo, QueryViews, find_photos, open_photo
from georetrieval.localization.search import Prior
from georetrieval.localization.trajectory import Motion, track

__all__ = [
    "Alignment",
    "Candidate",
    "Confidence",
    "Fit",
    "GroundAlignment",
    "HeadingSearch",
    "Location",
    "Locator",
    "LogitConfidence",
    "Motion",
    "Photo",
    "Prior",
    "QueryViews",
    "Verdict",
    "find_photos",
    "fit_index",
    "locate_drive",
    "open_photo",
    "track",
]
