"""What is known of the public datasets' panoramas, and where each figure comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a dataset's panoramas; an option of the same name overrides each value.

    ``heading`` is None where each panorama brings its own. ``satellite`` is the ground sample
    distance in metres per pixel of the dataset's satellite tiles, None where nobody has measured
    it. ``note`` says where the values come from.
    """

    height: float
    resolution: float
    note: str
    size: int = 512
    heading: float | None = 0.0
    vertical_fov: tuple[float, float] | None = None
    compat: str | None = None
    satellite: float | None = None


def _vigor(satellite: float) -> Preset:
    return Preset(
        height=2.0,
        resolution=satellite,
        satellite=satellite,
        note="height by Boosting3DoF; resolution of the city's 640-pixel satellite tiles, so that"
        " BEV and tile have one scale",
    )


PRESETS: dict[str, Preset] = {
    "cvact": Preset(
        height=2.5,
        resolution=0.06,
        note="height over resolution 42, within the 35 to 45 fitted on one real pair",
    ),
    "cvusa": Preset(
        height=2.5,
        resolution=0.06,
        vertical_fov=(38.6, -26.9),
        note="224 rows of 0.2922 degrees with the horizon at row 132; height as for CVACT",
    ),
    "vigor-chicago": _vigor(0.111262),
    "vigor-newyork": _vigor(0.113248),
    "vigor-sanfrancisco": _vigor(0.118141),
    "vigor-seattle": _vigor(0.100817),
    "cvglobal": Preset(
        height=2.5,
        resolution=0.06,
        heading=None,
        note="headings differ per panorama and are read from the file names",
    ),
    "ep-bev": Preset(
        height=1.5,
        resolution=0.06,
        compat="ep-bev",
        note="the published script's call and pixels (EP-BEV, ECCV 2024)",
    ),
}
