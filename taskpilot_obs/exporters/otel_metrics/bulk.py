"""Records many observations of one histogram at once, for which OpenTelemetry has no public API.

`Histogram.record` of the SDK takes some microseconds, and an agent's run has four observations. Here the first value of
a list goes through `record`, which creates what is missing, and the rest is added to the same buckets under the same
lock. The SDK's internals may change with any version, so `sdk_is_known` compares both ways in a provider of its own
first; where they differ, every value goes through `record`.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import Histogram

    from taskpilot_obs.exporters.prometheus.pending import Exemplar

_FEW: Final = 2
"""Up to this many values, `record` is as fast."""
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def record_all(histogram: Histogram, values: Sequence[float], attributes: Mapping[str, str]) -> None:
    """Record every value.

    Args:
        histogram: the instrument.
        values: what was observed.
        attributes: of every value.
    """
    if len(values) > _FEW and hasattr(histogram, "_measurement_consumer") and sdk_is_known():
        _add_in_bulk(histogram, values, attributes)
        return
    for value in values:
        histogram.record(value, attributes)


def record_with_exemplar(
    histogram: Histogram, value: float, attributes: Mapping[str, str], trace_id: str, span_id: str
) -> None:
    """Record a value in the context of a sampled span, which the SDK's exemplar filter then selects.

    Args:
        histogram: the instrument.
        value: what was observed.
        attributes: of the value.
        trace_id: of the span, in hexadecimal.
        span_id: of the span, in hexadecimal.
    """
    try:
        span = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)
    except ValueError:  # an ID of another tracing system
        histogram.record(value, attributes)
    else:
        histogram.record(value, attributes, context=set_span_in_context(NonRecordingSpan(span)))


@cache
def sdk_is_known() -> bool:
    """Whether this version of the SDK counts a list in bulk exactly as it counts each value; False if that fails."""
    with suppress(Exception):  # internals that are gone, or an SDK that environment variables misconfigure
        return _counts_alike()
    return False


def _counts_alike() -> bool:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], Resource.get_empty(), shutdown_on_exit=False)
    meter, values, found = provider.get_meter(__name__), (0.5, 1.0, 2.5, 70.0, 1.0), []
    each, bulk = (meter.create_histogram(name, explicit_bucket_boundaries_advisory=[1.0, 5.0]) for name in "ab")
    for value in values:
        each.record(value, {"k": "v"})
    _add_in_bulk(bulk, values, {"k": "v"})
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        points: Any = metric.data.data_points
        found.append([(p.count, p.sum, p.min, p.max, tuple(p.bucket_counts)) for p in points])
    provider.shutdown()
    return len(found) == 2 and found[0] == found[1]  # noqa: PLR2004  both instruments


def _add_in_bulk(histogram: Any, values: Sequence[float], attributes: Mapping[str, str]) -> None:
    enabled: Callable[[], bool] = getattr(histogram, "_is_enabled", lambda: True)
    if not enabled():
        return
    histogram.record(values[0], attributes)
    rest = values[1:]
    for storage in histogram._measurement_consumer._reader_storages.values():  # noqa: SLF001  see the module's docstring
        for match in storage._get_or_init_view_instrument_match(histogram):  # noqa: SLF001
            _add_to_match(match, histogram, rest, attributes)


def _add_to_match(match: Any, histogram: Any, values: Sequence[float], attributes: Mapping[str, str]) -> None:
    """Add the values to the aggregation of one view of one reader."""
    from opentelemetry.sdk.metrics._internal.aggregation import _ExplicitBucketHistogramAggregation

    kept = match._view._attribute_keys  # noqa: SLF001
    shown = attributes if kept is None else {key: value for key, value in attributes.items() if key in kept}
    with match._lock:  # noqa: SLF001  a collection that ends a delta holds it
        aggregation = match._attributes_aggregation.get(_hash(shown))  # noqa: SLF001
        if type(aggregation) is _ExplicitBucketHistogramAggregation:
            _add_to_buckets(aggregation, values)
            return
    for value in values:  # an exponential histogram, a dropped instrument, an overflow, or a delta that was collected
        match.consume_measurement(_measurement(histogram, value, attributes), should_sample_exemplar=False)


def _add_to_buckets(aggregation: Any, values: Sequence[float]) -> None:
    bounds = aggregation._boundaries  # noqa: SLF001
    with aggregation._lock:  # noqa: SLF001
        if aggregation._value is None:  # noqa: SLF001  collected since
            aggregation._value = [0] * (len(bounds) + 1)  # noqa: SLF001
        counts = aggregation._value  # noqa: SLF001
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        aggregation._sum += sum(values)  # noqa: SLF001
        if aggregation._record_min_max:  # noqa: SLF001  a view may turn it off
            aggregation._min = min(aggregation._min, *values)  # noqa: SLF001
            aggregation._max = max(aggregation._max, *values)  # noqa: SLF001


def _measurement(histogram: Any, value: float, attributes: Mapping[str, str]) -> Any:
    from time import time_ns

    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    return Measurement(value, time_ns(), histogram, Context(), attributes)


@cache
def _hasher() -> Callable[[Any], Any]:
    try:
        from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
    except ImportError:  # earlier versions
        return lambda attributes: frozenset(attributes.items())
    return _hash_attributes


def _hash(attributes: Mapping[str, str]) -> Any:
    return _hasher()(attributes)


class HistogramSeries:
    """One series of a histogram: values wait here until there are many of them, or until a reader collects."""

    __slots__ = ("_attributes", "_bounds", "_histogram", "_sampled", "_values")

    def __init__(self, histogram: Histogram, attributes: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._bounds = bounds
        self._values: list[float] = []
        self._sampled: dict[int, tuple[float, Exemplar]] = {}

    def add_all(self, values: Sequence[float]) -> None:
        """Take values without an exemplar."""
        self._values.extend(values)
        if len(self._values) >= _MANY:
            self.flush()

    def add(self, value: float, exemplar: Exemplar | None) -> None:
        """Take one value. The last exemplar of each bucket is kept, as the SDK does."""
        if exemplar is not None:
            bucket = bisect_left(self._bounds, value)
            replaced = self._sampled.get(bucket)
            self._sampled[bucket] = (value, exemplar)
            if replaced is None:
                return
            value = replaced[0]
        self.add_all((value,))

    def flush(self) -> None:
        """Hand the waiting values to the SDK."""
        values, self._values = self._values, []
        sampled, self._sampled = self._sampled, {}
        record_all(self._histogram, values, self._attributes)
        for value, exemplar in sampled.values():
            record_with_exemplar(self._histogram, value, self._attributes, **exemplar)


_MANY: Final = 1_024
"""How many values may wait for a collection: 8 KB per series."""
