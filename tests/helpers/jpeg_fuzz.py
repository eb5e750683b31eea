"""Decode damaged JPEG files with `bevgen.images.jpeg` and with Pillow, and compare.

Run as ``python -m tests.helpers.jpeg_fuzz COUNT SEED [SECONDS]``, best with NUMBA_BOUNDSCHECK=1
and a NUMBA_CACHE_DIR of its own. Prints counts as JSON; exits with 1 at the first difference, and
leaves the file where the message says.
"""

import io
import json
import sys
import tempfile
import time
import warnings
from collections import Counter

import cv2
import numpy as np
from PIL import Image, ImageFile

from bevgen.images.jpeg import decode_rows
from tests.helpers.paths import DATA

STREET = DATA / "street" / "2.jpg"
MARKERS = [0xC0, 0xC1, 0xC2, 0xC4, 0xC9, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE]


def pillow_rows(data):
    """What Pillow makes of a file; None if it refuses it."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def sound_files(random):
    """Small files of all kinds that the decoder is for."""
    with Image.open(STREET) as image:
        photo = image.resize((320, 160))
    files = []
    for number in range(24):
        width, height = (int(n) for n in random.integers(9, 80, 2))
        left, top = random.integers(0, 240), random.integers(40, 80)
        piece = photo.crop((left, top, left + width, top + height))
        if number % 5 == 4:
            piece = piece.convert("L")
        quality = int(random.choice([5, 30, 75, 90, 97]))
        if number % 6 == 5 and piece.mode == "RGB":
            options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
                       cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL,
                       int(random.integers(0, 4))]  # fmt: skip
            files.append(cv2.imencode(".jpg", np.asarray(piece), options)[1].tobytes())
            continue
        buffer = io.BytesIO()
        piece.save(
            buffer, "JPEG", quality=quality, subsampling=number % 3, optimize=number % 2 == 1,
            restart_marker_blocks=int(random.choice([0, 0, 0, 1, 3, 7])),
        )  # fmt: skip
        files.append(buffer.getvalue())
    return files


def segments(data):
    """Offsets at which the segments before the compressed data begin, and where that begins."""
    places, place = [], 2
    while True:
        places.append(place)
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        place += 2 + length
        if marker == 0xDA:
            return places, place


def mutated(data, random):
    """Damage a file in one of many ways."""
    places, scan = segments(data)
    out = bytearray(data)

    def anywhere(first, last):
        return int(random.integers(first, max(last, first + 1)))

    way = anywhere(0, 14)
    if way == 0:  # any byte
        for _ in range(anywhere(1, 12)):
            out[anywhere(0, len(out))] = anywhere(0, 256)
    elif way == 1:
        out[:] = out[: anywhere(0, len(out))]
    elif way in (2, 3):  # single bits of the compressed data
        for _ in range(anywhere(1, 4)):
            out[anywhere(scan, len(out))] ^= 1 << anywhere(0, 8)
    elif way in (4, 5):  # of the header
        for _ in range(anywhere(1, 4)):
            out[anywhere(2, scan)] ^= 1 << anywhere(0, 8)
    elif way == 6:  # other tables, of the right form
        tables = [p for p in places if out[p + 1] in (0xC4, 0xDB)]
        place = tables[anywhere(0, len(tables))]
        for _ in range(anywhere(1, 6)):
            out[
                anywhere(place + 5, place + 2 + int.from_bytes(out[place + 2 : place + 4], "big"))
            ] = anywhere(0, 256)
    elif way == 7:  # size, sampling
        place = next(p for p in places if out[p + 1] in (0xC0, 0xC1))
        end = place + 2 + int.from_bytes(out[place + 2 : place + 4], "big")
        for _ in range(anywhere(1, 3)):
            out[anywhere(place + 4, end)] = (
                anywhere(0, 256) if random.random() < 0.3 else anywhere(0, 40)
            )
    elif way == 8:  # segments leave, double or change places
        a, b = sorted(anywhere(0, len(places) - 1) for _ in range(2))
        first, second = bytes(out[places[a] : places[a + 1]]), bytes(out[places[b] : places[b + 1]])
        kind = anywhere(0, 3)
        if kind == 0:
            out[places[a] : places[a + 1]] = b""
        elif kind == 1:
            out[places[a] : places[a]] = second
        elif a != b:
            out[places[b] : places[b + 1]] = first
            out[places[a] : places[a + 1]] = second
    elif way == 9:  # a marker in the compressed data
        place = anywhere(scan, len(out))
        out[place:place] = bytes(
            [0xFF, int(random.choice([*MARKERS, *range(0xD0, 0xD8), 0, 0xFF]))]
        )
    elif way == 10:  # a restart interval that is not kept
        out[places[-1] : places[-1]] = bytes([0xFF, 0xDD, 0, 4, 0, anywhere(0, 20)])
    elif way == 11:  # bytes of the compressed data leave or double
        place, length = anywhere(scan, len(out)), anywhere(1, 40)
        out[place : place + length] = bytes(out[place : place + length]) * (2 * anywhere(0, 2))
    elif way == 12:  # noise
        place, length = anywhere(scan, len(out)), anywhere(1, 60)
        out[place : place + length] = random.bytes(length).replace(b"\xff", b"\xfe")
    else:  # a marker becomes another
        out[places[anywhere(0, len(places))] + 1] = int(random.choice(MARKERS))
    if random.random() < 0.1:
        out += random.bytes(anywhere(0, 50))
    return bytes(out)


def check(data, random, counts):
    """Compare one file; the difference as text, or None."""
    theirs = pillow_rows(data)
    height = len(theirs) if theirs is not None else 60
    first = int(random.integers(0, height))
    last = int(random.integers(first, height)) + 1
    ours = decode_rows(data, first, last)
    counts["pillow refuses" if theirs is None else "pillow decodes"] += 1
    if ours is None:
        counts["left to pillow"] += theirs is not None
        return None
    if theirs is None:
        return f"rows {first} to {last} of a file that Pillow refuses"
    counts["equal"] += 1
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if not np.array_equal(ours[first:last], theirs[first:last]):
        return f"rows {first} to {last} of {theirs.shape} differ"
    return None


def run(count, seed, seconds=None):
    """Compare so many files, or for so long; counts."""
    warnings.simplefilter("ignore")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    random = np.random.default_rng(seed)
    counts = Counter()
    start = time.monotonic()
    while (counts["files"] < count) if seconds is None else (time.monotonic() - start < seconds):
        if counts["files"] % 2000 == 0:
            files = sound_files(random)
        data = mutated(files[int(random.integers(len(files)))], random)
        if random.random() < 0.2:
            try:
                data = mutated(data, random)
            except (IndexError, StopIteration, ValueError):  # its segments are beyond recognition
                continue
        counts["files"] += 1
        try:
            problem = check(data, random, counts)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            with tempfile.NamedTemporaryFile(suffix=".jpg", delete=False) as file:
                file.write(data)
            sys.exit(f"{file.name}: {problem}")
    return counts


def main(*words):
    """Take the words of the command line."""
    count, seed, *seconds = map(int, words)
    sys.stdout.write(json.dumps(run(count, seed, *seconds)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
