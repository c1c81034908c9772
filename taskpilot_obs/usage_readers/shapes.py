"""The shapes in which providers state counts, and what each includes.

Each reader takes the fields of one usage object and returns the arguments of `from_counts`: inclusive totals, subset
details. What a provider counts outside of its total is added here, and only here.

| shape | input states | output states |
| --- | --- | --- |
| OpenAI chat and what imitates it | all | all, but for xAI and Perplexity: reasoning outside |
| OpenAI responses, LangChain, pydantic-ai, OpenTelemetry | all | all |
| Anthropic | uncached only; cache reads and writes outside | all |
| Bedrock | uncached only; cache reads and writes outside | all |
| Gemini | prompt with cache; tool use outside | candidates; thoughts outside |
| Cohere | billed units, not the tokens consumed | billed units |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taskpilot_obs.usage_readers.fields import NOTHING, Fields, fields, first, inner, items, text
from taskpilot_obs.usage_types import Usage, count, from_counts

Counts = dict[str, Any]

_TIERS: Final = ("flex", "priority")
_AUDIO: Final = frozenset({"AUDIO", "4"})
_IMAGE: Final = frozenset({"IMAGE", "2"})
_NOTHING_STATED: Final = Usage()


def read_counts(usage: Fields, provider: str | None = None) -> tuple[Usage | None, bool]:
    """The usage that this object states, None where no shape fits or it says nothing; and whether it is inconsistent."""
    for marks, reader in _SHAPES:
        if any(_stated(usage.get(mark)) for mark in marks):
            found, inconsistent = from_counts(**reader(usage, provider))
            return (None if found == _NOTHING_STATED else found), inconsistent
    return None, False


def named_tier(usage: Fields) -> str | None:
    """The service tier that a usage object names, or that LangChain wrote into the names of the details."""
    if text(usage.get("speed")) == "fast":
        return "fast"
    stated = text(first(usage.get("service_tier"), usage.get("serviceTier"), usage.get("service_tier_used")))
    if stated is not None:
        return stated.lower()
    traffic = text(first(usage.get("trafficType"), usage.get("traffic_type")))
    details = inner(usage, "input_token_details")
    for tier in _TIERS:
        if (traffic is not None and traffic.lower().endswith(tier)) or details.get(tier) is not None:
            return tier
    return None


def read_embedding_counts(usage: Fields) -> tuple[Usage | None, bool]:
    """The same for a response of embeddings: all is input, and nothing is generated."""
    found, inconsistent = read_counts(usage)
    if found is None:
        total = count(usage.get("total_tokens"))
        return (None if total is None else Usage(total, 0)), inconsistent
    return (found if found.output_tokens is not None else found._replace(output_tokens=0)), inconsistent


def _stated(value: object) -> bool:
    return value is not None and (isinstance(value, (str, int, float)) or fields(value) not in (None, NOTHING))


def _plus(base: object, *added: object) -> object:
    """`base` with what is counted outside of it; a base that is no count stays what it is, to be refused."""
    known = count(base)
    return base if known is None else known + sum(count(part) or 0 for part in added)


def _rest(total: object, *parts: object) -> int | None:
    """What of `total` the parts leave over."""
    whole, known = count(total), [count(part) for part in parts]
    if whole is None or None in known:
        return None
    return max(0, whole - sum(part or 0 for part in known))


def _adds_up(total: object, *parts: object) -> bool:
    """Whether the provider's own total is the sum of these."""
    known = [count(part) for part in parts]
    return None not in known and count(total) == sum(part or 0 for part in known)


def _detail(details: Fields, *names: str) -> object:
    """A detail of LangChain's or OpenAI's, whose name a service tier may precede (`flex_cache_read`)."""
    spellings = (f"{prefix}{name}" for name in names for prefix in ("", *(f"{tier}_" for tier in _TIERS)))
    return first(*(details.get(spelling) for spelling in spellings))


def _chat(usage: Fields, provider: str | None) -> Counts:
    given, generated, total = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
    ins = inner(usage, "prompt_tokens_details", "prompt_token_details", "input_tokens_details")
    outs = inner(usage, "completion_tokens_details", "completion_token_details", "output_tokens_details")
    reasoning = first(outs.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    return {
        "input_tokens": given,
        "output_tokens": _generated(usage, generated, reasoning, provider, _rest(total, given)),
        "cache_read_tokens": first(
            ins.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),
            usage.get("cached_tokens"),
            usage.get("cache_read_input_tokens"),
            usage.get("cached_prompt_tokens"),
            usage.get("cached_prompt_text_tokens"),
        ),
        "cache_write_tokens": first(
            ins.get("cache_write_tokens"),
            ins.get("cache_creation_tokens"),
            ins.get("cache_creation_input_tokens"),
            usage.get("cache_creation_input_tokens"),
        ),
        **_ttl_split(first(ins.get("cache_creation"), usage.get("cache_creation"))),
        "input_audio_tokens": first(ins.get("audio_tokens"), usage.get("prompt_audio_tokens")),
        "input_image_tokens": first(ins.get("image_tokens"), usage.get("prompt_image_tokens")),
        "reasoning_tokens": reasoning,
        "output_audio_tokens": outs.get("audio_tokens"),
        "output_image_tokens": outs.get("image_tokens"),
        "cache_read_audio_tokens": inner(ins, "cached_tokens_details").get("audio_tokens"),
    }


def _generated(usage: Fields, stated: object, reasoning: object, provider: str | None, rest: int | None) -> object:
    """Every generated token of a chat completion, also where a provider leaves its reasoning out of them."""
    known, thought = count(stated), count(reasoning)
    if stated is None:
        return rest
    if known is None or rest is None:
        return stated
    if thought and rest == known + thought:
        return rest  # xAI: the total says that reasoning is not within
    if thought and thought > known and usage.get("reasoning_tokens") is not None:
        return known + thought  # Perplexity's deep research: beside, and not even in the total
    if provider is not None and provider.startswith("gcp.") and rest > known:
        return rest  # Gemini behind OpenAI's interface: thoughts are in the total only
    return stated


def _inclusive(usage: Fields, _provider: str | None) -> Counts:
    ins = inner(usage, "input_tokens_details", "input_token_details")
    outs = inner(usage, "output_tokens_details", "output_token_details", "details")
    given = first(usage.get("input_tokens"), usage.get("input_token_count"))
    generated = first(usage.get("output_tokens"), usage.get("output_token_count"))
    total = first(usage.get("total_tokens"), usage.get("total_token_count"))
    split = _ttl_split(ins)
    written = first(
        _detail(ins, "cache_write_tokens", "cache_creation"),
        usage.get("cache_write_tokens"),
        usage.get("cache_creation_input_token_count"),
    )
    return {
        "input_tokens": given,
        "output_tokens": generated if generated is not None else _rest(total, given),
        "cache_read_tokens": first(
            _detail(ins, "cached_tokens", "cache_read"),
            usage.get("cache_read_tokens"),
            usage.get("cache_read_input_token_count"),
        ),
        "cache_write_tokens": written,
        "cache_write_5m_tokens": first(split["cache_write_5m_tokens"], usage.get("cache_write_5m_tokens")),
        "cache_write_1h_tokens": first(split["cache_write_1h_tokens"], usage.get("cache_write_1h_tokens")),
        "input_audio_tokens": first(_detail(ins, "audio", "audio_tokens"), usage.get("input_audio_tokens")),
        "input_image_tokens": first(_detail(ins, "image", "image_tokens"), usage.get("input_image_tokens")),
        "reasoning_tokens": first(
            _detail(outs, "reasoning", "reasoning_tokens", "thinking_tokens"),
            usage.get("reasoning_tokens"),
            usage.get("output_reasoning_tokens"),
            usage.get("reasoning_output_token_count"),
        ),
        "output_audio_tokens": first(_detail(outs, "audio", "audio_tokens"), usage.get("output_audio_tokens")),
        "output_image_tokens": first(_detail(outs, "image", "image_tokens"), usage.get("output_image_tokens")),
        "cache_read_audio_tokens": first(
            inner(ins, "cached_tokens_details").get("audio_tokens"), usage.get("cache_audio_read_tokens")
        ),
    }


def _anthropic(usage: Fields, _provider: str | None) -> Counts:
    if inner(usage, "input_tokens_details", "input_token_details") is not NOTHING:
        return _inclusive(usage, None)
    counts = _anthropic_call(usage)
    for step in items(usage.get("iterations")):
        if step.get("type") == "compaction":  # billed, and not in the totals
            more = _anthropic_call(step)
            counts = {name: _plus(value, more[name]) for name, value in counts.items()}
    return counts


def _anthropic_call(usage: Fields) -> Counts:
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    split = _ttl_split(usage.get("cache_creation"))
    if not written and any(split.values()):
        written = _plus(0, *split.values())
    return {
        "input_tokens": _plus(usage.get("input_tokens"), read, written),
        "output_tokens": usage.get("output_tokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        **split,
        "reasoning_tokens": inner(usage, "output_tokens_details").get("thinking_tokens"),
    }


def billed_elsewhere(usage: Fields) -> bool:
    """Whether a part of an Anthropic call ran on another model, at a rate that the call's own model does not tell."""
    steps = items(usage.get("iterations"))
    return any(text(step.get("type")) not in (None, "message", "compaction") for step in steps)


def _ttl_split(created: object) -> Counts:
    split = fields(created) or NOTHING
    return {
        "cache_write_5m_tokens": split.get("ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": split.get("ephemeral_1h_input_tokens"),
    }


def _bedrock(usage: Fields, _provider: str | None) -> Counts:
    given = first(usage.get("inputTokens"), usage.get("inputTokenCount"))
    generated = first(usage.get("outputTokens"), usage.get("outputTokenCount"))
    read = first(usage.get("cacheReadInputTokens"), usage.get("cacheReadInputTokenCount"))
    written = first(usage.get("cacheWriteInputTokens"), usage.get("cacheWriteInputTokenCount"))
    inclusive = _adds_up(first(usage.get("totalTokens"), usage.get("totalTokenCount")), given, generated)
    by_ttl = {text(part.get("ttl")): part.get("inputTokens") for part in items(usage.get("cacheDetails"))}
    return {
        "input_tokens": given if inclusive else _plus(given, read, written),
        "output_tokens": generated,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": by_ttl.get("5m"),
        "cache_write_1h_tokens": by_ttl.get("1h"),
    }


def _either(usage: Fields, *snake: str) -> object:
    """A count of Gemini's, which the API spells in camel case and the SDK with underscores."""
    for name in snake:
        head, *tail = name.split("_")
        value = first(usage.get(head + "".join(map(str.capitalize, tail))), usage.get(name))
        if value is not None:
            return value
    return None


def _gemini(usage: Fields, _provider: str | None) -> Counts:
    prompt = _either(usage, "prompt_token_count", "total_input_tokens")
    tools = _either(usage, "tool_use_prompt_token_count", "total_tool_use_tokens")
    answer = _either(
        usage, "candidates_token_count", "response_token_count", "generation_token_count", "total_output_tokens"
    )
    thoughts = _either(usage, "thoughts_token_count", "total_thought_tokens")
    total = _either(usage, "total_token_count", "total_tokens")
    return {
        "input_tokens": _plus(prompt, tools),
        "output_tokens": _plus(answer, thoughts)
        if answer is not None
        else first(_rest(total, prompt, tools or 0), thoughts),
        "cache_read_tokens": _either(usage, "cached_content_token_count", "total_cached_tokens"),
        "input_audio_tokens": _modality(_either(usage, "prompt_tokens_details"), _AUDIO),
        "input_image_tokens": _modality(_either(usage, "prompt_tokens_details"), _IMAGE),
        "reasoning_tokens": thoughts,
        "output_audio_tokens": _modality(
            _either(usage, "candidates_tokens_details", "response_tokens_details"), _AUDIO
        ),
        "output_image_tokens": _modality(
            _either(usage, "candidates_tokens_details", "response_tokens_details"), _IMAGE
        ),
        "cache_read_audio_tokens": _modality(_either(usage, "cache_tokens_details"), _AUDIO),
    }


def _modality(details: object, wanted: frozenset[str]) -> int | None:
    """The sum over one modality, which the API names, the SDK makes an enum, and protobuf a number; None where absent."""
    stated = [
        count(_either(part, "token_count")) or 0
        for part in items(details)
        if (text(part.get("modality")) or str(part.get("modality"))) in wanted
    ]
    return sum(stated) if stated else None


def _cohere(usage: Fields, _provider: str | None) -> Counts:
    billed = inner(usage, "billed_units")
    if billed.get("input_tokens") is None and billed.get("output_tokens") is None:
        billed = inner(usage, "tokens")
    return {"input_tokens": billed.get("input_tokens"), "output_tokens": billed.get("output_tokens")}


def _ollama(usage: Fields, _provider: str | None) -> Counts:
    return {"input_tokens": usage.get("prompt_eval_count"), "output_tokens": usage.get("eval_count")}


def _titan(usage: Fields, _provider: str | None) -> Counts:
    generated = [part.get("tokenCount") for part in items(usage.get("results"))]
    whole = _plus(0, *generated) if generated else usage.get("totalOutputTextTokenCount")
    return {"input_tokens": usage.get("inputTextTokenCount"), "output_tokens": whole}


_SHAPES: Final[tuple[tuple[tuple[str, ...], Callable[[Fields, str | None], Counts]], ...]] = (
    (("billed_units",), _cohere),
    (("prompt_tokens", "completion_tokens"), _chat),
    (("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "server_tool_use"), _anthropic),
    (("iterations",), _anthropic),
    (("input_tokens", "output_tokens", "input_token_count", "output_token_count"), _inclusive),
    (("inputTokens", "outputTokens", "inputTokenCount", "outputTokenCount"), _bedrock),
    (
        (
            "promptTokenCount",
            "prompt_token_count",
            "candidatesTokenCount",
            "candidates_token_count",
            "total_input_tokens",
            "totalTokenCount",
            "total_token_count",
        ),
        _gemini,
    ),
    (("prompt_eval_count", "eval_count"), _ollama),
    (("inputTextTokenCount", "totalOutputTextTokenCount"), _titan),
    (("tokens",), _cohere),
)
"""In the order in which they are tried: a usage object has the shape whose marks it carries first."""
