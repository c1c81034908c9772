"""What the alerts on the library's own health must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Expected, Fired, Scenario, events, scenario
from taskpilot_obs.rules.series import absent, ramp, steady, then

FOLDER = "telemetry"
ONE = 'job="shop",instance="shop-1:9464"'
DROPPED, EXPORT, INTERNAL, OVERFLOW = (
    "TaskpilotRecordsDropped",
    "TaskpilotExporterErrors",
    "TaskpilotInternalErrors",
    "TaskpilotLabelOverflow",
)
QUEUE, DOWN, ABSENT = "TaskpilotQueueNearlyFull", "TaskpilotTargetDown", "TaskpilotTelemetryAbsent"
LONG_AGO = -100_000.0
UP = f"up{{{ONE}}}"
INFO = f"taskpilot_obs_start_time_seconds{{{ONE}}}"
QUEUE_SIZE = f'taskpilot_obs_queue_size{{{ONE},exporter="audit_log"}}'


expected = Expected("telemetry")
dropped = expected(
    DROPPED,
    "critical",
    "records_dropped",
    "Exporter audit_log of shop lost <figure> records in 15m (queue_full)",
    "Exporter audit_log of shop did not get <figure> records in the last 15m, reason queue_full."
    " What it writes is incomplete by them.",
    exporter="audit_log",
    reason="queue_full",
)
export = expected(
    EXPORT,
    "warning",
    "exporter_errors",
    "Exporter audit_log of shop failed <figure> times in 15m",
    "Exporter audit_log of shop raised an error on <figure> batches in the last 15m."
    " The application itself is not affected.",
    exporter="audit_log",
)
internal = expected(
    INTERNAL,
    "warning",
    "internal_errors",
    "Instrumentation of shop failed <figure> times in 15m (recorder)",
    "The instrumentation failed <figure> times at recorder in the last 15m. The application was kept from it;"
    " what it did then may be missing from the figures.",
    where="recorder",
)
overflow = expected(
    OVERFLOW,
    "warning",
    "label_overflow",
    "Too many names in agent_runs_total of shop: <figure> observations folded in 15m",
    "A label of agent_runs_total is full: <figure> observations went to __other__ in the last 15m."
    " Sums stay exact, names beyond the bound cannot be told apart.",
    metric="agent_runs_total",
)
queue = expected(
    QUEUE,
    "warning",
    "queue",
    "Queue of exporter audit_log of shop is <figure> full (above 80%)",
    "<figure> of 65536 places are taken in the fullest process. Records are lost once it is full.",
    exporter="audit_log",
)
down = expected(
    DOWN,
    "warning",
    "target",
    "<figure> processes of shop cannot be scraped",
    "Prometheus has not reached <figure> processes of shop for 5m. Their runs are invisible.",
)


SERVICE = "TaskpilotServiceDown"
SERVICE_DOWN = Fired(
    SERVICE,
    FOLDER,
    {"severity": "critical", "signal": "target", "job": "shop"},
    "66.67% of the processes of shop cannot be scraped",
    "Prometheus has not reached 66.67% of the processes of shop for 5m. None of the alerts on its runs can be believed"
    " meanwhile.",
)
NOBODY = Fired(
    ABSENT,
    FOLDER,
    {"severity": "critical", "signal": "absent"},
    "No telemetry arrives from any service",
    "No scraped target has taskpilot_obs_start_time_seconds: nothing reports now, for 5m. None of the other alerts can"
    " fire meanwhile.",
)
GONE = Fired(
    ABSENT,
    FOLDER,
    {"severity": "critical", "signal": "absent", "job": "shop"},
    "No telemetry arrives from shop",
    "shop should report and nothing reports now, for 5m. None of the other alerts can fire meanwhile.",
)


ALIVE = Fired(
    "TaskpilotWatchdog",
    FOLDER,
    {"severity": "none", "signal": "watchdog"},
    "Alerting works: this alert always fires",
    "Send it to a service that raises an alarm when it stops. Then Prometheus, its rules or Alertmanager have stopped,"
    " and no other alert can arrive.",
)
STOPPED = "TaskpilotRecordingsStopped"
LAST = (
    'prometheus_rule_group_last_evaluation_timestamp_seconds{job="prometheus",rule_group="r.yml;taskpilot-agents-runs"}'
)
stopped = expected(
    STOPPED,
    "critical",
    "recordings",
    "Recording rules stand still: prometheus (<figure>)",
    "Recording rules have not been evaluated lately, or record nothing of a service that is scraped. The alerts"
    " that read them see nothing.",
    job="prometheus",
)


def meta(series: str, fired: Fired) -> tuple[Scenario, ...]:
    """The cases of an alert on a counter of Prometheus or Alertmanager."""
    return (
        scenario(Case.FIRES, "four failures", {series: then(steady(0, 30), steady(4, 30))}, At("40m", (fired,))),
        scenario(Case.HEALTHY, "no failure", {series: steady(7, 60)}, At("1h", quiet=(fired.alert,))),
        scenario(
            Case.RESOLVES,
            "a quarter of an hour after the failures",
            {series: then(steady(0, 30), steady(4, 40))},
            At("40m", (fired,)),
            At("55m", quiet=(fired.alert,)),
        ),
    )


def three(*values: int) -> dict[str, str]:
    """Three processes that answered for 20 minutes, and whether each still does."""
    names = ("shop-1", "shop-2", "shop-3")
    up = {
        UP.replace("shop-1", name): then(steady(1, 20), steady(value, 30))
        for name, value in zip(names, values, strict=True)
    }
    return up | {INFO.replace("shop-1", name): steady(1, 60) for name in names}


SCENARIOS = (
    *events(
        f'taskpilot_obs_records_dropped_total{{{ONE},exporter="audit_log",reason="queue_full"}}', dropped, minutes=15
    ),
    *events(f'taskpilot_obs_export_errors_total{{{ONE},exporter="audit_log"}}', export, minutes=15),
    *events(f'taskpilot_obs_internal_errors_total{{{ONE},where="recorder"}}', internal, minutes=15),
    *events(f'taskpilot_obs_label_overflow_total{{{ONE},metric="agent_runs_total"}}', overflow, minutes=15),
    scenario(
        Case.FIRES,
        "one process is fuller than the other",
        {QUEUE_SIZE: steady(58982.4, 30), QUEUE_SIZE.replace("shop-1", "shop-2"): steady(10, 30)},
        At("20m", queue("90%")),
    ),
    scenario(
        Case.THIN,
        "full for three minutes",
        {QUEUE_SIZE: then(steady(0, 13), steady(65000, 3), steady(0, 20))},
        At("15m", quiet=(QUEUE,)),
        At("20m", quiet=(QUEUE,)),
    ),
    scenario(Case.HEALTHY, "half full", {QUEUE_SIZE: steady(32000, 30)}, At("20m", quiet=(QUEUE,))),
    scenario(
        Case.RESOLVES,
        "the queue drains",
        {QUEUE_SIZE: then(steady(58982.4, 30), steady(100, 20))},
        At("20m", queue("90%")),
        At("35m", quiet=(QUEUE,)),
    ),
    scenario(
        Case.FIRES,
        "one of two processes no longer answers",
        {
            UP: then(steady(1, 20), steady(0, 30)),
            INFO: then(steady(1, 20), "stale"),
            UP.replace("shop-1", "shop-2"): steady(1, 60),
            INFO.replace("shop-1", "shop-2"): steady(1, 60),
        },
        At("40m", down(1), (ABSENT,)),
    ),
    scenario(
        Case.THIN,
        "three minutes without an answer",
        {
            UP: then(steady(1, 23), steady(0, 3), steady(1, 20)),
            INFO: steady(1, 60),
        },
        At("25m", quiet=(DOWN,)),
        At("30m", quiet=(DOWN,)),
    ),
    scenario(
        Case.HEALTHY,
        "the service answers, and a foreign target does not",
        {UP: steady(1, 60), INFO: steady(1, 60), 'up{job="database",instance="db:9187"}': steady(0, 60)},
        At("40m", quiet=(DOWN, ABSENT)),
    ),
    scenario(
        Case.RESOLVES,
        "the process answers again",
        {
            UP: then(steady(1, 20), steady(0, 20), steady(1, 20)),
            INFO: then(steady(1, 20), "stale", absent(19), steady(1, 20)),
        },
        At("35m", down(1), (ABSENT,)),
        At("45m", quiet=(DOWN, ABSENT)),
    ),
    scenario(Case.FIRES, "two of three processes no longer answer", three(0, 0, 1), At("40m", (SERVICE_DOWN,))),
    scenario(
        Case.THIN,
        "all processes are away for three minutes",
        {UP: then(steady(1, 23), steady(0, 3), steady(1, 20)), INFO: steady(1, 60)},
        At("25m", quiet=(SERVICE,)),
        At("30m", quiet=(SERVICE,)),
    ),
    scenario(Case.HEALTHY, "one of three processes no longer answers", three(0, 1, 1), At("40m", quiet=(SERVICE,))),
    scenario(
        Case.RESOLVES,
        "the only process answers again",
        {UP: then(steady(1, 20), steady(0, 20), steady(1, 20)), INFO: steady(1, 60)},
        At(
            "35m",
            (
                SERVICE_DOWN._replace(
                    summary=SERVICE_DOWN.summary.replace("66.67", "100"),
                    description=SERVICE_DOWN.description.replace("66.67", "100"),
                ),
            ),
        ),
        At("45m", quiet=(SERVICE,)),
    ),
    scenario(
        Case.HEALTHY,
        "a job that a clock starts has ended",
        {UP: then(absent(20), steady(1, 10), "stale"), INFO: then(absent(20), steady(1_200, 10), "stale")},
        At("40m", quiet=(ABSENT, SERVICE, DOWN)),
    ),
    scenario(Case.FIRES, "whatever happens", {}, At("10m", (ALIVE,))),
    *meta(
        'prometheus_rule_evaluation_failures_total{job="prometheus",rule_group="r.yml;taskpilot-llm-cost"}',
        Fired(
            "TaskpilotRulesFailing",
            FOLDER,
            {"severity": "warning", "signal": "rules", "job": "prometheus", "rule_group": "r.yml;taskpilot-llm-cost"},
            "Rules fail: 4 evaluations in 15m, group r.yml;taskpilot-llm-cost",
            "4 evaluations of rules of this group failed in the last 15m. What they record or alert on is missing.",
        ),
    ),
    *meta(
        'alertmanager_notifications_failed_total{job="alertmanager",integration="slack"}',
        Fired(
            "TaskpilotNotificationsFailing",
            FOLDER,
            {"severity": "warning", "signal": "notifications", "job": "alertmanager", "integration": "slack"},
            "4 notifications failed in 15m: slack",
            "4 notifications were not delivered in the last 15m. Another receiver has to bring this one.",
        ),
    ),
    scenario(
        Case.FIRES,
        "a group stands still for 20 minutes",
        {LAST: then(ramp((60, 20)), steady(1_200, 20))},
        At("40m", stopped("1200")),
    ),
    scenario(Case.HEALTHY, "every group is evaluated", {LAST: ramp((60, 60))}, At("40m", quiet=(STOPPED,))),
    scenario(
        Case.RESOLVES,
        "a group goes on",
        {LAST: then(ramp((60, 20)), steady(1_200, 19), ramp((60, 30), start=2_400))},
        At("35m", stopped("900")),
        At("50m", quiet=(STOPPED,)),
    ),
    scenario(Case.FIRES, "nothing was ever scraped", {}, At("10m", (NOBODY,))),
    scenario(
        Case.FIRES,
        "a service is no longer among the targets, another is",
        {
            UP: then(steady(1, 20), "stale"),
            INFO: then(steady(LONG_AGO, 20), "stale"),
            UP.replace("shop", "other"): steady(1, 60),
            INFO.replace("shop", "other"): steady(1, 60),
        },
        At("40m", (GONE,), (DOWN,)),
    ),
    scenario(
        Case.THIN,
        "gone for three minutes",
        {
            UP: then(steady(1, 23), "stale", absent(2), steady(1, 20)),
            INFO: then(steady(1, 23), "stale", absent(2), steady(1, 20)),
        },
        At("25m", quiet=(ABSENT,)),
        At("30m", quiet=(ABSENT,)),
    ),
    scenario(
        Case.RESOLVES,
        "the first target appears",
        {UP: then(absent(20), steady(1, 20)), INFO: then(absent(20), steady(1, 20))},
        At("15m", (NOBODY,)),
        At("25m", quiet=(ABSENT,)),
    ),
)
