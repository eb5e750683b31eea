"""`python -m tests.benchmarks [NAME ...]`: measure, print a Markdown table, keep JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch

from tests.benchmarks import report
from tests.benchmarks.frame import Contest, NotHereError, Setup, measure, peak_here
from tests.helpers.paths import ROOT

# Each has CONTESTS; `kernels` comes with the fast kernels.
MODULES = (
    "conversion",
    "kernels",
    "loading",
    "retrieval",
    "index",
    "starting",
    "gpu",
    "training",
    "scaling",
    "cores",
)

PAGE = ROOT / "docs" / "benchmarks.md"


def contests() -> dict[str, Contest]:
    """All contests by name."""
    found: dict[str, Contest] = {}
    for name in MODULES:
        module = import_module(f"tests.benchmarks.{name}")
        found |= {contest.name: contest for contest in module.CONTESTS}
    return found


def main(words: list[str] | None = None) -> int:
    known = contests()
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks",
        description="Measure bevgen and georetrieval beside their peers, in turns.",
        epilog="contests: " + ", ".join(known),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="contests; all by default")
    parser.add_argument("--rounds", type=int, default=7, help="of each contest (7)")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="results (bench-out)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bevgen-benchmarks",
        help="for inputs, which are kept, and outputs (some GB)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: do the commands work?")
    parser.add_argument("--full", action="store_true", help="also the sizes that take very long")
    parser.add_argument("--docs", action="store_true", help=f"rewrite the tables of {PAGE.name}")
    parser.add_argument("--peak-of", metavar="WAY", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no contest {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_num_threads(1)  # one thread for everybody, unless a contest says otherwise
    options.folder.mkdir(parents=True, exist_ok=True)
    setup = Setup(options.folder, options.tiny, options.device, options.full)
    if options.peak_of is not None:
        way = known[options.names[0]].prepare(setup)[options.peak_of]
        print(peak_here(way))
        return 0
    for name in options.names or known:
        print(f"{name}: {known[name].title}", file=sys.stderr)
        try:
            result = measure(known[name], setup, options.rounds)
        except NotHereError as problem:
            print(f"{name} is left out: {problem}", file=sys.stderr)
            continue
        about = {"machine": report.machine(options.device), "code": report.code()}
        report.save(options.out, result | about)
    tables = report.markdown(report.load(options.out, list(known)))
    (options.out / "benchmarks.md").write_text(tables, "utf-8")
    if options.docs:
        report.write_docs(PAGE, tables)
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
