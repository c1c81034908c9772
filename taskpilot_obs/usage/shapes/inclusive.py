"""Inclusive totals named `input_tokens` and `output_tokens`.

OpenAI's responses, LangChain's `usage_metadata`, pydantic-ai, agent-framework, genai-prices and OpenTelemetry use
this shape. LangChain writes a service tier into the names of details (`flex_cache_read`).
"""

from __future__ import annotations

from typing import Final

from taskpilot_obs.usage.fields import NOTHING, Fields, first, inner
from taskpilot_obs.usage.shapes.base import Counts, Shape, rest, ttl_split, with_tiers
from taskpilot_obs.usage.values import parse_token_count

_READ: Final = (*with_tiers("cached_tokens", "cache_read"), "cache_read_input_tokens")
_WRITTEN: Final = (*with_tiers("cache_write_tokens", "cache_creation"), "cache_creation_input_tokens")
_REASONING: Final = with_tiers("reasoning", "reasoning_tokens", "thinking_tokens")
_AUDIO: Final = with_tiers("audio", "audio_tokens")
_IMAGE: Final = with_tiers("image", "image_tokens")


def read(usage: Fields, provider: str | None) -> Counts:
    """Read inclusive totals with details beneath or beside them."""
    ins = inner(usage, "input_token_details", "input_tokens_details", "prompt_tokens_details")
    outs = inner(usage, "output_token_details", "output_tokens_details", "details")
    given = first(usage, "input_tokens", "input_token_count")
    generated = first(usage, "output_tokens", "output_token_count", "generated_token_count")
    counts = {
        "input_tokens": given,
        "output_tokens": generated if generated is not None else rest(usage.get("total_tokens"), given),
    }
    if ins is not NOTHING:
        counts |= _input_details(ins)
    if outs is not NOTHING:
        counts["reasoning_tokens"] = first(outs, *_REASONING)
        counts["output_audio_tokens"] = first(outs, *_AUDIO)
        counts["output_image_tokens"] = first(outs, *_IMAGE)
    if outs is not NOTHING or (provider is not None and provider.startswith("gcp.")):
        _add_what_stands_apart(counts, usage.get("total_tokens"), provider)
    if ins is NOTHING or outs is NOTHING:
        counts |= {name: value for name, value in _beside(usage).items() if counts.get(name) is None}
    return counts


def _input_details(ins: Fields) -> Counts:
    return {
        "cache_read_tokens": first(ins, *_READ),
        "cache_write_tokens": first(ins, *_WRITTEN),
        "input_audio_tokens": first(ins, *_AUDIO),
        "input_image_tokens": first(ins, *_IMAGE),
        "cache_read_audio_tokens": inner(ins, "cached_tokens_details").get("audio_tokens"),
        **ttl_split(ins),
    }


def _add_what_stands_apart(counts: Counts, total: object, provider: str | None) -> None:
    """Add reasoning that LangChain's OpenAI client copied from providers that count it separately from the output."""
    generated, left = parse_token_count(counts["output_tokens"]), rest(total, counts["input_tokens"])
    thought = parse_token_count(counts.get("reasoning_tokens"))
    if generated is None or left is None:
        return
    if thought and (left == generated + thought or (left == generated and provider == "perplexity")):
        counts["output_tokens"] = generated + thought
    elif left > generated and provider is not None and provider.startswith("gcp."):
        counts["output_tokens"] = None  # thoughts, or tool prompts: the total alone does not distinguish them


def _beside(usage: Fields) -> Counts:
    """Read details beside the totals, by the names of pydantic-ai, agent-framework, OpenTelemetry and genai-prices."""
    return {
        "cache_read_tokens": first(usage, "cache_read_tokens", "cache_read_input_token_count"),
        "cache_write_tokens": first(usage, "cache_write_tokens", "cache_creation_input_token_count"),
        "cache_write_5m_tokens": usage.get("cache_write_5m_tokens"),
        "cache_write_1h_tokens": usage.get("cache_write_1h_tokens"),
        "input_audio_tokens": first(usage, "input_audio_tokens", "prompt/audio_tokens"),
        "input_image_tokens": usage.get("input_image_tokens"),
        "reasoning_tokens": first(usage, "reasoning_tokens", "output_reasoning_tokens", "reasoning_output_token_count"),
        "output_audio_tokens": first(usage, "output_audio_tokens", "completion/audio_tokens"),
        "output_image_tokens": usage.get("output_image_tokens"),
        "cache_read_audio_tokens": first(usage, "cache_audio_read_tokens", "cache_read_audio_tokens"),
    }


SHAPE = Shape(
    "inclusive",
    read,
    marks="input_tokens output_tokens input_token_count output_token_count",
    usage_keys="usage_metadata token_usage usage_details",
    wrappers="result results details generations generation_info response_metadata llm_output raw",
    event_keys="usage_metadata usage_details contents details generations",
)
