"""Keeps a copy equal to a table in use: triggers repeat every change in the copy, in the same transaction.

Batches of old rows and deletions exclude each other by an advisory lock, because a batch that reads a row while it is
deleted would restore it. Insertions need no lock: a row that the copy already has is skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from taskpilot_obs.store.months import copy_name, key_of, stored_columns

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_TURN: Final = 7_465_706_423
"""The key of the advisory lock by which batches and deletions exclude each other."""
_EVENTS: Final = {
    "insert": "INSERT ON {table} REFERENCING NEW TABLE AS fresh",
    "update": "UPDATE ON {table} REFERENCING OLD TABLE AS stale NEW TABLE AS fresh",
    "delete": "DELETE ON {table} REFERENCING OLD TABLE AS stale",
}


class Mirror(NamedTuple):
    """A table and its copy, in SQL."""

    table: str
    copy: str
    schema: str
    key: str
    columns: str
    """The stored columns, quoted."""

    @property
    def turn(self) -> str:
        """The name of the function that takes the lock."""
        return f"{self.table}_mirror_turn"

    @property
    def function(self) -> str:
        """The name of the function that repeats a change in the copy."""
        return f"{self.table}_mirror"


def mirror_of(connection: Connection, table: Table) -> Mirror:
    """The names for a table, with its present columns."""
    query = text(
        "SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace "
        "WHERE pg_class.oid = to_regclass(:name)"
    )
    schema = connection.execute(query, {"name": table.name}).scalar_one()
    columns = ", ".join(stored_columns(connection, table.name))
    return Mirror(table.name, copy_name(table), schema, key_of(table), columns)


def install(connection: Connection, mirror: Mirror) -> None:
    """Create the triggers; once this is committed, every transaction repeats its changes in the copy."""
    copy, columns = f"{mirror.schema}.{mirror.copy}", mirror.columns
    is_it = f"copy.{mirror.key} = stale.{mirror.key} AND copy.created_at = stale.created_at"
    take = f"DELETE FROM {copy} AS copy USING stale WHERE {is_it}"  # noqa: S608  our names
    put = f"INSERT INTO {copy} ({columns}) SELECT {columns} FROM fresh ON CONFLICT DO NOTHING"  # noqa: S608  our names
    follow = f"IF TG_OP <> 'INSERT' THEN {take}; END IF; IF TG_OP <> 'DELETE' THEN {put}; END IF; RETURN NULL;"
    _function(connection, mirror.turn, f"PERFORM pg_advisory_xact_lock_shared({_TURN}); RETURN NULL;")
    _function(connection, mirror.function, follow)
    _trigger(connection, mirror.turn, f"BEFORE UPDATE OR DELETE ON {mirror.table}", mirror.turn)
    for name, event in _EVENTS.items():
        _trigger(connection, f"{mirror.function}_{name}", f"AFTER {event.format(table=mirror.table)}", mirror.function)


def _trigger(connection: Connection, name: str, when: str, function: str) -> None:
    connection.execute(text(f"CREATE TRIGGER {name} {when} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"))


def _function(connection: Connection, name: str, body: str) -> None:
    """Create a trigger's function with the rights of the table's owner, because writers have none on the copy."""
    settings = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
    connection.execute(
        text(f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger {settings} AS $body$ BEGIN {body} END $body$")
    )


def is_installed(connection: Connection, mirror: Mirror) -> bool:
    """Whether the triggers are there."""
    query = text("SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(:name) AND tgname LIKE :mirrors")
    found = connection.execute(query, {"name": mirror.table, "mirrors": f"{mirror.function}%"}).scalar_one()
    return bool(found == len(_EVENTS) + 1)


def remove(connection: Connection, mirror: Mirror) -> None:
    """Drop the triggers and the copy."""
    for name in (mirror.turn, *(f"{mirror.function}_{event}" for event in _EVENTS)):
        connection.execute(text(f"DROP TRIGGER IF EXISTS {name} ON {mirror.table}"))
    for name in (mirror.turn, mirror.function):
        connection.execute(text(f"DROP FUNCTION IF EXISTS {name}()"))
    connection.execute(text(f"DROP TABLE IF EXISTS {mirror.copy}"))


def take_turn(connection: Connection) -> None:
    """Exclude deletions until the transaction ends, after those that are under way are committed."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})


def is_equal(connection: Connection, mirror: Mirror) -> bool:
    """Whether table and copy have equal rows: compares a digest of each in one snapshot."""
    digest = "SELECT count(*), sum(CAST(hashtext(CAST(row AS text)) AS bigint)) FROM {} AS row"
    table, copy = (connection.execute(text(digest.format(name))).one() for name in (mirror.table, mirror.copy))
    return bool(table == copy)
