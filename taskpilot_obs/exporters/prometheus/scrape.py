"""What a scrape reads: the registry in one process, every worker's files in many; drained first."""

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


class Source(Protocol):
    """Whatever has metrics."""

    def collect(self) -> Iterable[Metric]:
        """The metrics as they stand."""


def source(registry: CollectorRegistry | None = None) -> Source:
    """What to collect from so that everything handed over so far is seen.

    In one process the registry drains by itself. In multi-process mode it is the files of all workers, whatever the
    registry: the values live there, and other workers' records are at most 250 ms behind.
    """
    if not MULTIPROCESS:
        return REGISTRY if registry is None else registry
    drain_all()
    return workers()


class _WithoutCreated:
    """Leaves out the `_created` series of this library's families: they double the counters, and say nothing here."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner

    def collect(self) -> Iterable[Metric]:
        for metric in self._inner.collect():
            if _is_ours(metric.name):
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith(_CREATED)]
            yield metric


def _is_ours(name: str) -> bool:
    return name in _OURS or any(name.removeprefix(f"{namespace}_") in _OURS for namespace in namespaces)


class _Selected:
    """Some families, by the names of their samples, as `?name[]=` asks for them."""

    def __init__(self, inner: Source, names: Collection[str]) -> None:
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
    """The exposition and its content type, in the format that an `Accept` header asks for.

    OpenMetrics, which Prometheus asks for and which alone carries exemplars, or else the classic text format.

    Args:
        registry: what to read; default is prometheus_client's own.
        accept: the header.
        names: the names of the samples that are asked for; all when empty.
    """
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that cannot be compared
        encoder, content_type = choose_encoder("")
    everything = _WithoutCreated(source(registry))
    return encoder(_Selected(everything, names) if names else everything), content_type
