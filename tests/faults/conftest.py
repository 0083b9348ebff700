"""Puts the helpers of this folder, and those for pools, within reach of its tests."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent.parent / "pools"):
    sys.path.insert(0, str(folder))
