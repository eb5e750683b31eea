"""Where things lie: the repository, and the real images that the tests may use."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
STREET = DATA / "street"
HDRI = DATA / "hdri"
