"""The shapes in which providers state counts, and what each includes.

Each reader takes the fields of one usage object and returns the arguments of `from_counts`: inclusive totals, subset
details. What a provider counts outside of its total is added here, and only here.

| shape | input states | output states |
| --- | --- | --- |
| OpenAI chat and what imitates it | all | all, but for xAI, Perplexity, Gemini: reasoning outside |
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
Reader = Callable[[Fields, "str | None"], Counts]

_TIERS: Final = ("flex", "priority")
_AUDIO: Final = frozenset({"AUDIO", "4"})
_IMAGE: Final = frozenset({"IMAGE", "2"})
_COUNT_APART: Final = (("gemini", "gcp.gemini"), ("grok", "x_ai"), ("sonar", "perplexity"))
"""Models that count their reasoning apart behind OpenAI's interface too, whoever the caller says that he asked."""
TTL_KEYS: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
PROVISIONED: Final = "provisioned_throughput"
_NOTHING_STATED: Final = Usage()


def _with_tiers(*names: str) -> tuple[str, ...]:
    """LangChain's and OpenAI's spellings of a detail, which a service tier may precede (`flex_cache_read`)."""
    return tuple(prefix + name for prefix in ("", *(f"{tier}_" for tier in _TIERS)) for name in names)


_READ: Final = (*_with_tiers("cached_tokens", "cache_read"), "cache_read_input_tokens")
_WRITTEN: Final = (*_with_tiers("cache_write_tokens", "cache_creation"), "cache_creation_input_tokens")
_REASONING: Final = _with_tiers("reasoning", "reasoning_tokens", "thinking_tokens")
_AUDIO_DETAIL: Final = _with_tiers("audio", "audio_tokens")
_IMAGE_DETAIL: Final = _with_tiers("image", "image_tokens")


def read_counts(usage: Fields, provider: str | None = None) -> tuple[Usage | None, bool]:
    """The usage that an object states, None where no shape fits or it says nothing; and whether it is inconsistent."""
    reader = shape_of(usage)
    if reader is None:
        return None, False
    found, inconsistent = from_counts(**reader(usage, provider))
    return (None if found == _NOTHING_STATED else found), inconsistent


def read_embedding_counts(usage: Fields) -> tuple[Usage | None, bool]:
    """The same for a response of embeddings: all is input, and nothing is generated."""
    found, inconsistent = read_counts(usage)
    if found is None:
        stated = usage.get("total_tokens")
        total = count(stated)
        return (None if total is None else Usage(total, 0)), inconsistent or (stated is not None and total is None)
    return (found if found.output_tokens is not None else found._replace(output_tokens=0)), inconsistent


def counter_of(model: str | None) -> str | None:
    """Whose way of counting a model's name tells, where that is not OpenAI's."""
    return next((vendor for word, vendor in _COUNT_APART if word in model), None) if model else None


def shape_of(usage: Fields) -> Reader | None:
    """The reader for a usage object; None where it carries the marks of no shape."""
    marks = usage if isinstance(usage, dict) else _SHAPES
    best = _UNKNOWN
    for mark in marks:
        rank = _SHAPES.get(mark, _UNKNOWN)
        if rank < best and _stated(usage.get(mark)):
            best = rank
    return None if best == _UNKNOWN else _READERS[best]


def named_tier(usage: Fields) -> str | None:
    """The service tier that a usage object names, or that LangChain wrote into the names of the details."""
    if text(usage.get("speed")) == "fast":
        return "fast"
    stated = text(first(usage, "service_tier", "serviceTier", "service_tier_used"))
    if stated is not None:
        return stated.lower()
    traffic = text(first(usage, "trafficType", "traffic_type"))
    if traffic is not None and traffic.lower() == PROVISIONED:
        return PROVISIONED
    details = inner(usage, "input_token_details")
    for tier in _TIERS:
        if (traffic is not None and traffic.lower().endswith(tier)) or details.get(tier) is not None:
            return tier
    return None


def billed_elsewhere(usage: Fields) -> bool:
    """Whether a part of a call is billed at a rate that its own model's price for tokens does not tell.

    Anthropic runs a part on another model; Perplexity bills citations, Mistral seconds of audio and what its connectors
    read, on their own.
    """
    if usage.get("citation_tokens") or inner(usage, "output_token_details").get("citation_tokens"):
        return True
    if count(usage.get("prompt_audio_seconds")) or count(usage.get("connector_tokens")):
        return True
    steps = items(usage.get("iterations"))
    return any(text(step.get("type")) not in (None, "message", "compaction") for step in steps)


def _stated(value: object) -> bool:
    if isinstance(value, list):
        return bool(items(value[:1]))
    return value is not None and (isinstance(value, (str, int, float)) or fields(value) not in (None, NOTHING))


def _plus(base: object, *added: object) -> object:
    """`base` with what is counted outside of it; a base that is no count stays what it is, to be refused."""
    total = count(base)
    if total is None:
        return base
    for part in added:
        if part is not None:
            total += count(part) or 0
    return total


def _rest(total: object, *parts: object) -> int | None:
    """What of `total` the parts leave over."""
    left = count(total)
    for part in parts:
        known = count(part)
        if left is None or known is None:
            return None
        left -= known
    return None if left is None else max(0, left)


def _chat(usage: Fields, provider: str | None) -> Counts:
    given = usage.get("prompt_tokens")
    ins = inner(usage, "prompt_tokens_details", "prompt_token_details", "input_tokens_details")
    outs = inner(usage, "completion_tokens_details", "completion_token_details", "output_tokens_details")
    reasoning = outs.get("reasoning_tokens")
    counts = {
        "input_tokens": given,
        "output_tokens": _generated(usage, reasoning, provider),
        "cache_read_tokens": ins.get("cached_tokens"),
        "cache_write_tokens": first(ins, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
        "input_audio_tokens": ins.get("audio_tokens"),
        "input_image_tokens": ins.get("image_tokens"),
        "reasoning_tokens": reasoning,
        "output_audio_tokens": outs.get("audio_tokens"),
        "output_image_tokens": outs.get("image_tokens"),
    }
    for name, spellings in _BESIDE.items():
        if counts[name] is None:
            counts[name] = first(usage, *spellings)
    created = first(ins, "cache_creation", "cache_creation_token_details") or usage.get("cache_creation")
    if created is not None:
        counts |= _ttl_split(created)
    cached_details = inner(ins, "cached_tokens_details")
    if cached_details is not NOTHING:
        counts["cache_read_audio_tokens"] = cached_details.get("audio_tokens")
    return counts


_BESIDE: Final = {
    "cache_read_tokens": (
        "prompt_cache_hit_tokens",  # DeepSeek
        "cached_tokens",  # Moonshot, Together
        "cache_read_input_tokens",  # LiteLLM
        "cached_prompt_tokens",  # CrewAI
        "cached_prompt_text_tokens",  # xAI's own SDK
    ),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "reasoning_tokens": ("reasoning_tokens",),
}
"""Details that imitators of OpenAI state beside the totals. Mistral's `num_cached_tokens` was never billed for less."""


def _generated(usage: Fields, reasoning: object, provider: str | None) -> object:
    """Every generated token of a chat completion, also where a provider leaves its reasoning out of them."""
    stated, rest = usage.get("completion_tokens"), _rest(usage.get("total_tokens"), usage.get("prompt_tokens"))
    beside = count(usage.get("reasoning_tokens"))
    if stated is None or (rest == stated and not beside):
        return rest
    known, thought = count(stated), count(reasoning) or beside
    if known is None:
        return stated
    if thought and (rest == known + thought or (rest is None and provider == "x_ai")):
        return known + thought  # xAI: the total says that reasoning is not within
    if beside and (beside > known or (rest == known and provider == "perplexity")):
        return known + beside  # Perplexity's deep research: not even in the total
    if provider is not None and provider.startswith("gcp.") and rest is not None and rest > known:
        return rest  # Gemini behind OpenAI's interface: thoughts are in the total only
    return stated


def _inclusive(usage: Fields, provider: str | None) -> Counts:
    ins = inner(usage, "input_token_details", "input_tokens_details", "prompt_tokens_details")
    outs = inner(usage, "output_token_details", "output_tokens_details", "details")
    given, generated = (
        first(usage, "input_tokens", "input_token_count"),
        first(usage, "output_tokens", "output_token_count", "generated_token_count"),
    )
    counts = {
        "input_tokens": given,
        "output_tokens": generated if generated is not None else _rest(usage.get("total_tokens"), given),
    }
    if ins is not NOTHING:
        counts["cache_read_tokens"] = first(ins, *_READ)
        counts["cache_write_tokens"] = first(ins, *_WRITTEN)
        counts["input_audio_tokens"] = first(ins, *_AUDIO_DETAIL)
        counts["input_image_tokens"] = first(ins, *_IMAGE_DETAIL)
        counts["cache_read_audio_tokens"] = inner(ins, "cached_tokens_details").get("audio_tokens")
        counts |= _ttl_split(ins)
    if outs is not NOTHING:
        counts["reasoning_tokens"] = first(outs, *_REASONING)
        counts["output_audio_tokens"] = first(outs, *_AUDIO_DETAIL)
        counts["output_image_tokens"] = first(outs, *_IMAGE_DETAIL)
        _add_what_stands_apart(counts, usage.get("total_tokens"), provider)
    elif provider is not None and provider.startswith("gcp."):
        _add_what_stands_apart(counts, usage.get("total_tokens"), provider)
    if ins is NOTHING or outs is NOTHING:
        counts |= {name: value for name, value in _flat(usage).items() if counts.get(name) is None}
    return counts


def _add_what_stands_apart(counts: Counts, total: object, provider: str | None) -> None:
    """Reasoning that LangChain's OpenAI client took over beside the output, from those who count it apart."""
    generated, rest = count(counts["output_tokens"]), _rest(total, counts["input_tokens"])
    thought = count(counts.get("reasoning_tokens"))
    if generated is None or rest is None:
        return
    if thought and (rest == generated + thought or (rest == generated and provider == "perplexity")):
        counts["output_tokens"] = generated + thought
    elif rest > generated and provider is not None and provider.startswith("gcp."):
        counts["output_tokens"] = None  # thoughts, or the prompts of tools: the total alone does not tell


def _flat(usage: Fields) -> Counts:
    """Details beside the totals: pydantic-ai, agent-framework, OpenTelemetry's and genai-prices' names."""
    return {
        "cache_read_tokens": first(usage, "cache_read_tokens", "cache_read_input_token_count"),
        "cache_write_tokens": first(usage, "cache_write_tokens", "cache_creation_input_token_count"),
        "cache_write_5m_tokens": usage.get("cache_write_5m_tokens"),
        "cache_write_1h_tokens": usage.get("cache_write_1h_tokens"),
        "input_audio_tokens": usage.get("input_audio_tokens"),
        "input_image_tokens": usage.get("input_image_tokens"),
        "reasoning_tokens": first(usage, "reasoning_tokens", "output_reasoning_tokens", "reasoning_output_token_count"),
        "output_audio_tokens": usage.get("output_audio_tokens"),
        "output_image_tokens": usage.get("output_image_tokens"),
        "cache_read_audio_tokens": first(usage, "cache_audio_read_tokens", "cache_read_audio_tokens"),
    }


def _anthropic(usage: Fields, provider: str | None) -> Counts:
    if inner(usage, "input_tokens_details", "input_token_details") is not NOTHING:
        return _inclusive(usage, provider)
    counts = _anthropic_call(usage)
    for step in items(usage.get("iterations")):
        if step.get("type") == "compaction":  # billed, and not in the totals
            more = _anthropic_call(step)
            counts = {
                name: _plus(0 if value is None and more[name] is not None else value, more[name])
                for name, value in counts.items()
            }
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


def _ttl_split(created: object) -> Counts:
    split = fields(created) or NOTHING
    return {"cache_write_5m_tokens": split.get(TTL_KEYS[0]), "cache_write_1h_tokens": split.get(TTL_KEYS[1])}


def _bedrock(usage: Fields, _provider: str | None) -> Counts:
    given = first(usage, "inputTokens", "inputTokenCount")
    generated = first(usage, "outputTokens", "outputTokenCount")
    read = first(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = first(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    by_ttl = {text(part.get("ttl")): part.get("inputTokens") for part in items(usage.get("cacheDetails"))}
    return {
        "input_tokens": _plus(given, read, written),
        "output_tokens": generated,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": by_ttl.get("5m"),
        "cache_write_1h_tokens": by_ttl.get("1h"),
    }


def _gemini(usage: Fields, _provider: str | None) -> Counts:
    prompt = first(usage, "promptTokenCount", "prompt_token_count", "total_input_tokens")
    tools = first(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count", "total_tool_use_tokens")
    thoughts = first(usage, "thoughtsTokenCount", "thoughts_token_count", "total_thought_tokens")
    total = first(usage, "totalTokenCount", "total_token_count", "total_tokens")
    answer = first(usage, *_GEMINI_ANSWERS)
    rest = _rest(total, prompt, tools or 0)
    return {
        "input_tokens": _plus(prompt, tools),
        "output_tokens": _plus(answer, thoughts) if answer is not None else thoughts if rest is None else rest,
        "cache_read_tokens": first(
            usage, "cachedContentTokenCount", "cached_content_token_count", "total_cached_tokens"
        ),
        "input_audio_tokens": _modality(usage, _GEMINI_INPUTS, _AUDIO),
        "input_image_tokens": _modality(usage, _GEMINI_INPUTS, _IMAGE),
        "reasoning_tokens": thoughts,
        "output_audio_tokens": _modality(usage, _GEMINI_OUTPUTS, _AUDIO),
        "output_image_tokens": _modality(usage, _GEMINI_OUTPUTS, _IMAGE),
        "cache_read_audio_tokens": _modality(usage, _GEMINI_CACHED, _AUDIO),
    }


_GEMINI_ANSWERS: Final = (
    "candidatesTokenCount",
    "candidates_token_count",
    "responseTokenCount",  # the live API
    "response_token_count",
    "generation_token_count",  # Llama on Bedrock
    "total_output_tokens",  # the interactions API
)


_GEMINI_INPUTS: Final = (
    "promptTokensDetails",
    "prompt_tokens_details",
    "toolUsePromptTokensDetails",
    "tool_use_prompt_tokens_details",
)
_GEMINI_OUTPUTS: Final = (
    "candidatesTokensDetails",
    "candidates_tokens_details",
    "responseTokensDetails",
    "response_tokens_details",
)
_GEMINI_CACHED: Final = ("cacheTokensDetails", "cache_tokens_details")


def _modality(usage: Fields, keys: tuple[str, ...], wanted: frozenset[str]) -> int | None:
    """The sum over one modality, which the API names, the SDK makes an enum, and protobuf a number; None if absent."""
    stated = [
        count(first(part, "tokenCount", "token_count")) or 0
        for key in keys
        for part in items(usage.get(key))
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


def _tgi(usage: Fields, _provider: str | None) -> Counts:
    prefill = usage.get("prefill")
    given = usage.get("input_length")
    return {
        "input_tokens": given if given is not None or not isinstance(prefill, list) else len(prefill) or None,
        "output_tokens": usage.get("generated_tokens"),
    }


_MARKS: Final[tuple[tuple[Reader, str], ...]] = (
    (_cohere, "billed_units"),
    (_chat, "prompt_tokens completion_tokens"),
    (_anthropic, "cache_read_input_tokens cache_creation_input_tokens cache_creation server_tool_use iterations"),
    (_inclusive, "input_tokens output_tokens input_token_count output_token_count"),
    (_bedrock, "inputTokens outputTokens inputTokenCount outputTokenCount"),
    (
        _gemini,
        (
            "promptTokenCount prompt_token_count candidatesTokenCount candidates_token_count generation_token_count"
            " total_input_tokens totalTokenCount total_token_count"
        ),
    ),
    (_ollama, "prompt_eval_count eval_count"),
    (_titan, "inputTextTokenCount totalOutputTextTokenCount"),
    (_cohere, "tokens"),
    (_tgi, "generated_tokens"),
)
"""Each reader with the keys that mark its shape; where an object carries several marks, the first of these decides."""
_READERS: Final = tuple(reader for reader, _ in _MARKS)
_SHAPES: Final = {mark: rank for rank, (_, marks) in enumerate(_MARKS) for mark in marks.split()}
_UNKNOWN: Final = len(_MARKS)
