"""What drawings of both packages share: colours, the font, round lengths, scale bar and arrow."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT, RULE = (255, 255, 255), (28, 32, 38), (118, 124, 132), (208, 212, 216)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def round_length(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a positive value."""
    power = math.floor(math.log10(value))
    return max(
        length
        for k in (power, power + 1)
        for factor in (1, 2, 5)
        if (length := float(f"{factor}e{k}")) <= value * (1 + 1e-12)
    )


# --- text ---


@lru_cache
def font(height: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow; it is a Latin one."""
    from PIL import ImageFont

    found = ImageFont.load_default(height)
    assert isinstance(found, ImageFont.FreeTypeFont)  # always so where a size is given
    return found


def printable(text: str) -> str:
    """Return text with a question mark for what the font lacks."""
    return "".join(c if (c.isascii() and c.isprintable()) or c == "°" else "?" for c in text)


def fitted(text: str, height: int, width: int) -> str:
    """Return text that the font has, shortened in the middle to so many pixels."""
    text = printable(text)
    keep, short = len(text), text
    while font(height).getlength(short) > width:
        keep -= 1
        short = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return short


def write_on_picture(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, height: int, anchor: str
) -> None:
    """Write in white with a dark rim, to be read on any picture."""
    draw.text(at, text, WHITE, font(height), anchor, stroke_width=2, stroke_fill=BLACK)


# --- maps ---


def draw_scale_bar(picture: Image.Image, extent: float) -> None:
    """Draw a bar of ``round_length(extent / 5)`` metres, true to scale, at the lower left.

    Parameters
    ----------
    picture
        A map, RGB.
    extent
        Metres from its left to its right edge.
    """
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    length = round_length(extent / 5)
    bar = round(length * picture.width / extent)
    x, y = 30, picture.height - 40
    draw.rectangle((x - 3, y - 3, x + bar + 2, y + 12), BLACK)
    draw.rectangle((x, y, x + bar - 1, y + 9), WHITE)
    write_on_picture(draw, (x + bar / 2, y - 12), f"{length:g} m", 38, "ms")


def draw_north_arrow(picture: Image.Image) -> None:
    """Draw an arrow to the north, which is up, at the upper right."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    x, y = picture.width - 52, 66
    arrow = [(x, y - 40), (x + 22, y + 26), (x, y + 11), (x - 22, y + 26)]
    draw.polygon(arrow, WHITE, BLACK, 3)
    write_on_picture(draw, (x, y + 36), "N", 38, "ma")
