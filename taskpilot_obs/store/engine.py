"""Opening a store: one file of SQLite, or a PostgreSQL database; the same tables, and one version."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from taskpilot_obs.exceptions import (
    ConfigurationError,
    MissingExtraError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
)
from taskpilot_obs.store.failures import BUSY_TIMEOUT_S, explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

REVISIONS: Final = ("0001", "0002", "0003")
"""Every version of the tables that this code knows, oldest first."""
_DRIVERS: Final = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+psycopg": "postgresql",
}
_UPGRADE_LOCK: Final = 7_465_706_421
"""Names the advisory lock under which PostgreSQL's tables are upgraded."""
_WAL_RETRY_S: Final = 0.02
_SETTINGS: Final = {
    "synchronous": "NORMAL",  # with a write-ahead log, a loss of power costs the last transactions and no more
    "cache_size": -32_768,  # KiB: random identifiers touch many pages of an index in each batch
    "wal_autocheckpoint": 8_000,  # pages: the same pages change in every batch, and are copied back less often
}
_inherited: Final[list[Pool]] = []
"""Keeps a parent's connections from the garbage collector, which would close them: SQLite must not be closed there."""
_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "application_name": "taskpilot-obs",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class Store:
    """A telemetry store: where it is, and how to read and write it. Threads may share one; a fork must renew it.

    Args:
        url: `sqlite:///telemetry.db` or `postgresql+psycopg://user:password@host/database`.
        create: make and upgrade the file of a SQLite store; without, one that is missing is an error.

    Raises:
        ConfigurationError: the URL names no file, or a database that is not supported.
        MissingExtraError: the driver of the database is not installed.
        StoreVersionError: a newer version wrote the store.
        StoreError: the file is missing, unreadable or no database.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.is_current = False
        """Whether its tables were seen to be of this code's version."""
        if self.is_sqlite and not create and not Path(str(self.url.database)).exists():
            raise StoreError(
                f"there is no telemetry store at {self}: nothing was written to it yet, or the path is wrong"
            )
        self._closed = False
        self._process = os.getpid()
        self.engine = _sqlite(self.url) if self.is_sqlite else _postgresql(self.url)
        event.listen(self.engine, "checkin", self._returned)
        if self.is_sqlite:
            self._prepare()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _prepare(self) -> None:
        """SQLite is created and upgraded by itself; the first process does it, others wait."""
        try:
            _create_file(Path(str(self.url.database)))
            self.is_current = self.version() == REVISIONS[-1]
            if not self.is_current:
                self._use_wal()
                upgrade(self)
        except OSError as error:
            self.close()
            raise StoreError(f"the telemetry store {self} cannot be created: {error}") from error
        except StoreError:
            self.close()
            raise

    def _use_wal(self) -> None:
        """Let readers and one writer work side by side. Every process that comes at the same moment tries."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                with self._mapped(), closing(self.engine.raw_connection()) as connection:
                    connection.cursor().execute("PRAGMA journal_mode=WAL")
                    return
            except StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_RETRY_S)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            raise explained(error, str(self)) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the store as it is at its first query, however long it reads.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        with self._mapped(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(  # noqa: PLW2901  SQLAlchemy's way to set them
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in one transaction that is committed at the end; on SQLite the only one that writes.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        with self._mapped(), self.engine.connect() as connection:
            connection.execution_options(taskpilot_obs_immediate=True)
            with connection.begin():
                yield connection

    def version(self) -> str | None:
        """The version of the tables; None for a database without them.

        Raises:
            StoreVersionError: a newer version of the library wrote it.
        """
        with self.reading() as connection:
            found = _version(connection)
        if found is not None and found not in REVISIONS:
            raise StoreVersionError(
                f"the telemetry store {self} has version {found!r}, this code knows up to {REVISIONS[-1]!r}: "
                "upgrade taskpilot-obs to the version that wrote it, or give another store"
            )
        return found

    def require_current(self) -> None:
        """Refuse a store whose tables are missing, older or newer than this code.

        Raises:
            StoreVersionError: with what to do.
        """
        found = self.version()
        self.is_current = found == REVISIONS[-1]
        if not self.is_current:
            state = (
                "has no tables yet" if found is None else f"has version {found!r}, this code needs {REVISIONS[-1]!r}"
            )
            raise StoreVersionError(
                f"the telemetry store {self} {state}: run `taskpilot-obs db upgrade --store URL` once"
            )

    def renew(self) -> None:
        """In a forked child, leave alone the connections that a parent process opened; it goes on using them."""
        if self._process == os.getpid():  # another that uses this store has done so
            return
        self._process = os.getpid()
        self._closed = False
        _inherited.append(self.engine.pool)
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every connection that nobody uses, and each of the others as soon as its user is done with it."""
        self.renew()
        self._closed = True
        self.engine.dispose()

    def _returned(self, _: object, entry: ConnectionPoolEntry) -> None:
        """The pool that it comes back to is given up by then, and would leave it to the garbage collector."""
        if self._closed:
            entry.close()


def upgrade(store: Store) -> None:
    """Bring the tables to the version of this code; harmless where they have it, and from several processes at once.

    Raises:
        StoreVersionError: they are newer.
        StoreError: the database failed, or does not allow it.
    """
    from alembic import command

    with store.writing() as connection:
        if not store.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
        found = _version(connection)
        if found != REVISIONS[-1] and (found is None or found in REVISIONS):
            command.upgrade(_alembic(connection), "head")
    store.require_current()


def differences(store: Store) -> list[str]:
    """What differs between the tables in the database and those that this code expects; empty is right."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from taskpilot_obs.store.tables import SQLITE_SUMS, metadata

    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": _is_ours, "compare_type": False})
        found = compare_metadata(context, metadata)
    # An index of SQLite's alone is no lack of PostgreSQL's.
    return [str(difference) for difference in found if store.is_sqlite or SQLITE_SUMS not in str(difference)]


def _is_ours(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:  # noqa: FBT001  Alembic's signature
    """Leave out other people's tables, and the column that the database works out for readers."""
    from taskpilot_obs.store.tables import metadata

    if not reflected or compare_to is not None:
        return True
    return name in metadata.tables if kind == "table" else name != "cost" and item.table.name in metadata.tables


def _alembic(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            "store: given something that is no URL; allowed are sqlite:///FILE and "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from error
    backend = _DRIVERS.get(parsed.drivername)
    if backend is None:
        raise ConfigurationError(
            f"store: given {parsed.drivername}://…; allowed are sqlite:///FILE and "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        )
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigurationError("store: a SQLite store needs the path of a file, as in sqlite:///telemetry.db")
    return parsed


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver's own transactions would begin too late to read a snapshot
        for setting, value in _SETTINGS.items():
            connection.execute(f"PRAGMA {setting}={value}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("taskpilot_obs_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    arguments = {name: value for name, value in _CONNECT.items() if name not in url.query}
    try:
        return create_engine(
            url, pool_size=2, max_overflow=6, pool_pre_ping=True, hide_parameters=True, connect_args=arguments
        )
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtraError("a telemetry store on PostgreSQL", "postgres") from error


def _create_file(path: Path) -> None:
    """With rights for its owner only; SQLite gives its journals the rights of the file. One that is there stays."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
