"""Sums over LLM calls, from rows or from summaries, by the same dimensions and in the same shape."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, and_, cast, func, or_, select, text, type_coerce

from taskpilot_obs.store.money import to_decimal
from taskpilot_obs.store.segments import DAY
from taskpilot_obs.store.sketch import decode
from taskpilot_obs.store.tables import LLM_CALLS, LLM_SERIES, SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection

    from taskpilot_obs.store.segments import Segment

Key = tuple[str, ...]
_SERIES_DIMENSIONS: Final = frozenset({"provider", "model_name", "agent"})
_FETCH: Final = 20_000
_HALF: Final = 1 << 32


class Filters(NamedTuple):
    """Which calls are asked about; None for all."""

    organization_id: str | None = None
    user_id: str | None = None
    agent: str | None = None
    workflow: str | None = None
    model_name: str | None = None
    provider: str | None = None
    prompt_name: str | None = None

    @property
    def rows_only(self) -> bool:
        """Whether summaries cannot answer."""
        return self.user_id is not None or self.workflow is not None


class Counts(NamedTuple):
    """What a group of LLM calls adds up to."""

    requests: int = 0
    successes: int = 0
    failures: int = 0
    priced: int = 0
    """Calls with a known cost."""
    cache_hits: int = 0
    """Calls that the application's own cache answered; they cost nothing."""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano: int = 0
    cost_rest: int = 0
    latency_total_ms: float = 0.0

    @property
    def cost(self) -> Decimal:
        """In USD, exact."""
        return to_decimal(self.cost_nano, self.cost_rest)

    @property
    def unpriced(self) -> int:
        """Calls whose cost nobody knows."""
        return self.requests - self.cache_hits - self.priced

    def plus(self, other: Counts) -> Counts:
        """The sum, field by field."""
        return Counts(*map(_add, self, other))


def _add(mine: float, theirs: float) -> Any:
    return mine + theirs


def totals(
    connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str] = ()
) -> dict[Key, Counts]:
    """What the calls of these stretches of time add up to, by the values of the dimensions ("" for none)."""
    found: dict[Key, Counts] = {}
    for key, counts in _totals(connection, segments, filters, dimensions):
        if not counts.requests:
            continue  # a sum over nothing
        known = found.get(key)
        found[key] = counts if known is None else known.plus(counts)
    return found


def _totals(
    connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str]
) -> Iterator[tuple[Key, Counts]]:
    for groups in _row_groups(connection, segments, filters, dimensions):
        query = select(*groups.columns, *_row_sums(connection)).where(groups.where).group_by(*groups.columns)
        for line in connection.execute(query):
            requests, counted, successes, *sums = line[len(groups.columns) :]
            key = groups.key_of(line[: len(groups.columns)])
            yield key, _counts((requests, successes, counted - (successes or 0), *sums))
    where = _summaries_where(segments, filters)
    if where is not None:
        columns = [SUMMARIES.c[name] for name in dimensions]
        sums = [func.sum(SUMMARIES.c[name]) for name in Counts._fields]
        money = Counts._fields.index("cost_nano")
        sums[money : money + 1] = wide_sum(SUMMARIES.c.cost_nano)
        for line in connection.execute(select(*columns, *sums).where(where).group_by(*columns)):
            yield tuple(line[: len(columns)]), _counts(line[len(columns) :])


_Part = tuple[Key | None, "ColumnElement[bool]"]


class _Groups(NamedTuple):
    """How the rows of one segment are grouped."""

    where: ColumnElement[bool]
    columns: list[Any]
    key_of: Callable[[Sequence[Any]], Key]
    parts: list[_Part]
    """The same rows as `where`, in parts that are fast to group further: those of one key, or all with None."""


def _row_groups(
    connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str]
) -> Iterator[_Groups]:
    """How to group the rows among the segments.

    Provider, model and agent are grouped by the number of their combination: one integer instead of three texts. For
    long segments SQLite has an index which holds all that is summed up, so that it neither sorts nor looks at the rows;
    it serves one combination after the other.
    """
    asked = _asked(filters)
    by_series = _SERIES_DIMENSIONS.issuperset(dimensions)
    keys = _series(connection, dimensions, {}) if by_series else {}
    indexed = by_series and connection.dialect.name == "sqlite" and _SERIES_DIMENSIONS.issuperset(asked)
    chosen = _series(connection, dimensions, asked) if indexed and asked else keys
    for segment in segments:
        if segment.source != "rows":
            continue
        times = and_(_call.created_at >= segment.start, _call.created_at < segment.end)
        where = and_(times, *(_call[name] == value for name, value in asked.items()))
        if indexed and segment.end - segment.start >= DAY:
            parts: list[_Part] = [(key, and_(times, _call.series_id == number)) for number, key in chosen.items()]
            yield _Groups(and_(times, _call.series_id.in_(chosen)), [_call.series_id], _named(keys), parts)
        elif by_series:
            # The sum keeps SQLite from reading the whole of that index for the sake of its order.
            yield _Groups(where, [_call.series_id + 0], _named(keys), [(None, where)])
        else:
            columns = [func.coalesce(_call[name], "") for name in dimensions]
            yield _Groups(where, columns, tuple, [(None, where)])


def _named(keys: Mapping[int, Key]) -> Callable[[Sequence[Any]], Key]:
    return lambda values: keys[values[0]]


def _asked(filters: Filters) -> dict[str, str]:
    return {name: value for name, value in filters._asdict().items() if value is not None}


def _series(connection: Connection, dimensions: Sequence[str], asked: Mapping[str, str]) -> dict[int, Key]:
    """The numbers of the combinations that are asked for, with their values of the dimensions."""
    series = LLM_SERIES.c
    named = select(series.series_id, *(series[name] for name in dimensions))
    found = connection.execute(named.where(*(series[name] == value for name, value in asked.items())))
    return {line[0]: tuple(line[1:]) for line in found}


def _counts(values: Sequence[Any]) -> Counts:
    """SQL's sums: NULL where there was nothing, and decimals on PostgreSQL."""
    *whole, high, low, rest, latency = (value or 0 for value in values)
    return Counts(*map(int, whole))._replace(
        cost_nano=joined(high, low), cost_rest=int(rest), latency_total_ms=float(latency)
    )


_call = LLM_CALLS.c


def _row_sums(connection: Connection) -> list[Any]:
    """In the order of `Counts`, but for the failures: before the successes, all calls that succeeded or failed."""
    number = type_coerce if connection.dialect.name == "sqlite" else cast
    return [
        func.count(),
        func.count(_call.success),
        func.sum(number(_call.success, Integer)),
        func.count(_call.cost_nano),
        func.sum(number(_call.cached, Integer)),
        func.sum(_call.input_tokens),
        func.sum(_call.output_tokens),
        func.sum(_call.reasoning_tokens),
        func.sum(_call.cached_tokens),
        func.sum(_call.cache_write_tokens),
        *wide_sum(_call.cost_nano),
        func.sum(_call.cost_rest),
        func.sum(_call.latency_ms),
    ]


def wide_sum(column: ColumnElement[int]) -> tuple[Any, Any]:
    """A sum in two, for `joined`: SQLite's own ends at 64 bits, where a few absurd costs would end every answer."""
    return func.sum(column // _HALF), func.sum(column % _HALF)


def joined(high: int | Decimal | None, low: int | Decimal | None) -> int:
    """What the two parts of a `wide_sum` stand for."""
    return int(high or 0) * _HALF + int(low or 0)


def _summaries_where(segments: Sequence[Segment], filters: Filters) -> ColumnElement[bool] | None:
    summary = SUMMARIES.c
    times = [
        and_(
            summary.period == segment.source,
            summary.period_start >= segment.start,
            summary.period_start < segment.end,
        )
        for segment in segments
        if segment.source != "rows"
    ]
    if not times or filters.rows_only:
        return None
    named = [summary[name] == value for name, value in _asked(filters).items()]
    return and_(or_(*times), *named)


class Bins(NamedTuple):
    """Durations by bin of the sketch, by the values of the dimensions."""

    latency: dict[Key, Counter[int]]
    first_token: dict[Key, Counter[int]]


def bins(connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str] = ()) -> Bins:
    """How the durations of the calls of these stretches of time are distributed."""
    found = Bins(defaultdict(Counter), defaultdict(Counter))
    for groups in _row_groups(connection, segments, filters, dimensions):
        for key, where in groups.parts:
            columns = groups.columns if key is None else []
            for into, number in zip(found, (_call.latency_bin, _call.ttft_bin), strict=True):
                query = select(*columns, number, func.count()).where(where, number.is_not(None))
                for line in connection.execute(query.group_by(*columns, number)):
                    into[groups.key_of(line[:-2]) if key is None else key][line[-2]] += line[-1]
    _add_sketches(connection, segments, filters, dimensions, found)
    return found


def _add_sketches(
    connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str], found: Bins
) -> None:
    where = _summaries_where(segments, filters)
    if where is None:
        return
    columns = [SUMMARIES.c[name] for name in dimensions]
    query = select(*columns, SUMMARIES.c.latency_sketch, SUMMARIES.c.ttft_sketch).where(where)
    sketches: tuple[dict[Key, list[bytes]], ...] = (defaultdict(list), defaultdict(list))
    for line in connection.execution_options(yield_per=_FETCH).execute(query):
        key = tuple(line[:-2])
        sketches[0][key].append(line[-2])
        if line[-1]:
            sketches[1][key].append(line[-1])
    for into, held in zip(found, sketches, strict=True):
        for key, parts in held.items():
            into[key].update(decode(parts))


def errors(
    connection: Connection, segments: Sequence[Segment], filters: Filters, dimensions: Sequence[str] = ()
) -> dict[Key, Counter[str]]:
    """How many calls failed, by type of error: the category, or else the class, or else the status."""
    found: dict[Key, Counter[str]] = defaultdict(Counter)
    times = [
        and_(_call.created_at >= segment.start, _call.created_at < segment.end)
        for segment in segments
        if segment.source == "rows"
    ]
    if times:
        columns = [func.coalesce(_call[name], "") for name in dimensions]
        kind = func.coalesce(_call.error_category, _call.error_type, _call.status)
        named = [_call[name] == value for name, value in _asked(filters).items()]
        # As text: SQLite uses the index of failures only for the very condition that it was made with.
        query = select(*columns, kind, func.count()).where(or_(*times), *named, text("NOT success"))
        for line in connection.execute(query.group_by(*columns, kind)):
            found[tuple(line[:-2])][line[-2]] += line[-1]
    where = _summaries_where(segments, filters)
    if where is not None:
        told = select(*(SUMMARIES.c[name] for name in dimensions), SUMMARIES.c.errors).where(
            where, SUMMARIES.c.errors.is_not(None)
        )
        for line in connection.execution_options(yield_per=_FETCH).execute(told):
            found[tuple(line[:-1])].update(json.loads(line[-1]))
    return found
