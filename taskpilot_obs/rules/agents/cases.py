"""What the alerts per agent must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Fired, Scenario, absent, histogram, ramp, steady, then

FOLDER = "agents"
ONE = 'job="shop",instance="shop-1:9464"'
AGENT = f'{ONE},agent="planner"'
OK, BAD = f'agent_runs_total{{{AGENT},status="success"}}', f'agent_runs_total{{{AGENT},status="error"}}'
ACTIVE = f"agent_active_runs{{{AGENT}}}"
INFO = f'taskpilot_obs_info{{{ONE},version="1",service="shop",service_version="7"}}'
DURATION = "agent_run_duration_seconds"

LOOPING = "TaskpilotAgentLooping"
FAILING, SLOW, STUCK, SILENT = (
    "TaskpilotAgentFailing",
    "TaskpilotAgentSlow",
    "TaskpilotAgentStuck",
    "TaskpilotAgentSilent",
)
EVIDENCE = "over the shortest of 5m, 1h, 6h, 1d with at least 10"


def _fired(name: str, signal: str, summary: str, description: str) -> tuple[Fired]:
    labels = {"severity": "warning", "signal": signal, "job": "shop", "agent": "planner"}
    return (Fired(name, FOLDER, labels, summary, description),)


def failing(value: str) -> tuple[Fired]:
    """The agent fails too often."""
    return _fired(
        FAILING,
        "agent_success_rate",
        f"Agent planner of shop succeeds in only {value} of its runs (below 90%)",
        f"{value} of the runs of this agent succeeded {EVIDENCE} counted runs.",
    )


def slow(value: str) -> tuple[Fired]:
    """The agent is slow."""
    return _fired(
        SLOW,
        "agent_latency",
        f"Agent planner of shop is slow, p95 is {value} (above 30 s)",
        f"1 of 20 runs of this agent takes {value} or longer, {EVIDENCE} runs.",
    )


def looping(count: int) -> tuple[Fired]:
    """Runs with too many tool calls."""
    return _fired(
        LOOPING,
        "agent_looping",
        f"Agent planner of shop loops: {count} runs made more than 80 tool calls in the last hour",
        f"{count} runs of this agent that ended in the last hour made more than 80 tool calls each. They may have"
        " succeeded; each call costs time, and most cost money.",
    )


def calls(modest: str, many: str) -> dict[str, str]:
    """Runs with up to 80 tool calls and all runs, as counters."""
    name = f"agent_run_tool_calls_bucket{{{AGENT},le="
    return {f'{name}"80.0"}}': modest, f'{name}"+Inf"}}': many}


def stuck(count: int) -> tuple[Fired]:
    """Runs that do not end."""
    return _fired(
        STUCK,
        "agent_stuck",
        f"Agent planner of shop seems stuck: {count} active, none finished for 30m",
        f"At least {count} runs of this agent have been active for 30m in processes where none of its runs ended"
        " in that time.",
    )


def silent(count: int) -> tuple[Fired]:
    """No runs where there should be some."""
    return _fired(
        SILENT,
        "agent_silent",
        f"Agent planner of shop is silent: {count} runs in the same hours yesterday, none now",
        f"No run of this agent ended in the last hour or the last six, though {count} did in the same time"
        " a day ago, and not fewer than usual a week ago. The service itself is up.",
    )


def durations(within_30: float, within_60: float, minutes: int) -> dict[str, str]:
    """Runs a minute: so many within 30 s, so many within 60 s."""
    return histogram(DURATION, AGENT, {"30.0": within_30, "60.0": within_60, "+Inf": within_60}, minutes)


DAY = 1440
SCENARIOS = (
    Scenario(
        Case.FIRES, "7 of 10 runs succeed", {OK: ramp((7, 120)), BAD: ramp((3, 120))}, (At("2h", failing("70%")),)
    ),
    Scenario(
        Case.FIRST_EVENT,
        "an undeclared agent ends its first ten runs as errors",
        {BAD: then(absent(20), steady(10, 20))},
        (At("40m", failing("0%")),),
    ),
    Scenario(
        Case.THIN,
        "2 of 10 runs fail",
        {OK: then(steady(0, 60), steady(8, 60)), BAD: then(steady(0, 60), steady(2, 60))},
        (At("1h50m", quiet=(FAILING,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "95 of 100 runs succeed",
        {OK: ramp((95, 120)), BAD: ramp((5, 120))},
        (At("2h", quiet=(FAILING,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "an hour of good runs after an outage",
        {OK: ramp((5, 120), (10, 70)), BAD: ramp((5, 120), (0, 70))},
        (At("2h", failing("50%")), At("3h10m", quiet=(FAILING,))),
    ),
    Scenario(
        Case.RESET,
        "the process restarts amid failing runs",
        {OK: then(ramp((7, 90)), ramp((7, 90))), BAD: then(ramp((3, 90)), ramp((3, 90)))},
        (At("1h55m", failing("70%")),),
    ),
    # 5 of 10 within 30 s, the rest within 60 s: 30 + 30 x (9.5 - 5) / 5 = 57 s.
    Scenario(Case.FIRES, "half of the runs take 30 s to 60 s", durations(5, 10, 120), (At("2h", slow("57.0 s")),)),
    Scenario(
        Case.THIN,
        "5 slow runs in all",
        {name: then(steady(0, 60), steady(0 if "30.0" in name else 5, 60)) for name in durations(0, 1, 1)},
        (At("1h50m", quiet=(SLOW,)),),
    ),
    Scenario(Case.HEALTHY, "98 of 100 runs take at most 30 s", durations(98, 100, 120), (At("2h", quiet=(SLOW,)),)),
    Scenario(
        Case.RESOLVES,
        "an hour of fast runs after slow ones",
        {name: ramp((5 if "30.0" in name else 10, 120), (10, 70)) for name in durations(0, 1, 1)},
        (At("2h", slow("57.0 s")), At("3h10m", quiet=(SLOW,))),
    ),
    Scenario(
        Case.RESET,
        "the process restarts amid slow runs",
        {name: then(text, text) for name, text in durations(5, 10, 90).items()},
        (At("1h55m", slow("57.0 s")),),
    ),
    Scenario(
        Case.FIRES,
        "two runs hang while another process works",
        {
            ACTIVE: steady(2, 60),
            OK: steady(30, 60),
            OK.replace("shop-1", "shop-2"): ramp((10, 60)),
            ACTIVE.replace("shop-1", "shop-2"): steady(1, 60),
        },
        (At("50m", stuck(2)),),
    ),
    Scenario(
        Case.FIRES,
        "the very first run of an agent hangs",
        {ACTIVE: then(absent(10), steady(1, 60))},
        (At("30m", quiet=(STUCK,)), At("1h", stuck(1))),
    ),
    Scenario(
        Case.THIN,
        "a run takes twenty minutes",
        {
            ACTIVE: then(steady(0, 20), steady(1, 20), steady(0, 40)),
            OK: then(steady(0, 40), steady(1, 40)),
        },
        (At("25m", quiet=(STUCK,)), At("40m", quiet=(STUCK,)), At("1h", quiet=(STUCK,))),
    ),
    Scenario(
        Case.HEALTHY,
        "always busy, and runs end",
        {ACTIVE: steady(3, 60), OK: ramp((2, 60))},
        (At("1h", quiet=(STUCK,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "the hanging run ends",
        {ACTIVE: then(steady(1, 60), steady(0, 20)), OK: then(steady(5, 60), steady(6, 20))},
        (At("1h", stuck(1)), At("1h10m", quiet=(STUCK,))),
    ),
    Scenario(
        Case.FIRES,
        "six runs a minute yesterday, none for an hour",
        {OK: ramp((6, DAY + 60), (0, 90)), INFO: steady(1, DAY + 150)},
        (At("24h30m", quiet=(SILENT,)), At("26h10m", silent(360))),
    ),
    Scenario(
        Case.FIRES,
        "two runs an hour yesterday, none for six hours",
        {
            OK: ramp((0, 1), *((1, 1), (0, 29)) * 52, (0, 400)),
            INFO: steady(1, DAY * 2),
        },
        (At("28h", quiet=(SILENT,)), At("32h10m", silent(12))),
    ),
    Scenario(
        Case.FIRES,
        "two of twelve runs make 250 tool calls",
        calls(then(steady(0, 30), steady(10, 60)), then(steady(0, 30), steady(12, 60))),
        (At("40m", looping(2)),),
    ),
    Scenario(
        Case.FIRST_EVENT,
        "the first run of an agent makes 250 tool calls",
        calls(then(absent(30), steady(0, 60)), then(absent(30), steady(1, 60))),
        (At("40m", looping(1)),),
    ),
    Scenario(
        Case.HEALTHY,
        "no run makes more than 80 tool calls",
        calls(ramp((5, 120)), ramp((5, 120))),
        (At("2h", quiet=(LOOPING,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "an hour after the last loop",
        calls(then(steady(0, 30), steady(10, 90)), then(steady(0, 30), steady(11, 90))),
        (At("40m", looping(1)), At("1h50m", quiet=(LOOPING,))),
    ),
    Scenario(
        Case.RESET,
        "the process restarts after loops",
        calls(then(steady(10, 70), steady(0, 30)), then(steady(20, 70), steady(0, 30))),
        (At("1h30m", quiet=(LOOPING,)),),
    ),
    Scenario(
        Case.THIN,
        "nine runs in the same hour yesterday",
        {OK: ramp((0, 120), (1, 9), (0, DAY)), INFO: steady(1, DAY + 150)},
        (At("26h10m", quiet=(SILENT,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "the same traffic every day",
        {OK: ramp((6, DAY + 150)), INFO: steady(1, DAY + 150)},
        (At("26h10m", quiet=(SILENT,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "the whole service is gone, which other alerts tell",
        {OK: ramp((6, DAY)), INFO: steady(1, DAY)},
        (At("25h50m", quiet=(SILENT,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "runs come again",
        {OK: ramp((6, DAY), (0, 90), (6, 20)), INFO: steady(1, DAY + 110)},
        (At("25h30m", silent(360)), At("25h40m", quiet=(SILENT,))),
    ),
)
