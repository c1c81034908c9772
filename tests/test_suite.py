"""The suite itself: it passes wherever it is started from, and its failures can be read."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from _differences import differences, mapping_differences

ROOT = Path(__file__).parent.parent
CTRL_C = "tests/test_pipeline.py::test_ctrl_c_cuts_the_waiting_at_the_exit_short"


def test_a_background_script_may_start_the_suite() -> None:
    """A test that presses Ctrl-C passes where the parent ignores SIGINT, as it does under `nohup … &`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CTRL_C],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_failure_prints_what_differs() -> None:
    """Of thousands of identifiers a failure names the few that differ."""
    expected = {f"run-{number}" for number in range(2_000)}
    assert differences(expected, expected) == ""
    assert differences(expected - {"run-7"} | {"x"}, expected) == "1 missing: run-7; 1 unexpected: x"
    assert differences(set(), expected).startswith("2000 missing: run-0, run-1, run-10, run-100, run-1000, …")
    statuses = dict.fromkeys(expected, "success")
    assert mapping_differences(statuses | {"run-3": "error"}, statuses) == "1 different: run-3: 'error', not 'success'"
