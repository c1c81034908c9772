"""The settings that the rules are rendered from: thresholds, objectives, windows, selectors.

Percentages are 0 to 100, latencies seconds, money USD, windows Prometheus durations of one unit (`30m`, `6h`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.rules.model import CRITICAL, WARNING, Links
from taskpilot_obs.rules.promql import DIRECT_S, Dialect, Scope, seconds, slices
from taskpilot_obs.semconv import CALL_BUCKETS, FIRST_TOKEN_BUCKETS, RUN_BUCKETS, WORKFLOW_BUCKETS

LOOK_BACK_S: Final = 300
"""How long Prometheus takes a sample for current (`--query.lookback-delta`)."""
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MATCHER: Final = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]*(=|!=|=~|!~)"(?:[^"\\\n]|\\.)*"')


def _duration(value: str) -> str:
    seconds(value)
    return value


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(f"{value!r} is not a label name")
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"(https?://|/)[^\s\"'{}]*[^\s\"'{}/]", value):
        raise ValueError(f"{value!r} must begin with http://, https:// or / and end without a slash")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"{value!r} must consist of letters, digits, _ and -")
    return value


def _job(value: str) -> str:
    if not re.fullmatch(r'[^"\\\n]+', value):
        raise ValueError(f"{value!r} is not a job name: quotes, backslashes and line breaks are not allowed")
    return value


def _below_the_last(bounds: tuple[float, ...]) -> AfterValidator:
    """Refuse a quantile that no histogram with these bounds can exceed: PromQL's ends at the last of them."""

    def check(value: float) -> float:
        if value >= bounds[-1]:
            raise ValueError(f"{value:g} s can never be exceeded, for the histogram ends at {bounds[-1]:g} s")
        return value

    return AfterValidator(check)


Duration = Annotated[str, AfterValidator(_duration)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RunSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), _below_the_last(RUN_BUCKETS)]
FirstTokenSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), _below_the_last(FIRST_TOKEN_BUCKETS)]
Events = Annotated[int, Field(ge=1)]
Url = Annotated[str, AfterValidator(_url)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Below(_Section):
    """A signal that should be high: the warning fires below `warning`, the critical alert below `critical`."""

    warning: float
    critical: float
    min_events: Events = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.critical <= self.warning <= 100:  # noqa: PLR2004  percent
            raise ValueError(f"0 < critical <= warning <= 100 is needed, given {self.critical} and {self.warning}")
        return self


class Above(_Section):
    """A signal that should be low: the warning fires above `warning`, the critical alert above `critical`."""

    warning: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    critical: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    min_events: Events = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warning > self.critical:
            raise ValueError(f"warning <= critical is needed, given {self.warning} and {self.critical}")
        return self


class TaskLatency(Above):
    """Thresholds of the 95th percentile of tasks."""

    warning: Annotated[float, Field(gt=0, allow_inf_nan=False), _below_the_last(WORKFLOW_BUCKETS)]
    critical: Annotated[float, Field(gt=0, allow_inf_nan=False), _below_the_last(WORKFLOW_BUCKETS)]


class BurnPair(_Section):
    """One condition of a burn-rate alert: the budget burns `rate` times too fast over both windows.

    The four defaults are those of the Google SRE workbook, chapter 5: 2 % of a 30-day budget in 1 h, 5 % in 6 h, 10 %
    in 1 d, 10 % in 3 d.
    """

    long: Duration
    short: Duration
    rate: Annotated[float, Field(gt=0)]
    severity: Literal["critical", "warning"]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if seconds(self.short) >= seconds(self.long):
            raise ValueError(f"the short window {self.short} must be shorter than the long one, {self.long}")
        return self


def _burn_pairs() -> tuple[BurnPair, ...]:
    return (
        BurnPair(long="1h", short="5m", rate=14.4, severity=CRITICAL),
        BurnPair(long="6h", short="30m", rate=6, severity=CRITICAL),
        BurnPair(long="1d", short="2h", rate=3, severity=WARNING),
        BurnPair(long="3d", short="6h", rate=1, severity=WARNING),
    )


class SuccessObjective(_Section):
    """Share of counted runs that must succeed."""

    objective: Percent = 95


class LatencyObjective(_Section):
    """Share of runs that must end within `threshold_seconds`, which has to be a bound of the workflow buckets."""

    objective: Percent = 95
    threshold_seconds: float = 2

    @model_validator(mode="after")
    def _on_a_bound(self) -> Self:
        if self.threshold_seconds not in WORKFLOW_BUCKETS:
            bounds = ", ".join(f"{bound:g}" for bound in WORKFLOW_BUCKETS)
            raise ValueError(
                f"threshold_seconds {self.threshold_seconds:g} is not a bucket bound; choose one of {bounds}"
            )
        return self


class Slo(_Section):
    """Objectives over `period`, and how fast their error budget may burn."""

    success: SuccessObjective = SuccessObjective()
    latency: LatencyObjective = LatencyObjective()
    period: Duration = "30d"
    min_events: Events = 10
    burn: tuple[BurnPair, ...] = Field(default_factory=_burn_pairs)

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        for name, objective in (("success", self.success.objective), ("latency", self.latency.objective)):
            for pair in self.burn:
                share = pair.rate * (100 - objective)
                if share >= 100:  # noqa: PLR2004  percent
                    raise ValueError(
                        f"slo.{name}: at an objective of {objective:g} % a burn rate of {pair.rate:g} means {share:g} %"
                        f" bad runs, which can never be exceeded; use an objective above {100 - 100 / pair.rate:.4g} %"
                        f" or a lower rate for {pair.long}/{pair.short}"
                    )
        if {pair.severity for pair in self.burn} != {CRITICAL, WARNING}:
            raise ValueError("slo.burn needs at least one pair of severity critical and one of severity warning")
        return self


class Evidence(_Section):
    """How many events an alert on a share or a quantile takes."""

    fast_window: Duration = "5m"
    fast_min_events: Events = 200
    min_bad: Annotated[int, Field(ge=2)] = 3
    acquitting_events: Events = 20


class Agents(_Section):
    """Thresholds per agent."""

    success_percent: Percent = 90
    p95_seconds: RunSeconds = 30
    min_events: Events = 10
    stuck_after: Duration = "30m"
    silent_min_runs: Events = 10
    loop_tool_calls: float = 80

    @model_validator(mode="after")
    def _on_a_bound(self) -> Self:
        if self.loop_tool_calls not in CALL_BUCKETS:
            bounds = ", ".join(f"{bound:g}" for bound in CALL_BUCKETS)
            raise ValueError(f"loop_tool_calls {self.loop_tool_calls:g} is not a bucket bound; choose one of {bounds}")
        return self


class Llm(_Section):
    """Thresholds of LLM calls: errors, latency, cache, spend."""

    error_percent: Percent = 1
    provider_error_percent: Percent = 5
    rate_limited_percent: Percent = 5
    retries_percent: Percent = 10
    p99_seconds: RunSeconds = 10
    first_token_p95_seconds: FirstTokenSeconds = 5
    cache_hit_percent: Percent = 30
    unpriced_percent: Percent = 5
    usage_missing_percent: Percent = 5
    min_events: Events = 20
    cost_per_hour_usd: Usd = 5
    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    spike_min_usd: Usd = 1
    prompt_cache_drop_percent: Percent = 50
    prompt_cache_min_percent: Percent = 10


class Safety(_Section):
    """Thresholds of policies and guardrails."""

    surge_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    surge_min_violations: Events = 10
    token_policies: tuple[Annotated[str, AfterValidator(_name)], ...] = ("max_tokens", "MaxTokens")
    guardrail_error_percent: Percent = 1
    guardrail_min_checks: Events = 10


class Budget(_Section):
    """Thresholds of budgets of money or tokens, in percent of their limits."""

    warning_percent: Percent = 75
    critical_percent: Percent = 90
    projection_window: Duration = "1h"
    projection_min_percent: Percent = 20


class Telemetry(_Section):
    """Thresholds for the health of the library itself."""

    window: Duration = "15m"
    queue_capacity: Events = 65_536
    queue_percent: Percent = 80
    down_for: Duration = "5m"
    down_percent: Percent = 50
    long_lived: Duration = "6h"
    expected_jobs: tuple[Annotated[str, AfterValidator(_job)], ...] = ()


_GOLDEN_WINDOWS: Final = ("5m", "30m", "1h", "6h", "1d", "3d")


class Settings(_Section):
    """Everything that can be tuned without editing a rule.

    Raises:
        pydantic.ValidationError: a value is not allowed, or an alert could never fire.
    """

    dialect: Dialect = Dialect.PROMETHEUS
    namespace: Annotated[str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$", max_length=100)] = ""
    selector: str = ""
    keep_labels: tuple[Annotated[str, AfterValidator(_label)], ...] = ("job",)
    windows: tuple[Duration, ...] = _GOLDEN_WINDOWS
    recent_windows: tuple[Duration, ...] = ("1h", "6h", "1d")
    recent_feedback_windows: tuple[Duration, ...] = ("1h", "6h", "1d", "3d")
    evaluation_interval: Duration = "1m"
    lasting: Duration = "5m"
    lasting_critical: Duration = "1m"
    runbook_base_url: Url = "https://github.com/taskpilot-obs/taskpilot-obs/blob/main/observability/prometheus/rules"
    dashboard_base_url: Url = "http://localhost:3000/d"

    success_rate_percent: Below = Below(warning=95, critical=90)
    p95_latency_seconds: TaskLatency = TaskLatency(warning=2, critical=5)
    cost_per_successful_task_usd: Above = Above(warning=0.10, critical=0.50)
    user_confirmed_correctness_percent: Below = Below(warning=90, critical=70)
    policy_violation_rate_percent: Above = Above(warning=1, critical=2)
    slo: Slo = Slo()
    evidence: Evidence = Evidence()
    agents: Agents = Agents()
    llm: Llm = Llm()
    safety: Safety = Safety()
    budget: Budget = Budget()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.selector and not all(_MATCHER.fullmatch(part.strip()) for part in _split(self.selector)):
            raise ValueError(f'selector {self.selector!r} must be label matchers such as namespace="prod", zone!="x"')
        if "job" not in self.keep_labels or "instance" in self.keep_labels:
            raise ValueError("keep_labels must contain job and must not contain instance")
        if not (self.windows and self.recent_windows and self.recent_feedback_windows):
            raise ValueError("windows, recent_windows and recent_feedback_windows need at least one window each")
        if seconds(self.telemetry.window) > DIRECT_S:
            raise ValueError("telemetry.window must be at most 1h")
        if seconds(self.evaluation_interval) > LOOK_BACK_S // 2:
            raise ValueError(
                f"evaluation_interval {self.evaluation_interval} is too long: Prometheus forgets a recorded result"
                " after 5m, so rules that read it would find nothing; use 2m or less"
            )
        for window in (*self.all_windows, self.slo.period):
            if seconds(window) > DIRECT_S:
                slices(window, self.all_windows)
        return self

    @property
    def all_windows(self) -> tuple[str, ...]:
        """Every window that the golden signals are recorded over, shortest first."""
        burn = (window for pair in self.slo.burn for window in (pair.short, pair.long))
        used = {*self.windows, *self.recent_windows, *self.recent_feedback_windows, *burn, *self._judging_windows}
        return tuple(sorted(used, key=lambda window: (seconds(window), window)))

    @property
    def _judging_windows(self) -> set[str]:
        """The windows by which alerts tell whether something still goes on."""
        return {self.evidence.fast_window, "5m", "1h", "6h", "1d"}

    @property
    def fine_windows(self) -> tuple[str, ...]:
        """The windows of the rules per agent, model, provider and policy, shortest first."""
        return tuple(
            sorted(
                {*self._judging_windows, *self.recent_windows, *_needed(self)}, key=lambda item: (seconds(item), item)
            )
        )

    @property
    def scope(self) -> Scope:
        """Which series the rules look at."""
        matchers = ", ".join(part.strip() for part in _split(self.selector))
        return Scope(matchers, self.keep_labels, self.dialect, self.namespace)

    @property
    def links(self) -> Links:
        """Where alerts point."""
        return Links(self.runbook_base_url, self.dashboard_base_url)


def _split(selector: str) -> list[str]:
    """The matchers of a selector; a comma within quotes does not divide."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', selector)


def _needed(settings: Settings) -> set[str]:
    """The windows that longer ones of `recent_windows` are added up from."""
    needed: set[str] = set()
    waiting = list(settings.recent_windows)
    while waiting:
        window = waiting.pop()
        if seconds(window) > DIRECT_S and window not in needed:
            waiting.append(slices(window, settings.all_windows)[0])
        needed.add(window)
    return needed


def load_settings(path: Path) -> Settings:
    """The settings in a YAML file; what it leaves out has its default.

    Raises:
        ConfigurationError: the file is missing, is not a YAML mapping, or a value is not allowed; the message names it.
        MissingExtraError: PyYAML is not installed.
    """
    data = load_config_file(path, "rules settings", extra="rules")
    if data is not None and not isinstance(data, dict):
        raise ConfigurationError(f"{path} must hold a mapping of settings, not a {type(data).__name__}")
    try:
        return Settings.model_validate(data or {})
    except ValidationError as problem:
        raise ConfigurationError(f"{path}: {_readable(problem)}") from problem


def _readable(problem: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in error['loc']) or 'settings'}: {error['msg']}" for error in problem.errors()
    )
