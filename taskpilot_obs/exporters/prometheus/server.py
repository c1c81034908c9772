"""The server's metrics about itself: requests, their duration, and the outcome of received spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily

from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.semconv import SERVER_DURATION, SERVER_REQUESTS, SERVER_SPANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.metrics_core import Metric

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class ServerMetrics:
    """The metrics of one server, in a separate registry, so that an application that mounts it keeps its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests, seconds = SERVER_REQUESTS, SERVER_DURATION
        self._requests = Counter(requests.name, requests.help, requests.labels, registry=self.registry)
        self._seconds = Histogram(
            seconds.name, seconds.help, seconds.labels, buckets=seconds.buckets, registry=self.registry
        )

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
        family = CounterMetricFamily(SERVER_SPANS.name, SERVER_SPANS.help, labels=SERVER_SPANS.labels)
        for result, amount in self._counts().items():
            family.add_metric([result], amount)
        yield family
