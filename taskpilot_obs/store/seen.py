"""Which providers the store has calls of."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from taskpilot_obs.semconv import NONE
from taskpilot_obs.store.tables import LLM_CALLS, LLM_SERIES, SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection


class Seen(NamedTuple):
    """One provider."""

    provider: str
    models: int
    first_seen: datetime
    last_seen: datetime


Found = tuple[str, str, "datetime", "datetime"]
"""Provider, model, first and last call."""


def providers_seen(connection: Connection, tenant: str | None) -> list[Seen]:
    """The providers with calls in rows or in summaries, by name.

    Args:
        connection: one snapshot.
        tenant: only calls of this tenant; None for all.
    """
    rows = _in_rows(connection) if tenant is None else _in_rows_of(connection, tenant)
    found: dict[str, list[Found]] = defaultdict(list)
    for line in (*rows, *_in_summaries(connection, tenant)):
        found[line[0]].append(line)
    return [
        Seen(
            provider or NONE,
            len({model for _, model, _, _ in lines}),
            min(first for _, _, first, _ in lines),
            max(last for _, _, _, last in lines),
        )
        for provider, lines in sorted(found.items())
    ]


def _in_rows(connection: Connection) -> Iterator[Found]:
    """From the index on provider and time: its two ends, and not the rows between."""
    series, call = LLM_SERIES.c, LLM_CALLS.c
    models: dict[str, list[str]] = defaultdict(list)
    for provider, model in connection.execute(select(series.provider, series.model_name).distinct()):
        models[provider].append(model)
    for provider, names in models.items():
        own = call.provider == provider if provider else call.provider.is_(None)
        ends = [select(end(call.created_at)).where(own).scalar_subquery() for end in (func.min, func.max)]
        first, last = connection.execute(select(*ends)).one()
        if first is not None:
            yield from ((provider, name, first, last) for name in names)


def _in_rows_of(connection: Connection, tenant: str) -> Iterator[Found]:
    call = LLM_CALLS.c
    names = (func.coalesce(call.provider, ""), func.coalesce(call.model_name, ""))
    query = select(*names, func.min(call.created_at), func.max(call.created_at))
    yield from map(tuple, connection.execute(query.where(call.organization_id == tenant).group_by(*names)))


def _in_summaries(connection: Connection, tenant: str | None) -> Iterator[Found]:
    """What rows may be deleted of."""
    summary = SUMMARIES.c
    names = (summary.provider, summary.model_name)
    query = select(*names, func.min(summary.period_start), func.max(summary.period_start))
    query = query.where(summary.period.in_(["hourly", "hourly.series"]), summary.requests > 0)
    if tenant is not None:
        query = query.where(summary.organization_id == tenant)
    yield from map(tuple, connection.execute(query.group_by(*names)))
