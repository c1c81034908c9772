"""Which variant of an experiment is better, and how certain that is, at whatever moment one looks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, get_args

from scipy.optimize import brentq
from scipy.stats import false_discovery_control

from taskpilot_obs.compare.experiment import Experiment, Measure, check_shares
from taskpilot_obs.compare.intervals import CONFIDENCE
from taskpilot_obs.compare.report import Arm, Effect, VariantsReport, Verdict
from taskpilot_obs.compare.sequences import (
    ROUNDING,
    Moments,
    mean_difference_sequence,
    mean_sequence,
    moments_of,
    proportion_sequence,
    quantile_sequence,
    sample_ratio_p_value,
)
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.stats.asking import filters_of
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.store.experiments import TaskFilter, UnitRuns, UnitVerdicts, runs_by_unit, verdicts_by_unit
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.tables import AGENT_RUNS

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

BROKEN_BELOW: Final = 0.001
"""Below this p-value the sizes of the arms contradict the planned shares, and nothing else is believed."""
_MORE_IS_BETTER: Final = frozenset({"success", "correctness"})
_UNBOUNDED: Final = frozenset({"cost", "tokens"})
_QUANTILES: Final[dict[str, float]] = {"p50": 0.5, "p95": 0.95}
_MOST_GROWTH: Final = 4_096
"""How many times the present evidence is looked ahead; what needs more is not worth a number."""
_SURE: Final = 1 - 1e-9


@dataclass(frozen=True)
class _Evidence:
    """The observations of one arm by one measure, one for each unit."""

    values: Sequence[float]

    @cached_property
    def moments(self) -> Moments:
        return moments_of(self.values)

    @cached_property
    def counts(self) -> Mapping[float, int]:
        """How often each value was observed, in rising order, which is quick to sort again."""
        return dict(sorted(Counter(self.values).items()))


def compare_variants(
    experiment: Experiment | str,
    period: Period = "30d",
    *,
    shares: Mapping[str, float] | None = None,
    primary: Measure = "success",
    secondary: Sequence[Measure] = ("cost", "p95", "correctness"),
    tenant_id: str | None = None,
    store: str | Store | None = None,
    now: datetime | None = None,
) -> VariantsReport:
    """Compare the variants of an experiment with its control.

    Intervals and p-values hold at all looks together, however many; the unit of analysis is the assigned unit.

    Args:
        experiment: the experiment, or its name.
        period: which tasks, as in `get_stats`.
        shares: the planned shares by variant, the control first, where only the name is given; equal by default.
        primary: the measure that decides, where only the name is given.
        secondary: the measures beside it, where only the name is given.
        tenant_id: only tasks and verdicts of this tenant; None for all.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Returns:
        The figures of each variant, and its difference from the control.

    Raises:
        ConfigurationError: the period, a measure or the shares cannot be used, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    filters = filters_of({"tenant_id": tenant_id})
    name = experiment if isinstance(experiment, str) else experiment.name
    with asked_of(store, start, end, filters) as question:
        question.needs(AGENT_RUNS, "experiment_unit")
        tasks = TaskFilter(name, start, end, filters.get("organization_id"))
        runs = list(runs_by_unit(question.connection, tasks))
        verdicts = list(verdicts_by_unit(question.connection, tasks))
        incomplete = question.plan().incomplete_before
    if isinstance(experiment, Experiment):
        shares, primary, secondary = experiment.variants, experiment.primary, experiment.secondary
    if shares:
        check_shares(shares, "shares")
    planned = dict(shares) if shares else _equal_shares(runs)
    _check_measures(primary, *secondary)
    return _report(name, (start, end), planned, (primary, *secondary), runs, verdicts, incomplete)


def _check_measures(*given: str) -> None:
    for measure in given:
        if measure not in get_args(Measure):
            raise ConfigurationError(f"given the measure {measure!r}; allowed are {', '.join(get_args(Measure))}")


def _equal_shares(runs: Iterable[UnitRuns]) -> dict[str, float]:
    variants = sorted({unit.variant for unit in runs})
    return {variant: 1 / len(variants) for variant in variants}


def _report(
    name: str,
    period: tuple[datetime, datetime],
    planned: Mapping[str, float],
    measures: Sequence[str],
    runs: Sequence[UnitRuns],
    verdicts: Sequence[UnitVerdicts],
    incomplete: datetime | None,
) -> VariantsReport:
    evidence = _evidence(runs, verdicts)
    units = Counter(unit.variant for unit in runs)
    ratio = sample_ratio_p_value([units[each] for each in planned], list(planned.values())) if planned else 1.0
    blocked = _blocked(ratio, planned, units)
    control = next(iter(planned), "")
    others = [variant for variant in planned if variant != control]
    found = [_effect(measure, each, evidence, control) for measure in measures for each in others]
    effects = tuple(_judged(found, measures[0], blocked=blocked is not None))
    return VariantsReport(
        experiment=name,
        start=period[0],
        end=period[1],
        control=control,
        primary=_leading([each for each in effects if each.measure == measures[0]]),
        arms=tuple(_arm(variant, planned[variant], runs, evidence) for variant in planned),
        effects=effects,
        sample_ratio_p_value=ratio,
        blocked=blocked,
        incomplete_before=incomplete,
    )


def _blocked(ratio: float, planned: Mapping[str, float], units: Counter[str]) -> str | None:
    unknown = sorted(set(units) - set(planned))
    if unknown:
        return f"there are tasks of variants that were not planned: {', '.join(unknown)}"
    if ratio < BROKEN_BELOW:
        return (
            f"the sizes of the arms contradict the planned shares (p = {ratio:.2g}): assignment or recording is broken"
        )
    return None


def _evidence(runs: Iterable[UnitRuns], verdicts: Iterable[UnitVerdicts]) -> dict[tuple[str, str], _Evidence]:
    """One value a unit, by measure and variant."""
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for unit in runs:
        if unit.counted:
            values["success", unit.variant].append(unit.successes / unit.counted)
        if not unit.unpriced:
            values["cost", unit.variant].append(unit.cost_usd / unit.tasks)
        values["duration", unit.variant].append(unit.duration_ms / unit.tasks)
        values["tokens", unit.variant].append(unit.tokens / unit.tasks)
        values["violations", unit.variant].append(unit.violating / unit.tasks)
    for each in verdicts:
        values["correctness", each.variant].append(each.correct / each.verdicts)
    return {key: _Evidence(found) for key, found in values.items()}


_NOTHING: Final = _Evidence(())


def _seen(evidence: Mapping[tuple[str, str], _Evidence], measure: str, variant: str) -> _Evidence:
    return evidence.get(("duration" if measure in _QUANTILES else measure, variant), _NOTHING)


def _arm(variant: str, share: float, runs: Iterable[UnitRuns], evidence: Mapping[tuple[str, str], _Evidence]) -> Arm:
    own = [unit for unit in runs if unit.variant == variant]
    seen = {measure: _seen(evidence, measure, variant) for measure in get_args(Measure)}
    intervals = {measure: _interval(measure, each) for measure, each in seen.items()}
    priced = sum(1 for unit in own if not unit.unpriced)
    return Arm(
        variant=variant,
        share=share,
        units=len(own),
        tasks=sum(unit.tasks for unit in own),
        cost_coverage=priced / len(own) if own else None,
        intervals={measure: found for measure, found in intervals.items() if found is not None},
        **{measure: _value(measure, each) for measure, each in seen.items()},
    )


def _interval(measure: str, seen: _Evidence) -> Interval | None:
    """The interval of one arm's value, which holds at every look."""
    if not seen.values:
        return None
    if measure in _QUANTILES:
        return quantile_sequence(seen.counts, _QUANTILES[measure])
    moments = seen.moments
    return mean_sequence(moments) if measure in _UNBOUNDED else proportion_sequence(moments.total, moments.n)


def _value(measure: str, seen: _Evidence) -> float | None:
    if not seen.values:
        return None
    if measure in _QUANTILES:
        ordered = sorted(seen.values)
        return ordered[min(len(ordered) - 1, int(_QUANTILES[measure] * len(ordered)))]
    return sum(seen.values) / len(seen.values)


def _effect(measure: str, variant: str, evidence: Mapping[tuple[str, str], _Evidence], control: str) -> Effect:
    own, base = _seen(evidence, measure, variant), _seen(evidence, measure, control)
    mine, theirs = _value(measure, own), _value(measure, base)
    difference = None if mine is None or theirs is None else _difference(mine, theirs)
    sequence = _sequence(measure, own, base)
    interval = sequence(CONFIDENCE)
    return Effect(
        measure=measure,
        variant=variant,
        difference=difference,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        relative=difference / theirs if difference is not None and theirs else None,
        p_value=_p_value(sequence),
        verdict="not enough evidence",
        more_units=_more_units(measure, own, base) if difference else None,
    )


def _difference(mine: float, theirs: float) -> float:
    return 0.0 if abs(mine - theirs) <= ROUNDING * max(abs(mine), abs(theirs)) else mine - theirs


def _sequence(measure: str, own: _Evidence, base: _Evidence, growth: int = 1) -> Callable[[float], Interval | None]:
    """The interval of the difference at a confidence, if there were `growth` times as many of these observations."""
    if measure in _QUANTILES:
        counts = [{value: n * growth for value, n in each.counts.items()} for each in (own, base)]
        return lambda confidence: _apart(
            *(quantile_sequence(each, _QUANTILES[measure], confidence=(1 + confidence) / 2) for each in counts)
        )
    mine, theirs = own.moments.times(growth), base.moments.times(growth)
    if measure in _UNBOUNDED:
        return lambda confidence: mean_difference_sequence(mine, theirs, confidence=confidence)
    return lambda confidence: _apart(
        *(proportion_sequence(each.total, each.n, confidence=(1 + confidence) / 2) for each in (mine, theirs))
    )


def _apart(own: Interval | None, base: Interval | None) -> Interval | None:
    """The difference of two values, each within its interval: both hold together with half of the error each."""
    return None if own is None or base is None else Interval(own.low - base.high, own.high - base.low)


def _excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and not interval.contains(0.0)


def _p_value(sequence: Callable[[float], Interval | None]) -> float | None:
    """The smallest error at which the interval excludes no difference."""
    if sequence(0.5) is None:
        return None
    if not _excludes_zero(sequence(0.5)):
        return 1.0
    if _excludes_zero(sequence(_SURE)):
        return 1 - _SURE
    edge = brentq(lambda confidence: 1.0 if _excludes_zero(sequence(confidence)) else -1.0, 0.5, _SURE, xtol=1e-6)
    return float(1 - edge)


def _more_units(measure: str, own: _Evidence, base: _Evidence) -> int | None:
    """About how many more units would decide: the evidence, repeated until it does."""
    growth = 1
    while growth <= _MOST_GROWTH:
        if _excludes_zero(_sequence(measure, own, base, growth)(CONFIDENCE)):
            return (growth - 1) * (len(own.values) + len(base.values))
        growth *= 2
    return None


def _judged(effects: Sequence[Effect], primary: str, *, blocked: bool) -> Iterable[Effect]:
    """The effects with their verdicts: the primary measure by itself, the others as the many that they are."""
    secondary = [each for each in effects if each.measure != primary and each.p_value is not None]
    adjusted = iter(false_discovery_control([each.p_value for each in secondary]) if secondary else ())
    for each in effects:
        p_value = float(next(adjusted)) if each in secondary else each.p_value
        yield each.model_copy(update={"p_value": p_value, "verdict": _verdict(each, p_value, blocked=blocked)})


def _verdict(effect: Effect, p_value: float | None, *, blocked: bool) -> Verdict:
    if blocked:
        return "blocked"
    if p_value is None or p_value >= 1 - CONFIDENCE or not effect.difference:
        return "not enough evidence"
    return "better" if (effect.difference > 0) == (effect.measure in _MORE_IS_BETTER) else "worse"


def _leading(effects: Sequence[Effect]) -> Effect | None:
    """The effect with the strongest evidence."""
    return min(effects, key=lambda each: 1.0 if each.p_value is None else each.p_value, default=None)
