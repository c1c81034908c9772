from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _audit import whole
from _figures import measured

from taskpilot_obs.audit.verify import verify
from taskpilot_obs.exporters.audit_log import AuditLogExporter

WRITER = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from _audit import event
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exporters.audit_log import AuditLogExporter
exporter = AuditLogExporter(sys.argv[1], AuditOptions(max_bytes=2_000_000, anchor_every=100, max_age_s=1e10))
print("open", flush=True)
while True:
    exporter.export([event(text="x" * 300)] * 200)
"""


def kill_in_mid_work(log: Path, dice: random.Random) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        time.sleep(dice.uniform(0.0, 0.15))
        writer.send_signal(signal.SIGKILL)


def kill_rounds(log: Path, rounds: int, seed: int = 1) -> int:
    """Kill a writer so many times, and check the log each time; returns how many times it held."""
    dice = random.Random(seed)
    records = held = 0
    for _ in range(rounds):
        kill_in_mid_work(log, dice)
        report = verify(log)[0]
        assert report.problem is None or "half a line" in report.problem.reason
        assert report.last_seq >= records, "what was written once stays"
        records = report.last_seq
        AuditLogExporter(log).shutdown(1.0)
        assert whole(log).last_seq == records, "opening it again repairs it and continues"
        held += 1
    assert records > rounds * 100
    assert [path.name for path in log.parent.glob("audit.*.*.jsonl")] == [], "the lock died with its process"
    return held


@pytest.mark.promise("kill-audit")
def test_kill(tmp_path: Path) -> None:
    """A log whose writer is killed at random moments verifies to its last whole line, and the next one goes on."""
    kill_rounds(tmp_path / "audit.jsonl", 10)


@pytest.mark.promise("kill-audit")
@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_kill_a_hundred_times(tmp_path: Path) -> None:
    """A hundred kills, ten in a row of each log."""
    logs = [tmp_path / str(number) / "audit.jsonl" for number in range(10)]
    measured("kill-audit", rounds=sum(kill_rounds(log, 10, seed) for seed, log in enumerate(logs)))
