"""Erasing a user or a tenant from a store in ClickHouse: rows, and the sums that they are part of.

The hours of the rows are noted as changing for as long as the server may take to rewrite its parts, so that rows answer
for them until then. A tenant is also taken out of the sums of hours whose rows are gone, or soon will be. Such an hour
is not noted, because its rows answer no more: one without sums would count as lost.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import literal_column, select

from taskpilot_obs.store.adding_up import LENGTHS, SummaryPeriod, keys_there, summed
from taskpilot_obs.store.clickhouse_sums import NOTHING, mark_changed, put, require_sums
from taskpilot_obs.store.clickhouse_tables import ROW_TABLES, SUMMED, hour_of
from taskpilot_obs.store.clickhouse_upkeep import PATIENCE_S, erase_rows
from taskpilot_obs.store.marks import deleted_from, server_clock
from taskpilot_obs.store.rollups import FULL, ROLLUPS, TENANTS
from taskpilot_obs.store.segments import HOUR, QueryPlan, Segment
from taskpilot_obs.store.summary_lines import Line, Sums, joined, keyed, line_of, narrowed
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES, UtcTime

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from taskpilot_obs.store.engine import Store

Period = tuple[SummaryPeriod, "datetime"]
"""An hour or a day, and when it began."""
_TENANT: Final = FULL.dimensions.index("organization_id")
_SOON: Final = timedelta(seconds=PATIENCE_S) + 2 * HOUR
"""How far a TTL moves on until the hours of erased rows are summed up again, in whole hours."""
_PERIODS: Final[tuple[SummaryPeriod, ...]] = ("hourly", "daily")


def erase_everywhere(store: Store, column: str, value: str) -> dict[str, int]:
    """Erase the rows that have this value, and the sums that name it; how many of each table.

    Args:
        store: one in ClickHouse.
        column: that of the user or of the tenant.
        value: the user or the tenant.

    Raises:
        StoreVersionError: the tables are of the version before there were summaries.
        StoreUnavailableError: the server could not finish yet.
    """
    require_sums(store)
    with store.writing() as connection:
        kept = deleted_from(connection, LLM_CALLS.name).before
        named = _named(connection, value) if column in SUMMARIES.c else []
        hours = {*_hours(connection, column, value), *(start for period, start in named if period == "hourly")}
        changing = [hour for hour in hours if kept is None or hour >= kept]
        mark_changed(connection, changing, server_clock(connection) + timedelta(seconds=PATIENCE_S))
        found = {table.name: erase_rows(connection, table, column, value) for table in ROW_TABLES if column in table.c}
        if column in SUMMARIES.c:
            found[SUMMARIES.name] = _erase_sums(connection, store, _soon_gone(named, kept), value)
    return found


def _hours(connection: Connection, column: str, value: str) -> set[datetime]:
    hour: ColumnElement[Any] = literal_column(hour_of("created_at"), UtcTime)
    return {*connection.execute(select(hour).where(LLM_CALLS.c[column] == value).distinct()).scalars()}


def _named(connection: Connection, tenant: str) -> list[Period]:
    """The hours and days that have a line of the tenant."""
    line = SUMMARIES.c
    found: list[Period] = []
    for period in _PERIODS:
        kinds = [rollup.period(period) for rollup in (FULL, TENANTS)]
        query = select(line.period_start).where(line.organization_id == tenant, line.period.in_(kinds))
        found += ((period, start) for start in connection.execute(query.distinct()).scalars())
    return found


def _soon_gone(named: list[Period], kept: datetime | None) -> list[Period]:
    """Those whose rows are gone, or are before they could be summed up again."""
    return [] if kept is None else [(period, start) for period, start in named if start < kept + _SOON]


def _erase_sums(connection: Connection, store: Store, gone: list[Period], tenant: str) -> int:
    for period in gone:
        lines = _without(connection, store, period, tenant)
        put(connection, (line_of(key, sums) for key, sums in lines.items()), server_clock(connection))
    return erase_rows(connection, SUMMARIES, "organization_id", tenant)


def _without(connection: Connection, store: Store, period: Period, tenant: str) -> dict[Line, Sums]:
    """What changes in the lines of a period whose rows are gone, beside the lines that name the tenant."""
    length, start = period
    whole = (Segment(length, start, start + LENGTHS[length]),)
    noted = select(SUMMED.c.lacking).where(SUMMED.c.period == length, SUMMED.c.period_start == start)
    lacking = connection.execute(noted).scalar() or 0
    if lacking & FULL.bit:  # what the tenant added to the lines of series is not known, so that its sums stay, unnamed
        tenants = summed(connection, QueryPlan(whole, rollup=TENANTS), TENANTS)
        unnamed = [tenants[key] for key in ((tenant,), ("",)) if key in tenants]
        return keyed(connection, TENANTS, length, start, {("",): joined(unnamed)}) if unnamed else {}
    left = {key: sums for key, sums in summed(connection, QueryPlan(whole), FULL).items() if key[_TENANT] != tenant}
    narrow = [rollup for rollup in ROLLUPS[1:] if not rollup.bit & lacking]
    kinds = {rollup.period(length) for rollup in narrow}
    lines = dict.fromkeys((key for key in keys_there(connection, store, length, start) if key[0] in kinds), NOTHING)
    for rollup in narrow:
        lines |= keyed(connection, rollup, length, start, narrowed(left, rollup))
    return lines
