"""What files, names and poses.csv say; the numbers are those of real files and of the formats."""

import zlib
from contextlib import suppress

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from bevgen.errors import PanoramaError
from bevgen.images import metadata
from bevgen.images.decoding import read_image
from bevgen.images.metadata import (
    FILE_NAME,
    GPANO,
    POSES_FILE,
    PanoramaInfo,
    info_from_exif,
    info_from_name,
    info_from_row,
    info_from_xmp,
)
from bevgen.images.xmp import xmp_properties
from bevgen.tables import PoseRow
from tests.helpers.image_files import chunk, encoded, exif, gpano, gpano_crop, scene, tiff

SHAPE = (512, 1024)


def info_from_gpano(packet, shape):
    return metadata.info_from_gpano(xmp_properties([packet]), shape)


def test_fallback_fills_gaps_only():
    high = PanoramaInfo(heading=0.0, date="2022-08")
    low = PanoramaInfo(heading=90.0, pitch=1.0, date="2020", latitude=1.0, longitude=2.0)
    assert high.fallback(low) == PanoramaInfo(
        heading=0.0, pitch=1.0, latitude=1.0, longitude=2.0, date="2022-08"
    )
    assert PanoramaInfo().fallback(low) == low
    assert low.fallback(PanoramaInfo()) == low


# --- names ---


def test_each_value_keeps_its_source():
    """The first source that says a value is named with it, whatever came between."""
    row = info_from_row(PoseRow("a.jpg", pitch=1.0, height=2.5))
    gpano_said = PanoramaInfo.said_by(GPANO, heading=10.0, pitch=9.0, roll=None)
    name = info_from_name("40.75,-73.97_2022-08_mpyEVlsley4foc-t1ndVpA_d62_z3.jpg")
    merged = row.fallback(PanoramaInfo()).fallback(gpano_said).fallback(name)
    assert (merged.heading, merged.pitch, merged.roll, merged.height) == (10.0, 1.0, None, 2.5)
    assert merged.origins == {
        "pitch": POSES_FILE,
        "height": POSES_FILE,
        "heading": GPANO,
        "latitude": FILE_NAME,
        "longitude": FILE_NAME,
        "date": FILE_NAME,
    }
    assert info_from_row(None) == PanoramaInfo()
    assert row == PanoramaInfo(pitch=1.0, height=2.5)  # whoever says it


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "40.75290377,-73.97958215_2022-08_mpyEVlsley4foc-t1ndVpA_d62_z3.jpg",
            PanoramaInfo(
                heading=62.0, latitude=40.75290377, longitude=-73.97958215, date="2022-08"
            ),
        ),
        (
            "Brisbane/-27.4,153.02_2019-01_-_d1_z3_aaaaaaaaaaaaaa_d359_z3.JPG",
            PanoramaInfo(heading=359.0, latitude=-27.4, longitude=153.02, date="2019-01"),
        ),
        (
            "-27.4,153.02_2019-01_abc_d-90_z3.jpg",
            PanoramaInfo(heading=270.0, latitude=-27.4, longitude=153.02, date="2019-01"),
        ),
        (
            "Chicago/panorama/KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg",
            PanoramaInfo(latitude=41.854423, longitude=-87.682638),
        ),
        ("-_uqJn_PuuZq3GERzhqG5Q,41.8,-87.6,.jpg", PanoramaInfo(latitude=41.8, longitude=-87.6)),
        ("id,91.5,-87.6,.jpg", PanoramaInfo()),
        ("id,0.0,0.0,.jpg", PanoramaInfo()),
        ("40.7,-73.9_2022-13_abc_d62_z3.jpg", PanoramaInfo()),
        ("satellite_41.85_-87.68.png", PanoramaInfo()),
        ("_bzZ8MB0vsgnlMx2MPDDKA_grdView.jpg", PanoramaInfo()),
        ("0000001.jpg", PanoramaInfo()),
    ],
)
def test_names_of_datasets(name, expected):
    assert info_from_name(name) == expected


# --- GPano ---


@pytest.mark.parametrize("elements", [False, True])
@pytest.mark.parametrize("prefix", ["GPano", "ns1"])
def test_gpano_pose(elements, prefix):
    packet = gpano(
        elements,
        prefix,
        ProjectionType="equirectangular",
        PoseHeadingDegrees="350.5",
        PosePitchDegrees="-3.25",
        PoseRollDegrees="2",
        InitialViewHeadingDegrees="77",
    )
    assert info_from_gpano(packet, SHAPE) == PanoramaInfo(heading=350.5, pitch=-3.25, roll=2.0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"PoseHeadingDegrees": "0.0"}, PanoramaInfo()),  # what cameras without a compass write
        ({"PoseHeadingDegrees": "0"}, PanoramaInfo()),
        ({"InitialViewHeadingDegrees": "77"}, PanoramaInfo()),
        ({"PoseHeadingDegrees": "-10"}, PanoramaInfo(heading=350.0)),
        ({"PoseHeadingDegrees": "360"}, PanoramaInfo(heading=0.0)),
        ({"PoseHeadingDegrees": "nan", "PosePitchDegrees": "inf"}, PanoramaInfo()),
        ({"PoseHeadingDegrees": "12 degrees", "PoseRollDegrees": ""}, PanoramaInfo()),
        ({"PosePitchDegrees": "91", "PoseRollDegrees": "-181"}, PanoramaInfo()),
        ({"PosePitchDegrees": "0", "PoseRollDegrees": "0.0"}, PanoramaInfo(pitch=0.0, roll=0.0)),
        ({"ProjectionType": "Equirectangular"}, PanoramaInfo()),
    ],
)
def test_gpano_values(said, expected):
    assert info_from_gpano(gpano(**said), SHAPE) == expected
    assert info_from_gpano(gpano(elements=True, **said), SHAPE) == expected


@pytest.mark.parametrize("packet", [b"", b"\0" * 9, b"<x:xmpmeta", b"GPano:PoseHeadingDegrees=67"])
def test_packets_that_say_nothing(packet):
    assert info_from_gpano(packet, SHAPE) == PanoramaInfo()


def test_packet_that_is_not_well_formed_is_read():
    packet = gpano(PoseHeadingDegrees="67.0").replace(b"</rdf:Description>", b"&<oops")
    assert info_from_gpano(packet, SHAPE).heading == 67.0


def test_other_projections_are_refused():
    with pytest.raises(PanoramaError, match=r"a cylindrical panorama"):
        info_from_gpano(gpano(ProjectionType="cylindrical"), SHAPE)


@pytest.mark.parametrize(
    ("crop", "shape", "vertical", "horizontal"),
    [
        # The whole frame, its sizes those before the image was shrunk.
        ((0, 0, 8704, 4352, 8704, 4352), (512, 1024), (90, -90), (-180, 180)),
        ((0, 0, 5760, 2880, 5760, 2880), (1024, 2048), (90, -90), (-180, 180)),
        # Rows: a quarter off the top, an eighth off the bottom.
        ((0, 1000, 8000, 2500, 8000, 4000), (250, 800), (45, -67.5), (-180, 180)),
        # Columns: the right half of the frame; then the middle.
        ((4000, 0, 4000, 4000, 8000, 4000), (400, 400), (90, -90), (0, 180)),
        ((2000, 1000, 4000, 2000, 8000, 4000), (200, 400), (45, -45), (-90, 90)),
        # Rounding of a whole turn.
        ((0, 500, 7999, 3000, 8000, 4000), (300, 800), (67.5, -67.5), (-180, 180)),
        # A frame lower than half its width is centred on the horizon: 1000 of 2000 rows at
        # 360 / 8000 degrees each, 200 of them above the horizon.
        ((0, 800, 8000, 1000, 8000, 2000), (100, 800), (9, -36), (-180, 180)),
        # If all its rows are there, nobody knows where the horizon is.
        ((0, 0, 8000, 2000, 8000, 2000), (200, 800), None, (-180, 180)),
        # Cropped later by a program that left the metadata as they were: the image decides.
        ((0, 0, 8000, 4000, 8000, 4000), (300, 800), None, None),
        # Nonsense says nothing.
        ((-5, 0, 4000, 2000, 8000, 4000), (200, 400), None, None),
        ((0, 0, 0, 0, 8000, 4000), (200, 400), None, None),
        ((6000, 0, 4000, 4000, 8000, 4000), (400, 400), None, None),
        ((0, 0, 4000, 2000, 0, 0), (200, 400), None, None),
        (("", 0, 4000, 2000, 8000, 4000), (200, 400), None, None),
    ],
)
def test_gpano_crop(crop, shape, vertical, horizontal):
    info = info_from_gpano(gpano(**gpano_crop(*crop)), shape)
    for said, expected in (
        (info.vertical_fov, vertical),
        (info.horizontal_fov, horizontal),
    ):
        assert said == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_crop_of_another_shape_is_refused():
    packet = gpano(**gpano_crop(0, 1000, 8000, 2500, 8000, 4000))
    with pytest.raises(PanoramaError, match=r"8000 x 2500 .* image is 1024 x 512"):
        info_from_gpano(packet, SHAPE)


# --- EXIF ---

PLACE = {1: "N", 2: (49.0, 0.0, 24.835125), 3: "W", 4: (1.0, 55.0, 9.082643)}


def read(**said):
    block = Image.Exif()
    block.load(exif(**said))
    return info_from_exif(block)


def test_exif_position_direction_and_date():
    info = read(gps=PLACE | {16: "T", 17: 350.44}, date="2021:07:29 11:16:48")
    assert info.latitude == pytest.approx(49.0068986, abs=1e-7)
    assert info.longitude == pytest.approx(-1.9191896, abs=1e-7)
    assert info.heading == pytest.approx(350.44, abs=1e-6)
    assert info.date == "2021-07-29T11:16:48"


def test_magnetic_direction_counts():
    assert read(gps={16: "M", 17: 90.0}).heading == 90


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {k: v for k, v in PLACE.items() if k != 3},  # no reference, no sign
        PLACE | {1: "X"},
        PLACE | {2: (91.0, 0.0, 0.0)},
        PLACE | {4: (180.0, 30.0, 0.0)},
        PLACE | {2: (49.0, IFDRational(1, 0), 0.0)},
        PLACE | {2: (IFDRational(0, 0), 30.0, 0.0)},
        PLACE | {1: "Ost"},
        PLACE | {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},  # no fix
    ],
)
def test_positions_that_are_none(gps):
    info = read(gps=gps)
    assert (info.latitude, info.longitude) == (None, None)


def test_position_on_the_equator_counts():
    info = read(gps=PLACE | {2: (0.0, 0.0, 0.0)})
    assert info.latitude == 0


@pytest.mark.parametrize("direction", [IFDRational(0, 0), IFDRational(1, 0), 361.0])
def test_directions_that_are_none(direction):
    assert read(gps={17: direction}).heading is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2020:09:13 15:45:41\0", "2020-09-13T15:45:41"),
        ("2020-09-13T15:45:41", "2020-09-13T15:45:41"),
        ("2020:09:13", "2020-09-13"),
        ("0000:00:00 00:00:00", None),
        ("2020:02:30 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
        ("2024:06:01 10:11:12+09:00", "2024-06-01T10:11:12+09:00"),
        ("2024-06-01T10:11:12.25Z", "2024-06-01T10:11:12Z"),
        ("2024:06:01 10:11", "2024-06-01T10:11"),
        ("2024/06/01 10:11:12", "2024-06-01T10:11:12"),
        ("2024:06:01 24:00:00", "2024-06-01"),
        ("2024:06:30 23:59:60", "2024-06-30"),
    ],
)
def test_exif_dates(written, expected):
    assert read(date=written).date == expected


def test_an_exif_date_keeps_its_zone():
    assert read(date="2024:06:01 10:11:12", zone="+09:00").date == "2024-06-01T10:11:12+09:00"
    assert read(date="2024:06:01 10:11:12", zone="   :  ").date == "2024-06-01T10:11:12"


@pytest.mark.parametrize(
    ("changed", "latitude", "longitude"),
    [
        ({2: (48.0, 30.51, IFDRational(0, 0))}, 48.5085, -1.9191896),
        ({2: (48.0, 30.6)}, 48.51, -1.9191896),
        ({1: "North", 3: "West"}, 49.0068986, -1.9191896),
        ({1: "South", 3: "East"}, -49.0068986, 1.9191896),
        ({1: "Sud", 3: "Ouest"}, -49.0068986, -1.9191896),
        ({1: "s\0", 3: "e\0"}, -49.0068986, 1.9191896),
    ],
)
def test_what_is_broken_of_a_position_loses_only_itself(changed, latitude, longitude):
    info = read(gps=PLACE | changed, date="2021:07:29 11:16:48")
    assert (info.latitude, info.longitude) == pytest.approx((latitude, longitude), abs=1e-7)
    assert info.date == "2021-07-29T11:16:48"


def test_a_broken_position_keeps_direction_and_date():
    nothing = IFDRational(0, 0)
    info = read(gps=PLACE | {2: (nothing,) * 3, 17: 77.0}, date="2021:07:29 11:16:48")
    assert info == PanoramaInfo(heading=77.0, date="2021-07-29T11:16:48")


# --- XMP that repeats EXIF ---

URIS = {
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
}


def packet(**said):
    """XMP with attributes; ``exif_GPSLatitude`` is exif:GPSLatitude."""
    names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in URIS.items())
    values = "".join(f' {name.replace("_", ":", 1)}="{value}"' for name, value in said.items())
    return f'<?xpacket?><x:xmpmeta xmlns:x="adobe:ns:meta/"><d{names}{values}/></x:xmpmeta>'


WHOLE = packet(
    exif_GPSLatitude="47,22.5N",
    exif_GPSLongitude="8,30,36W",
    exif_GPSImgDirection="770/10",
    xmp_CreateDate="2024-06-01T10:11:12+09:00",
    GPano_PosePitchDegrees="1,5",
)
EXPECTED = PanoramaInfo(
    heading=77.0, pitch=1.5, latitude=47.375, longitude=-8.51, date="2024-06-01T10:11:12+09:00"
)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("47,22.5N", None, 47.375),
        ("47,22,30S", None, -47.375),
        ("47.375 N", None, 47.375),
        ("47.375", "South", -47.375),
        ("-47.375", None, -47.375),
        ("47.375", None, None),  # which half of the world?
        ("-47,37", None, None),  # minutes, or hundredths of a degree?
        ("47,60.0N", None, 48.0),  # 59.999 minutes, rounded
        ("47,375N", None, None),  # a decimal comma
        ("47,22.5E", None, None),
        ("47,x,3N", None, None),
        ("N", None, None),
        ("", None, None),
        ("91.5N", None, None),
    ],
)
def test_positions_of_xmp(text, reference, expected):
    said = {"exif:GPSLatitude": text, "exif:GPSLongitude": "8,0.0E"}
    info = info_from_xmp(said | ({"exif:GPSLatitudeRef": reference} if reference else {}))
    assert info.latitude == (None if expected is None else pytest.approx(expected))
    assert (info.longitude is None) == (expected is None)


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected", "unsigned"),
    [
        ("48.137", "-11.575", (48.137, -11.575), None),
        ("-48.137", "11.575", (-48.137, 11.575), None),
        ("+48.137", "11.575", (48.137, 11.575), None),
        ("48.137", "11.575", None, (48.137, 11.575)),
        ("48.137", "11,34.5E", None, (48.137, 11.575)),
        ("48,8.22", "11,34.5", None, None),
        ("98.137", "11.575", None, None),
        ("0.0", "0.0", None, None),
        ("48.137", "", None, None),
    ],
)
def test_a_sign_of_xmp_counts_for_both_numbers(latitude, longitude, expected, unsigned):
    info = info_from_xmp({"exif:GPSLatitude": latitude, "exif:GPSLongitude": longitude})
    assert info.unsigned_position == unsigned
    assert (info.latitude, info.longitude) == (expected or (None, None))


@pytest.mark.parametrize("spelling", ["GpsLongitude", "GpsLongtitude"])
@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        ("48.137", "11.575", (48.137, 11.575)),
        ("+48.137", "-11.575", (48.137, -11.575)),
        ("-90.5", "11.575", (None, None)),
        ("0.0", "0.0", (None, None)),
    ],
)
def test_positions_of_drones_are_signed(spelling, latitude, longitude, expected):
    uri = "http://www.dji.com/drone-dji/1.0/"
    text = f"""<d xmlns:drone-dji="{uri}" drone-dji:GpsLatitude="{latitude}"
        drone-dji:{spelling}="{longitude}"/>"""
    info = info_from_xmp(xmp_properties([text.encode()]))
    assert (info.latitude, info.longitude) == expected


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
@pytest.mark.parametrize("lead", ["", "\n  "])
def test_xmp_in_any_of_its_encodings(encoding, lead):
    said = xmp_properties([(lead + WHOLE).encode(encoding)])
    info = metadata.info_from_gpano(said, SHAPE).fallback(info_from_xmp(said))
    assert info == EXPECTED


def test_xmp_takes_no_entities():
    bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>"
    said = xmp_properties([(bomb + packet(exif_GPSImgDirection="&b;")).encode()])
    assert info_from_xmp(said) == PanoramaInfo()


def segment(kind, body):
    return b"\xff\xe1" + (len(kind) + len(body) + 2).to_bytes(2, "big") + kind + body


def extended(text, guid=b"0123456789ABCDEF" * 2, size=100):
    """APP1 segments of extended XMP, the last one first."""
    parts = [(k, text[k : k + size]) for k in range(0, len(text), size)]
    head = guid + len(text).to_bytes(4, "big")
    kind = b"http://ns.adobe.com/xmp/extension/\0"
    return b"".join(segment(kind, head + k.to_bytes(4, "big") + p) for k, p in reversed(parts))


def itxt(text, compressed):
    body = b"XML:com.adobe.xmp\0" + bytes([compressed, 0]) + b"\0\0"
    return chunk(b"iTXt", body + (zlib.compress(text) if compressed else text))


def carriers():
    """Files of one image with `WHOLE` in each of the places that the standard names."""
    standard, whole = b"http://ns.adobe.com/xap/1.0/\0", WHOLE.encode()
    jpeg, plain = encoded(scene(), "JPEG"), encoded(scene(), "PNG")
    front, ends = jpeg[:2], jpeg[2:]
    wide = WHOLE.encode("utf-16")
    yield "jpeg", front + segment(standard, whole) + ends
    yield "jpeg utf-16", front + segment(standard, wide) + ends
    other = packet(xmp_CreatorTool="x").encode()
    yield "two packets", front + segment(standard, whole) + segment(standard, other) + ends
    note = packet(xmpNote_HasExtendedXMP="0123456789ABCDEF" * 2).encode()
    yield "extended", front + segment(standard, note) + extended(whole) + ends
    yield "extended first", front + extended(whole) + segment(standard, note) + ends
    yield "png", plain[:33] + itxt(whole, False) + plain[33:]
    yield "png compressed", plain[:33] + itxt(whole, True) + plain[33:]
    yield "png behind the pixels", plain[:-12] + itxt(whole, False) + plain[-12:]
    two = itxt(whole, False) + itxt(other, False)
    yield "png with two", plain[:33] + two + plain[33:]
    yield "webp", encoded(scene(), "WEBP", xmp=whole)
    yield "tiff bytes", tiff(scene(), extratags=[(700, "B", len(whole), whole, True)])
    yield "tiff undefined", tiff(scene(), extratags=[(700, 7, len(whole), whole, True)])
    yield "tiff utf-16", tiff(scene(), extratags=[(700, 7, len(wide), wide, True)])
    yield "avif", encoded(scene(), "AVIF", xmp=whole)


@pytest.mark.parametrize(("name", "data"), list(carriers()))
def test_xmp_wherever_it_stands(name, data, tmp_path):
    (tmp_path / "image").write_bytes(data)
    assert read_image(tmp_path / "image")[1] == EXPECTED
    assert read_image(tmp_path / "image")[1].origins["latitude"] == "XMP"


def test_an_extension_that_no_packet_names_is_left_aside(tmp_path):
    jpeg = encoded(scene(), "JPEG")
    (tmp_path / "image").write_bytes(jpeg[:2] + extended(WHOLE.encode()) + jpeg[2:])
    assert read_image(tmp_path / "image")[1] == PanoramaInfo()


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_cut_metadata_never_stop_an_image(cut, tmp_path):
    """Whatever is cut out of the segments, the image is read or refused with a reason."""
    jpeg = encoded(scene(), "JPEG")
    data = jpeg[:2] + segment(b"http://ns.adobe.com/xap/1.0/\0", WHOLE.encode()) + jpeg[2:]
    (tmp_path / "image").write_bytes(data[:cut] + data[cut + 5 :])
    with suppress(PanoramaError):
        read_image(tmp_path / "image")


def test_exif_overrides_what_xmp_repeats(tmp_path):
    data = encoded(scene(), "JPEG", xmp=WHOLE.encode(), exif=exif(gps=PLACE | {17: 5.0}))
    (tmp_path / "image").write_bytes(data)
    info = read_image(tmp_path / "image")[1]
    assert (info.heading, info.origins["heading"], info.origins["date"]) == (5.0, "EXIF", "XMP")
    assert info.latitude == pytest.approx(49.0068986, abs=1e-7)
