"""What is known of the public datasets' panoramas: each number, its source, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEASURED, ONE_PAIR, PUBLISHED, ASSUMED = "measured", "one pair", "published", "assumed"
CONFIDENCE: Mapping[str, str] = {
    MEASURED: "on many images of the dataset",
    ONE_PAIR: "measured, but on a single panorama and its tile: other cars and years may differ",
    PUBLISHED: "by the authors of the dataset or the method, and not measured again",
    ASSUMED: "nobody has measured it on this dataset",
}
"""How sure a number may be, surest first, and what each word means."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number of a preset is from.

    Attributes
    ----------
    confidence
        How sure the number is: one of `CONFIDENCE`.
    text
        Who says so, or how it was measured.
    """

    confidence: str
    text: str


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a dataset's panoramas; an option of the same name overrides each value.

    ``heading`` is None where each panorama brings its own. ``satellite`` is the ground sample
    distance in metres per pixel of the dataset's satellite tiles, None where nobody has measured
    it. ``sources`` has an entry for each value that is known, ``heading`` included.
    """

    height: float
    resolution: float
    sources: Mapping[str, Source]
    size: int = 512
    heading: float | None = 0.0
    vertical_fov: tuple[float, float] | None = None
    compat: str | None = None
    satellite: float | None = None

    @property
    def note(self) -> str:
        """All sources in one line."""
        return "; ".join(
            f"{name}: {source.text} ({source.confidence})" for name, source in self.sources.items()
        )


_SCRIPT = Source(
    ASSUMED, "the published EP-BEV script's; the tiles' own is not known, and may be another"
)
_COMMON_HEIGHT = Source(
    ASSUMED,
    "a round number between what was found for Street View cameras elsewhere: 2.34 m from 2,858"
    " labels, 2.8 m on a pair of CVACT, 3.1 m on a pair of VIGOR",
)
_NORTH = Source(PUBLISHED, "panoramas are aligned to north")


def _vigor(satellite: float, height: Source) -> Preset:
    scale = Source(
        PUBLISHED, "the scale of the city's 640-pixel tiles; web Mercator at zoom 20 agrees"
    )
    return Preset(
        height=3.1,
        resolution=satellite,
        satellite=satellite,
        sources={"height": height, "resolution": scale, "satellite": scale, "heading": _NORTH},
    )


_VIGOR_PAIR = Source(
    ONE_PAIR,
    "road markings are 1.53 to 1.56 times as long in the tile as in a BEV made with the 2.0 m that"
    " Boosting3DoF takes: 3.06 to 3.12 m",
)
_AS_CHICAGO = Source(ASSUMED, "as for Chicago, where one pair was measured; Boosting3DoF takes 2.0")

PRESETS: dict[str, Preset] = {
    "cvact": Preset(
        height=2.8,
        resolution=0.06,
        sources={
            "height": Source(
                ONE_PAIR,
                "nine painted dashes of one full-size pair: height over the tile's resolution is"
                " 46.7 pixels, 2.8 m where a pixel is 0.06 m",
            ),
            "resolution": _SCRIPT,
            "heading": _NORTH,
        },
    ),
    "cvusa": Preset(
        height=2.5,
        resolution=0.06,
        vertical_fov=(38.6, -26.9),
        sources={
            "height": _COMMON_HEIGHT,
            "resolution": _SCRIPT,
            "heading": _NORTH,
            "vertical_fov": Source(
                MEASURED,
                "224 rows of 0.2922 degrees, as columns are; the horizon at row 132 (131 to 132 on"
                " 30 pairs)",
            ),
        },
    ),
    "vigor-chicago": _vigor(0.111262, _VIGOR_PAIR),
    "vigor-newyork": _vigor(0.113248, _AS_CHICAGO),
    "vigor-sanfrancisco": _vigor(0.118141, _AS_CHICAGO),
    "vigor-seattle": _vigor(0.100817, _AS_CHICAGO),
    "cvglobal": Preset(
        height=2.5,
        resolution=0.06,
        heading=None,
        sources={
            "height": _COMMON_HEIGHT,
            "resolution": _SCRIPT,
            "heading": Source(
                ASSUMED, "each file's name: the number after _d, which nobody has confirmed"
            ),
        },
    ),
    "ep-bev": Preset(
        height=1.5,
        resolution=0.06,
        compat="ep-bev",
        sources={
            name: Source(PUBLISHED, "the published script's call and pixels (EP-BEV, ECCV 2024)")
            for name in ("height", "resolution", "heading", "compat")
        },
    ),
}
