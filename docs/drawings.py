"""Draw the pictures of geometry.md: `python docs/drawings.py` writes docs/images/geometry-*.svg.

Every line is computed from the same formulas as the text. The colours are mid-tones, legible on
white and on black, because an image cannot know the theme of the page around it.
"""

# The pictures use typographic minus signs and apostrophes.
# ruff: noqa: RUF001

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path

INK, FAINT = "#6c7683", "#828c99"
BLUE, ORANGE, GREEN, RED = "#2b80d4", "#d8761a", "#2f9a63", "#d5504a"

Point = tuple[float, float]


def tag(name: str, content: str = "", /, **attributes: str | float) -> str:
    """Write one SVG element; underscores in attribute names become hyphens."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{f"{value:.2f}".rstrip("0").rstrip(".")}"'
        if isinstance(value, float)
        else f' {key.rstrip("_").replace("_", "-")}="{value}"'
        for key, value in attributes.items()
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def line(a: Point, b: Point, colour: str = INK, width: float = 1.5, **more: str | float) -> str:
    """Draw a straight line."""
    return tag(
        "line",
        x1=float(a[0]),
        y1=float(a[1]),
        x2=float(b[0]),
        y2=float(b[1]),
        stroke=colour,
        stroke_width=width,
        **more,
    )


def arrow(a: Point, b: Point, colour: str = INK, both: bool = False, width: float = 1.5) -> str:
    """Draw a line with a head at its end, or at both ends."""
    angle = math.atan2(b[1] - a[1], b[0] - a[0])
    parts = [line(a, b, colour, width)]
    for tip, back in [(b, angle + math.pi), *([(a, angle)] if both else [])]:
        ends = [
            (tip[0] + 8 * math.cos(back + turn), tip[1] + 8 * math.sin(back + turn))
            for turn in (0.42, -0.42)
        ]
        parts.append(shape([tip, *ends], fill=colour))
    return "".join(parts)


def shape(points: Iterable[Point], closed: bool = True, **more: str | float) -> str:
    """Draw a polygon, or a polyline that is not filled."""
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if closed:
        return tag("polygon", points=listed, **more)
    return tag("polyline", points=listed, fill="none", **more)


def arc(centre: Point, radius: float, start: float, stop: float, colour: str) -> str:
    """Draw an arc between two angles in degrees, clockwise on the screen from the right."""
    steps = [math.radians(start + (stop - start) * k / 24) for k in range(25)]
    points = [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in steps]
    return shape(points, closed=False, stroke=colour, stroke_width=1.5)


def text(
    at: Point,
    words: str,
    colour: str = INK,
    anchor: str = "middle",
    size: int = 14,
    **more: str | float,
) -> str:
    """Write a line of text; *stars* make italics."""
    parts = words.split("*")
    spans = "".join(
        tag("tspan", part, font_style="italic") if k % 2 else part for k, part in enumerate(parts)
    )
    return tag(
        "text",
        spans,
        x=float(at[0]),
        y=float(at[1]),
        fill=colour,
        text_anchor=anchor,
        font_size=size,
        **more,
    )


def dot(at: Point, colour: str, radius: float = 4.5) -> str:
    """Draw a filled circle."""
    return tag("circle", cx=float(at[0]), cy=float(at[1]), r=radius, fill=colour)


def box(x: float, y: float, width: float, height: float, **more: str | float) -> str:
    """Draw a rectangle, empty unless a fill is given."""
    more = {"fill": "none", **more}
    return tag("rect", x=float(x), y=float(y), width=float(width), height=float(height), **more)


def ground_line(left: float, right: float, y: float) -> str:
    """Draw the ground in a side view: a line with earth below."""
    earth = box(left, y, right - left, 12, fill=FAINT, fill_opacity=0.25)
    return earth + line((left, y), (right, y), INK, 2)


def camera(at: Point, ground: float) -> str:
    """Draw a panorama camera on a pole in a side view."""
    pole = line(at, (at[0], ground), FAINT, 4) if ground > at[1] else ""
    return pole + dot(at, BLUE, 9) + tag("circle", cx=at[0], cy=at[1], r=4, fill="#ffffff")


def ray() -> tuple[str, int, int]:
    """Show from the side how a ray leaves the camera and meets the ground."""
    eye, ground, hit = (110.0, 70.0), 230.0, 520.0
    slope = math.degrees(math.atan2(ground - eye[1], hit - eye[0]))
    parts = [
        ground_line(20, 700, ground),
        camera(eye, ground),
        line(eye, (700, eye[1]), FAINT, 1.5, stroke_dasharray="6 5"),
        text((696, eye[1] - 9), "horizon, elevation 0", FAINT, "end"),
        arrow(eye, (hit, ground), ORANGE, width=2),
        arc(eye, 120, 0, slope, ORANGE),
        text((eye[0] + 132, eye[1] + 29), "elevation *e* &lt; 0", ORANGE, "start"),
        arrow((64, eye[1]), (64, ground), INK, both=True),
        text((52, 156), "*h*", INK, "end", 16),
        line((hit - 12, ground), (hit + 12, ground), ORANGE, 6),
        text((hit + 22, ground - 14), "a BEV pixel’s centre", ORANGE, "start"),
        arrow((eye[0], ground + 32), (hit, ground + 32), INK, both=True),
        text(((eye[0] + hit) / 2, ground + 54), "*d* = *h* / tan(−*e*)", INK, size=16),
        text((eye[0] + 16, eye[1] - 14), "camera", BLUE, "start"),
        text((700, ground + 30), "flat ground", INK, "end"),
    ]
    return "".join(parts), 720, 300


def panorama() -> tuple[str, int, int]:
    """Show the equirectangular frame: columns are compass directions, rows are elevations."""
    left, top, wide = 104, 52, 540
    tall = wide // 2
    row = top + tall * (90 - 38.6) / 180, top + tall * (90 + 26.9) / 180
    parts = [
        box(left, top, wide, tall / 2, fill=BLUE, fill_opacity=0.1),
        box(left, top + tall / 2, wide, tall / 2, fill=ORANGE, fill_opacity=0.12),
        line((left, top + tall / 2), (left + wide, top + tall / 2), INK, 1.5),
        text((left + 8, top + tall / 2 - 7), "horizon", INK, "start"),
        box(
            left,
            row[0],
            wide,
            row[1] - row[0],
            stroke=GREEN,
            stroke_width=2,
            stroke_dasharray="7 4",
        ),
        text((left + 8, row[0] - 7), "a crop: CVUSA shows +38.6° to −26.9°", GREEN, "start"),
        box(left, top, wide, tall, stroke=INK, stroke_width=2),
        text(
            (left + wide / 2, top + tall - 10),
            "lower edge: all of it is the point below the camera",
        ),
    ]
    names = ("south", "west", "north", "east", "south")
    columns = ("0", "*W*/4", "*W*/2", "3*W*/4", "*W*")
    for k in range(5):
        x = left + wide * k / 4
        colour = ORANGE if k == 2 else INK
        if 0 < k < 4:
            parts.append(line((x, top), (x, top + tall), colour, 1, stroke_dasharray="2 4"))
        parts += [
            text((x, top - 12), columns[k], INK),
            text((x, top + tall + 22), f"{90 * k - 180:+d}°".replace("-", "−").replace("+0", "0")),
            text((x, top + tall + 42), names[k], colour, font_weight="bold"),
        ]
    for k, (edge, elevation) in enumerate((("0", "+90°"), ("*H*/2", "0°"), ("*H*", "−90°"))):
        y = top + tall * k / 2 + 5
        parts += [
            text((left - 10, y), edge, INK, "end"),
            text((left + wide + 10, y), elevation, INK, "start"),
        ]
    parts += [
        text((left, top - 34), "column", FAINT, size=13),
        text((left - 44, top + 5), "row", FAINT, "end", size=13),
        text((left + wide + 10, top - 34), "elevation", FAINT, size=13),
        text((left - 44, top + tall + 22), "azimuth", FAINT, "end", 13),
        text(
            (left + wide / 2, top + tall + 68),
            "With heading 0 the centre column looks north; directions run clockwise to the right.",
            FAINT,
            size=13,
        ),
    ]
    return "".join(parts), 720, 418


def bev() -> tuple[str, int, int]:
    """Show the BEV grid, eight pixels wide, with one pixel worked out."""
    left, top, cell, n = 70, 48, 40, 8
    side = cell * n
    centre = (left + side / 2, top + side / 2)
    i, j = 1, 5
    at = (left + (j + 0.5) * cell, top + (i + 0.5) * cell)
    parts = [box(left + j * cell, top + i * cell, cell, cell, fill=ORANGE, fill_opacity=0.25)]
    for k in range(n + 1):
        parts += [
            line((left + k * cell, top), (left + k * cell, top + side), FAINT, 1),
            line((left, top + k * cell), (left + side, top + k * cell), FAINT, 1),
        ]
    for k in range(n):
        parts += [
            text((left + (k + 0.5) * cell, top - 10), str(k), ORANGE if k == j else FAINT, size=13),
            text(
                (left - 10, top + (k + 0.5) * cell + 5),
                str(k),
                ORANGE if k == i else FAINT,
                "end",
                13,
            ),
        ]
    right = left + side
    parts += [
        box(left, top, side, side, stroke=INK, stroke_width=2),
        arrow(centre, (right + 34, centre[1]), INK),
        arrow(centre, (centre[0], top - 34), INK),
        text((right + 42, centre[1] + 5), "*x*, east", INK, "start"),
        text((centre[0] + 10, top - 28), "*y*, north", INK, "start"),
        dot(centre, BLUE, 7),
        text((centre[0] - 8, centre[1] + 20), "camera", BLUE, "end"),
        dot(at, ORANGE),
        line(at, (right + 26, at[1]), ORANGE, 1, stroke_dasharray="3 3"),
        text((right + 34, at[1] - 17), "row *i* = 1, column *j* = 5", ORANGE, "start"),
        text((right + 34, at[1] + 5), "*x* = (5 + ½ − 4) *g* = 1.5 *g*", ORANGE, "start"),
        text((right + 34, at[1] + 27), "*y* = (4 − 1 − ½) *g* = 2.5 *g*", ORANGE, "start"),
        arrow((left, top + side + 22), (right, top + side + 22), INK, both=True),
        text(
            (centre[0], top + side + 44),
            "size 8: eight pixels of *g* metres",
        ),
        text((left - 34, top - 10), "*i*, *j*", FAINT, size=13),
    ]
    return "".join(parts), 640, 426


def half_pixel() -> tuple[str, int, int]:
    """Show the seam of the panorama, with pixel centres at half-integers and without."""
    cell, left = 84, 176
    parts = []
    for y, title, own in ((62.0, "bevgen", True), (222.0, "published script", False)):
        parts.append(text((20, y + 29), title, INK, "start", font_weight="bold"))
        shades = (0.5, 0.36, 0.2, 0.1)
        for k, shade in enumerate(shades):
            parts.append(box(left + k * cell, y, cell, 46, fill=BLUE, fill_opacity=shade))
        for k, name in enumerate(("*W* − 2", "*W* − 1", "0", "1")):
            x = left + (k + 0.5) * cell
            parts += [
                box(left + k * cell, y, cell, 46, stroke=INK),
                text((x, y - 10), f"pixel {name}", FAINT, size=13),
                dot((x if own else x - cell / 2, y + 23), ORANGE, 6),
            ]
        seam = left + 2 * cell
        parts.append(line((seam, y - 30), (seam, y + 56), INK, 2.5))
        parts.append(text((seam, y + 74), "180° = −180°", INK, size=13))
        if own:
            words = "a pixel’s value stands at its centre; the last mixes with the first"
        else:
            parts.append(box(left + cell, y + 8, cell, 30, fill=RED, fill_opacity=0.35, stroke=RED))
            words = "values half a pixel off; between the last and the first nothing: black"
        parts.append(text((left + 2 * cell, y + 96), words, RED if not own else INK))
    parts.append(dot((548, 70), ORANGE, 6))
    parts.append(text((562, 75), "where the value", INK, "start"))
    parts.append(text((562, 93), "is taken to be", INK, "start"))
    return "".join(parts), 720, 336


def angles() -> tuple[str, int, int]:
    """Show heading from above, pitch from the side, roll from behind."""
    parts = []
    # Heading, from above: the direction of the centre column, clockwise from north.
    c, turn = (120.0, 150.0), math.radians(40)
    tip = (c[0] + 92 * math.sin(turn), c[1] - 92 * math.cos(turn))
    parts += [
        arrow(c, (c[0], 52), FAINT),
        text((c[0], 42), "north", FAINT),
        arrow(c, tip, BLUE, width=2.5),
        text((tip[0] - 8, tip[1] - 12), "centre column", BLUE, "start"),
        arc(c, 56, -90, -50, ORANGE),
        text((c[0] + 17, c[1] - 60), "+", ORANGE, size=18),
        dot(c, BLUE, 9),
        text((c[0], 236), "heading, from above", INK, font_weight="bold"),
        text((c[0], 258), "clockwise is positive", INK),
    ]
    # Pitch, from the right side: the nose points to the right.
    c, turn = (330.0, 150.0), math.radians(18)
    tip = (c[0] + 110 * math.cos(turn), c[1] - 110 * math.sin(turn))
    parts += [
        line((c[0] - 40, c[1]), (c[0] + 120, c[1]), FAINT, 1.5, stroke_dasharray="6 5"),
        arrow(c, tip, BLUE, width=2.5),
        text((tip[0], tip[1] - 12), "forward", BLUE),
        arc(c, 78, -18, 0, ORANGE),
        text((c[0] + 92, c[1] - 9), "+", ORANGE, size=18),
        dot(c, BLUE, 9),
        text((c[0] + 30, 236), "pitch, from the right", INK, font_weight="bold"),
        text((c[0] + 30, 258), "nose up is positive", INK),
    ]
    # Roll, from behind: the right side is at the right.
    c, turn = (600.0, 150.0), math.radians(18)
    tip = (c[0] + 96 * math.cos(turn), c[1] + 96 * math.sin(turn))
    back = (c[0] - 60 * math.cos(turn), c[1] - 60 * math.sin(turn))
    parts += [
        line((c[0] - 96, c[1]), (c[0] + 106, c[1]), FAINT, 1.5, stroke_dasharray="6 5"),
        line(c, back, BLUE, 2.5),
        arrow(c, tip, BLUE, width=2.5),
        text((tip[0] - 4, tip[1] + 20), "right", BLUE),
        arrow(c, (c[0] + 80 * math.sin(turn), c[1] - 80 * math.cos(turn)), BLUE, width=2.5),
        text((c[0] + 34, c[1] - 84), "up", BLUE),
        arc(c, 70, 0, 18, ORANGE),
        text((c[0] + 84, c[1] + 19), "+", ORANGE, size=18),
        dot(c, BLUE, 9),
        text((c[0], 236), "roll, from behind", INK, font_weight="bold"),
        text((c[0], 258), "right side down is positive", INK),
    ]
    return "".join(parts), 720, 276


def smear() -> tuple[str, int, int]:
    """Show from the side how what stands above the ground lands behind its foot."""
    scale, eye, ground = 58.0, (80.0, 80.0), 200.0
    h, wall, z = 120.0 / scale, 3.4, 1.35
    foot = eye[0] + wall * scale
    far = eye[0] + wall * h / (h - z) * scale
    top = ground - z * scale
    parts = [
        ground_line(20, 740, ground),
        line(eye, (740, eye[1]), FAINT, 1.5, stroke_dasharray="6 5"),
        camera(eye, ground),
        box(foot, top, 14, ground - top, fill=RED, fill_opacity=0.3, stroke=RED),
        arrow(eye, (far, ground), ORANGE, width=2),
        line(eye, (foot, ground), ORANGE, 1.5),
        line((foot, ground), (far, ground), RED, 7),
        dot((foot, ground), RED),
        dot((foot, top), RED),
        text((foot + 6, top - 12), "a point *z* above its foot", RED, "start"),
        text(((foot + far) / 2 + 20, ground - 12), "drawn here", RED),
        arrow((eye[0], ground + 30), (foot, ground + 30), INK, both=True),
        text(((eye[0] + foot) / 2, ground + 51), "*d*", INK, size=16),
        arrow((eye[0], ground + 66), (far, ground + 66), INK, both=True),
        text(((foot + far) / 2, ground + 58), "*d h* / (*h* − *z*)", INK, size=16),
        arrow((40, eye[1]), (40, ground), INK, both=True),
        text((30, 146), "*h*", INK, "end", 16),
        text((736, eye[1] - 9), "what is as high as the camera lands nowhere", FAINT, "end"),
    ]
    return "".join(parts), 760, 284


def footprint() -> tuple[str, int, int]:
    """Plot how many panorama pixels a BEV pixel covers, by distance."""
    g, h, rows, columns = 0.06, 2.0, 832, 1664
    left, right, top, bottom = 80.0, 600.0, 30.0, 290.0
    near, far, least, most = 0.1, 20.0, 0.05, 200.0

    def place(d: float, value: float) -> Point:
        across = math.log(d / near) / math.log(far / near)
        up = math.log(value / least) / math.log(most / least)
        return left + (right - left) * across, bottom - (bottom - top) * up

    parts = [
        box(left, top, right - left, bottom - top, stroke=FAINT),
        box(left, top, right - left, place(near, 1)[1] - top, fill=BLUE, fill_opacity=0.07),
        line(place(near, 1), place(far, 1), INK, 1.5, stroke_dasharray="6 5"),
        text((right - 8, top + 22), "above 1 the panorama is finer than the BEV", INK, "end", 13),
        text(
            (left + 8, bottom - 12),
            "below 1 it is coarser: the BEV is interpolated",
            INK,
            "start",
            13,
        ),
    ]
    for value in (0.1, 1, 10, 100):
        x, y = place(near, value)
        parts += [line((x - 5, y), (x, y), INK), text((x - 9, y + 5), f"{value:g}", INK, "end", 13)]
    for d in (0.1, 0.5, 1, 2, 5, 10, 20):
        x, y = place(d, least)
        parts += [line((x, y), (x, y + 5), INK), text((x, y + 21), f"{d:g}", INK, size=13)]
    distances = [near * (far / near) ** (k / 60) for k in range(61)]
    for colour, name, count in (
        (BLUE, "columns", lambda d: columns / (2 * math.pi) * g / d),
        (ORANGE, "rows", lambda d: rows / math.pi * g * h / (d * d + h * h)),
    ):
        points = [place(d, count(d)) for d in distances]
        parts.append(shape(points, closed=False, stroke=colour, stroke_width=2.5))
        end = points[-1]
        parts.append(text((end[0] + 8, end[1] + 5), name, colour, "start"))
    parts.append(text(((left + right) / 2, bottom + 44), "metres from the camera’s foot"))
    parts.append(
        text(
            (24, (top + bottom) / 2),
            "panorama pixels per BEV pixel",
            transform=f"rotate(-90 24 {(top + bottom) / 2})",
        )
    )
    return "".join(parts), 680, 346


DRAWINGS = {
    "ray": ray,
    "panorama": panorama,
    "bev": bev,
    "half-pixel": half_pixel,
    "angles": angles,
    "smear": smear,
    "footprint": footprint,
}


def main(folder: Path) -> None:
    """Write all drawings into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        content, width, height = draw()
        svg = tag(
            "svg",
            content.replace("><", ">\n<"),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
            font_family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
        )
        (folder / f"geometry-{name}.svg").write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
