"""What files, names and poses.csv say; the numbers are those of real files and of the formats."""

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from bevgen.errors import PanoramaError
from bevgen.images.metadata import (
    FILE_NAME,
    GPANO,
    POSES_FILE,
    PanoramaInfo,
    info_from_exif,
    info_from_gpano,
    info_from_name,
    info_from_row,
)
from bevgen.tables import PoseRow
from tests.helpers.image_files import exif, gpano, gpano_crop

SHAPE = (512, 1024)


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
    ],
)
def test_exif_dates(written, expected):
    assert read(date=written).date == expected
