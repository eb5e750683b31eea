"""What a file's name and its first bytes say: formats that are read, and what is passed over."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
HEIF_ENDINGS = (".heic", ".heif", ".hif", ".avif")
HEAD_BYTES = 32
"""How many of its first bytes tell what a file is."""

# Never opened to see what they are: data and text, of which there may be as many as images; what
# begins like an image and is no panorama (raw files of cameras, two fisheyes side by side, previews
# of videos); and second copies of a file beside it (editors, exiftool, unfinished downloads).
_OTHERS = """
    .txt .csv .tsv .json .jsonl .geojson .xml .xmp .yaml .yml .toml .ini .md .html .log .py .sh .pdf
    .h5 .hdf5 .npy .npz .pkl .mat .db .sqlite .zip .gz .tar .7z .kml .kmz .gpx .las .laz .ply
    .mp4 .mov .avi .mkv .insv .lrv .360 .insp .thm
    .dng .nef .nrw .cr2 .cr3 .arw .sr2 .srw .pef .3fr .rw2 .rwl .orf .raf .gpr
    .jpg_original .jpeg_original .png_original .tif_original .bak .tmp .part .crdownload
"""
OTHER_ENDINGS = frozenset(_OTHERS.split())

# Compared in lower case: thumbnails, deleted files, and what systems keep for themselves.
_FOLDERS = """
    @eadir/#recycle/#snapshot/@recycle/@recently-snapshot/$recycle.bin/recycler/lost+found/__macosx
    /.appledouble/.thumbnails/.thumbs/.trash/.trashes/.spotlight-v100/.fseventsd
    /system volume information
"""
SYSTEM_FOLDERS = frozenset(name.strip() for name in _FOLDERS.split("/"))

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def heif_kind(head: bytes) -> str | None:
    """Return ``"AVIF"`` or ``"HEIC"`` if a file that begins so is one; else None."""
    if head[4:8] != b"ftyp":
        return None
    brands = head[8 : max(12, min(int.from_bytes(head[:4], "big"), HEAD_BYTES))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if brands[:4] in _HEIC_BRANDS else None


def begins_like_image(head: bytes) -> bool:
    """Whether a file that begins so is a JPEG, PNG, WebP, TIFF, HEIC or AVIF."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or heif_kind(head) is not None
    )


@cache
def reads_heif(kind: str) -> bool:
    """Whether what is installed reads ``"HEIC"`` or ``"AVIF"``: pillow-heif, or Pillow for AVIF."""
    if kind == "AVIF":
        from PIL import features

        return bool(features.check("avif"))
    return find_spec("pillow_heif") is not None
