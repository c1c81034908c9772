"""A small soak: what `make soak` does at full size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "soak.py"
RUNS, CAPACITY = 150_000, 8_192
MAX_GROWTH_MB = 20


@pytest.mark.promise("soak")
def test_nothing_grows_and_nothing_is_lost_uncounted() -> None:
    """Unique requests and users, 50,000 tenants, an exporter blocked half of the time: memory, series, queues hold."""
    command = [sys.executable, str(SCRIPT), "--part", "soak", "--amount", str(RUNS), "--capacity", str(CAPACITY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    assert found["RSS growth, MB"] < MAX_GROWTH_MB
    assert found["series at warm-up"] == found["series at the end"]
    assert found["longest queue"] <= 2 * CAPACITY + 64  # and runs in progress
    assert found["runs in the metrics"] == RUNS
    assert found["dropped and counted for it"] > 0
    assert found["records unaccounted for, all exporters"] == 0
