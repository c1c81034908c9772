"""Records LLM calls in the two client metrics of OpenTelemetry's GenAI conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exporters.otel_metrics.conventions import CLIENT_DURATION, CLIENT_TOKENS, TOKEN_TYPE
from taskpilot_obs.exporters.prometheus.labels import Admission, clean
from taskpilot_obs.exporters.prometheus.llm_calls import FAILED, cause_of
from taskpilot_obs.exporters.prometheus.pending import exemplar_of
from taskpilot_obs.records import LLM_OPERATIONS, Invocation
from taskpilot_obs.semconv import MAX_CHILDREN, NONE, OTHER, TOKEN_TYPES, Attr, Label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.otel_metrics.bulk import HistogramSeries
    from taskpilot_obs.records import Record
    from taskpilot_obs.semconv import Metric

_Key = tuple[str, str | None, str | None, str | None, str | None]
_MAX_KEYS: Final = MAX_CHILDREN // 4
"""The token metric has two series per key, and the SDK folds series beyond 2,000."""
_FOREVER: Final = float("inf")


class _Series:
    """The duration and the token counts of calls with the same attributes."""

    def __init__(
        self, attributes: Mapping[str, str], create: Callable[[Metric, Mapping[str, str]], HistogramSeries]
    ) -> None:
        self._attributes = attributes
        self._create = create
        self._tokens: dict[str, HistogramSeries] = {}
        self.duration = create(CLIENT_DURATION, attributes)

    def tokens(self, token_type: str) -> HistogramSeries:
        """The series of one type of tokens, which exists only where the provider states them."""
        found = self._tokens.get(token_type)
        if found is None:
            attributes = {**self._attributes, TOKEN_TYPE: token_type}
            found = self._tokens[token_type] = self._create(CLIENT_TOKENS, attributes)
        return found


class ClientCalls:
    """Records `gen_ai.client.operation.duration` and `gen_ai.client.token.usage`.

    Args:
        create: creates the series of a histogram with these attributes.
    """

    def __init__(self, create: Callable[[Metric, Mapping[str, str]], HistogramSeries]) -> None:
        self._create = create
        self._admission = Admission()
        self._series: dict[_Key, _Series] = {}

    def add_all(self, batch: Sequence[Record], counters: InternalCounters | None) -> None:
        """Record the LLM calls of a batch; one that fails does not stop the others."""
        guard = guarded("otel_metrics", counters)
        for record in batch:
            if isinstance(record, Invocation) and record.operation in LLM_OPERATIONS:
                guard.call(self._add, record)

    def _add(self, done: Invocation) -> None:
        series = self._find(done)
        if 0 <= done.duration_s < _FOREVER:
            series.duration.add(done.duration_s, exemplar_of(done))
        usage = done.usage
        if usage is None or done.cached:
            return
        for token_type, tokens in zip(TOKEN_TYPES, (usage.input_tokens, usage.output_tokens), strict=True):
            if tokens is not None and tokens >= 0:
                series.tokens(token_type).add(tokens, None)

    def _find(self, done: Invocation) -> _Series:
        error = cause_of(done) if done.status in FAILED else None
        key = (str(done.operation), done.provider, done.request_model, done.response_model, error)
        found = self._series.get(key)
        return self._admit(key) if found is None else found

    def _admit(self, key: _Key) -> _Series:
        operation, provider, requested, answered, error = key
        models = [None if name is None else self._bounded(Label.MODEL, name) for name in (requested, answered)]
        bounded = (operation, self._bounded(Label.PROVIDER, provider), models[0], models[1], error)
        if bounded not in self._series and len(self._series) >= _MAX_KEYS:
            bounded = (operation, OTHER, OTHER, OTHER, error)
        found = self._series.get(bounded)
        if found is None:
            found = self._series[bounded] = _Series(_attributes(*bounded), self._create)
        return found

    def _bounded(self, label: str, name: str | None) -> str:
        return self._admission.admit(CLIENT_DURATION.name, label, clean(name))


def _attributes(
    operation: str, provider: str | None, requested: str | None, answered: str | None, error: str | None
) -> dict[str, str]:
    every = {
        Attr.OPERATION: operation,
        Attr.PROVIDER: provider or NONE,
        Attr.REQUEST_MODEL: requested,
        Attr.RESPONSE_MODEL: answered,
        Attr.ERROR_TYPE: error,
    }
    return {name: value for name, value in every.items() if value is not None}
