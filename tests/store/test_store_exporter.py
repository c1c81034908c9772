"""Writing batches: once, from many processes, and through every way in which a disk or a server can fail."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from _postgres import Server, postgres_server
from _stored import NOON, denial, llm_call, new_database, run_processes, sqlite_url, store_at, task, verdict
from sqlalchemy import func, select, text

from taskpilot_obs import golden_signals, track_llm, track_workflow
from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.records import Invocation
from taskpilot_obs.semconv import EXPORT_ERRORS, RECORDS, RECORDS_DROPPED
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, StoreExporter
from taskpilot_obs.store.tables import metadata
from taskpilot_obs.store.versions import REVISIONS
from taskpilot_obs.testing import fresh_recorder

CENT = Decimal("0.01")


@pytest.fixture
def exporter(store: Store, url: str, tmp_path: Path) -> Iterator[StoreExporter]:
    made = StoreExporter(url, spool_dir=tmp_path / "spool")
    yield made
    made.shutdown(5.0)


def count(store: Store, table: str = "llm_call_telemetry") -> int:
    """How many rows a table has."""
    with store.reading() as connection:
        found: int = connection.execute(select(func.count()).select_from(metadata.tables[table])).scalar_one()
    return found


def test_a_batch_is_written_to_its_tables(exporter: StoreExporter) -> None:
    """Calls, runs, verdicts and denials of one batch are there when `export` returns."""
    exporter.export([llm_call(), task(), verdict(), denial(), llm_call()])
    tables = ("llm_call_telemetry", "agent_runs", "user_feedback", "policy_violations")
    assert [count(exporter.store, table) for table in tables] == [2, 1, 1, 1]


def test_a_call_is_written_once(exporter: StoreExporter) -> None:
    """An invocation exported again, in one batch or later, stays one row."""
    call = llm_call(cost=CENT)
    exporter.export([call, call])
    exporter.export([call, llm_call(cost=CENT)])
    found = get_stats((NOON - timedelta(hours=1), NOON + timedelta(hours=1)), store=exporter.store)
    assert (found.requests, found.cost_usd) == (2, 2 * CENT)


def test_a_call_that_is_written_stays_as_it_is(exporter: StoreExporter) -> None:
    """An invocation exported again with another cost keeps its first row."""
    call = llm_call(cost=CENT)
    exporter.export([call])
    exporter.export([call._replace(cost=Decimal(5))])
    found = get_stats((NOON - timedelta(hours=1), NOON + timedelta(hours=1)), store=exporter.store)
    assert (found.requests, found.cost_usd) == (1, CENT)


def test_a_batch_without_facts_is_no_transaction(exporter: StoreExporter) -> None:
    """A batch of which nothing is stored does not touch the database."""
    exporter.export([])
    assert count(exporter.store) == 0


def test_behind_its_worker_every_record_is_counted(exporter: StoreExporter) -> None:
    """Behind `Batched`, a flush returns when all is written, and the count of records is right."""
    counters = InternalCounters()
    batched = Batched(exporter, name="store", counters=counters)
    for _ in range(50):
        batched.export([llm_call() for _ in range(100)])
    assert batched.flush(30.0)
    counters.take()
    assert count(exporter.store) == 5_000
    assert counters.totals[RECORDS, ("store",)] == 5_000
    batched.shutdown(5.0)


def _fill(url: str, worker: int, spool: str) -> None:
    exporter = StoreExporter(url, spool_dir=spool)
    for start in range(0, 5_000, 250):
        exporter.export(
            [llm_call(invocation_id=f"{worker}-{start + n}", cost=CENT, agent=f"a{n % 3}") for n in range(250)]
        )
    exporter.shutdown(60.0)


def test_sixteen_processes_lose_and_double_nothing(store: Store, url: str, tmp_path: Path) -> None:
    """16 processes x 5,000 calls into one store: every count and every sum is exact."""
    codes = run_processes(_fill, *((url, number, str(tmp_path / "spool")) for number in range(16)))
    assert codes == [0] * 16
    found = get_stats((NOON - timedelta(hours=1), NOON + timedelta(hours=1)), store=store)
    assert found.requests == found.successes == 80_000
    assert found.cost_usd == 80_000 * CENT
    assert {name: stats.requests for name, stats in found.by_agent.items()} == {
        "a0": 16 * 20 * 84,
        "a1": 16 * 20 * 83,
        "a2": 16 * 20 * 83,
    }


def test_a_fork_writes_through_connections_of_its_own(exporter: StoreExporter) -> None:
    """A forked child writes, and the parent's connections and spool still work afterwards."""
    exporter.export([llm_call()])
    child = os.fork()
    if child == 0:
        try:
            exporter.export([llm_call(invocation_id="child")])
            exporter.flush(5.0)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    exporter.export([llm_call()])
    assert count(exporter.store) == 3


def test_a_clock_in_the_past_is_stored_as_it_was(exporter: StoreExporter) -> None:
    """A call from before the epoch, or from the far future, is a row like any other."""
    times = [datetime(1960, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
    exporter.export([llm_call(at) for at in times])
    with exporter.store.reading() as connection:
        found = connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one()
    assert found == 2
    assert get_stats((times[0] - timedelta(days=1), NOON), store=exporter.store).requests == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spool_max_bytes": 0}, "spool_max_bytes"),
        ({"aggregate_every_s": 0.1}, "aggregate_every_s"),
        ({"retention_days": -1}, "retention_days"),
        ({"retention_days": {"nothing": 1}}, "nothing"),
    ],
)
def test_a_wrong_option_is_refused_at_once(tmp_path: Path, options: dict[str, object], said: str) -> None:
    """Each option is checked when the exporter is made, before any file is."""
    with pytest.raises(ConfigurationError, match=said):
        StoreExporter(sqlite_url(tmp_path), **options)  # type: ignore[arg-type]  # wrong on purpose
    assert list(tmp_path.iterdir()) == []


# What a disk can do


def _drops(exporter: StoreExporter, batch: list[Invocation]) -> InternalCounters:
    counters = InternalCounters()
    batched = Batched(exporter, name="store", counters=counters)
    batched.export(batch)
    assert batched.flush(60.0)
    counters.take()
    return counters


def test_a_file_that_became_read_only_drops_and_counts(tmp_path: Path) -> None:
    """A batch that cannot be written is counted as dropped, raises a clear error, and affects no other exporter."""
    exporter = StoreExporter(sqlite_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as other:
        other.execute("PRAGMA user_version = 1")
    with exporter.store.engine.connect() as connection:  # the pool's one connection
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailableError, match="may not be written to"):
        exporter.export([llm_call()])
    counters = _drops(exporter, [llm_call(), llm_call()])
    assert counters.totals[EXPORT_ERRORS, ("store",)] == 1
    assert counters.totals[RECORDS_DROPPED, ("store", "export_failed")] == 2
    exporter.shutdown(1.0)


def test_a_full_disk_drops_the_batch_whole(tmp_path: Path) -> None:
    """When the file cannot grow, no part of the batch is in it; when there is room again, writing goes on."""
    exporter = StoreExporter(sqlite_url(tmp_path))
    exporter.export([llm_call()])
    with exporter.store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailableError, match="the disk is full"):
        exporter.export([llm_call() for _ in range(2_000)])
    assert count(exporter.store) == 1
    with exporter.store.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {10 * pages}")
    exporter.export([llm_call()])
    assert count(exporter.store) == 2
    exporter.shutdown(1.0)


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    """While another process holds the lock a batch waits, and is written when the lock goes."""
    exporter = StoreExporter(sqlite_url(tmp_path))
    other = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    worker = threading.Thread(target=exporter.export, args=([llm_call()],))
    worker.start()
    time.sleep(0.2)
    assert count(exporter.store) == 0
    other.execute("ROLLBACK")
    worker.join(30.0)
    assert count(exporter.store) == 1
    other.close()
    exporter.shutdown(1.0)


def test_a_lock_that_is_never_released_is_an_error(tmp_path: Path) -> None:
    """A lock held for longer than the timeout is an error that names the lock."""
    exporter = StoreExporter(sqlite_url(tmp_path))
    with exporter.store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="held its lock"):
        exporter.export([llm_call()])
    other.close()
    exporter.export([llm_call()])
    assert count(exporter.store) == 1
    exporter.shutdown(1.0)


# What a server can do


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that tests of this module may kill."""
    with postgres_server() as running:
        yield running


@pytest.mark.promise("store-once")
def test_a_server_that_is_killed_under_load_loses_and_doubles_nothing(mortal: Server, tmp_path: Path) -> None:
    """PostgreSQL is killed twice while four processes' worth of batches go in: each call is there once, in the end."""
    url = new_database(mortal)
    with store_at(url) as store:
        exporter = StoreExporter(url, spool_dir=tmp_path)
        batched = Batched(exporter, name="store", counters=(counters := InternalCounters()))

        def load() -> None:
            for start in range(0, 20_000, 100):
                batched.export([llm_call(invocation_id=str(start + n), cost=CENT) for n in range(100)])
                time.sleep(0.005)

        loader = threading.Thread(target=load)
        loader.start()
        for _ in range(2):
            time.sleep(0.4)
            mortal.kill()
            time.sleep(0.3)
            mortal.start()
        loader.join()
        assert batched.flush(60.0)
        counters.take()
        found = get_stats((NOON - timedelta(hours=1), NOON + timedelta(hours=1)), store=store)
        assert (found.requests, found.cost_usd) == (20_000, 20_000 * CENT)
        assert counters.totals[RECORDS, ("store",)] == 20_000
        batched.shutdown(5.0)
        assert list(tmp_path.iterdir()) == []


def test_an_application_starts_while_the_server_is_away(mortal: Server, tmp_path: Path) -> None:
    """Records wait on disk, survive the end of the process, and the next one writes them in order."""
    url = new_database(mortal)
    with store_at(url):
        pass
    mortal.stop()
    try:
        first = StoreExporter(url, spool_dir=tmp_path)
        for number in range(5):
            first.export([llm_call(invocation_id=f"call-{number}")])
        assert not first.flush(0.2)
        first.shutdown(0.1)
    finally:
        mortal.start()
    second = StoreExporter(url, spool_dir=tmp_path)
    second.export([llm_call(invocation_id="call-5")])
    deadline = time.monotonic() + 30.0
    while count(second.store) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count(second.store) == 6
    second.shutdown(5.0)
    assert list(tmp_path.iterdir()) == []


def test_rows_wait_for_the_tables_of_a_server_that_was_away(mortal: Server, tmp_path: Path) -> None:
    """A server that comes back with a store of another version gets nothing written; rows wait for the right one."""
    url = new_database(mortal)
    with store_at(url) as store:
        mortal.stop()
        try:
            exporter = StoreExporter(url, spool_dir=tmp_path)
        finally:
            mortal.start()
        _set_version(store, "9999")
        exporter.export([llm_call()])
        assert not exporter.flush(0.3)
        _set_version(store, REVISIONS[-1])
        assert exporter.flush(30.0)
        assert count(store) == 1
        exporter.shutdown(5.0)


def _set_version(store: Store, version: str) -> None:
    with store.writing() as connection:
        update = text("UPDATE taskpilot_obs_version SET version_num = :version, min_code = :version")
        connection.execute(update, {"version": version})


def test_records_that_are_refused_later_count_as_dropped(mortal: Server, tmp_path: Path) -> None:
    """What waits on disk counts as written once it is in the store, and as dropped where the database refuses it."""
    url = new_database(mortal)
    counters = InternalCounters()
    with store_at(url) as store:
        mortal.stop()
        try:
            batched = Batched(StoreExporter(url, spool_dir=tmp_path), name="store", counters=counters)
            for calls in ([llm_call(), llm_call()], [llm_call(status="refused")] * 3):
                batched.export(calls)
                assert not batched.flush(0.3)
            counters.take()
            assert counters.totals[RECORDS, ("store",)] == 0
        finally:
            mortal.start()
        with store.writing() as connection:
            check = "ALTER TABLE llm_call_telemetry ADD CONSTRAINT no_refused CHECK (status <> 'refused')"
            connection.execute(text(check))
        assert batched.flush(30.0)
        counters.take()
        assert count(store) == 2
    assert counters.totals[RECORDS, ("store",)] == 2
    assert counters.totals[RECORDS_DROPPED, ("store", "export_failed")] == 3
    batched.shutdown(5.0)


def test_what_waits_when_the_process_ends_is_kept_and_counts_as_written(mortal: Server, tmp_path: Path) -> None:
    """A shutdown while the server is away leaves accounts that add up: what the disk keeps was not dropped."""
    url = new_database(mortal)
    counters = InternalCounters()
    with store_at(url):
        pass
    mortal.stop()
    try:
        batched = Batched(StoreExporter(url, spool_dir=tmp_path), name="store", counters=counters)
        batched.export([llm_call()] * 4)
        assert not batched.flush(0.3)
        batched.shutdown(10.0)
    finally:
        mortal.start()
    counters.take()
    assert counters.totals[RECORDS, ("store",)] == 4
    assert not any(amount for (metric, _), amount in counters.totals.items() if metric is RECORDS_DROPPED)


def test_a_full_spool_drops_and_counts(mortal: Server, tmp_path: Path) -> None:
    """While the server is away, what the spool cannot take is an error that is counted; the rest waits."""
    url = new_database(mortal)
    with store_at(url):
        pass
    mortal.stop()
    try:
        exporter = StoreExporter(url, spool_dir=tmp_path, spool_max_bytes=4_000)
        exporter.export([llm_call()])
        with pytest.raises(StoreError, match="is full"):
            exporter.export([llm_call() for _ in range(50)])
    finally:
        mortal.start()
    assert exporter.flush(30.0)
    assert count(exporter.store) == 1
    exporter.shutdown(1.0)


def test_a_line_that_is_damaged_is_lost_and_counted(store: Store, url: str, tmp_path: Path) -> None:
    """What a disk spoilt while it waited is skipped, counted and logged; all else is written."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1-dead.jsonl").write_text("spoilt\n")
    exporter = StoreExporter(url, spool_dir=tmp_path / "spool")
    exporter.export([llm_call()])
    deadline = time.monotonic() + 30.0
    while not store.is_sqlite and not exporter.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    exporter.shutdown(5.0)
    assert exporter.lost == (0 if store.is_sqlite else 1)
    assert count(store) == 1


def test_configure_takes_the_url_of_a_store(tmp_path: Path) -> None:
    """`configure(store=…)` keeps runs in the store, and statistics and golden signals read them from there."""
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url, store_aggregate_every_s=3600, store_retention_days=30) as recorder:
        with track_workflow("w"), track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=150, output_tokens=50)
        assert recorder.flush()
        assert get_stats("1h", store=url).requests == 1
        assert golden_signals("1h", store=url).success_rate == 100
