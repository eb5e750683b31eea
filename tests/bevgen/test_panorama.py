"""Finding and decoding panoramas: every kind of file is made by the tests and is a real file."""

import io
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import PanoramaView
from bevgen.images import decoding
from bevgen.images.decoding import read_image
from bevgen.images.finding import default_id, find_images
from bevgen.images.metadata import PanoramaInfo
from bevgen.images.view import panorama_view
from tests.helpers.image_files import (
    HEIGHT,
    WIDTH,
    broken,
    encoded,
    exif,
    gpano,
    gpano_crop,
    linear_profile,
    png,
    scene,
    sound,
    tiff,
)
from tests.helpers.paths import DATA
from tests.helpers.runs import bevgen as run_bevgen

SOUND = sound()
BROKEN = broken()


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "image"
        path.write_bytes(data)
        return read_image(path)

    return read


# --- find ---


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def names(found):
    return [name for name, _ in found]


def test_find_sorts_by_code_point_and_gives_sizes(tmp_path):
    wanted = ["B.JPG", "a b/ü.TiF", "a/1.jpeg", "a/z/y/x.png", "a1.webp", "日本.tiff"]
    touch(tmp_path, *wanted, ".hidden.jpg", ".folder/a.jpg", "notes.txt", "jpg", "a/poses.csv")
    found = find_images(tmp_path)
    assert names(found) == sorted(wanted)
    assert found == [(name, len(name)) for name in sorted(wanted)]


def test_find_follows_links_and_ends_loops(tmp_path):
    root = tmp_path / "root"
    touch(root, "a/1.jpg", "b/2.jpg")
    touch(tmp_path, "elsewhere/3.jpg", "other.jpg")
    (root / "a/up").symlink_to(root)
    (root / "a/here").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "twice").symlink_to(root / "b")
    (root / "4.jpg").symlink_to(tmp_path / "other.jpg")
    assert names(find_images(root)) == ["4.jpg", "a/1.jpg", "b/2.jpg", "out/3.jpg", "twice/2.jpg"]


def test_find_through_a_linked_root_and_a_folder_named_like_an_image(tmp_path):
    touch(tmp_path, "real/a.jpg/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(find_images(tmp_path / "link")) == ["a.jpg/b.png"]


def test_find_leaves_out_pipes_and_keeps_links_to_nowhere_to_be_reported(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(find_images(tmp_path)) == ["a.jpg", "gone.jpg", "self.jpg"]
    with pytest.raises(PanoramaError, match="cannot be read: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(PanoramaError, match="cannot be read: Too many levels"):
        read_image(tmp_path / "self.jpg")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path, monkeypatch):
    """A pipe that nobody writes into never begins, and /dev/zero never ends."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("a.jpg")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("a.jpg")
    with pytest.raises(PanoramaError, match="no file, but a folder, pipe, socket or device"):
        read_image(path)


def test_convert_skips_what_cannot_be_read_and_says_so(tmp_path):
    """As a user who may not read everything; one who may (root) converts the locked file too."""
    folder = tmp_path / "in"
    (folder / "folder.jpg").mkdir(parents=True)
    for name in ("a.jpg", "folder.jpg/b.jpg", "locked.jpg"):
        (folder / name).write_bytes(encoded(scene(), "JPEG"))
    (folder / "locked.jpg").chmod(0)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "linked.jpg").symlink_to("pipe.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    out = tmp_path / "o.h5"
    done = run_bevgen("convert", "-i", folder, "-o", out, "--size", 16, "--workers", 1)
    locked = not os.access(folder / "locked.jpg", os.R_OK)
    assert f"{3 - locked} stored, {1 + locked} skipped" in done.stderr
    assert f"not looked at in {folder}: 2 pipes, devices or broken links" in done.stderr
    assert "1 x cannot be read: No such file or directory (gone.jpg)" in done.stderr
    assert ("1 x cannot be read: Permission denied (locked.jpg)" in done.stderr) == locked


def test_find_leaves_out_names_that_are_not_utf8(tmp_path, caplog):
    touch(tmp_path, "a.jpg")
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with caplog.at_level(logging.WARNING, "bevgen"):
        assert names(find_images(tmp_path)) == ["a.jpg"]
    assert "rename it" in caplog.text


def test_find_looks_at_what_begins_like_an_image_whatever_its_name(tmp_path):
    """A lost dot, a foreign ending, none at all; and no second copy of a file, nor a raw one."""
    jpeg, tif = encoded(scene(), "JPEG"), encoded(scene(), "TIFF")
    looked_at = ["a.jpg", "stra_3_1jpg", "noending", "b.jfif", "c.JPG.1", "d.mpo"]
    for name in looked_at:
        (tmp_path / name).write_bytes(jpeg)
    for name in ("a.jpg_original", "a.jpg~", "fisheyes.insp", "x.bak"):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / "raw.dng").write_bytes(tif)
    (tmp_path / "scan").write_bytes(tif)
    (tmp_path / "w").write_bytes(encoded(scene(), "WEBP"))
    (tmp_path / "sound").write_bytes(b"RIFF\x10\0\0\0WAVEfmt ")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    assert names(find_images(tmp_path)) == sorted([*looked_at, "scan", "w"])


def test_find_says_in_one_line_what_it_passes_over(tmp_path, caplog):
    wanted = ["a.jpg", "sub/b.jpg"]
    touch(tmp_path, *wanted, ".hidden.jpg", ".DS_Store", "notes.txt", "c.txt", "v.360", "no_ending")
    touch(tmp_path, "@eaDir/a.jpg/THUMB.jpg", "sub/__MACOSX/x.jpg", "#recycle/y.jpg")
    touch(tmp_path, "sub/.thumbnails/1.jpg", "sub/@eaDir/b.jpg")
    with caplog.at_level(logging.WARNING, "bevgen"):
        assert names(find_images(tmp_path)) == wanted
    assert caplog.messages == [
        f"not looked at in {tmp_path}: 4 files of other kinds (.txt 2, .360 1, no ending 1),"
        " 5 system folders (@eaDir 2, #recycle 1, .thumbnails 1, __MACOSX 1),"
        " 1 image whose name begins with a dot"
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "bevgen"):
        find_images(tmp_path / "sub/@eaDir")  # asked for by name
    assert not caplog.messages


def test_find_opens_only_files_of_unknown_endings(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{k}.{end}" for k in range(50) for end in ("jpg", "tif", "txt", "csv")))
    touch(tmp_path, "unknown")
    opened = []
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: opened.append(self) or io.BytesIO())
    assert len(find_images(tmp_path)) == 100
    assert opened == [tmp_path / "unknown"]


@pytest.mark.parametrize(("kind", "name"), [("HEIF", "a.HEIC"), ("AVIF", "b.avif")])
def test_heic_and_avif_are_read_with_their_metadata(tmp_path, kind, name):
    pillow_heif = pytest.importorskip("pillow_heif")
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    data = encoded(scene(), kind, quality=95, exif=exif(gps={16: "T", 17: 77.0}))
    (tmp_path / name).write_bytes(data)
    assert names(find_images(tmp_path)) == [name]
    pixels, info = read_image(tmp_path / name)
    assert np.abs(pixels.astype(int) - scene()).mean() < 6
    assert info.heading == 77
    assert default_id(name) == name[0]


def test_heic_that_cannot_be_read_is_said_in_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("bevgen.images.finding.reads_heif", lambda kind: False)
    monkeypatch.setattr("bevgen.images.decoding.reads_heif", lambda kind: False)
    for k in range(10):
        (tmp_path / f"{k}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"no images .*: 10 HEIC files \(pip install"):
        find_images(tmp_path)
    touch(tmp_path, "a.jpg")
    with caplog.at_level(logging.WARNING, "bevgen"):
        assert names(find_images(tmp_path)) == ["a.jpg"]
    assert "10 HEIC files (pip install 'bevgen[heif]' reads them)" in caplog.text
    with pytest.raises(PanoramaError, match=r"HEIC is not read .* pip install 'bevgen\[heif\]'"):
        read_image(tmp_path / "3.HEIC")


@pytest.fixture
def folder_of_nobody():
    """A folder that another user can enter; the tests may run as root, which reads everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_find_refuses_a_folder_that_cannot_be_read(folder_of_nobody):
    touch(folder_of_nobody, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    (folder_of_nobody / "b").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(InputError, match="b cannot be read: Permission denied; its images"):
            find_images(folder_of_nobody)
        with pytest.raises(InputError, match="cannot be read: Permission denied"):
            find_images(folder_of_nobody / "b")
    finally:
        if user == 0:
            os.seteuid(0)
        (folder_of_nobody / "b").chmod(0o755)


def test_a_file_that_may_not_be_read_says_so(folder_of_nobody):
    path = folder_of_nobody / "a.jpg"
    path.write_bytes(encoded(scene(), "JPEG"))
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        assert names(find_images(folder_of_nobody)) == ["a.jpg"]
        with pytest.raises(PanoramaError, match="cannot be read: Permission denied"):
            read_image(path)
    finally:
        if user == 0:
            os.seteuid(0)


def test_find_says_what_to_do(tmp_path):
    touch(tmp_path, "a.jpg", "empty/notes.txt")
    with pytest.raises(InputError, match="gone does not exist; name the folder"):
        find_images(tmp_path / "gone")
    with pytest.raises(InputError, match=r"a\.jpg is not a folder"):
        find_images(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"no images \(\.jpg .*\) in .*empty"):
        find_images(tmp_path / "empty")


def test_list(tmp_path):
    touch(tmp_path, "b.jpg", "a/ü 1.png", "a/no ending", "not listed.jpg")
    chosen = tmp_path / "list.txt"
    chosen.write_bytes(f"\ufeffb.jpg\r\n\r\n  \n./a/ü 1.png\n{tmp_path}/a/no ending".encode())
    assert find_images(tmp_path, chosen) == [("a/no ending", 11), ("a/ü 1.png", 9), ("b.jpg", 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\nx.jpg\ny\0.jpg\nsub\nz.jpg\n", r"4 of 5 files .*: x\.jpg, .*, sub, \.\.\.;"),
        ("/etc/passwd\n", "line 1: /etc/passwd is outside of"),
        ("a.jpg\nsub/../../a.jpg\n", "line 2: .* is outside of"),
        ("a.jpg\n./a.jpg\n", r"line 2: a\.jpg is on line 1 already"),
        ("\n\n", "names no files"),
        (b"a.jpg\n\xff.jpg", "line 2: not UTF-8"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    chosen = tmp_path / "list.txt"
    chosen.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        find_images(tmp_path, chosen)


def test_list_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"list\.txt cannot be read: No such file"):
        find_images(tmp_path, tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b.JPG", "a/b"),
        ("a.b/c.d.tiff", "a.b/c.d"),
        ("KcuqJn_PuuZq3GERzhqG5Q,41.8,-87.6,.jpg", "KcuqJn_PuuZq3GERzhqG5Q,41.8,-87.6,"),
        ("41.8,-87.6_no ending", "41.8,-87.6_no ending"),
        ("a.dir/b", "a.dir/b"),
    ],
)
def test_default_id(source, expected):
    assert default_id(source) == expected


# --- decode ---


@pytest.mark.parametrize("name", SOUND)
def test_sound_files(read, name):
    data, expected, tolerance = SOUND[name]
    pixels, info = read(data)
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    assert info == PanoramaInfo()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(read, name, capfd):
    data, reason = BROKEN[name]
    with pytest.raises(PanoramaError, match=reason) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(PanoramaError, match="cannot be read: No such file or directory"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(PanoramaError, match="no file, but a folder"):
        read_image(tmp_path)


def test_file_of_many_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(2**32 + 1)  # sparse
    with pytest.raises(PanoramaError, match=r"too large: 4\.3 GB"):
        read_image(path)


def test_ending_does_not_matter(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(png(scene(), 2))
    assert np.array_equal(read_image(path)[0], scene())


def test_sixteen_bits_round_to_the_nearest(read):
    values = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    expected = np.round(values / 257)
    for data in (png(values, 0, 16), tiff(values), tiff(values, byteorder=">")):
        assert np.array_equal(read(data)[0][..., 1], expected)


def test_jpeg_as_another_library_decodes_it():
    path = DATA / "street/2.jpg"
    theirs = cv2.imread(str(path))[..., ::-1]
    assert np.abs(read_image(path)[0].astype(int) - theirs).max() <= 3


@pytest.mark.parametrize("name", SOUND)
def test_images_above_pillows_limit_are_read_without_a_warning(read, name, monkeypatch):
    if SOUND[name][1].shape == (HEIGHT, WIDTH, 3):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
        assert read(SOUND[name][0])[0].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["rgb.jpg", "mpo.jpg", "rgb.png", "rgb.tif"])
def test_images_far_above_pillows_limit(read, name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    if name.endswith("tif"):
        with pytest.raises(PanoramaError, match="too large: more pixels than Pillow reads"):
            read(SOUND[name][0])
    else:
        assert read(SOUND[name][0])[0].shape == (HEIGHT, WIDTH, 3)


def turned(upright, orientation):
    """Pixels as stored, by the EXIF table of what row 0 and column 0 are of the upright image."""
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    height, width = upright.shape[:2]
    along = {
        "top": np.arange(height),
        "bottom": np.arange(height)[::-1],
        "left": np.arange(width),
        "right": np.arange(width)[::-1],
    }
    if row in ("top", "bottom"):
        return upright[along[row][:, None], along[column][None, :]]
    return upright[along[column][None, :], along[row][:, None]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["png", "tiff", "tiff pages", "webp", "jpeg"])
def test_orientation(read, orientation, file_format):
    stored = np.ascontiguousarray(turned(scene(), orientation))
    options = {"exif": exif(orientation)}
    if file_format == "webp":
        options |= {"lossless": True}
    if file_format == "jpeg":
        options |= {"quality": 95, "subsampling": 0}
    if file_format == "tiff pages":
        options |= {"save_all": True, "append_images": [Image.fromarray(stored[::-1])]}
    pixels, _ = read(encoded(stored, file_format.split()[0], **options))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels.astype(int) - scene()).max() <= (4 if file_format == "jpeg" else 0)


def test_crop_is_about_the_upright_image(read):
    stored = np.ascontiguousarray(turned(scene(), 6))
    xmp = gpano(**gpano_crop(0, 1000, 8000, 4000, 8000, 4000 * 2))  # nonsense when not upright
    xmp = xmp.replace(b'FullPanoWidthPixels="8000"', b'FullPanoWidthPixels="16000"')
    _, info = read(encoded(stored, "jpeg", exif=exif(6), xmp=xmp))
    assert info.vertical_fov == pytest.approx((67.5, -22.5))
    assert info.horizontal_fov == pytest.approx((-180, 0))


def srgb_of_linear(values):
    """The transfer curve of IEC 61966-2-1."""
    light = values / 255
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def test_profiles_are_converted_to_srgb(read):
    rgb, profile = scene(), linear_profile()
    expected = srgb_of_linear(rgb)
    for data in (
        encoded(rgb, "png", icc_profile=profile),
        encoded(rgb, "tiff", icc_profile=profile),
        encoded(rgb, "webp", lossless=True, icc_profile=profile),
        encoded(np.dstack([rgb, rgb[..., :1]]), "png", icc_profile=profile),
    ):
        assert np.abs(read(data)[0] - expected).max() <= 1.5
    pixels, _ = read(encoded(rgb, "jpeg", quality=95, subsampling=0, icc_profile=profile))
    assert np.abs(pixels - expected).mean() < 1.5


def test_profiles_of_grey_are_converted_to_srgb(read):
    grey = scene()[..., 1]
    profile = linear_profile(b"GRAY")
    expected = np.repeat(srgb_of_linear(grey)[..., None], 3, axis=-1)
    for image in (grey, grey.astype(np.uint16) * 257):
        assert np.abs(read(encoded(image, "png", icc_profile=profile))[0] - expected).max() <= 1.5


def test_srgb_profile_changes_nothing(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(encoded(scene(), "png", icc_profile=profile))[0], scene())


@pytest.mark.parametrize(
    "profile",
    [b"no profile at all", linear_profile()[:200], linear_profile(b"GRAY")],
    ids=["garbage", "cut", "of grey"],
)
def test_profiles_that_are_left_aside(read, profile, caplog):
    with caplog.at_level(logging.DEBUG, "bevgen"):
        pixels, _ = read(encoded(scene(), "png", icc_profile=profile))
    assert np.array_equal(pixels, scene())
    assert [record.levelname for record in caplog.records if "ICC" in record.message] == ["DEBUG"]


# --- metadata in files ---


@pytest.mark.parametrize(
    ("name", "heading", "latitude", "longitude", "date"),
    [
        ("2.jpg", 11.19, 49.0068986, 1.9191896, "2021-07-29T11:16:44"),
        ("3.jpg", 1.47, 49.0069263, 1.9191964, "2021-07-29T11:16:46"),
        ("4.jpg", 350.44, 49.0069548, 1.9191998, "2021-07-29T11:16:48"),
        ("d1.jpg", 67.0, 50.8707083, -1.5260917, "2020-09-13T15:45:41+01:00"),
    ],
)
def test_real_panoramas(name, heading, latitude, longitude, date):
    pixels, info = read_image(DATA / "street" / name)
    assert info.heading == pytest.approx(heading, abs=0.005)
    assert info.latitude == pytest.approx(latitude, abs=1e-7)
    assert info.longitude == pytest.approx(longitude, abs=1e-7)
    assert info.date == date
    assert info.height is None
    height, width = pixels.shape[:2]
    assert panorama_view(pixels.shape, info, None) == PanoramaView(height, width)


@pytest.mark.parametrize("path", sorted((DATA / "hdri").glob("*.png")), ids=lambda path: path.name)
def test_real_panoramas_without_metadata(path):
    pixels, info = read_image(path)
    assert pixels.shape[1] == 2 * pixels.shape[0]
    assert info == PanoramaInfo()


def with_metadata(file_format, xmp, block):
    if file_format == "png":
        return encoded(scene(), "png", exif=block, pnginfo=_png_xmp(xmp))
    if file_format == "tiff":
        image = Image.open(io.BytesIO(tiff(scene(), extratags=[(700, "B", len(xmp), xmp, True)])))
        return encoded(image, "tiff", exif=_tiff_exif(block, xmp))
    return encoded(scene(), file_format, exif=block, xmp=xmp)


def _png_xmp(xmp):
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return chunks


def _tiff_exif(block, xmp):
    both = Image.Exif()
    both.load(block)
    both[700] = xmp
    return both


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp", "tiff"])
def test_gpano_over_exif(read, file_format):
    xmp = gpano(
        PosePitchDegrees="2.5",
        PoseHeadingDegrees="123.5",
        **gpano_crop(1000, 0, 4000, 2000, 8000, 4000),
    )
    block = exif(
        gps={1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (151.0, 15.0, 0.0), 17: 45.0},
        date="2022:01:02 03:04:05",
    )
    pixels, info = read(with_metadata(file_format, xmp, block))
    assert info == PanoramaInfo(
        heading=123.5,
        pitch=2.5,
        latitude=-33.5,
        longitude=151.25,
        date="2022-01-02T03:04:05",
        vertical_fov=(90.0, 0.0),
        horizontal_fov=(-135.0, 45.0),
    )
    _, info = read(with_metadata(file_format, gpano(PoseHeadingDegrees="0.0"), block))
    assert info.heading == 45.0
    _, info = read(with_metadata(file_format, gpano(PoseHeadingDegrees="0.0"), exif(1)))
    assert info.heading is None
    assert pixels.shape == (HEIGHT, WIDTH, 3)


def test_files_that_begin_alike_keep_what_is_their_own(read, monkeypatch):
    files = [
        encoded(scene(), "jpeg"),
        encoded(scene()[::-1], "jpeg"),  # the same header, other pixels
        encoded(scene(HEIGHT, WIDTH + 16), "jpeg"),
        encoded(scene(), "jpeg", quality=90),
        encoded(scene(), "jpeg", xmp=gpano(PoseHeadingDegrees="67")),
        encoded(scene(), "jpeg", xmp=gpano(PoseHeadingDegrees="68")),
        encoded(scene(), "jpeg", exif=exif(6)),
        encoded(scene()[..., 0], "jpeg"),
        encoded(scene(), "png"),
    ]

    def alone(data):
        monkeypatch.setattr(decoding, "_last", None)
        return read(data)

    own = [alone(data) for data in files]
    for i, j in product(range(len(files)), repeat=2):
        read(files[i])
        pixels, info = read(files[j])
        assert info == own[j][1], (i, j)
        assert np.array_equal(pixels, own[j][0]), (i, j)


def test_other_projection_is_refused(read):
    with pytest.raises(PanoramaError, match="cylindrical"):
        read(encoded(scene(), "jpeg", xmp=gpano(ProjectionType="cylindrical")))


GOOD_EXIF = exif(1, gps={17: 45.0}, date="2022:01:02 03:04:05")
BAD_EXIF = {
    "cut": GOOD_EXIF[:40],
    "no header": b"Exif\0\0" + b"nonsense" * 9,
    "tags that point outside": GOOD_EXIF[:14] + GOOD_EXIF[14:].replace(b"\0\0", b"\xff\xff"),
    "empty": b"Exif\0\0",
}


@pytest.mark.parametrize("block", BAD_EXIF.values(), ids=BAD_EXIF)
@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
def test_damaged_metadata_lose_no_image(read, block, file_format):
    options = {"xmp": b"\xff\0<GPano:PoseHeadingDegrees>"} if file_format != "png" else {}
    pixels, info = read(encoded(scene(), file_format, exif=block, **options))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert info.heading is None


def test_pillows_warnings_stay_inside_in_all_threads(tmp_path):
    # Warnings are errors here, so one that got through would be a PanoramaError.
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(scene(), "jpeg", exif=BAD_EXIF["tags that point outside"]))
    with pytest.warns(UserWarning), Image.open(path) as image:  # noqa: PT030
        image.getexif()  # the words differ between versions of Pillow
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: read_image(path)[0], range(100)))
    assert all(np.array_equal(pixels, results[0]) for pixels in results)
    with pytest.warns(UserWarning, match="not Pillow's"):
        warnings.warn("not Pillow's", UserWarning, stacklevel=1)


# --- what the image shows ---


def test_view_of_a_full_sphere():
    assert panorama_view((512, 1024, 3), PanoramaInfo(), None) == PanoramaView(512, 1024)
    assert panorama_view((512, 1030), PanoramaInfo(), None) == PanoramaView(512, 1030)


def test_view_that_nobody_knows():
    with pytest.raises(PanoramaError, match=r"1232 x 224 pixels are not 2:1.*--vertical-fov"):
        panorama_view((224, 1232), PanoramaInfo(), None)
    # Half of the circle in a 2:1 image cannot be all of the rows.
    with pytest.raises(PanoramaError, match="--vertical-fov"):
        panorama_view((200, 400), PanoramaInfo(horizontal_fov=(-90.0, 90.0)), None)


def test_option_wins_over_the_crop():
    info = PanoramaInfo(vertical_fov=(45.0, -45.0), horizontal_fov=(-90.0, 90.0))
    assert panorama_view((200, 400), info, None) == PanoramaView(
        200, 400, (45.0, -45.0), (-90.0, 90.0)
    )
    assert panorama_view((200, 400), info, (40.0, -50.0)) == PanoramaView(
        200, 400, (40.0, -50.0), (-90.0, 90.0)
    )
    assert panorama_view((224, 1232), PanoramaInfo(), (38.6, -26.9)) == PanoramaView(
        224, 1232, (38.6, -26.9)
    )


def test_option_that_is_no_field_of_view():
    with pytest.raises(InputError, match="vertical field of view"):
        panorama_view((224, 1232), PanoramaInfo(), (-26.9, 38.6))


def test_option_that_is_of_another_dataset():
    with pytest.raises(PanoramaError, match="right --vertical-fov or --preset"):
        panorama_view((832, 1664), PanoramaInfo(), (38.6, -26.9))
    assert panorama_view((128, 512), PanoramaInfo(), (38.6, -26.9)).vertical_fov == (38.6, -26.9)


def test_libtiff_prints_nothing_by_itself(tmp_path):
    """Of compressions that it lacks, or that were damaged, it would tell the terminal."""
    page = encoded(scene(), "tiff", compression="tiff_adobe_deflate")
    adobe, jpeg, webp = (struct.pack("<HHIHH", 259, 3, 1, code, 0) for code in (8, 7, 50001))
    assert page.count(adobe) == 1
    for name, tag in (("jpeg.tif", jpeg), ("webp.tif", webp)):
        (tmp_path / name).write_bytes(page.replace(adobe, tag))
    script = (
        "import sys; from pathlib import Path\n"
        "from bevgen import PanoramaError, read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n"
        "    except PanoramaError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"damaged, or of a compression ({name}) that Pillow lacks here" for name in ("jpeg", "webp")
    ]


# --- any damage ---

SEEDS = [
    encoded(scene(), "jpeg", exif=GOOD_EXIF, xmp=gpano(PoseHeadingDegrees="67")),
    encoded(scene(), "png", exif=GOOD_EXIF, icc_profile=linear_profile()),
    encoded(scene(), "webp", exif=GOOD_EXIF, xmp=gpano(PoseHeadingDegrees="67")),
    encoded(scene(), "tiff", exif=GOOD_EXIF),
    tiff(scene(), compression="zlib"),
]


@pytest.fixture(scope="module")
def damaged_path(tmp_path_factory):
    return tmp_path_factory.mktemp("damage") / "damaged"


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    early=st.booleans(),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_files_are_read_or_refused(damaged_path, seed, flips, early, kept):
    data = bytearray(seed)
    for where, bits in flips:  # half of the examples meet the header
        data[int(where * (min(300, len(data)) if early else len(data)))] ^= bits
    damaged_path.write_bytes(data[: int(kept * len(data))])
    try:
        pixels, info = read_image(damaged_path)
    except PanoramaError:
        pass
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert info.heading is None or 0 <= info.heading < 360
