"""A fast path for LangChain's results, whose layers are known: three times as fast as the general search."""

from __future__ import annotations

from typing import Any

from taskpilot_obs.providers import names as providers
from taskpilot_obs.records import NO_USAGE
from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.envelopes import REASON_KEYS, billed_by, id_of, tier_of
from taskpilot_obs.usage.fields import NOTHING, Fields, first, inner, text
from taskpilot_obs.usage.shapes import contradicts, counter_at, counter_of, gap_of, named_tier, read_counts, stated_cost
from taskpilot_obs.usage.values import Reading


def read_result(response: object, provider: str | None) -> Reading | None:
    """Read a chat model's message or `LLMResult`; return None if it needs the general search."""
    message = _message_of(response)
    if message is None:
        return None
    stated, about = message.get("usage_metadata"), message.get("response_metadata")
    if type(stated) is not dict or type(about) is not dict or stated.get("total_cost") is not None:
        return None
    model = text(about.get("model_name")) or text(about.get("model"))
    named = provider or text(about.get("model_provider"))
    vendor = providers.canonical(named) if named else providers.infer_provider(model)
    own = behind(stated, message, vendor)
    counts = stated if own is None else own
    counter = counter_of(model) or vendor
    usage, inconsistent = read_counts(counts, counter)
    if model is None or usage is None or (not usage.output_tokens and message.get("content")):
        return None
    reason = text(first(about, *REASON_KEYS))
    cost, response_id = stated_cost(counts), id_of(message.get("id")) or id_of(about.get("id"))
    gap = PriceGap.CONTRADICTION if contradicts(counts, usage) else None
    gap = gap_of(counts, model, counter_at(vendor, model)) or gap
    return Reading(
        usage,
        model,
        vendor,
        tier_of(about.get("service_tier")) or named_tier(stated),
        response_id,
        () if reason is None else (reason,),
        inconsistent,
        cost=None if cost is None else cost.usd,
        gap=gap if cost is None else cost.gap,
        billed_by=billed_by(response_id),
    )


def behind(stated: Fields, message: Fields, provider: str | None) -> Fields | None:
    """Return the provider's own usage, which some packages keep beside LangChain's; None to use LangChain's.

    LangChain's usage omits details that it has no name for: cache reads of Mistral and DeepSeek, reasoning counted
    separately, Anthropic's server tools. It also states 0 if the provider stated nothing. If the provider's own usage
    lacks a number, it is counted in another way.
    """
    about = inner(message, "response_metadata")
    own = inner(about, "token_usage", "usage")
    if own is NOTHING or message.get("type") == "AIMessageChunk":
        return None
    counter = counter_of(text(first(about, "model_name", "model"))) or provider
    ours, theirs = read_counts(stated, counter)[0] or NO_USAGE, read_counts(own, counter)[0] or NO_USAGE
    pairs = zip(ours[:2], theirs[:2], strict=True)
    return own if all((other or 0) >= (mine or 0) for mine, other in pairs) else None


def _message_of(response: object) -> dict[str, Any] | None:
    """The fields of a message, or of the message of a result's first generation."""
    stored = getattr(response, "__dict__", None)
    if type(stored) is not dict:
        return None
    generations = stored.get("generations")
    if generations is None:
        return stored if "response_metadata" in stored else None
    if not (isinstance(generations, list) and generations and isinstance(generations[0], list) and generations[0]):
        return None
    message = getattr(generations[0][0], "message", None)
    found = getattr(message, "__dict__", None)
    return found if type(found) is dict else None
