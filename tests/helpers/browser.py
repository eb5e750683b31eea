"""Pages in Chromium, without a window and without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = [
    pytest.mark.extern,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def chromium(
    address: str, profile: Path, *flags: str, milliseconds: int = 5000
) -> tuple[str, list[str]]:
    """Open a page for so long; return what is printed, and what the page's console says."""
    assert CHROMIUM is not None
    words = [f"--virtual-time-budget={milliseconds}", f"--user-data-dir={profile}", *flags]
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *words, address],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(
    address: str, profile: Path, *flags: str, milliseconds: int = 5000
) -> tuple[dict[str, Any], list[str]]:
    """Return what a page's script leaves in a template ``probe``, and what its console says."""
    text, console = chromium(address, profile, "--dump-dom", *flags, milliseconds=milliseconds)
    found = re.search(r'<template id="probe" data-found="([^"]*)"', text)
    assert found, f"the page's scripts did not run to the end: {console}, {text[-2000:]}"
    return json.loads(unescape(found[1])), console
