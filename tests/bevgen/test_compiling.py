"""Where compiled code is kept, and what happens where it cannot be kept or is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import numpy as np
import pytest

import bevgen
import georetrieval
from bevgen import ShardSet
from pipelines import citymaker
from tests.helpers.runs import SMALL, panoramas
from tests.helpers.runs import bevgen as run_bevgen

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


WHERE = "from bevgen.compiling import njit; from numba import config; print(config.CACHE_DIR)"


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
    assert list(own.rglob("sampling_uint8.*.nbc"))
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
    run_bevgen(*words, env=environment)
    (tmp_path / "o.h5").unlink()
    for index in kept.rglob("*.nbi"):
        index.write_bytes(index.read_bytes()[:40])
    done = run_bevgen(*words, env=environment, expect=1)
    assert f"delete the files *.nbi and *.nbc in {kept}" in " ".join(done.stderr.split())
    assert not (tmp_path / "o.h5").exists()
    for file in kept.rglob("*.nb?"):
        file.unlink()
    run_bevgen(*words, env=environment)
    with ShardSet(tmp_path / "o.h5") as shards:
        assert len(shards) == 3


def test_a_decoder_that_is_not_there_is_compiled_beside_the_run(tmp_path: Path) -> None:
    """Once it is there small runs take it too; the pixels are those of Pillow throughout."""
    images, kept = (
        panoramas(tmp_path / "in", [f"p{k:03d}.jpg" for k in range(130)]),
        tmp_path / "kept",
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kept)}
    words = ["convert", "--in", images, "--height", 2, *SMALL, "-v", "--out"]
    first = run_bevgen(*words, tmp_path / "first.h5", env=environment)
    assert "is being compiled; until then Pillow decodes" in first.stderr
    done = run_bevgen("warmup", env=environment)
    assert f"kept in {kept}" in done.stdout
    assert list(kept.rglob("decoding.decode-*.nbc"))
    assert list(kept.rglob("*sample_uint8-*.nbc"))
    second = run_bevgen(*words, tmp_path / "second.h5", env=environment)
    assert "is being compiled" not in second.stderr
    pillow = tmp_path / "pillow.h5"
    run_bevgen(*words, pillow, "--decoder", "pillow", env=environment)
    expected = ShardSet(pillow).read(range(130))
    for name in ("first.h5", "second.h5"):
        np.testing.assert_array_equal(ShardSet(tmp_path / name).read(range(130)), expected)


ONLY_SOURCES = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Python takes bytecode for that of its source if both are of one second and of one length."""

ENTRY = """
from {decorator} import njit
from helper import number

@njit(cache=True)
def entry():
    return number()

if __name__ == "__main__":
    print(entry(), "loaded" if entry.stats.cache_hits else "compiled")
"""
HELPER = """
from numba import njit

@njit
def number():
    return {number}
"""


@pytest.mark.parametrize("decorator", ["bevgen.compiling", "numba"])
def test_an_edit_of_a_helper_in_another_file_is_seen(tmp_path: Path, decorator: str) -> None:
    """Numba alone does not see it: else this would prove nothing."""
    path, helper = tmp_path / "entry.py", tmp_path / "helper.py"
    path.write_text(ENTRY.format(decorator=decorator))
    said = []
    for number in (1, 1, 2):
        helper.write_text(HELPER.format(number=number))
        environment = os.environ | ONLY_SOURCES | {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        done = subprocess.run(
            [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.split())
    assert said[:2] == [["1", "compiled"], ["1", "loaded"]]
    assert said[2] == (["1", "loaded"] if decorator == "numba" else ["2", "compiled"])


PLAIN = """
from bevgen.compiling import njit

@njit(cache=True)
def entry(value):
    return value + {number}
"""
KILLED_BETWEEN_INDEX_AND_CODE = """
import os
from numba.core.caching import IndexDataCacheFile
IndexDataCacheFile._save_data = lambda *_: os._exit(9)
"""


def entered(folder: Path, before: str = "", value: str = "1") -> str:
    """Return what a process that calls the function says."""
    script = f"{before}\nimport entry\nprint(entry.entry({value}))"
    environment = os.environ | ONLY_SOURCES | {"NUMBA_CACHE_DIR": str(folder / "kept")}
    words = [sys.executable, "-c", script]
    done = subprocess.run(
        words, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == (9 if before else 0), done.stderr
    return done.stdout.strip()


def test_a_process_killed_while_it_keeps_new_code_leaves_no_old_code_to_the_next(
    tmp_path: Path,
) -> None:
    """Numba's index names a file of new code before it is written: the old one lies there."""
    path = tmp_path / "entry.py"
    path.write_text(PLAIN.format(number=1))
    assert entered(tmp_path) == "2"
    path.write_text(PLAIN.format(number=2))
    entered(tmp_path, KILLED_BETWEEN_INDEX_AND_CODE)
    assert [entered(tmp_path) for _ in range(2)] == ["3", "3"]


def test_code_for_other_types_is_never_run(tmp_path: Path) -> None:
    """Two processes that compile a function at once may give their code one number."""
    (tmp_path / "entry.py").write_text(PLAIN.format(number=1))
    assert [entered(tmp_path, value=value) for value in ("1", "0.5")] == ["2", "1.5"]
    first, second = sorted((tmp_path / "kept").rglob("*.nbc"))
    second.write_bytes(first.read_bytes())
    assert [entered(tmp_path, value=value) for value in ("1", "0.5")] == ["2", "1.5"]


def test_compiled_code_calls_helpers_of_its_own_folder_only() -> None:
    """Of the others an edit is not seen."""
    from numba.core.dispatcher import Dispatcher

    checked = 0
    for package in (bevgen, georetrieval, citymaker):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", "projection.cuda", "projection.cuda_transfer")):
                continue
            for function in vars(import_module(module.name)).values():
                if not isinstance(function, Dispatcher):
                    continue
                code = function.py_func.__code__
                for name in code.co_names:
                    helper = function.py_func.__globals__.get(name)
                    if isinstance(helper, Dispatcher):
                        checked += 1
                        path = Path(helper.py_func.__code__.co_filename)
                        assert path.parent == Path(code.co_filename).parent, (code.co_name, name)
    assert checked > 50
