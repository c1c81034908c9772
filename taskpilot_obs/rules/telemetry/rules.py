"""Rules about the health of the library, and about its scraping."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.rules.evidence import FIRST_SEEN
from taskpilot_obs.rules.model import NONE, Alert, AlertKind, AlertSignal, Recording, RuleGroup
from taskpilot_obs.rules.promql import INSTANCE, Count, matcher, number, seconds
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import OF_JOB, PERCENT, WHOLE, percent
from taskpilot_obs.semconv import Label

_EXPORTER: Final = "Exporter {{ $labels.exporter }} of {{ $labels.job }}"

RECORDS: Final = Count("exporter", "taskpilot_obs_records", (Label.EXPORTER,), semconv.RECORDS.name)
DROPPED: Final = Count(
    "exporter",
    "taskpilot_obs_records_dropped",
    (Label.EXPORTER, Label.REASON),
    semconv.RECORDS_DROPPED.name,
    every=True,
)
ERRORS: Final = Count(
    "exporter", "taskpilot_obs_export_errors", (Label.EXPORTER,), semconv.EXPORT_ERRORS.name, every=True
)
INTERNAL: Final = Count(
    "where", "taskpilot_obs_internal_errors", (Label.WHERE,), semconv.INTERNAL_ERRORS.name, every=True
)
OVERFLOW: Final = Count(
    "metric", "taskpilot_obs_label_overflow", (Label.METRIC,), semconv.LABEL_OVERFLOW.name, every=True
)


PROCESSES: Final = "job:taskpilot_obs_processes:count"
UPTIME: Final = "job:taskpilot_obs_uptime:seconds"


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `telemetry`."""
    counts = (RECORDS, DROPPED, ERRORS, INTERNAL, OVERFLOW)
    rules = [rule for count in counts for rule in count.rules(settings.scope, (settings.telemetry.window,))]
    return (RuleGroup("taskpilot-telemetry", settings.evaluation_interval, (*_presence(settings), *rules)),)


def _presence(settings: RuleSettings) -> list[Recording]:
    """How many processes of each job are scraped, how long the oldest has lived, and since when the job is known."""
    scope = settings.scope
    kept, start = scope.by(), scope.select(semconv.START_TIME.name)
    # A rule that reads its own last result: what was known two days ago and never since is forgotten.
    known = f"min by ({kept}) (last_over_time({FIRST_SEEN}[2d]))\nor\nmin by ({kept}) (0 * {start} + time())"
    return [
        Recording(PROCESSES, f"count by ({kept}) ({start})"),
        Recording(UPTIME, f"max by ({kept}) (time() - {start})"),
        Recording(FIRST_SEEN, known),
    ]


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `telemetry`."""
    window = settings.telemetry.window
    return (
        AlertSignal("records_dropped", AlertKind.TELEMETRY).critical(
            "TaskpilotRecordsDropped",
            f"{DROPPED.over(window)} > 0",
            f"{_EXPORTER} lost {WHOLE} records in {window} ({{{{ $labels.reason }}}})",
            f"{_EXPORTER} did not get {WHOLE} records in the last {window}, reason {{{{ $labels.reason }}}}."
            " What it writes is incomplete by them.",
        ),
        AlertSignal("exporter_errors", AlertKind.TELEMETRY).warning(
            "TaskpilotExporterErrors",
            f"{ERRORS.over(window)} > 0",
            f"{_EXPORTER} failed {WHOLE} times in {window}",
            f"{_EXPORTER} raised an error on {WHOLE} batches in the last {window}. The application itself is not"
            " affected.",
        ),
        AlertSignal("internal_errors", AlertKind.TELEMETRY).warning(
            "TaskpilotInternalErrors",
            f"{INTERNAL.over(window)} > 0",
            f"Instrumentation of {OF_JOB} failed {WHOLE} times in {window} ({{{{ $labels.where }}}})",
            f"The instrumentation failed {WHOLE} times at {{{{ $labels.where }}}} in the last {window}. The application"
            " was kept from it; what it did then may be missing from the figures.",
        ),
        AlertSignal("label_overflow", AlertKind.TELEMETRY).warning(
            "TaskpilotLabelOverflow",
            f"{OVERFLOW.over(window)} > 0",
            f"Too many names in {{{{ $labels.metric }}}} of {OF_JOB}: {WHOLE} observations folded in {window}",
            f"A label of {{{{ $labels.metric }}}} is full: {WHOLE} observations went to __other__ in the last {window}."
            " Sums stay exact, names beyond the bound cannot be told apart.",
        ),
        _queue(settings),
        *_down(settings),
        _absent(settings),
        *_meta(settings),
    )


def _queue(settings: RuleSettings) -> Alert:
    limits = settings.telemetry
    size = settings.scope.select(semconv.QUEUE_SIZE.name)
    return AlertSignal("queue", AlertKind.ABSENCE).warning(
        "TaskpilotQueueNearlyFull",
        f"max by ({settings.scope.by(Label.EXPORTER)}) ({size}) / {limits.queue_capacity}"
        f" > {number(limits.queue_percent / 100)}",
        f"Queue of exporter {{{{ $labels.exporter }}}} of {OF_JOB} is {PERCENT} full (above"
        f" {percent(limits.queue_percent)})",
        f"{PERCENT} of {limits.queue_capacity} places are taken in the fullest process. Records are lost once it"
        " is full.",
        settings.lasting,
    )


def _known(settings: RuleSettings) -> str:
    """Processes that spoke to us within the last day."""
    return f"last_over_time({settings.scope.select(semconv.START_TIME.name)}[1d])"


def _down_targets(settings: RuleSettings) -> str:
    up = settings.scope.select("up")
    return f"{up} == 0 and on ({settings.scope.by(INSTANCE)}) {_known(settings)}"


def _down(settings: RuleSettings) -> tuple[Alert, Alert]:
    limits = settings.telemetry
    kept = settings.scope.by()
    down = f"count by ({kept}) ({_down_targets(settings)})"
    known = (
        f"count by ({kept}) ({settings.scope.select('up')} and on ({settings.scope.by(INSTANCE)}) {_known(settings)})"
    )
    some = f"{WHOLE} processes of {OF_JOB} cannot be scraped"
    return (
        AlertSignal("target", AlertKind.ABSENCE).warning(
            "TaskpilotTargetDown",
            down,
            some,
            f"Prometheus has not reached {WHOLE} processes of {OF_JOB} for {limits.down_for}. Their runs are"
            " invisible.",
            limits.down_for,
        ),
        AlertSignal("target", AlertKind.ABSENCE).critical(
            "TaskpilotServiceDown",
            f"{down} / {known} > {number(limits.down_percent / 100)}",
            f"{PERCENT} of the processes of {OF_JOB} cannot be scraped",
            f"Prometheus has not reached {PERCENT} of the processes of {OF_JOB} for {limits.down_for}. None of the"
            " alerts on its runs can be believed meanwhile.",
            limits.down_for,
        ),
    )


def _absent(settings: RuleSettings) -> Alert:
    limits = settings.telemetry
    scope = settings.scope
    start = semconv.START_TIME.name
    kept, down = scope.by(), f"({_down_targets(settings)})"
    if limits.expected_jobs:
        parts = [
            f"absent({scope.select(start, matcher('job', job))}) unless on (job) {down}" for job in limits.expected_jobs
        ]
    else:
        # A job that never lived for long is started by a clock, and ends.
        lived = f"max_over_time({UPTIME}[1d]) > {seconds(limits.long_lived)}"
        parts = [
            f"absent(last_over_time({scope.select(start)}[1d])) unless on () ({_down_targets(settings)})",
            f"count by ({kept}) ({lived})\nunless on ({kept}) {scope.select(start)}\nunless on ({kept}) {down}",
        ]
    return AlertSignal("absent", AlertKind.ABSENCE).critical(
        "TaskpilotTelemetryAbsent",
        "\nor\n".join(parts),
        "No telemetry arrives from {{ with $labels.job }}{{ . }}{{ else }}any service{{ end }}",
        "{{ with $labels.job }}{{ . }} should report and{{ else }}No scraped target has"
        f" {scope.name(start)}:{{{{ end }}}} nothing reports now, for {limits.down_for}. None of the other alerts can"
        " fire meanwhile.",
        limits.down_for,
    )


_WATCHDOG = Alert(
    "TaskpilotWatchdog",
    AlertKind.HEARTBEAT,
    NONE,
    "watchdog",
    "vector(1)",
    "Alerting works: this alert always fires",
    "Send it to a service that raises an alarm when it stops. Then Prometheus, its rules or Alertmanager have"
    " stopped, and no other alert can arrive.",
)


def _meta(settings: RuleSettings) -> tuple[Alert, ...]:
    """Whether the alerts themselves work: a heartbeat, rules that fail or stand still, notifications that fail."""
    groups = 'rule_group=~".*taskpilot-.*"'
    last = f"prometheus_rule_group_last_evaluation_timestamp_seconds{{{groups}}}"
    late = max(300, 5 * seconds(settings.evaluation_interval))
    return (
        _WATCHDOG,
        AlertSignal("rules", AlertKind.META).warning(
            "TaskpilotRulesFailing",
            f"sum by (job, rule_group) (increase(prometheus_rule_evaluation_failures_total{{{groups}}}[15m])) > 0",
            f"Rules fail: {WHOLE} evaluations in 15m, group {{{{ $labels.rule_group }}}}",
            f"{WHOLE} evaluations of rules of this group failed in the last 15m. What they record or alert on is"
            " missing.",
        ),
        AlertSignal("recordings", AlertKind.META).critical(
            "TaskpilotRecordingsStopped",
            f"min by (job) (time() - {last} > {late})\n"
            f"or\n"
            f"count by ({settings.scope.by()}) ({settings.scope.select(semconv.START_TIME.name)})\n"
            f"unless on ({settings.scope.by()}) {PROCESSES}",
            f"Recording rules stand still: {OF_JOB} ({WHOLE})",
            "Recording rules have not been evaluated lately, or record nothing of a service that is scraped. The alerts"
            " that read them see nothing.",
            settings.lasting,
        ),
        AlertSignal("notifications", AlertKind.META).warning(
            "TaskpilotNotificationsFailing",
            "sum by (job, integration) (increase(alertmanager_notifications_failed_total[15m])) > 0\n"
            "or\n"
            "sum by (job) (increase(prometheus_notifications_dropped_total[15m])) > 0",
            f"{WHOLE} notifications failed in 15m:"
            " {{ with $labels.integration }}{{ . }}{{ else }}Prometheus to Alertmanager{{ end }}",
            f"{WHOLE} notifications were not delivered in the last 15m. Another receiver has to bring this one.",
        ),
    )
