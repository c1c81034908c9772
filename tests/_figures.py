"""What tests measure for docs/promises.md, so that no figure there is typed by hand.

A test states what it measured; that has to be what tests/figures.json keeps. `TASKPILOT_OBS_FIGURES=keep` writes it.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Final

KEPT: Final = Path(__file__).parent / "figures.json"


def measured(promise: str, *, data: bytes = b"", **figures: float | str) -> None:
    """State what a test of a promise measured.

    Args:
        promise: its name in tests/promises.toml.
        data: what was measured, where that is a file from outside; figures of other data are not compared.
        figures: by the names that its row there uses.

    Raises:
        AssertionError: the file keeps other figures.
    """
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    if data:
        figures["data"] = sha256(data).hexdigest()
    if os.environ.get("TASKPILOT_OBS_FIGURES") == "keep":
        kept[promise] = {**kept.get(promise, {}), **figures}
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if data and kept.get(promise, {}).get("data") != figures["data"]:
        return
    for name, figure in figures.items():
        assert kept.get(promise, {}).get(name) == figure, (
            f"{promise}: {name} is {figure} now; run the test with TASKPILOT_OBS_FIGURES=keep, and then `make docs`"
        )
