"""Results as JSON files and as Markdown tables."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.frame import MB, verdict
from tests.helpers.paths import ROOT

PACKAGES = (
    "bevgen numpy numba pillow h5py dask scipy scikit-learn torch faiss-cpu opencv-python-headless"
)
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def machine(device: str) -> dict[str, Any]:
    """Say what was measured on."""
    packages = {}
    for name in PACKAGES.split():
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "device": _gpu() if device == "cuda" else "cpu",
        "packages": packages,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor()
    name = re.search(r"model name\s*: (.*)", text)
    flags = re.search(r"flags\s*: (.*)", text)
    wide = [f for f in ("avx2", "avx512f", "avx512_vnni") if flags and f in flags[1].split()]
    return " ".join([name[1].strip() if name else platform.processor(), *wide])


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def code() -> str:
    """Return a digest of all that is measured: a figure of other code is marked."""
    digest = hashlib.sha256()
    for package in ("bevgen", "georetrieval"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def save(folder: Path, result: Mapping[str, Any]) -> None:
    """Keep one contest's result."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    path.write_text(json.dumps(result, indent=1), "utf-8")


def load(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Read the results there are, in the order of the names."""
    paths = (folder / f"{name}.json" for name in names)
    return [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """All tables: the rows with their targets, then each contest's ways."""
    parts = [_rows_table(results), "## All ways that were measured"]
    for result in results:
        parts += [f"**{result['name']}**: {result['title']}.", _ways_table(result)]
    machines: dict[str, list[str]] = {}
    for result in results:
        machines.setdefault(_machine_text(result["machine"]), []).append(result["name"])
    parts.append("## Where and when")
    parts += [f"- {text}: {', '.join(names)}" for text, names in machines.items()]
    return "\n\n".join(parts) + "\n"


def _machine_text(where: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    gpu = "" if where["device"] == "cpu" else f" with {where['device']}"
    return (
        f"{where['date']}, {where['processor']}, {where['cores']} cores{gpu}, {where['system']},"
        f" Python {where['python']}, {packages}"
    )


def _rows_table(results: Sequence[Mapping[str, Any]]) -> str:
    head = ["#", "what", "ours", "peer", "figure", "must", "aim", "", "on"]
    lines, now = [_line(head), "|" + " --- |" * len(head)], code()
    rows = [(row, result) for result in results for row in result["rows"]]
    for row, result in sorted(rows, key=lambda pair: _order(pair[0]["number"])):
        unit = result["unit"]
        if row["kind"] == "share":
            cells = [_megabytes(row[k]) for k in ("ours", "peer")]
            figures = [_share(row[k]) for k in ("figure", "must", "aim")]
        elif row["kind"] == "bytes":
            figures = [_megabytes(row[k]) for k in ("figure", "must", "aim")]
            cells = [figures[0], ""]
        else:
            cells = [_time(row["ours"], unit), _time(row["peer"], unit) if row["peer"] else ""]
            write = _seconds if row["kind"] == "seconds" else _times
            figures = [write(row[k]) for k in ("figure", "must", "aim")]
        what = row["what"] + (f" vs {row['peer_name']}" if row.get("peer_name") else "")
        lines.append(
            _line([row["number"], what, *cells, *figures, verdict(row), _where(result, now)])
        )
    return "\n".join(lines)


def _where(result: Mapping[str, Any], now: str) -> str:
    """Say on what a figure was taken and when, and whether the code has changed since."""
    where = result["machine"]
    chip = where["processor"] if where["device"] == "cpu" else where["device"]
    older = "" if result.get("code") == now else ", older code"
    name, *wide = chip.split(" avx")  # processors of one name differ in how wide they compute
    return f"{name}{f' avx{wide[-1]}' if wide else ''}, {where['date']}{older}"


def _order(number: str) -> tuple[int, str]:
    digits = re.match(r"\d+", number)
    return (int(digits[0]) if digits else 99, number)


def _ways_table(result: Mapping[str, Any]) -> str:
    ways = result["ways"]
    memory = any(way["bytes"] for way in ways.values())
    head = ["way", f"median per {result['unit']}", "least", "CPU time"] + ["memory"] * memory
    lines = [_line(head), "|" + " --- |" * len(head)]
    for name, way in ways.items():
        cells = [median(way["wall"]), min(way["wall"]), median(way["cpu"])]
        taken = [_megabytes(way["bytes"])] * memory
        lines.append(_line([name, *map(_seconds, cells), *taken]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _time(seconds: float, unit: str) -> str:
    return f"{_seconds(seconds)} / {unit}"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}x"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / MB:,.0f} MB"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2g} %"


def write_docs(page: Path, tables: str) -> None:
    """Put tables between the marks of a page."""
    text = page.read_text("utf-8")
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", "utf-8")
