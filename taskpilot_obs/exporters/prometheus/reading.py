"""Reads expositions: the samples of a registry, of a multi-process deployment, or of `/metrics` text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.exporters.prometheus.scrape import source
from taskpilot_obs.semconv import INFO, METRICS

Registry = CollectorRegistry
"""For modules that pass a registry on without importing prometheus_client."""
ACCEPT: Final = f"{CONTENT_TYPE_LATEST.split(';')[0]};version=0.0.4"
"""The `Accept` header for a `/metrics` endpoint."""
_SUFFIXES: Final = ("", "_bucket", "_count", "_sum", "_created")
_OURS: Final = frozenset(metric.name + suffix for metric in METRICS for suffix in _SUFFIXES)
_OPEN_METRICS: Final = "application/openmetrics-text"


class Sample(NamedTuple):
    """One line of an exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


class _RawSample(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def value(self) -> float: ...


class _Family(Protocol):
    @property
    def samples(self) -> Iterable[_RawSample]: ...


def samples(registry: Registry | None = None) -> Iterator[Sample]:
    """Return every finite sample of a registry (default: prometheus_client's own), after draining.

    In multi-process mode these include all workers, live and dead.
    """
    return _flat(source(registry).collect())


def parse_text(text: str, content_type: str = "") -> list[Sample]:
    """Parse every finite sample of a `/metrics` response.

    Args:
        text: the body, in Prometheus' text format or in OpenMetrics.
        content_type: the header of the response, which states the format.

    Raises:
        SourceError: the text has neither format.
    """
    parse = open_metrics_families if content_type.startswith(_OPEN_METRICS) else plain_families
    try:
        return list(_flat(parse(text)))
    except (ValueError, ArithmeticError, KeyError, IndexError) as error:
        raise SourceError(f"not an exposition of metrics: {type(error).__name__}: {error}"[:300]) from error


def _flat(families: Iterable[_Family]) -> Iterator[Sample]:
    """Return finite samples under the contract's names, without the prefix of `configure(namespace=…)`."""
    raw = [sample for family in families for sample in family.samples if isfinite(sample.value)]
    prefixes = {sample.name.removesuffix(INFO.name) for sample in raw if sample.name.endswith(f"_{INFO.name}")}
    for sample in raw:
        yield Sample(_without(prefixes, sample.name), sample.labels, float(sample.value))


def _without(prefixes: Iterable[str], name: str) -> str:
    for prefix in prefixes:
        if name.startswith(prefix) and name.removeprefix(prefix) in _OURS:
            return name.removeprefix(prefix)
    return name
