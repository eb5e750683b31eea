"""An output on the disk, and what is left of other runs."""

from __future__ import annotations

import glob
from pathlib import Path

from bevgen.shards import PARTS, PLAN_FILE, shard_folder

KEPT = "Finished shards are kept: mend the cause and run the same command again"
"""What an error in writing means for a run."""


def leftovers(out: Path) -> list[Path]:
    """Files that a killed run left unfinished."""
    found = [*out.parent.glob(f"{glob.escape(out.name)}.*"), *shard_folder(out).glob("*.part*")]
    return [path for path in found if path.name.endswith(PARTS)]


def remove_leftovers(out: Path) -> None:
    """Remove what a killed run left; a worker that a cluster gave up may just do so itself."""
    for path in leftovers(out):
        path.unlink(missing_ok=True)


def remove_output(out: Path) -> None:
    """Remove an output with its folder of shards, and nothing that is not bevgen's."""
    out.unlink(missing_ok=True)
    folder = shard_folder(out)
    if folder.is_dir():
        for pattern in ("[0-9][0-9][0-9][0-9][0-9]*.h5*", f"{PLAN_FILE}*"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
