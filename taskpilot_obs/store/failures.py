"""What a database says when it fails, in words and without the rows that it was given."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
    (sqlite3.SQLITE_NOTADB, "its file is not a SQLite database: move it away, and a new one is made"),
    (sqlite3.SQLITE_CORRUPT, "its file is damaged: restore a backup or move it away, and a new one is made"),
)
_LIMIT_EXCEEDED: Final = "54"
"""The class of PostgreSQL's codes for what is too large for it, as a value for an index: no second try makes it fit."""
_STATES: Final = {
    "28P01": "the password is wrong",
    "28000": "the server does not let this user in",
    "3D000": "the server has no such database",
    "53300": "the server has no connection left",
    "55P03": "another session has held a lock for too long",
    "57014": "a statement took longer than the server allows",
    "57P03": "the server is starting or stopping",
    "25006": "the server, or this user, may only read",
    "42P01": "a table is missing: run `taskpilot-obs db check`",
    "0A000": "a pooler or the server lacks a feature",
}
_CLICKHOUSE_CAUSES: Final = {
    60: "a table is missing: run `taskpilot-obs db check`",
    81: "the server has no such database",
    159: "a statement took longer than the server allows",
    164: "this user may only read",
    192: "the server has no such user",
    193: "the password is wrong",
    202: "the server answers too many queries",
    241: "the server lacks memory",
    252: "the server has too many parts to merge: write larger batches",
    497: "a right is missing (docs/clickhouse.md lists the rights that each user needs)",
    516: "the user or the password is wrong",
}
_CLICKHOUSE_REFUSALS: Final = frozenset({6, 26, 27, 38, 41, 43, 46, 47, 48, 53, 62, 69, 70, 72, 117, 130, 131, 349})
"""Codes for a statement or a row that the server cannot take: no second try makes it fit."""
_NO_RIGHT: Final = "42501"
_CHECK: Final = "23514"
"""A row breaks a check: one of its user's, or, without a name, that of a partition which was added at this moment."""
_CONNECTING: Final = (
    ("password authentication failed", _STATES["28P01"]),
    ("no password supplied", "the URL has no password, and the server wants one"),
    ("no pg_hba.conf entry", _STATES["28000"]),
    ("role", "the server has no such user"),
    ("database", _STATES["3D000"]),
    ("too many", _STATES["53300"]),
    ("connection refused", "no server listens there"),
    ("name or service not known", "the host is unknown"),
    ("failed to resolve", "the host is unknown"),
    ("no such file or directory", "there is no such socket"),
    ("timeout expired", "the server did not answer in time"),
    ("connection timeout", "the server did not answer in time"),
    ("starting up", _STATES["57P03"]),
    ("shutting down", _STATES["57P03"]),
    ("ssl", "the server and this client do not agree on TLS"),
)
"""What a server or the driver says before there is a connection, which has no code; the first that fits."""
_BROKEN: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


def explained(error: Exception, store: str) -> StoreError:
    """A database's failure in words, without the rows that it was given."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return _explained_sqlite(original, store)
    if isinstance(original, PoolTimeoutError):
        return StoreUnavailableError(f"the telemetry store {store} cannot be used: its connections are all busy")
    kinds = {kind.__name__ for kind in type(original).__mro__}  # of a driver that may not be installed
    if "ClickHouseError" in kinds:
        return _explained_clickhouse(original, store)
    state = getattr(original, "sqlstate", None)
    if state == _CHECK and getattr(getattr(original, "diag", None), "constraint_name", None) is None:
        return StoreUnavailableError(f"the telemetry store {store} cannot be used: its partitions were just changed")
    too_much = state is not None and state.startswith(_LIMIT_EXCEEDED)
    if kinds & {"DataError", "IntegrityError"} or too_much or isinstance(original, SQLAlchemyError):
        return StoreError(f"the telemetry store {store} refused a statement: {type(original).__name__}")
    return StoreUnavailableError(f"the telemetry store {store} cannot be used: {_reason(original, state)}")


def _reason(error: BaseException | None, state: str | None) -> str:
    """Which server, database or right is missing. The driver's own text may name a user, and is not repeated."""
    if state == _NO_RIGHT:
        said = getattr(getattr(error, "diag", None), "message_primary", None)
        return f"{said or 'a right is missing'} (docs/store.md lists the rights that each role needs)"
    if state is not None:
        return _STATES.get(state, f"the database refuses or does not answer ({state})")
    text = str(error).lower()
    known = (words for part, words in _CONNECTING if part in text)
    return next(known, f"it does not answer ({type(error).__name__})")


def _explained_clickhouse(error: BaseException | None, store: str) -> StoreError:
    code: int | None = getattr(error, "code", None)
    if code is None:
        return StoreUnavailableError(f"the telemetry store {store} cannot be used: {_reason(error, None)}")
    if code in _CLICKHOUSE_REFUSALS:
        return StoreError(f"the telemetry store {store} refused a statement: {type(error).__name__} ({code})")
    said = f"the server refuses or does not answer (code {code})"
    return StoreUnavailableError(f"the telemetry store {store} cannot be used: {_CLICKHOUSE_CAUSES.get(code, said)}")


def _explained_sqlite(error: sqlite3.Error, store: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    for cause, words in _SQLITE_CAUSES:
        if code == cause:
            kind = StoreError if code in _BROKEN else StoreUnavailableError
            return kind(f"the telemetry store {store} cannot be used: {words}")
    return StoreError(f"the telemetry store {store} refused a statement: {type(error).__name__}")
