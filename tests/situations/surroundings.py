"""Terminals, environments, numbers and arrays as people have them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable

from tests.helpers.runs import panoramas
from tests.situations.frame import Place, Situation, Told, command

TERMINAL, ENVIRONMENT = "Terminals", "Environments"
NUMBERS, API = "Numbers out of range", "The Python API"

FOREIGN = ("Łódź.png", "東京.png", "Straße.png")


def foreign(place: Place) -> None:
    """BEVs whose ids no single-byte encoding holds."""
    panoramas(place / "in", FOREIGN)
    assert place.run("bevgen convert -i in -o o.h5 --size 16 -q").code == 0


def closed_pipe(line: str, *takes: str) -> Callable[[Place], Told]:
    """Run a command whose reader has gone, as `| head` does."""

    def act(place: Place) -> Told:
        place.take(*takes)
        read, write = os.pipe()
        os.close(read)
        process = place.start(line, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        ended = place.end(process)
        assert not ended.text, ended.text
        return Told.of(ended, then="nothing is said about it")

    return act


def every_figure(columns: str) -> Callable[[Place], Told]:
    """Evaluate on a terminal of some width, and look for each figure of a wide one."""

    def act(place: Place) -> Told:
        place.take("world", "run")
        line = "georetrieval evaluate --run run --data world"
        narrow, wide = (place.run(line, environment={"COLUMNS": c}) for c in (columns, "200"))
        numbers = {word for word in wide.text.split() if word[0].isdigit()}
        assert len(numbers) > 5
        assert not {number for number in numbers if number not in narrow.text}
        return Told.of(narrow, then="every figure is there")

    return act


def situations() -> Iterable[Situation]:
    yield from terminals()
    yield from environments()
    yield from numbers()
    yield from arrays()


def terminals() -> Iterable[Situation]:
    for encoding, says in (
        ("ascii", "東京 東京.png"),
        ("latin-1", r"\\u6771\\u4eac \\u6771\\u4eac.png"),
    ):
        yield command(
            TERMINAL,
            f"`info --rows` of ids in many scripts, on a terminal in {encoding}",
            "bevgen info o.h5 --rows",
            0,
            says,
            prepare=foreign,
            environment={"PYTHONIOENCODING": encoding},
            then="nothing is lost",
        )
    for columns in ("0", "40"):
        yield Situation(
            TERMINAL,
            f"`evaluate` with `COLUMNS={columns}`",
            every_figure(columns),
            (0,),
            "6 queries of split test among 6 references",
        )
    yield command(
        TERMINAL,
        "`convert --help` with `COLUMNS=10`",
        "bevgen convert --help",
        0,
        "Usage: bevgen convert",
        environment={"COLUMNS": "10"},
    )
    yield Situation(
        TERMINAL,
        "`info --rows` into a pipe whose reader has gone",
        closed_pipe("bevgen info bev.h5 --rows", "bev"),
        (1,),
        "",
    )


def environments() -> Iterable[Situation]:
    convert = "bevgen convert -i images -o o.h5 --size 16 -q"
    for name, code, says, environment in (
        ("`NUMBA_DISABLE_JIT=1`", 2, "Error: .*", {"NUMBA_DISABLE_JIT": "1"}),
        ("`NUMBA_NUM_THREADS=0`", 2, "Error: .*", {"NUMBA_NUM_THREADS": "0"}),
        (
            "no home, and a cache folder that cannot be made",
            0,
            "",
            {"HOME": None, "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": "/proc/nowhere"},
        ),
        ("`LC_ALL=C`, without Python's UTF-8 mode", 0, "", {"LC_ALL": "C", "PYTHONUTF8": "0"}),
    ):
        yield command(
            ENVIRONMENT, f"`convert` with {name}", convert, code, says, "images",
            environment=environment,
        )  # fmt: skip
    yield Situation(
        ENVIRONMENT,
        "`convert` in a folder with a `numpy.py` of its own",
        beside_a_module,
        (0,),
        "",
    )
    yield command(
        ENVIRONMENT,
        "`convert --device cuda` without a GPU",
        f"{convert} --device cuda",
        2,
        r"Error: device cuda needs an NVIDIA GPU with its driver, and pip install .bevgen\[cuda\].",
        "images",
        environment={"CUDA_VISIBLE_DEVICES": ""},
    )
    yield command(
        ENVIRONMENT,
        "`convert` with a Dask scheduler that is not there",
        f"{convert} --scheduler tcp://127.0.0.1:1",
        2,
        "Error: .*",
        "images",
    )
    for name, says, environment in (
        ("`WORLD_SIZE=2` and no `RANK`", "Error: WORLD_SIZE is set .*", {"WORLD_SIZE": "2"}),
        (
            "`RANK=x`",
            "Error: RANK in the environment is 'x', no number",
            {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        ),
    ):
        yield command(
            ENVIRONMENT, f"`train` with {name}", "georetrieval train --data world", 2, says,
            "world", environment=environment,
        )  # fmt: skip
    yield command(
        ENVIRONMENT,
        "`torchrun ... -m georetrieval train --run-folder run`, two processes",
        "python -m torch.distributed.run --standalone --nproc-per-node 2 -m georetrieval"
        " train --data world --run-folder run --device cpu",
        0,
        "run: trained",
        "world",
    )


def beside_a_module(place: Place) -> Told:
    """Import from the installed packages, whatever lies in the current folder."""
    place.take("images")
    (place / "numpy.py").write_text("raise SystemExit('not this one')\n")
    script = "from bevgen.cli import main; import sys; main(sys.argv[1:])"
    words = [
        "python",
        "-P",
        "-c",
        script,
        *["convert", "-i", "images", "-o", "o.h5", "--size", "16", "-q"],
    ]
    return Told.of(place.run(words))


def numbers() -> Iterable[Situation]:
    for option, says in (
        ("--height 1e300", "height must be .*"),
        ("--height nan", "height must be .*"),
        ("--heading 1e308", "heading must be .*"),
        ("--resolution 1e-320", "resolution must be .*"),
        ("--size 8193", "size must be .*"),
        ("--pitch 91", "pitch must be .*"),
        ("--vertical-fov nan -90", "vertical.*"),
        ("--max-failures nan%", "Invalid value for --max-failures.*"),
    ):
        yield command(
            NUMBERS,
            f"`convert {option}`",
            f"bevgen convert -i images -o o.h5 {option}",
            2,
            f"Error: .*?{says}",
            "images",
        )
    for name, value in (("heading", "1e308"), ("latitude", "91"), ("height", "1e300")):
        yield command(
            NUMBERS,
            f"a {name} of {value} in `poses.csv`",
            "bevgen convert -i images -o o.h5 --poses poses.csv -q",
            2,
            "Error: poses.csv, line 2: .*",
            "images",
            prepare=lambda place, text=f"file,{name}\np000.png,{value}\n": (
                place / "poses.csv"
            ).write_text(text),
        )
    for setting in ("seed=-1", "bev.optim.learning_rate=nan"):
        name = setting.partition("=")[0]
        yield command(
            NUMBERS,
            f"`train --set {setting}`",
            f"georetrieval train --data world --set {setting}",
            2,
            f"Error: .*{name.rpartition('.')[2]}: .*",
            "world",
        )


def arrays() -> Iterable[Situation]:
    square = "bevgen.project(np.zeros((64, 64, 3), np.uint8), size=8"
    for name, script, code, says in (
        ("a square array", f"{square})", 1, "InputError: .*"),
        ("a square array, with `vertical_fov`", f"{square}, vertical_fov=(45, -45))", 0, ""),
        (
            "an array of 4:1",
            "bevgen.project(np.zeros((64, 256, 3), np.uint8))",
            1,
            "InputError: .*",
        ),
        (
            "an image of a palette",
            "from PIL import Image\n"
            "bevgen.project(Image.fromarray(np.zeros((16, 32, 3), np.uint8)).convert('P'))",
            1,
            "InputError: .*",
        ),
        (
            "an `out` that overlaps the panorama",
            "memory = np.zeros((16, 32, 3), np.uint8)\n"
            "out = memory.reshape(-1)[:192].reshape(8, 8, 3)\n"
            "bevgen.Projector(size=8)(memory, out=out)",
            1,
            "InputError: .*",
        ),
        (
            "an `out` of another type",
            "bevgen.Projector(size=8)(np.zeros((16, 32, 3), np.uint8),"
            " out=np.zeros((8, 8, 3), np.float32))",
            1,
            "InputError: .*",
        ),
        (
            "a masked array",
            "bevgen.project(np.ma.zeros((64, 128, 3), np.uint8))",
            1,
            "InputError: .*",
        ),
        (
            "`antialias='no'`",
            "bevgen.project(np.zeros((64, 128, 3), np.uint8), antialias='no')",
            1,
            "InputError: .*",
        ),
        (
            "`height=True`",
            "bevgen.project(np.zeros((64, 128, 3), np.uint8), height=True)",
            1,
            "InputError: .*",
        ),
        ("channels first", "bevgen.project(np.zeros((3, 64, 128), np.uint8))", 1, "InputError: .*"),
        ("float64", "bevgen.project(np.zeros((64, 128, 3)))", 1, "InputError: .*"),
        (
            "an empty batch",
            "bevgen.project(np.zeros((0, 64, 128, 3), np.uint8))",
            1,
            "InputError: .*",
        ),
        ("a path in place of an array", "bevgen.project('street.jpg')", 1, "InputError: .*"),
        (
            "a heading for each of two, and three panoramas",
            "bevgen.Projector(size=8)(np.zeros((3, 16, 32, 3), np.uint8), heading=[1.0, 2.0])",
            1,
            "InputError: .*",
        ),
        (
            "a heading of 1e308",
            "bevgen.project(np.zeros((64, 128, 3), np.uint8), heading=1e308)",
            1,
            "InputError: .*",
        ),
    ):
        yield in_python(name, script, code, says)


def in_python(name: str, script: str, code: int, says: str) -> Situation:
    """Make a situation of a few lines of a user's Python."""

    return Situation(
        API, f"`project()`: {name}", lambda place: Told.of(place.python(script)), (code,), says
    )
