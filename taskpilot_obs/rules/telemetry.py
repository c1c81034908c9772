"""Rules of the library's own health, and of the scraping of it."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.rules.model import CRITICAL, WARNING, Alert, AlertKind, RuleGroup
from taskpilot_obs.rules.promql import INSTANCE, Count, matcher, number
from taskpilot_obs.rules.settings import Settings
from taskpilot_obs.rules.wording import OF_JOB, PERCENT, WHOLE, percent
from taskpilot_obs.semconv import Label

_EXPORTER: Final = "Exporter {{ $labels.exporter }} of {{ $labels.job }}"

RECORDS: Final = Count("exporter", "taskpilot_obs_records", (Label.EXPORTER,), semconv.RECORDS.name)
DROPPED: Final = Count(
    "exporter", "taskpilot_obs_records_dropped", (Label.EXPORTER, Label.REASON), semconv.RECORDS_DROPPED.name
)
ERRORS: Final = Count("exporter", "taskpilot_obs_export_errors", (Label.EXPORTER,), semconv.EXPORT_ERRORS.name)
INTERNAL: Final = Count("where", "taskpilot_obs_internal_errors", (Label.WHERE,), semconv.INTERNAL_ERRORS.name)
OVERFLOW: Final = Count("metric", "taskpilot_obs_label_overflow", (Label.METRIC,), semconv.LABEL_OVERFLOW.name)


def groups(settings: Settings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `telemetry`."""
    counts = (RECORDS, DROPPED, ERRORS, INTERNAL, OVERFLOW)
    rules = [rule for count in counts for rule in count.rules(settings.scope, (settings.telemetry.window,))]
    return (RuleGroup("taskpilot-telemetry", settings.evaluation_interval, tuple(rules)),)


def alerts(settings: Settings) -> tuple[Alert, ...]:
    """Alerts of the folder `telemetry`."""
    window = settings.telemetry.window
    return (
        _counter(
            "TaskpilotRecordsDropped",
            CRITICAL,
            "records_dropped",
            f"{DROPPED.over(window)} > 0",
            f"{_EXPORTER} lost {WHOLE} records in {window} ({{{{ $labels.reason }}}})",
            f"{_EXPORTER} did not get {WHOLE} records in the last {window}, reason {{{{ $labels.reason }}}}."
            " What it writes is incomplete by them.",
        ),
        _counter(
            "TaskpilotExporterErrors",
            WARNING,
            "exporter_errors",
            f"{ERRORS.over(window)} > 0",
            f"{_EXPORTER} failed {WHOLE} times in {window}",
            f"{_EXPORTER} raised an error on {WHOLE} batches in the last {window}. The application itself is not"
            " affected.",
        ),
        _counter(
            "TaskpilotInternalErrors",
            WARNING,
            "internal_errors",
            f"{INTERNAL.over(window)} > 0",
            f"Instrumentation of {OF_JOB} failed {WHOLE} times in {window} ({{{{ $labels.where }}}})",
            f"The instrumentation failed {WHOLE} times at {{{{ $labels.where }}}} in the last {window}. The application"
            " was kept from it; what it did then may be missing from the figures.",
        ),
        _counter(
            "TaskpilotLabelOverflow",
            WARNING,
            "label_overflow",
            f"{OVERFLOW.over(window)} > 0",
            f"Too many names in {{{{ $labels.metric }}}} of {OF_JOB}: {WHOLE} observations folded in {window}",
            f"A label of {{{{ $labels.metric }}}} is full: {WHOLE} observations went to __other__ in the last {window}."
            " Sums stay exact, names beyond the bound cannot be told apart.",
        ),
        _queue(settings),
        _down(settings),
        _absent(settings),
    )


def _counter(name: str, severity: str, signal: str, expr: str, summary: str, description: str) -> Alert:
    return Alert(name, AlertKind.TELEMETRY, severity, signal, expr, summary, description)


def _queue(settings: Settings) -> Alert:
    limits = settings.telemetry
    size = settings.scope.select(semconv.QUEUE_SIZE.name)
    return Alert(
        "TaskpilotQueueNearlyFull",
        AlertKind.ABSENCE,
        WARNING,
        "queue",
        f"max by ({settings.scope.by(Label.EXPORTER)}) ({size}) / {limits.queue_capacity}"
        f" > {number(limits.queue_percent / 100)}",
        f"Queue of exporter {{{{ $labels.exporter }}}} of {OF_JOB} is {PERCENT} full (above"
        f" {percent(limits.queue_percent)})",
        f"{PERCENT} of {limits.queue_capacity} places are taken in the fullest process. Records are lost once it"
        " is full.",
        settings.lasting,
    )


def _known(settings: Settings) -> str:
    """Processes that spoke to us within the last day."""
    return f"last_over_time({settings.scope.select(semconv.INFO.name)}[1d])"


def _down_targets(settings: Settings) -> str:
    up = settings.scope.select("up")
    return f"{up} == 0 and on ({settings.scope.by(INSTANCE)}) {_known(settings)}"


def _down(settings: Settings) -> Alert:
    limits = settings.telemetry
    return Alert(
        "TaskpilotTargetDown",
        AlertKind.ABSENCE,
        CRITICAL,
        "target",
        f"count by ({settings.scope.by()}) ({_down_targets(settings)})",
        f"{WHOLE} processes of {OF_JOB} cannot be scraped",
        f"Prometheus has not reached {WHOLE} processes of {OF_JOB} for {limits.down_for}. Their runs are invisible.",
        limits.down_for,
    )


def _absent(settings: Settings) -> Alert:
    limits = settings.telemetry
    scope = settings.scope
    info = semconv.INFO.name
    down = f"({_down_targets(settings)})"
    parts = [
        f"absent({scope.select(info, matcher('job', job))}) unless on (job) {down}" for job in limits.expected_jobs
    ] or [f"absent({scope.select(info)}) unless on () {down}"]
    kept = scope.by()
    seen = f"count by ({kept}) ({_known(settings)})"
    parts.append(f"{seen}\nunless on ({kept}) {scope.select(info)}\nunless on ({kept}) {down}")
    expr = "\nor\n".join(parts)
    return Alert(
        "TaskpilotTelemetryAbsent",
        AlertKind.ABSENCE,
        CRITICAL,
        "absent",
        expr,
        "No telemetry arrives from {{ with $labels.job }}{{ . }}{{ else }}any service{{ end }}",
        "{{ with $labels.job }}{{ . }} reported within the last day and{{ else }}No scraped target has"
        f" {info}:{{{{ end }}}} nothing reports now, for {limits.down_for}. None of the other alerts can fire"
        " meanwhile.",
        limits.down_for,
    )
