"""What a database says when it fails, in words and without the rows that it was given."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from taskpilot_obs.exceptions import StoreError, StoreUnavailableError

BUSY_TIMEOUT_S: Final = 30.0
"""How long a writer waits for another process that writes to the same SQLite file."""
_SQLITE_CAUSES: Final = (
    (sqlite3.SQLITE_BUSY, f"another process has held its lock for over {BUSY_TIMEOUT_S:.0f} s"),
    (sqlite3.SQLITE_LOCKED, f"another process has held its lock for over {BUSY_TIMEOUT_S:.0f} s"),
    (sqlite3.SQLITE_FULL, "the disk is full"),
    (sqlite3.SQLITE_READONLY, "its file or folder may not be written to"),
    (sqlite3.SQLITE_CANTOPEN, "its file cannot be opened: look at the folder and its rights"),
    (sqlite3.SQLITE_IOERR, "the disk failed, or is full"),
    (sqlite3.SQLITE_NOTADB, "its file is no SQLite database: move it away, and a new one is made"),
    (sqlite3.SQLITE_CORRUPT, "its file is damaged: restore a backup or move it away, and a new one is made"),
)
_LIMIT_EXCEEDED: Final = "54"
"""The class of PostgreSQL's codes for what is too large for it, as a value for an index: no second try makes it fit."""
_BROKEN: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


def explained(error: Exception, store: str) -> StoreError:
    """A database's failure in words, without the rows that it was given."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return _explained_sqlite(original, store)
    kinds = {kind.__name__ for kind in type(original).__mro__}  # of a driver that may not be installed
    state = getattr(original, "sqlstate", None)
    too_much = state is not None and state.startswith(_LIMIT_EXCEEDED)
    if kinds & {"DataError", "IntegrityError"} or too_much or isinstance(original, SQLAlchemyError):
        return StoreError(f"the telemetry store {store} refused a statement: {type(original).__name__}")
    reason = state or type(original).__name__
    return StoreUnavailableError(f"the telemetry store {store} does not answer, or refuses ({reason})")


def _explained_sqlite(error: sqlite3.Error, store: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    for cause, words in _SQLITE_CAUSES:
        if code == cause:
            kind = StoreError if code in _BROKEN else StoreUnavailableError
            return kind(f"the telemetry store {store} cannot be used: {words}")
    return StoreError(f"the telemetry store {store} refused a statement: {type(error).__name__}")
