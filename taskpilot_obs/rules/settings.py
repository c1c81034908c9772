"""The settings that the rules are rendered from: thresholds, objectives, windows, selectors.

`<group>/thresholds.py` has the thresholds of each group of rules.

Percentages are 0 to 100, latencies seconds, money USD, windows Prometheus durations of one unit (`30m`, `6h`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError, model_validator

from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.rules.agents.thresholds import AgentThresholds
from taskpilot_obs.rules.budget.thresholds import BudgetThresholds
from taskpilot_obs.rules.fields import Duration, Events, LabelName, Section, Url
from taskpilot_obs.rules.golden_signals.thresholds import Above, Below, Slo, TaskLatency
from taskpilot_obs.rules.llm.thresholds import LlmThresholds
from taskpilot_obs.rules.model import AlertLinks
from taskpilot_obs.rules.promql import DIRECT_S, Dialect, RuleScope, seconds, slices
from taskpilot_obs.rules.safety.thresholds import SafetyThresholds
from taskpilot_obs.rules.telemetry.thresholds import TelemetryThresholds

LOOK_BACK_S: Final = 300
"""How long Prometheus takes a sample for current (`--query.lookback-delta`)."""
_MATCHER: Final = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]*(=|!=|=~|!~)"(?:[^"\\\n]|\\.)*"')


class EvidenceThresholds(Section):
    """How many events an alert on a share or a quantile takes."""

    fast_window: Duration = "5m"
    """A window of minutes, so that an outage of a busy service is reported within three; it needs more events."""
    fast_min_events: Events = 200
    min_bad: Annotated[int, Field(ge=2)] = 3
    """Bad events (failed runs, slow calls …) in the last hour; one less where the hour holds fewer than min_events."""
    acquitting_events: Events = 20
    """At least so many events in the last 5m with a good value end the alert, though the longer window is still bad."""


_GOLDEN_WINDOWS: Final = ("5m", "30m", "1h", "6h", "1d", "3d")


class RuleSettings(Section):
    """Everything that can be tuned without editing a rule.

    Raises:
        pydantic.ValidationError: a value is not allowed, or an alert could never fire.
    """

    dialect: Dialect = Dialect.PROMETHEUS
    namespace: Annotated[str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$", max_length=100)] = ""
    selector: str = ""
    keep_labels: tuple[LabelName, ...] = ("job",)
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
    evidence: EvidenceThresholds = EvidenceThresholds()
    agents: AgentThresholds = AgentThresholds()
    llm: LlmThresholds = LlmThresholds()
    safety: SafetyThresholds = SafetyThresholds()
    budget: BudgetThresholds = BudgetThresholds()
    telemetry: TelemetryThresholds = TelemetryThresholds()

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
    def scope(self) -> RuleScope:
        """Which series the rules look at."""
        matchers = ", ".join(part.strip() for part in _split(self.selector))
        return RuleScope(matchers, self.keep_labels, self.dialect, self.namespace)

    @property
    def links(self) -> AlertLinks:
        """Where alerts point."""
        return AlertLinks(self.runbook_base_url, self.dashboard_base_url)


def _split(selector: str) -> list[str]:
    """The matchers of a selector; a comma within quotes does not divide."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', selector)


def _needed(settings: RuleSettings) -> set[str]:
    """The windows that longer ones of `recent_windows` are added up from."""
    needed: set[str] = set()
    waiting = list(settings.recent_windows)
    while waiting:
        window = waiting.pop()
        if seconds(window) > DIRECT_S and window not in needed:
            waiting.append(slices(window, settings.all_windows)[0])
        needed.add(window)
    return needed


def load_settings(path: Path) -> RuleSettings:
    """The settings in a YAML file; what it leaves out has its default.

    Raises:
        ConfigurationError: the file is missing, is not a YAML mapping, or a value is not allowed; the message names it.
        MissingExtraError: PyYAML is not installed.
    """
    data = load_config_file(path, "rules settings", extra="rules")
    if data is not None and not isinstance(data, dict):
        raise ConfigurationError(f"{path} must hold a mapping of settings, not a {type(data).__name__}")
    try:
        return RuleSettings.model_validate(data or {})
    except ValidationError as problem:
        raise ConfigurationError(f"{path}: {_readable(problem)}") from problem


def _readable(problem: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in error['loc']) or 'settings'}: {error['msg']}" for error in problem.errors()
    )
