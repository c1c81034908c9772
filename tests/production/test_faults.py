"""Faults under load: whatever breaks, each record is exported or in a drop counter, for every exporter, to the unit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from _faults import FAULTS, RUNS, THREADS
from _folders import open_to_all

from taskpilot_obs.audit.verify import verify
from taskpilot_obs.exporters.prometheus.multiprocess import Workers
from taskpilot_obs.semconv import AGENT_RUNS, INTERNAL_ERRORS, RECORDS, RECORDS_DROPPED, WORKFLOW_RUNS

SCRIPT = Path(__file__).parent.parent / "_faults.py"
PAIRS: list[tuple[str, ...]] = [
    ("audit_full", "exporter_raises"),
    ("audit_removed", "scrape_stalls"),
    ("clock_steps", "memory_errors"),
    ("exporter_hangs", "sigterm"),
    ("collector_hangs", "exit_at_once"),
]
LOSES = {
    "audit_full": "audit_log",
    "stdout_closed": "audit_log",
    **dict.fromkeys(("exporter_raises", "exporter_exits", "exporter_sleeps", "exporter_hangs"), "exporter_1"),
    **dict.fromkeys(("memory_errors", "sigint_twice"), "exporter_1"),
}
"""Where a fault must cost records: a test in which nothing broke would prove nothing."""
MAY_FAIL_INSIDE = {"audit_read_only", "audit_removed", "memory_errors"}
"""Faults that also count as internal errors: a file that cannot be rotated, an exporter in memory."""
CUT_SHORT = {"sigterm", "sigint_twice", "loop_closed", "exit_at_once"}


class Outcome:
    """What is left of the process."""

    def __init__(self, home: Path, stderr: str) -> None:
        self.home = home
        self.stderr = stderr
        self.exported: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()
        for family in Workers(home / "values").collect():
            for sample in family.samples:
                self.sums[sample.name] += int(sample.value)
                if sample.name == RECORDS.name:
                    self.exported[sample.labels["exporter"]] += int(sample.value)
                if sample.name == RECORDS_DROPPED.name:
                    self.dropped[sample.labels["exporter"]] += int(sample.value)
        self.runs = (home / "ran").stat().st_size
        self.sent = (home / "sent").stat().st_size

    def lines(self) -> list[str]:
        paths = [path for path in (self.home / "audit").iterdir() if ".jsonl" in path.name]
        return [line for path in paths for line in path.read_text().splitlines()]


def play(home: Path, *faults: str) -> Outcome:
    (home / "values").mkdir()
    environment = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(home / "values"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "COVERAGE_PROCESS_START": "",
    }
    open_to_all(home)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(home), *faults],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Timeout" not in done.stderr, done.stderr
    if "sigint_twice" not in faults:
        assert done.returncode == 0, done.stderr
    return Outcome(home, done.stderr)


def assert_accounted(outcome: Outcome) -> None:
    """Accepted = exported + dropped, for each exporter; the metrics have everything."""
    accepted = 2 * outcome.runs
    for exporter in outcome.exported:
        if exporter != "fragile":  # which came later
            assert outcome.exported[exporter] + outcome.dropped[exporter] == accepted, exporter
    assert {"window", "prometheus", "exporter_1", "audit_log"} <= set(outcome.exported)
    assert outcome.dropped["prometheus"] == outcome.dropped["window"] == 0
    assert outcome.sums[AGENT_RUNS.name] == outcome.sums[WORKFLOW_RUNS.name] == outcome.runs
    assert outcome.exported["exporter_1"] == outcome.sent
    assert (outcome.home / "threads").read_text() == "MainThread"


@pytest.mark.promise("unchanged-functions", "accounted")
@pytest.mark.parametrize("faults", [*((name,) for name in FAULTS), *PAIRS], ids="+".join)
def test_every_record_is_accounted_for(tmp_path: Path, faults: tuple[str, ...]) -> None:
    """Under each fault, and five pairs of them, nothing is lost uncounted, counted twice, or kept waiting for."""
    outcome = play(tmp_path, *faults)
    assert_accounted(outcome)
    assert [name for name in faults if name in LOSES and not outcome.dropped[LOSES[name]]] == []
    assert not outcome.sums[INTERNAL_ERRORS.name] or MAY_FAIL_INSIDE & set(faults)
    if not CUT_SHORT & set(faults):
        assert outcome.runs == THREADS * RUNS
    if "stdout_closed" in faults:
        written = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
        assert len(written) == outcome.exported["audit_log"]
    elif "audit_removed" not in faults:
        assert len(outcome.lines()) == outcome.exported["audit_log"]
        assert all(report.is_whole for report in verify(tmp_path / "audit"))
    if "scrape_stalls" in faults:
        assert AGENT_RUNS.name in (tmp_path / "scraped").read_text()
