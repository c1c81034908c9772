"""What the alerts on the golden signals say when they fire."""

from __future__ import annotations

from taskpilot_obs.rules.cases import Expected, Fired

FOLDER = "golden_signals"
ONE = 'job="shop",instance="shop-1:9464"'
RUN = f'{ONE},workflow="checkout"'
TASK = "workflow checkout of shop"
EVIDENCE = "over the shortest of 5m, 1h, 6h, 1d with at least 10"
COUNTING = "Errors, timeouts and blocked runs count against it; cancelled, abandoned and interrupted ones do not."

SUCCESS = ("TaskpilotSuccessRateLow", "TaskpilotSuccessRateCritical")
LATENCY = ("TaskpilotLatencyHigh", "TaskpilotLatencyCritical")
TASK_COST = ("TaskpilotTaskCostHigh", "TaskpilotTaskCostCritical")
CORRECTNESS = ("TaskpilotCorrectnessLow", "TaskpilotCorrectnessCritical")
VIOLATIONS = ("TaskpilotPolicyViolationRateHigh", "TaskpilotPolicyViolationRateCritical")


class Both:
    """The two alerts on a signal as they must arrive; `<figure>` in their texts stands for the signal's value.

    Args:
        alerts: the warning and the critical one.
        signal: the signal.
        limits: where they fire.
        summary: their summary up to the limit.
        description: the description of both.
        labels: what both have beside the job.
    """

    def __init__(
        self,
        alerts: tuple[str, str],
        signal: str,
        limits: tuple[str, str],
        summary: str,
        description: str,
        **labels: str,
    ) -> None:
        self._alerts = tuple(
            expected(alert, severity, signal, f"{summary} ({limit})", description, **labels)
            for alert, severity, limit in zip(alerts, ("warning", "critical"), limits, strict=True)
        )

    def __call__(self, value: str) -> tuple[Fired, Fired]:
        """Both, when the signal has this value."""
        low, critical = (alert(value)[0] for alert in self._alerts)
        return low, critical


expected = Expected("golden_signals")


def _succeeds(task: str, **labels: str) -> Both:
    return Both(
        SUCCESS,
        "success_rate",
        ("below 95%", "below 90%"),
        f"Only <figure> of runs succeed: {task}",
        f"<figure> of the runs of {task} succeeded {EVIDENCE} counted runs. {COUNTING}",
        **labels,
    )


success = _succeeds(TASK, workflow="checkout")
success_overall = _succeeds("all workflows of shop")
latency = Both(
    LATENCY,
    "p95_latency",
    ("above 2 s", "above 5 s"),
    f"Runs are slow, p95 is <figure>: {TASK}",
    f"1 of 20 runs of {TASK} takes <figure> or longer, {EVIDENCE} runs, whatever their status.",
    workflow="checkout",
)
task_cost = Both(
    TASK_COST,
    "cost_per_task",
    ("above $0.10", "above $0.50"),
    "A successful task costs <figure>: shop",
    f"All LLM calls of shop together cost <figure> per run that succeeded, {EVIDENCE} counted runs."
    " Failed runs cost too: a low success rate raises this figure.",
)
correctness = Both(
    CORRECTNESS,
    "correctness",
    ("below 90%", "below 70%"),
    "Users confirm only <figure> of answers: shop",
    "<figure> of the answers of shop that users judged were correct,"
    " over the shortest of 1h, 6h, 1d, 3d with at least 10 verdicts.",
)
violations = Both(
    VIOLATIONS,
    "policy_violation_rate",
    ("above 1%", "above 2%"),
    "Policy violations reach <figure> of runs: shop",
    f"Policies denied <figure> as often as shop finished a counted run, {EVIDENCE} counted runs."
    " Denials count in monitor and in enforce mode.",
)


def burn(name: str, times: str) -> Fired:
    """One alert on a burn rate."""
    fast = name.endswith("Fast")
    slo = "success" if "Success" in name else "latency"
    bad = "fail" if slo == "success" else "take longer than 2 s"
    pairs = "14.4 over 1h and 5m or 6 over 6h and 30m" if fast else "3 over 1d and 2h or 1 over 3d and 6h"
    return Fired(
        name,
        FOLDER,
        {
            "severity": "critical" if fast else "warning",
            "signal": f"{slo}_budget",
            "job": "shop",
            "workflow": "checkout",
        },
        f"Error budget ({slo}) burns {times} times too fast: {TASK}",
        f"Of {TASK}, 5% of the runs may {bad} over 30d; they do so {times} times as often. Fires above {pairs}.",
    )
