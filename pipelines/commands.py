"""Run command lines as a user would type them, and show them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path


def run(line: str, *, why: str = "") -> None:
    """Print a line and run it; the first that fails ends the program with its exit code.

    Parameters
    ----------
    line
        Begins with ``bevgen``, ``georetrieval`` or ``python``, all of this Python's environment.
    why
        Printed above it.
    """
    print(f"\n{why}\n$ {line}" if why else f"\n$ {line}", flush=True)
    name, *words = shlex.split(line)
    program = Path(sys.executable) if name == "python" else Path(sys.executable).with_name(name)
    try:
        code = subprocess.run([program, *words], check=False).returncode
    except KeyboardInterrupt:
        code = 130
    if code:
        print(f"the command above ended with exit code {code}", file=sys.stderr)
        sys.exit(code)
