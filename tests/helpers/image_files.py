"""Image files as people have them, sound and broken, small enough to make by the hundred.

Where a library could only confirm itself, the bytes are put together here: PNG with its chunks,
ICC profiles with their tags. TIFF is written by tifffile, which shares no code with Pillow.
"""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 32, 64


def scene(height=HEIGHT, width=WIDTH):
    """Smooth colours, none of them symmetric under any turn or flip: (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [20 + 200 * x // width, 240 - 180 * y // height, 30 + 150 * (x + y) // (width + height)],
        axis=-1,
    ).astype(np.uint8)


def encoded(image, file_format, **options):
    """Bytes that Pillow writes for an array or an image."""
    buffer = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, colour_type, bits=8, before=b"", size=None):
    """PNG of samples (H, W[, C]), uint8 or uint16; rows of 1-bit images come packed.

    `before` are chunks ahead of the pixels; `size` a (width, height) that the header claims.
    """
    samples = np.ascontiguousarray(samples)
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(samples.shape[0], -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    width, height = size or (samples.shape[1], samples.shape[0])
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def tiff(pixels, **options):
    """TIFF by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"metadata": None, **options})
    return buffer.getvalue()


def gpano(elements=False, prefix="GPano", **properties):
    """XMP packet with GPano properties, as attributes or as elements."""
    if elements:
        inside = "".join(f"<{prefix}:{k}>{v}</{prefix}:{k}>\n" for k, v in properties.items())
        attributes = ""
    else:
        inside = ""
        attributes = "".join(f' {prefix}:{k}="{v}"' for k, v in properties.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:{prefix}="http://ns.google.com/photos/1.0/panorama/"{attributes}>\n{inside}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def gpano_crop(left, top, width, height, full_width, full_height):
    return {
        "CroppedAreaLeftPixels": left,
        "CroppedAreaTopPixels": top,
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
        "FullPanoWidthPixels": full_width,
        "FullPanoHeightPixels": full_height,
    }


def exif(orientation=None, gps=None, date=None, zone=None):
    """EXIF block; `gps` maps GPS tags to values, `zone` is that of the date."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    if gps is not None:
        block[0x8825] = gps
    if date is not None:
        block[0x8769] = {0x9003: date} | ({0x9011: zone} if zone else {})
    return block.tobytes()


def linear_profile(space=b"RGB "):
    """ICC profile of linear light, with the primaries of sRGB if it is of RGB (version 2)."""

    def s15(*numbers):
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def xyz(*numbers):
        return b"XYZ \0\0\0\0" + s15(*numbers)

    linear = b"curv\0\0\0\0" + struct.pack(">I", 0)
    text = b"linear\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0public domain\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
    }
    if space == b"RGB ":
        tags |= {
            b"rXYZ": xyz(0.43607, 0.22249, 0.01392),
            b"gXYZ": xyz(0.38515, 0.71687, 0.09708),
            b"bXYZ": xyz(0.14307, 0.06061, 0.71410),
            b"rTRC": linear,
            b"gTRC": linear,
            b"bTRC": linear,
        }
    else:
        tags |= {b"kTRC": linear}
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(body), bytes(4), 0x02100000, b"mntr", space, b"XYZ "
    )
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += s15(0.9642, 1.0, 0.8249)
    return header + bytes(128 - len(header)) + table + body


def sound():
    """Sound files of every kind: name -> (bytes, the pixels that they show, tolerance)."""
    rgb = scene()
    grey = rgb[..., 0]
    greys = np.repeat(grey[..., None], 3, axis=-1)
    wide = rgb.astype(np.uint16) * 257 - 60  # 16 bits, none of them a multiple of 257
    alpha = np.dstack([rgb, np.full((HEIGHT, WIDTH), 7, np.uint8)])
    palette = np.arange(256)[:, None] * [1, 0, -1] + [0, 90, 255]
    painted = palette[grey].astype(np.uint8)
    plte = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    bits = grey > 120
    bright = np.repeat((bits * np.uint8(255))[..., None], 3, axis=-1)
    cmyk = np.dstack([rgb, np.full((HEIGHT, WIDTH), 51, np.uint8)])
    ink = ((255 - rgb.astype(int)) * (255 - 51) / 255).round().astype(np.uint8)
    other = encoded(rgb[::-1], "png")
    pages = {"save_all": True, "append_images": [Image.open(io.BytesIO(other))]}
    rounded = (wide[..., 0].astype(float) / 257).round().astype(np.uint8)
    rounded = np.repeat(rounded[..., None], 3, axis=-1)
    lab = np.zeros((2, 4, 3), np.int8)  # white, black, red, and white again
    lab[:, 0], lab[:, 2], lab[:, 3] = (-1, 0, 0), (138 - 256, 81, 70), (-1, 0, 0)
    from_lab = np.array([[[255] * 3, [0] * 3, [255, 0, 0], [255] * 3]] * 2, np.uint8)
    return {
        "rgb.jpg": (encoded(rgb, "jpeg", quality=95, subsampling=0), rgb, 4),
        "progressive.jpg": (encoded(rgb, "jpeg", quality=95, progressive=True), rgb, 10),
        "grey.jpg": (encoded(grey, "jpeg", quality=95), greys, 4),
        "cmyk.jpg": (encoded(Image.fromarray(cmyk, "CMYK"), "jpeg", quality=95), ink, 6),
        "mpo.jpg": (encoded(rgb, "mpo", quality=95, subsampling=0, **pages), rgb, 4),
        "rgb.png": (png(rgb, 2), rgb, 0),
        "grey.png": (png(grey, 0), greys, 0),
        "grey and alpha.png": (png(np.dstack([grey, grey]), 4), greys, 0),
        "alpha.png": (png(alpha, 6), rgb, 0),
        "palette.png": (png(grey, 3, before=plte), painted, 0),
        "palette with alpha.png": (
            png(grey, 3, before=plte + chunk(b"tRNS", bytes(range(200)))),
            painted,
            0,
        ),
        "transparent colour.png": (png(rgb, 2, before=chunk(b"tRNS", bytes(6))), rgb, 0),
        "one bit.png": (png(np.packbits(bits, axis=1), 0, 1, size=(WIDTH, HEIGHT)), bright, 0),
        "grey 16.png": (png(wide[..., 0], 0, 16), rounded, 0),
        "rgb 16.png": (png(wide, 2, 16), (wide >> 8).astype(np.uint8), 0),
        "animated.png": (encoded(rgb, "png", **pages), rgb, 0),
        "lossless.webp": (encoded(rgb, "webp", lossless=True), rgb, 0),
        "lossy.webp": (encoded(rgb, "webp", quality=95), rgb, 12),
        "alpha.webp": (encoded(alpha, "webp", lossless=True, exact=True), rgb, 0),
        "animated.webp": (encoded(rgb, "webp", lossless=True, **pages), rgb, 0),
        "rgb.tif": (tiff(rgb), rgb, 0),
        "deflate.tif": (tiff(rgb, compression="zlib"), rgb, 0),
        "tiled.tif": (tiff(rgb, tile=(16, 16)), rgb, 0),
        "big endian.tif": (tiff(rgb, byteorder=">"), rgb, 0),
        "bigtiff.tif": (tiff(rgb, bigtiff=True), rgb, 0),
        "pages.tif": (tiff(np.stack([rgb, rgb[::-1]])), rgb, 0),
        "alpha.tif": (tiff(alpha, photometric="rgb", extrasamples=["unassalpha"]), rgb, 0),
        "grey 16.tif": (tiff(wide[..., 0]), rounded, 0),
        "grey 16 big endian.tif": (tiff(wide[..., 0], byteorder=">"), rounded, 0),
        "grey 16 deflate.tif": (tiff(wide[..., 0], compression="zlib"), rounded, 0),
        "grey 16 inverted.tif": (
            tiff(65535 - wide[..., 0], photometric="miniswhite"),
            rounded,
            0,
        ),
        "rgb 16.tif": (tiff(wide, photometric="rgb"), (wide >> 8).astype(np.uint8), 0),
        "cmyk.tif": (tiff(cmyk, photometric="separated"), ink, 1),
        "ycbcr.tif": (encoded(rgb, "tiff", compression="jpeg", quality=95), rgb, 12),
        "palette.tif": (
            tiff(grey, photometric="palette", colormap=(palette.T * 257).astype(np.uint16)),
            painted,
            0,
        ),
        "lab.tif": (tiff(lab.view(np.uint8), photometric="cielab"), from_lab, 6),
    }


def broken():
    """Files that are no usable images: name -> (bytes, a word of the reason)."""
    rgb = scene()
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    jpeg, webp = encoded(noise, "jpeg"), encoded(noise, "webp", lossless=True)
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 9))
    flipped = bytearray(png(noise, 2))
    flipped[len(flipped) // 2] ^= 255
    return {
        "empty.jpg": (b"", "empty"),
        "zeros.jpg": (bytes(5000), "zeros"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "DOCTYPE"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "version https"),
        "really a gif.jpg": (encoded(rgb, "gif"), "GIF8"),
        "three bytes.jpg": (jpeg[:3], "damaged: its bytes"),
        "cut header.jpg": (jpeg[:200], "truncated"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png(noise, 2)[:-3000], "truncated"),
        "flipped.png": (bytes(flipped), "damaged"),
        "cut.webp": (webp[: len(webp) // 2], "truncated"),
        "cut.tif": (tiff(noise)[:-3000], "truncated"),
        "cut deflate.tif": (tiff(noise, compression="zlib")[:-3000], "truncated"),
        "missing strips.tif": (
            tiff(noise).replace(struct.pack("<H", HEIGHT), struct.pack("<H", 2 * HEIGHT), 1),
            "truncated",
        ),
        "pixel bomb.png": (png(rgb, 2, size=(100_000, 100_000)), "too large: 100000 x 100000"),
        "text bomb.png": (png(rgb, 2, before=bomb), "damaged: .*too large"),
        "float.tif": (tiff(rgb[..., 0].astype(np.float32)), "floating-point"),
        "signed.tif": (tiff(rgb[..., 0].astype(np.int16)), "signed or 32-bit"),
        "wide.tif": (tiff(rgb[..., 0].astype(np.uint32)), "signed or 32-bit"),
    }
