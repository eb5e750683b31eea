"""XMP: where its packets stand in a file, and the properties that they hold.

Not parsed as XML: packets in the wild are often not well-formed, and XML parsers can be made to
take gigabytes. All repetitions here are bounded or end at a character they exclude.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Iterator, Sequence

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

NAMESPACES = {
    "http://ns.google.com/photos/1.0/panorama/": "GPano",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://www.dji.com/drone-dji/1.0/": "drone-dji",
}
_LONGEST = 2**20
_STANDARD = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_TIFF_TAG = 700

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")

_NAME_AND_VALUE = (
    r"""(\w{1,60})(?:\s{0,9}=\s{0,9}(?:"([^"<]*)"|'([^'<]*)')|[^<>]{0,200}>([^<]*)<)"""
)
_DECLARATION = re.compile(r"""xmlns:([\w.-]{1,60})\s{0,9}=\s{0,9}["']([^"'<>]{1,60})["']""")


def xmp_packets(image: ImageFile, data: bytes) -> list[bytes]:
    """Return the XMP packets of an image file, those of later rank first; the last one overrides.

    Of JPEG all APP1 segments before the pixels, extended XMP joined; of PNG all iTXt chunks; of
    WebP all ``XMP`` chunks; of TIFF tag 700; of others what Pillow's reader found.

    Parameters
    ----------
    image
        The opened file, which tells the format.
    data
        All of its bytes.
    """
    if isinstance(image, JpegImageFile):
        return list(_of_jpeg(data))
    if isinstance(image, PngImageFile):
        return list(_of_png(data))
    if isinstance(image, WebPImageFile):
        return list(_of_webp(data))
    found = (
        image.tag_v2.get(_TIFF_TAG) if isinstance(image, TiffImageFile) else image.info.get("xmp")
    )
    if isinstance(found, tuple):
        found = found[0] if len(found) == 1 else bytes(b for b in found if b in range(256))
    if isinstance(found, str):
        found = found.encode("utf-8", "replace")
    return [found] if isinstance(found, bytes) and found else []


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    standard: list[bytes] = []
    extensions: dict[bytes, dict[int, bytes]] = {}
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in (0xDA, 0xD9):  # the pixels, the end
            break
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xE1:
            body = data[place + 4 : place + 2 + size]
            if body.startswith(_STANDARD):
                standard.append(body[len(_STANDARD) :])
            elif body.startswith(_EXTENSION):
                name, rest = body[len(_EXTENSION) :][:32], body[len(_EXTENSION) + 32 :]
                extensions.setdefault(name, {})[int.from_bytes(rest[4:8], "big")] = rest[8:]
        place += 2 + max(size, 2)
    said = "".join(map(_text, standard)) if extensions else ""
    for name, parts in extensions.items():
        if name.decode("ascii", "replace") in said:  # another one is a leftover of an editor's
            yield b"".join(parts[start] for start in sorted(parts))
    yield from standard


def _of_png(data: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(data):
        stop = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"iTXt" and data.startswith(_PNG_KEYWORD, place + 8):
            body = data[place + 8 + len(_PNG_KEYWORD) : stop]
            parts = body[2:].split(b"\0", 2)  # language, the keyword in it, text
            if len(parts) == 3:
                yield _inflated(parts[2]) if body[0] else parts[2]
        place = stop + 4


def _of_webp(data: bytes) -> Iterator[bytes]:
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"XMP ":
            yield data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _inflated(data: bytes) -> bytes:
    """Decompress as far as it goes, and no further than is read of a packet."""
    try:
        return zlib.decompressobj().decompress(data, _LONGEST)
    except zlib.error:
        return b""


def _text(packet: bytes) -> str:
    """Decode a packet, UTF-8, UTF-16 or UTF-32 with or without a byte order mark."""
    packet = packet[:_LONGEST]
    for mark, encoding in _MARKS:
        if packet.startswith(mark):
            return packet.decode(encoding, "replace")
    for encoding in _WIDE:
        bracket = "<".encode(encoding)
        head = packet[: 16 * len(bracket)]
        if bracket in [head[k : k + len(bracket)] for k in range(0, len(head), len(bracket))]:
            return packet.decode(encoding, "replace")
    return packet.decode("utf-8", "replace")


def xmp_properties(packets: Sequence[bytes]) -> dict[str, str]:
    """Return the properties of `NAMESPACES` in packets, such as ``GPano:PoseHeadingDegrees``.

    Attributes or elements, under any prefix bound to the namespace. Of several in one packet the
    first counts, of several packets the last one that has it.
    """
    said: dict[str, str] = {}
    for packet in packets:
        said |= _properties(_text(packet))
    return said


def _properties(text: str) -> dict[str, str]:
    prefixes = {prefix: prefix for prefix in NAMESPACES.values()}
    for match in _DECLARATION.finditer(text):
        if match[2] in NAMESPACES:
            prefixes[match[1]] = NAMESPACES[match[2]]
    said: dict[str, str] = {}
    names = "|".join(map(re.escape, prefixes))
    for match in re.finditer(rf"(?<!/)\b({names}):{_NAME_AND_VALUE}", text):
        value = html.unescape(match[3] or match[4] or match[5] or "").strip("\0 \t\r\n")
        if value:
            said.setdefault(f"{prefixes[match[1]]}:{match[2]}", value)
    return said
