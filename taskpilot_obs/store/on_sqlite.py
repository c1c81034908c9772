"""What is particular to a store in a file of SQLite: settings, the write-ahead log, and a file that is replaced."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine, event

from taskpilot_obs._support.fork import ForkGate
from taskpilot_obs.exceptions import StoreUnavailableError
from taskpilot_obs.store.failures import BUSY_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from taskpilot_obs.store.opened import OpenStore
    from taskpilot_obs.store.urls import StoreUrl

_WAL_RETRY_S: Final = 0.02
PAGES: Final = 8_000
"""After how many pages the journal is written back: the same pages change in every batch, and are copied less often."""
PAGES_OF_ERASURE: Final = 1_000
_CACHE_KIB: Final = 32_768
"""Random identifiers touch many pages of an index in each batch that is written."""
_SORT_KIB: Final = 4_096
_SETTINGS: Final = {
    "synchronous": "NORMAL",  # with a write-ahead log, a loss of power costs the last transactions and no more
    "cache_size": -_CACHE_KIB,
    "wal_autocheckpoint": PAGES,
}
SQLITE: Final = ForkGate()
"""Entered by whatever uses SQLite, so that a forked child does not find one of its locks taken."""
FileIdentity = tuple[int, int]
"""Device and inode: what tells a file from another one at the same path."""


def make_engine(target: StoreUrl) -> Engine:
    """An engine whose connections begin their transactions by themselves, and write only where the URL allows it."""
    path = Path(str(target.url.database)).absolute()
    place = f"file:{quote(str(path))}?mode={'ro' if target.read_only else 'rw'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(place, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

    engine = create_engine(target.url, creator=connect, hide_parameters=True)

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


@contextmanager
def sorting_in_small_runs(connection: Connection) -> Iterator[None]:
    """Let SQLite sort a million rows a quarter faster: it sorts runs of its cache's size, and merges them.

    Runs of 4 MiB stay in the processor's cache; those of 32 MiB do not. Other databases are left alone.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql(f"PRAGMA cache_size=-{_SORT_KIB}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size=-{_CACHE_KIB}")


def create_file(path: Path) -> None:
    """Make the file with rights for its owner only; SQLite gives its journals the rights of the file."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def identity_of(path: Path) -> FileIdentity | None:
    """Which file is at this path; None for none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def use_wal(store: OpenStore) -> None:
    """Let readers and one writer work side by side. Every process that opens the file at the same moment tries.

    Raises:
        StoreUnavailableError: another process has held the file for longer than a writer waits.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with store.mapped(), closing(store.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
                return
        except StoreUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_S)


def scrub(store: OpenStore) -> None:
    """Write deleted rows out of the journal, so that their bytes are gone from the disk; another reader may keep some.

    Raises:
        StoreError: the database failed.
    """
    with store.mapped(), closing(store.engine.raw_connection()) as connection:
        cursor: Any = connection.cursor()
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # most of it, while writers go on
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
