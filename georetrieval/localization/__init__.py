"""From one panorama to a place: search, heading, and what is said about how sure it is.

``location <- query, heading, alignment, confidence <- locate <- fitting``; `track` for sequences.
An `Alignment` places the camera inside the best tiles, a `Confidence` says how likely the answer
is right; both can be replaced.
"""

from georetrieval.localization.alignment import Fit, GroundAlignment
from georetrieval.localization.confidence import LogitConfidence
from georetrieval.localization.fitting import fit_index
from georetrieval.localization.heading import HeadingSearch
from georetrieval.localization.locate import Locator, Prior
from georetrieval.localization.location import (
    Alignment,
    Candidate,
    Confidence,
    Location,
    Verdict,
)
from georetrieval.localization.query import Photo, QueryViews, find_photos, open_photo
from georetrieval.localization.trajectory import Motion, track, track_by_date

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
    "open_photo",
    "track",
    "track_by_date",
]
