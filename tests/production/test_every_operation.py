"""Every n-th operation of every kind fails, until the work goes through untouched: what SQLite does to itself.

After each run the invariants hold: what was accepted is written or reported as lost, to the record; chains verify; the
next start works; nothing but the library's own errors comes out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _audit import event
from _boundaries import BOUNDARIES, failing
from _stored import NOON, llm_call

from taskpilot_obs._pipeline.batched import PartialExportError
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, upgrade
from taskpilot_obs.store.rows import LLM_COLUMNS, Rows, rows_of
from taskpilot_obs.store.spool import Spool

LATER = NOON + timedelta(hours=2)
MOST = 2_000
"""Operations of one kind in one scenario; more would be a scenario that never ends."""
IDENTIFIER = LLM_COLUMNS.index("telemetry_id")


class Scenario(NamedTuple):
    """Short work, and what has to hold after it."""

    work: Callable[[Path], Any]
    """Given a folder; returns what it was told: the result is handed to `check`."""
    check: Callable[[Path, Any], int]
    """With nothing failing any more; returns how many records were accepted."""
    least: int
    """So many are accepted where one operation fails, or two for a torn write: a fault that passes costs one batch."""


def audit_log(home: Path) -> int:
    """Eight batches over several files, synced, with anchors; returns how many records are said to be written."""
    written, exporter = 0, None
    options = AuditOptions(max_bytes=4_096, durability="fsync", anchor_every=5)
    for _ in range(8):
        batch = [event() for _ in range(4)]
        try:
            exporter = exporter or AuditLogExporter(home / "audit.jsonl", options)
            exporter.export(batch)
        except (ConfigurationError, MemoryError):
            continue
        except PartialExportError as error:
            written += error.written
        else:
            written += len(batch)
    if exporter is not None:
        exporter.shutdown(5)
    return written


def check_audit_log(home: Path, written: int) -> int:
    """What is said to be written is there, whole, and a next start goes on."""
    exporter = AuditLogExporter(home / "audit.jsonl")
    exporter.export([event()])
    exporter.shutdown(5)
    reports = verify(home)
    assert [report.problem for report in reports] == [None] * len(reports)
    lines = [line for path in home.iterdir() if ".jsonl" in path.name for line in path.read_bytes().splitlines()]
    assert sum(b'"chain.start"' not in line for line in lines) == written + 1
    return written


def spool(home: Path) -> tuple[list[str], list[str]]:
    """Eight batches wait and are replayed, in two rounds; returns what was accepted, and what came back."""
    accepted: list[str] = []
    came: list[str] = []
    kept = Spool(home)
    for start in (0, 4):
        for number in range(start, start + 4):
            try:
                kept.append(rows_of([llm_call(invocation_id=f"call-{number}")]), 1)
            except (StoreError, MemoryError):
                continue
            accepted.append(f"call-{number}")
        _replay(kept, came)
    kept.close()
    return accepted, came


def _replay(kept: Spool, came: list[str]) -> None:
    def write(rows: Rows) -> None:
        came.extend(str(row[IDENTIFIER]) for row in rows.llm_calls)

    def lost(error: StoreError) -> None:
        raise AssertionError(error)

    try:
        kept.replay(write, lost=lost)
    except (StoreError, MemoryError):
        return  # the rest goes on waiting


def check_spool(home: Path, told: tuple[list[str], list[str]]) -> int:
    """What was accepted comes back, now or to the next process; what is written twice is one row by its identifier."""
    accepted, came = told
    _replay(Spool(home), came)
    assert sorted(set(came)) == sorted(accepted)
    return len(accepted)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the store's tables, because making them takes a hundred statements."""
    path = tmp_path_factory.mktemp("tables") / "telemetry.db"
    with closing(Store(f"sqlite:///{path}", create=True)) as made:
        upgrade(made)
    return path


def store(home: Path) -> list[str]:
    """Four batches are written, and summed up in between; returns the calls that were accepted."""
    accepted: list[str] = []
    exporter = None
    for number in range(4):
        try:
            exporter = exporter or StoreExporter(f"sqlite:///{home / 'telemetry.db'}")
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


def check_store(home: Path, accepted: list[str]) -> int:
    """What was accepted is there once; statistics from rows and from sums count what is there; a next start writes."""
    url = f"sqlite:///{home / 'telemetry.db'}"
    again = StoreExporter(url)
    again.export([llm_call(invocation_id="again")])
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


SCENARIOS = {
    "audit log": Scenario(audit_log, check_audit_log, 24),
    "spool": Scenario(spool, check_spool, 6),
    "store": Scenario(store, check_store, 3),
}
WRITES = {"open", "write", "torn write", "short write", "read", "mkdir", "stat", "list", "flock", "memory"}
REACHED = {
    "audit log": WRITES | {"fsync", "rename", "clock"},
    "spool": WRITES | {"truncate", "unlink"},
    "store": {"open", "stat", "memory", "execute", "commit", "commit answer"},
}
"""Boundaries that the work of a scenario comes to; of the others there is nothing that could fail."""


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_nth_operation(scenario: str, boundary: str, tmp_path: Path, tables: Path, *, lasting: bool) -> None:
    """The first, second, third … operation fails, until there is none that could."""
    work, check, least = SCENARIOS[scenario]
    for nth in range(1, MOST):
        home = tmp_path / str(nth)
        home.mkdir(mode=0o700)
        if scenario == "store":
            shutil.copy(tables, home)
        with failing(boundary, nth, lasting=lasting) as gate:
            told = work(home)
        try:
            accepted = check(home, told)
            assert lasting or accepted >= least
        except BaseException as error:
            error.add_note(f"{boundary} number {nth} of {scenario} failed")
            raise
        if not gate.has_failed:
            break
    else:
        pytest.fail(f"{scenario} has more than {MOST} operations of the kind {boundary}")
    assert (nth > 1) == (boundary in REACHED[scenario])
    print(f"{scenario}: {boundary}: {nth - 1} operations, {'and all after it' if lasting else 'each alone'}")  # noqa: T201
