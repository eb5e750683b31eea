"""Read image files, whatever kind people have: pixels and what the metadata say."""

from __future__ import annotations

import ctypes
import io
import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, _imaging
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bevgen.errors import PanoramaError
from bevgen.images.colour import as_srgb, to_srgb
from bevgen.images.formats import HEAD_BYTES, heif_kind, reads_heif
from bevgen.images.metadata import (
    NOTHING,
    PanoramaInfo,
    info_from_exif,
    info_from_gpano,
    info_from_xmp,
)
from bevgen.images.xmp import xmp_packets, xmp_properties

logger = logging.getLogger(__name__)

MAX_PIXELS = 2**28
_MAX_BYTES = 2**32
_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"RIFF", WebPImageFile),
    (b"II", TiffImageFile),
    (b"MM", TiffImageFile),
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_last: tuple[bytes, tuple[int, int], PanoramaInfo] | None = None
"""A plain JPEG file's bytes before the pixels, and what they say: its neighbours begin alike."""

_TRUNCATED = "truncated: the file ends before the image does"
_PILLOW_READERS = r"PIL\.\w+ImagePlugin$"


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image file that is read; a plain JPEG's pixels are decoded when they are asked for.

    Attributes
    ----------
    shape
        Height and width of the upright image in pixels.
    info
        What its metadata say: GPano over EXIF over other XMP. Damaged metadata are no reason to
        lose an image: they say nothing.
    """

    shape: tuple[int, int]
    info: PanoramaInfo
    _decoded: NDArray[np.uint8] | None
    _image: ImageFile | None
    _data: bytes

    def pixels(self, rows: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return the image's sRGB pixels, (H, W, 3) uint8, C-contiguous and read-only.

        Parameters
        ----------
        rows
            First and last (exclusive) of the rows that are needed: the others may hold anything.
            Of all others than baseline JPEG files, all rows are decoded.

        Raises
        ------
        PanoramaError
            If they cannot be decoded; the message is the reason without the file's name.
        """
        if self._decoded is not None:
            return self._decoded
        if rows is not None:
            from bevgen.images.jpeg import decode_rows

            pixels = decode_rows(self._data, *rows)
            if pixels is not None:
                pixels.flags.writeable = False
                return pixels
        with _reasons():
            return np.asarray(as_srgb(self._image or JpegImageFile(io.BytesIO(self._data))))


def open_image(path: Path) -> OpenImage:
    """Read an image file and its metadata.

    JPEG (also MPO), PNG, WebP and TIFF, HEIC where pillow-heif is installed, and AVIF where Pillow
    was built with it, told by their first bytes and not by their ending. Of animations and several
    pages the first counts. Turned by the EXIF orientation first; whatever the GPano metadata say is
    taken to be about the upright image. Colours are converted by the embedded ICC profile if there
    is a sound one. An alpha channel is dropped, so transparent pixels show the colour stored
    beneath. Of 16 bits, grey is rounded to 8, and RGB truncated to them (by Pillow, so it may come
    out one grey level darker). At most 2**28 pixels are read, of TIFF and WebP those that Pillow's
    own limit lets through (178 million). Safe to call in several threads.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    PanoramaError
        Whatever is wrong with the file; the message is the reason without its name.
    """
    global _last
    _silence_pillow()
    with _reasons():
        data = _read(Path(path))
        last = _last  # another thread may replace it
        if last is not None and data.startswith(last[0]):
            return OpenImage(*last[1:], None, None, data)
        image = _open(data)
        plain = isinstance(image, JpegImageFile) and image.mode in ("L", "RGB")
        header = data[: image.fp.tell()] if plain and image.fp else b""
        if not plain:
            _load(image)
        exif = _exif(image)
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1)) if exif else None
        profile = image.info.get("icc_profile")
        if plain and turn is None and not (profile and to_srgb(profile, image.mode)):
            shape = (image.height, image.width)
            info = _info(image, data, exif, shape)
            _last = (header, shape, info) if header else None
            return OpenImage(shape, info, None, image, data)
        rgb = as_srgb(image)
        pixels = np.asarray(rgb if turn is None else rgb.transpose(turn))
        shape = (pixels.shape[0], pixels.shape[1])
        return OpenImage(shape, _info(image, data, exif, shape), pixels, image, data)


def read_image(path: Path) -> tuple[NDArray[np.uint8], PanoramaInfo]:
    """Decode all of an image file: pixels and metadata as of `open_image`.

    Returns
    -------
    pixels : (H, W, 3) uint8
    info : PanoramaInfo

    Raises
    ------
    PanoramaError
        Whatever is wrong with the file; the message is the reason without its name.
    """
    image = open_image(path)
    return image.pixels(), image.info


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever Pillow raises into a reason."""
    try:
        yield
    except PanoramaError:
        raise
    except Exception as error:
        # On damaged bytes Pillow raises nearly anything: SyntaxError, struct.error, KeyError, ...
        raise PanoramaError(_reason(error)) from error


def _silence_pillow() -> None:
    """Keep Pillow's warnings about damaged metadata off the user's terminal.

    `warnings.catch_warnings` swaps a list that all threads share, so that two threads leaving it in
    the wrong order leave the wrong list behind. A filter that stays is safe. It is added when it is
    not the first one, as somebody may have put theirs before it; in the steady state nothing is
    written. It silences what Pillow's file readers say about a file, and nothing else of Pillow.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _PILLOW_READERS:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PILLOW_READERS)


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from printing to stderr what our own reason says; with -v it is left to.

    It is that of Pillow alone, found through Pillow's extension; where it is hidden there, it stays
    as it is.
    """
    if logger.isEnabledFor(logging.INFO):
        return
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


def _read(path: Path) -> bytes:
    """Return the bytes of a file that may be an image."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe may never end, nor begin
        raise PanoramaError("no file, but a folder, pipe, socket or device")
    if status.st_size > _MAX_BYTES:
        raise PanoramaError(f"too large: {status.st_size / 1e9:.1f} GB")
    data = path.read_bytes()
    if not data:
        raise PanoramaError("empty file")
    if not data.strip(b"\0"):
        raise PanoramaError("nothing but zeros: an unfinished copy or download?")
    return data


def _open(data: bytes) -> ImageFile:
    """Read a file's header; pixels are not decoded yet.

    Pillow's reader of the format is called itself: `Image.open` judges sizes by a process-wide
    limit of its own, and parses the further images of an MPO.
    """
    reader = next((reader for magic, reader in _READERS if data.startswith(magic)), None)
    if reader is None and (kind := heif_kind(data[:HEAD_BYTES])) is not None:
        reader = _heif_reader(kind)
    if reader is None:
        raise PanoramaError(
            f"not an image that Pillow can read as JPEG, PNG, WebP or TIFF; it begins with"
            f" {data[:16]!r}"
        )
    if reader is WebPImageFile and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise PanoramaError(_TRUNCATED)
    image = reader(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise PanoramaError(
            f"too large: {image.width} x {image.height} pixels, and at most"
            f" {MAX_PIXELS / 1e6:.0f} million are read"
        )
    if isinstance(image, TiffImageFile):
        _silence_libtiff()
        if _lacks_pixels(image, len(data)):
            raise PanoramaError(_TRUNCATED)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            # Of TIFF alone Pillow judges the size again when it decodes.
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return image


def _load(image: ImageFile) -> None:
    """Decode an image; of TIFF, say its compression, which Pillow may have been built without."""
    try:
        image.load()
    except OSError as error:
        if not isinstance(image, TiffImageFile) or not str(error).startswith("decoder error"):
            raise
        way = image.info.get("compression", "unknown")
        raise PanoramaError(
            f"damaged, or of a compression ({way}) that Pillow lacks here"
        ) from error


def _heif_reader(kind: str) -> type[ImageFile]:
    """Return the reader of HEIC or AVIF, an extra."""
    if not reads_heif(kind):
        way = "pip install 'bevgen[heif]'" if kind == "HEIC" else "install a Pillow with AVIF"
        raise PanoramaError(f"{kind} is not read by what is installed: {way}")
    if kind == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile
    from pillow_heif import HeifImageFile

    return HeifImageFile


def _lacks_pixels(image: TiffImageFile, size: int) -> bool:
    """Whether strips or tiles of a TIFF of `size` bytes are missing.

    Asked before decoding: Pillow leaves black what no uncompressed strip covers, and of compressed
    ones libtiff would print to stderr.
    """
    tags = image.tag_v2
    if image.tile and image.tile[0][0] == "libtiff":
        tiled = ExifTags.Base.TileOffsets in tags
        offsets = ExifTags.Base.TileOffsets if tiled else ExifTags.Base.StripOffsets
        counts = ExifTags.Base.TileByteCounts if tiled else ExifTags.Base.StripByteCounts
        parts = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        return any(offset + count > size for offset, count in parts)
    ends = [extents[2:] for _, extents, *_ in image.tile if extents]
    right, bottom = (max((end[axis] for end in ends), default=0) for axis in (0, 1))
    return right < tags[ExifTags.Base.ImageWidth] or bottom < tags[ExifTags.Base.ImageLength]


def _reason(error: Exception) -> str:
    """Say in a few words what an error of Pillow or the file system means."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return "too large: more pixels than Pillow reads of this format"
    if "truncated" in str(error).lower():
        return _TRUNCATED
    # Pillow's own words, unless Python stumbled over the bytes (and Pillow wrapped what it said).
    worded = isinstance(error, OSError | ValueError | SyntaxError) and error.__cause__ is None
    text = " ".join(str(error).split())[:120]
    if not worded or text in ("", "not identified by this driver"):
        text = "its bytes make no sense"
    return f"damaged: {text}"


def _exif(image: ImageFile) -> Image.Exif | None:
    """EXIF of a decoded image (PNG has it after the pixels); None if there is none to be read."""
    said = ("exif", "Raw profile type exif", "xmp")  # Pillow finds an orientation in XMP too
    if not isinstance(image, TiffImageFile) and not any(key in image.info for key in said):
        return None
    try:
        return image.getexif()
    except Exception as error:
        logger.debug("EXIF is damaged and left aside: %s", error)
        return None


def _info(
    image: ImageFile, data: bytes, exif: Image.Exif | None, shape: tuple[int, int]
) -> PanoramaInfo:
    """Merge what the metadata of an image say."""
    said = xmp_properties(xmp_packets(image, data))
    info = info_from_gpano(said, shape) if said else NOTHING
    if exif is not None:
        try:
            info = info.fallback(info_from_exif(exif))
        except Exception as error:
            logger.debug("EXIF is damaged and left aside: %s", error)
    return info.fallback(info_from_xmp(said)) if said else info
