"""Which cause explains the runs that fail.

The alert on a cause (a provider, a policy, a budget) must fire before the alert on the runs that fail by it, and must
silence that one only then: a provider with 6 % of errors that retries cope with may not hide a defect that breaks every
run. So a cause is compared with the failed runs over the window that the success rate is judged on. Where its events
account for most of them, the cause's alert fires as soon as the success rate is below its warning threshold, without
waiting, and has a label by which Alertmanager silences the alerts on the runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taskpilot_obs.rules.promql import number
from taskpilot_obs.rules.settings import Settings

LOW: Final = "workflow:workflow_runs:success_ratio_low"
"""Record of the success ratio where it is below the warning threshold, per workflow or else overall."""
_COUNTED: Final = "job:workflow_runs_counted"
_MOST: Final = 0.8
"""Share of the failed runs that a cause must account for."""
_HOUR: Final = "1h"


def failing(window: str) -> str:
    """Record of the failed runs of the workflows with a low success ratio; of all workflows where none has one."""
    return f"job:workflow_runs_failing:increase{window}"


def windows(settings: Settings) -> tuple[str, ...]:
    """The windows over which causes and failed runs are compared."""
    return tuple(dict.fromkeys((settings.evidence.fast_window, _HOUR)))


def explained(settings: Settings, *counts: Callable[[str], str]) -> str:
    """Expression of the jobs whose failed runs are mostly accounted for by each of these counts.

    Args:
        settings: the labels of the target, and how many runs the first window needs.
        counts: expression of the cause's events of a job over a window.
    """
    by, evidence = settings.scope.by(), settings.evidence
    quick = f"on ({by}) {_COUNTED}:increase{evidence.fast_window} >= {evidence.fast_min_events}"
    return f"\nand on ({by})\n".join(
        f"(\n"
        f"  {count(evidence.fast_window)} > {number(_MOST)} * ({failing(evidence.fast_window)} and {quick})\n"
        f"  or\n"
        f"  {count(_HOUR)} > {number(_MOST)} * ({failing(_HOUR)} unless {quick})\n"
        f")"
        for count in counts
    )


def explaining(
    settings: Settings, *, always: str, with_failing_runs: str, explained: str, labels: tuple[str, ...] = ()
) -> str:
    """The expression of a cause's alert.

    Args:
        settings: the labels of the target.
        always: the cause by itself, such as a share of errors.
        with_failing_runs: the weaker condition that suffices where runs fail by it.
        explained: the jobs whose failed runs the cause accounts for.
        labels: labels of the alert besides those of the target.
    """
    by = settings.scope.by()
    return (
        f"label_replace(\n"
        f"(\n{always}\nor\n{with_failing_runs}\nand on ({by}) {LOW}\n)\n"
        f"and on ({by})\n(\n{explained}\n),\n"
        f'"explains", "failed_runs", "", ""\n'
        f")\n"
        f"or on ({settings.scope.by(*labels)})\n"
        f"{always}"
    )
