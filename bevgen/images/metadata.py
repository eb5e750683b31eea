"""What a panorama's file, its name and poses.csv say about its pose and position, and who says it.

Several sources may speak of one panorama. The first that says something takes precedence, field by
field (`PanoramaInfo.fallback`), and each value keeps the name of its source:

    poses.csv > options > preset > GPano XMP > EXIF > file name

The position is one field in this: latitude and longitude are said together or not at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from PIL import ExifTags, Image

from bevgen.errors import PanoramaError
from bevgen.geometry import FULL_CIRCLE, FULL_SPHERE
from bevgen.tables import PoseRow


@dataclass(frozen=True, slots=True)
class PanoramaInfo:
    """What is known of a panorama, and from where; None where nobody says anything.

    Parameters
    ----------
    heading
        Compass direction in degrees, clockwise from north, of the centre column of the whole
        360-degree frame (of which the image may be a crop).
    pitch
        Degrees, nose up positive.
    roll
        Degrees, right side down positive.
    height
        Metres of the camera above the ground. Only poses.csv says it.
    latitude, longitude
        WGS84 degrees; both or neither.
    date
        ISO 8601 as far as known: ``'2022-08'``, ``'2021-07-29T11:16:44'``.
    vertical_fov, horizontal_fov
        Degrees as in `bevgen.geometry.PanoramaView`. Only GPano says them.
    origins
        The pose source of each value that is not None: one of the constants of this module, or
        ``option`` or ``preset NAME``. Two that say the same are equal whoever says it.
    """

    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    height: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    date: str | None = None
    vertical_fov: tuple[float, float] | None = None
    horizontal_fov: tuple[float, float] | None = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def said_by(cls, origin: str, **values: Any) -> PanoramaInfo:
        """Return what one source says; a value of None is not said."""
        said = {name: value for name, value in values.items() if value is not None}
        return cls(**said, origins=dict.fromkeys(said, origin))

    def fallback(self, other: PanoramaInfo) -> PanoramaInfo:
        """Return what this source says, its gaps filled from another one of lower rank."""
        values = {
            name: getattr(other, name) if (said := getattr(self, name)) is None else said
            for name in FIELDS
        }
        added = {n: o for n, o in other.origins.items() if getattr(self, n) is None}
        return PanoramaInfo(**values, origins={**self.origins, **added})


POSES_FILE, GPANO, EXIF, FILE_NAME = "poses file", "GPano", "EXIF", "file name"
FIELDS = tuple(f.name for f in fields(PanoramaInfo) if f.name != "origins")
NOTHING = PanoramaInfo()


def info_from_row(row: PoseRow | None) -> PanoramaInfo:
    """Return what a row of poses.csv says; nothing where there is no row."""
    if row is None:
        return NOTHING
    said = {name: getattr(row, name) for name in FIELDS if hasattr(row, name)}
    return PanoramaInfo.said_by(POSES_FILE, **said)


def _finite(value: Any) -> float | None:
    """Return what a tag holds as a number; None where that is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _position(
    latitude: float | None, longitude: float | None
) -> tuple[float, float] | tuple[None, None]:
    """Return the position, or None twice if half of it is missing, out of range, or both are 0.

    A position of exactly 0, 0 is what devices without a fix write; it lies in the Atlantic.
    """
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None, None
    if abs(latitude) > 90 or abs(longitude) > 180:
        return None, None
    return latitude, longitude


def roll_turned(file: PanoramaInfo) -> PanoramaInfo:
    """Return what a file says if its GPano roll is positive with the left side down."""
    if file.roll is None or file.origins.get("roll") != GPANO:
        return file
    return replace(file, roll=-file.roll)


# --- file names ---

# lat,lon_YYYY-MM_id_dHEADING_zZOOM.jpg; ids are 22 characters of [A-Za-z0-9_-], so that they may
# begin with '-' and contain '_': the name is anchored at both ends and never split.
_CVGLOBAL = re.compile(
    r"(-?\d+\.\d+),(-?\d+\.\d+)_(\d{4}-(?:0[1-9]|1[0-2]))_.+_d(-?\d+)_z\d+\.\w+", re.ASCII
)
# id,lat,lon,.jpg
_VIGOR = re.compile(r".+,(-?\d+\.\d+),(-?\d+\.\d+),\.\w+", re.ASCII)


def info_from_name(source: str) -> PanoramaInfo:
    """Read position, date and heading from a file name of CVGlobal or VIGOR.

    Parameters
    ----------
    source
        Path or bare name, such as ``40.75,-73.97_2022-08_mpyEVlsley4foc-t1ndVpA_d62_z3.jpg``
        (CVGlobal: position, month, panorama id, heading, zoom) or
        ``KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg`` (VIGOR: panorama id, position).

    Returns
    -------
    PanoramaInfo
        Empty for any other name.
    """
    name = PurePosixPath(source).name
    if match := _CVGLOBAL.fullmatch(name):
        latitude, longitude = _position(float(match[1]), float(match[2]))
        return PanoramaInfo.said_by(
            FILE_NAME,
            heading=float(match[4]) % 360,
            latitude=latitude,
            longitude=longitude,
            date=match[3],
        )
    if match := _VIGOR.fullmatch(name):
        latitude, longitude = _position(float(match[1]), float(match[2]))
        return PanoramaInfo.said_by(FILE_NAME, latitude=latitude, longitude=longitude)
    return NOTHING


# --- GPano (Photo Sphere XMP) ---

_GPANO_PREFIX = re.compile(
    rb"""xmlns:(\w+)\s*=\s*["']http://ns\.google\.com/photos/1\.0/panorama/["']"""
)
_CROP = tuple(
    name.encode()
    for name in (
        "CroppedAreaLeftPixels",
        "CroppedAreaTopPixels",
        "CroppedAreaImageWidthPixels",
        "CroppedAreaImageHeightPixels",
        "FullPanoWidthPixels",
        "FullPanoHeightPixels",
    )
)
_LONGEST_XMP = 2**20
_SAME_SHAPE = 0.02
"""Relative difference up to which two aspect ratios are taken for one: sizes get rounded."""


def info_from_gpano(xmp: bytes, shape: tuple[int, int]) -> PanoramaInfo:
    """Read pose and crop from the GPano properties of an XMP packet.

    The signs are ours already: GPano's heading is clockwise from north, its pitch is positive
    above the horizon, and with growing roll the horizon turns counterclockwise in the image, which
    is a camera turning clockwise, right side down. The heading is that of the whole frame's centre,
    as cropping is to leave it unchanged. A ``PoseHeadingDegrees`` of exactly 0 counts as not set,
    because cameras without a compass write it. ``InitialView...`` is where a viewer should look
    first, and no pose.

    Pixel sizes may be those of the image before it was shrunk, so they are used as fractions.

    Parameters
    ----------
    xmp
        The packet: attributes or elements, any prefix bound to the GPano namespace. Properties
        that are missing or make no sense are as good as not said.
    shape
        Height and width of the image in pixels.

    Raises
    ------
    PanoramaError
        If the projection is not equirectangular, or the packet speaks of a crop of another shape
        than the image has.
    """
    said = _gpano_properties(xmp[:_LONGEST_XMP])
    projection = said.get(b"ProjectionType", b"").decode("utf-8", "replace")
    if projection and projection.lower() != "equirectangular":
        raise PanoramaError(
            f"a {projection[:40]} panorama, as its GPano metadata says: convert it to"
            f" equirectangular first"
        )
    heading = _finite(said.get(b"PoseHeadingDegrees"))
    pitch = _finite(said.get(b"PosePitchDegrees"))
    roll = _finite(said.get(b"PoseRollDegrees"))
    vertical_fov, horizontal_fov = _gpano_crop(said, shape)
    return PanoramaInfo.said_by(
        GPANO,
        heading=heading % 360 if heading and abs(heading) <= 360 else None,
        pitch=pitch if pitch is not None and abs(pitch) <= 90 else None,
        roll=roll if roll is not None and abs(roll) <= 180 else None,
        vertical_fov=vertical_fov,
        horizontal_fov=horizontal_fov,
    )


def _gpano_properties(xmp: bytes) -> dict[bytes, bytes]:
    """Names and values of the GPano properties; of two with one name the first.

    Not parsed as XML: packets in the wild are often not well-formed, and XML parsers can be made
    to take gigabytes. All repetitions here are bounded or end at a character they exclude.
    """
    prefix = found[1] if (found := _GPANO_PREFIX.search(xmp)) else b"GPano"
    properties: dict[bytes, bytes] = {}
    for match in re.finditer(
        rb"""(?<!/)\b%s:(\w{1,60})(?:\s{0,9}=\s{0,9}["']([^"'<]*)["']|[^<>]{0,200}>([^<]*)<)"""
        % prefix,
        xmp,
    ):
        value = match[2] if match[2] is not None else match[3]
        properties.setdefault(match[1], value.strip())
    return properties


def _gpano_crop(
    said: dict[bytes, bytes], shape: tuple[int, int]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Vertical and horizontal field of view in degrees; None where not said."""
    numbers = [number for name in _CROP if (number := _finite(said.get(name))) is not None]
    if len(numbers) < len(_CROP):
        return None, None
    left, top, width, height, full_width, full_height = numbers
    inside = left + width <= full_width * 1.001 and top + height <= full_height * 1.001
    if min(left, top) < 0 or min(width, height) <= 0 or not inside:
        return None, None
    all_around = width >= full_width * 0.999
    all_rows = height >= full_height * 0.999
    if abs(width * shape[0] / (height * shape[1]) - 1) > _SAME_SHAPE:
        if all_around and all_rows:  # cropped since by something that does not know GPano
            return None, None
        raise PanoramaError(
            f"its GPano metadata says {width:g} x {height:g} pixels cropped out of"
            f" {full_width:g} x {full_height:g}, but the image is {shape[1]} x {shape[0]}, another"
            f" shape: correct or remove the metadata"
        )
    horizontal = FULL_CIRCLE
    if not all_around:
        start = 360 * left / full_width - 180
        horizontal = (start, min(180.0, start + 360 * width / full_width))
    # Some writers put a full height that is not half the full width. Pixels are square in an
    # equirectangular image, so the width gives the scale; the frame is centred on the horizon.
    half_as_high = abs(full_width / full_height / 2 - 1) <= _SAME_SHAPE
    if all_rows:
        return FULL_SPHERE if half_as_high else None, horizontal
    scale = 180 / full_height if half_as_high else 360 / full_width
    upper = min(90.0, (full_height / 2 - top) * scale)
    lower = max(-90.0, (full_height / 2 - top - height) * scale)
    return (upper, lower) if upper > lower else None, horizontal


# --- EXIF ---

_EXIF_DATE = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d))?", re.ASCII)


def info_from_exif(exif: Image.Exif) -> PanoramaInfo:
    """Read position, direction and date from EXIF.

    ``GPSImgDirection`` counts as heading whether it refers to true or to magnetic north: the
    declination is mostly below the compass's own error. The date is ``DateTimeOriginal``, the
    capture; the others tell of later edits. What is missing, malformed or out of range is None.
    """
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude, longitude = _position(
        _gps_angle(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS"),
        _gps_angle(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW"),
    )
    heading = _finite(gps.get(ExifTags.GPS.GPSImgDirection))
    return PanoramaInfo.said_by(
        EXIF,
        heading=heading % 360 if heading is not None and 0 <= heading <= 360 else None,
        latitude=latitude,
        longitude=longitude,
        date=_exif_date(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)),
    )


def _gps_angle(gps: dict[int, Any], tag: int, reference: int, signs: str) -> float | None:
    """Degrees of a GPS coordinate; None without its reference, which has the sign."""
    parts, letter = gps.get(tag), gps.get(reference)
    if isinstance(letter, bytes):
        letter = letter.decode("ascii", "replace")
    letter = letter.strip("\0 ").upper() if isinstance(letter, str) else ""
    if len(letter) != 1 or letter not in signs:
        return None
    numbers = [_finite(part) for part in (parts if isinstance(parts, tuple) else (parts,))]
    degrees = 0.0
    for number, unit in zip(numbers, (1, 60, 3600), strict=False):
        if number is None or number < 0:
            return None
        degrees += number / unit
    return degrees if letter == signs[0] else -degrees


def _exif_date(value: Any) -> str | None:
    """ISO 8601 of an EXIF date ``'2021:07:29 11:16:44'``; None if it is no date."""
    if not (isinstance(value, str) and (match := _EXIF_DATE.match(value.strip("\0 ")))):
        return None
    date = "-".join(match.groups()[:3]) + (f"T{match[4]}" if match[4] else "")
    try:
        datetime.fromisoformat(date)
    except ValueError:
        return None
    return date
