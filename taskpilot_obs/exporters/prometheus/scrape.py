"""Renders a scrape: of the registry, or of all workers' files in multi-process mode, after a drain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS, drain_all, namespaces
from taskpilot_obs.exporters.prometheus.multiprocess import workers
from taskpilot_obs.semconv import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from prometheus_client.metrics_core import Metric

_CREATED = "_created"
_OURS = frozenset(
    metric.name.removesuffix("_total") for metric in METRICS if metric.kind in {Kind.COUNTER, Kind.HISTOGRAM}
)


class ScrapeSource(Protocol):
    """An object from which metrics are collected."""

    def collect(self) -> Iterable[Metric]:
        """Return the current metrics."""


def source(registry: CollectorRegistry | None = None) -> ScrapeSource:
    """Return the object to collect from, so that everything recorded so far is included.

    In one process the registry drains by itself. In multi-process mode it is the files of all workers, whatever the
    registry: the values live there, and other workers' records are at most 250 ms behind.
    """
    if not MULTIPROCESS:
        return REGISTRY if registry is None else registry
    drain_all()
    return workers()


class _WithoutCreated:
    """Omits the `_created` series of this library's families, which double the counters without use."""

    def __init__(self, inner: ScrapeSource) -> None:
        self._inner = inner

    def collect(self) -> Iterable[Metric]:
        for metric in self._inner.collect():
            if _is_ours(metric.name):
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith(_CREATED)]
            yield metric


def _is_ours(name: str) -> bool:
    return name in _OURS or any(name.removeprefix(f"{namespace}_") in _OURS for namespace in namespaces)


class _Selected:
    """The families selected by sample names, as in `?name[]=`."""

    def __init__(self, inner: ScrapeSource, names: Collection[str]) -> None:
        self._inner = inner
        self._names = frozenset(names)

    def collect(self) -> Iterable[Metric]:
        for metric in self._inner.collect():
            metric.samples = [sample for sample in metric.samples if sample.name in self._names]
            if metric.samples:
                yield metric


def render(
    registry: CollectorRegistry | None = None, accept: str = "", names: Collection[str] = ()
) -> tuple[bytes, str]:
    """Render the exposition, and return it with its content type, as an `Accept` header requests.

    The format is OpenMetrics (the only one with exemplars) if requested, as by Prometheus, else the classic text.

    Args:
        registry: what to read; default is prometheus_client's own.
        accept: the header.
        names: the names of the requested samples; empty for all.
    """
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a prometheus_client version that does not parse
        encoder, content_type = choose_encoder("")
    everything = _WithoutCreated(source(registry))
    return encoder(_Selected(everything, names) if names else everything), content_type
