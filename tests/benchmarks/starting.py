"""Row 12: from the start of `bevgen convert` to its first image, compiled code being cached."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

from tests.benchmarks import inputs
from tests.benchmarks.frame import Contest, Row, Setup, Way, child


def second_start(setup: Setup) -> Mapping[str, Way]:
    source = inputs.panoramas(setup.folder, 64, (1664, 832))
    one = setup.folder / "one-panorama"
    one.mkdir(exist_ok=True)
    shutil.copy(source / "p0000.jpg", one)
    words = ["-m", "bevgen", "convert", "--in", one, "--out", setup.folder / "one.h5"]
    words += ["--height", "2", "--overwrite", "--quiet"]
    return {
        "bevgen convert, one image": Way(lambda: child(sys.executable, *words)),
        "bevgen --help": Way(lambda: child(sys.executable, "-m", "bevgen", "--help")),
        "python, nothing else": Way(lambda: child(sys.executable, "-c", "pass")),
    }


CONTESTS = [
    Contest(
        "start",
        "a whole run of `bevgen convert` over one panorama, which is a little more than its start",
        "run",
        second_start,
        [Row("12", "second start to the first image", "bevgen convert, one image", None, 1.5, 1)],
    )
]
