"""Convert a folder of every odd and bad file and write what happened to docs/robustness.md.

Run as ``python -m tests.robustness``.
"""

import tempfile
from pathlib import Path

from tests.helpers.damage import fates, run_convert
from tests.helpers.image_files import broken, encoded, gpano, scene, sound
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "robustness.md"

INTRODUCTION = """\
# Bad input

Every kind of file below lay in one folder, which `bevgen convert` was given. A file that cannot be
used is set aside with a reason, listed by `bevgen info FILE --failures`, and tried again by
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

NOTES = """
## What cannot be seen

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


def main():
    with tempfile.TemporaryDirectory() as folder:
        _, fate = convert_odd_folder(Path(folder))
    lines = [INTRODUCTION.format(count=len(fate))]
    lines += [f"| {name} | `{reason}` |\n" for name, reason in sorted(fate.items()) if reason]
    lines += [STORED]
    lines += [f"| {name} | stored |\n" for name, reason in sorted(fate.items()) if not reason]
    PAGE.write_text("".join([*lines, NOTES]), "utf-8")


if __name__ == "__main__":
    main()
