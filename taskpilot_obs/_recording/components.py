"""What a recorder is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry  # noqa: TID251  the type of an argument that is passed through

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.point_events import Verdicts
    from taskpilot_obs._recording.spans import Tracing
    from taskpilot_obs._support.clock import Clock
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs._telemetry.window import CallWindow
    from taskpilot_obs.budgets.admission import AdmissionController
    from taskpilot_obs.budgets.settlement import Settler
    from taskpilot_obs.exporters.window import RollingWindow
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import DecisionKind, Operation, Stage
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor
    from taskpilot_obs.semconv import Metric
    from taskpilot_obs.settings import Settings


class Declares(Protocol):
    """An exporter that creates series before the first run, so that the first one is visible as an increase."""

    def declare(self, operation: Operation, name: str) -> None:
        """Create the series of runs of this name, at 0."""

    def declare_check(self, kind: DecisionKind, name: str, stages: Iterable[Stage]) -> None:
        """Create the series of decisions of this check, at 0."""

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter that is not derived from records."""

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge that is not derived from records."""


class Components(NamedTuple):
    """The components that make up a recorder; `build` makes them from settings."""

    settings: Settings
    pipeline: Pipeline
    counters: InternalCounters
    clock: Clock
    prices: PriceTable
    window: RollingWindow
    verdicts: Verdicts
    registry: CollectorRegistry | None
    declares: Declares | None
    redactor: Redactor | None
    tracing: Tracing | None
    checks: Checks | None
    budgets: AdmissionController | None
    settler: Settler | None
    """Charges budgets with what calls took; None without budgets."""
    calls: CallWindow | None
    """The latest LLM calls, which answer statistics; None where a telemetry store does, or none are held."""
