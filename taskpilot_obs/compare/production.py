"""What production did: models, prompts, agents or periods side by side, ranked where it is certain."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Unpack, get_args

from taskpilot_obs._telemetry.answers import Bins, By
from taskpilot_obs._telemetry.counts import NO_CALLS, Counts
from taskpilot_obs._telemetry.filters import column_of
from taskpilot_obs._telemetry.sketch import middle_of
from taskpilot_obs.compare.intervals import newcombe, quantile_interval, wilson
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import coverage, stats_of
from taskpilot_obs.store.queries import measured
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.rated import Rated, rated_by

if TYPE_CHECKING:
    from taskpilot_obs._telemetry.filters import Filters
    from taskpilot_obs.store import Store

GroupBy = Literal["model", "provider", "prompt_name", "agent", "variant", "period"]
_PERIOD: Final = "period"
_ALIKE: Final = 0.8
"""Two groups do comparable work where at least this share of their calls is of the same kinds of work."""


class Bounds(Frozen):
    """The values that the evidence leaves possible."""

    low: float
    high: float


class ComparedGroup(Frozen):
    """The LLM calls of one group. None is unknown, and never 0."""

    name: str
    requests: int
    success_rate: float | None
    """Percent."""
    success_interval: Bounds | None
    """By Wilson, percent."""
    mean_ms: float | None
    p50_ms: float | None
    p50_interval: Bounds | None
    p95_ms: float | None
    p95_interval: Bounds | None
    first_token_p50_ms: float | None
    cost_per_call_usd: Usd | None
    """Of calls with a known price."""
    cost_per_success_usd: Usd | None
    """The cost of all priced calls, divided by the successes; None while the price of some calls is unknown."""
    rated: int
    """Requests that users rated in the period, among those whose rows are kept."""
    confirmed_correct: int
    """Those whose last verdict is that the answer is correct."""
    cost_per_correct_usd: Usd | None
    """What the calls for rated requests cost, divided by those confirmed; None while the price of some is unknown."""
    cost_coverage: float | None
    tokens_per_call: float | None
    rank: int | None
    """1 for groups that no comparable group is certainly better than; None where nothing is comparable."""
    not_comparable: str | None
    """Why the group is not ranked."""


class Comparison(Frozen):
    """Groups of calls side by side, the one with most calls first; of periods, the one that was asked for."""

    by: str
    start: datetime
    end: datetime
    within: str
    """The work that must be the same for a ranking: `prompt_name` or `agent`."""
    groups: tuple[ComparedGroup, ...]
    incomplete_before: datetime | None


_UNRATED: Final = Rated(0, 0, Decimal(0), 0)


class _Seen(NamedTuple):
    """What the store knows of one group."""

    counts: Counts
    latency: Counter[int]
    first_token: Counter[int]
    work: Counter[str]
    """Calls by kind of work."""
    rated: Rated = _UNRATED


def compare(
    by: GroupBy = "model",
    period: Period = "30d",
    *,
    within: Literal["prompt_name", "agent"] | None = None,
    against: Period | None = None,
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> Comparison:
    """Put models, providers, prompts, agents, variants or periods side by side.

    A group is ranked by success only among groups that did comparable work, and two groups get different ranks only
    where their difference is beyond chance at this one look. For a decision by an experiment, which may be looked at
    again and again, use `compare_variants`.

    Args:
        by: what the groups are.
        period: which calls, as in `get_stats`.
        within: the work that must be the same; by default the agent, or the prompt where agents are compared.
        against: the other period, where periods are compared; by default the one of the same length just before.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: filters, as in `get_stats`.

    Returns:
        The figures of each group with their intervals, and the ranks.

    Raises:
        ConfigurationError: `by`, `within`, a period or a filter cannot be used, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    if by not in get_args(GroupBy):
        raise ConfigurationError(f"by: given {by!r}; allowed are {', '.join(get_args(GroupBy))}")
    if against is not None and by != _PERIOD:
        raise ConfigurationError("against: only periods are compared with another period; give by='period'")
    work = within or ("prompt_name" if by == "agent" else "agent")
    if work == by or work not in ("prompt_name", "agent"):
        raise ConfigurationError(f"within: given {work!r}; allowed is prompt_name or agent, and not what is compared")
    start, end = bounds(period, now)
    filters = filters_of(asked)
    if by == _PERIOD:
        before = (start - (end - start), start) if against is None else bounds(against, now)
        stretches = ((start, end), before)
        named = zip(_names(stretches), stretches, strict=True)
        told = [_of_period(store, name, stretch, filters, work) for name, stretch in named]
    else:
        told = [_of(store, (start, end), filters, (column_of(by), work))]
    seen = {name: group for stretch in told for name, group in stretch.seen.items()}
    incomplete = [stretch.incomplete_before for stretch in told if stretch.incomplete_before is not None]
    return Comparison(
        by=by,
        start=start,
        end=end,
        within=work,
        groups=tuple(_group(name, seen) for name in _in_order(by, seen)),
        incomplete_before=max(incomplete, default=None),
    )


def _in_order(by: str, seen: Mapping[str, _Seen]) -> list[str]:
    return [*seen] if by == _PERIOD else sorted(seen, key=lambda name: (-seen[name].counts.requests, name))


class _Told(NamedTuple):
    """What the store holds of one stretch of time."""

    seen: dict[str, _Seen]
    incomplete_before: datetime | None


def _of(
    store: str | Store | None, stretch: tuple[datetime, datetime], filters: Filters, dimensions: tuple[str, ...]
) -> _Told:
    """The calls of a stretch of time by group; the kind of work is the last of the dimensions."""
    with asked_of(store, *stretch, filters) as question:
        planned = question.plan(dimensions)
        counts, durations = measured(question.connection, planned, question.filters, By(dimensions))
        rated = rated_by(question, dimensions[:-1])
    return _Told(_by_group(counts, durations, rated), planned.incomplete_before)


def _names(stretches: Sequence[tuple[datetime, datetime]]) -> list[str]:
    """The periods as text: to the minute, or in full where that is the same for two of them."""
    short = [" to ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in stretch) for stretch in stretches]
    if len({*short}) == len(short):
        return short
    return [" to ".join(f"{moment:%Y-%m-%d %H:%M:%S.%f}" for moment in stretch) for stretch in stretches]


def _of_period(
    store: str | Store | None, name: str, stretch: tuple[datetime, datetime], filters: Filters, work: str
) -> _Told:
    """A whole period as one group under its name."""
    found = _of(store, stretch, filters, (work,))
    return found._replace(seen=dict(zip([name], found.seen.values(), strict=False)))  # a period without calls has none


def _by_group(
    counts: Mapping[tuple[str, ...], Counts], durations: Bins, rated: Mapping[tuple[str, ...], Rated]
) -> dict[str, _Seen]:
    found: defaultdict[str, _Seen] = defaultdict(lambda: _Seen(NO_CALLS, Counter(), Counter(), Counter()))
    for key, more in counts.items():
        *group_key, work = key
        name = "".join(group_key) or NONE
        group = found[name]
        found[name] = group._replace(counts=group.counts.plus(more), rated=rated.get((*group_key,), _UNRATED))
        group.work[work] += more.requests
        group.latency.update(durations.latency.get(key, Counter()))
        group.first_token.update(durations.first_token.get(key, Counter()))
    return dict(found)


def _group(name: str, seen: Mapping[str, _Seen]) -> ComparedGroup:
    own = seen[name]
    counts, stats = own.counts, stats_of(own.counts, own.latency, own.first_token)
    counted = counts.successes + counts.failures
    durations = {middle_of(number): n for number, n in own.latency.items()}
    alike = [other for other in seen if other != name and _overlap(own.work, seen[other].work) >= _ALIKE]
    whole = coverage(counts) == 1.0
    return ComparedGroup(
        name=name,
        requests=counts.requests,
        success_rate=stats.success_rate,
        success_interval=_percent(wilson(counts.successes, counted)) if counted else None,
        mean_ms=stats.latency.mean_ms,
        p50_ms=stats.latency.p50_ms,
        p50_interval=_bounds(quantile_interval(durations, 0.5)),
        p95_ms=stats.latency.p95_ms,
        p95_interval=_bounds(quantile_interval(durations, 0.95)),
        first_token_p50_ms=stats.time_to_first_token.p50_ms,
        cost_per_call_usd=counts.cost / counts.priced if counts.priced else None,
        cost_per_success_usd=counts.cost / counts.successes if whole and counts.successes else None,
        rated=own.rated.requests,
        confirmed_correct=own.rated.correct,
        cost_per_correct_usd=_per_correct(own.rated),
        cost_coverage=stats.cost_coverage,
        tokens_per_call=(counts.input_tokens + counts.output_tokens) / counts.requests if counts.requests else None,
        rank=_rank(counts, [seen[other].counts for other in alike]) if alike else None,
        not_comparable=None if alike else "no other group did the same work",
    )


def _per_correct(rated: Rated) -> Decimal | None:
    return rated.cost / rated.correct if rated.correct and not rated.unpriced else None


def _overlap(own: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The share of the calls of both groups that is of the same kinds of work."""
    mine, theirs = sum(own.values()), sum(other.values())
    return sum(min(own[work] / mine, other.get(work, 0) / theirs) for work in own)


def _rank(own: Counts, others: Iterable[Counts]) -> int:
    return 1 + sum(1 for other in others if _certainly_better(other, own))


def _certainly_better(one: Counts, other: Counts) -> bool:
    counted, others_counted = one.successes + one.failures, other.successes + other.failures
    return newcombe(one.successes, counted, other.successes, others_counted).low > 0


def _percent(interval: Interval) -> Bounds:
    return Bounds(low=100 * interval.low, high=100 * interval.high)


def _bounds(interval: Interval | None) -> Bounds | None:
    return None if interval is None else Bounds(low=interval.low, high=interval.high)
