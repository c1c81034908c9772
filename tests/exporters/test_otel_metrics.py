"""The families of /metrics as OpenTelemetry instruments: equal counts, through the real SDK and over OTLP."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from taskpilot_obs import configure, record_guardrail_block, semconv, track_agent, track_llm, track_tool, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.otel_metrics import bulk, conventions
from taskpilot_obs.exporters.prometheus.reading import samples
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import Stage
from taskpilot_obs.semconv import METRICS, OTHER, Attr, Kind
from taskpilot_obs.testing import capture_invocations, fresh_recorder

DELTA: dict[type, AggregationTemporality] = dict.fromkeys(
    (Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA
)

Series = tuple[str, frozenset[tuple[str, str]]]


def _metrics(reader: InMemoryMetricReader) -> Iterator[Any]:
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _collected(reader: InMemoryMetricReader) -> dict[Series, Any]:
    """A number by series of a counter or gauge; count, sum and buckets of a histogram."""
    found: dict[Series, Any] = {}
    for metric in _metrics(reader):
        for point in metric.data.data_points:
            key = (metric.name, frozenset(point.attributes.items()))
            assert key not in found
            is_number = hasattr(point, "value")
            found[key] = point.value if is_number else (point.count, point.sum, tuple(point.bucket_counts))
    return found


def _scraped(registry: CollectorRegistry) -> dict[Series, Any]:
    """Values of the registry by series, as in `_collected`; the SDK leaves out histograms without an observation."""
    numbers = {(each.name, frozenset(each.labels.items())): each.value for each in samples(registry)}
    found: dict[Series, Any] = {}
    for metric in METRICS:
        for (name, labels), value in numbers.items():
            if metric.kind is not Kind.HISTOGRAM and name == metric.name:
                found[name, labels] = value
            elif name == f"{metric.name}_count" and value:
                below = [
                    numbers[f"{metric.name}_bucket", labels | {("le", str(bound))}] for bound in metric.buckets
                ] + [value]
                counts = tuple(upper - lower for lower, upper in zip([0.0, *below], below, strict=False))
                found[metric.name, labels] = (value, numbers[f"{metric.name}_sum", labels], counts)
    return found


@contextmanager
def observed(*readers: Any, views: Any = (), **options: Any) -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    provider = MeterProvider(metric_readers=readers, views=views, shutdown_on_exit=False)
    try:
        with fresh_recorder(registry=registry, meter_provider=provider, **options):
            yield registry
    finally:
        provider.shutdown()


def _ours(found: dict[Series, Any]) -> dict[Series, Any]:
    """Without what changes between two readings: the library counts its own records while it is read."""
    changing = {semconv.RECORDS.name, semconv.QUEUE_SIZE.name}
    return {
        key: pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value
        for key, value in found.items()
        if not key[0].startswith("gen_ai.") and key[0] not in changing
    }


def _same(collected: dict[Series, Any], scraped: dict[Series, Any]) -> None:
    """Counts and buckets are equal, sums of floats up to the order in which they were added."""
    left, right = _ours(collected), _ours(scraped)
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, tuple):
            assert (value[0], value[2]) == (right[key][0], right[key][2]), key
            assert value[1] == pytest.approx(right[key][1]), key
        else:
            assert right[key] == value, key


def _fail(fails: bool) -> None:
    if fails:
        raise ValueError("asked for")


def _task(name: str, calls: list[tuple[str, int, int, bool]], fails: bool) -> None:
    try:
        with track_workflow(name), track_agent(f"{name}-agent"):
            for model, given_tokens, made, is_cached in calls:
                with track_tool("search"), track_llm(model=model, provider="openai") as call:
                    call.record_usage(input_tokens=given_tokens, output_tokens=made)
                    call.set_cached(is_cached)
            _fail(fails)
    except ValueError:
        record_guardrail_block("pii", stage=Stage.OUTPUT)


CALLS = st.lists(
    st.tuples(st.sampled_from(["gpt-4o", "my-own"]), st.integers(0, 9_999), st.integers(0, 99), st.booleans()),
    max_size=4,
)
TASKS = st.lists(st.tuples(st.sampled_from(["triage", "billing", "x" * 300, ""]), CALLS, st.booleans()), max_size=8)


@settings(max_examples=15)
@given(tasks=TASKS, later=TASKS)
def test_counts_equal_those_of_metrics(tasks: Any, later: Any) -> None:
    """Whatever ran, two collections in cumulative temporality show exactly what /metrics shows."""
    reader = InMemoryMetricReader()
    with observed(reader) as registry:
        for part in (tasks, later):
            for name, calls, fails in part:
                _task(name or "empty", calls, fails)
            _same(_collected(reader), _scraped(registry))


@settings(max_examples=10)
@given(tasks=TASKS, later=TASKS)
def test_deltas_add_up(tasks: Any, later: Any) -> None:
    """In delta temporality each collection shows the difference; the sum of them is what /metrics shows."""
    reader = InMemoryMetricReader(preferred_temporality=DELTA)
    counters = {metric.name for metric in METRICS if metric.kind is Kind.COUNTER}
    histograms = {metric.name for metric in METRICS if metric.kind is Kind.HISTOGRAM}
    total: dict[Series, float] = {}
    with observed(reader) as registry:
        for part in (tasks, later):
            for name, calls, fails in part:
                _task(name or "empty", calls, fails)
            for key, value in _collected(reader).items():
                if key[0] in counters | histograms:
                    total[key] = total.get(key, 0) + (value[0] if isinstance(value, tuple) else value)
        scraped = _scraped(registry)
    for (name, labels), value in _ours(scraped).items():
        if name in counters:
            assert total[name, labels] == value
        elif name in histograms:
            assert total[name, labels] == value[0]


def test_client_metrics_of_the_conventions() -> None:
    """LLM calls are in gen_ai.client.* with the names, units and buckets of the conventions."""
    reader = InMemoryMetricReader()
    with observed(reader):
        with track_llm(model="gpt-4o", provider="openai") as call:
            call.record_usage(input_tokens=100, output_tokens=7)
        with pytest.raises(TimeoutError), track_llm(model="gpt-4o", provider="openai"):
            raise TimeoutError
        metrics = {metric.name: metric for metric in _metrics(reader)}
    duration, tokens = metrics[conventions.CLIENT_DURATION.name], metrics[conventions.CLIENT_TOKENS.name]
    assert (duration.unit, tokens.unit) == ("s", "{token}")
    assert tokens.data.data_points[0].explicit_bounds[:4] == (1, 4, 16, 64)
    base = {Attr.OPERATION: "chat", Attr.PROVIDER: "openai", Attr.REQUEST_MODEL: "gpt-4o"}
    assert {
        (point.attributes[conventions.TOKEN_TYPE], point.sum, point.count) for point in tokens.data.data_points
    } == {
        ("input", 100, 1),
        ("output", 7, 1),
    }
    assert [dict(point.attributes) for point in duration.data.data_points] == [
        base,
        {**base, Attr.ERROR_TYPE: "timeout"},
    ]


def test_client_metrics_are_bounded() -> None:
    """Thousands of models make at most the bound of the label in series, and no call is lost."""
    reader = InMemoryMetricReader()
    with observed(reader):
        for number in range(600):
            with track_llm(model=f"model-{number}", provider=f"provider-{number % 40}") as call:
                call.record_usage(input_tokens=1, output_tokens=1)
        metrics = {metric.name: metric for metric in _metrics(reader)}
    points = metrics[conventions.CLIENT_DURATION.name].data.data_points
    assert len(points) <= 500
    assert sum(point.count for point in points) == 600
    assert OTHER in {point.attributes[Attr.REQUEST_MODEL] for point in points}
    assert sum(point.sum for point in metrics[conventions.CLIENT_TOKENS.name].data.data_points) == 1_200


def test_sampled_runs_are_exemplars() -> None:
    """The duration of a sampled run has the trace and span of that run as its exemplar."""
    reader = InMemoryMetricReader()
    with observed(reader, tracer_provider=TracerProvider()), capture_invocations() as runs:
        for _ in range(5):
            with track_agent("planner"):
                pass
        (point,) = (
            point
            for metric in _metrics(reader)
            if metric.name == semconv.AGENT_DURATION.name
            for point in metric.data.data_points
        )
    assert point.count == 5
    shown = {f"{exemplar.trace_id:032x}" for exemplar in point.exemplars}
    assert shown <= {run.trace_id for run in runs}
    assert runs[-1].trace_id in shown


def test_views_of_the_application_apply() -> None:
    """An exponential histogram, a dropped label and one without minimum and maximum count the runs as they are told."""
    reader = InMemoryMetricReader()
    views = [
        View(instrument_name="agent_run_duration_seconds", aggregation=ExponentialBucketHistogramAggregation()),
        View(instrument_name="workflow_duration_seconds", attribute_keys=set()),
        View(
            instrument_name=conventions.CLIENT_TOKENS.name,
            aggregation=ExplicitBucketHistogramAggregation((1.0, 5.0), record_min_max=False),
        ),
    ]
    with observed(reader, views=views):
        for number in range(20):
            with track_agent(f"agent-{number % 2}"), track_llm(model="gpt-4o", provider="openai") as call:
                call.record_usage(input_tokens=2, output_tokens=2)
        metrics = {metric.name: metric for metric in _metrics(reader)}
    assert [point.count for point in metrics["agent_run_duration_seconds"].data.data_points] == [10, 10]
    (one,) = metrics["workflow_duration_seconds"].data.data_points
    assert (one.count, dict(one.attributes)) == (20, {})
    tokens = metrics[conventions.CLIENT_TOKENS.name].data.data_points
    assert [(each.count, each.min, each.max) for each in tokens] == [(20, math.inf, -math.inf)] * 2


def test_several_readers_and_threads_lose_nothing() -> None:
    """While eight threads record, a delta and a cumulative reader collect; at the end both have every run."""
    cumulative, delta = InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=DELTA)
    name, runs, stopped = semconv.AGENT_DURATION.name, 8 * 500, threading.Event()
    counted = 0

    def record() -> None:
        for _ in range(500):
            with track_agent("planner"):
                pass

    def collect() -> None:
        nonlocal counted
        while not stopped.is_set():
            counted += sum(value[0] for key, value in _collected(delta).items() if key[0] == name)
            _collected(cumulative)

    with observed(cumulative, delta):
        threads = [threading.Thread(target=record) for _ in range(8)]
        collector = threading.Thread(target=collect)
        for thread in (collector, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stopped.set()
        collector.join()
        counted += sum(value[0] for key, value in _collected(delta).items() if key[0] == name)
        (every,) = (value[0] for key, value in _collected(cumulative).items() if key[0] == name)
    assert (counted, every) == (runs, runs)


def test_bulk_is_what_the_sdk_counts() -> None:
    """This SDK's histograms can be filled in bulk: the check of both ways, on which that depends, passes."""
    assert bulk.sdk_is_known()


def test_another_sdk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an SDK whose internals differ, each value goes through `record`, and the counts are equal."""
    monkeypatch.setattr(bulk, "sdk_is_known", lambda: False)
    reader = InMemoryMetricReader()
    with observed(reader) as registry:
        for number in range(30):
            _task("triage", [("gpt-4o", number, 1, False)], fails=number % 3 == 0)
        _same(_collected(reader), _scraped(registry))


def test_an_sdk_that_cannot_be_tried_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK cannot be compared, because its environment is wrong, each value goes through `record`."""
    reader = InMemoryMetricReader()
    with observed(reader) as registry, monkeypatch.context() as patched:
        patched.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "nonsense")
        bulk.sdk_is_known.cache_clear()
        try:
            for number in range(30):
                _task("triage", [("gpt-4o", number, 1, False)], fails=False)
            _same(_collected(reader), _scraped(registry))
            assert not bulk.sdk_is_known()
        finally:
            bulk.sdk_is_known.cache_clear()


def test_without_prometheus() -> None:
    """`prometheus=False` exports to the meter provider only."""
    reader = InMemoryMetricReader()
    with observed(reader, prometheus=False) as registry:
        _task("triage", [], fails=False)
        assert (
            _collected(reader)["workflow_runs_total", frozenset({("workflow", "triage"), ("status", "success")})] == 1
        )
    assert not list(registry.collect())


RUNS: Series = ("workflow_runs_total", frozenset({("workflow", "triage"), ("status", "success")}))
DURATION: Series = ("workflow_duration_seconds", frozenset({("workflow", "triage")}))
ACTIVE: Series = ("workflow_active_runs", frozenset({("workflow", "triage")}))


def _counted(reader: InMemoryMetricReader) -> tuple[float, float]:
    """Runs by the counter and by the histogram."""
    found = _collected(reader)
    return found[RUNS], found[DURATION][0]


@contextmanager
def _provider(*readers: Any) -> Iterator[MeterProvider]:
    provider = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    try:
        yield provider
    finally:
        provider.shutdown()


@pytest.mark.parametrize("prometheus", [True, False])
@pytest.mark.parametrize("is_same", [True, False])
def test_configuring_again_continues(
    prometheus: bool, is_same: bool, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A second configuration with the same provider counts on, whatever its registry, and the SDK does not complain."""
    reader, delta, registry = InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=DELTA), None
    with _provider(reader, delta) as provider:
        for runs in (5, 2):
            registry = registry if registry and is_same else CollectorRegistry()
            with fresh_recorder(registry=registry, meter_provider=provider, prometheus=prometheus):
                for _ in range(runs):
                    _task("triage", [], fails=False)
                assert _counted(delta) == (runs, runs)
        assert _counted(reader) == (7, 7)
    assert not caplog.records
    assert not recwarn


def test_configure_hands_over(recorder: Recorder) -> None:
    """`configure()` of a running recorder, which builds the new exporter before it closes the old one, counts on."""
    before = recorder.parts
    assert before is not None
    reader, delta = InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=DELTA)
    with _provider(reader, delta) as provider:
        try:
            for runs in (5, 2):
                configure(meter_provider=provider, prometheus=False)
                for _ in range(runs):
                    _task("triage", [], fails=False)
                assert _counted(delta) == (runs, runs)
            assert _counted(reader) == (7, 7)
        finally:
            recorder.wiring.install(before)


@pytest.mark.parametrize("prometheus", [True, False])
def test_recorders_of_one_provider_add_up(prometheus: bool) -> None:
    """Two live recorders with one provider are exported as their sum; what one counted remains when it is closed."""
    reader = InMemoryMetricReader()
    with _provider(reader) as provider:
        options: Any = {"meter_provider": provider, "prometheus": prometheus}
        with fresh_recorder(**options) as first, track_workflow("triage"):
            first.flush()
            with fresh_recorder(**options):
                for _ in range(3):
                    _task("triage", [], fails=False)
                with track_workflow("triage"):
                    assert _counted(reader) == (3, 3)
                    assert _collected(reader)[ACTIVE] == 2
            assert _counted(reader) == (4, 4)
            assert _collected(reader)[ACTIVE] == 1
        assert _counted(reader) == (5, 5)


def test_a_recorder_outlives_another_of_its_registry() -> None:
    """When one of two recorders with one registry and provider is closed, the other is exported as before."""
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    with _provider(reader) as provider, fresh_recorder(registry=registry, meter_provider=provider):
        with fresh_recorder(registry=registry, meter_provider=provider):
            _task("triage", [], fails=False)
        _task("triage", [("gpt-4o", 1, 1, False)], fails=False)
        assert _counted(reader) == (2, 2)
        assert conventions.CLIENT_DURATION.name in {metric.name for metric in _metrics(reader)}


def test_a_configuration_that_fails_exports_nothing() -> None:
    """Of a configuration that fails after its metrics were built, no gauge remains."""
    reader = InMemoryMetricReader()
    with _provider(reader) as provider:
        with pytest.raises(ConfigurationError), fresh_recorder(meter_provider=provider, budget_store="ftp://no"):
            pass
        with fresh_recorder(meter_provider=provider, service="mine"):
            found = [labels for name, labels in _collected(reader) if name == semconv.INFO.name]
    assert [dict(labels)["service"] for labels in found] == ["mine"]


class _Receiver(BaseHTTPRequestHandler):
    received: list[ExportMetricsServiceRequest]

    def do_POST(self) -> None:
        request = ExportMetricsServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append(request)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    found: list[ExportMetricsServiceRequest] = []
    handler = type("Handler", (_Receiver,), {"received": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_over_otlp() -> None:
    """The SDK's own exporter sends over HTTP to a collector what /metrics shows, prefix included."""
    with receiver() as (url, received):
        exporter = OTLPMetricExporter(endpoint=url, timeout=timedelta(seconds=10).total_seconds())
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
        with observed(reader, namespace="acme") as registry:
            for _ in range(7):
                _task("triage", [("gpt-4o", 10, 1, False)], fails=False)
            assert reader.force_flush()
            text = render(registry)[0].decode()
        (scope,) = received[0].resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    runs = {
        tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes)): point.as_double
        for point in metrics["acme_workflow_runs_total"].sum.data_points
    }
    assert runs[("status", "success"), ("workflow", "triage")] == 7
    assert 'acme_workflow_runs_total{status="success",workflow="triage"} 7.0' in text
    (duration,) = metrics["acme_workflow_duration_seconds"].histogram.data_points
    assert duration.count == 7
    assert list(duration.explicit_bounds) == list(semconv.WORKFLOW_BUCKETS)
    assert metrics[conventions.CLIENT_TOKENS.name].histogram.data_points[0].count == 7
