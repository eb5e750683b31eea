"""Convert bad files, bring situations about, and write what happened to docs/robustness.md.

Run as ``python -m tests.robustness``; with a pattern situations of such kinds and names are tried
alone, and the other rows stay. Ends with 1 where something is not as expected, and then writes
nothing.
"""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers.damage import fates, run_convert
from tests.helpers.image_files import broken, encoded, gpano, scene, sound
from tests.helpers.paths import ROOT
from tests.situations import SITUATIONS, Ground, Situation

PAGE = ROOT / "docs" / "robustness.md"

INTRODUCTION = """\
# Robustness

What happens to files that cannot be used, and in situations that nobody wants: two commands at
once, disks that are full, metadata in odd places, terminals and environments of all sorts.

Every kind of file below lay in one folder, which `bevgen convert` was given. A file that cannot be
used is skipped with a reason, listed by `bevgen info FILE --failures`, and tried again by
`--retry-failed`; the run goes on, and no good image is lost. Made by `python -m tests.robustness`;
the tests convert {count} such files on each run, and hundreds of files with flipped, cut, doubled
or overwritten bytes (`make faults`: ten thousand).

## Set aside

| file | reason |
|---|---|
"""

STORED = """
## Stored

| file | |
|---|---|
"""

HEADING = "\n# Situations\n"
HAPPENED = f"""{HEADING}
Each row was brought about by real processes, as a user would, on each run of
`python -m tests.robustness`, which fails where something else happens: {{count}} situations. Exit
codes are those of the commands in their order, -9 of one that was killed; what was printed is
shortened. A cell is empty where nothing is printed, and that is right.
"""

TABLE = """
## {kind}

| situation | exit codes | printed | and then |
|---|---|---|---|
"""

NOTES = """
# What cannot be seen

- A JPEG whose compressed data is damaged in the middle often still decodes, with wrong blocks:
  the format has no checksum, and the decoder does not report what it repaired. Such a file is
  stored as it decodes.
- A file that was exchanged for another valid one of the same size, between two runs on one
  output, is not noticed: names, sizes and poses are compared, not contents.
"""


def odd_folder(folder):
    """Write every kind of file; name -> whether it should be stored."""
    expected = {}

    def add(name, data, stored):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        expected[name] = stored

    for kind, files in (("sound", sound()), ("broken", broken())):
        for name, (data, *_) in files.items():
            stem, ending = name.rsplit(".", 1)
            # Ids are names without their ending, so the ending must tell files apart before it.
            add(f"{kind}, {stem} ({ending}).{ending}", data, stored=kind == "sound")
    plain = encoded(scene(), "jpeg")
    add("upper-case ending.JPG", plain, stored=True)
    add("nested/deeper/Straße 東京.jpeg", plain, stored=True)
    add("not 2 to 1.jpg", encoded(scene(64, 96), "jpeg"), stored=False)
    packet = gpano(ProjectionType="cylindrical")
    add("cylindrical by GPano.jpg", encoded(scene(), "jpeg", xmp=packet), stored=False)
    (folder / "link to a file.jpg").symlink_to(folder / "upper-case ending.JPG")
    expected["link to a file.jpg"] = True
    (folder / "loop").symlink_to(folder)
    return expected


def convert_odd_folder(folder):
    """Convert it; name -> expected to be stored, and name -> what happened."""
    images = folder / "images"
    images.mkdir()
    expected = odd_folder(images)
    run_convert(images, folder / "bev.h5", "--retry-failed")
    return expected, fates(folder / "bev.h5")


def try_all(
    situations: Sequence[Situation], folder: Path, threads: int | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Bring situations about; rows of the page by name, and what was not as expected by name."""
    rows: dict[str, str] = {}
    wrong: dict[str, str] = {}
    ground = Ground(folder / "ground")

    def happens(number: int) -> None:
        situation = situations[number]
        try:
            rows[situation.name] = situation.happens(ground, folder / f"situation-{number}")
        except Exception as error:  # whatever goes wrong, the others are tried
            wrong[situation.name] = f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        list(pool.map(happens, range(len(situations))))
    return rows, wrong


def known_rows() -> dict[str, str]:
    """Return the situations' rows of the page as it is, by name."""
    lines = PAGE.read_text("utf-8").partition(HEADING)[2].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line[:2] == "| "}


def tables(rows: dict[str, str]) -> str:
    """Lay rows out, a table for each kind."""
    text = HAPPENED.format(count=sum(one.name in rows for one in SITUATIONS))
    for kind in dict.fromkeys(situation.kind for situation in SITUATIONS):
        named = [one.name for one in SITUATIONS if one.kind == kind]
        text += TABLE.format(kind=kind)
        text += "".join(f"{rows[name]}\n" for name in named if name in rows)
    return text


def main(pattern: str = "") -> int:
    """Return the exit code."""
    # A shell that runs this in the background has it ignore Ctrl-C, which its processes inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [one for one in SITUATIONS if re.search(pattern, f"{one.kind}: {one.name}")]
    with tempfile.TemporaryDirectory() as folder:
        rows, wrong = try_all(chosen, Path(folder))
    for name, why in wrong.items():
        sys.stderr.write(f"not as expected: {name}\n{why}\n")
    if wrong:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        _, fate = convert_odd_folder(Path(folder))
    lines = [INTRODUCTION.format(count=len(fate))]
    lines += [f"| {name} | `{reason}` |\n" for name, reason in sorted(fate.items()) if reason]
    lines += [STORED]
    lines += [f"| {name} | stored |\n" for name, reason in sorted(fate.items()) if not reason]
    PAGE.write_text("".join([*lines, tables(known_rows() | rows), NOTES]), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
