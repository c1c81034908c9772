"""What the alerts on the golden signals say when they fire."""

from __future__ import annotations

from taskpilot_obs.rules.cases import Fired

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


def success(value: str, task: str = TASK, **labels: str) -> tuple[Fired, Fired]:
    """Both alerts on the success rate."""
    found = labels or {"workflow": "checkout"}
    description = f"{value} of the runs of {task} succeeded {EVIDENCE} counted runs. {COUNTING}"
    low, critical = (
        Fired(
            name,
            FOLDER,
            {"severity": severity, "signal": "success_rate", "job": "shop", **found},
            f"Only {value} of runs succeed: {task} (below {limit})",
            description,
        )
        for name, severity, limit in zip(SUCCESS, ("warning", "critical"), ("95%", "90%"), strict=True)
    )
    return low, critical


def success_overall(value: str) -> tuple[Fired, Fired]:
    """Both alerts on the success rate, when no single workflow has enough runs."""
    low, critical = success(value, "all workflows of shop", workflow="")
    return tuple(item._replace(labels={k: v for k, v in item.labels.items() if v}) for item in (low, critical))  # type: ignore[return-value]  # two in, two out


def latency(value: str) -> tuple[Fired, Fired]:
    """Both alerts on the p95 of durations."""
    low, critical = (
        Fired(
            name,
            FOLDER,
            {"severity": severity, "signal": "p95_latency", "job": "shop", "workflow": "checkout"},
            f"Runs are slow, p95 is {value}: {TASK} (above {limit})",
            f"1 of 20 runs of {TASK} takes {value} or longer, {EVIDENCE} runs, whatever their status.",
        )
        for name, severity, limit in zip(LATENCY, ("warning", "critical"), ("2 s", "5 s"), strict=True)
    )
    return low, critical


def task_cost(value: str) -> tuple[Fired, Fired]:
    """Both alerts on the cost per successful task."""
    low, critical = (
        Fired(
            name,
            FOLDER,
            {"severity": severity, "signal": "cost_per_task", "job": "shop"},
            f"A successful task costs {value}: shop (above {limit})",
            f"All LLM calls of shop together cost {value} per run that succeeded, {EVIDENCE} counted runs."
            " Failed runs cost too: a low success rate raises this figure.",
        )
        for name, severity, limit in zip(TASK_COST, ("warning", "critical"), ("$0.10", "$0.50"), strict=True)
    )
    return low, critical


def correctness(value: str) -> tuple[Fired, Fired]:
    """Both alerts on what users confirm."""
    low, critical = (
        Fired(
            name,
            FOLDER,
            {"severity": severity, "signal": "correctness", "job": "shop"},
            f"Users confirm only {value} of answers: shop (below {limit})",
            f"{value} of the answers of shop that users judged were correct,"
            " over the shortest of 1h, 6h, 1d, 3d with at least 10 verdicts.",
        )
        for name, severity, limit in zip(CORRECTNESS, ("warning", "critical"), ("90%", "70%"), strict=True)
    )
    return low, critical


def violations(value: str) -> tuple[Fired, Fired]:
    """Both alerts on policy violations a run."""
    low, critical = (
        Fired(
            name,
            FOLDER,
            {"severity": severity, "signal": "policy_violation_rate", "job": "shop"},
            f"Policy violations reach {value} of runs: shop (above {limit})",
            f"Policies denied {value} as often as shop finished a counted run, {EVIDENCE} counted runs."
            " Denials count in monitor and in enforce mode.",
        )
        for name, severity, limit in zip(VIOLATIONS, ("warning", "critical"), ("1%", "2%"), strict=True)
    )
    return low, critical


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
