"""What the alerts on the library's own health must do."""

from __future__ import annotations

from _rule_cases import At, Case, Fired, Scenario, absent, steady, then

FOLDER = "telemetry"
ONE = 'job="shop",instance="shop-1:9464"'
DROPPED, EXPORT, INTERNAL, OVERFLOW = (
    "TaskpilotRecordsDropped",
    "TaskpilotExporterErrors",
    "TaskpilotInternalErrors",
    "TaskpilotLabelOverflow",
)
QUEUE, DOWN, ABSENT = "TaskpilotQueueNearlyFull", "TaskpilotTargetDown", "TaskpilotTelemetryAbsent"
UP = f"up{{{ONE}}}"
INFO = f'taskpilot_obs_info{{{ONE},version="1",service="shop",service_version="7"}}'
QUEUE_SIZE = f'taskpilot_obs_queue_size{{{ONE},exporter="audit_log"}}'


def dropped(count: int) -> tuple[Fired]:
    """Records were lost."""
    return (
        Fired(
            DROPPED,
            FOLDER,
            {
                "severity": "critical",
                "signal": "records_dropped",
                "job": "shop",
                "exporter": "audit_log",
                "reason": "queue_full",
            },
            f"Exporter audit_log of shop lost {count} records in 15m (queue_full)",
            f"Exporter audit_log of shop did not get {count} records in the last 15m, reason queue_full."
            " What it writes is incomplete by them.",
        ),
    )


def export(count: int) -> tuple[Fired]:
    """An exporter failed."""
    return (
        Fired(
            EXPORT,
            FOLDER,
            {"severity": "warning", "signal": "exporter_errors", "job": "shop", "exporter": "audit_log"},
            f"Exporter audit_log of shop failed {count} times in 15m",
            f"Exporter audit_log of shop raised an error on {count} batches in the last 15m."
            " The application itself is not affected.",
        ),
    )


def internal(count: int) -> tuple[Fired]:
    """The instrumentation failed."""
    return (
        Fired(
            INTERNAL,
            FOLDER,
            {"severity": "warning", "signal": "internal_errors", "job": "shop", "where": "recorder"},
            f"Instrumentation of shop failed {count} times in 15m (recorder)",
            f"The instrumentation failed {count} times at recorder in the last 15m. The application was kept from it;"
            " what it did then may be missing from the figures.",
        ),
    )


def overflow(count: int) -> tuple[Fired]:
    """A label is full."""
    return (
        Fired(
            OVERFLOW,
            FOLDER,
            {"severity": "warning", "signal": "label_overflow", "job": "shop", "metric": "agent_runs_total"},
            f"Too many names in agent_runs_total of shop: {count} observations folded in 15m",
            f"A label of agent_runs_total is full: {count} observations went to __other__ in the last 15m."
            " Sums stay exact, names beyond the bound cannot be told apart.",
        ),
    )


def queue(value: str) -> tuple[Fired]:
    """A queue is nearly full."""
    return (
        Fired(
            QUEUE,
            FOLDER,
            {"severity": "warning", "signal": "queue", "job": "shop", "exporter": "audit_log"},
            f"Queue of exporter audit_log of shop is {value} full (above 80%)",
            f"{value} of 65536 places are taken in the fullest process. Records are lost once it is full.",
        ),
    )


def down(count: int) -> tuple[Fired]:
    """Processes cannot be scraped."""
    return (
        Fired(
            DOWN,
            FOLDER,
            {"severity": "critical", "signal": "target", "job": "shop"},
            f"{count} processes of shop cannot be scraped",
            f"Prometheus has not reached {count} processes of shop for 5m. Their runs are invisible.",
        ),
    )


NOBODY = Fired(
    ABSENT,
    FOLDER,
    {"severity": "critical", "signal": "absent"},
    "No telemetry arrives from any service",
    "No scraped target has taskpilot_obs_info: nothing reports now, for 5m. None of the other alerts can fire"
    " meanwhile.",
)
GONE = Fired(
    ABSENT,
    FOLDER,
    {"severity": "critical", "signal": "absent", "job": "shop"},
    "No telemetry arrives from shop",
    "shop reported within the last day and nothing reports now, for 5m. None of the other alerts can fire meanwhile.",
)


def events(series: str, one: tuple[Fired], three: tuple[Fired]) -> tuple[Scenario, ...]:
    """The cases of an alert on a counter that should never move."""
    alert = one[0].alert
    return (
        Scenario(Case.FIRES, "three events", {series: then(steady(0, 30), steady(3, 30))}, (At("40m", three),)),
        Scenario(
            Case.FIRST_EVENT,
            "one event, the first ever",
            {series: then(absent(30), steady(1, 30))},
            (At("25m", quiet=(alert,)), At("35m", one)),
        ),
        Scenario(Case.HEALTHY, "nothing for an hour", {series: steady(7, 60)}, (At("1h", quiet=(alert,)),)),
        Scenario(
            Case.RESOLVES,
            "a quarter of an hour after the event",
            {series: then(steady(0, 30), steady(1, 40))},
            (At("40m", one), At("55m", quiet=(alert,))),
        ),
        Scenario(
            Case.RESET,
            "the process restarts",
            {series: then(steady(50, 30), steady(0, 30))},
            (At("40m", quiet=(alert,)),),
        ),
        Scenario(
            Case.RESET,
            "an event after the process restarted",
            {series: then(steady(50, 30), steady(0, 5), steady(1, 30))},
            (At("40m", one),),
        ),
    )


SCENARIOS = (
    *events(
        f'taskpilot_obs_records_dropped_total{{{ONE},exporter="audit_log",reason="queue_full"}}', dropped(1), dropped(3)
    ),
    *events(f'taskpilot_obs_export_errors_total{{{ONE},exporter="audit_log"}}', export(1), export(3)),
    *events(f'taskpilot_obs_internal_errors_total{{{ONE},where="recorder"}}', internal(1), internal(3)),
    *events(f'taskpilot_obs_label_overflow_total{{{ONE},metric="agent_runs_total"}}', overflow(1), overflow(3)),
    Scenario(
        Case.FIRES,
        "one process is fuller than the other",
        {QUEUE_SIZE: steady(58982.4, 30), QUEUE_SIZE.replace("shop-1", "shop-2"): steady(10, 30)},
        (At("20m", queue("90%")),),
    ),
    Scenario(
        Case.THIN,
        "full for three minutes",
        {QUEUE_SIZE: then(steady(0, 13), steady(65000, 3), steady(0, 20))},
        (
            At("15m", quiet=(QUEUE,)),
            At("20m", quiet=(QUEUE,)),
        ),
    ),
    Scenario(Case.HEALTHY, "half full", {QUEUE_SIZE: steady(32000, 30)}, (At("20m", quiet=(QUEUE,)),)),
    Scenario(
        Case.RESOLVES,
        "the queue drains",
        {QUEUE_SIZE: then(steady(58982.4, 30), steady(100, 20))},
        (At("20m", queue("90%")), At("35m", quiet=(QUEUE,))),
    ),
    Scenario(
        Case.FIRES,
        "one of two processes no longer answers",
        {
            UP: then(steady(1, 20), steady(0, 30)),
            INFO: then(steady(1, 20), "stale"),
            UP.replace("shop-1", "shop-2"): steady(1, 60),
            INFO.replace("shop-1", "shop-2"): steady(1, 60),
        },
        (At("40m", down(1), (ABSENT,)),),
    ),
    Scenario(
        Case.THIN,
        "three minutes without an answer",
        {
            UP: then(steady(1, 23), steady(0, 3), steady(1, 20)),
            INFO: steady(1, 60),
        },
        (At("25m", quiet=(DOWN,)), At("30m", quiet=(DOWN,))),
    ),
    Scenario(
        Case.HEALTHY,
        "the service answers, and a target that is none of ours does not",
        {UP: steady(1, 60), INFO: steady(1, 60), 'up{job="database",instance="db:9187"}': steady(0, 60)},
        (At("40m", quiet=(DOWN, ABSENT)),),
    ),
    Scenario(
        Case.RESOLVES,
        "the process answers again",
        {
            UP: then(steady(1, 20), steady(0, 20), steady(1, 20)),
            INFO: then(steady(1, 20), "stale", absent(19), steady(1, 20)),
        },
        (At("35m", down(1), (ABSENT,)), At("45m", quiet=(DOWN, ABSENT))),
    ),
    Scenario(Case.FIRES, "nothing was ever scraped", {}, (At("10m", (NOBODY,)),)),
    Scenario(
        Case.FIRES,
        "a service is no longer among the targets, another is",
        {
            UP: then(steady(1, 20), "stale"),
            INFO: then(steady(1, 20), "stale"),
            UP.replace("shop", "other"): steady(1, 60),
            INFO.replace("shop", "other"): steady(1, 60),
        },
        (At("40m", (GONE,), (DOWN,)),),
    ),
    Scenario(
        Case.THIN,
        "gone for three minutes",
        {
            UP: then(steady(1, 23), "stale", absent(2), steady(1, 20)),
            INFO: then(steady(1, 23), "stale", absent(2), steady(1, 20)),
        },
        (At("25m", quiet=(ABSENT,)), At("30m", quiet=(ABSENT,))),
    ),
    Scenario(
        Case.RESOLVES,
        "the first target appears",
        {UP: then(absent(20), steady(1, 20)), INFO: then(absent(20), steady(1, 20))},
        (At("15m", (NOBODY,)), At("25m", quiet=(ABSENT,))),
    ),
)
