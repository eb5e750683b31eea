"""Where metadata stand, tables as people write them, names, and what lies in a folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Iterable

from PIL.TiffImagePlugin import IFDRational

from tests.helpers.image_files import chunk, encoded, exif, gpano, scene, tiff
from tests.helpers.runs import panoramas
from tests.helpers.shards import write_shard
from tests.situations.frame import Ended, Place, Situation, Told, command

CARRIERS, TABLES = "Where metadata stand", "Tables and settings"
NAMES, FOLDERS = "Names that meet", "What lies in a folder"

XMP = (
    '<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><d'
    ' xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="47,22.5N"'
    ' exif:GPSLongitude="8,30.6W" exif:GPSImgDirection="770/10"/></x:xmpmeta>'
)
SAYS, ALL = r"77 2 47\.375 -8\.51", "heading, height, latitude, longitude"
GPS = {1: "N", 2: (47.0, 22.0, 30.0), 3: "W", 4: (8.0, 30.0, 36.0), 17: 77.0}
NONE = IFDRational(0, 0)
EXIF, DJI = "http://ns.adobe.com/exif/1.0/", "http://www.dji.com/drone-dji/1.0/"
WHERE = r"2 47\.375 -8\.51", "height, latitude, longitude"


def jpeg_with(*segments: bytes) -> bytes:
    """Put APP1 segments behind the start of a JPEG file."""
    data = encoded(scene(), "JPEG")
    parts = (b"\xff\xe1" + (len(one) + 2).to_bytes(2, "big") + one for one in segments)
    return data[:2] + b"".join(parts) + data[2:]


def png_with(text: bytes, *, behind: bool = False, packed: bool = False) -> bytes:
    """Put XMP into a PNG file, before or behind the pixels."""
    data = encoded(scene(), "PNG")
    body = bytes([packed, 0]) + b"\0\0" + (zlib.compress(text) if packed else text)
    stands = -12 if behind else 33
    return data[:stands] + chunk(b"iTXt", b"XML:com.adobe.xmp\0" + body) + data[stands:]


def carriers() -> Iterable[tuple[str, bytes, str, str]]:
    """Yield names of rows, files, what `info --rows` must say of them, and what that is."""
    head, xmp = b"http://ns.adobe.com/xap/1.0/\0", XMP.encode()
    wide = XMP.encode("utf-16")
    guid = b"0123456789ABCDEF" * 2
    note = (
        b'<?xpacket?><x:xmpmeta xmlns:x="adobe:ns:meta/"><d xmlns:xmpNote='
        b'"http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="' + guid + b'"/></x:xmpmeta>'
    )
    far = b"http://ns.adobe.com/xmp/extension/\0" + guid + len(xmp).to_bytes(4, "big")
    halves = [far + k.to_bytes(4, "big") + xmp[k : k + 150] for k in range(0, len(xmp), 150)]
    other = xmp.replace(XMP[XMP.index(" exif:") : -len("/></x:xmpmeta>")].encode(), b"")
    for name, data in (
        ("XMP in JPEG", jpeg_with(head + xmp)),
        ("XMP in UTF-16 in JPEG", jpeg_with(head + wide)),
        ("XMP in two packets in JPEG", jpeg_with(head + other, head + xmp)),
        ("extended XMP in JPEG, last part first", jpeg_with(*reversed(halves), head + note)),
        ("XMP in PNG", png_with(xmp)),
        ("XMP in PNG, compressed, behind the pixels", png_with(xmp, behind=True, packed=True)),
        ("XMP in WebP", encoded(scene(), "WEBP", xmp=xmp)),
        ("XMP in TIFF", tiff(scene(), extratags=[(700, "B", len(xmp), xmp, True)])),
        ("XMP in TIFF, in UTF-16", tiff(scene(), extratags=[(700, 7, len(wide), wide, True)])),
    ):
        yield name, data, SAYS, ALL
    for name, gps, says, then in (
        ("EXIF", {}, SAYS, ALL),
        ("EXIF, seconds of 0/0", {2: (47.0, 22.5, NONE), 4: (8.0, 30.6, NONE)}, SAYS, ALL),
        ("EXIF, the latitude all 0/0", {2: (NONE, NONE, NONE)}, "77 2", "heading, height"),
        ("EXIF, hemispheres as words", {1: "North", 3: "West"}, SAYS, ALL),
        ("EXIF, no hemisphere", {1: "", 3: ""}, "77 2", "heading, height"),
        ("EXIF, two parts of three", {2: (47.0, 22.5), 4: (8.0, 30.6)}, SAYS, ALL),
        ("EXIF, a direction of 0/0", {17: NONE}, r"2 47\.375 -8\.51", "no heading"),
    ):
        yield name, encoded(scene(), "JPEG", exif=exif(gps=GPS | gps)), says, then
    zone = exif(date="2024:06:01 10:11:12", zone="+09:00")
    dated = encoded(scene(), "JPEG", exif=zone)
    yield "EXIF, a date with its zone", dated, r"2 2024-06-01T10:11:12\+09:00", "height, date"
    comma = gpano(PoseHeadingDegrees="77,5", ProjectionType="equirectangular")
    pictured = encoded(scene(), "JPEG", xmp=comma)
    yield "GPano with a decimal comma", pictured, r"77\.5 2", "heading, height"
    for name, uri, latitude, longitude, says, then in (
        ("XMP of a drone (DJI)", DJI, "GpsLatitude='+47.375'", "GpsLongitude='-8.51'", *WHERE),
        ("XMP, signed decimals", EXIF, "GPSLatitude='47.375'", "GPSLongitude='-8.51'", *WHERE),
        ("XMP, decimals without a sign", EXIF, "GPSLatitude='47.375'", "GPSLongitude='8.51'", "2",
         "no position, and it is counted"),
    ):  # fmt: skip
        said = f"<d xmlns:a='{uri}' a:{latitude} a:{longitude}/>"
        yield name, jpeg_with(head + said.encode()), says, then


def listed(place: Place) -> dict[str, Ended]:
    """Convert all of them at once and list their rows, one by one."""
    (place / "in").mkdir()
    for number, (_, data, *_) in enumerate(carriers()):
        (place / "in" / f"photo {number:02d}").write_bytes(data)
    converted = place.run("bevgen convert -i in -o o.h5 --size 8 -q --decoder pillow")
    assert converted.code == 0, converted.text
    rows = place.run("bevgen info o.h5 --rows").text.splitlines()[1:]
    return {row.partition("\t")[0]: Ended(0, row) for row in rows}


def carried(number: int, then: str) -> Callable[[Place], Told]:
    """Look at one row of what was converted together."""

    def act(place: Place) -> Told:
        rows = place.ground.once("carriers", listed)
        return Told.of(rows[f"photo {number:02d}"], then=then)

    return act


def situations() -> Iterable[Situation]:
    for number, (name, _, says, then) in enumerate(carriers()):
        yield Situation(
            CARRIERS, name, carried(number, then), (0,), f"(?<=photo {number:02d} ){says}$"
        )
    yield from tables()
    yield from names()
    yield from folders()


def with_text(name: str, data: bytes | str) -> Callable[[Place], object]:
    """Write a file of the user's."""
    return lambda place: (place / name).write_bytes(
        data.encode() if isinstance(data, str) else data
    )


def decomposed(place: Place) -> None:
    """A file whose name a Mac has decomposed, and a table in which it is composed."""
    name = "Müllerstraße é.png"
    panoramas(place / "in", [unicodedata.normalize("NFD", name)])
    (place / "poses.csv").write_text(f"file,heading\n{unicodedata.normalize('NFC', name)},77\n")


def tables() -> Iterable[Situation]:
    line = "bevgen convert -i images -o o.h5 --size 8 --poses poses.csv -q"
    head = "file,heading\np000.png,90\n"
    windows = b"\xef\xbb\xbf" + head.replace("\n", "\r\n").encode()
    latin = (head + "straße.png,1\n").encode("latin-1")
    for name, data, code, says in (
        ("with a byte order mark and Windows line ends", windows, 0, ""),
        ("with semicolons", head.replace(",", ";"), 2, "Error: poses.csv, line 1: .*"),
        ("in UTF-16", head.encode("utf-16"), 2, "Error: poses.csv, line 1: .*"),
        ("in Latin-1", latin, 2, "Error: poses.csv, line 3: .*"),
        ("with a file that is not there", head + "other.png,1\n", 2, "Error: .*"),
        ("with one file twice", head + "p000.png,1\n", 2, "Error: .*"),
        ("with a decimal comma", 'file,heading\np000.png,"90,5"\n', 2, "Error: .*"),
        ("with an unknown column", "file,yaw\np000.png,1\n", 2, "Error: .*"),
        ("without a line", "", 2, "Error: .*"),
    ):  # fmt: skip
        yield command(
            TABLES, f"`poses.csv` {name}", line, code, says, "images",
            prepare=with_text("poses.csv", data),
        )  # fmt: skip
    yield command(
        TABLES,
        "`poses.csv` with composed names, and files with decomposed ones",
        "bevgen convert -i in -o o.h5 --size 8 --poses poses.csv",
        0,
        "o.h5: 1 stored",
        prepare=decomposed,
    )
    pairs = "georetrieval neighbours --data world"
    for name, data, says in (
        ("with a byte order mark in the recipe", None, "world/neighbours.*npz: .*? places"),
        ("with the ids' endings", ".png", "Error: .*"),
        ("of no split `train`", "other", "Error: .*"),
    ):
        yield command(
            TABLES,
            f"`pairs.csv` {name}" if data else "a recipe with a byte order mark",
            pairs,
            0 if data is None else 1,
            says,
            "world",
            prepare=_changed_pairs(data),
        )


def _changed_pairs(change: str | None) -> Callable[[Place], object]:
    def prepare(place: Place) -> None:
        recipe, path = place / "world" / "georetrieval.toml", place / "world" / "pairs.csv"
        if change is None:
            recipe.write_bytes(b"\xef\xbb\xbf" + recipe.read_bytes())
        elif change == "other":
            path.write_text(path.read_text().replace("train", "other"))
        else:
            first, *lines = path.read_text().splitlines()
            cells = [line.split(",") for line in lines]
            rows = [",".join([one + change, *more]) for one, *more in cells]
            path.write_text("\n".join([first, *rows]))

    return prepare


def linked_folders(place: Place) -> None:
    """Ids a/x and b/x, and a folder in which b is a: what a disk does that folds names."""
    write_shard(place / "o.h5", [("a/x", "a/x.jpg"), ("b/x", "b/x.jpg")])
    (place / "out" / "a").mkdir(parents=True)
    (place / "out" / "b").symlink_to("a")


def names() -> Iterable[Situation]:
    def two_endings(place: Place) -> None:
        panoramas(place / "in", ["a.png", "b.png"])
        shutil.copy(place / "in" / "a.png", place / "in" / "a.tif")

    convert = "bevgen convert -i in -o o.h5 --size 8 -q"
    yield command(
        NAMES, "`convert` of `a.png` and `a.tif`, whose id is one", convert, 2,
        "Error: .*--keep-endings.*", prepare=two_endings,
    )  # fmt: skip
    yield command(
        NAMES, "the same with `--keep-endings`", f"{convert} --keep-endings", 0, "",
        prepare=two_endings,
    )  # fmt: skip
    yield command(
        NAMES, "`export` to a disk on which two ids are one file", "bevgen export o.h5 -o out", 1,
        "Error: .*", prepare=linked_folders,
    )  # fmt: skip
    yield command(
        NAMES, "`export` of an id that is too long for a file's name",
        "bevgen export o.h5 -o out", 2, "(?<=x{299}').*",
        prepare=lambda place: write_shard(place / "o.h5", [("x" * 300, "a.jpg")]),
    )  # fmt: skip
    yield command(
        NAMES, "`export` of an id that climbs out of the folder", "bevgen export o.h5 -o out", 2,
        "Error: .*", prepare=lambda place: write_shard(place / "o.h5", [("../../x", "a.jpg")]),
    )  # fmt: skip
    yield command(
        NAMES, "`export` of the ids `a` and `a.png/b`", "bevgen export o.h5 -o out", 2, "Error: .*",
        prepare=lambda place: write_shard(place / "o.h5", [("a", "1.jpg"), ("a.png/b", "2.jpg")]),
    )  # fmt: skip


def folders() -> Iterable[Situation]:
    line = "bevgen convert -i in -o o.h5 --size 8"

    def odd(place: Place) -> None:
        panoramas(place / "in", ["a.png", "stra_3_1png.png", "@eaDir/a.png", "__MACOSX/b.png"])
        (place / "in" / "stra_3_1png.png").rename(place / "in" / "stra_3_1png")
        for name in ("._a.png", "notes.txt", "film.mp4"):
            (place / "in" / name).write_bytes(b"x")
        (place / "in" / "gone.png").symlink_to("/nowhere")

    def no_files(place: Place) -> None:
        panoramas(place / "in", ["a.png", "folder.jpg/b.png"])
        os.mkfifo(place / "in" / "pipe.jpg")
        (place / "in" / "link.jpg").symlink_to("pipe.jpg")
        (place / "in" / "zero.jpg").symlink_to("/dev/zero")
        (place / "in" / "self.jpg").symlink_to("self.jpg")

    def raw_alone(place: Place) -> None:
        (place / "in").mkdir()
        (place / "in" / "a.insp").write_bytes(b"x")

    def flat(place: Place) -> None:
        panoramas(place / "in", ["good.png"])
        for height in (20, 24, 28):
            panoramas(place / "in", [f"{height}.png"], (height, 64))

    def small(place: Place) -> None:
        panoramas(place / "in", ["a.png"], (16, 32))

    yield command(
        FOLDERS,
        "an image without a dot in its name, thumbnails of the system, a film, a link to nowhere",
        line, 0, r"not looked at in in: .*?(?= 3 images)", prepare=odd,
    )  # fmt: skip
    yield command(
        FOLDERS,
        "a pipe, links to it, to `/dev/zero` and to itself, and a folder named `folder.jpg`",
        line, 0, r"o\.h5: 2 stored, 1 skipped", prepare=no_files, then="nothing is waited for",
    )  # fmt: skip
    yield command(
        FOLDERS, "`preview` of a pipe", "bevgen preview -i in/pipe.jpg -o o.png", 1, "Error: .*",
        prepare=no_files,
    )  # fmt: skip
    yield command(
        FOLDERS, "nothing that can be read", line, 2, "Error: no images .*", prepare=raw_alone
    )
    yield command(
        FOLDERS, "a panorama that is coarser than its BEV everywhere",
        f"{line} --size 256 --resolution 0.01", 0, "1 panorama is coarser .*",
        prepare=small,
    )  # fmt: skip
    yield command(
        FOLDERS, "images of one cause of failure, in many sizes", line, 0,
        r"\d+ x .*? not 2:1.*?\)",
        prepare=flat,
    )  # fmt: skip
