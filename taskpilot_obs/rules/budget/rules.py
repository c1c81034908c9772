"""Rules of budgets: nearly used up, on the way to it, and calls refused."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.rules import causes
from taskpilot_obs.rules.model import Alert, AlertKind, AlertSignal, Recording, RuleGroup
from taskpilot_obs.rules.promql import Count, number
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import PERCENT, WHOLE, percent
from taskpilot_obs.semconv import Label

_LABELS: Final = (Label.BUDGET, Label.PERIOD)
BUDGET: Final = "Budget {{ $labels.budget }} ({{ $labels.period }}) of {{ $labels.job }}"
_SPENT: Final = f"{PERCENT} of the limit is spent. In enforce mode calls are refused"
USED: Final = "budget:llm_budget_used:ratio"
RESETS: Final = "budget:llm_budget_resets:timestamp_seconds"
PROJECTED: Final = "budget:llm_budget_used:ratio_projected"
REFUSALS: Final = Count("budget", "llm_budget_refusals", _LABELS, semconv.BUDGET_REFUSALS.name, every=True)


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `budget`."""
    scope, window = settings.scope, settings.budget.projection_window
    by = scope.by(*_LABELS)
    # Processes that share a store show the same figure, the others each their own: the fullest one counts.
    used = Recording(USED, f"max by ({by}) ({scope.select(semconv.BUDGET_USED_RATIO.name)})")
    resets = Recording(RESETS, f"max by ({by}) ({scope.select(semconv.BUDGET_RESETS.name)})")
    left = f"({RESETS} - time())"
    projected = Recording(PROJECTED, f"{USED}\n+\nclamp_min(deriv({USED}[{window}]), 0) * {left}")
    rules = (used, resets, projected, *REFUSALS.rules(scope, ("1h",)))
    return (RuleGroup("taskpilot-budget", settings.evaluation_interval, rules), _causes(settings))


def _causes(settings: RuleSettings) -> RuleGroup:
    share = number(settings.budget.critical_percent / 100)
    return causes.BUDGETS.group(
        settings, "taskpilot-budget-causes", f"min_over_time({USED}[{settings.lasting}]) > {share}"
    )


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `budget`."""
    limits = settings.budget
    return (
        *_spent(settings),
        AlertSignal("budget_projected", AlertKind.ABSENCE).warning(
            "TaskpilotBudgetRunsOut",
            f"{PROJECTED} > 1\nand {USED} > {number(limits.projection_min_percent / 100)}\nand {USED} < 1",
            f"{BUDGET} will not last: {PERCENT} by the end of the period",
            f"At the rate of the last {limits.projection_window}, {PERCENT} of the limit will be spent when the period"
            " ends.",
            settings.lasting,
        ),
        AlertSignal("budget_refusals", AlertKind.EVENT).warning(
            "TaskpilotBudgetRefusals",
            f"{REFUSALS.over('1h')} > 0",
            f"{BUDGET} refused {WHOLE} calls in the last hour",
            f"{BUDGET} had no room for {WHOLE} LLM calls in the last hour. They were not made: callers got an error.",
        ),
        _other_limits(settings),
    )


def _spent(settings: RuleSettings) -> tuple[Alert, Alert]:
    limits, signal = settings.budget, AlertSignal("budget_used", AlertKind.ABSENCE)
    return (
        signal.warning(
            "TaskpilotBudgetNearlyUsed",
            f"{USED} > {number(limits.warning_percent / 100)}",
            f"{BUDGET} is {PERCENT} spent (above {percent(limits.warning_percent)})",
            f"{_SPENT} once there is no room for them.",
            settings.lasting,
        ),
        signal.critical(
            "TaskpilotBudgetAlmostGone",
            causes.explaining(
                settings,
                causes.BUDGETS,
                with_failing_runs=f"({USED} and {REFUSALS.over('1h')} > 0)",
                labels=_LABELS,
            ),
            f"{BUDGET} is {PERCENT} spent",
            f"{_SPENT} once there is no room for them. Fires above {percent(limits.critical_percent)}, and where runs"
            " fail because they are refused.",
            # No wait: it would start over whenever the label for failed runs comes or goes.
        ),
    )


def _other_limits(settings: RuleSettings) -> Alert:
    scope = settings.scope
    others = f"max by ({scope.by(*_LABELS)}) ({scope.select(semconv.BUDGET_OTHER_LIMITS.name)})"
    return AlertSignal("budget_limits", AlertKind.ABSENCE).warning(
        "TaskpilotBudgetLimitsDiffer",
        f"{others} > 0",
        f"{BUDGET} has {WHOLE} other limits in its store",
        f"Processes keep {WHOLE} other limits under its name, and what is spent counts against all of them. Each"
        " process alerts and refuses by its own.",
        settings.lasting,
    )
