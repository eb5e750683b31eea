"""Locations as a table, JSON, CSV and GeoJSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from georetrieval.localization.location import Candidate, Location

COLUMNS: tuple[str, ...] = (
    "photo", "rank", "tile", "latitude", "longitude", "heading", "score", "probability",
    "metres", "degrees", "found",
)  # fmt: skip


def as_rows(locations: Sequence[Location]) -> Iterator[dict[str, Any]]:
    """Yield a row of `COLUMNS` for each candidate; what is unknown is None."""
    for location in locations:
        for rank, candidate in enumerate(location.candidates, 1):
            yield {
                "photo": location.source,
                "rank": rank,
                "tile": candidate.id,
                "latitude": round(candidate.latitude, 7),
                "longitude": round(candidate.longitude, 7),
                "heading": _rounded_heading(candidate),
                "score": round(candidate.score, 4),
                "probability": _rounded(candidate.probability, 4),
                "metres": _rounded(candidate.metres, 2),
                "degrees": _rounded(candidate.degrees, 2),
                "found": location.found,
            }


def as_json(locations: Sequence[Location]) -> str:
    """Return a JSON list with an object for each photo."""
    return json.dumps([location.to_json() for location in locations], indent=2)


def as_csv(locations: Sequence[Location]) -> str:
    """Return a table of comma-separated values, a line for each candidate."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_rows(locations))
    return text.getvalue()


def as_geojson(locations: Sequence[Location]) -> str:
    """Return a GeoJSON collection with a point for each candidate."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["longitude"], row["latitude"]]},
            "properties": {k: v for k, v in row.items() if k not in ("latitude", "longitude")},
        }
        for row in as_rows(locations)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=2)


def as_table(locations: Sequence[Location]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table: all candidates of one photo, or the best of each."""
    one = len(locations) == 1
    rows = []
    for location in locations:
        if not location.candidates:
            rows.append([location.source, "not found"])
        shown = location.candidates if one else location.candidates[:1]
        for rank, candidate in enumerate(shown, 1):
            first = str(rank) if one else location.source
            rows.append([first, *_cells(candidate, location.found is False)])
    columns = ("latitude", "longitude", "heading", "score", "probability", "tile")
    return ["rank" if one else "photo", *columns], rows


def _cells(candidate: Candidate, not_found: bool) -> list[str]:
    place = [f"{candidate.latitude:.6f}", f"{candidate.longitude:.6f}"]
    if candidate.metres is not None:
        place[0] += f" ± {candidate.metres:.1f} m"
    probability = "" if candidate.probability is None else f"{candidate.probability:.2f}"
    return [
        *place,
        "" if candidate.heading is None else f"{_rounded_heading(candidate):.1f}",
        f"{candidate.score:.3f}",
        f"{probability} (not found)" if not_found else probability,
        candidate.id,
    ]


def _rounded_heading(candidate: Candidate) -> float | None:
    return None if candidate.heading is None else round(candidate.heading, 1) % 360


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
