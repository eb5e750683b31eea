"""What the outside world relies on, as version 0.1.0 had it: nothing of it may go.

``tests/data/contracts.json`` was recorded with the code of version 0.1.0 by

    python -m tests.test_contracts > tests/data/contracts.json

What is new is welcome; what is missing or different from the record fails. The record changes only
together with a sentence in the changelog.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
from PIL import Image

import bevgen
from tests.helpers.paths import DATA, STREET
from tests.helpers.runs import bevgen as run_bevgen
from tests.helpers.runs import copies, kill_group, shards_of, start, wait_until

RECORD = DATA / "contracts.json"
SMALL = ("--size", 48, "--resolution", 0.4)
POSES = """file,id,heading,pitch,roll,height,latitude,longitude,date
a.png,first,30,2,-1,2.2,48.1,11.5,2023-06-04
b.png,second,200,,,,48.2,11.6,
sub/c.png,,,,,,,,
"""


def commands(folder: Path) -> dict[str, Any]:
    """Flags and arguments of each command, with their choices."""
    from bevgen.cli import bevgen_command
    from georetrieval.cli import georetrieval_command

    found: dict[str, Any] = {}
    for program, group in (("bevgen", bevgen_command), ("georetrieval", georetrieval_command)):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found[f"{program} {name}"] = {
                spelling: list(getattr(parameter.type, "choices", ()))
                for parameter in command.params
                for spelling in (
                    parameter.opts if isinstance(parameter, click.Option) else ["ARGUMENT"]
                )
            }
    return found


def test_an_empty_path_is_not_the_folder_that_one_is_in():
    """Such as "$UNSET" in a script. What takes paths says so in help."""
    from bevgen.cli import bevgen_command
    from georetrieval.cli import georetrieval_command

    places = ("FILE", "FOLDER", "CSV", "GEOJSON", "MAP", "INDEX", "IMAGE", "PHOTO", "RUN")
    taken = 0
    for group in (bevgen_command, georetrieval_command):
        for name in group.list_commands(context := click.Context(group)):
            for parameter in group.get_command(context, name).params:
                if any(place in (parameter.metavar or "") for place in places):
                    taken += 1
                    with pytest.raises(click.BadParameter, match="it is empty"):
                        parameter.type.convert("", parameter, context)
    assert taken > 60
    assert "'--in': it is empty" in run_bevgen("pack", "--in", "", expect=2).stderr


def names(folder: Path) -> dict[str, Any]:
    """The public names of bevgen, and the parameters of what is called."""
    called = {
        name: getattr(bevgen, name) for name in ("project", "Projector", "convert", "to_chw")
    } | {name: getattr(bevgen, name) for name in ("merge", "verify", "load_view", "ShardSet")}
    methods = {
        f"{owner.__name__}.{name}": member
        for owner in (bevgen.ShardSet, bevgen.Projector)
        for name, member in vars(owner).items()
        if not name.startswith("_") and callable(member)
    }
    return {
        "bevgen": sorted(bevgen.__all__),
        "ShardSet": [name for name in dir(bevgen.ShardSet) if not name.startswith("_")],
        "parameters": {
            name: {
                p.name: "required" if p.default is p.empty else repr(p.default)
                for p in inspect.signature(function).parameters.values()
            }
            for name, function in (called | methods).items()
        },
    }


def recipes(folder: Path) -> dict[str, Any]:
    """Names of the recipes, and every key that a recipe may have, with its default."""
    from georetrieval.config import Settings, recipes

    return {"names": sorted(recipes()), "keys": Settings().model_dump(mode="json")}


def presets(folder: Path) -> dict[str, Any]:
    """The numbers of each preset: with others the same command gives other pixels."""
    numbers = ("height", "resolution", "size", "heading", "vertical_fov", "compat")
    return {
        name: {key: getattr(preset, key) for key in numbers}
        for name, preset in bevgen.PRESETS.items()
    }


def shape_of(value: Any) -> Any:
    """Return what a JSON value looks like: keys and types, and of lists the first entry."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return None if value is None else type(value).__name__


def results(folder: Path) -> dict[str, Any]:
    """What the commands of bevgen print with --json."""
    from bevgen.cli import main

    streets, out = inputs(folder), folder / "b.h5"
    words = ("convert", "-i", streets, "-o", out, *SMALL, "--json")
    printed = {
        "convert --dry-run": called(main, *words, "--dry-run"),
        "convert": called(main, *words),
        "info": called(main, "info", out, "--json"),
        "info --rows": called(main, "info", out, "--rows", "--json"),
        "verify": called(main, "verify", out, "--json"),
    }
    return {name: shape_of(json.loads(text)) for name, text in printed.items()}


def run_files(folder: Path) -> dict[str, Any]:
    """What training, evaluation and the report leave in the run's folder, and print."""
    from georetrieval.cli import main
    from georetrieval.config import recipes
    from tests.helpers.world import make_world

    world = make_world(folder / "world", train=16, val=6, test=6)
    run = folder / "run"
    tiny = {
        "panorama": "false",
        "evaluate_every": 1,
        "bev.encoder.name": "test_convnext2",
        "bev.encoder.pretrained": "false",
        "bev.encoder.query_size": "[32,32]",
        "bev.encoder.reference_size": "[32,32]",
        "bev.sampling.batch_size": 8,
        "bev.optim.epochs": 1,
        "bev.optim.precision": "float32",
    }
    words = [word for key, value in tiny.items() for word in ("--set", f"{key}={value}")]
    where = ("--data", world.root, "--recipe", recipes()["city"])
    called(main, "train", *where, "--run", run, *words)
    shown = called(main, "evaluate", "--run", run, "--json")
    called(main, "evaluate", "--run", run, "--heading", "unknown", "--fov", 90)
    called(main, "report", "--run", run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": sorted(path.name for path in run.iterdir()),
        "settings.json": shape_of(json.loads((run / "settings.json").read_text())),
        "metrics.jsonl": shape_of({key: value for row in rows for key, value in row.items()}),
        "evaluation-test.json": shape_of(json.loads((run / "evaluation-test.json").read_text())),
        "evaluate --json": shape_of(json.loads(shown)),
    }


def called(main: Callable[[Sequence[str]], None], *words: object) -> str:
    """Call a program's entry point; return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert not stopped.value.code
    return printed.getvalue()


def layout(folder: Path) -> dict[str, Any]:
    """Datasets (type and dimensions) and attributes of a single file, an index and its shards."""
    from bevgen.cli import main

    streets = inputs(folder)
    (streets / "broken.png").write_bytes(b"no image")
    for name, size in (("one.h5", 9), ("index.h5", 2)):
        out = folder / name
        crop = ("--vertical-fov", 60, -90)  # so that there are masks
        called(main, "convert", "-i", streets, "-o", out, *SMALL, *crop, "--shard-size", size)
    files = {"one": folder / "one.h5", "index": folder / "index.h5"}
    files["shard"] = shards_of(folder / "index.h5")[0]
    return {name: _layout_of(path) for name, path in files.items()}


def _layout_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path) as h5:
        found["attributes"] = {key: type(value).__name__ for key, value in h5.attrs.items()}
        for name in h5:
            if isinstance(link := h5.get(name, getlink=True), h5py.ExternalLink):
                found[name] = f"link to {link.filename}:{link.path}"
            elif isinstance(item := h5[name], h5py.Dataset):
                found[name] = f"{item.dtype} {item.ndim} {item.chunks or 'contiguous'}"
            else:
                found[name] = {
                    key: f"link to {link.filename}:{link.path}"
                    for key in item
                    if isinstance(link := item.get(key, getlink=True), h5py.ExternalLink)
                }
    return found


def inputs(folder: Path) -> Path:
    """Write three lossless panoramas, the same on every machine, and a table of their poses."""
    streets = folder / "streets"
    (streets / "sub").mkdir(parents=True)
    for k, name in enumerate(("a.png", "b.png", "sub/c.png")):
        noise = np.random.default_rng(k).integers(0, 256, (64, 128, 3), np.uint8)
        Image.fromarray(noise).save(streets / name)
    (folder / "poses.csv").write_text(POSES, "utf-8")
    return streets


def pixels(folder: Path) -> dict[str, Any]:
    """What the shards of a few inputs hold, by its hash.

    Pinned is what bevgen computes: pixels, masks, checksums, ids, columns, settings and the digest
    of the plan. The panoramas are PNG, or JPEG that our own decoder reads, as another version of
    libjpeg may give other pixels; nothing is resized by Pillow; and bytes of the file that belong
    to the HDF5 library's version are left out.
    """
    from bevgen.cli import main

    streets = inputs(folder)
    posed = ("--poses", folder / "poses.csv", *SMALL)
    rows = ("--height", 1.9, "--decoder", "rows")
    runs = {
        "posed": ("convert", "-i", streets, *posed),
        "posed, in shards of two": ("convert", "-i", streets, *posed, "--shard-size", 2),
        "cropped": ("convert", "-i", streets, *SMALL, "--vertical-fov", 40, -70),
        "not anti-aliased": ("convert", "-i", streets, *SMALL, "--no-antialias"),
        "as published": ("convert", "-i", streets, *SMALL, "--compat", "ep-bev"),
        "photographs": ("convert", "-i", STREET, *rows),
        "packed": ("pack", "-i", streets, "--kind", "panorama", "--size", "64x128"),
    }
    found = {}
    for k, (name, words) in enumerate(runs.items()):
        out = folder / f"{k}.h5"
        called(main, *words, "-o", out)
        files = [out, *shards_of(out)]
        found[name] = {str(path.relative_to(folder)): _contents_of(path) for path in files}
    return found


def _contents_of(path: Path) -> dict[str, Any]:
    with h5py.File(path) as h5:
        attributes = {
            key: value.decode() if isinstance(value, bytes) else np.asarray(value).tolist()
            for key, value in sorted(h5.attrs.items())
        }
        digests = {}
        for name in h5:
            item = h5.get(name, getclass=True, getlink=True)
            if item is h5py.HardLink and isinstance(data := h5[name], h5py.Dataset):
                values = data[...]
                content = repr(values.tolist()).encode() if values.dtype.hasobject else None
                digests[name] = hashlib.sha256(content or values.tobytes()).hexdigest()[:16]
    return {"attributes": attributes, **digests}


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    function.__name__: function
    for function in (commands, names, presets, recipes, results, run_files, layout, pixels)
}


def differences(recorded: Any, found: Any, where: str = "") -> list[str]:
    """Return what was recorded and is no longer so; what has come since is no difference."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            text
            for key, value in recorded.items()
            for text in (
                differences(value, found[key], f"{where} > {key}")
                if key in found
                else [f"{where} > {key}: gone"]
            )
        ]
    if isinstance(recorded, list) and isinstance(found, list):
        if all(isinstance(each, str) for each in recorded):
            return [f"{where} > {each}: gone" for each in recorded if each not in found]
        if len(recorded) == len(found) == 1:
            return differences(recorded[0], found[0], where)
    return [] if recorded in (None, found) else [f"{where}: was {recorded!r}, is {found!r}"]


@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_recorded_has_gone(section: str, tmp_path: Path) -> None:
    recorded = json.loads(RECORD.read_text("utf-8"))[section]
    found = json.loads(json.dumps(SECTIONS[section](tmp_path)))
    assert differences(recorded, found) == []


def test_a_difference_is_seen() -> None:
    recorded = {"a": {"x": 1, "y": ["p", "q"]}, "b": [{"k": "number"}], "c": None}
    assert differences(recorded, recorded | {"c": 3, "new": 0}) == []
    changed = {"a": {"x": 2, "y": ["p"]}, "b": [{}]}
    assert differences(recorded, changed) == [
        " > a > x: was 1, is 2",
        " > a > y > q: gone",
        " > b > k: gone",
        " > c: gone",
    ]


def test_project_is_a_function_and_a_module() -> None:
    code = (
        "import bevgen, bevgen.project\n"
        "from bevgen.project import project\n"
        "import numpy, sys\n"
        "assert bevgen.project is project and callable(project)\n"
        "assert sys.modules['bevgen.project'].project is project\n"
        "panorama = numpy.zeros((32, 64, 3), numpy.uint8)\n"
        "assert bevgen.project(panorama, height=2.0, size=8).shape == (8, 8, 3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exit_codes(tmp_path: Path) -> None:
    streets, out = inputs(tmp_path), tmp_path / "out.h5"
    words = ("convert", "-i", streets, "-o", out, *SMALL)
    run_bevgen(*words, expect=0)
    (tmp_path / "nothing.h5").write_bytes(b"no HDF5")
    run_bevgen("info", tmp_path / "nothing.h5", expect=1)
    run_bevgen(*words[:3], expect=2)
    run_bevgen(*words, "--size", "large", expect=2)
    (streets / "broken.png").write_bytes(b"no image")
    run_bevgen(*words, "--overwrite", expect=0)
    run_bevgen(*words, "--overwrite", "--max-failures", 0, expect=3)
    many = copies(tmp_path / "many", 300)
    slow = tmp_path / "slow.h5"
    process = start("convert", "-i", many, "-o", slow, "--shard-size", 10, "--workers", 1)
    assert wait_until(lambda: bool(shards_of(slow)), process)
    kill_group(process, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "bevgen convert" in said


if __name__ == "__main__":
    recorded = {}
    for title, observe in SECTIONS.items():
        with tempfile.TemporaryDirectory() as place:
            recorded[title] = observe(Path(place))
    sys.stdout.write(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
