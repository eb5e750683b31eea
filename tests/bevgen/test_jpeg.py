"""The decoder of needed rows: bit for bit Pillow's, or not for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from bevgen import BevGrid, PanoramaView, Pose
from bevgen.geometry import needed_rows
from bevgen.images.jpeg import decode_rows
from bevgen.project import project_view
from tests.helpers.image_files import broken, encoded, exif, linear_profile, sound
from tests.helpers.jpeg_fuzz import pillow_rows, segments
from tests.helpers.paths import ROOT, STREET
from tests.helpers.runs import assert_same_output, bevgen

SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
BY_OPENCV = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
}
PHOTO = np.asarray(Image.open(STREET / "3.jpg").resize((512, 256)))


def picture(kind: str, height: int, width: int) -> np.ndarray:
    """Pixels to be compressed: a photograph, noise, or hard edges between the extremes."""
    random = np.random.default_rng(height * 1000 + width)
    if kind == "photo":
        top, left = random.integers(0, 257 - height), random.integers(0, 513 - width)
        return PHOTO[top : top + height, left : left + width]
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3), np.uint8)
    edges = random.integers(0, 2, (height // 5 + 1, width // 3 + 1, 3), np.uint8) * 255
    return np.repeat(np.repeat(edges, 5, axis=0), 3, axis=1)[:height, :width]


def by_opencv(pixels: np.ndarray, sampling: str, quality: int, interval: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, interval,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, BY_OPENCV[sampling]]  # fmt: skip
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def assert_equal_rows(data: bytes, first: int, last: int) -> None:
    theirs = pillow_rows(data)
    assert theirs is not None
    canvas = np.full_like(theirs, 137)
    ours = decode_rows(data, first, last, canvas)
    assert ours is canvas
    np.testing.assert_array_equal(ours[first:last], theirs[first:last])
    assert (ours[:first] == 137).all()
    assert (ours[last:] == 137).all()


# --- equal ---


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_rows_equal_pillows(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    pixels = picture(data.draw(st.sampled_from(["photo", "noise", "edges"])), height, width)
    quality, interval = data.draw(st.integers(1, 100)), data.draw(st.integers(0, 9))
    encoder = data.draw(st.sampled_from(["Pillow", "OpenCV", "grey"]))
    if encoder == "OpenCV":
        sampling = data.draw(st.sampled_from(list(BY_OPENCV)))
        file = by_opencv(pixels, sampling, quality, interval)
    else:
        file = encoded(
            pixels[..., 0] if encoder == "grey" else pixels,
            "jpeg",
            quality=quality,
            subsampling=data.draw(st.sampled_from([0, 1, 2])),
            optimize=data.draw(st.booleans()),
            restart_marker_blocks=interval,
        )
    first = data.draw(st.integers(0, height - 1))
    assert_equal_rows(file, first, data.draw(st.integers(first, height)))


@pytest.mark.parametrize("sampling", BY_OPENCV)
@pytest.mark.parametrize("size", [(n, m) for n in (1, 2, 3, 4, 5, 17) for m in (1, 2, 3, 4, 5, 33)])
def test_tiny_images(sampling: str, size: tuple[int, int]) -> None:
    """Of up to four columns libjpeg repeats chroma, and filters that of more."""
    file = by_opencv(picture("noise", *size), sampling, 95, 0)
    for first in range(size[0]):
        assert_equal_rows(file, first, first + 1)


@pytest.mark.parametrize("name", ["2.jpg", "3.jpg", "4.jpg"])
def test_real_panoramas(name: str) -> None:
    file = (STREET / name).read_bytes()
    for first, last in ((0, 1024), (534, 1013), (1023, 1024), (511, 513), (0, 1)):
        assert_equal_rows(file, first, last)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("quality", [20, 75, 92, 100])
def test_photographs(sampling: str, quality: int) -> None:
    for optimize in (False, True):
        file = encoded(
            PHOTO, "jpeg", quality=quality, subsampling=SAMPLINGS[sampling], optimize=optimize,
            restart_marker_rows=3 * optimize,
        )  # fmt: skip
        for first, last in ((0, 256), (133, 253), (95, 97)):
            assert_equal_rows(file, first, last)


def test_what_follows_the_end_does_not_matter() -> None:
    """Phones append a video, a depth map or a second picture."""
    file = encoded(PHOTO, "jpeg")
    assert_equal_rows(file + bytes(100) + b"ftypmp42\xff\xc0\xff" + file, 100, 200)


def test_rows_beyond_the_image_are_left_out() -> None:
    file = encoded(PHOTO[:50], "jpeg")
    np.testing.assert_array_equal(decode_rows(memoryview(file), -5, 1000), pillow_rows(file))
    assert decode_rows(file, 30, 20) is not None


def test_any_bytes_and_two_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    files = [encoded(PHOTO[: 100 + n], "jpeg", quality=80 + n) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: decode_rows(bytearray(files[n % 8]), 40, 90), range(64)))
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result[40:90], pillow_rows(files[n % 8])[40:90])


# --- not for it ---


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def without(data: bytes, marker: int) -> bytes:
    places, scan = segments(data)
    ends = [*places[1:], scan]
    return data[:2] + b"".join(
        data[a:b] for a, b in zip(places, ends, strict=True) if data[a + 1] != marker
    ) + data[scan:]  # fmt: skip


def with_steps(data: bytes, step: int) -> bytes:
    """All quantiser steps of one size."""
    for place in segments(data)[0]:
        if data[place + 1] == 0xDB:
            data = data[: place + 5] + bytes([step]) * 64 + data[place + 69 :]
    return data


def wrapping() -> bytes:
    """A grey image of blocks whose one coefficient, 512 steps of 128, is 0 in 16 bits."""
    grey = with_steps(encoded(np.full((256, 8), 128, np.uint8), "jpeg"), 128)
    # The tables of the standard: DC as before, a value of 10 bits, 512, the block's end.
    block = int("00_1111111110000011_1000000000_1010", 2).to_bytes(4, "big")
    return grey[: segments(grey)[1]] + block * 32 + b"\xff\xd9"


PLAIN = encoded(PHOTO, "jpeg", quality=90, subsampling=2)
SCAN = segments(PLAIN)[1]
HUGE = patched(PLAIN, b"\x01\x00\x02\x00\x03", b"\xff\x00\xff\x00\x03")
STRANGERS = {
    "progressive": encoded(PHOTO, "jpeg", progressive=True),
    "cmyk": encoded(Image.fromarray(PHOTO).convert("CMYK"), "jpeg"),
    "coded as RGB": encoded(PHOTO, "jpeg", keep_rgb=True),
    "coded as RGB by its ids": without(encoded(PHOTO, "jpeg", keep_rgb=True), 0xEE),
    "4:1:1": cv2.imencode(
        ".jpg", PHOTO, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411]
    )[1].tobytes(),
    "12 bits": patched(PLAIN, b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "arithmetic": patched(PLAIN, b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
    "lossless": patched(PLAIN, b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"),
    "no Huffman tables": without(PLAIN, 0xC4),
    "no quantisation tables": without(PLAIN, 0xDB),
    "no frame": without(PLAIN, 0xC0),
    "no height": patched(PLAIN, b"\xff\xc0\0\x11\x08\x01\x00", b"\xff\xc0\0\x11\x08\0\0"),
    "too large": HUGE,
    "more rows than data": patched(PLAIN, b"\x08\x01\x00\x02\x00", b"\x08\x40\x00\x40\x00"),
    "coefficients that no image has": with_steps(encoded(PHOTO, "jpeg", quality=98), 255),
    "coefficients that wrap to none": wrapping(),
    "without an end": PLAIN[:-2],
    "cut in the rows": PLAIN[: SCAN + (len(PLAIN) - SCAN) // 3],
    "cut in the header": PLAIN[: SCAN - 4],
    "ends early": PLAIN[: SCAN + (len(PLAIN) - SCAN) // 3] + b"\xff\xd9",
    "a restart marker too many": PLAIN[: SCAN + 400] + b"\xff\xd0" + PLAIN[SCAN + 400 :],
    "restart markers that are missing": patched(PLAIN, b"\xff\xda", b"\xff\xdd\0\4\0\5\xff\xda"),
    "not a JPEG": encoded(PHOTO, "png"),
    "two bytes": PLAIN[:2],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_the_rest_is_left_to_pillow(name: str) -> None:
    assert decode_rows(PLAIN, 100, 200) is not None
    assert decode_rows(STRANGERS[name], 100, 200) is None


def with_dc_symbol(symbol: int) -> bytes:
    """The first DC table with another last symbol, one that the file does not use."""
    place = PLAIN.index(b"\xff\xc4") + 4 + 17 + 11
    return PLAIN[:place] + bytes([symbol]) + PLAIN[place + 1 :]


def test_tables_that_libjpeg_refuses() -> None:
    assert pillow_rows(with_dc_symbol(15)) is not None
    assert decode_rows(with_dc_symbol(15), 0, 256) is not None
    assert pillow_rows(with_dc_symbol(16)) is None
    assert decode_rows(with_dc_symbol(16), 0, 256) is None
    place = PLAIN.index(b"\xff\xc4") + 5
    crowded = PLAIN[:place] + b"\3" + PLAIN[place + 1 :]
    assert pillow_rows(crowded) is None
    assert decode_rows(crowded, 0, 256) is None


def test_an_output_of_another_shape_is_not_written() -> None:
    assert decode_rows(PLAIN, 0, 10, np.zeros((256, 511, 3), np.uint8)) is None


# --- damaged ---

# Numba leaves out bounds checks unless told before it compiles, so this takes a new process with
# a cache of its own. It first makes sure that the checks are on, for vector code too.
BOUNDS_CHECKED = """
import sys
import numpy as np, pytest
from bevgen.images.jpeg import colour, cosine, entropy
data, short = np.zeros(500, np.uint8), np.zeros(40, np.uint8)
with pytest.raises(IndexError):
    entropy.unstuff(data, 0, short, np.zeros(2, np.int64))
with pytest.raises(IndexError):
    cosine.transform(np.zeros(65, np.int16), np.zeros((1, 16, 16), np.uint8), 0, 9, 0)
with pytest.raises(IndexError):
    colour.colour(data, data, short, np.zeros(300, np.uint8))
from tests.helpers import jpeg_fuzz
jpeg_fuzz.main(*sys.argv[1:])
"""


def fuzz(cache: Path, count: int, seed: int) -> dict[str, int]:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS_CHECKED, str(count), str(seed)],
        env=environment, capture_output=True, text=True, check=False, timeout=3000,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["files"] == count
    assert counts["equal"] > count / 5
    return counts


def test_hundreds_of_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 600, 0)


@pytest.mark.faults
def test_tens_of_thousands_of_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 30_000, 1)


# --- in a conversion ---


def test_the_decoder_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    small = PHOTO[::2, ::2]
    files = {name: data for name, (data, *_) in sound().items() if name.endswith(".jpg")}
    files |= {f"broken {name}": data for name, (data, _) in broken().items() if ".jpg" in name}
    files |= {name: (STREET / name).read_bytes() for name in ("2.jpg", "d1.jpg")}
    files |= {f"strange {name}.jpg": data for name, data in STRANGERS.items()}
    files |= {
        "plain.jpg": encoded(small, "jpeg", quality=90),
        "turned.jpg": encoded(small, "jpeg", exif=exif(orientation=3)),
        "linear.jpg": encoded(small, "jpeg", icc_profile=linear_profile()),
        "grey.jpg": encoded(small[..., 0], "jpeg"),
        "half.jpg": encoded(small[:64], "jpeg"),
        "tilted.jpg": encoded(small, "jpeg"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "poses.csv").write_text("file,heading,pitch,roll\ntilted.jpg,30,70,-120\n")
    for decoder in ("rows", "pillow"):
        (tmp_path / decoder).mkdir()
        bevgen(
            "convert", "--in", folder, "--out", tmp_path / decoder / "bev.h5", "--size", "48",
            "--resolution", "0.5", "--poses", tmp_path / "poses.csv", "--decoder", decoder,
        )  # fmt: skip
    assert_same_output(tmp_path / "rows" / "bev.h5", tmp_path / "pillow" / "bev.h5")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_rows_that_are_not_needed_are_not_read(data: st.DataObject) -> None:
    def number(low: float, high: float) -> float:
        return data.draw(st.floats(low, high, allow_nan=False))

    compat = data.draw(st.sampled_from([None, None, None, "ep-bev"]))
    grid = BevGrid(data.draw(st.integers(1, 40)), number(0.02, 2.0))
    angles, fov, across = (0.0, 0.0, 0.0), (90.0, -90.0), (-180.0, 180.0)
    if compat is None:
        angles = data.draw(
            st.sampled_from([angles, (50.0, 0.0, 0.0), (0.0, 90.0, 0.0), (0.0, 0.0, 180.0)])
            | st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
        )
        fov, across = data.draw(st.sampled_from([(fov, across), ((30.0, -60.0), (-70.0, 120.0))]))
    view = PanoramaView(data.draw(st.integers(1, 130)), 120, fov, across)
    pose = Pose(number(0.2, 5.0), *angles)
    options = {"antialias": compat is None and data.draw(st.booleans()), "compat": compat}
    first, last = needed_rows(grid, view, pose)
    assume(first > 0 or last < view.height)
    panorama = np.zeros((view.height, view.width, 1), np.uint8)
    panorama[:first], panorama[last:] = 255, 255
    bev, _ = project_view(panorama, grid, view, pose, **options)
    assert not bev.any()


def test_a_level_camera_needs_the_ground_alone() -> None:
    """The corners of 512 pixels of 0.06 m, 21.7 m away, lie 5.26 degrees below 2 m: row 440.3."""
    first, last = needed_rows(BevGrid(512, 0.06), PanoramaView(832, 1664), Pose(2.0))
    assert 437 <= first <= 439
    assert last == 832
