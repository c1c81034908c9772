"""A seeded simulation of processes, disks, a database and clocks that fail; see docs/simulator.md."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from _simulated_threads import Violation
from _simulator_of_faults import kept_seeds, simulate

from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.semconv import RECORDS, Metric
from taskpilot_obs.store import budget_ledger
from taskpilot_obs.store.budget_writers import begun

SEEDS = range(1_000, 1_040)
SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from _simulator_of_faults import simulate
log = []
print(simulate({seed}, log))
sys.stdout.write("\\n".join(log))
"""


def test_some_seeds() -> None:
    """Some seeds find no promise that breaks."""
    outcomes = [simulate(seed) for seed in SEEDS]
    faults = Counter[str]()
    for outcome in outcomes:
        faults.update(outcome.faults)
    print(f"{sum(each.simulated_s for each in outcomes) / 3_600:.0f} hours, {faults}")  # noqa: T201
    assert len(faults) > 5


@pytest.mark.parametrize("seed", kept_seeds())
def test_kept_seeds(seed: int) -> None:
    """A seed that found a fault finds it no more."""
    simulate(seed)


def test_one_seed_is_one_run() -> None:
    """A seed gives one run to the step, in another process and with other hashes too."""
    runs = [_run_of(1_001, hashes) for hashes in ("1", "2")]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) > 100


def _run_of(seed: int, hashes: str) -> str:
    script = SCRIPT.format(folder=str(Path(__file__).parent.parent), seed=seed)
    environment = {**os.environ, "PYTHONHASHSEED": hashes}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def _miscounted(patch: pytest.MonkeyPatch) -> None:
    """Of each batch that an exporter writes, one record is not counted."""
    real: Any = InternalCounters.add

    def add(self: InternalCounters, metric: Metric, labels: tuple[str, ...], amount: int = 1) -> None:
        real(self, metric, labels, amount - (metric is RECORDS and labels == ("store",)))

    patch.setattr(InternalCounters, "add", add)


def _charged_twice(patch: pytest.MonkeyPatch) -> None:
    """A batch of charges whose answer was lost is taken for a new one."""
    patch.setattr(budget_ledger, "begun", lambda *given: begun(*given) or True)


def _audited_twice(patch: pytest.MonkeyPatch) -> None:
    """Each batch is written to the audit log twice."""
    real: Any = AuditLogExporter._append
    patch.setattr(AuditLogExporter, "_append", lambda self, texts: (real(self, texts), real(self, texts))[1])


PLANTED = {
    "a written record too few is counted": (_miscounted, "records were accepted"),
    "a commit is applied twice": (_charged_twice, "spent, calls took"),
    "audit lines are written twice": (_audited_twice, "audit lines"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator reports a fault that is put into the library, within some hundred seeds."""
    plant, words = PLANTED[fault]
    plant(monkeypatch)
    with pytest.raises(Violation, match=words):
        _ = [simulate(seed) for seed in range(300)]
