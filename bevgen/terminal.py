"""What the commands of both packages print comes out on every terminal, of any encoding and width.

Nothing printed raises, and figures are never cut: a table that is too wide becomes lines.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

Cell = str | tuple[str, str]
"""What a table says at a place; of two texts the second is a note on the first."""

LEAST_WIDTH = 20  # narrower than any terminal: COLUMNS was set by mistake
_SPELLED = {"\N{DEGREE SIGN}": " deg", "\N{PLUS-MINUS SIGN}": "+-", "\N{MULTIPLICATION SIGN}": "x"}
_SPELLED |= dict(zip(map(chr, range(0x2581, 0x2589)), "_.-=+*%#", strict=True))  # bars of charts


class _Log(io.FileIO):
    """What is said on stderr: on a full disk or a terminal that is gone it is lost."""

    def write(self, text: Any) -> int:
        try:
            return super().write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return len(text)


def prepare() -> None:
    """Let stdout and stderr take any text, and forget a width that no terminal has.

    What their encoding lacks is spelled in ASCII where it is known, and escaped elsewhere, so that
    ids stay apart. A log that cannot be written ends no work: results go to stdout, or to files.
    """
    codecs.register_error("bevgen.spell", _spell)
    with suppress(AttributeError, io.UnsupportedOperation):  # no stderr, or none of the system
        log = io.BufferedWriter(_Log(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(log, sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="bevgen.spell")
    with suppress(ValueError):
        if int(os.environ.get("COLUMNS", "")) < LEAST_WIDTH:
            del os.environ["COLUMNS"]


def drop_output() -> None:
    """Let nothing more be written to stdout, whose reader is gone, not even when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def counted(number: int, one: str, many: str = "") -> str:
    """Say how many there are of something: ``1 image``, ``2,000 images``.

    Parameters
    ----------
    number
        How many.
    one, many
        What follows 1, and what any other number; by default the former with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def size_text(count: float) -> str:
    """Write a number of bytes as people read it, such as ``63.7 kB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:  # which is 1000 in three digits
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str = "", caption: str = ""
) -> None:
    """Print a table to stdout, or its cells line by line where the terminal is too narrow.

    Parameters
    ----------
    columns
        Names; the first column's cells are the rows' names.
    rows
        As many cells each, or fewer.
    title, caption
        Above and below.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, caption=Text(caption) if caption else None)
    for number, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        cells = ("\n".join((cell,) if isinstance(cell, str) else cell) for cell in row)
        table.add_row(*map(Text, cells))
    console = Console()
    wide = console.options.update_width(10_000)
    needed = Measurement.get(console, wide, table).maximum
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(needed, console.width)
    if needed <= console.width:
        console.print(table)
        return
    sys.stdout.write("\n".join([*_as_lines(columns, rows, title, caption), ""]))


def _as_lines(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str, caption: str
) -> list[str]:
    """Write each row's name, and below it each cell beside its column's name."""
    width = max(map(len, columns))
    lines = [title] if title else []
    for row in rows:
        first, *cells = ((cell, "") if isinstance(cell, str) else cell for cell in row)
        lines.append(" ".join(filter(None, first)))
        for name, (value, note) in zip(columns[1:], cells, strict=False):
            if value:
                lines.append(f"  {name:{width}} {value}" + (f"  ({note})" if note else ""))
    return [*lines, caption] if caption else lines


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell characters that an encoding lacks in ASCII, or escape them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (_SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(escaped), error.end
