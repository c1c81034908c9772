"""Builds the components of a recorder from its settings."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.exporter import Exporter
from taskpilot_obs._pipeline.pipeline import Pipeline
from taskpilot_obs._recording.components import Components
from taskpilot_obs._recording.point_events import Verdicts
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.spans import Tracing, installed_provider
from taskpilot_obs._support.clock import Clock
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.hooks import refuse_generator
from taskpilot_obs._support.version import library_version
from taskpilot_obs._telemetry.window import CallWindow
from taskpilot_obs.exporters.delivery import as_exporter
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.window import RollingWindow
from taskpilot_obs.pricing import PriceTable

if TYPE_CHECKING:
    from pydantic import SecretStr

    from taskpilot_obs.budgets.assembly import Assembly
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor
    from taskpilot_obs.settings import Settings

AUDIT_LOG: Final = "audit_log"
"""Name of the audit log among the exporters."""


def build(
    settings: Settings, recorder: Recorder, *, clock: Clock | None = None, before: Components | None = None
) -> Components:
    """Build a recorder's components, keeping the previous window and verdicts. If one fails, close all of them.

    Args:
        settings: what to build.
        recorder: the recorder that gets them.
        clock: the clock that they read; the system's when left out.
        before: the components that they replace.
    """
    with ExitStack() as undo:
        parts = _build(settings, recorder, clock or Clock(), before, undo)
        undo.pop_all()
    return parts


def _build(
    settings: Settings, recorder: Recorder, clock: Clock, before: Components | None, undo: ExitStack
) -> Components:
    counters = InternalCounters()
    redactor, checks = _redactor(settings, counters), _checks(settings)
    window = before.window if before is not None else RollingWindow(lambda: clock.unix_ns(clock.now()))
    verdicts = Verdicts() if before is None else before.verdicts
    prices = _price_table(settings)
    batched = _batched(settings, counters, undo)
    metrics = _metrics(settings, recorder, counters)
    in_memory: dict[str, Exporter] = {"window": window} if settings.enabled else {}
    if metrics is not None:
        in_memory.update(_metrics_and_followers(settings, metrics, counters, undo))
    calls = _call_window(settings, clock, before)
    if calls is not None:
        in_memory["stats"] = calls
    tracing = _tracing(settings)
    budgets = _budgets(settings, recorder, (clock, prices, counters), metrics, before)
    if budgets is not None:
        in_memory.update(budgets.in_memory)
        batched = [*budgets.batched, *batched]  # closed first, because it may use a store, which is closed later
    pipeline = Pipeline(
        in_memory,
        batched,
        counters=counters,
        capacity=settings.queue_capacity,
        on_counters=None if metrics is None else _Booking(metrics),
        on_poll=_Poll(settings, recorder, clock),
        exit_timeout_s=settings.exit_timeout_s,
    )
    if budgets is not None:
        budgets.connect(pipeline)
    return Components(
        settings=settings,
        pipeline=pipeline,
        counters=counters,
        clock=clock,
        prices=prices,
        window=window,
        verdicts=verdicts,
        registry=settings.registry,
        declares=metrics,
        redactor=redactor,
        tracing=tracing,
        checks=checks,
        budgets=None if budgets is None else budgets.admission,
        settler=None if budgets is None else budgets.settler,
        calls=calls,
    )


def _call_window(settings: Settings, clock: Clock, before: Components | None) -> CallWindow | None:
    """The calls that this process holds for statistics, those before this configuration included."""
    if settings.store is not None or not settings.stats_calls or not settings.enabled:
        return None
    last = None if before is None else before.calls
    bounds = (settings.stats_calls, settings.stats_age)
    return CallWindow(lambda: clock.unix_ns(clock.now()), *bounds, settings.source, last)


class _Booking:
    """Passes what the library counts about itself on to the metrics."""

    def __init__(self, metrics: PrometheusExporter) -> None:
        self._metrics = metrics

    def __call__(self, counters: InternalCounters, pipeline: Pipeline) -> None:
        for (metric, labels), amount in counters.take().items():
            self._metrics.book(metric, labels, amount)
        for exporter in pipeline.batched:
            self._metrics.set_queue_size(exporter.name, exporter.backlog)


class _Poll:
    """What the drainer renews between batches: the clock's anchor, and a tracer provider that was set late."""

    def __init__(self, settings: Settings, recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._recorder = recorder
        self._clock = clock

    def __call__(self) -> None:
        self._clock.refresh()
        parts = self._recorder.parts
        if parts is None or parts.clock is not self._clock:
            return
        if self._recorder.runtime.tracing is None:
            self._recorder.runtime.trace_with(_tracing(self._settings))
        if parts.settler is not None:
            parts.settler.tick()


def _tracing(settings: Settings) -> Tracing | None:
    if not (settings.tracing and settings.enabled):
        return None
    provider = settings.tracer_provider or installed_provider()
    return None if provider is None else Tracing(provider, library_version())


def _metrics(settings: Settings, recorder: Recorder, counters: InternalCounters) -> PrometheusExporter | None:
    if not settings.enabled or not (settings.prometheus or settings.meter_provider is not None):
        return None
    registry = settings.registry
    if not settings.prometheus:
        from taskpilot_obs.exporters.otel_metrics import registry_behind

        registry = registry_behind(settings.meter_provider, settings.namespace)
    return PrometheusExporter(
        registry,
        namespace=settings.namespace,
        service=settings.service,
        service_version=settings.service_version,
        version=library_version(),
        drain=recorder.drain,
        counters=counters,
    )


def _metrics_and_followers(
    settings: Settings, metrics: PrometheusExporter, counters: InternalCounters, undo: ExitStack
) -> dict[str, Exporter]:
    if settings.meter_provider is None:
        return {"prometheus": metrics}
    from taskpilot_obs.exporters.otel_metrics import OtelMetricsExporter

    otel = OtelMetricsExporter(settings.meter_provider, metrics, version=library_version(), counters=counters)
    undo.callback(otel.shutdown)
    return {
        "otel_metrics": otel,
        "prometheus": metrics,
    }  # closed in this order: closing otel reads the other's families


def _budgets(
    settings: Settings,
    recorder: Recorder,
    means: tuple[Clock, PriceTable, InternalCounters],
    metrics: PrometheusExporter | None,
    before: Components | None,
) -> Assembly | None:
    if not (settings.budgets or settings.budget_store or settings.on_budget_alert or recorder.wiring.own_budgets):
        return None
    from taskpilot_obs.budgets.admission import BudgetDeps
    from taskpilot_obs.budgets.assembly import assemble

    last = None if before is None else before.budgets
    deps = BudgetDeps(*means, recorder.emit, settings.source)
    return assemble(settings, deps, metrics, recorder.wiring.own_budgets, last)


def _checks(settings: Settings) -> Checks | None:
    if not (settings.policies or settings.guardrails):
        return None
    from taskpilot_obs.safety.checks import Checks

    return Checks(settings.policies, settings.guardrails, settings.mode)


def _redactor(settings: Settings, counters: InternalCounters) -> Redactor | None:
    """Build the redactor of captured content, also while capture is off, so that wrong options are reported."""
    stated = settings.redaction_rules or settings.redaction_skip or settings.redaction_key is not None
    if not (settings.capture_content or stated):
        return None
    from taskpilot_obs.safety.redaction import Redactor

    redactor = Redactor(
        *settings.redaction_rules,
        skip=settings.redaction_skip,
        hmac_key=_secret(settings.redaction_key),
        max_length=settings.capture_max_length,
        counters=counters,
    )
    return redactor if settings.capture_content and settings.enabled else None


def _secret(key: SecretStr | None) -> bytes | None:
    return None if key is None else key.get_secret_value().encode()


def _price_table(settings: Settings) -> PriceTable:
    return PriceTable.load(settings.prices, aliases=settings.model_aliases)


def _batched(settings: Settings, counters: InternalCounters, undo: ExitStack) -> list[Batched]:
    """The exporters that do I/O, each behind a worker of its own."""
    if not settings.enabled:
        return []
    found = [(f"exporter_{number}", as_exporter(given)) for number, given in enumerate(settings.exporters, 1)]
    if settings.audit_log is not None:
        log = _audit_log(settings, counters)
        undo.callback(getattr(log, "shutdown", lambda _timeout_s: None), 0.0)
        found.insert(0, (AUDIT_LOG, log))
    if settings.store is not None:
        from taskpilot_obs.store.exporter import StoreExporter

        every, days = settings.store_aggregate_every_s, settings.store_retention_days
        store = StoreExporter(
            settings.store,
            aggregate_every_s=every,
            retention_days=days,
            **settings.source._asdict(),
        )
        undo.callback(store.shutdown, 0.0)
        found.append(("store", store))
    return [
        Batched(exporter, name=name, counters=counters, capacity=settings.queue_capacity, on_full=settings.on_full)
        for name, exporter in found
    ]


def _audit_log(settings: Settings, counters: InternalCounters) -> Exporter:
    from taskpilot_obs.audit.writer import AuditOptions
    from taskpilot_obs.exporters.audit_log import AuditLogExporter
    from taskpilot_obs.exporters.json_logging import LoggerExporter, StdoutExporter
    from taskpilot_obs.settings import STDOUT

    refuse_generator("audit_on_anchor", settings.audit_on_anchor)
    target = settings.audit_log or Path(STDOUT)
    if isinstance(target, logging.Logger):
        return LoggerExporter(target, service=settings.service)
    if str(target) == STDOUT:
        return StdoutExporter(service=settings.service)
    options = AuditOptions(
        key=_secret(settings.audit_key),
        max_bytes=settings.audit_max_bytes,
        max_age_s=settings.audit_max_age.total_seconds(),
        keep_segments=settings.audit_keep,
        durability=settings.audit_durability,
    )
    return AuditLogExporter(
        target, options, service=settings.service, counters=counters, on_anchor=settings.audit_on_anchor
    )
