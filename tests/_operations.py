"""Short work of each part of the library, and what has to hold after it, whichever operation failed meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from _boundaries import forked
from _file_operations import (
    Home,
    audit_log,
    check_audit_log,
    check_scrape,
    check_served,
    check_spool,
    scrape,
    served,
    spool,
)
from _stored import NOON, llm_call
from prometheus_client import CollectorRegistry

from taskpilot_obs import observe_agent
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    StoreError,
)
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import Record, Usage
from taskpilot_obs.semconv import RECORDS, RECORDS_DROPPED
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.testing import fresh_recorder

LATER = NOON + timedelta(hours=2)


class Scenario(NamedTuple):
    """Short work, and what has to hold after it."""

    work: Callable[[Home], Any]
    """Given a folder; returns what it was told: the result is handed to `check`."""
    check: Callable[[Home, Any], int]
    """With nothing failing any more; returns how many records were accepted."""
    least: int
    """So many are accepted where one operation fails, or two for a torn write: a fault that passes costs one batch."""


def store(home: Home) -> list[str]:
    """Four batches are written, and summed up in between; returns the calls that were accepted."""
    accepted: list[str] = []
    exporter = None
    for number in range(4):
        try:
            exporter = exporter or StoreExporter(home.wire, spool_dir=home.path / "spool")
            exporter.export([llm_call(invocation_id=f"call-{number}")])
        except (StoreError, MemoryError):
            continue
        accepted.append(f"call-{number}")
        if number == 2:
            with suppress(StoreError, MemoryError):
                aggregate_summaries(store=exporter.store, now=LATER)
    if exporter is not None:
        exporter.shutdown(5)
    return accepted


def _let_replayers_end() -> None:
    """A shutdown does not wait for a replayer whose server does not answer; the end of its process frees its files."""
    for thread in threading.enumerate():
        if thread.name == "taskpilot_obs-replay":
            thread.join(60)


def check_store(home: Home, accepted: list[str]) -> int:
    """What was accepted is there once; statistics from rows and from sums count what is there; a next start writes."""
    _let_replayers_end()
    again = StoreExporter(home.url, spool_dir=home.path / "spool")
    again.export([llm_call(invocation_id="again")])
    assert again.flush(20), "what waited on disk is written by the next process"
    with again.store.reading() as connection:
        there = connection.exec_driver_sql("SELECT telemetry_id FROM llm_call_telemetry").scalars().all()
    assert len(there) == len(set(there))
    assert set(accepted) <= set(there)
    day = NOON - timedelta(hours=12), NOON + timedelta(hours=12)
    assert get_stats(day, store=again.store).requests == len(there)
    aggregate_summaries(store=again.store, now=LATER)
    assert get_stats(day, store=again.store).requests == len(there)
    again.shutdown(5)
    return len(accepted)


# --- ledger: reserve, settle, and the budget's figures ----------------------------------------------------------------

ESTIMATE, TAKEN, CALLS = 200, 150, 6
TEAM = Budget("team", limit_tokens=3 * ESTIMATE, action="enforce", when_store_down="closed")


def ledger(home: Home) -> tuple[Any, int] | None:
    """Six calls ask a budget that has room for three or four; returns the recorder, and how many were made."""
    try:
        recorder = build_recorder(budget_store=home.wire, budgets=[TEAM], registry=CollectorRegistry())
    except (ConfigurationError, StoreError, MemoryError):
        return None
    made = 0
    for _ in range(CALLS):
        block = Reservation(recorder, model="gpt-4o", kwargs={"input_tokens": 100, "max_tokens": 100})
        try:
            with block:
                recorder.record_llm_call(model="gpt-4o", usage=Usage(100, TAKEN - 100))
                made += 1
        except (BudgetExceededError, BudgetUnavailableError):
            pass
        recorder.flush(0.2)
    return recorder, made


def check_ledger(home: Home, told: tuple[Any, int] | None) -> int:
    """The budget has what calls took, to the token; never more passes than estimates allow; nothing stays reserved."""
    if told is None:  # refused at the start, before any call
        return CALLS
    recorder, made = told
    assert recorder.flush(20), "charges wait for the store, and are written once it answers"
    recorder.shutdown()
    with closing(Store(home.url)) as kept:
        figures = StoreLedger(kept)
        now = datetime.now(UTC)
        figures.release_expired(now + timedelta(days=2))
        days = [TEAM.window(now - timedelta(days=ago)).start for ago in (0, 1)]  # the clock may have jumped back
        balances = figures.read([TEAM], days).values()
    assert sum(each.spent for each in balances) == made * TAKEN
    assert all(each.spent <= TEAM.limit for each in balances)
    assert all(each.reserved == 0 for each in balances)
    return made


# --- recorder: from the call to every exporter, a scrape, and the shutdown --------------------------------------------

ROUNDS, RUNS = 2, 3
EXIT_TIMEOUT_S = 2.0


class Sink:
    """The application's exporter of records."""

    def __init__(self) -> None:
        self.records = 0

    def export(self, batch: Sequence[Record], /) -> None:
        self.records += len(batch)


class Recorded(NamedTuple):
    """What is left of a recorder that was shut down."""

    counted: Counter[str]
    dropped: Counter[str]
    sink: int
    took_s: float


def recorder(home: Home) -> Recorded | None:
    """Runs with audit log, store and an exporter of its own, a scrape after each round, and the shutdown."""
    registry, sink, is_ready = CollectorRegistry(), Sink(), False
    options: dict[str, Any] = {"audit_log": home.path / "audit.jsonl", "audit_durability": "fsync", "store": home.wire}
    options |= {"exporters": [sink], "registry": registry, "exit_timeout_s": EXIT_TIMEOUT_S}
    try:
        with _state_in(home), fresh_recorder(**options) as fresh:
            is_ready = True
            _run(registry, fresh)
            began = time.monotonic()
        took_s = time.monotonic() - began
    except (ConfigurationError, StoreError, MemoryError):
        if is_ready:
            raise
        return None  # refused at the start, before anything was recorded
    return Recorded(_sums(registry, RECORDS.name), _sums(registry, RECORDS_DROPPED.name), sink.records, took_s)


@contextmanager
def _state_in(home: Home) -> Iterator[None]:
    """Batches for a database that is away wait beneath the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home.path / "state"))
        yield


def _run(registry: CollectorRegistry, fresh: Any) -> None:
    @observe_agent("worker")
    def work(number: int) -> int:
        return number * number

    for _ in range(ROUNDS):
        assert [work(number) for number in range(RUNS)] == [number * number for number in range(RUNS)]
        assert b"agent_runs_total" in render(registry)[0]
        fresh.flush(1)


def _sums(registry: CollectorRegistry, name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels["exporter"]] += int(sample.value)
    return found


def check_recorder(home: Home, told: Recorded | None) -> int:
    """Accepted = exported + dropped for each exporter; the log has what was exported; the end came in time."""
    if told is not None:
        accepted = 2 * ROUNDS * RUNS
        sums = {each: told.counted[each] + told.dropped[each] for each in told.counted | told.dropped}
        assert sums == dict.fromkeys(("audit_log", "exporter_1", "prometheus", "store", "window"), accepted)
        assert told.counted["prometheus"] == told.counted["window"] == accepted
        assert told.sink == told.counted["exporter_1"]
        assert told.took_s < EXIT_TIMEOUT_S + 3
        assert 0 <= _audit_lines(home) - told.counted["audit_log"] <= 2 * len(forked), "children write lines too"
        assert 0 <= _stored_runs(home) + told.dropped["store"] - ROUNDS * RUNS <= told.dropped["store"] + len(forked)
    check_audit_log(home, _audit_lines(home))
    return 2 * ROUNDS * RUNS if told is None else min(told.counted.values())


def _stored_runs(home: Home) -> int:
    """How many runs the store has once the next process has written what waited."""
    for folder in (home.path / "state" / "taskpilot-obs" / "spool").glob("*"):
        again = StoreExporter(home.url, spool_dir=folder)
        again.export([llm_call()])
        assert again.flush(20), "what waited on disk is written by the next process"
        again.shutdown(5)
    with closing(Store(home.url)) as kept, kept.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM agent_runs").scalar_one())


def _audit_lines(home: Home) -> int:
    found = [line for path in home.path.iterdir() if ".jsonl" in path.name for line in path.read_bytes().splitlines()]
    return sum(b'"chain.start"' not in line for line in found)


SCENARIOS = {
    "audit log": Scenario(audit_log, check_audit_log, 24),
    "spool": Scenario(spool, check_spool, 6),
    "scrape": Scenario(scrape, check_scrape, 1),
    "scrape over HTTP": Scenario(served, check_served, 3),
    "store": Scenario(store, check_store, 3),
    "ledger": Scenario(ledger, check_ledger, 2),
    "recorder": Scenario(recorder, check_recorder, 2 * (ROUNDS - 1) * RUNS),
    "store on PostgreSQL": Scenario(store, check_store, 3),
    "ledger on PostgreSQL": Scenario(ledger, check_ledger, 2),
}
