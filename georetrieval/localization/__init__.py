"""From one panorama to a place: search, heading, and what is said about how sure it is.

``location <- query <- heading <- locate``. Two hooks are open: an `Alignment` places the camera
inside the best tiles, and a `Confidence` says how likely the answer is right.
"""

from georetrieval.localization.heading import HeadingSearch
from georetrieval.localization.locate import Locator, Prior
from georetrieval.localization.location import (
    Alignment,
    Candidate,
    Confidence,
    Location,
    Verdict,
)
from georetrieval.localization.query import Photo, QueryViews, open_photo

__all__ = [
    "Alignment",
    "Candidate",
    "Confidence",
    "HeadingSearch",
    "Location",
    "Locator",
    "Photo",
    "Prior",
    "QueryViews",
    "Verdict",
    "open_photo",
]
