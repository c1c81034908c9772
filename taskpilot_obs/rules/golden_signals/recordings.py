"""Recording rules of the five golden signals and their error budgets, per workflow and overall (level `job`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from taskpilot_obs import semconv
from taskpilot_obs.records import COUNTED, Status
from taskpilot_obs.rules import causes
from taskpilot_obs.rules.evidence import Watched, history_share, known_for, recent_value
from taskpilot_obs.rules.model import Recording, RuleGroup
from taskpilot_obs.rules.promql import Count, bucket, matcher, number, quantile, ratio, recent, slower
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.semconv import Label

JOB: Final = "job"
WORKFLOW: Final = "workflow"
PERIOD_SERIES: Final = "error_budget_left_ratio"
_CORRECT, _INCORRECT = semconv.VERDICTS


class SumLevel(NamedTuple):
    """Where a signal is summed: per workflow, or over all of them."""

    name: str
    labels: tuple[str, ...]

    @property
    def counted(self) -> Count:
        """Runs that prove something: success, error, timeout, blocked."""
        return self._runs("workflow_runs_counted", *sorted(COUNTED))

    @property
    def success(self) -> Count:
        """Runs that succeeded; 0 where runs were counted and none succeeded."""
        return self._runs("workflow_runs_success", Status.SUCCESS)._replace(
            zero_of=f"{self.name}:workflow_runs_counted"
        )

    def _runs(self, name: str, *statuses: str) -> Count:
        if self.name == JOB:
            return Count(JOB, name, (), source=f"{WORKFLOW}:{name}")
        return Count(WORKFLOW, name, self.labels, semconv.WORKFLOW_RUNS.name, (matcher(Label.STATUS, *statuses),))

    @property
    def buckets(self) -> Count:
        """Durations by bucket."""
        name = "workflow_duration_seconds_bucket"
        if self.name == JOB:
            return Count(JOB, name, ("le",), source=f"{WORKFLOW}:{name}")
        return Count(WORKFLOW, name, (*self.labels, "le"), name)

    def finished(self, window: str) -> str:
        """Expression of how many durations were observed in a window."""
        return bucket(self.buckets.over(window), "+Inf")

    def slower(self, window: str, threshold: float) -> str:
        """Expression of how many runs took longer than a threshold, or than the bound below it."""
        return slower(self.buckets.over(window), threshold, semconv.WORKFLOW_BUCKETS)

    def failed(self, window: str) -> str:
        """Expression of how many counted runs did not succeed."""
        return f"({self.counted.over(window)} - {self.success.over(window)})"

    @property
    def cost(self) -> Count:
        """USD: overall all LLM calls, per workflow the roll-up of its finished runs."""
        if self.name == JOB:
            return Count(JOB, "llm_cost_usd", (), semconv.LLM_COST.name)
        return Count(WORKFLOW, "workflow_cost_usd", self.labels, semconv.WORKFLOW_COST.name)

    @property
    def violations(self) -> Count:
        """Denials by policies; 0 where runs were counted and none was denied."""
        name = "policy_violations"
        zero = f"{self.name}:workflow_runs_counted"
        if self.name == JOB:
            return Count(JOB, name, (), source=f"{WORKFLOW}:{name}", zero_of=zero)
        return Count(WORKFLOW, name, self.labels, semconv.POLICY_VIOLATIONS.name, zero_of=zero)

    def success_ratio(self, window: str) -> str:
        """Name of the success ratio over a window."""
        return f"{self.name}:workflow_runs:success_ratio_rate{window}"

    def p95(self, window: str) -> str:
        """Name of the p95 of durations over a window."""
        return f"{self.name}:workflow_duration_seconds:p95_rate{window}"

    def slow_ratio(self, window: str) -> str:
        """Name of the share of runs above the latency objective's threshold."""
        return f"{self.name}:workflow_duration_seconds:slow_ratio_rate{window}"

    def cost_per_success(self, window: str) -> str:
        """Name of the cost per successful task over a window."""
        return f"{self.name}:workflow_runs:cost_per_success_usd_rate{window}"

    def violation_ratio(self, window: str) -> str:
        """Name of the violations per counted run over a window."""
        return f"{self.name}:policy_violations:per_run_ratio_rate{window}"

    def burn_rate(self, slo: str, window: str) -> str:
        """Name of the burn rate of an objective over a window."""
        return f"{self.name}:slo_{slo}:burn_rate{window}"


LEVELS: Final = (SumLevel(WORKFLOW, (Label.WORKFLOW,)), SumLevel(JOB, ()))
FEEDBACK: Final = "job:llm_feedback:correct_ratio_rate"
SUCCESS, LATENCY = "success", "latency"


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """One group a signal, so that Prometheus evaluates them side by side."""
    parts = {
        "runs": _runs,
        "latency": _latency,
        "cost": _cost,
        "correctness": _correctness,
        "violations": _violations,
        "slo": _slo,
    }
    groups_ = (
        RuleGroup(f"taskpilot-golden-signals-{name}", settings.evaluation_interval, tuple(part(settings)))
        for name, part in parts.items()
    )
    return (*groups_, _causes(settings))


def _with_period(settings: RuleSettings) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*settings.all_windows, settings.slo.period)))


def _ratios(settings: RuleSettings, name: Callable[[str], str], part: Count, whole: Count) -> list[Recording]:
    """A ratio of two counts in every window."""
    return [Recording(name(window), ratio(part.over(window), whole.over(window))) for window in settings.all_windows]


def _runs(settings: RuleSettings) -> list[Recording]:
    rules = []
    for level in LEVELS:
        rules += level.counted.rules(settings.scope, _with_period(settings))
        rules += level.success.rules(settings.scope, _with_period(settings))
        rules += _ratios(settings, level.success_ratio, level.success, level.counted)
        value = _recent(settings, level, level.success_ratio, settings.success_rate_percent.min_events)
        rules.append(Recording(f"{level.name}:workflow_runs:success_ratio_recent", value))
    return [*rules, _low(settings)]


def watched_success(settings: RuleSettings, level: SumLevel, threshold: float) -> Watched:
    """The success ratio, as an alert on a threshold looks at it."""
    return Watched(
        f"{level.name}:workflow_runs:success_ratio_recent",
        level.success_ratio,
        level.counted.over,
        level.failed,
        settings.success_rate_percent.min_events,
        outright=True,
        fault=1 - threshold,
    )


def by_level(settings: RuleSettings, parts: Sequence[str]) -> str:
    """An expression a level, from the finest on; the overall one speaks only where no workflow's does."""
    if len(parts) == 1:
        return parts[0]
    return f"\nor on ({settings.scope.by()})\n".join(f"(\n{part}\n)" for part in parts)


def _low(settings: RuleSettings) -> Recording:
    """The success ratios below the warning threshold, which causes look at."""
    warning = settings.success_rate_percent.warning / 100
    watched = [watched_success(settings, level, warning) for level in LEVELS]
    low = by_level(settings, [each.holds(f"< {number(warning)}", settings.evidence) for each in watched])
    return Recording(causes.LOW, low)


def watched_violations(settings: RuleSettings, threshold: float) -> Watched:
    """The rate of denials, as an alert on a threshold looks at it."""
    overall = LEVELS[-1]
    return Watched(
        "job:policy_violations:per_run_ratio_recent",
        overall.violation_ratio,
        overall.counted.over,
        overall.violations.over,
        settings.policy_violation_rate_percent.min_events,
        share=threshold,
        fault=threshold,
    )


def _causes(settings: RuleSettings) -> RuleGroup:
    threshold = settings.policy_violation_rate_percent.critical / 100
    denied = watched_violations(settings, threshold).holds(f"> {number(threshold)}", settings.evidence)
    return causes.POLICIES.group(settings, "taskpilot-golden-signals-causes", denied)


def _recent(
    settings: RuleSettings, level: SumLevel, value: Callable[[str], str], min_events: int, share: float = 0.1
) -> str:
    return recent_value(settings, value, level.counted.over, min_events, share)


def _latency(settings: RuleSettings) -> list[Recording]:
    rules = []
    threshold = settings.slo.latency.threshold_seconds
    for level in LEVELS:
        rules += level.buckets.rules(settings.scope, _with_period(settings))
        for window in settings.all_windows:
            rules.append(Recording(level.p95(window), quantile(0.95, level.buckets.over(window))))
            rules.append(Recording(level.slow_ratio(window), _slow(level.buckets.over(window), threshold)))
        value = recent_value(settings, level.p95, level.finished, settings.p95_latency_seconds.min_events)
        rules.append(Recording(f"{level.name}:workflow_duration_seconds:p95_recent", value))
    return rules


def _slow(buckets: str, threshold: float) -> str:
    return f"1 -\n{bucket(buckets, threshold)}\n/\n({bucket(buckets, '+Inf')} > 0)"


def _cost(settings: RuleSettings) -> list[Recording]:
    rules = []
    for level in LEVELS:
        rules += level.cost.rules(settings.scope, settings.all_windows)
        rules += _ratios(settings, level.cost_per_success, level.cost, level.success)
        value = _recent(settings, level, level.cost_per_success, settings.cost_per_successful_task_usd.min_events)
        rules.append(Recording(f"{level.name}:workflow_runs:cost_per_success_usd_recent", value))
    return rules


def _correctness(settings: RuleSettings) -> list[Recording]:
    """As feedback counts: correct = total + revisions to correct - revisions to incorrect, of all that was judged."""
    judged = Count(JOB, "llm_feedback_judged", (), semconv.FEEDBACK.name)
    first, revisions = semconv.FEEDBACK.name, semconv.FEEDBACK_REVISIONS.name
    counts = (
        judged,
        _verdicts("llm_feedback_first_correct", first, _CORRECT),
        _verdicts("llm_feedback_revised_correct", revisions, _CORRECT),
        _verdicts("llm_feedback_revised_incorrect", revisions, _INCORRECT),
    )
    rules = [rule for count in counts for rule in count.rules(settings.scope, settings.all_windows)]
    for window in settings.all_windows:
        rules.append(Recording(f"job:llm_feedback_correct:increase{window}", _correct(counts, window)))
        rules.append(
            Recording(f"{FEEDBACK}{window}", ratio(f"job:llm_feedback_correct:increase{window}", judged.over(window)))
        )
    minimum = settings.user_confirmed_correctness_percent.min_events
    values = [(f"{FEEDBACK}{window}", judged.over(window), minimum) for window in settings.recent_feedback_windows]
    return [*rules, Recording("job:llm_feedback:correct_ratio_recent", recent(values))]


def _verdicts(name: str, metric: str, verdict: str) -> Count:
    return Count(JOB, name, (), metric, (matcher(Label.VERDICT, verdict),), zero_of="job:llm_feedback_judged")


def _correct(counts: Sequence[Count], window: str) -> str:
    judged, first, revised, withdrawn = (count.over(window) for count in counts)
    total = f"{first}\n+ {revised}\n- {withdrawn}"
    # A verdict given before the window and revised within it moves the count past either end.
    return f"clamp_min(\n  {total.replace(chr(10), chr(10) + '  ')},\n  0\n)\n< {judged}\nor\n{judged}"


def _violations(settings: RuleSettings) -> list[Recording]:
    limits = settings.policy_violation_rate_percent
    rules = []
    for level in LEVELS:
        rules += level.violations.rules(settings.scope, settings.all_windows)
        rules += _ratios(settings, level.violation_ratio, level.violations, level.counted)
        value = _recent(settings, level, level.violation_ratio, limits.min_events, min(1.0, limits.warning / 100))
        rules.append(Recording(f"{level.name}:policy_violations:per_run_ratio_recent", value))
    return rules


def _slo(settings: RuleSettings) -> list[Recording]:
    objectives = {SUCCESS: settings.slo.success.objective, LATENCY: settings.slo.latency.objective}
    rules = [
        Recording("slo:objective:ratio", f"vector({number(percent / 100)})", (("slo", slo),))
        for slo, percent in objectives.items()
    ]
    for level in LEVELS:
        for slo, percent in objectives.items():
            budget = number((100 - percent) / 100)
            rules += [
                Recording(
                    level.burn_rate(slo, window),
                    f"({_bad(level, slo, window)})\n/ {budget}\nand {known_for(settings.scope, window)}",
                )
                for window in settings.all_windows
            ]
            rules.append(Recording(f"{level.name}:slo_{slo}:{PERIOD_SERIES}", _left(settings, level, slo, budget)))
    return rules


def _bad(level: SumLevel, slo: str, window: str) -> str:
    return f"1 - {level.success_ratio(window)}" if slo == SUCCESS else level.slow_ratio(window)


def _left(settings: RuleSettings, level: SumLevel, slo: str, budget: str) -> str:
    period = settings.slo.period
    if slo == SUCCESS:
        bad = f"1 -\n{ratio(level.success.over(period), level.counted.over(period))}"
    else:
        bad = _slow(level.buckets.over(period), settings.slo.latency.threshold_seconds)
    # A young service has used as much of the period's budget as it would have at this traffic over the whole period.
    return f"1 - (\n{bad}\n) / {budget}\n* {history_share(settings.scope, period)}"
