"""Which rows a deletion in small steps takes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, any_, false, literal, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from taskpilot_obs.store.months import BIG_TABLES, key_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

_HAS_PARTS: Final = text("SELECT relkind = 'p' OR relhassubclass FROM pg_class WHERE oid = to_regclass(:name)")
"""Also the chunks of TimescaleDB."""


def picked(
    connection: Connection, table: Table, where: ColumnElement[bool], rows: int, *order: ColumnElement[Any]
) -> ColumnElement[bool]:
    """A condition that is true for some of the rows, found by the place where they are stored.

    A place is that within a partition, and other partitions have it too. Rows of a table that has partitions are named
    by their IDs and the stretch of time that they are of.

    Args:
        connection: one that deletes them afterwards.
        table: where from.
        where: which rows may be taken.
        rows: how many at most.
        order: which ones first.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite or table not in BIG_TABLES or not _has_parts(connection, table):
        place: Any = literal_column("rowid" if is_sqlite else "ctid")
        taken: ColumnElement[bool] = place.in_(
            select(place).select_from(table).where(where).order_by(*order).limit(rows)
        )
        return taken
    key, moment = table.c[key_of(table)], table.c.created_at
    found = connection.execute(select(key, moment).where(where).order_by(*order).limit(rows)).all()
    if not found:
        return false()
    moments = [at for _, at in found]
    ids = literal([name for name, _ in found], ARRAY(Text))
    return and_(key == any_(ids), moment >= min(moments), moment <= max(moments))


def _has_parts(connection: Connection, table: Table) -> bool:
    """Whether a table has partitions, which stays so until the end of the transaction.

    The lock is the one that a deletion takes. It keeps `db partition` from putting a copy in the place of the table.
    """
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN ROW EXCLUSIVE MODE"))
    return bool(connection.execute(_HAS_PARTS, {"name": table.name}).scalar_one())
