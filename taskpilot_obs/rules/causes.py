"""Which cause explains the runs that fail.

The alert on a cause (a provider, a policy, a budget) must fire before the alert on the runs that fail by it, and must
silence that one only then: a provider with 6 % of errors that retries cope with may not hide a defect that breaks every
run. So a cause is compared with the failed runs over the window that the success rate is judged on. Where its events
account for most of them, the cause's alert fires as soon as the success rate is below its warning threshold, without
waiting, and has a label by which Alertmanager silences the alerts on the runs.

Prometheus evaluates each group of rules at a moment of its own. While an outage begins, figures of two groups differ by
a minute of failures: a cause would seem to explain too few of them, and its alert would change its label when the other
group follows. So one group counts the events of a cause and the failed runs from raw series, compares them, and then
says whether the cause is high by itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from taskpilot_obs import semconv
from taskpilot_obs.records import Status
from taskpilot_obs.rules.model import Recording, RuleGroup
from taskpilot_obs.rules.promql import Count, matcher, number
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.semconv import Label

LOW: Final = "workflow:workflow_runs:success_ratio_low"
"""Record of the success ratio where it is below the warning threshold, per workflow or else overall."""
_COUNTED: Final = "job:workflow_runs_counted"
_MOST: Final = 0.8
"""Share of the failed runs that a cause must account for."""
_HOUR: Final = "1h"


class Cause(NamedTuple):
    """What runs may fail by."""

    name: str
    high: str
    """Record of the cause by itself, where it is high."""
    event: tuple[str, str, str]
    """Its events: their name, the family that counts them, and a label matcher."""
    blocks: bool = False
    """Whether runs that fail by it end as blocked."""

    @property
    def explains(self) -> str:
        """Record that is there for the jobs whose failed runs this cause mostly accounts for."""
        return f"job:workflow_runs_failed:explained_by_{self.name}"

    def group(self, settings: RuleSettings, name: str, high: str) -> RuleGroup:
        """The rules that compare.

        Args:
            settings: windows, and the labels of the target.
            name: of the group.
            high: expression of the cause by itself, such as a share of errors above a threshold.
        """
        scope, compared = settings.scope, windows(settings)
        failed = self._runs("failed", (Label.WORKFLOW,), Status.ERROR, Status.TIMEOUT, Status.BLOCKED)
        failed = failed._replace(zero_of="workflow:workflow_runs_counted")
        blocked = (self._runs("blocked", (), Status.BLOCKED),) if self.blocks else ()
        event, metric, which = self.event
        accounting = (Count(self._level, event, (), metric, (which,) if which else ()), *blocked)
        by = scope.by()
        return RuleGroup(
            name,
            settings.evaluation_interval,
            (
                *(rule for count in (failed, *accounting) for rule in count.rules(scope, compared)),
                *(Recording(self._failing(window), _failing(by, failed.over(window))) for window in compared),
                Recording(self.explains, f"\nand on ({by})\n".join(self._most(settings, each) for each in accounting)),
                Recording(self.high, high),
            ),
        )

    @property
    def _level(self) -> str:
        return f"{self.name}_cause"

    def _runs(self, name: str, labels: tuple[str, ...], *statuses: str) -> Count:
        matching = (matcher(Label.STATUS, *statuses),)
        return Count(self._level, f"workflow_runs_{name}", labels, semconv.WORKFLOW_RUNS.name, matching)

    def _failing(self, window: str) -> str:
        """Record of the failed runs of the workflows with a low success ratio; of all workflows where none has one."""
        return f"{self._level}:workflow_runs_failing:increase{window}"

    def _most(self, settings: RuleSettings, count: Count) -> str:
        """Where these events are most of the failed runs, over the window that the success ratio is judged on."""
        by, evidence = settings.scope.by(), settings.evidence
        fast, hour = evidence.fast_window, _HOUR
        quick = f"on ({by}) {_COUNTED}:increase{fast} >= {evidence.fast_min_events}"
        return (
            f"(\n"
            f"  {count.over(fast)} > {number(_MOST)} * ({self._failing(fast)} and {quick})\n"
            f"  or\n"
            f"  {count.over(hour)} > {number(_MOST)} * ({self._failing(hour)} unless {quick})\n"
            f")"
        )


LLM: Final = Cause(
    "llm",
    "provider:llm_requests:failing_ratio_high",
    ("llm_requests_failed", semconv.LLM_REQUESTS.name, matcher(Label.STATUS, Status.ERROR, Status.TIMEOUT)),
)
"""A provider, whose calls fail."""
POLICIES: Final = Cause(
    "policies",
    "job:policy_violations:per_run_ratio_high",
    ("policy_violations", semconv.POLICY_VIOLATIONS.name, ""),
    blocks=True,
)
"""Policies that deny."""
BUDGETS: Final = Cause(
    "budgets",
    "budget:llm_budget_used:ratio_high",
    ("llm_budget_refusals", semconv.BUDGET_REFUSALS.name, ""),
    blocks=True,
)
"""Budgets that refuse calls."""


def windows(settings: RuleSettings) -> tuple[str, ...]:
    """The windows over which causes and failed runs are compared."""
    return tuple(dict.fromkeys((settings.evidence.fast_window, _HOUR)))


def _failing(by: str, failed: str) -> str:
    return f"sum by ({by}) ({failed} and {LOW})\nor\nsum by ({by}) ({failed})"


def explaining(settings: RuleSettings, cause: Cause, *, with_failing_runs: str, labels: tuple[str, ...] = ()) -> str:
    """The expression of a cause's alert.

    Args:
        settings: the labels of the target.
        cause: which one.
        with_failing_runs: the weaker condition that suffices where runs fail by it.
        labels: labels of the alert besides those of the target.
    """
    by = settings.scope.by()
    return (
        f"label_replace(\n"
        f"  ({cause.high} or {with_failing_runs} and on ({by}) {LOW})\n"
        f"  and on ({by}) {cause.explains},\n"
        f'  "explains", "failed_runs", "", ""\n'
        f")\n"
        f"or on ({settings.scope.by(*labels)})\n"
        f"{cause.high}"
    )
