import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bevgen
from bevgen import InputError, to_chw


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_values_are_those_of_the_formula(data):
    n, height, width, channels = (data.draw(st.integers(low, 9)) for low in (0, 1, 1, 1))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    images = random.integers(0, 256, (n, height, width, channels), np.uint8)
    mean, std = random.uniform(-1, 1, channels), random.uniform(0.1, 2, channels)
    found = to_chw(images, mean, std)
    assert found.dtype == np.float32
    expected = (images.transpose(0, 3, 1, 2) / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_mean_and_std_it_is_a_plain_division():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images.flags.writeable = False  # as rows of a memory map are
    np.testing.assert_array_equal(
        to_chw(images), images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    )


def test_strided_images_and_one_number_for_all_channels():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 10, 3), np.uint8)
    turned = images[::-1, ::2, ::-1]
    np.testing.assert_array_equal(
        to_chw(turned, 0.5, 0.25), to_chw(turned.copy(), [0.5] * 3, [0.25] * 3)
    )


def test_the_result_is_written_where_asked():
    images = np.full((2, 3, 4, 3), 255, np.uint8)
    out = np.zeros((2, 3, 3, 4), np.float32)
    assert to_chw(images, out=out) is out
    assert (out == 1).all()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((3, 4, 3), np.uint8), {}, "must be uint8"),
        (np.zeros((1, 3, 4, 3), np.float32), {}, "must be uint8"),
        (np.zeros((1, 3, 4, 3), np.uint8), {"mean": [0, 1]}, "one for each channel"),
        (np.zeros((1, 3, 4, 3), np.uint8), {"std": [1, 0, 1]}, "above 0"),
        (np.zeros((1, 3, 4, 3), np.uint8), {"mean": np.nan}, "finite"),
        (np.zeros((1, 3, 4, 3), np.uint8), {"out": np.zeros((1, 3, 3, 5), np.float32)}, "out must"),
        (np.zeros((1, 3, 4, 3), np.uint8), {"out": np.zeros((1, 3, 3, 4))}, "out must"),
    ],
)
def test_wrong_arguments_are_named(images, options, message):
    with pytest.raises(InputError, match=message):
        to_chw(images, **options)


def test_it_is_public():
    assert bevgen.to_chw is to_chw
