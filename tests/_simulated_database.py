"""A database server that is away, slow, loses its answer to a commit, or fails over to a replica that lags.

It is a file of SQLite in memory. The library's statements pass through SQLAlchemy's dialect, where this stands; writers
take turns in simulated time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from _simulated_threads import Lock, scheduler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

from taskpilot_obs.store import Store, engine

PATIENCE_S: Final = 30.0
STATEMENTS: Final[dict[Any, Any]] = {}
"""Compiled statements, for the engines of all processes and runs: compiling takes longer than running them."""


def unavailable(why: str) -> sqlite3.OperationalError:
    """What a driver raises where the server cannot be reached."""
    error = sqlite3.OperationalError(f"simulated: {why}")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


class Database:
    """The server at the moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_away = False
        self.slow_ns = 0
        self.loses_answers = 0.0
        self.lost_answers = 0
        self._writing = Lock()
        self._writer: Any = None
        self._broken: set[Any] = set()
        self._replica: bytes | None = None
        self._reader: sqlite3.Connection | None = None

    def ask(self, statement: str) -> list[Any]:
        """What is committed, for who looks on from outside."""
        if self._reader is None:
            self._reader = sqlite3.connect(self.path)
        return self._reader.execute(statement).fetchall()

    def close(self) -> None:
        """Look on no more."""
        if self._reader is not None:
            self._reader.close()

    def begin(self, connection: Any) -> None:
        """Wait for the turn to write."""
        if not self._writing.acquire(timeout=PATIENCE_S):
            raise unavailable("another session has held its lock for too long")
        self._writer = connection

    def check(self, connection: Any, what: str) -> None:
        """Whether a statement reaches the server.

        Raises:
            sqlite3.OperationalError: it does not.
        """
        run = scheduler()
        run.step(what)
        if self.slow_ns and run.current is not None and run.random.random() < 0.2:
            run.sleep(int(run.random.random() * self.slow_ns))
        if self.is_away or connection in self._broken:
            self._broken.discard(connection)
            raise unavailable("the server is away")

    def ended(self, connection: Any) -> None:
        """A transaction is over."""
        if connection is self._writer:
            self._writer = None
            self._writing.release()

    def commit(self, real: Any, dialect: Any, proxied: Any) -> None:
        """Commit, and maybe lose the answer."""
        connection = getattr(proxied, "dbapi_connection", proxied)
        self.check(connection, "commit")
        real(dialect, proxied)
        is_writer = connection is self._writer
        self.ended(connection)
        if is_writer and scheduler().random.random() < self.loses_answers:
            self.lost_answers += 1
            raise unavailable("the answer to a commit is lost")

    # --- failover ----------------------------------------------------------------------------------------------------

    def replica_stops(self) -> None:
        """From now on the replica lags."""
        with closing(sqlite3.connect(self.path)) as connection:
            copy = bytearray(connection.serialize())
        copy[18:20] = b"\1\1"  # a database in memory has no write-ahead log
        self._replica = bytes(copy)

    def fail_over(self) -> None:
        """The replica becomes the server: what was committed since it stopped following is gone."""
        if self._replica is None:
            return
        if self._writer is not None:
            broken = self._writer
            broken.rollback()
            self.ended(broken)
            self._broken.add(broken)
        with closing(sqlite3.connect(":memory:")) as old, closing(sqlite3.connect(self.path, timeout=0)) as live:
            old.deserialize(self._replica)
            old.backup(live)
        self._replica = None


@contextmanager
def served(database: Database) -> Iterator[None]:
    """While the block runs, statements of simulated threads go to this server."""
    real: Any = DefaultDialect
    execute, many, commit, rollback = real.do_execute, real.do_executemany, real.do_commit, real.do_rollback
    close = real.do_close

    def before(cursor: Any, statement: str) -> None:
        if scheduler().current is not None:
            database.check(cursor.connection, "execute")
            if statement == "BEGIN IMMEDIATE":
                database.begin(cursor.connection)

    def do_execute(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        before(cursor, statement)
        execute(self, cursor, statement, parameters, context)

    def do_executemany(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        before(cursor, statement)
        many(self, cursor, statement, parameters, context)

    def do_commit(self: Any, connection: Any) -> None:
        database.commit(commit, self, connection)

    def do_rollback(self: Any, connection: Any) -> None:
        rollback(self, connection)
        database.ended(getattr(connection, "dbapi_connection", connection))

    def do_close(self: Any, connection: Any) -> None:
        """SQLAlchemy closes, and does not roll back, where a thread died within a statement."""
        close(self, connection)
        database.ended(connection)

    with pytest.MonkeyPatch.context() as patch:
        for replaced in (do_execute, do_executemany, do_commit, do_rollback, do_close):
            patch.setattr(DefaultDialect, replaced.__name__, replaced)
        patch.setattr(DefaultDialect, "do_terminate", do_close)
        patch.setattr(Store, "may_fail_over", True)  # this file stands for a server
        yield


@contextmanager
def compiled_once() -> Iterator[None]:
    """While the block runs, all engines share the statements that they compiled."""
    real: Any = engine._make_engine

    def make(target: Any) -> Any:
        made = real(target)
        made.update_execution_options(compiled_cache=STATEMENTS)
        return made

    def equal(self: Any, other: object) -> bool:
        return type(self) is type(other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_make_engine", make)
        patch.setattr(SQLiteDialect_pysqlite, "__eq__", equal)  # the key of a compiled statement has its dialect
        patch.setattr(SQLiteDialect_pysqlite, "__hash__", lambda _self: 1)
        yield
