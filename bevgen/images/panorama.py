"""Find panoramas and decode them, whatever kind of image file people have."""

from __future__ import annotations

import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import FULL_CIRCLE, FULL_SPHERE, PanoramaView
from bevgen.images.metadata import (
    PanoramaInfo,
    info_from_exif,
    info_from_gpano,
    info_from_name,
)
from bevgen.tables import read_text

__all__ = [
    "OpenImage",
    "PanoramaInfo",
    "default_id",
    "find_images",
    "info_from_name",
    "open_image",
    "panorama_view",
    "read_image",
]

logger = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
MAX_PIXELS = 2**28
_MAX_BYTES = 2**32

# --- find ---


def find_images(root: Path, list_file: Path | None = None) -> list[tuple[str, int]]:
    """Find the images below a folder, or those of them that a list names.

    Without a list: all files that end in .jpg, .jpeg, .png, .webp, .tif or .tiff in any case, in
    the folder and its sub-folders. Symbolic links are followed. Files and folders whose names begin
    with a dot are left out. What cannot be read is logged as a warning and left out.

    Parameters
    ----------
    root
        The folder.
    list_file
        UTF-8 text, one path a line, relative to ``root``; whatever the ending.

    Returns
    -------
    list of (str, int)
        Path relative to ``root`` with forward slashes, and size in bytes, sorted by path.

    Raises
    ------
    InputError
        If there is no such folder or list, nothing is found, or the list names a file that is
        missing, outside the folder, or twice.
    """
    root = Path(root)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {problem}; name the folder that the panoramas are in")
    if list_file is not None:
        return sorted(_listed(root, Path(list_file)))
    found = sorted(_walk(root))
    if not found:
        raise InputError(f"no images ({' '.join(ENDINGS)}) in {root} or its sub-folders")
    return found


def default_id(source: str) -> str:
    """Return the id of a panorama unless told otherwise: its relative path without the ending."""
    name, dot, ending = source.rpartition(".")
    return name if dot + ending.lower() in ENDINGS else source


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Yield images below a folder, unsorted.

    Each folder comes with the (device, inode) of those above it: a link back to one of them is a
    loop and is not entered, while two links to one folder elsewhere are both followed.
    """
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(root), "", ())]
    while pending:
        folder, prefix, above = pending.pop()
        try:
            status = Path(folder).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                logger.debug("%s leads back to a folder above it: not entered", folder)
                continue
            with os.scandir(folder) as scan:  # pathlib would stat every file once more
                entries = list(scan)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be read: {error.strerror}; its images would be missing"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            relative = prefix + entry.name
            try:
                if entry.is_dir():
                    pending.append((entry.path, f"{relative}/", (*above, identity)))
                elif entry.name.lower().endswith(ENDINGS):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        relative.encode()
                        yield relative, status.st_size
            except OSError:  # such as a link to nowhere: reading it will say what is wrong
                yield relative, 0
            except UnicodeEncodeError:
                logger.warning("%r is left out: rename it, its name is not UTF-8", entry.path)


def _listed(root: Path, list_file: Path) -> Iterator[tuple[str, int]]:
    """Yield the images that a list names, in its order."""
    lines: dict[str, int] = {}
    missing: list[str] = []
    for number, line in enumerate(read_text(list_file).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        path = PurePosixPath(line)
        if path.is_absolute() and path.is_relative_to(root.absolute()):
            path = path.relative_to(root.absolute())
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{list_file}, line {number}: {line} is outside of {root}; paths are relative to it"
            )
        relative = str(path)
        if relative in lines:
            raise InputError(
                f"{list_file}, line {number}: {relative} is on line {lines[relative]} already;"
                f" keep one of them"
            )
        lines[relative] = number
        try:
            status = (root / path).stat()
        except (OSError, ValueError):  # ValueError: a null character
            missing.append(relative)
            continue
        if stat.S_ISREG(status.st_mode):
            yield relative, status.st_size
        else:
            missing.append(relative)
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{len(missing)} of the {len(lines)} files that {list_file} names are not in {root}:"
            f" {some}; correct the list, or name the folder that its paths are relative to"
        )
    if not lines:
        raise InputError(f"{list_file} names no files; write one path a line, relative to {root}")


# --- decode ---


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image file that is read; a plain JPEG's pixels are decoded when they are asked for.

    Attributes
    ----------
    shape
        Height and width of the upright image in pixels.
    info
        What its metadata say: GPano over EXIF. Damaged metadata are no reason to lose an image:
        they say nothing.
    """

    shape: tuple[int, int]
    info: PanoramaInfo
    _decoded: NDArray[np.uint8] | None
    _image: ImageFile
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
            return np.asarray(_as_rgb(self._image))


def open_image(path: Path) -> OpenImage:
    """Read an image file and its metadata.

    JPEG (also MPO), PNG, WebP and TIFF, told by their first bytes and not by their ending. Of
    animations and several pages the first counts. Turned by the EXIF orientation first; whatever
    the GPano metadata say is taken to be about the upright image. Colours are converted by the
    embedded ICC profile if there is a sound one. An alpha channel is dropped, so transparent pixels
    show the colour stored beneath. Of 16 bits, grey is rounded to 8, and RGB truncated to them (by
    Pillow, so it may come out one grey level darker). At most 2**28 pixels are read, of TIFF and
    WebP those that Pillow's own limit lets through (178 million). Safe to call in several threads.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    PanoramaError
        Whatever is wrong with the file; the message is the reason without its name.
    """
    _silence_pillow()
    with _reasons():
        image, data = _open(Path(path))
        plain = isinstance(image, JpegImageFile) and image.mode in ("L", "RGB")
        if not plain:
            image.load()
        exif = _exif(image)
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1)) if exif else None
        profile = image.info.get("icc_profile")
        if plain and turn is None and not (profile and _to_srgb(profile, image.mode)):
            shape = (image.height, image.width)
            return OpenImage(shape, _info(image, exif, shape), None, image, data)
        rgb = _as_rgb(image)
        pixels = np.asarray(rgb if turn is None else rgb.transpose(turn))
        shape = (pixels.shape[0], pixels.shape[1])
        return OpenImage(shape, _info(image, exif, shape), pixels, image, data)


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


def panorama_view(
    shape: tuple[int, int], info: PanoramaInfo, vertical_fov: tuple[float, float] | None
) -> PanoramaView:
    """Decide which part of the sphere an image shows.

    Parameters
    ----------
    shape
        Height and width of the image in pixels; more numbers do not matter.
    info
        What is known of it; the crop in it counts.
    vertical_fov
        Top and bottom in degrees from an option or a preset: wins over ``info``.

    Raises
    ------
    PanoramaError
        If nothing says how much of the sphere is in the image, and it is not 2:1 within 1 %.
    InputError
        If ``vertical_fov`` is no field of view.
    """
    height, width = shape[:2]
    horizontal = info.horizontal_fov or FULL_CIRCLE
    vertical = vertical_fov or info.vertical_fov
    if vertical is None:
        if abs(width / (horizontal[1] - horizontal[0]) * 180 / height - 1) > 0.01:
            raise PanoramaError(
                f"{width} x {height} pixels are not 2:1, so it is not known which part of the"
                f" sphere they show: say it with --vertical-fov TOP BOTTOM or --preset"
            )
        vertical = FULL_SPHERE
    view = PanoramaView(height, width, vertical, horizontal)
    if vertical_fov is not None:
        degrees = vertical_fov[0] - vertical_fov[1]
        squash = degrees / height * width / (horizontal[1] - horizontal[0])
        if not 1 / MAX_SQUASH < squash < MAX_SQUASH:
            raise PanoramaError(
                f"of {width} x {height} pixels, {degrees:g} degrees from top to"
                f" bottom would make each {squash:.2g} times as high as wide: is it the right"
                " --vertical-fov or --preset?"
            )
    return view


# Panoramas resized for a network are squashed somewhat; more is a mistake.
MAX_SQUASH = 2.0

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

_TRUNCATED = "truncated: the file ends before the image does"
_PILLOW_READERS = r"PIL\.\w+ImagePlugin$"


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


def _open(path: Path) -> tuple[ImageFile, bytes]:
    """Read the file and its header; pixels are not decoded yet.

    Pillow's reader of the format is called itself: `Image.open` judges sizes by a process-wide
    limit of its own, and parses the further images of an MPO.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise PanoramaError(f"too large: {path.stat().st_size / 1e9:.1f} GB")
    data = path.read_bytes()
    if not data:
        raise PanoramaError("empty file")
    if not data.strip(b"\0"):
        raise PanoramaError("nothing but zeros: an unfinished copy or download?")
    reader = next((reader for magic, reader in _READERS if data.startswith(magic)), None)
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
        if _lacks_pixels(image, len(data)):
            raise PanoramaError(_TRUNCATED)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            # Of TIFF alone Pillow judges the size again when it decodes.
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return image, data


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


def _info(image: ImageFile, exif: Image.Exif | None, shape: tuple[int, int]) -> PanoramaInfo:
    """Merge what the metadata of an image say."""
    info = PanoramaInfo()
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes) and xmp:
        info = info_from_gpano(xmp, shape)
    if exif is not None:
        try:
            info = info.fallback(info_from_exif(exif))
        except Exception as error:
            logger.debug("EXIF is damaged and left aside: %s", error)
    return info


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode that the four formats bring to sRGB."""
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise PanoramaError(f"{kind} pixels: convert it to 8 or 16 bits first")
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return _transformed(image, lab)
    # The transparent colour of palettes; converting with it warns or changes the palette.
    image.info.pop("transparency", None)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return _transformed(image, transform)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Round 16-bit grey to 8 bits: 0 stays 0, 65535 becomes 255."""
    values = np.asarray(image).astype(np.uint32)
    largest = 65535
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(ExifTags.Base.BitsPerSample) == (12,):  # Pillow leaves them 0 to 4095
            largest = 4095
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0:  # and white at 0
            values = largest - values
    grey = Image.fromarray(((values * 255 + largest // 2) // largest).astype(np.uint8))
    grey.info = image.info
    return grey


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform by which pixels of an ICC profile become sRGB; None if it is not needed or broken.

    A profile is sRGB if it leaves a lattice of colours within one grey level: there are dozens of
    sRGB profiles, under many names. Transforms may be used by several threads at once.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
        )
    except Exception as error:
        logger.debug("ICC profile is damaged or of other colours, and left aside: %s", error)
        return None
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 18, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    colours = Image.fromarray(lattice if mode == "RGB" else lattice[..., 0])
    before = np.asarray(colours.convert("RGB"), np.int16)
    after = np.asarray(_transformed(colours, transform), np.int16)
    return None if np.abs(after - before).max() <= 1 else transform


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Apply a colour transform to a copy."""
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # only in place there is no result
    return result
