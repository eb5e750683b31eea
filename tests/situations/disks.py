"""Disks that are full, read-only or gone, and folders that are not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from tests.situations.frame import NotHereError, Place, Situation, Told, command
from tests.situations.together import converted, nothing_left

FULL, REFUSED, GONE = "Disks that are full", "Folders that cannot be written", "What goes away"

SMALL = "bevgen convert -i images --size 32 --resolution 0.5 -q -o "
PACK = "bevgen pack -i images --kind map --size 128 --shard-size 2 -q -o "
TOO_LARGE = "could not be written[^:]*: (File too large|the disk took only a part of it)"


def limit(kilobytes: int) -> tuple[str, ...]:
    """Words that run a command that may write files of so many kilobytes at most."""
    return ("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash")


def small_disk(size: str, options: str = "") -> tuple[str, ...]:
    """Words that run a command that sees a disk of some size at the folder ``disk``."""
    return (
        *("unshare", "--user", "--map-root-user", "--mount", "bash", "-c"),
        f'mount -t tmpfs -o size={size}{options} none disk && exec "$@"',
        "bash",
    )


def without_rights() -> tuple[str, ...]:
    """Words that run a command that may write only where its user may, even if that is root."""
    if os.geteuid():
        return ()
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


def allowed(place: Place, words: tuple[str, ...]) -> None:
    """Check that this machine lets words run a command.

    Raises
    ------
    NotHereError
        If it does not.
    """
    try:
        done = subprocess.run([*words, "true"], cwd=place.folder, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise NotHereError(str(error)) from error
    if done.returncode:
        raise NotHereError(done.stderr.decode())


def on_small_disk(line: str, size: str, *takes: str) -> Callable[[Place], Told]:
    """Run a command that writes to a small disk."""

    def act(place: Place) -> Told:
        place.take(*takes)
        (place / "disk").mkdir()
        allowed(place, small_disk(size))
        return Told.of(place.run(line, before=small_disk(size)))

    return act


def too_large_then_again(line: str, kilobytes: int, *takes: str) -> Callable[[Place], Told]:
    """Run a command that may write small files only, look at what is left, and run it again."""

    def act(place: Place) -> Told:
        place.take(*takes)
        ended = place.run(line, before=limit(kilobytes))
        again = place.run(line)
        nothing_left(place)
        return Told.of(ended, again, then="with room, the same command ends well")

    return act


def in_read_only_folder(line: str, *takes: str) -> Callable[[Place], Told]:
    """Run a command that writes into a folder in which its user may not write."""

    def act(place: Place) -> Told:
        place.take(*takes)
        (place / "locked").mkdir(mode=0o555)
        allowed(place, without_rights())
        ended = place.run(line, before=without_rights())
        assert not list((place / "locked").iterdir())
        return Told.of(ended)

    return act


def full_stdout(line: str, *takes: str) -> Callable[[Place], Told]:
    """Run a command whose output goes to a disk that is full."""

    def act(place: Place) -> Told:
        place.take(*takes)
        with open("/dev/full", "w") as full:  # noqa: PTH123
            return Told.of(place.end(place.start(line, stdout=full, stderr=subprocess.PIPE)))

    return act


def street(place: Place) -> None:
    """A panorama that is large enough for pictures of a hundred kilobytes."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    Image.fromarray(noise).save(place / "street.png")


def with_street(act: Callable[[Place], Told]) -> Callable[[Place], Told]:
    def acts(place: Place) -> Told:
        street(place)
        return act(place)

    return acts


def folder_goes_away(place: Place) -> Told:
    """Rename the folder of images while it is converted, as an unmounted disk does."""
    place.take("many")
    line = "bevgen convert -i many -o o.h5 --size 64 --resolution 0.3 --shard-size 30 -q"
    process = place.held(line, "o.h5.lock")
    (place / "many").rename(place / "elsewhere")
    gone = place.go_on(process)
    (place / "elsewhere").rename(place / "many")
    again = place.run(line)
    converted(place)
    return Told.of(gone, again, then="no image was skipped for it")


def shard_goes_away(place: Place) -> Told:
    place.take("bev")
    (place / "bev.shards" / "00001.h5").unlink()
    return Told.of(place.run("bevgen verify bev.h5"), place.run("bevgen export bev.h5 -o out"))


def shards_are_left_behind(place: Place) -> Told:
    place.take("bev")
    (place / "there").mkdir()
    shutil.move(place / "bev.h5", place / "there")
    line = "bevgen export there/bev.h5 -o out"
    left = place.run(line)
    shutil.move(place / "bev.shards", place / "there")
    return Told.of(left, place.run(line), then="they follow, and all is well")


def situations() -> Iterable[Situation]:
    yield Situation(
        FULL,
        "`convert` to a disk that is too small",
        on_small_disk(f"{PACK}disk/o.h5", "100k", "images"),
        (1,),
        "Error: disk/o.h5 needs .*? free: free some.*",
    )
    for name, line, kilobytes, *takes in (
        ("convert", f"{SMALL}o.h5", 20, "images"),
        ("export", "bevgen export bev.h5 -o out", 1, "bev"),
        ("merge", "bevgen merge bev.h5 -o one.h5", 20, "bev"),
    ):
        yield Situation(
            FULL,
            f"`{name}` when no more can be written",
            too_large_then_again(line, kilobytes, *takes),
            (1, 0),
            f"Error: [^:]*{TOO_LARGE}.*",
        )
    yield Situation(
        FULL,
        "`preview` when no more can be written",
        with_street(too_large_then_again("bevgen preview -i street.png -o out.png", 20)),
        (1, 0),
        f"Error: out.png {TOO_LARGE}",
    )
    for name, words, kilobytes in (
        ("train", "train --data world --run run", 100),
        ("neighbours", "neighbours --data world", 1),
    ):
        yield Situation(
            FULL,
            f"`{name}` when no more can be written",
            too_large_then_again(f"georetrieval {words}", kilobytes, "world"),
            (1, 0),
            f"Error: [^:]*{TOO_LARGE}.*",
        )
    for name, words, kilobytes in (
        ("evaluate", "evaluate --run run --data world", 4),
        ("report", "report --run run --data world", 10),
        ("embed", "embed world/bev.h5 --checkpoint run/bev.safetensors -o e.npz", 10),
        ("export", "export run --branch bev --to e.safetensors", 10),
    ):
        yield Situation(
            FULL,
            f"`georetrieval {name}` when no more can be written",
            too_large_then_again(f"georetrieval {words}", kilobytes, "world", "run"),
            (1, 0),
            f"Error: [^:]*{TOO_LARGE}.*",
        )
    yield Situation(
        FULL,
        "`locate` when no more can be written",
        too_large_then_again(
            "georetrieval locate town/photos --index town/city.index --format json -o f.json",
            1,
            "town",
        ),
        (1, 0),
        f"Error: [^:]*{TOO_LARGE}.*",
    )
    yield Situation(
        FULL,
        "`index` when no more can be written",
        too_large_then_again(
            "georetrieval index --run town/run --references town/satellite.h5 -o new.index",
            4,
            "town",
        ),
        (1, 0),
        f"Error: [^:]*{TOO_LARGE}.*",
    )
    yield Situation(
        FULL,
        "`info --rows` into a full disk",
        full_stdout("bevgen info bev.h5 --rows", "bev"),
        (1,),
        "Error: .*No space left on device",
    )
    yield from refused_situations()


def refused_situations() -> Iterable[Situation]:
    for line, *takes in (
        (f"{SMALL}locked/o.h5", "images"),
        ("bevgen preview -i images/p000.png -o locked/p.png", "images"),
        ("bevgen merge bev.h5 -o locked/one.h5", "bev"),
        ("bevgen export bev.h5 -o locked/out", "bev"),
        ("bevgen level -i images -o locked/poses.csv", "images"),
        ("georetrieval train --data world --run locked/run", "world"),
    ):
        words = line.split()
        yield Situation(
            REFUSED,
            f"`{words[0]} {words[1]}` into a folder without the right to write",
            in_read_only_folder(line, *takes),
            (1,),
            "Error: .*",
        )
    for line, *takes in (
        (f"{SMALL}no/o.h5", "images"),
        ("bevgen preview -i images/p000.png -o no/p.png", "images"),
        ("bevgen merge bev.h5 -o no/one.h5", "bev"),
        ("bevgen level -i images -o no/poses.csv", "images"),
        ("bevgen export bev.h5 --footprints no/f.json", "bev"),
        (
            "georetrieval embed world/bev.h5 --checkpoint run/bev.safetensors -o no/e.npz",
            "world",
            "run",
        ),
        (
            "georetrieval locate town/photos/p000.png --index town/city.index --format csv"
            " -o no/f.csv",
            "town",
        ),
    ):
        words = line.split()
        yield command(
            REFUSED,
            f"`{words[0]} {words[1]}` into a folder that is not there",
            line,
            1,
            "Error: .*",
            *takes,
        )
    yield Situation(
        GONE,
        "the folder of images, during `convert`",
        folder_goes_away,
        (1, 0),
        "Error: many is not there any more.*?run the same command again",
    )
    yield Situation(
        GONE,
        "one shard of several: `verify`, `export`",
        shard_goes_away,
        (1, 1),
        "bev.shards/00001.h5: missing, with 4 rows; .*?only what is missing",
    )
    yield Situation(
        GONE,
        "the folder of shards, when the index was moved",
        shards_are_left_behind,
        (1, 0),
        "Error: .*?missing.*?only what is missing",
    )
