"""Short work on files and over HTTP: the audit log, the spool, a scrape; and what has to hold after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

from _audit import event
from _boundaries import Wire
from _stored import llm_call
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict

from taskpilot_obs import observe_workflow
from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exceptions import ConfigurationError, SourceError, StoreError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.exporters.prometheus.multiprocess import Workers
from taskpilot_obs.exporters.prometheus.worker_files import mark_namespace
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs.golden_signals.from_url import scrape as read_url
from taskpilot_obs.golden_signals.http import Access
from taskpilot_obs.semconv import WORKFLOW_RUNS
from taskpilot_obs.store.rows import LLM_COLUMNS, Rows, rows_of
from taskpilot_obs.store.spool import Spool
from taskpilot_obs.testing import fresh_recorder


class Home(NamedTuple):
    """Where a scenario works."""

    path: Path
    url: str
    """Of a store that has its tables."""
    wire: str
    """Of the same store; to a server by a way that may break."""


IDENTIFIER = LLM_COLUMNS.index("telemetry_id")


def audit_log(home: Home) -> int:
    """Eight batches over several files, synced, with anchors; returns how many records are said to be written.

    In between the file gets half a line, as a process that is killed leaves it.
    """
    written, exporter, path = 0, None, home.path / "audit.jsonl"
    options = AuditOptions(max_bytes=4_096, durability="fsync", anchor_every=5)
    for number in range(8):
        if number == 5 and path.exists():
            with path.open("ab") as file:
                file.write(b'{"event":')
        batch = [event() for _ in range(4)]
        try:
            exporter = exporter or AuditLogExporter(path, options)
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


def check_audit_log(home: Home, written: int) -> int:
    """What is said to be written is there, whole, and a next start goes on."""
    exporter = AuditLogExporter(home.path / "audit.jsonl")
    exporter.export([event()])
    exporter.shutdown(5)
    reports = verify(home.path)
    assert [report.problem for report in reports] == [None] * len(reports)
    lines = [line for path in home.path.iterdir() if ".jsonl" in path.name for line in path.read_bytes().splitlines()]
    assert sum(b'"chain.start"' not in line for line in lines) == written + 1
    return written


def spool(home: Home) -> tuple[list[str], list[str]]:
    """Eight batches wait and are replayed, in two rounds; returns what was accepted, and what came back."""
    accepted: list[str] = []
    came: list[str] = []
    kept = Spool(home.path)
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


def check_spool(home: Home, told: tuple[list[str], list[str]]) -> int:
    """What was accepted comes back, now or to the next process; what is written twice is one row by its identifier."""
    accepted, came = told
    _replay(Spool(home.path), came)
    assert sorted(set(came)) == sorted(accepted)
    return len(accepted)


# --- scrape: the files of workers that have ended ---------------------------------------------------------------------

GONE = 2**22 + 7
"""Above any process ID that Linux gives."""
COUNTED = {"a_total": 7.0, "b_total": 3.0}


def scrape(home: Home) -> list[dict[str, float]]:
    """Three scrapes, the first of which merges the files of three workers; returns what they saw."""
    values = home.path / "values"  # a folder of its own, because the store's file is named as theirs
    values.mkdir()
    with suppress(OSError, MemoryError):  # nothing is merged then
        mark_namespace(values)
    for number in range(3):
        _write_values(values / f"counter_{GONE + number}.db")
    seen = []
    for _ in range(3):
        with suppress(SourceError, OSError, MemoryError):
            seen.append(_scraped(home))
    return seen


def _write_values(path: Path) -> None:
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # it has no types
    for name, value in COUNTED.items():
        file.write_value(json.dumps([name, name, {}, "help"]), value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def _scraped(home: Home) -> dict[str, float]:
    return {
        sample.name: sample.value for family in Workers(home.path / "values").collect() for sample in family.samples
    }


def check_scrape(home: Home, seen: list[dict[str, float]]) -> int:
    """No scrape counts less or more than there is; the next one works."""
    exact = {name: 3 * value for name, value in COUNTED.items()}
    assert seen == [exact] * len(seen)
    assert _scraped(home) == exact
    return len(seen)


# --- scrape over HTTP: a server of metrics, and who reads it ----------------------------------------------------------


SCRAPES = 4
ASKED_WITHIN = Access(timeout_s=5)


class Served(NamedTuple):
    """A server of metrics that was scraped."""

    url: str
    wrong: list[float]
    """Of each scrape with an answer: by how many runs."""
    open: ExitStack


def served(_home: Home) -> Served | None:
    """Four scrapes of a server, through a way that may break, with a run before each."""
    registry = CollectorRegistry()
    with ExitStack() as stack:
        try:
            stack.enter_context(fresh_recorder(registry=registry))
            server = stack.enter_context(start_metrics_server(0, registry=registry))
        except (ConfigurationError, MemoryError):  # refused at the start
            return None
        wire = stack.enter_context(closing(Wire(server.port)))
        return Served(server.url, list(_scraped_over(wire)), stack.pop_all())


def _scraped_over(wire: Wire) -> Iterator[float]:
    for runs in range(1, SCRAPES + 1):
        _work(0)
        with suppress(SourceError, MemoryError):
            yield _runs_at(f"http://127.0.0.1:{wire.port}/metrics") - runs


@observe_workflow
def _work(number: int) -> int:
    return number * number


def _runs_at(url: str) -> float:
    return sum(value for (name, _), value in read_url(url, ASKED_WITHIN).items() if name == WORKFLOW_RUNS.name)


def check_served(_home: Home, told: Served | None) -> int:
    """Each answer had all runs until then, and the server answers the next client."""
    if told is None:
        return SCRAPES
    with told.open:
        assert not any(told.wrong)
        assert _runs_at(told.url) == SCRAPES
    return len(told.wrong)
