"""The results of the last run, as they are kept in the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "growth.json"


def load() -> dict[str, Any]:
    """Machine and day of each part, points of each curve, and what the rules counted of the largest fleet."""
    if not RESULTS.exists():
        return {"measured": {}, "curves": {}, "replicas": {}}
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return kept
