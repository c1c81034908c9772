"""Which rows a deletion in small steps takes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, and_, any_, false, literal, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from taskpilot_obs.store.months import BIG_TABLES, key_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table


def picked(
    connection: Connection, table: Table, where: ColumnElement[bool], rows: int, *order: ColumnElement[Any]
) -> ColumnElement[bool]:
    """A condition that is true for some of the rows, found by the place where they are stored.

    A place is that within a partition, and other partitions have it too. Rows of PostgreSQL's big tables, which may
    have partitions, are named by their IDs and the stretch of time that they are of.

    Args:
        connection: one that deletes them afterwards.
        table: where from.
        where: which rows may be taken.
        rows: how many at most.
        order: which ones first.
    """
    if connection.dialect.name == "sqlite" or table not in BIG_TABLES:
        place: Any = literal_column("rowid" if connection.dialect.name == "sqlite" else "ctid")
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
