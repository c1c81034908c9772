"""Taking calls that are deleted out of the sums that they are part of, so that these go on answering.

Counts, tokens, costs, sketches and kinds of errors are exact sums, so what is left is what summing up again would make
(a mean duration but for its last digits). An hour or a day that was written to since it was summed up, or is being
summed up, has to be summed up again anyway, and is marked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select

from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.values import PRICING
from taskpilot_obs.records import Pricing
from taskpilot_obs.store import on_postgresql
from taskpilot_obs.store.rollups import ROLLUPS, SUMMARY_DIMENSIONS
from taskpilot_obs.store.segments import floor_day, floor_hour
from taskpilot_obs.store.summary_lines import (
    KEYS,
    Line,
    Sums,
    is_empty,
    joined,
    keyed,
    narrowed,
    put,
    read,
    take,
    without,
)
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARY_WORK, SUMMED
from taskpilot_obs.store.writer import mark_changed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from taskpilot_obs._telemetry.answers import Key

_FLOORS: Final = {"hourly": floor_hour, "daily": floor_day}
_READ: Final = (
    *("created_at", "success", "cached", "pricing", "latency_ms", "latency_bin", "ttft_bin", *SUMMED),
    *("error_category", "error_type", "status"),
)
COLUMNS: Final[tuple[Any, ...]] = (
    *(LLM_CALLS.c[name] for name in _READ),
    *(func.coalesce(LLM_CALLS.c[name], "").label(name) for name in SUMMARY_DIMENSIONS),
)
"""Of a call: what sums are made from."""
_MARKS: Final = select(SUMMARY_WORK.c.period, SUMMARY_WORK.c.period_start, SUMMARY_WORK.c.lacking).where(
    SUMMARY_WORK.c.period.in_(list(_FLOORS)), SUMMARY_WORK.c.period_start.in_(bindparam("starts", expanding=True))
)

Span = tuple[str, "datetime"]
"""An hour or a day: `hourly` or `daily`, and when it began."""


def take_out(connection: Connection, calls: Sequence[Row[Any]]) -> None:
    """Take calls out of the sums of their hours and days, in the transaction that deletes them.

    Args:
        connection: one that writes.
        calls: the `COLUMNS` of each, without calls older than those that were deleted by age, which are in no sum.
    """
    if not calls:
        return
    on_postgresql.lock_sums(connection, alone=True)
    spans = _spans(calls)
    lacking = _lacking(connection, spans)
    parts = {span: _parted(connection, span, spans[span], lacks) for span, lacks in lacking.items()}
    there = read(connection, [key for keys in parts.values() for key in keys])
    left = {span: _left(sums, there) for span, sums in parts.items()}
    changed = {span for span in spans if left.get(span) is None}
    changed |= {("daily", floor_day(start)) for _, start in changed}
    for length in _FLOORS:
        starts = sorted(start for name, start in changed if name == length)
        if starts:
            mark_changed(connection, length, starts)
    lines = sorted(line for span, some in left.items() if span not in changed for line in some or ())
    put(connection, [line for line in lines if not is_empty(line)])
    take(connection, [line[: len(KEYS)] for line in lines if is_empty(line)])


def _spans(calls: Sequence[Row[Any]]) -> dict[Span, list[Row[Any]]]:
    """The calls of each hour and day."""
    spans: defaultdict[Span, list[Row[Any]]] = defaultdict(list)
    for call in calls:
        for length, floor in _FLOORS.items():
            spans[length, floor(call.created_at)].append(call)
    return spans


def _lacking(connection: Connection, spans: Collection[Span]) -> dict[Span, int]:
    """The hours and days whose sums are those of their calls, with the roll-ups that they lack as bits."""
    found = dict.fromkeys(spans, 0)
    for length, start, lacks in connection.execute(_MARKS, {"starts": [*{start for _, start in spans}]}).all():
        if lacks is None:
            found.pop((length, start), None)
        elif (length, start) in found:
            found[length, start] |= lacks
    return found


def _left(parts: dict[Line, Sums], there: dict[Line, Line]) -> list[Line] | None:
    """The lines without these parts; None where one of them is not there, or does not hold its part."""
    left: list[Line] = []
    for key, part in parts.items():
        line = there.get(key)
        rest = None if line is None else without(line, part)
        if rest is None:
            return None
        left.append(rest)
    return left


def _parted(connection: Connection, span: Span, calls: Sequence[Row[Any]], lacking: int) -> dict[Line, Sums]:
    """What these calls add to each line of an hour or a day, by its key."""
    parts: defaultdict[Key, list[Sums]] = defaultdict(list)
    for call in calls:
        parts[tuple(call[-len(SUMMARY_DIMENSIONS) :])].append(_sums(call))
    full = {key: joined(held) for key, held in parts.items()}
    found: dict[Line, Sums] = {}
    for rollup in ROLLUPS:
        if not rollup.bit & lacking:
            found |= keyed(connection, rollup, *span, narrowed(full, rollup))
    return found


def _sums(call: Row[Any]) -> Sums:
    """What a call adds to a sum; the words of `queries`, for one row."""
    is_cached = bool(call.cached)
    counts = Counts(
        requests=1,
        successes=int(call.success is True),
        failures=int(call.success is False),
        priced=int(call.cost_nano is not None),
        cache_hits=int(is_cached),
        **{name: getattr(call, name) or 0 for name in SUMMED},
        refused=int(call.pricing == PRICING[Pricing.FREE] and not is_cached),
        partly_priced=int(call.pricing == PRICING[Pricing.PARTIAL]),
        latency_total_ms=call.latency_ms,
    )
    kinds = (call.error_category, call.error_type, call.status)
    failed = [next(kind for kind in kinds if kind is not None)] if call.success is False else []
    return Sums(
        counts,
        Counter([call.latency_bin]),
        Counter([] if call.ttft_bin is None else [call.ttft_bin]),
        Counter(failed),
    )
