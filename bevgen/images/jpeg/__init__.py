"""Decode some pixel rows of a baseline JPEG, bit for bit as libjpeg does, and nothing else.

A panorama's sky never reaches a bird's-eye view. A decoder of whole images spends half of its time
on it; this one reads past it and transforms, enlarges and colours the rows asked for alone.

All that is not plain is refused (None), and then Pillow decides. The arithmetic is that of ITU-T
T.81 with libjpeg's choices where the standard leaves one: the accurate integer transform
(Loeffler, Ligtenberg, Moschytz, 13 bits), triangle-filtered chroma, 16-bit colour tables.

A file goes through `header`, `tables`, `entropy` (compressed bits to coefficients), `cosine`
(coefficients to samples) and `colour` (samples to pixels); `decoding` holds the loops.
"""

from bevgen.images.jpeg.decoding import decode_rows

__all__ = ["decode_rows"]
