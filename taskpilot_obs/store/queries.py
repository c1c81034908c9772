"""Sums over LLM calls, from rows or from summaries, by the same dimensions and in the same shape."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, and_, cast, func, literal_column, or_, select, text, type_coerce

from taskpilot_obs._support.timestamps import MICROSECOND
from taskpilot_obs._telemetry.answers import WHOLE, Bins, By, Key
from taskpilot_obs._telemetry.counts import Counts, counts_of, joined
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs._telemetry.sketch import decode
from taskpilot_obs._telemetry.values import PRICING
from taskpilot_obs.records import Pricing
from taskpilot_obs.store import on_clickhouse, on_sqlite
from taskpilot_obs.store.filters import rows_where
from taskpilot_obs.store.segments import DAY
from taskpilot_obs.store.tables import LLM_CALLS, LLM_SERIES, SUMMARIES, columns_of
from taskpilot_obs.store.wide import wide_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection, TextClause

    from taskpilot_obs.store.segments import QueryPlan

_SERIES_DIMENSIONS: Final = frozenset({"provider", "model_name", "agent"})
_FETCH: Final = 20_000
_MOST_PARTS: Final = 50
"""So many series are looked up one by one in SQLite's index of sums; more are read in one pass."""
_FEW_ROWS: Final = frozenset({"user_id", "session_id", "request_id", "task_id", "workflow_run_id"})
"""Filters with an index that leaves few rows."""
_call = LLM_CALLS.c


def totals(connection: Connection, plan: QueryPlan, filters: Filters, by: By = WHOLE) -> dict[Key, Counts]:
    """What the calls of a plan add up to, by step and by the values of the dimensions."""
    return _added(_totals(connection, plan, filters, by))


def measured(connection: Connection, plan: QueryPlan, filters: Filters, by: By) -> tuple[dict[Key, Counts], Bins]:
    """`totals` and `bins`, with one pass less over rows that no index holds in order."""
    found = Bins(defaultdict(Counter), defaultdict(Counter))
    lines: list[tuple[Key, Counts]] = []
    for groups in _row_groups(connection, plan, filters, by):
        if groups.parts is None:
            for key, number, counts in _binned_sums(connection, plan, groups):
                lines.append((key, counts))
                found.latency[key][number] += counts.requests
        else:
            lines += _row_totals(connection, plan, groups)
            _add_bins(connection, groups, _call.latency_bin, found.latency)
        _add_bins(connection, groups, _call.ttft_bin, found.first_token)
    lines += _summary_totals(connection, plan, filters, by)
    _add_sketches(connection, plan, filters, by, found)
    return _added(lines), found


def _added(lines: Iterable[tuple[Key, Counts]]) -> dict[Key, Counts]:
    found: dict[Key, Counts] = {}
    for key, counts in lines:
        if not counts.requests:
            continue  # a sum over nothing
        known = found.get(key)
        found[key] = counts if known is None else known.plus(counts)
    return found


def _totals(connection: Connection, plan: QueryPlan, filters: Filters, by: By) -> Iterator[tuple[Key, Counts]]:
    for groups in _row_groups(connection, plan, filters, by):
        yield from _row_totals(connection, plan, groups)
    yield from _summary_totals(connection, plan, filters, by)


def _row_totals(connection: Connection, plan: QueryPlan, groups: _Groups) -> Iterator[tuple[Key, Counts]]:
    query = select(*groups.columns, *_row_sums(connection, plan)).where(groups.where).group_by(*groups.columns)
    for line in connection.execute(query):
        yield groups.key_of(line[: len(groups.columns)]), _counts_of_sums(line[len(groups.columns) :])


def _binned_sums(connection: Connection, plan: QueryPlan, groups: _Groups) -> Iterator[tuple[Key, int, Counts]]:
    """Sums by key and by bin of the latency: the engine sorts or hashes the rows once.

    SQLite sorts, and compares the number before the names.
    """
    columns = [*groups.columns, _call.latency_bin]
    query = select(*columns, *_row_sums(connection, plan)).where(groups.where).group_by(*reversed(columns))
    with on_sqlite.sorting_in_small_runs(connection):
        lines = connection.execute(query).all()
    for line in lines:
        *key, number = line[: len(columns)]
        yield groups.key_of(key), number, _counts_of_sums(line[len(columns) :])


def _counts_of_sums(sums: Sequence[Any]) -> Counts:
    requests, counted, successes, *rest = sums
    return counts_of((requests, successes, counted - (successes or 0), *rest))


def _summary_totals(connection: Connection, plan: QueryPlan, filters: Filters, by: By) -> Iterator[tuple[Key, Counts]]:
    where = _summaries_where(plan, filters)
    if where is None:
        return
    columns = _summary_columns(connection, by)
    there = columns_of(SUMMARIES, plan.version)
    sums = [func.sum(SUMMARIES.c[name]) if name in there else literal_column("0") for name in Counts._fields]
    money = Counts._fields.index("cost_nano")
    sums[money : money + 1] = wide_sum(SUMMARIES.c.cost_nano)
    for line in connection.execute(select(*columns, *sums).where(where).group_by(*columns)):
        yield tuple(line[: len(columns)]), counts_of(line[len(columns) :])


def costs(connection: Connection, plan: QueryPlan, filters: Filters, by: By = WHOLE) -> dict[Key, Decimal]:
    """What the calls of a plan cost, in USD, by key: a fifth of the columns that `totals` adds up."""
    found: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0])
    for key, (high, low, rest) in _costs(connection, plan, filters, by):
        found[key][0] += joined(high, low)
        found[key][1] += int(rest or 0)
    return {key: to_decimal(nano, rest) for key, (nano, rest) in found.items()}


def _costs(connection: Connection, plan: QueryPlan, filters: Filters, by: By) -> Iterator[tuple[Key, Sequence[Any]]]:
    for groups in _row_groups(connection, plan, filters, by):
        sums = (*wide_sum(_call.cost_nano), func.sum(_call.cost_rest))
        query = select(*groups.columns, *sums).where(groups.where).group_by(*groups.columns)
        for line in connection.execute(query):
            yield groups.key_of(line[:-3]), line[-3:]
    where = _summaries_where(plan, filters)
    if where is not None:
        columns = _summary_columns(connection, by)
        sums = (*wide_sum(SUMMARIES.c.cost_nano), func.sum(SUMMARIES.c.cost_rest))
        for line in connection.execute(select(*columns, *sums).where(where).group_by(*columns)):
            yield tuple(line[:-3]), line[-3:]


def _step_of(connection: Connection, moment: Any, step: timedelta) -> Any:
    """The number of the step that holds a moment. Written out, so that what is selected and grouped is one text."""
    if connection.dialect.name == "sqlite":
        return literal_column(f"{moment} / {step // MICROSECOND}", Integer)
    if on_clickhouse.is_on(connection):
        return literal_column(on_clickhouse.step_of(moment, step), Integer)
    seconds = int(step.total_seconds())
    return literal_column(f"CAST(floor(extract(epoch FROM {moment}) / {seconds}) AS bigint)", Integer)


def _summary_columns(connection: Connection, by: By) -> list[Any]:
    columns: list[Any] = [SUMMARIES.c[name] for name in by.dimensions]
    return columns if by.step is None else [_step_of(connection, SUMMARIES.c.period_start, by.step), *columns]


# --- rows ------------------------------------------------------------------------------------------------------------


class _Groups(NamedTuple):
    """How the rows of one segment are grouped."""

    where: ColumnElement[bool]
    columns: list[Any]
    key_of: Callable[[Sequence[Any]], Key]
    parts: Mapping[Key, ColumnElement[bool]] | None
    """The same rows as `where`, in parts of one key that are fast to group further; None: in one pass."""


def _row_groups(connection: Connection, plan: QueryPlan, filters: Filters, by: By) -> Iterator[_Groups]:
    """How to group the rows among the segments.

    Provider, model and agent are grouped by the number of their combination: one integer instead of three texts. For
    long segments SQLite has an index which holds all that is summed up, so that it neither sorts nor looks at the rows;
    it serves one combination after the other.
    """
    stepped = [] if by.step is None else [_step_of(connection, _call.created_at, by.step)]
    by_series = _SERIES_DIMENSIONS.issuperset(by.dimensions)
    keys = _series(connection, by.dimensions, {}) if by_series else {}
    indexed = by_series and connection.dialect.name == "sqlite" and _SERIES_DIMENSIONS.issuperset(filters)
    chosen = _series(connection, by.dimensions, filters) if indexed and filters else keys
    for times, length in _row_times(connection, plan):
        where = and_(times, *rows_where(filters))
        if indexed and length >= DAY:
            within = and_(times, _call.series_id.in_(chosen))
            parts = None if stepped or len(chosen) > _MOST_PARTS else _parts(chosen, times)
            yield _Groups(within, [*stepped, _call.series_id], _named(keys), parts)
        elif by_series:
            # The sum keeps SQLite from reading the whole of that index for the sake of its order.
            yield _Groups(where, [*stepped, _call.series_id + 0], _named(keys), None)
        else:
            columns = [func.coalesce(_call[name], "") for name in by.dimensions]
            yield _Groups(where, [*stepped, *columns], tuple, None)


def _row_times(connection: Connection, plan: QueryPlan) -> list[tuple[ColumnElement[bool], timedelta]]:
    """The stretches of time that rows answer for, and how long each is.

    In ClickHouse a query costs more than the rows of an hour: one reads all of them.
    """
    found = [
        (and_(_call.created_at >= segment.start, _call.created_at < segment.end), segment.end - segment.start)
        for segment in plan.segments
        if segment.source == "rows"
    ]
    if not found or not on_clickhouse.is_on(connection):
        return found
    times, lengths = zip(*found, strict=True)
    return [(or_(*times), max(lengths))]


def _parts(chosen: Mapping[int, Key], times: ColumnElement[bool]) -> dict[Key, ColumnElement[bool]]:
    numbers: dict[Key, list[int]] = defaultdict(list)
    for number, key in chosen.items():
        numbers[key].append(number)
    return {key: and_(times, _call.series_id.in_(held)) for key, held in numbers.items()}


def _named(keys: Mapping[int, Key]) -> Callable[[Sequence[Any]], Key]:
    def key_of(values: Sequence[Any]) -> Key:
        return (*values[:-1], *keys[values[-1]])

    return key_of


def _series(connection: Connection, dimensions: Sequence[str], asked: Mapping[str, str]) -> dict[int, Key]:
    """The numbers of the combinations that are asked for, with their values of the dimensions."""
    series = LLM_SERIES.c
    named = select(series.series_id, *(series[name] for name in dimensions))
    found = connection.execute(named.where(*(series[name] == value for name, value in asked.items())))
    return {line[0]: tuple(line[1:]) for line in found}


def _row_sums(connection: Connection, plan: QueryPlan) -> list[Any]:
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
        *_pricing(plan),
        func.sum(_call.latency_ms),
    ]


def _pricing(plan: QueryPlan) -> tuple[Any, Any]:
    """How many calls were refused, and how many have a cost that lacks something."""
    if plan.version < "0004":
        return literal_column("0"), literal_column("0")
    is_free = and_(_call.pricing == PRICING[Pricing.FREE], or_(_call.cached.is_(None), _call.cached.is_(False)))
    return func.count().filter(is_free), func.count().filter(_call.pricing == PRICING[Pricing.PARTIAL])


def _summaries_where(plan: QueryPlan, filters: Filters) -> ColumnElement[bool] | None:
    summary = SUMMARIES.c
    times = [
        and_(
            summary.period == plan.rollup.period(segment.source),
            summary.period_start >= segment.start,
            summary.period_start < segment.end,
        )
        for segment in plan.segments
        if segment.source != "rows"
    ]
    if not times:
        return None
    # A line without calls is what ClickHouse has in the place of one that was deleted.
    return and_(or_(*times), summary.requests > 0, *(summary[name] == value for name, value in filters.items()))


# --- durations and failures ------------------------------------------------------------------------------------------


def bins(connection: Connection, plan: QueryPlan, filters: Filters, by: By = WHOLE) -> Bins:
    """How the durations of the calls of a plan are distributed."""
    found = Bins(defaultdict(Counter), defaultdict(Counter))
    for groups in _row_groups(connection, plan, filters, by):
        for into, number in zip(found, (_call.latency_bin, _call.ttft_bin), strict=True):
            _add_bins(connection, groups, number, into)
    _add_sketches(connection, plan, filters, by, found)
    return found


def _add_bins(connection: Connection, groups: _Groups, number: Any, into: dict[Key, Counter[int]]) -> None:
    if groups.parts is None:
        query = select(*groups.columns, number, func.count()).where(groups.where, number.is_not(None))
        for line in connection.execute(query.group_by(*groups.columns, number)):
            into[groups.key_of(line[:-2])][line[-2]] += line[-1]
        return
    for key, where in groups.parts.items():
        found = select(number, func.count()).where(where, number.is_not(None)).group_by(number)
        for line in connection.execute(found):
            into[key][line[0]] += line[1]


def _add_sketches(connection: Connection, plan: QueryPlan, filters: Filters, by: By, found: Bins) -> None:
    where = _summaries_where(plan, filters)
    if where is None:
        return
    columns = _summary_columns(connection, by)
    told = (_bytes(connection, SUMMARIES.c[name]) for name in ("latency_sketch", "ttft_sketch"))
    query = select(*columns, *told).where(where)
    read = bytes.fromhex if on_clickhouse.is_on(connection) else bytes
    sketches: tuple[dict[Key, list[bytes]], ...] = (defaultdict(list), defaultdict(list))
    for line in connection.execute(query.execution_options(yield_per=_FETCH)):
        key = tuple(line[:-2])
        sketches[0][key].append(read(line[-2]))
        if line[-1]:
            sketches[1][key].append(read(line[-1]))
    for into, held in zip(found, sketches, strict=True):
        for key, parts in held.items():
            into[key].update(decode(parts))


def _bytes(connection: Connection, column: Any) -> Any:
    """A column of bytes; as hexadecimal digits of ClickHouse, whose driver takes it for text."""
    return func.hex(column) if on_clickhouse.is_on(connection) else column


def _failed(filters: Filters) -> TextClause:
    """Which rows failed, as text: an index of failures is used only for the condition that it was made with.

    The few rows of a user or a request have an index of their own, beside which PostgreSQL would read every failure.
    """
    return text("coalesce(success, true) = false" if filters.keys() & _FEW_ROWS else "NOT success")


def errors(connection: Connection, plan: QueryPlan, filters: Filters, by: By = WHOLE) -> dict[Key, Counter[str]]:
    """How many calls failed, by type of error: the category, or else the class, or else the status."""
    found: dict[Key, Counter[str]] = defaultdict(Counter)
    times = [stretch for stretch, _ in _row_times(connection, plan)]
    if times:
        columns = [] if by.step is None else [_step_of(connection, _call.created_at, by.step)]
        columns += [func.coalesce(_call[name], "") for name in by.dimensions]
        kind = func.coalesce(_call.error_category, _call.error_type, _call.status)
        query = select(*columns, kind, func.count()).where(or_(*times), *rows_where(filters), _failed(filters))
        for line in connection.execute(query.group_by(*columns, kind)):
            found[tuple(line[:-2])][line[-2]] += line[-1]
    where = _summaries_where(plan, filters)
    if where is not None:
        told = select(*_summary_columns(connection, by), SUMMARIES.c.errors).where(
            where, SUMMARIES.c.errors.is_not(None)
        )
        for line in connection.execute(told.execution_options(yield_per=_FETCH)):
            found[tuple(line[:-1])].update(json.loads(line[-1]))
    return found
