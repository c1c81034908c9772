"""What a store opened is closed: also where it is shut down in the midst of its work, or made for nothing."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from _postgres import Server
from _stored import llm_call, new_database, sqlite_url, store_at
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from taskpilot_obs._support import fork
from taskpilot_obs._telemetry.stores import filled
from taskpilot_obs.budgets import Budget
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError, StoreVersionError
from taskpilot_obs.settings import Options
from taskpilot_obs.store import Store, StoreExporter

WITHIN_S = 30.0
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
TEAM = Budget("team", limit_usd=1)


@pytest.fixture
def connections() -> Iterator[list[Any]]:
    """Every connection that is opened meanwhile."""
    made: list[Any] = []

    def note(connection: Any, _entry: object) -> None:
        made.append(connection)

    event.listen(Pool, "connect", note)
    yield made
    event.remove(Pool, "connect", note)


def still_open(connections: list[Any]) -> list[Any]:
    """The connections that were not closed."""
    return [each for each in connections if not _is_closed(each)]


def _is_closed(connection: Any) -> bool:
    if not isinstance(connection, sqlite3.Connection):
        return bool(connection.closed)
    try:
        assert connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return True
    return False


def test_a_reader_that_is_at_work_when_its_store_is_closed_closes_its_connection(
    url: str, connections: list[Any]
) -> None:
    """It reads to the end; nothing is left to the garbage collector then, nor by those who come later."""
    with store_at(url) as store:
        with store.reading() as reading:
            store.close()
            assert reading.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 0
            assert len(still_open(connections)) == 1
        assert still_open(connections) == []
        assert store.version() is not None
        assert still_open(connections) == []


def _in_a_child(act: Callable[[], object]) -> list[str]:
    """What a forked child that does this is warned of, or fails with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said: list[object] = []
        try:
            sys.unraisablehook = lambda raised: said.append(raised.exc_value)
            act()
            gc.collect()
        except BaseException as error:
            said.append(error)
        os.write(writer, "\n".join(map(repr, said)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as heard:
        found = heard.read().splitlines()
    os.waitpid(child, 0)
    return found


@forks
def test_no_child_inherits_a_lock_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are forked while threads of the parent read and open files can open the store, each of them."""
    monkeypatch.setattr(fork, "_PATIENCE_S", 60.0)  # a loaded machine may leave a thread inside for over a second
    with store_at(sqlite_url(tmp_path)) as store:
        over = threading.Event()

        def read_and_open() -> None:
            while not over.is_set():
                with closing(Store(sqlite_url(tmp_path))) as other:
                    other.version()

        threads = [threading.Thread(target=read_and_open) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert [_in_a_child(lambda: signal.alarm(20) or store.version()) for _ in range(12)] == [[]] * 12
        finally:
            over.set()
            for thread in threads:
                thread.join()


@forks
def test_a_child_leaves_the_connections_of_its_parent_alone(store: Store) -> None:
    """The parent's connections are not closed by the child's use of the store or by the garbage collector."""
    store.version()

    def use() -> None:
        for _ in range(2):  # an exporter and a ledger may share a store
            store.renew()
            store.version()

    assert _in_a_child(use) == []
    assert store.version() is not None


@forks
def test_a_child_that_closes_its_store_cuts_off_nobody(url: str, connections: list[Any]) -> None:
    """A child that ends without having used the store does not end its parent's session with the server."""
    with store_at(url) as store:
        store.version()
        kept = still_open(connections)
        assert len(kept) == 1

        def end() -> None:
            store.close()
            assert still_open(connections) == kept

        assert _in_a_child(end) == []
        assert store.version() is not None
        assert still_open(connections) == kept


@forks
def test_a_child_of_a_process_that_closed_its_store_begins_anew(url: str, connections: list[Any]) -> None:
    """It keeps a connection for the next batch, whatever its parent did."""
    with store_at(url) as store:
        store.close()

        def use() -> None:
            store.renew()
            assert store.version() == store.version()
            assert len(still_open(connections)) == 1
            store.close()

        assert _in_a_child(use) == []


def test_a_shutdown_that_waits_no_longer_leaves_nothing_open(
    store: Store, url: str, tmp_path: Path, connections: list[Any]
) -> None:
    """The batch that was being written closes up behind itself, once the lock that it waits for goes."""
    exporter = StoreExporter(url, spool_dir=tmp_path / "spool")
    worker = threading.Thread(target=exporter.export, args=([llm_call()],))
    with store.writing() as connection:
        if not store.is_sqlite:
            connection.execute(text("LOCK TABLE llm_call_telemetry"))
        worker.start()
        deadline = time.monotonic() + WITHIN_S
        pool: Any = exporter.store.engine.pool
        while not pool.checkedout():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        exporter.shutdown(0.0)
        assert len(still_open(connections)) == 1
    worker.join(WITHIN_S)
    assert not worker.is_alive()
    assert still_open(connections) == []
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"budgets": [3]},
        {"budgets": [TEAM, Budget("team", limit_usd=2)]},
        {"budgets": [TEAM], "policies": [3]},
        {"store_aggregate_every_s": 0.1},
    ],
    ids=["no budget", "two of a name", "no policy", "too often"],
)
def test_a_configuration_that_is_refused_leaves_nothing_open(
    tmp_path: Path, connections: list[Any], wrong: dict[str, Any]
) -> None:
    """Neither the store, nor the one of its budgets, nor the audit log; no query goes to a missing store."""
    log = tmp_path / "audit.jsonl"
    options = Options(store=sqlite_url(tmp_path), audit_log=log)
    with pytest.raises(ConfigurationError):
        build_recorder(**{**options, **wrong})
    assert still_open(connections) == []
    assert list(filled) == []
    recorder = build_recorder(audit_log=log)
    recorder.record_llm_call(model="gpt-4o", cost="0.1")
    assert recorder.shutdown()
    assert [path.name for path in tmp_path.glob("audit*.jsonl")] == ["audit.jsonl"]  # its lock was free


def test_budgets_that_need_newer_tables_leave_nothing_open(server: Server, connections: list[Any]) -> None:
    """A server whose tables are missing is asked, and let go."""
    with pytest.raises(StoreVersionError, match="taskpilot-obs db upgrade"):
        build_recorder(budget_store=new_database(server), budgets=[TEAM])
    assert still_open(connections) == []
