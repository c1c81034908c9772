"""The LLM calls that are priced again, and writing the cost of those that had none."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, bindparam, case, literal_column, null, or_, select, update

from taskpilot_obs._telemetry.values import PRICING
from taskpilot_obs.records import Pricing
from taskpilot_obs.store import on_clickhouse
from taskpilot_obs.store.clickhouse_columns import Columns
from taskpilot_obs.store.filters import rows_where
from taskpilot_obs.store.tables import LLM_CALLS, from_microseconds
from taskpilot_obs.store.writer import HOUR_US, mark_changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from taskpilot_obs.store.questions import Question

_FETCH: Final = 2_000
_call: Final = LLM_CALLS.c
_UNPRICED: Final = PRICING[Pricing.UNPRICED]
ADDED: Final = ("request_model", "response_model", "service_tier", "pricing", "partial_reason")
"""Columns that the first versions of the tables lack."""


FREE: Final = 0
STATED: Final = 1
UNPRICED: Final = 2
LISTED: Final = 3
"""Where the booked cost of a call comes from: it cost nothing (a cache, a refusal), the provider or the application
stated it, it is unknown, or a price list gave it."""


class UsedCall(NamedTuple):
    """What a row knows of a call's price. The fields that name its price stand first, so that a slice is a key."""

    provider: str | None
    response_model: str | None
    request_model: str | None
    service_tier: str | None
    slot: int
    """The stretch of time in which it began, during which prices stay."""
    began_us: int
    """In microseconds since the Unix epoch."""
    group: str | None
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    origin: int
    cost_nano: int | None
    cost_rest: int | None
    telemetry_id: str | None
    """Only where its cost may be written."""
    ended_us: int


_ORIGIN: Final = case(
    (or_(_call.cached, _call.pricing == PRICING[Pricing.FREE]), FREE),
    (_call.pricing == _UNPRICED, UNPRICED),
    (_call.cost_source.in_(["provider", "caller"]), STATED),
    else_=LISTED,
)


class _Times(NamedTuple):
    """Integers of microseconds, which both engines hand over in a tenth of the time of a `datetime`."""

    ended: str
    took: str


_TIMES: Final = {
    "sqlite": _Times("llm_call_telemetry.created_at", "CAST(latency_ms * 1000 AS INTEGER)"),
    "postgresql": _Times(
        "CAST(date_part('epoch', llm_call_telemetry.created_at) * 1000000 AS bigint)",
        "CAST(trunc(latency_ms * 1000) AS bigint)",
    ),
    on_clickhouse.DIALECT: _Times(
        "toUnixTimestamp64Micro(llm_call_telemetry.created_at)", "toInt64(trunc(latency_ms * 1000))"
    ),
}


class Correction(NamedTuple):
    """The cost of a call that had none."""

    telemetry_id: str
    ended_us: int
    cost_nano: int
    cost_rest: int


def used_calls(question: Question, group: str, *, slot_us: int, to_write: bool) -> Iterator[UsedCall]:
    """The rows of a question.

    Args:
        question: about calls.
        group: the column by which they are grouped.
        slot_us: for how long prices stay.
        to_write: whether their costs may be written, which needs their IDs.

    Raises:
        StoreVersionError: the tables are too old to name the model that was asked for.
    """
    question.needs(LLM_CALLS, "request_model")
    columns: Any = LLM_CALLS.c
    times = _TIMES[question.connection.dialect.name]
    began = f"({times.ended} - {times.took})"
    query = select(
        _call.provider, _call.response_model, _call.request_model, _call.service_tier,
        literal_column(f"{began} / {slot_us}", BigInteger), literal_column(began, BigInteger), columns[group],
        _call.input_tokens, _call.output_tokens, _call.reasoning_tokens, _call.cached_tokens, _call.cache_write_tokens,
        _ORIGIN, _call.cost_nano, _call.cost_rest,
        _call.telemetry_id if to_write else null(), literal_column(times.ended, BigInteger),
    ).where(
        _call.created_at >= question.start, _call.created_at < question.end, *rows_where(question.filters)
    )  # fmt: skip
    for rows in question.connection.execution_options(yield_per=_FETCH).execute(query).partitions():
        yield from map(UsedCall._make, rows)


def apply_corrections(connection: Connection, corrections: Sequence[Correction], source: str) -> int:
    """Write costs of calls that are still unpriced, and mark their hours to be summed up again; returns how many.

    Args:
        connection: that writes.
        corrections: what to write.
        source: where the costs come from: the column `cost_source`.
    """
    if on_clickhouse.is_on(connection):
        return _replace(connection, {each.telemetry_id: each for each in corrections}, source)
    query = (
        update(LLM_CALLS)
        .where(_call.telemetry_id == bindparam("of_call"), _call.cost_nano.is_(None), _call.pricing == _UNPRICED)
        .values(
            cost_nano=bindparam("nano"),
            cost_rest=bindparam("rest"),
            cost_source=source,
            pricing=PRICING[Pricing.PRICED],
        )
    )
    written = 0
    hours: set[datetime] = set()
    for each in corrections:
        values = {"of_call": each.telemetry_id, "nano": each.cost_nano, "rest": each.cost_rest}
        if connection.execute(query, values).rowcount:
            written += 1
            hours.add(from_microseconds(each.ended_us - each.ended_us % HOUR_US))
    if hours:
        mark_changed(connection, "hourly", sorted(hours))
    return written


def _replace(connection: Connection, corrections: Mapping[str, Correction], source: str) -> int:
    """Put whole rows in the place of those that are still unpriced: ClickHouse notes that their hours changed."""
    moments = [from_microseconds(each.ended_us) for each in corrections.values()]
    unpriced = select(LLM_CALLS).where(
        _call.created_at >= min(moments),
        _call.created_at <= max(moments),
        _call.telemetry_id.in_(corrections),
        _call.cost_nano.is_(None),
        _call.pricing == _UNPRICED,
    )
    names = LLM_CALLS.columns.keys()
    rows = []
    for row in connection.execute(unpriced):
        priced = corrections[row.telemetry_id]
        new = {
            **dict(zip(names, row, strict=True)),
            "created_at": priced.ended_us,
            "cost_nano": priced.cost_nano,
            "cost_rest": priced.cost_rest,
            "cost_source": source,
            "pricing": PRICING[Pricing.PRICED],
        }
        rows.append(tuple(new.values()))
    if rows:
        on_clickhouse.insert_block(connection, LLM_CALLS.name, Columns(LLM_CALLS).block(rows))
    return len(rows)
