"""Alerts on the golden signals: thresholds with a minimum of evidence, and burn rates of the error budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from taskpilot_obs.rules import causes
from taskpilot_obs.rules.evidence import VERDICTS, Recovery, Watched, enough_good, stated
from taskpilot_obs.rules.golden_signals.recordings import (
    FEEDBACK,
    LATENCY,
    LEVELS,
    SUCCESS,
    SumLevel,
    by_level,
    watched_success,
    watched_violations,
)
from taskpilot_obs.rules.golden_signals.thresholds import Above, Below
from taskpilot_obs.rules.model import CRITICAL, WARNING, Alert, AlertKind, AlertSignal
from taskpilot_obs.rules.promql import bucket, number
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import PERCENT, SECONDS, TASK, TIMES, USD, evidence, percent, usd


class _Threshold(NamedTuple):
    """What the warning and the critical alert of one signal have in common."""

    signal: AlertSignal
    names: tuple[str, str]
    watched: Callable[[float], Sequence[Watched]]
    """By threshold: the recorded values, from the finest level to the coarsest."""
    summary: str
    """With `{limit}` where the threshold stands."""
    detail: str


_OVERALL: Final = LEVELS[-1]


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """The alerts of the folder `golden_signals`."""
    return (*_thresholds(settings), *_burns(settings))


def _thresholds(settings: RuleSettings) -> list[Alert]:
    return [alert for part in (_success, _latency, _cost, _correctness, _violations) for alert in part(settings)]


def _success(settings: RuleSettings) -> list[Alert]:
    success = settings.success_rate_percent
    shared = _Threshold(
        AlertSignal("success_rate", AlertKind.RATIO),
        ("TaskpilotSuccessRateLow", "TaskpilotSuccessRateCritical"),
        lambda threshold: [watched_success(settings, level, threshold) for level in LEVELS],
        f"Only {PERCENT} of runs succeed: {TASK} (below {{limit}})",
        f"{PERCENT} of the runs of {TASK} succeeded"
        f" {stated(settings.recent_windows, settings, success.min_events, 'counted runs')}."
        " Errors, timeouts and blocked runs count against it; cancelled, abandoned and interrupted ones do not.",
    )
    return _below(settings, shared, success)


def _latency(settings: RuleSettings) -> list[Alert]:
    latency = settings.p95_latency_seconds
    shared = _Threshold(
        AlertSignal("p95_latency", AlertKind.LATENCY),
        ("TaskpilotLatencyHigh", "TaskpilotLatencyCritical"),
        lambda threshold: [
            Watched(
                f"{level.name}:workflow_duration_seconds:p95_recent",
                level.p95,
                level.finished,
                partial(level.slower, threshold=threshold),
                latency.min_events,
                fault=0.05,
            )
            for level in LEVELS
        ],
        f"Runs are slow, p95 is {SECONDS}: {TASK} (above {{limit}})",
        f"1 of 20 runs of {TASK} takes {SECONDS} or longer,"
        f" {stated(settings.recent_windows, settings, latency.min_events, 'runs')}, whatever"
        " their status.",
    )
    return _above(settings, shared, latency, 1, "{:.12g} s")


def _cost(settings: RuleSettings) -> list[Alert]:
    cost = settings.cost_per_successful_task_usd
    shared = _Threshold(
        AlertSignal("cost_per_task", AlertKind.SPEND),
        ("TaskpilotTaskCostHigh", "TaskpilotTaskCostCritical"),
        lambda _: [
            Watched(
                "job:workflow_runs:cost_per_success_usd_recent",
                _OVERALL.cost_per_success,
                _OVERALL.success.over,
                _OVERALL.success.over,
                cost.min_events,
            )
        ],
        f"A successful task costs {USD}: {{{{ $labels.job }}}} (above {{limit}})",
        f"All LLM calls of {{{{ $labels.job }}}} together cost {USD} per run that succeeded,"
        f" {stated(settings.recent_windows, settings, cost.min_events, 'counted runs')}. Failed runs cost too: a low"
        " success rate raises"
        " this figure.",
    )
    return _above(settings, shared, cost, 1, "")


def _correctness(settings: RuleSettings) -> list[Alert]:
    correct = settings.user_confirmed_correctness_percent
    shared = _Threshold(
        AlertSignal("correctness", AlertKind.RATIO),
        ("TaskpilotCorrectnessLow", "TaskpilotCorrectnessCritical"),
        lambda threshold: [
            Watched(
                "job:llm_feedback:correct_ratio_recent",
                lambda window: f"{FEEDBACK}{window}",
                lambda window: f"job:llm_feedback_judged:increase{window}",
                lambda window: (
                    f"(job:llm_feedback_judged:increase{window} - job:llm_feedback_correct:increase{window})"
                ),
                correct.min_events,
                windows=VERDICTS,
                fault=1 - threshold,
            )
        ],
        f"Users confirm only {PERCENT} of answers: {{{{ $labels.job }}}} (below {{limit}})",
        f"{PERCENT} of the answers of {{{{ $labels.job }}}} that users judged were correct,"
        f" {evidence(settings.recent_feedback_windows, correct.min_events, 'verdicts')}.",
    )
    return _below(settings, shared, correct)


def _violations(settings: RuleSettings) -> list[Alert]:
    violations = settings.policy_violation_rate_percent
    shared = _Threshold(
        AlertSignal("policy_violation_rate", AlertKind.RATIO),
        ("TaskpilotPolicyViolationRateHigh", "TaskpilotPolicyViolationRateCritical"),
        lambda threshold: [watched_violations(settings, threshold)],
        f"Policy violations reach {PERCENT} of runs: {{{{ $labels.job }}}} (above {{limit}})",
        f"Policies denied {PERCENT} as often as {{{{ $labels.job }}}} finished a counted run,"
        f" {stated(settings.recent_windows, settings, violations.min_events, 'counted runs')}. Denials count in monitor"
        " and in enforce mode.",
    )
    high, critical = _above(settings, shared, violations, 100, "{:.12g}%")
    return [high, critical._replace(expr=_refusing(settings))]


def _refusing(settings: RuleSettings) -> str:
    """Denials by themselves, or as soon as runs fail because they are denied."""
    windows = causes.windows(settings)
    refused = " or ".join(f"{_OVERALL.violation_ratio(window)} > 0" for window in windows)
    return causes.explaining(settings, causes.POLICIES, with_failing_runs=f"({refused})")


def _below(settings: RuleSettings, shared: _Threshold, limits: Below) -> list[Alert]:
    return [
        _threshold(settings, shared, index, ("<", limit / 100), percent(limit))
        for index, limit in enumerate((limits.warning, limits.critical))
    ]


def _above(settings: RuleSettings, shared: _Threshold, limits: Above, scale: int, unit: str) -> list[Alert]:
    return [
        _threshold(settings, shared, index, (">", limit / scale), unit.format(limit) if unit else usd(limit))
        for index, limit in enumerate((limits.warning, limits.critical))
    ]


def _threshold(
    settings: RuleSettings, shared: _Threshold, index: int, condition: tuple[str, float], limit: str
) -> Alert:
    operator, threshold = condition
    parts = [
        watched.holds(f"{operator} {number(threshold)}", settings.evidence) for watched in shared.watched(threshold)
    ]
    alert = (shared.signal.warning, shared.signal.critical)[index]
    wait = (settings.lasting, settings.lasting_critical)[index]
    expr, summary = by_level(settings, parts), shared.summary.replace("{limit}", limit)
    return alert(shared.names[index], expr, summary, shared.detail, wait)


def _burns(settings: RuleSettings) -> list[Alert]:
    return [
        _burn(settings, slo, severity, name)
        for slo, label in ((SUCCESS, "Success"), (LATENCY, "Latency"))
        for severity, name in (
            (CRITICAL, f"Taskpilot{label}BudgetBurnFast"),
            (WARNING, f"Taskpilot{label}BudgetBurnSlow"),
        )
    ]


def _burn(settings: RuleSettings, slo: str, severity: str, name: str) -> Alert:
    pairs = [pair for pair in settings.slo.burn if pair.severity == severity]
    said = " or ".join(f"{pair.rate:g} over {pair.long} and {pair.short}" for pair in pairs)
    objective = settings.slo.success.objective if slo == SUCCESS else settings.slo.latency.objective
    bad = "fail" if slo == SUCCESS else f"take longer than {settings.slo.latency.threshold_seconds:g} s"
    return Alert(
        name=name,
        kind=AlertKind.RATIO if slo == SUCCESS else AlertKind.LATENCY,
        severity=severity,
        signal=f"{slo}_budget",
        expr=by_level(settings, [_burn_expr(settings, level, slo, severity) for level in LEVELS]),
        summary=f"Error budget ({slo}) burns {TIMES} times too fast: {TASK}",
        description=(
            f"Of {TASK}, {percent(100 - objective)} of the runs may {bad} over {settings.slo.period}; they do so"
            f" {TIMES} times as"
            f" often. Fires above {said}."
        ),
    )


def _burn_expr(settings: RuleSettings, level: SumLevel, slo: str, severity: str) -> str:
    conditions = []
    for pair in settings.slo.burn:
        if pair.severity != severity:
            continue
        events = level.counted.over(pair.long) if slo == SUCCESS else bucket(level.buckets.over(pair.long), "+Inf")
        rate = number(pair.rate)
        conditions.append(
            f"  ({level.burn_rate(slo, pair.long)} > {rate}"
            f" and {level.burn_rate(slo, pair.short)} > {rate}"
            f" and {events} >= {settings.slo.min_events})"
        )
    bad, least = _burning(settings, level, slo), settings.evidence.min_bad
    runs = level.counted.over("5m") if slo == SUCCESS else level.finished("5m")
    objective = settings.slo.success.objective if slo == SUCCESS else settings.slo.latency.objective
    needed = settings.evidence
    recovery = Recovery(
        f"{runs} >= {needed.acquitting_events}",
        enough_good(runs, 1 - objective / 100, needed),
        f"{level.burn_rate(slo, '5m')} > 1",
        f"{bad('5m')} >= {least}",
    )
    return (
        "(\n" + "\n  or\n".join(conditions) + "\n)\n"
        f"and {bad('1h')} >= {least - 1} and {bad('6h')} >= {least}\n"
        f"{recovery.ends()}"
    )


def _burning(settings: RuleSettings, level: SumLevel, slo: str) -> Callable[[str], str]:
    """Expression of the runs that used up error budget in a window."""
    if slo == SUCCESS:
        return level.failed
    return partial(level.slower, threshold=settings.slo.latency.threshold_seconds)
