"""Which cause explains the runs that fail.

The alert on a cause (a provider, a policy, a budget) must fire before the alert on the runs that fail by it, and must
silence that one only then: a provider with 6 % of errors that retries cope with may not hide a defect that breaks every
run. So a cause is compared with the failed runs over the window that the success rate is judged on. Where its events
account for most of them, the cause's alert fires as soon as the success rate is below its warning threshold, without
waiting, and has a label by which Alertmanager silences the alerts on the runs.

All that is compared is counted from raw series by one group of rules, because Prometheus evaluates each group at a
moment of its own: while an outage begins, figures of two groups differ by a minute of failures, and a cause would seem
to explain too few of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.records import Status
from taskpilot_obs.rules.model import Recording
from taskpilot_obs.rules.promql import Count, matcher, number
from taskpilot_obs.rules.settings import Settings
from taskpilot_obs.semconv import Label

LOW: Final = "workflow:workflow_runs:success_ratio_low"
"""Record of the success ratio where it is below the warning threshold, per workflow or else overall."""
_COUNTED: Final = "job:workflow_runs_counted"
_MOST: Final = 0.8
"""Share of the failed runs that a cause must account for."""
_HOUR: Final = "1h"
_LEVEL: Final = "cause"
_BAD: Final = matcher(Label.STATUS, Status.ERROR, Status.TIMEOUT)
_RUNS: Final = semconv.WORKFLOW_RUNS.name
_FAILED: Final = Count(
    _LEVEL,
    "workflow_runs_failed",
    (Label.WORKFLOW,),
    _RUNS,
    (matcher(Label.STATUS, Status.ERROR, Status.TIMEOUT, Status.BLOCKED),),
    zero_of="workflow:workflow_runs_counted",
)
_BLOCKED: Final = Count(_LEVEL, "workflow_runs_blocked", (), _RUNS, (matcher(Label.STATUS, Status.BLOCKED),))
_CALLS: Final = Count(_LEVEL, "llm_requests_failed", (), semconv.LLM_REQUESTS.name, (_BAD,))
_DENIALS: Final = Count(_LEVEL, "policy_violations", (), semconv.POLICY_VIOLATIONS.name)
_REFUSALS: Final = Count(_LEVEL, "llm_budget_refusals", (), semconv.BUDGET_REFUSALS.name)


class Cause(StrEnum):
    """What runs may fail by."""

    LLM = "llm"
    """A provider: its calls fail."""
    POLICIES = "policies"
    """Policies that deny, so that runs are blocked."""
    BUDGETS = "budgets"
    """Budgets that refuse calls, so that runs are blocked."""

    @property
    def explains(self) -> str:
        """Record that is there for the jobs whose failed runs this cause mostly accounts for."""
        return f"job:workflow_runs_failed:explained_by_{self}"

    @property
    def _counts(self) -> tuple[Count, ...]:
        """What each has to account for them."""
        return {Cause.LLM: (_CALLS,), Cause.POLICIES: (_DENIALS, _BLOCKED), Cause.BUDGETS: (_REFUSALS, _BLOCKED)}[self]

    def recording(self, settings: Settings) -> Recording:
        """The rule of `explains`."""
        by = settings.scope.by()
        return Recording(
            self.explains, f"\nand on ({by})\n".join(_accounts_for_most(settings, count) for count in self._counts)
        )


def windows(settings: Settings) -> tuple[str, ...]:
    """The windows over which causes and failed runs are compared."""
    return tuple(dict.fromkeys((settings.evidence.fast_window, _HOUR)))


def recordings(settings: Settings) -> tuple[Recording, ...]:
    """The rules of the group that compares."""
    counts = (_FAILED, _BLOCKED, _CALLS, _DENIALS, _REFUSALS)
    counted = [rule for count in counts for rule in count.rules(settings.scope, windows(settings))]
    failing = [Recording(_failing(window), _failing_expr(settings, window)) for window in windows(settings)]
    return (*counted, *failing, *(cause.recording(settings) for cause in Cause))


def _failing(window: str) -> str:
    """Record of the failed runs of the workflows with a low success ratio; of all workflows where none has one."""
    return f"job:workflow_runs_failing:increase{window}"


def _failing_expr(settings: Settings, window: str) -> str:
    by, failed = settings.scope.by(), _FAILED.over(window)
    return f"sum by ({by}) ({failed} and {LOW})\nor\nsum by ({by}) ({failed})"


def _accounts_for_most(settings: Settings, count: Count) -> str:
    by, evidence = settings.scope.by(), settings.evidence
    quick = f"on ({by}) {_COUNTED}:increase{evidence.fast_window} >= {evidence.fast_min_events}"
    fast, hour = evidence.fast_window, _HOUR
    return (
        f"(\n"
        f"  {count.over(fast)} > {number(_MOST)} * ({_failing(fast)} and {quick})\n"
        f"  or\n"
        f"  {count.over(hour)} > {number(_MOST)} * ({_failing(hour)} unless {quick})\n"
        f")"
    )


def explaining(
    settings: Settings, cause: Cause, *, always: str, with_failing_runs: str, labels: tuple[str, ...] = ()
) -> str:
    """The expression of a cause's alert.

    Args:
        settings: the labels of the target.
        cause: which one.
        always: the cause by itself, such as a share of errors.
        with_failing_runs: the weaker condition that suffices where runs fail by it.
        labels: labels of the alert besides those of the target.
    """
    by = settings.scope.by()
    return (
        f"label_replace(\n"
        f"(\n{always}\nor\n{with_failing_runs}\nand on ({by}) {LOW}\n)\n"
        f"and on ({by}) {cause.explains},\n"
        f'"explains", "failed_runs", "", ""\n'
        f")\n"
        f"or on ({settings.scope.by(*labels)})\n"
        f"{always}"
    )
