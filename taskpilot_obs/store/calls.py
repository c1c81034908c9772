"""Single LLM calls and the runs of one request, read from the rows."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, or_, select

from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs._telemetry.money import from_decimal, to_decimal
from taskpilot_obs.store.filters import rows_where
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, VIOLATIONS, columns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Table

INTERNAL: Final = frozenset({"series_id", "latency_bin", "ttft_bin", "duration_bin", "cost_nano", "cost_rest"})
"""Columns that only the store's own queries need; the two of money become `cost`."""
CONTENT: Final = frozenset({"error_message"})
"""Columns that may hold what users or models wrote."""
DECISION_MARGIN: Final = timedelta(hours=1)
"""How far outside of a request's runs its denials are looked for: their table has an index on time only."""

Line = dict[str, Any]
"""One row by column name, money as `cost` (a `Decimal`, or None where unknown)."""


class CallQuestion(NamedTuple):
    """Which LLM calls are asked for, newest first."""

    filters: Filters
    start: datetime | None = None
    end: datetime | None = None
    exact: Mapping[str, str] = {}
    """Further columns that must have exactly this value: `status`, `request_id`, `session_id`, …"""
    min_cost: Decimal | None = None
    before: tuple[datetime, str] | None = None
    """Time and ID of the last call of the page before."""


class RequestRows(NamedTuple):
    """Everything that the store holds of one request."""

    runs: list[Line]
    calls: list[Line]
    feedback: list[Line]
    decisions: list[Line]


def newest_calls(connection: Connection, question: CallQuestion, limit: int, version: str) -> list[Line]:
    """At most `limit` calls, newest first; calls of one microsecond are ordered by ID."""
    query = _selected(LLM_CALLS, version).where(*_conditions(question))
    newest_first = (LLM_CALLS.c.created_at.desc(), LLM_CALLS.c.telemetry_id.desc())
    return _lines(connection, query.order_by(*newest_first).limit(limit))


def request_rows(connection: Connection, request_id: str, tenant: str | None, limit: int, version: str) -> RequestRows:
    """The runs, LLM calls, verdicts and denials of one request, oldest first, each at most `limit`.

    Args:
        connection: one snapshot.
        request_id: of the request.
        tenant: only rows of this tenant; None for all.
        limit: how many rows of each table to read.
        version: of the tables; columns that it lacks are left out.
    """
    runs, calls, feedback = (
        _of_request(connection, table, (request_id, tenant), limit, version)
        for table in (AGENT_RUNS, LLM_CALLS, FEEDBACK)
    )
    times = [line["created_at"] for line in (*runs, *calls)]
    if not times:
        return RequestRows(runs, calls, feedback, [])
    near = and_(
        VIOLATIONS.c.created_at >= min(times) - DECISION_MARGIN, VIOLATIONS.c.created_at <= max(times) + DECISION_MARGIN
    )
    denied = _of_request(connection, VIOLATIONS, (request_id, tenant), limit, version, also=(near,))
    return RequestRows(runs, calls, feedback, denied)


def _conditions(question: CallQuestion) -> list[ColumnElement[bool]]:
    call = LLM_CALLS.c
    found = [*rows_where(question.filters), *(call[name] == value for name, value in question.exact.items())]
    if question.start is not None:
        found.append(call.created_at >= question.start)
    if question.end is not None:
        found.append(call.created_at < question.end)
    if question.min_cost is not None:
        found.append(_at_least(question.min_cost))
    if question.before is not None:
        moment, telemetry_id = question.before
        # The first condition alone lets both engines start in the index on time.
        found += [call.created_at <= moment, or_(call.created_at < moment, call.telemetry_id < telemetry_id)]
    return found


def _at_least(cost: Decimal) -> ColumnElement[bool]:
    nano, rest = from_decimal(cost)
    call = LLM_CALLS.c
    return or_(call.cost_nano > nano, and_(call.cost_nano == nano, call.cost_rest >= rest))


def _of_request(
    connection: Connection,
    table: Table,
    whose: tuple[str, str | None],
    limit: int,
    version: str,
    *,
    also: Sequence[ColumnElement[bool]] = (),
) -> list[Line]:
    request_id, tenant = whose
    query = _selected(table, version).where(table.c.request_id == request_id, *also)
    if tenant is not None:
        query = query.where(table.c.organization_id == tenant)
    identifier = next(iter(table.primary_key.columns))
    return _lines(connection, query.order_by(table.c.created_at, identifier).limit(limit))


def _selected(table: Table, version: str) -> Any:
    kept = [table.c[name] for name in columns_of(table, version) if name not in INTERNAL | CONTENT]
    return select(*kept, *(table.c[name] for name in ("cost_nano", "cost_rest") if name in table.c))


def _lines(connection: Connection, query: Any) -> list[Line]:
    found = [dict(line) for line in connection.execute(query).mappings()]
    for line in found:
        if "cost_nano" in line:
            nano, rest = line.pop("cost_nano"), line.pop("cost_rest")
            line["cost"] = None if nano is None else to_decimal(nano, rest)
    return found
