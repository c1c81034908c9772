"""Chat completions of OpenAI and its many imitators: input and output are inclusive.

Behind this interface xAI, Perplexity and Gemini omit reasoning from `completion_tokens`; the total reveals it.
"""

from __future__ import annotations

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import NOTHING, Fields, fields, first, inner, items
from taskpilot_obs.usage.shapes.base import Counts, Shape, rest, ttl_split
from taskpilot_obs.usage.values import parse_token_count


def read(usage: Fields, provider: str | None) -> Counts:
    """Read the counts of a chat completion; the list of shapes names details that imitators state beside the totals."""
    ins = inner(usage, "prompt_tokens_details", "prompt_token_details", "input_tokens_details")
    outs = inner(usage, "completion_tokens_details", "completion_token_details", "output_tokens_details")
    reasoning = outs.get("reasoning_tokens")
    counts = {
        "input_tokens": usage.get("prompt_tokens"),
        "output_tokens": _generated(usage, reasoning, provider),
        "cache_read_tokens": ins.get("cached_tokens"),
        "cache_write_tokens": first(ins, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
        "input_audio_tokens": ins.get("audio_tokens"),
        "input_image_tokens": ins.get("image_tokens"),
        "reasoning_tokens": reasoning,
        "output_audio_tokens": outs.get("audio_tokens"),
        "output_image_tokens": outs.get("image_tokens"),
    }
    created = first(ins, "cache_creation", "cache_creation_token_details") or usage.get("cache_creation")
    if created is not None:
        counts |= ttl_split(created)
    cached_details = inner(ins, "cached_tokens_details")
    if cached_details is not NOTHING:
        counts["cache_read_audio_tokens"] = cached_details.get("audio_tokens")
    return counts


def _generated(usage: Fields, reasoning: object, provider: str | None) -> object:
    """All generated tokens, including reasoning that some providers count separately."""
    stated, left = usage.get("completion_tokens"), rest(usage.get("total_tokens"), usage.get("prompt_tokens"))
    beside = parse_token_count(usage.get("reasoning_tokens"))
    if stated is None or (left == stated and not beside):
        return left
    known, thought = parse_token_count(stated), parse_token_count(reasoning) or beside
    if known is None:
        return stated
    if thought and (left == known + thought or (left is None and provider == "x_ai")):
        return known + thought  # xAI: the total proves that the output excludes reasoning
    if beside and (beside > known or (left == known and provider == "perplexity")):
        return known + beside  # Perplexity's deep research: not even in the total
    if provider is not None and provider.startswith("gcp.") and left is not None and left > known:
        return left  # Gemini behind OpenAI's interface: only the total includes thoughts
    return stated


def _in_the_choice(layer: Fields) -> Fields | None:
    """Read the usage in the choice, where Moonshot's streams state it."""
    choices = layer.get("choices")
    return None if choices is None else fields((items(choices)[:1] or [NOTHING])[0].get("usage"))


SHAPE = Shape(
    "openai_chat",
    read,
    marks="prompt_tokens completion_tokens",
    usage_keys="usage",
    wrappers="response message delta body",
    event_keys="usage error",
    event_types="error",
    model_gaps={"search-preview": PriceGap.FEES, "search-api": PriceGap.FEES},
    elsewhere=_in_the_choice,
)
