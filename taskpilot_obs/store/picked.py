"""Selects the rows that a deletion in small steps takes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, any_, false, literal, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from taskpilot_obs.store.months import BIG_TABLES, key_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

_HAS_PARTS: Final = text("SELECT relkind = 'p' OR relhassubclass FROM pg_class WHERE oid = to_regclass(:name)")
"""Whether a table has partitions, or chunks of TimescaleDB."""


def picked(
    connection: Connection, table: Table, where: ColumnElement[bool], rows: int, *order: ColumnElement[Any]
) -> ColumnElement[bool]:
    """A condition that is true for some of the rows, by their physical position (`ctid`, `rowid`).

    A `ctid` is unique only within a partition, so rows of a partitioned table are selected by their IDs and the range
    of their times.

    Args:
        connection: the one that deletes them afterwards.
        table: which one.
        where: which rows may be taken.
        rows: how many at most.
        order: which rows come first.
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
    """Whether a table has partitions; this cannot change until the transaction ends.

    It takes the lock of a deletion, which keeps `db partition` from replacing the table.
    """
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN ROW EXCLUSIVE MODE"))
    return bool(connection.execute(_HAS_PARTS, {"name": table.name}).scalar_one())
