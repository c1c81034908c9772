"""The server's metrics about itself: requests, their duration, and the outcome of received spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily

from taskpilot_obs.exporters.prometheus.scrape import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.metrics_core import Metric

REQUESTS: Final = "taskpilot_obs_server_requests_total"
REQUEST_SECONDS: Final = "taskpilot_obs_server_request_duration_seconds"
SPANS: Final = "taskpilot_obs_server_spans_total"
"""Only `taskpilot-obs serve` has these families, so they are not among the contract's `semconv.METRICS`."""
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class ServerMetrics:
    """The metrics of one server, in a separate registry, so that an application that mounts it keeps its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status_code")
        self._requests = Counter(REQUESTS, "Answers of the server.", labels, registry=self.registry)
        help_text = "Time from a request to the server until its answer."
        self._seconds = Histogram(REQUEST_SECONDS, help_text, ("route",), buckets=_BUCKETS, registry=self.registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. `route` is a path as it was declared, so that its values are bounded."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch_spans(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Export the outcome of spans; `counts` is called when the metrics are read."""
        self.registry.register(_Spans(counts))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Render the exposition, and return it with its content type."""
        return render(self.registry, accept)


class _Spans:
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Return the current counts."""
        help_text = "Spans that the server took: received, ignored, written, late; and traces that were torn."
        family = CounterMetricFamily(SPANS, help_text, labels=("result",))
        for result, amount in self._counts().items():
            family.add_metric([result], amount)
        yield family
