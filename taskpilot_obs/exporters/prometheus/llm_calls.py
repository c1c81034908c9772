"""Counts finished LLM calls in the `llm_*` families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus.labels import SeriesCache
from taskpilot_obs.exporters.prometheus.pending import CompletionSeries, exemplar_of
from taskpilot_obs.records import Pricing, Status
from taskpilot_obs.semconv import ERROR_CATEGORIES, NONE, PRICE_GAPS, TOKEN_DETAILS, TOKEN_TYPES, Label, PriceGap

if TYPE_CHECKING:
    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.exporters.prometheus.pending import PendingIncrements
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.usage import Usage

_Key = tuple[str, str, str, Status]
"""Agent, model, provider and status of a call."""
FAILED = frozenset({Status.ERROR, Status.TIMEOUT})
_KNOWN_FROM_THE_FIRST_CALL = (
    semconv.LLM_BILLABLE,
    semconv.LLM_UNPRICED,
    semconv.LLM_USAGE_MISSING,
    semconv.LLM_USAGE_INCONSISTENT,
    semconv.LLM_RETRIES,
    semconv.LLM_PRICE_MISMATCHES,
)
"""Created at 0 at a model's first call, so that ratios over them are 0 instead of absent."""


class LlmCalls:
    """Counts LLM calls. As in `RunSeries`, children are cached by names, and folded names share them."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._completions: SeriesCache[_Key, CompletionSeries] = SeriesCache()

    def end(self, pending: PendingIncrements, done: Invocation) -> None:
        """Count a call: request and duration always; tokens and cost unless the application's cache answered."""
        agent, model, provider = done.agent or NONE, done.model or NONE, done.provider or NONE
        key = (agent, model, provider, done.status)
        series = self._completions.get(key)
        if series is None:
            series = self._completions.find(key, self._shown(*key), lambda: self._resolve(key))
        pending.complete(series, done)
        if done.ttft_s is not None:
            first_token = self._families.histogram(semconv.LLM_FIRST_TOKEN).child(model, provider)
            pending.observe(first_token, done.ttft_s, exemplar_of(done))
        if done.status in FAILED:
            pending.add(semconv.LLM_ERRORS, 1, agent, model, provider, cause_of(done))
        if done.retries:
            pending.add(semconv.LLM_RETRIES, done.retries, model, provider)
        if done.cached is not None:
            pending.add(semconv.LLM_CACHE_HITS if done.cached else semconv.LLM_CACHE_MISSES, 1, agent, model)
        if not done.cached:
            _book_usage(pending, done, agent, model, provider)

    def _shown(self, agent: str, model: str, provider: str, status: Status) -> _Key:
        show = self._families.admission.shown
        return show(Label.AGENT, agent), show(Label.MODEL, model), show(Label.PROVIDER, provider), status

    def _resolve(self, key: _Key) -> CompletionSeries:
        agent, model, provider, status = key
        families = self._families
        for metric in _KNOWN_FROM_THE_FIRST_CALL:
            families.counter(metric).init_child(model, provider)
        for gap in PRICE_GAPS:
            families.counter(semconv.LLM_PARTIALLY_PRICED).init_child(model, provider, gap)
        found = CompletionSeries()
        with families.overflows() as overflows:
            found.counters.append(families.counter(semconv.LLM_REQUESTS).child(agent, model, provider, status))
            found.durations.append(families.histogram(semconv.LLM_DURATION).child(model, provider))
        found.counters += overflows
        return found


def cause_of(done: Invocation) -> str:
    """Return the category of the error of a failed call."""
    if done.error_category in ERROR_CATEGORIES:
        return str(done.error_category)
    return "timeout" if done.status is Status.TIMEOUT else "other"


def _book_usage(pending: PendingIncrements, done: Invocation, agent: str, model: str, provider: str) -> None:
    _book_pricing(pending, done, model, provider)
    if done.is_usage_missing:
        pending.add(semconv.LLM_USAGE_MISSING, 1, model, provider)
    if done.usage_inconsistent:
        pending.add(semconv.LLM_USAGE_INCONSISTENT, 1, model, provider)
    if done.cost is not None:
        pending.families.counter(semconv.LLM_COST).init_child(agent, model, provider)
        pending.add(semconv.LLM_COST, done.cost, agent, model, provider)
    usage = done.usage
    if usage is None:
        return
    for token_type, tokens in zip(TOKEN_TYPES, (usage.input_tokens, usage.output_tokens), strict=True):
        if tokens:
            pending.add(semconv.LLM_TOKENS, tokens, agent, model, provider, token_type)
    for detail, tokens in zip(TOKEN_DETAILS, _details(usage), strict=True):
        if tokens:
            pending.add(semconv.LLM_TOKEN_DETAILS, tokens, model, provider, detail)


def _book_pricing(pending: PendingIncrements, done: Invocation, model: str, provider: str) -> None:
    """Count how much is known about the cost; cost coverage is computed from these."""
    pricing = done.pricing
    if pricing is not Pricing.FREE:
        pending.add(semconv.LLM_BILLABLE, 1, model, provider)
    if pricing is Pricing.UNPRICED:
        pending.add(semconv.LLM_UNPRICED, 1, model, provider)
    elif pricing is Pricing.PARTIAL:
        pending.add(semconv.LLM_PARTIALLY_PRICED, 1, model, provider, _gap(done))
    if done.is_price_mismatch:
        pending.add(semconv.LLM_PRICE_MISMATCHES, 1, model, provider)


def _gap(done: Invocation) -> str:
    return str(done.price_gap) if done.price_gap in PRICE_GAPS else PriceGap.CONTRADICTION


def _details(usage: Usage) -> tuple[int | None, ...]:
    return (
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
    )
