"""Opening a store: one file of SQLite, or a PostgreSQL database, with one set of tables and one version."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.exceptions import StoreError, StoreUnavailableError, StoreVersionError
from taskpilot_obs.store import on_clickhouse, on_postgresql, on_sqlite
from taskpilot_obs.store.failures import explained
from taskpilot_obs.store.urls import parsed
from taskpilot_obs.store.versions import (
    OLDEST_USABLE,
    REVISIONS,
    Version,
    read_version,
    refuse_newer,
    upgrade,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from taskpilot_obs.store.urls import StoreUrl


def _make_engine(target: StoreUrl) -> Engine:
    if target.is_sqlite:
        return on_sqlite.make_engine(target)
    if target.is_clickhouse:
        return on_clickhouse.make_engine(target)
    return on_postgresql.make_engine(target)


_inherited: Final[list[Pool]] = []
"""Keeps a parent's connections from the garbage collector, which would close them: SQLite must not be closed there."""


class Store:
    """A telemetry store: where it is, and how to read and write it. Threads may share one; a fork must renew it.

    Args:
        url: `sqlite:///telemetry.db` or `postgresql+psycopg://user:password@host/database`. Options follow a `?`:
            `mode=ro` for SQLite; for PostgreSQL those of libpq, `schema=` and `prepared_statements=off`. Or
            `clickhouse://user:password@host:8443/database?secure=1`.
        create: make and upgrade the file of a SQLite store; without, a missing file is an error and no file is changed.

    Raises:
        ConfigurationError: the URL names no file, another database, or an option that has no effect.
        MissingExtraError: the driver of the database is not installed.
        StoreVersionError: a newer version wrote the store.
        StoreError: the file is missing, unreadable or no database.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.target = parsed(url)
        self.url = self.target.url
        self.is_sqlite = self.target.is_sqlite
        self.is_clickhouse = self.target.is_clickhouse
        self.generation = 0
        """Grows when the file of a SQLite store was replaced: what was learned from the file before is void."""
        self._version: str | None = None
        self._create = create and not self.target.read_only
        self._closed = False
        self._process = os.getpid()
        self._path = Path(str(self.url.database)).absolute()
        if self.is_sqlite and not self._create and not self._path.exists():
            raise StoreError(
                f"there is no telemetry store at {self}: nothing was written to it yet, or the path is wrong"
            )
        self.engine = _make_engine(self.target)
        event.listen(self.engine, "checkin", self._returned)
        self._file: on_sqlite.FileIdentity | None = None
        if self.is_sqlite:
            self._prepare()

    def __str__(self) -> str:
        return self.target.name

    def _prepare(self) -> None:
        """SQLite is created and upgraded by itself; the first process does it, others wait."""
        try:
            if self._create:
                on_sqlite.create_file(self._path)
            self._file = on_sqlite.identity_of(self._path)
            if self.version() != REVISIONS[-1] and self._create and not self.is_current:
                on_sqlite.use_wal(self)
                upgrade(self)
        except OSError as error:
            self.close()
            raise StoreError(f"the telemetry store {self} cannot be created: {reason_of(error)}") from error
        except StoreError:
            self.close()
            raise

    def _follow_file(self) -> None:
        """Notice that another file took the place of a SQLite store: writes to the old one would be lost.

        Raises:
            StoreUnavailableError: the file is gone, and this store may not make one.
        """
        if self._file is None or (found := on_sqlite.identity_of(self._path)) == self._file:
            return
        if found is None and not self._create:
            raise StoreUnavailableError(f"the file of the telemetry store {self} is gone")
        self._file = None  # preparing it reads and writes, and must not come here again
        self._version = None
        self.generation += 1
        with self._held_from_forks():
            self.engine.dispose()
        self._prepare()

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn a failure of the database into an error of the store.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        try:
            with self._held_from_forks():
                yield
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            raise explained(error, str(self)) from error

    def _held_from_forks(self) -> AbstractContextManager[None]:
        return on_sqlite.SQLITE.inside() if self.is_sqlite else nullcontext()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the store as it is at its first query, however long it reads; on ClickHouse, at each.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        self._follow_file()
        with self.mapped(), self.engine.connect() as connection:
            if not (self.is_sqlite or self.is_clickhouse):
                connection = connection.execution_options(  # noqa: PLW2901  SQLAlchemy's way to set them
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in one transaction that is committed at the end; on SQLite the only one that writes.

        ClickHouse has no transactions: what is written there stays, whatever fails after it.

        Raises:
            StoreError: the database failed, or the URL says `mode=ro`; `StoreUnavailableError` where it may work later.
        """
        if self.target.read_only:
            raise StoreError(f"the telemetry store {self} was opened with mode=ro: it can be read, and not written")
        self._follow_file()
        with self.mapped(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.execution_options(taskpilot_obs_immediate=True)
            elif not self.is_clickhouse:  # whatever the role's defaults are
                connection.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=False)
            with connection.begin():
                yield connection

    @property
    def may_fail_over(self) -> bool:
        """Whether a server that lacks the latest transactions may take over: a file that is replaced is noticed."""
        return not self.is_sqlite

    # --- version -----------------------------------------------------------------------------------------------------

    @property
    def is_current(self) -> bool:
        """Whether the tables were seen to be those of this code's version, or of a newer one that it may use."""
        return self._version == REVISIONS[-1]

    @property
    def is_usable(self) -> bool:
        """Whether the tables were seen to be of a version that this code reads and writes."""
        return self._version is not None

    @property
    def known_version(self) -> str:
        """As which version this code uses the tables; looked up where it is not known yet.

        Raises:
            StoreVersionError: it can use them as none.
        """
        if self._version is None:
            self.require_usable()
        return self._version or REVISIONS[-1]

    def forget_version(self) -> None:
        """Look the version up again at the next use."""
        self._version = None

    def version(self) -> str | None:
        """The version of the tables; None for a database without them.

        Raises:
            StoreVersionError: a newer version of the library wrote it, and does not allow this one.
        """
        found = self._find_version()
        return None if found is None else found.number

    def _find_version(self) -> Version | None:
        with self.reading() as connection:
            found = read_version(connection, self.target.schema)
        self._version = None if found is None else found.usable_as
        refuse_newer(found, str(self))
        return found

    def require_usable(self) -> None:
        """Refuse a store that this code can neither read nor write: its tables are missing, too old or too new.

        Raises:
            StoreVersionError: with what to do.
        """
        self._require(OLDEST_USABLE)

    def require_current(self) -> None:
        """Refuse a store whose tables are missing, older than this code, or too new for it.

        Raises:
            StoreVersionError: with what to do.
        """
        self._require(REVISIONS[-1])

    def _require(self, oldest: str) -> None:
        found = self._find_version()
        if found is None or self._version is None or self._version < oldest:
            state = "has no tables yet" if found is None else f"has version {found.number!r}, this needs {oldest!r}"
            raise StoreVersionError(
                f"the telemetry store {self} {state}: run `taskpilot-obs db upgrade --store URL` once"
            )

    # --- life --------------------------------------------------------------------------------------------------------

    def renew(self) -> None:
        """In a forked child, leave alone the connections that a parent process opened; it goes on using them."""
        if self._process == os.getpid():  # another that uses this store has done so
            return
        self._process = os.getpid()
        self._closed = False
        _inherited.append(self.engine.pool)
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every connection that is not in use, and each of the others as soon as its user is done with it."""
        self.renew()
        self._closed = True
        with self._held_from_forks():
            self.engine.dispose()

    def _returned(self, _: object, entry: ConnectionPoolEntry) -> None:
        """The pool that it comes back to is given up by then, and would leave it to the garbage collector."""
        if self._closed:
            entry.close()
