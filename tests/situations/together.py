"""Two processes that write one output, and processes that are killed or interrupted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bevgen import ShardSet, verify
from tests.situations.frame import Place, Situation, Told

TWO, KILLED = "Two at once", "Killed and interrupted"
Check = Callable[[Place], object]

CONVERT = "bevgen convert -i many -o o.h5 --size 64 --resolution 0.3 --shard-size 30 -q"
MERGE = "bevgen merge bev.h5 -o one.h5"
EXPORT = "bevgen export o.h5 -o pictures"
TRAIN = "georetrieval train --data world --run run --set bev.optim.epochs="
EMBED = "georetrieval embed world/bev.h5 --checkpoint run/bev.safetensors -o e.npz"
EVALUATE = "georetrieval evaluate --run run --data world"
INDEX = "georetrieval index --run town/run --references town/satellite.h5 -o new.index"
REFUSED = "Error: another run is writing .*?: wait for it, or name another output"


def nothing_left(place: Place) -> None:
    """Check that neither locks nor unfinished files were left."""
    left = {path for path in place.files() if path.endswith((".lock", ".part"))}
    assert not left, left


def second_refused(
    first: str, second: str, lock: str, check: Check, then: str, *takes: str
) -> Callable[[Place], Told]:
    """Stop a process while it holds the lock, start another, and let the first go on."""

    def act(place: Place) -> Told:
        place.take(*takes)
        running = place.held(first, lock)
        refused = place.run(second)
        ended = place.go_on(running)
        check(place)
        nothing_left(place)
        return Told.of(refused, ended, then=then)

    return act


def both_end(line: str, check: Check, then: str, *takes: str) -> Callable[[Place], Told]:
    """Start one command twice at the same time."""

    def act(place: Place) -> Told:
        place.take(*takes)
        ended = [place.end(process) for process in [place.start(line) for _ in range(2)]]
        check(place)
        nothing_left(place)
        return Told.of(*sorted(ended, key=lambda one: -one.code), then=then)

    return act


def struck(
    first: str,
    ready: Check,
    check: Check,
    *takes: str,
    number: int = signal.SIGKILL,
    again: str = "",
    then: str = "as if nothing had happened",
) -> Callable[[Place], Told]:
    """Strike a command on the way, and give it again."""

    def act(place: Place) -> Told:
        place.take(*takes)
        process = place.start(first)
        place.wait(lambda: bool(ready(place)), process)
        os.killpg(process.pid, signal.SIGSTOP)  # it must not end before the signal comes
        os.killpg(process.pid, number)
        ended = place.go_on(process)
        repeated = place.run(again or first)
        check(place)
        nothing_left(place)
        return Told.of(ended, repeated, then=then)

    return act


def converted(place: Place, name: str = "o.h5", count: int = 300) -> None:
    """Check that shards are whole."""
    assert not verify(place / name).problems
    with ShardSet(place / name) as shards:
        assert len(shards) == count


def merged(place: Place) -> None:
    converted(place, "one.h5", 12)


def first_trained(place: Place) -> None:
    """Check that the run is of the first training, in settings and in metrics."""
    settings = json.loads((place / "run" / "settings.json").read_text())
    assert settings["bev"]["optim"]["epochs"] == 3
    assert last_epoch(place) == 3


def last_epoch(place: Place) -> float:
    """Return which epoch the run's metrics end with."""
    lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
    return max((json.loads(line)["epoch"] for line in lines), default=0)


def embedded(place: Place) -> None:
    with np.load(place / "e.npz") as arrays:
        assert len(arrays["ids"]) == 28


def evaluated(place: Place) -> None:
    (result,) = (place / "run").glob("evaluation-*.json")
    json.loads(result.read_text())


def exported(place: Place) -> None:
    from PIL import Image

    with ShardSet(place / "o.h5") as shards:
        for number, name in enumerate(shards.ids):
            with Image.open(place / "pictures" / f"{name}.png") as image:
                assert np.array_equal(np.asarray(image), shards[number])


def some(pattern: str, count: int = 1) -> Callable[[Place], bool]:
    """Whether there are files of some names, which are not empty."""

    def there(place: Place) -> bool:
        return sum(_size(path) > 0 for path in place.folder.glob(pattern)) >= count

    return there


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # just renamed
        return 0


def converted_first(place: Place) -> None:
    """Convert the many, for what comes after."""
    assert place.run(CONVERT).code == 0


def after_converting(act: Callable[[Place], Told]) -> Callable[[Place], Told]:
    """Let something happen to the BEVs of the many."""

    def acts(place: Place) -> Told:
        place.take("many")
        converted_first(place)
        return act(place)

    return acts


def situations() -> Iterable[Situation]:
    whole = "the first one's output is whole"
    yield Situation(
        TWO,
        "`convert`, and `convert` of other settings, into one file",
        second_refused(CONVERT, f"{CONVERT} --height 3", "o.h5.lock", converted, whole, "many"),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`merge` of what `convert --overwrite` is writing",
        after_converting(
            second_refused(
                f"{CONVERT} --height 3 --overwrite",
                "bevgen merge o.h5 -o one.h5",
                "o.h5.lock",
                converted,
                "the conversion is whole",
            )
        ),
        (1, 0),
        "Error: .*",
    )
    yield Situation(
        TWO,
        "`merge` twice into one file",
        both_end(MERGE, merged, "one is refused, the file is whole", "bev"),
        (1, 0),
        "(?=Error: (another run is writing one.h5|one.h5 exists))",  # as they meet
    )
    yield Situation(
        TWO,
        "`export` twice into one folder",
        after_converting(
            second_refused(EXPORT, EXPORT, "pictures.lock", exported, "every picture is there")
        ),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`train` twice into one `--run`",
        second_refused(
            f"{TRAIN}3",
            f"{TRAIN}2",
            "run/training.lock",
            first_trained,
            "settings, metrics and weights are the first one's",
            "world",
        ),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`train --resume` of a run that is being trained",
        second_refused(
            f"{TRAIN}3", f"{TRAIN}3 --resume", "run/training.lock", first_trained, whole, "world"
        ),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`evaluate` twice, of one name",
        second_refused(
            EVALUATE,
            EVALUATE,
            "run/evaluation-test-data-world.json.lock",
            evaluated,
            whole,
            "world",
            "run",
        ),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`embed` twice into one file",
        second_refused(EMBED, EMBED, "e.npz.lock", embedded, whole, "world", "run"),
        (1, 0),
        REFUSED,
    )
    yield Situation(
        TWO,
        "`index` twice into one index",
        second_refused(INDEX, INDEX, "new.index.lock", lambda place: None, whole, "town"),
        (1, 0),
        REFUSED,
    )
    yield from killed_situations()


def killed_situations() -> Iterable[Situation]:
    yield Situation(
        KILLED,
        "`convert` killed, and given again",
        struck(CONVERT, some("o.shards/*.h5", 2), converted, "many"),
        (-9, 0),
        "",
    )
    yield Situation(
        KILLED,
        "`convert` interrupted by Ctrl-C, and given again",
        struck(CONVERT, some("o.shards/*.h5", 2), converted, "many", number=signal.SIGINT),
        (130, 0),
        "Interrupted.*?continue with: .*? -q",
    )
    yield Situation(
        KILLED,
        "`export` killed, and given again",
        after_converting(struck(EXPORT, some("pictures/*.png", 5), exported)),
        (-9, 0),
        "300 images, .*of them there already",
    )
    yield Situation(
        KILLED,
        "`train` killed, and given again with `--resume`",
        struck(
            f"{TRAIN}12",
            some("run/bev.state"),
            lambda place: last_epoch(place) == 12,
            "world",
            again=f"{TRAIN}12 --resume",
        ),
        (-9, 0),
        "",
    )
    yield Situation(
        KILLED,
        "`train` interrupted by Ctrl-C, and given again with `--resume`",
        struck(
            f"{TRAIN}12",
            some("run/bev.state"),
            lambda place: last_epoch(place) == 12,
            "world",
            number=signal.SIGINT,
            again=f"{TRAIN}12 --resume",
        ),
        (130, 0),
        "Interrupted.*",
    )
    yield Situation(
        KILLED,
        "`index` killed, and given again",
        struck(INDEX, some("new.index.lock"), lambda place: None, "town"),
        (-9, 0),
        "",
    )
