"""What a panorama's file, its name and poses.csv say about its pose and position, and who says it.

Several sources may speak of one panorama. The first that says something takes precedence, field by
field (`PanoramaInfo.fallback`), and each value keeps the name of its source:

    poses.csv > options > preset > GPano XMP > EXIF > other XMP > file name

The position is one field in this: latitude and longitude are said together or not at all.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

from bevgen.errors import PanoramaError
from bevgen.geometry import FULL_CIRCLE, FULL_SPHERE
from bevgen.tables import PoseRow

logger = logging.getLogger(__name__)


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
    unsigned_position
        Degrees of latitude and longitude of which nothing says in which hemispheres they are. Only
        XMP has them; they are no position.
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
    unsigned_position: tuple[float, float] | None = None
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
        if other == NOTHING:
            return self
        if self == NOTHING:
            return other
        values = {
            name: getattr(other, name) if (said := getattr(self, name)) is None else said
            for name in FIELDS
        }
        added = {n: o for n, o in other.origins.items() if getattr(self, n) is None}
        return PanoramaInfo(**values, origins={**self.origins, **added})


POSES_FILE, GPANO, EXIF, XMP = "poses file", "GPano", "EXIF", "XMP"
FILE_NAME = "file name"
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
    name = source.rpartition("/")[2]
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


# --- XMP, its GPano (Photo Sphere) properties first ---

_CROP = (
    "CroppedAreaLeftPixels",
    "CroppedAreaTopPixels",
    "CroppedAreaImageWidthPixels",
    "CroppedAreaImageHeightPixels",
    "FullPanoWidthPixels",
    "FullPanoHeightPixels",
)
_NUMBER = re.compile(r"([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?)(?:/(\d+))?", re.ASCII)
_HALVES = {"Latitude": "NS", "Longitude": "EW"}
_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")
_SAME_SHAPE = 0.02
"""Relative difference up to which two aspect ratios are taken for one: sizes get rounded."""


def info_from_gpano(said: Mapping[str, str], shape: tuple[int, int]) -> PanoramaInfo:
    """Read pose and crop from the GPano properties of XMP.

    The signs are ours already: GPano's heading is clockwise from north, its pitch is positive
    above the horizon, and with growing roll the horizon turns counterclockwise in the image, which
    is a camera turning clockwise, right side down. The heading is that of the whole frame's centre,
    as cropping is to leave it unchanged. A ``PoseHeadingDegrees`` of exactly 0 counts as not set,
    because cameras without a compass write it. ``InitialView...`` is where a viewer should look
    first, and no pose.

    Pixel sizes may be those of the image before it was shrunk, so they are used as fractions.

    Parameters
    ----------
    said
        What `bevgen.images.xmp.xmp_properties` returns. Properties that are missing or make no
        sense are as good as not said.
    shape
        Height and width of the image in pixels.

    Raises
    ------
    PanoramaError
        If the projection is not equirectangular, or they speak of a crop of another shape
        than the image has.
    """
    projection = said.get("GPano:ProjectionType", "")
    if projection and projection.lower() != "equirectangular":
        raise PanoramaError(
            f"a {projection[:40]} panorama, as its GPano metadata says: convert it to"
            f" equirectangular first"
        )
    heading = _xmp_number(said.get("GPano:PoseHeadingDegrees"))
    pitch = _xmp_number(said.get("GPano:PosePitchDegrees"))
    roll = _xmp_number(said.get("GPano:PoseRollDegrees"))
    vertical_fov, horizontal_fov = _gpano_crop(said, shape)
    return PanoramaInfo.said_by(
        GPANO,
        heading=heading % 360 if heading and abs(heading) <= 360 else None,
        pitch=pitch if pitch is not None and abs(pitch) <= 90 else None,
        roll=roll if roll is not None and abs(roll) <= 180 else None,
        vertical_fov=vertical_fov,
        horizontal_fov=horizontal_fov,
    )


def info_from_xmp(said: Mapping[str, str]) -> PanoramaInfo:
    """Read position, direction and date from what XMP repeats of EXIF, or alone has.

    Positions are ``47,22.5N`` or ``47,22,30N``, degrees, minutes and seconds. Decimal degrees,
    which the standard does not know, count if a letter or a sign says the hemisphere; the sign of
    one of the two numbers says that the other has none because it is positive. DJI's own numbers
    are signed, by their definition.

    Parameters
    ----------
    said
        What `bevgen.images.xmp.xmp_properties` returns.
    """
    signed = any(said.get(f"exif:GPS{name}", "").startswith(("+", "-")) for name in _HALVES)
    latitude, longitude = _xmp_position(said, signed)
    if latitude is None:
        numbers = [said.get(f"drone-dji:Gps{name}") for name in ("Latitude", "Longitude")]
        # As DJI's older firmware spells it.
        numbers[1] = numbers[1] or said.get("drone-dji:GpsLongtitude")
        latitude, longitude = _position(*map(_xmp_number, numbers))
    unsigned = _xmp_position(said, signed=True) if latitude is None else (None, None)
    heading = _xmp_number(said.get("exif:GPSImgDirection"))
    dates = (date for name in _DATES if (date := _date(said.get(name))) is not None)
    return PanoramaInfo.said_by(
        XMP,
        heading=heading % 360 if heading is not None and 0 <= heading <= 360 else None,
        latitude=latitude,
        longitude=longitude,
        unsigned_position=None if unsigned[0] is None else unsigned,
        date=next(dates, None),
    )


def _xmp_number(text: str | None) -> float | None:
    """Return a number written with a point or a comma, or as a fraction; None if it is none."""
    if text is None or not (match := _NUMBER.fullmatch(text.strip("\0 °"))):
        return None
    number = _finite(match[1].replace(",", "."))
    below = _finite(match[2] or 1)
    return _finite(number / below) if number is not None and below else None


def _xmp_position(said: Mapping[str, str], signed: bool) -> tuple[float, float] | tuple[None, None]:
    """Return EXIF's position as XMP repeats it; ``signed`` takes bare numbers for signed ones."""
    return _position(
        *(
            _xmp_angle(
                said.get(f"exif:GPS{name}", ""), said.get(f"exif:GPS{name}Ref", ""), signs, signed
            )
            for name, signs in _HALVES.items()
        )
    )


def _xmp_angle(text: str, reference: str, signs: str, signed: bool) -> float | None:
    """Degrees of a coordinate; None where nothing says its hemisphere, or a part is no number."""
    if text and text[-1].isalpha():
        text, reference = text[:-1].rstrip(), text[-1]
    hemisphere = _hemisphere(reference, signs)
    if hemisphere is None:
        # With a comma it may be degrees and minutes, or decimals as some countries write them.
        return _xmp_number(text) if signed and "," not in text else None
    numbers = [_xmp_number(part) for part in text.split(",")]
    if len(numbers) > 3 or any(number is None for number in numbers):
        return None
    return _degrees(numbers, hemisphere)


def _gpano_crop(
    said: Mapping[str, str], shape: tuple[int, int]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Vertical and horizontal field of view in degrees; None where not said."""
    found = (_xmp_number(said.get(f"GPano:{name}")) for name in _CROP)
    numbers = [number for number in found if number is not None]
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

_DATE = re.compile(
    r"(\d{4})[:/-](\d\d)(?:[:/-](\d\d)(?:[ T](\d\d:\d\d)(:\d\d)?(?:\.\d+)?"
    r" ?(Z|[+-]\d\d:?\d\d)?)?)?",
    re.ASCII,
)
_ZONE = re.compile(r"Z|[+-]\d\d:?\d\d", re.ASCII)
_HEMISPHERES = {
    "N": ("N", "NORTH", "NORD", "NORTE"),
    "S": ("S", "SOUTH", "SUD", "SÜD", "SUR", "SUL"),
    "E": ("E", "EAST", "EST", "ESTE", "OST"),
    "W": ("W", "WEST", "OUEST", "OESTE", "OVEST"),
}


def info_from_exif(exif: Image.Exif) -> PanoramaInfo:
    """Read position, direction and date from EXIF.

    ``GPSImgDirection`` counts as heading whether it refers to true or to magnetic north: the
    declination is mostly below the compass's own error. The date is ``DateTimeOriginal``, the
    capture, with its zone where ``OffsetTimeOriginal`` says it; the others tell of later edits.
    What is missing, malformed or out of range is None, and takes nothing else with it: of a
    position whose seconds are no number, as some cameras write, degrees and minutes count.
    """
    gps, more = _block(exif, ExifTags.IFD.GPSInfo), _block(exif, ExifTags.IFD.Exif)
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
        date=_date(
            more.get(ExifTags.Base.DateTimeOriginal), more.get(ExifTags.Base.OffsetTimeOriginal)
        ),
    )


def _block(exif: Image.Exif, tag: int) -> dict[int, Any]:
    """Return a part of EXIF; empty if it is damaged, where Pillow raises nearly anything."""
    try:
        return exif.get_ifd(tag)
    except Exception as error:
        logger.debug("a part of EXIF is damaged and left aside: %s", error)
        return {}


def _gps_angle(gps: dict[int, Any], tag: int, reference: int, signs: str) -> float | None:
    """Degrees of a GPS coordinate; None without its reference, which has the sign."""
    parts, word = gps.get(tag), gps.get(reference)
    if isinstance(word, bytes):
        word = word.decode("utf-8", "replace")
    hemisphere = _hemisphere(word, signs) if isinstance(word, str) else None
    if hemisphere is None:
        return None
    numbers = [_finite(part) for part in (parts if isinstance(parts, tuple) else (parts,))]
    return _degrees(numbers, hemisphere)


def _hemisphere(word: str, signs: str) -> str | None:
    """Return the one of two letters that a letter or word means; None for any other."""
    first = word.strip("\0 ").upper().partition(" ")[0]
    return next((letter for letter in signs if first in _HEMISPHERES[letter]), None)


def _degrees(parts: Sequence[float | None], hemisphere: str) -> float | None:
    """Degrees of degrees, minutes and seconds; broken seconds are as good as none.

    60 minutes or seconds are what 59.99 is rounded to; more are something else, such as decimals.
    """
    if len(parts) > 2 and parts[2] is None:
        parts = parts[:2]
    degrees = 0.0
    for number, unit in zip(parts, (1, 60, 3600), strict=False):
        if number is None or number < 0 or (unit > 1 and number > 60):
            return None
        degrees += number / unit
    if not parts:
        return None
    return degrees if hemisphere in "NE" else -degrees


def _date(value: Any, zone: Any = None) -> str | None:
    """ISO 8601 of a date such as ``2021:07:29 11:16:44+02:00``; None if it is no date.

    A time that does not exist is left out and the day kept.
    """
    if not (isinstance(value, str) and (match := _DATE.match(value.strip("\0 ")))):
        return None
    year, month, day, minute, second, own_zone = match.groups()
    if day is None:
        return f"{year}-{month}" if 1 <= int(month) <= 12 and int(year) else None
    date = f"{year}-{month}-{day}"
    zone = zone.strip("\0 ") if isinstance(zone, str) else ""
    zone = own_zone or (zone if _ZONE.fullmatch(zone) else "")
    time = f"T{minute}{second or ''}" if minute else ""
    for text in (f"{date}{time}{zone if time else ''}", f"{date}{time}", date):
        try:
            datetime.fromisoformat(text)
        except ValueError:
            continue
        return text
    return None
