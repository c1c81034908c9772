"""Telemetry health: whether the other dashboards can be believed."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import COUNT, PER_MINUTE, PERCENT, SECONDS, label_table, lines, never, stat
from scripts.dashboards.promql import TARGET_FILTER, Selector, events, per_minute, quantile, share, total, whole
from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label

_select = Selector()
_RECORDS = _select(semconv.RECORDS)
_DROPPED = _select(semconv.RECORDS_DROPPED)
_EXPORT_ERRORS = _select(semconv.EXPORT_ERRORS)
_INTERNAL_ERRORS = _select(semconv.INTERNAL_ERRORS)
_OVERFLOW = _select(semconv.LABEL_OVERFLOW)
_QUEUE = _select(semconv.QUEUE_SIZE)
_LLM_REQUESTS = _select(semconv.LLM_REQUESTS)
_NOT_SCRAPED = "Nothing is scraped: check the target"

_NOW: tuple[Panel, ...] = (
    stat(
        "Targets down",
        "Processes that Prometheus cannot scrape now. Healthy is none.",
        f"count(up{{{TARGET_FILTER}}}) - sum(up{{{TARGET_FILTER}}})",
        unit=COUNT,
        steps=never(),
        no_value=_NOT_SCRAPED,
    ),
    stat(
        "Records dropped",
        "Records that an exporter did not get over the time range. Lost always equals counted; healthy is none.",
        whole(events(_DROPPED)),
        unit=COUNT,
        steps=never(),
        no_value="None recorded",
    ),
    stat(
        "Failed exports",
        "Batches on which an exporter failed over the time range. Healthy is none.",
        whole(events(_EXPORT_ERRORS)),
        unit=COUNT,
        steps=never(),
        no_value="None recorded",
    ),
    stat(
        "Internal errors",
        "Failures inside the instrumentation, kept from the application, over the time range. Healthy is none.",
        whole(events(_INTERNAL_ERRORS)),
        unit=COUNT,
        steps=never(),
        no_value="None recorded",
    ),
    stat(
        "Label overflow",
        "Observations folded into __other__ because a label was full. Sums stay exact, names are lost.",
        whole(events(_OVERFLOW)),
        unit=COUNT,
        steps=never(),
        no_value="None recorded",
    ),
    stat(
        "Records handed over",
        "Records that exporters got over the time range.",
        whole(events(_RECORDS)),
        unit=COUNT,
        no_value=_NOT_SCRAPED,
    ),
    stat(
        "LLM calls without usage",
        "Calls for which the provider stated no usage, of all: their tokens and cost are unknown.",
        share(events(_select(semconv.LLM_USAGE_MISSING)), events(_LLM_REQUESTS)),
        unit=PERCENT,
        decimals=1,
        no_value="No LLM calls in this time range",
    ),
    stat(
        "LLM calls with inconsistent usage",
        "Calls whose stated usage contradicts itself, of all.",
        share(events(_select(semconv.LLM_USAGE_INCONSISTENT)), events(_LLM_REQUESTS)),
        unit=PERCENT,
        decimals=1,
        no_value="No LLM calls in this time range",
    ),
)

_LOSSES: tuple[Panel, ...] = (
    lines(
        "Queue by exporter",
        "Records that wait. One that climbs and stays up belongs to an exporter that cannot keep up: drops come next.",
        Query(f"max by ({Label.EXPORTER}) ({_QUEUE})", "{{exporter}}"),
        unit=COUNT,
        no_value=_NOT_SCRAPED,
    ),
    lines(
        "Dropped records per minute, by exporter and reason",
        "queue_full: too slow. export_failed: it raised. shutdown: the process ended first.",
        Query(per_minute(_DROPPED, f"{Label.EXPORTER}, {Label.REASON}"), "{{exporter}} {{reason}}"),
        unit=PER_MINUTE,
        no_value="No drop recorded",
    ),
    lines(
        "Failed exports per minute, by exporter",
        "One exporter's failure touches neither the application nor the other exporters.",
        Query(per_minute(_EXPORT_ERRORS, Label.EXPORTER), "{{exporter}}"),
        unit=PER_MINUTE,
        no_value="No failed export recorded",
    ),
    lines(
        "Internal errors per minute, by place",
        "The log holds the first of each cause a minute, with its traceback.",
        Query(per_minute(_INTERNAL_ERRORS, Label.WHERE), "{{where}}"),
        unit=PER_MINUTE,
        no_value="No internal error recorded",
    ),
    lines(
        "Label overflow per minute, by metric",
        "Which family meets more names than it admits.",
        Query(per_minute(_OVERFLOW, Label.METRIC), "{{metric}}"),
        unit=PER_MINUTE,
        no_value="No overflow recorded",
    ),
    lines(
        "Records per minute, by exporter",
        "What each exporter gets. A line that falls to 0 under traffic is an exporter that stopped.",
        Query(per_minute(_RECORDS, Label.EXPORTER), "{{exporter}}"),
        unit=PER_MINUTE,
        no_value=_NOT_SCRAPED,
    ),
)

_OVERHEAD: tuple[Panel, ...] = (
    lines(
        "Time of a scrape",
        "What /metrics costs the process at each scrape, as Prometheus measures it.",
        Query(f"max by (instance) (scrape_duration_seconds{{{TARGET_FILTER}}})", "{{instance}}"),
        unit=SECONDS,
        no_value=_NOT_SCRAPED,
    ),
    lines(
        "Series per scrape",
        "How much a scrape brings. It grows with the names of agents, tools and models, up to their bounds.",
        Query(f"max by (instance) (scrape_samples_scraped{{{TARGET_FILTER}}})", "{{instance}}"),
        unit=COUNT,
        no_value=_NOT_SCRAPED,
    ),
    lines(
        "Targets up",
        "Processes that Prometheus can scrape.",
        Query(total(f"up{{{TARGET_FILTER}}}", "job"), "{{job}}"),
        unit=COUNT,
        no_value=_NOT_SCRAPED,
    ),
    label_table(
        "Versions",
        "Which version of the service and of the library each process runs.",
        Query(_select(semconv.INFO), instant=True, format="table"),
        hide=("__name__",),
        first="instance",
        no_value=_NOT_SCRAPED,
        width=24,
    ),
)

_NO_SERVER = "No taskpilot-obs serve is scraped under this job"
_SERVER: tuple[Panel, ...] = (
    lines(
        "Answers of the server per minute, by route and status code",
        "What taskpilot-obs serve answers. Codes from 500 on are its own faults; 401 and 429 are wrong tokens.",
        Query(
            per_minute(_select(semconv.SERVER_REQUESTS), f"{Label.ROUTE}, {Label.STATUS_CODE}"),
            "{{route}} {{status_code}}",
        ),
        unit=PER_MINUTE,
        no_value=_NO_SERVER,
    ),
    lines(
        "Time to an answer, p95, by route",
        "Interpolated within a bucket. A slow page has a long period, or a store without fresh summaries.",
        Query(quantile(0.95, _select(semconv.SERVER_DURATION, "_bucket"), by=Label.ROUTE), "{{route}}"),
        unit=SECONDS,
        no_value=_NO_SERVER,
    ),
    lines(
        "Received spans per minute, by result",
        "Spans of other languages. Late and torn ones are in no roll-up: send all spans of a trace to one replica.",
        Query(per_minute(_select(semconv.SERVER_SPANS), Label.RESULT), "{{result}}"),
        unit=PER_MINUTE,
        no_value=_NO_SERVER,
        width=24,
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-telemetry",
    title="taskpilot / Telemetry health",
    description="The instrumentation itself: queues, losses, failures and overhead.",
    variables=common.variables(),
    rows=(
        Row("Can the other dashboards be believed?", _NOW),
        Row("Queues and losses", _LOSSES),
        Row("Overhead", _OVERHEAD),
        Row("The server of pages and API", _SERVER),
    ),
    annotations=common.marks(),
)
