"""A seeded simulation of processes, disks, a database and clocks that fail; see docs/simulator.md."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from _simulated_threads import Violation
from _simulator_of_faults import kept_seeds, simulate

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.pipeline import Pipeline
from taskpilot_obs.audit.writer import Writer
from taskpilot_obs.store import budget_ledger
from taskpilot_obs.store.budget_writers import begun
from taskpilot_obs.store.spool import Spool

SECONDS = 20.0
FIRST = 1_000
SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from _simulator_of_faults import simulate
log = []
print(simulate({seed}, log))
sys.stdout.write("\\n".join(log))
"""


def test_some_seeds() -> None:
    """For twenty seconds, no seed finds a promise that breaks."""
    faults, simulated_s, seed = Counter[str](), 0.0, FIRST
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline or seed < FIRST + 10:
        outcome = simulate(seed)
        faults.update(outcome.faults)
        simulated_s += outcome.simulated_s
        seed += 1
    print(f"{seed - FIRST} seeds, {simulated_s / 3_600:.0f} hours, {faults}")  # noqa: T201
    assert simulated_s > 3_600


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
    real: Any = Batched._drop
    patch.setattr(Batched, "_drop", lambda self, amount, reason: real(self, amount - 1, reason))


def _charged_twice(patch: pytest.MonkeyPatch) -> None:
    """A batch of charges whose answer was lost is taken for a new one."""
    real = begun
    patch.setattr(budget_ledger, "begun", lambda *given: real(*given) or True)


def _spool_forgets(patch: pytest.MonkeyPatch) -> None:
    """What a dead process left behind is not taken over."""
    patch.setattr(Spool, "_orphans", lambda _self: [])


def _late_records_vanish(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pipeline, "_put_late", lambda _self, _item: None)


def _torn_lines_stay(patch: pytest.MonkeyPatch) -> None:
    real: Any = Writer._keep_whole

    def keep(self: Any, lines: list[str], done: int) -> Any:
        kept = real(self, lines, done)
        self.written += 1
        return kept

    patch.setattr(Writer, "_keep_whole", keep)


PLANTED = {
    "a dropped record too few is counted": (_miscounted, "records were accepted"),
    "a commit is applied twice": (_charged_twice, "spent, calls took"),
    "the spool of a dead process is forgotten": (_spool_forgets, "are there"),
    "late records vanish": (_late_records_vanish, "records were accepted"),
    "a failed write counts as written": (_torn_lines_stay, "audit"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator reports a fault that is put into the library, within some hundred seeds."""
    plant, words = PLANTED[fault]
    plant(monkeypatch)
    with pytest.raises(Violation, match=words):
        _ = [simulate(seed) for seed in range(300)]
