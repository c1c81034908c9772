"""What one finished LLM call adds to the `llm_*` families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus.sums import exemplar_of
from taskpilot_obs.records import Status
from taskpilot_obs.semconv import ERROR_CATEGORIES, NONE

if TYPE_CHECKING:
    from taskpilot_obs.exporters.prometheus.sums import Sums
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.usage import Usage

_FAILED = frozenset({Status.ERROR, Status.TIMEOUT})
_KNOWN_FROM_THE_FIRST_CALL = (
    semconv.LLM_UNPRICED,
    semconv.LLM_USAGE_MISSING,
    semconv.LLM_USAGE_INCONSISTENT,
    semconv.LLM_RETRIES,
)
"""Created at 0 with a model's first call, so that a ratio over them is 0 and not absent."""


def book_llm_call(sums: Sums, done: Invocation) -> None:
    """Book a call: every call as request and duration; tokens and cost unless the application's cache answered."""
    agent, model, provider = done.agent or NONE, done.model or NONE, done.provider or NONE
    families = sums.families
    exemplar = exemplar_of(done)
    requests = families.counter(semconv.LLM_REQUESTS)
    sums.move(requests.child(agent, model, provider, done.status), 1)
    sums.observe(families.histogram(semconv.LLM_DURATION).child(model, provider), done.duration_s, exemplar)
    if done.ttft_s is not None:
        sums.observe(families.histogram(semconv.LLM_FIRST_TOKEN).child(model, provider), done.ttft_s, exemplar)
    if done.status in _FAILED:
        sums.add(semconv.LLM_ERRORS, 1, agent, model, provider, _cause(done))
    for metric in _KNOWN_FROM_THE_FIRST_CALL:
        families.counter(metric).touch(model, provider)
    sums.add(semconv.LLM_RETRIES, done.retries, model, provider)
    if done.cached is not None:
        sums.add(semconv.LLM_CACHE_HITS if done.cached else semconv.LLM_CACHE_MISSES, 1, agent, model)
    if not done.cached:
        _book_usage(sums, done, agent, model, provider)


def _cause(done: Invocation) -> str:
    if done.error_category in ERROR_CATEGORIES:
        return str(done.error_category)
    return "timeout" if done.status is Status.TIMEOUT else "other"


def _book_usage(sums: Sums, done: Invocation, agent: str, model: str, provider: str) -> None:
    if done.is_usage_missing:
        sums.add(semconv.LLM_USAGE_MISSING, 1, model, provider)
    if done.is_unpriced:
        sums.add(semconv.LLM_UNPRICED, 1, model, provider)
    if done.usage_inconsistent:
        sums.add(semconv.LLM_USAGE_INCONSISTENT, 1, model, provider)
    if done.cost is not None:
        sums.families.counter(semconv.LLM_COST).touch(agent, model, provider)
        sums.add(semconv.LLM_COST, done.cost, agent, model, provider)
    if done.usage is None:
        return
    sums.add(semconv.LLM_TOKENS, done.usage.input_tokens or 0, agent, model, provider, semconv.TOKEN_TYPES[0])
    sums.add(semconv.LLM_TOKENS, done.usage.output_tokens or 0, agent, model, provider, semconv.TOKEN_TYPES[1])
    for detail, tokens in zip(semconv.TOKEN_DETAILS, _details(done.usage), strict=True):
        sums.add(semconv.LLM_TOKEN_DETAILS, tokens or 0, model, provider, detail)


def _details(usage: Usage) -> tuple[int | None, ...]:
    return (
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
    )
