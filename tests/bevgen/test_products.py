"""What settings store, refuse, and make of one image."""

import json

import numpy as np
import pytest

from bevgen import PRESETS, BevSettings, ImageSettings, InputError, PanoramaError, project
from bevgen.conversion.products import Bev, check_angles, make_row
from bevgen.conversion.settings import differing_fields
from bevgen.images.metadata import PanoramaInfo

NOTHING = PanoramaInfo()


@pytest.fixture
def panorama():
    return np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)


def test_one_value_has_one_spelling():
    plain = BevSettings(height=2.0, size=64, resolution=1.0, vertical_fov=(30.0, -90.0))
    other = BevSettings(
        height=np.float32(2), size=np.int64(64), resolution=1, vertical_fov=[30, -90]
    )
    assert json.dumps(plain.to_json()) == json.dumps(other.to_json())
    assert not differing_fields(plain.to_json(), other.to_json())
    assert differing_fields(plain.to_json(), BevSettings(height=2.5).to_json())


@pytest.mark.parametrize("name", PRESETS)
def test_options_override_a_preset(name):
    preset = PRESETS[name]
    settings = BevSettings.from_preset(name, height=9.0, size=None)
    assert settings.height == 9.0
    assert (settings.size, settings.resolution) == (preset.size, preset.resolution)
    assert (settings.heading, settings.compat) == (preset.heading, preset.compat)


def test_compat_stores_what_it_draws_and_takes_no_angles(panorama):
    settings = BevSettings(height=1.5, size=32, resolution=0.5, compat="ep-bev")
    assert not settings.antialias
    picture = make_row(settings, panorama, NOTHING, PanoramaInfo(heading=67.0, pitch=3.0))
    assert picture.columns == {"heading": 0, "pitch": 0, "roll": 0, "height": 1.5}
    expected = project(panorama, height=1.5, size=32, resolution=0.5, compat="ep-bev")
    np.testing.assert_array_equal(picture.image, expected)
    with pytest.raises(InputError, match="--compat ep-bev draws without heading"):
        check_angles(settings, PanoramaInfo(heading=10.0))
    check_angles(settings, PanoramaInfo(heading=0.0, height=1.8))


def test_what_is_not_known_is_not_stored_but_drawn_at_zero(panorama):
    picture = make_row(BevSettings(size=32, resolution=0.5), panorama, NOTHING, NOTHING)
    assert picture.columns == {"height": 2.0}
    np.testing.assert_array_equal(picture.image, project(panorama, size=32, resolution=0.5))


def test_a_view_of_the_sky_alone_is_no_view_of_the_ground(panorama):
    settings = BevSettings(size=32, resolution=0.5)
    sky = PanoramaInfo(vertical_fov=(90.0, 5.0), horizontal_fov=(-180.0, 180.0))
    with pytest.raises(PanoramaError, match="shows none of the ground"):
        make_row(settings, panorama, NOTHING, sky)


def test_images_are_resized_to_one_shape(panorama):
    settings = ImageSettings("satellite", 16, 24)
    picture = make_row(settings, panorama, PanoramaInfo(latitude=1.0, longitude=2.0), NOTHING)
    assert picture.image.shape == settings.image_shape == (16, 24, 3)
    assert picture.columns == {"latitude": 1.0, "longitude": 2.0}
    assert abs(picture.image.mean() - panorama.mean()) < 2
    same = make_row(ImageSettings("panorama", 64, 128), panorama, NOTHING, NOTHING)
    np.testing.assert_array_equal(same.image, panorama)
    with pytest.raises(InputError, match="kind must be one of"):
        ImageSettings("street", 16, 16)


def test_panoramas_are_turned_to_north_by_whole_columns(panorama):
    settings = ImageSettings("panorama", 64, 128, turn_to_north=True)
    assert settings.to_json()["turn_to_north"] is True
    assert "turn_to_north" not in ImageSettings("panorama", 64, 128).to_json()
    columns = np.arange(128) + 0.5
    for heading in (45.0, 90.0, 91.0, 359.9, -30.0, 720.5):
        file = PanoramaInfo(heading=heading, pitch=2.0, latitude=1.0, longitude=2.0)
        picture = make_row(settings, panorama, NOTHING, file)
        assert picture.columns == {"heading": 0.0, "latitude": 1.0, "longitude": 2.0}
        # Each column, wherever it is now, looks where it looked when it was taken.
        looked = (heading + (columns - 64) * 360 / 128) % 360
        for column, direction in zip(columns, (columns - 64) * 360 / 128, strict=True):
            taken = np.argmin(np.abs((looked - direction + 180) % 360 - 180))
            np.testing.assert_array_equal(picture.image[:, int(column)], panorama[:, taken])
    unknown = make_row(settings, panorama, NOTHING, NOTHING)
    np.testing.assert_array_equal(unknown.image, panorama)
    assert "heading" not in unknown.columns
    own = make_row(settings, panorama, PanoramaInfo(heading=180.0), PanoramaInfo(heading=7.0))
    np.testing.assert_array_equal(
        own.image, np.concatenate([panorama[:, 64:], panorama[:, :64]], 1)
    )
    crop = PanoramaInfo(heading=10.0, horizontal_fov=(-90.0, 90.0))
    with pytest.raises(PanoramaError, match="shows 180 degrees of the circle"):
        make_row(settings, panorama, NOTHING, crop)
    with pytest.raises(InputError, match="only panoramas can be turned"):
        ImageSettings("satellite", 16, 16, turn_to_north=True)


@pytest.mark.parametrize(
    ("bottom", "metres"),
    [(-90.0, 2 * np.pi / 64), (-45.0, 2 * (0.75 * np.pi / 64) / np.sin(np.pi / 4) ** 2)],
)
def test_a_bev_is_finer_where_a_row_covers_more_ground_than_its_pixels(bottom, metres):
    """A row is seen finest where it is lowest: height times its angle, over the sine squared."""
    for factor, finer in ((0.99, True), (1.01, False)):
        settings = BevSettings(2.0, 64, factor * metres, vertical_fov=(90.0, bottom))
        assert Bev(settings).prepare((64, 128), NOTHING, NOTHING).finer == finer
