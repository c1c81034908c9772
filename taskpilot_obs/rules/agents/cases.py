"""What the alerts per agent must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Expected, resolves, scenario
from taskpilot_obs.rules.series import Counters, absent, by_label, histogram, ramp, steady, then, twice

FOLDER = "agents"
ONE = 'job="shop",instance="shop-1:9464"'
AGENT = f'{ONE},agent="planner"'
OK, BAD = by_label("agent_runs_total", AGENT, "status", "success", "error")
ACTIVE = f"agent_active_runs{{{AGENT}}}"
INFO = f'taskpilot_obs_info{{{ONE},version="1",service="shop",service_version="7"}}'
RUNS = Counters(OK, BAD)
DURATION = "agent_run_duration_seconds"

LOOPING = "TaskpilotAgentLooping"
FAILING, SLOW, STUCK, SILENT = (
    "TaskpilotAgentFailing",
    "TaskpilotAgentSlow",
    "TaskpilotAgentStuck",
    "TaskpilotAgentSilent",
)
EVIDENCE = "over the shortest of 5m, 1h, 6h, 1d with at least 10"


expected = Expected("agents", agent="planner")
failing = expected(
    FAILING,
    "warning",
    "agent_success_rate",
    "Agent planner of shop succeeds in only <figure> of its runs (below 90%)",
    f"<figure> of the runs of this agent succeeded {EVIDENCE} counted runs.",
)
slow = expected(
    SLOW,
    "warning",
    "agent_latency",
    "Agent planner of shop is slow, p95 is <figure> (above 30 s)",
    f"1 of 20 runs of this agent takes <figure> or longer, {EVIDENCE} runs.",
)
looping = expected(
    LOOPING,
    "warning",
    "agent_looping",
    "Agent planner of shop loops: <figure> runs made more than 80 tool calls in the last hour",
    "<figure> runs of this agent that ended in the last hour made more than 80 tool calls each. They may have"
    " succeeded; each call costs time, and most cost money.",
)


def calls(modest: str, many: str) -> dict[str, str]:
    """Runs with up to 80 tool calls and all runs, as counters."""
    name = f"agent_run_tool_calls_bucket{{{AGENT},le="
    return {f'{name}"80.0"}}': modest, f'{name}"+Inf"}}': many}


stuck = expected(
    STUCK,
    "warning",
    "agent_stuck",
    "Agent planner of shop seems stuck: <figure> active, none finished for 30m",
    "At least <figure> runs of this agent have been active for 30m in processes where none of its runs ended"
    " in that time.",
)
silent = expected(
    SILENT,
    "warning",
    "agent_silent",
    "Agent planner of shop is silent: <figure> runs in the same hours yesterday, none now",
    "No run of this agent ended in the last hour or the last six, though <figure> did in the same time"
    " a day ago, and not fewer than usual a week ago. The service itself is up.",
)


def durations(within_30: float, within_60: float, minutes: int) -> dict[str, str]:
    """Runs a minute: so many within 30 s, so many within 60 s."""
    return histogram(DURATION, AGENT, {"30.0": within_30, "60.0": within_60, "+Inf": within_60}, minutes)


DAY = 1440
SCENARIOS = (
    scenario(Case.FIRES, "7 of 10 runs succeed", RUNS.growing((7, 3, 120)), At("2h", failing("70%"))),
    scenario(
        Case.FIRST_EVENT,
        "an undeclared agent ends its first ten runs as errors",
        {BAD: then(absent(20), steady(10, 20))},
        At("40m", failing("0%")),
    ),
    scenario(Case.THIN, "2 of 10 runs fail", RUNS.at_once(8, 2), At("1h50m", quiet=(FAILING,))),
    scenario(Case.HEALTHY, "95 of 100 runs succeed", RUNS.growing((95, 5, 120)), At("2h", quiet=(FAILING,))),
    resolves("an hour of good runs after an outage", RUNS.growing((5, 5, 120), (10, 0, 70)), failing("50%")),
    scenario(Case.RESET, "the process restarts amid failing runs", RUNS.restarted(7, 3), At("1h55m", failing("70%"))),
    # 5 of 10 within 30 s, the rest within 60 s: 30 + 30 x (9.5 - 5) / 5 = 57 s.
    scenario(Case.FIRES, "half of the runs take 30 s to 60 s", durations(5, 10, 120), At("2h", slow("57.0 s"))),
    scenario(
        Case.THIN,
        "5 slow runs in all",
        {name: then(steady(0, 60), steady(0 if "30.0" in name else 5, 60)) for name in durations(0, 1, 1)},
        At("1h50m", quiet=(SLOW,)),
    ),
    scenario(Case.HEALTHY, "98 of 100 runs take at most 30 s", durations(98, 100, 120), At("2h", quiet=(SLOW,))),
    resolves(
        "an hour of fast runs after slow ones",
        {name: ramp((5 if "30.0" in name else 10, 120), (10, 70)) for name in durations(0, 1, 1)},
        slow("57.0 s"),
    ),
    scenario(
        Case.RESET, "the process restarts amid slow runs", twice(durations(5, 10, 90)), At("1h55m", slow("57.0 s"))
    ),
    scenario(
        Case.FIRES,
        "two runs hang while another process works",
        {
            ACTIVE: steady(2, 60),
            OK: steady(30, 60),
            OK.replace("shop-1", "shop-2"): ramp((10, 60)),
            ACTIVE.replace("shop-1", "shop-2"): steady(1, 60),
        },
        At("50m", stuck(2)),
    ),
    scenario(
        Case.FIRES,
        "the very first run of an agent hangs",
        {ACTIVE: then(absent(10), steady(1, 60))},
        At("30m", quiet=(STUCK,)),
        At("1h", stuck(1)),
    ),
    scenario(
        Case.THIN,
        "a run takes twenty minutes",
        {
            ACTIVE: then(steady(0, 20), steady(1, 20), steady(0, 40)),
            OK: then(steady(0, 40), steady(1, 40)),
        },
        At("25m", quiet=(STUCK,)),
        At("40m", quiet=(STUCK,)),
        At("1h", quiet=(STUCK,)),
    ),
    scenario(
        Case.HEALTHY, "always busy, and runs end", {ACTIVE: steady(3, 60), OK: ramp((2, 60))}, At("1h", quiet=(STUCK,))
    ),
    scenario(
        Case.RESOLVES,
        "the hanging run ends",
        {ACTIVE: then(steady(1, 60), steady(0, 20)), OK: then(steady(5, 60), steady(6, 20))},
        At("1h", stuck(1)),
        At("1h10m", quiet=(STUCK,)),
    ),
    scenario(
        Case.FIRES,
        "six runs a minute yesterday, none for an hour",
        {OK: ramp((6, DAY + 60), (0, 90)), INFO: steady(1, DAY + 150)},
        At("24h30m", quiet=(SILENT,)),
        At("26h10m", silent(360)),
    ),
    scenario(
        Case.FIRES,
        "two runs an hour yesterday, none for six hours",
        {
            OK: ramp((0, 1), *((1, 1), (0, 29)) * 52, (0, 400)),
            INFO: steady(1, DAY * 2),
        },
        At("28h", quiet=(SILENT,)),
        At("32h10m", silent(12)),
    ),
    scenario(
        Case.FIRES,
        "two of twelve runs make 250 tool calls",
        calls(then(steady(0, 30), steady(10, 60)), then(steady(0, 30), steady(12, 60))),
        At("40m", looping(2)),
    ),
    scenario(
        Case.FIRST_EVENT,
        "the first run of an agent makes 250 tool calls",
        calls(then(absent(30), steady(0, 60)), then(absent(30), steady(1, 60))),
        At("40m", looping(1)),
    ),
    scenario(
        Case.HEALTHY,
        "no run makes more than 80 tool calls",
        calls(ramp((5, 120)), ramp((5, 120))),
        At("2h", quiet=(LOOPING,)),
    ),
    scenario(
        Case.RESOLVES,
        "an hour after the last loop",
        calls(then(steady(0, 30), steady(10, 90)), then(steady(0, 30), steady(11, 90))),
        At("40m", looping(1)),
        At("1h50m", quiet=(LOOPING,)),
    ),
    scenario(
        Case.RESET,
        "the process restarts after loops",
        calls(then(steady(10, 70), steady(0, 30)), then(steady(20, 70), steady(0, 30))),
        At("1h30m", quiet=(LOOPING,)),
    ),
    scenario(
        Case.THIN,
        "nine runs in the same hour yesterday",
        {OK: ramp((0, 120), (1, 9), (0, DAY)), INFO: steady(1, DAY + 150)},
        At("26h10m", quiet=(SILENT,)),
    ),
    scenario(
        Case.HEALTHY,
        "the same traffic every day",
        {OK: ramp((6, DAY + 150)), INFO: steady(1, DAY + 150)},
        At("26h10m", quiet=(SILENT,)),
    ),
    scenario(
        Case.HEALTHY,
        "the whole service is gone, which other alerts tell",
        {OK: ramp((6, DAY)), INFO: steady(1, DAY)},
        At("25h50m", quiet=(SILENT,)),
    ),
    scenario(
        Case.RESOLVES,
        "runs come again",
        {OK: ramp((6, DAY), (0, 90), (6, 20)), INFO: steady(1, DAY + 110)},
        At("25h30m", silent(360)),
        At("25h40m", quiet=(SILENT,)),
    ),
)
