"""What a run comes to by arm, in the field names of aiperf where they mean the same, and what is certain of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import combinations
from statistics import fmean, stdev
from typing import Final, NamedTuple

from scipy.stats import ttest_ind

from taskpilot_obs.compare.bench.calls import BenchCall
from taskpilot_obs.compare.bench.plan import Plan
from taskpilot_obs.compare.intervals import CONFIDENCE, newcombe, quantile_interval, wilson
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.stats.model import Frozen, Usd

SCHEMA: Final = 1
"""The version of the report's fields."""
_PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_FEW: Final = 2
_ROUNDING: Final = 1e-12


class Distribution(Frozen):
    """How one measure is distributed over the calls of an arm."""

    unit: str
    count: int
    avg: float
    min: float
    max: float
    std: float | None
    """Of the sample; None for a single call."""
    p1: float
    p5: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float


class Scalar(Frozen):
    """One figure of the whole arm."""

    unit: str
    avg: float


class Share(Frozen):
    """A share of calls, 0 to 1, with Wilson's interval."""

    of: int
    value: float
    low: float
    high: float


class Range(Frozen):
    """The values that the evidence leaves possible."""

    low: float
    high: float


class ArmReport(Frozen):
    """The figures of one arm. None is unknown, or cannot be computed from so few calls."""

    described: dict[str, str | None]
    request_count: int
    """Calls that succeeded, as aiperf counts them."""
    error_request_count: int
    error_summary: dict[str, int]
    """Failed calls by category."""
    retry_count: int
    success: Share | None
    correct: Share | None
    """Of the answers that a checker judged."""
    request_latency: Distribution | None
    request_latency_p50_interval: Range | None
    request_latency_p95_interval: Range | None
    time_to_first_token: Distribution | None
    inter_token_latency: Distribution | None
    output_token_throughput_per_user: Distribution | None
    output_token_throughput: Scalar | None
    request_throughput: Scalar | None
    goodput: Scalar | None
    good_request_count: int | None
    input_sequence_length: Distribution | None
    output_sequence_length: Distribution | None
    reasoning_token_count: Distribution | None
    cached_tokens: int | None
    """Prompt tokens that the providers read from their caches."""
    cost_usd: Usd | None
    """Of the calls with a known cost; None where none has one."""
    cost_coverage: float | None
    """Share of the calls whose cost is known."""
    cost_per_call_usd: Usd | None
    cost_per_success_usd: Usd | None
    cost_per_correct_usd: Usd | None
    """None while some call's cost is unknown."""
    generator_lag: Distribution | None
    """How late the runner sent the calls."""


class BestArms(Frozen):
    """Which arms are best by one measure, beyond chance."""

    measure: str
    best: tuple[str, ...]
    """The arms that none is certainly better than; several where the evidence does not tell them apart."""
    worse: tuple[str, ...]
    """Arms that some other is certainly better than."""

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if not self.worse:
            return f"{self.measure}: not enough evidence to tell {', '.join(self.best)} apart"
        return f"{self.measure}: {', '.join(self.best)} better than {', '.join(self.worse)}"


class BenchmarkReport(Frozen):
    """The result of a run."""

    schema_version: int = SCHEMA
    run_id: str
    name: str
    status: str
    """`finished`, `stopped` (by the cap on the money) or `cancelled`."""
    stopped: str | None
    start_time: datetime
    end_time: datetime
    benchmark_duration_s: float
    plan: Plan
    load: str
    retry_rule: str
    cache_state: str
    versions: dict[str, str]
    failed_arms: dict[str, str]
    """Arms that could not be connected, and why."""
    arms: dict[str, ArmReport]
    findings: tuple[BestArms, ...]


def arm_report(
    calls: Sequence[BenchCall], duration_s: float, objectives: Mapping[str, float], described: Mapping[str, str | None]
) -> ArmReport:
    """The figures of one arm.

    Args:
        calls: its measured calls.
        duration_s: how long the measurement took.
        objectives: milliseconds that a call may take, by measure.
        described: what the arm is.
    """
    good = [call for call in calls if call.success]
    latencies = [call.latency_ms for call in good]
    kept = [call for call in good if _keeps(call, objectives)] if objectives else None
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    cost = sum(known, Decimal(0)) if known else None
    whole = cost if len(known) == len(calls) else None
    right = sum(1 for call in good if call.correct)
    tokens = sum(call.output_tokens or 0 for call in good)
    return ArmReport(
        described=dict(described),
        request_count=len(good),
        error_request_count=len(calls) - len(good),
        error_summary=dict(Counter(call.error_category or call.status for call in calls if not call.success)),
        retry_count=sum(call.retries for call in calls),
        success=_share(len(good), len(calls)),
        correct=_share(right, sum(1 for call in calls if _is_judged(call))),
        request_latency=_distribution("ms", latencies),
        request_latency_p50_interval=_range(latencies, 0.5),
        request_latency_p95_interval=_range(latencies, 0.95),
        time_to_first_token=_distribution("ms", (call.time_to_first_token_ms for call in good)),
        inter_token_latency=_distribution("ms", map(inter_token_ms, good)),
        output_token_throughput_per_user=_distribution("tokens/sec/user", map(_tokens_per_s, good)),
        output_token_throughput=_scalar("tokens/sec", tokens, duration_s),
        request_throughput=_scalar("requests/sec", len(good), duration_s),
        goodput=None if kept is None else _scalar("requests/sec", len(kept), duration_s),
        good_request_count=None if kept is None else len(kept),
        input_sequence_length=_distribution("tokens", (call.input_tokens for call in good)),
        output_sequence_length=_distribution("tokens", (call.output_tokens for call in good)),
        reasoning_token_count=_distribution("tokens", (call.reasoning_tokens for call in good)),
        cached_tokens=_total([call.cached_tokens for call in calls]),
        cost_usd=cost,
        cost_coverage=len(known) / len(calls) if calls else None,
        cost_per_call_usd=None if cost is None else cost / len(known),
        cost_per_success_usd=whole / len(good) if whole is not None and good else None,
        cost_per_correct_usd=whole / right if whole is not None and right else None,
        generator_lag=_distribution("ms", (call.lag_ms for call in calls)),
    )


def _is_judged(call: BenchCall) -> bool:
    """Whether correctness can be counted: an answer was judged, or there was none and so it was not correct."""
    return call.correct is not None or not call.success


def inter_token_ms(call: BenchCall) -> float | None:
    """(latency - time to the first token) / (output tokens - 1); None where one of them is unknown."""
    if call.time_to_first_token_ms is None or call.output_tokens is None or call.output_tokens < _FEW:
        return None
    return (call.latency_ms - call.time_to_first_token_ms) / (call.output_tokens - 1)


def _tokens_per_s(call: BenchCall) -> float | None:
    between = inter_token_ms(call)
    return 1_000 / between if between else None


def _keeps(call: BenchCall, objectives: Mapping[str, float]) -> bool:
    measured = {
        "request_latency": call.latency_ms,
        "time_to_first_token": call.time_to_first_token_ms,
        "inter_token_latency": inter_token_ms(call),
    }
    return all((found := measured[name]) is not None and found <= most for name, most in objectives.items())


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _share(part: int, of: int) -> Share | None:
    if not of:
        return None
    low, high = wilson(part, of)
    return Share(of=of, value=part / of, low=low, high=high)


def _scalar(unit: str, amount: float, duration_s: float) -> Scalar | None:
    return Scalar(unit=unit, avg=amount / duration_s) if duration_s > 0 else None


def _range(values: Sequence[float], q: float) -> Range | None:
    found = quantile_interval(Counter(values), q)
    return None if found is None else Range(low=found.low, high=found.high)


def _distribution(unit: str, values: Iterable[float | None]) -> Distribution | None:
    found = sorted(value for value in values if value is not None)
    if not found:
        return None
    quantiles = {f"p{number}": percentile(found, number / 100) for number in _PERCENTILES}
    return Distribution(
        unit=unit, count=len(found), avg=fmean(found), min=found[0], max=found[-1],
        std=stdev(found) if len(found) >= _FEW else None, **quantiles,
    )  # fmt: skip


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at a share of the way through ordered values, between two neighbours by linear interpolation."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


# --- findings -------------------------------------------------------------------------------------------------------


class _Measure(NamedTuple):
    """A measure, and the interval of the difference of two arms by it; more is better after `sign`."""

    name: str
    sign: int
    difference: Callable[[Sequence[BenchCall], Sequence[BenchCall], float], Interval | None]


def findings(by_arm: Mapping[str, Sequence[BenchCall]]) -> tuple[BestArms, ...]:
    """Which arms are best by correctness, success, median latency and cost of an answer.

    Two arms differ where the interval of their difference excludes 0. The error of 5 % is shared out over all pairs of
    arms (Bonferroni), and the number of calls was decided on before.

    Args:
        by_arm: the measured calls by arm.
    """
    return tuple(found for measure in _MEASURES if (found := _finding(measure, by_arm)) is not None)


def _finding(measure: _Measure, by_arm: Mapping[str, Sequence[BenchCall]]) -> BestArms | None:
    pairs = [*combinations(by_arm, 2)]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    compared: set[str] = set()
    worse: set[str] = set()
    for one, other in pairs:
        interval = measure.difference(by_arm[one], by_arm[other], confidence)
        if interval is None:
            continue
        compared |= {one, other}
        if not interval.contains(0.0):
            worse.add(other if interval.low * measure.sign > 0 else one)
    if not compared:
        return None
    best = tuple(name for name in by_arm if name in compared - worse)
    return BestArms(measure=measure.name, best=best, worse=tuple(name for name in by_arm if name in worse))


def _correct(one: Sequence[BenchCall], other: Sequence[BenchCall], confidence: float) -> Interval | None:
    mine, theirs = ([call for call in calls if _is_judged(call)] for calls in (one, other))
    if not mine or not theirs or all(call.correct is None for call in (*mine, *theirs)):
        return None
    right = [sum(1 for call in calls if call.correct) for calls in (mine, theirs)]
    return newcombe(right[0], len(mine), right[1], len(theirs), confidence=confidence)


def _success(one: Sequence[BenchCall], other: Sequence[BenchCall], confidence: float) -> Interval | None:
    good = [sum(1 for call in calls if call.success) for calls in (one, other)]
    return newcombe(good[0], len(one), good[1], len(other), confidence=confidence) if one and other else None


def _median_latency(one: Sequence[BenchCall], other: Sequence[BenchCall], confidence: float) -> Interval | None:
    """Each median lies within its exact interval at half of the error: then the difference lies between their ends."""
    counts = [Counter(call.latency_ms for call in calls if call.success) for calls in (one, other)]
    mine, theirs = (quantile_interval(each, 0.5, confidence=(1 + confidence) / 2) for each in counts)
    return None if mine is None or theirs is None else Interval(mine.low - theirs.high, mine.high - theirs.low)


def _mean_cost(one: Sequence[BenchCall], other: Sequence[BenchCall], confidence: float) -> Interval | None:
    """Welch's interval; None while the cost of an answer is unknown."""
    mine, theirs = ([call.cost_usd for call in calls if call.success] for calls in (one, other))
    if None in mine or None in theirs or min(len(mine), len(theirs)) < _FEW:
        return None
    values = [[float(cost or 0) for cost in costs] for costs in (mine, theirs)]
    if all(_is_constant(each) for each in values):
        difference = values[0][0] - values[1][0]
        return Interval(difference, difference)
    found = ttest_ind(*values, equal_var=False).confidence_interval(confidence)
    return Interval(float(found.low), float(found.high))


def _is_constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _ROUNDING * max(map(abs, values))


_MEASURES: Final = (
    _Measure("correct answers", 1, _correct),
    _Measure("success", 1, _success),
    _Measure("median latency", -1, _median_latency),
    _Measure("cost of an answer", -1, _mean_cost),
)
