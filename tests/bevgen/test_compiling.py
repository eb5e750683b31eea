"""Where compiled code is kept, and what happens where it cannot be kept or is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bevgen import ShardSet
from tests.helpers.runs import SMALL, bevgen, panoramas

# As on a disk that can be read only, but for the temporary folder.
READ_ONLY = """
import tempfile
original = tempfile.TemporaryFile
def only_temporary(*args, dir=None, **options):
    if dir is not None and not str(dir).startswith(tempfile.gettempdir()):
        raise PermissionError(13, "Permission denied", str(dir))
    return original(*args, dir=dir, **options)
tempfile.TemporaryFile = only_temporary
"""


def without_a_place(script: str, temporary: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY + script],
        env=environment | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


WHERE = (
    "from bevgen.projection.compiling import njit; "
    "from numba import config; print(config.CACHE_DIR)"
)


def test_compiled_code_goes_to_the_temporary_folder_where_nothing_else_can_be_written(
    tmp_path: Path,
) -> None:
    images, temporary = panoramas(tmp_path / "in", 3), tmp_path / "tmp"
    temporary.mkdir()
    words = ["convert", "--in", str(images), "--out", str(tmp_path / "o.h5"), "--height", "2"]
    without_a_place(f"from bevgen.cli import main; main({[*words, *SMALL]})", temporary)
    with ShardSet(tmp_path / "o.h5") as shards:
        assert len(shards) == 3
    own = temporary / f"bevgen-compiled-{os.getuid()}"
    assert own.stat().st_mode & 0o777 == 0o700
    assert list(own.rglob("kernels.*.nbc"))
    for index in own.rglob("*.nbi"):
        index.write_bytes(index.read_bytes()[:40])
    (tmp_path / "o.h5").unlink()
    script = "import sys; sys.stderr = sys.stdout; from bevgen.cli import main\n"
    script += f"try: main({[*words, *SMALL]})\nexcept SystemExit as end: print('code', end.code)"
    said = " ".join(without_a_place(script, temporary).split())
    assert f"delete the files *.nbi and *.nbc in {own}" in said
    assert said.endswith("code 1")


@pytest.mark.parametrize("trap", ["readable", "link", "file"])
def test_compiled_code_of_others_is_never_loaded(tmp_path: Path, trap: str) -> None:
    """Who can write to the folder could have us execute anything."""
    own = tmp_path / f"bevgen-compiled-{os.getuid()}"
    if trap == "readable":
        own.mkdir()
        own.chmod(0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.write_text("not a folder")
    place = Path(without_a_place(WHERE, tmp_path).strip())
    assert place.parent == tmp_path
    assert place != own
    assert not place.exists()  # it goes with the process


def test_damaged_compiled_code_is_not_the_images_fault(tmp_path: Path) -> None:
    images, kept = panoramas(tmp_path / "in", 3), tmp_path / "kept"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kept)}
    words = ["convert", "--in", images, "--out", tmp_path / "o.h5", "--height", 2, *SMALL]
    bevgen(*words, env=environment)
    (tmp_path / "o.h5").unlink()
    for index in kept.rglob("*.nbi"):
        index.write_bytes(index.read_bytes()[:40])
    done = bevgen(*words, env=environment, expect=1)
    assert f"delete the files *.nbi and *.nbc in {kept}" in " ".join(done.stderr.split())
    assert not (tmp_path / "o.h5").exists()
    for file in kept.rglob("*.nb?"):
        file.unlink()
    bevgen(*words, env=environment)
    with ShardSet(tmp_path / "o.h5") as shards:
        assert len(shards) == 3
