"""Versions of the tables: which one a database has, which code may use it, and going from one to another.

Migrations only add. So code of one version works on the tables of the version before, with what these have, and code of
the version before works on newer tables as long as the database's `min_code` allows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import inspect, text

from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreVersionError
from taskpilot_obs.store import clickhouse_tables, on_postgresql
from taskpilot_obs.store.index_builds import build_beforehand
from taskpilot_obs.store.months import BIG_TABLES, is_being_rebuilt

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskpilot_obs.store.opened import OpenStore

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005")
"""Every version of the tables that this code knows, oldest first."""
OLDEST_USABLE: Final = "0002"
"""Code of this version reads and writes tables from this version on."""
MIN_CODE: Final = "0002"
"""Code from this version on can use the newest tables. (It cannot sum up: new summaries have more columns.)"""
VERSION_TABLE: Final = "taskpilot_obs_version"
_MAKE_TABLE: Final = text(
    f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY, min_code VARCHAR(32))"
)


class Version(NamedTuple):
    """The version of a database's tables."""

    number: str
    min_code: str | None = None
    """The oldest code that may use the tables; None: of their own version only."""
    is_adopted: bool = False
    """Whether the number was found by looking at the tables, which versions before 0004 marked in another place."""

    @property
    def is_newer(self) -> bool:
        """Whether this code does not know it."""
        return self.number not in REVISIONS

    @property
    def usable_as(self) -> str | None:
        """As which version this code may use the tables; None where it may not."""
        if self.is_newer:
            return REVISIONS[-1] if self.min_code is not None and self.min_code <= REVISIONS[-1] else None
        return self.number if self.number >= OLDEST_USABLE else None


def read_version(connection: Connection, schema: str | None) -> Version | None:
    """The version of the tables; None for a database without them."""
    tables = inspect(connection)
    if tables.has_table(VERSION_TABLE, schema=schema):
        found = connection.execute(text(f"SELECT version_num, min_code FROM {VERSION_TABLE}")).first()  # noqa: S608  a constant
        if found is not None:
            return Version(*found)
    # Versions before 0004 wrote `alembic_version`, which another application in the same database may own.
    if not all(tables.has_table(name, schema=schema) for name in ("llm_call_telemetry", "store_state")):
        return None
    if not tables.has_table("budget_writers", schema=schema):
        return Version("0001", is_adopted=True)
    ledger = {column["name"] for column in tables.get_columns("budget_ledger", schema=schema)}
    return Version("0003" if "assumed_units" in ledger else "0002", is_adopted=True)


def refuse_newer(found: Version | None, store: str) -> None:
    """Refuse tables that only newer code can use.

    Raises:
        StoreVersionError: with what to do.
    """
    if found is not None and found.is_newer and found.usable_as is None:
        raise StoreVersionError(
            f"the telemetry store {store} has version {found.number!r}, this code knows up to {REVISIONS[-1]!r}: "
            "upgrade taskpilot-obs to the version that wrote it, or give another store"
        )


def upgrade(store: OpenStore) -> None:
    """Bring the tables to the version of this code; harmless where they have it, and from several processes at once.

    Raises:
        StoreVersionError: they are newer.
        StoreError: the database failed, does not allow it, or has an encoding that lacks names.
    """
    if store.is_clickhouse:
        _upgrade_clickhouse(store)
        return
    from alembic import command

    if not store.is_sqlite:
        build_beforehand(store)
    with store.writing() as connection:
        _lock(connection, store)
        if not store.is_sqlite:
            on_postgresql.check_encoding(connection, str(store))
            on_postgresql.prepare_schema(connection, store.target)
        found = read_version(connection, store.target.schema)
        refuse_newer(found, str(store))
        if found is None or (not found.is_newer and found.number != REVISIONS[-1]):
            _adopt(connection, found)
            command.upgrade(_alembic(connection, store), "head")
            _state_min_code(connection, MIN_CODE)
    store.require_current()


def _upgrade_clickhouse(store: OpenStore) -> None:
    """Migrations only add, and each statement may be repeated: several processes may do it at once, without a lock."""
    with store.writing() as connection:
        found = read_version(connection, store.target.schema)
        refuse_newer(found, str(store))
        if found is None or not found.is_newer:
            clickhouse_tables.make_tables(connection)
            connection.execute(text(clickhouse_tables.MAKE_VERSION.format(VERSION_TABLE)))
            note = text(f"INSERT INTO {VERSION_TABLE} (version_num, min_code) VALUES (:number, :code)")  # noqa: S608  a constant
            connection.execute(note, {"number": REVISIONS[-1], "code": MIN_CODE})
    store.require_current()


def downgrade(store: OpenStore, number: str) -> None:
    """Take the tables back to an older version; what only the newer one has is lost, summaries and sums are kept.

    Args:
        store: any store that this code can upgrade.
        number: the version to go to.

    Raises:
        ConfigurationError: there is no such version.
        StoreVersionError: the tables are older than that, or newer than this code.
        StoreError: the database failed, or `db partition` was interrupted.
    """
    from alembic import command

    if store.is_clickhouse:
        raise ConfigurationError("version: a store in ClickHouse has one version of its tables; it cannot go back")
    if number not in REVISIONS:
        raise ConfigurationError(f"version: given {number!r}; allowed are {', '.join(REVISIONS)}")
    with store.writing() as connection:
        _lock(connection, store)
        found = read_version(connection, store.target.schema)
        if found is None or found.is_newer or found.number < number:
            has = "no tables" if found is None else f"version {found.number!r}"
            raise StoreVersionError(f"the telemetry store {store} has {has}: it cannot go back to {number!r}")
        _refuse_copying(connection, store)
        _adopt(connection, found)
        command.downgrade(_alembic(connection, store), number)
        _state_min_code(connection, number)
    store.forget_version()


def _refuse_copying(connection: Connection, store: OpenStore) -> None:
    """Triggers that fill a copy would fail in writers once a column that they name is gone."""
    if store.engine.dialect.name == "postgresql" and any(is_being_rebuilt(connection, table) for table in BIG_TABLES):
        raise StoreError(
            f"tables of the telemetry store {store} are being copied: run `taskpilot-obs db partition` to the end, "
            "or with --abandon"
        )


def _lock(connection: Connection, store: OpenStore) -> None:
    if not store.is_sqlite:
        on_postgresql.lock_upgrades(connection)


def _adopt(connection: Connection, found: Version | None) -> None:
    """Keep the version in a table of our own; `alembic_version` stays as it is, for code that still looks there."""
    connection.execute(_MAKE_TABLE)
    if found is not None and found.is_adopted:
        insert = text(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (:number)")  # noqa: S608  a constant
        connection.execute(insert, {"number": found.number})


def _state_min_code(connection: Connection, min_code: str) -> None:
    connection.execute(text(f"UPDATE {VERSION_TABLE} SET min_code = :code"), {"code": min_code})  # noqa: S608  a constant


def _alembic(connection: Connection, store: OpenStore) -> Any:
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "schema": store.target.schema})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
