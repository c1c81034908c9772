"""What is particular to a store in PostgreSQL: pinned session settings, connection poolers, encodings, schemas."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import NoSuchModuleError

from taskpilot_obs.exceptions import MissingExtraError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from taskpilot_obs.store.urls import StoreUrl

UPGRADE_LOCK: Final = 7_465_706_421
"""Names the advisory lock under which PostgreSQL's tables are upgraded."""
_SUMS_LOCK: Final = 7_465_706_422
"""Names the advisory lock that keeps claims of summing up and subtractions from sums apart."""
ENCODING: Final = "UTF8"
_POOLED: Final = "taskpilot_obs_pooled"
_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "application_name": "taskpilot-obs",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_PINNED: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "lock_timeout": "30000",
    "idle_in_transaction_session_timeout": "0",
}
"""Settings of a role or a database that would change what is stored or read, or end a transaction half-way."""


def make_engine(target: StoreUrl) -> Engine:
    """An engine whose connections have the settings that the store relies on, also behind a connection pooler.

    A pooler in transaction mode gives each transaction another connection to the server. Settings then last for one
    transaction, and statements are not prepared.

    Raises:
        MissingExtraError: the driver is not installed.
    """
    arguments = {name: value for name, value in _CONNECT.items() if name not in target.options}
    arguments |= {"client_encoding": ENCODING, **target.options}
    try:
        engine = create_engine(
            target.url, pool_size=3, max_overflow=5, pool_pre_ping=True, hide_parameters=True, connect_args=arguments
        )
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtraError("a telemetry store on PostgreSQL", "postgres") from error
    session, transaction = _settings(target, local=False), _settings(target, local=True)

    def connected(connection: Any, entry: Any) -> None:
        entry.info[_POOLED] = _is_pooled(connection)
        if entry.info[_POOLED] if target.prepared_statements is None else not target.prepared_statements:
            connection.prepare_threshold = None
        if not entry.info[_POOLED]:
            connection.execute(session)
        connection.commit()

    # First of all listeners: SQLAlchemy asks a new connection for its schema, which the settings decide.
    event.listen(engine, "connect", connected, insert=True)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        if connection.info.get(_POOLED):
            connection.exec_driver_sql(transaction)

    return engine


def _settings(target: StoreUrl, *, local: bool) -> str:
    settings = dict(_PINNED)
    if target.schema is not None:
        settings["search_path"] = f'"{target.schema}"'
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', {'true' if local else 'false'})" for name, value in settings.items()
    )


def _is_pooled(connection: Any) -> bool:
    """Whether a pooler stands between: it names a process of its own, and not the server's."""
    (server,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return bool(server != connection.info.backend_pid)


def behind_pooler(connection: Connection) -> bool:
    """Whether the next transaction of this connection may run on another connection to the server."""
    return bool(connection.info.get(_POOLED))


def check_encoding(connection: Connection, store: str) -> None:
    """Refuse a database that cannot hold every name.

    Raises:
        StoreError: its encoding is another than UTF8.
    """
    found = server_encoding(connection)
    if found != ENCODING:
        raise StoreError(
            f"the database of the telemetry store {store} has the encoding {found}, which lacks most of the world's "
            "names: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def server_encoding(connection: Connection) -> str:
    """The encoding of the database, in PostgreSQL's spelling."""
    return str(connection.execute(text("SHOW server_encoding")).scalar_one())


def codec_of(encoding: str) -> str | None:
    """Python's name of an encoding that lacks names; None for UTF8, which has all."""
    if encoding == ENCODING:
        return None
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return "ascii"


def prepare_schema(connection: Connection, target: StoreUrl) -> None:
    """Make the schema that the URL names, where it is missing."""
    if target.schema is not None:
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{target.schema}"'))


def lock_upgrades(connection: Connection) -> None:
    """Until the end of the transaction, no other process changes the tables."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})


def may_use_temporary_tables(connection: Connection) -> bool:
    """Whether the role has the right TEMP in this database."""
    return bool(connection.execute(text("SELECT has_database_privilege(current_database(), 'TEMP')")).scalar_one())


def lock_sums(connection: Connection, *, alone: bool) -> None:
    """Until the end of the transaction: claim periods beside others, or change sums alone; nothing on SQLite.

    A claim that a subtraction cannot see yet would be summed up from calls that the subtraction has not deleted yet.
    """
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        connection.execute(text(f"SELECT {lock}(:lock)"), {"lock": _SUMS_LOCK})
