"""What LangChain's packages leave out of what a provider stated, by provider and way of calling.

A number that was left out may have been billed at a rate of its own. It is looked for where the package keeps the
provider's own words; where it is nowhere, the cost counts as partial. The table in `docs/langchain.md` is made from
`WAYS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs.semconv import PriceGap

if TYPE_CHECKING:
    from taskpilot_obs.integration import LlmInvocation


class Way(NamedTuple):
    """One provider's answers through one of LangChain's classes, streamed or whole."""

    model_class: str
    providers: tuple[str, ...]
    streamed: bool
    dropped: tuple[str, ...]
    """Fields of `Usage` that are not handed on."""
    cost_dropped: bool = False
    """Whether the provider states a cost that is not handed on."""


_BESIDE: Final = ("cache_read_tokens", "cache_write_tokens")
_TTL: Final = ("cache_write_1h_tokens",)
WAYS: Final = (
    Way("ChatAnthropic", ("anthropic",), streamed=True, dropped=_TTL),
    Way("ChatBedrockConverse", ("aws.bedrock",), streamed=True, dropped=_TTL),
    Way("ChatBedrockConverse", ("aws.bedrock",), streamed=False, dropped=_TTL),
    Way("ChatMistralAI", ("mistral_ai",), streamed=True, dropped=("cache_read_tokens", "input_audio_tokens")),
    Way("ChatOpenAI", ("deepseek",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("moonshotai",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("together",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("databricks",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("litellm", "openai_compatible"), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("groq",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("fireworks",), streamed=True, dropped=_BESIDE),
    Way("ChatOpenAI", ("perplexity",), streamed=True, dropped=(*_BESIDE, "reasoning_tokens"), cost_dropped=True),
    Way("ChatOpenAI", ("x_ai",), streamed=True, dropped=_BESIDE, cost_dropped=True),
    Way("ChatOpenAI", ("openrouter",), streamed=True, dropped=_BESIDE, cost_dropped=True),
    Way("ChatOpenAI", ("deepinfra",), streamed=True, dropped=_BESIDE, cost_dropped=True),
)
"""Every way that loses something. What is not named here hands on all that has a price."""
_BY_PROVIDER: Final = {(name, way.streamed): way for way in WAYS for name in way.providers}
_OPENAIS: Final = frozenset({"openai", "azure.ai.openai"})
_GATEWAY: Final = next(way for way in WAYS if "litellm" in way.providers)
_BILLED_BLOCKS: Final = frozenset(
    {
        "server_tool_use",
        "web_search_tool_result",
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
    }
)
_SEARCHES: Final = (
    "web_search_queries",
    "image_search_queries",
    "retrieval_queries",
    "google_maps_widget_context_token",
)
"""What Gemini's grounds of an answer name, where it searched for them."""
_MISTRAL: Final = "mistral_ai"
ANTHROPIC: Final = "anthropic"
_NO_SURCHARGE: Final = (None, "", "global", "standard")


def gap_asked_for(params: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """What a request to Anthropic asks for that costs more than its tokens: one of `semconv.PRICE_GAPS`, or None.

    ChatAnthropic's streams hand on neither the place nor the speed of the answer, nor which models its steps ran on.

    Args:
        params: the model's `invocation_params`.
        settings: the model's fields, as LangChain serialises them.
    """
    asked = {**_spread(settings), **_spread(params)}
    if asked.get("fallbacks"):
        return PriceGap.OTHER_MODEL
    if any(asked.get(name) not in _NO_SURCHARGE for name in ("inference_geo", "speed")):
        return PriceGap.SURCHARGE
    edits = (asked.get("context_management") or {}).get("edits") or ()
    return PriceGap.DETAILS_DROPPED if any("compact" in str(edit.get("type")) for edit in edits) else None


def _spread(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with those that pass through the classes of LangChain and of the SDK unnamed."""
    through = {**options, **(options.get("model_kwargs") or {})}
    return {**through, **(through.get("extra_body") or {})}


def note_asked(call: LlmInvocation, gap: str) -> None:
    """Note what was asked for where the answer came as a stream; a whole answer states what it was given."""
    if call.first_token_ns:
        call.note_gap(gap)


def note_dropped(call: LlmInvocation, message: object, *, streamed: bool) -> None:
    """Note what the package has left out of a provider's answer.

    Args:
        call: the LLM call.
        message: its answer.
        streamed: whether it came as a stream.
    """
    about = metadata_of(message)
    way = _BY_PROVIDER.get((call.provider or "", streamed))
    if way is None and streamed and about.get("model_provider") == "openai" and call.provider not in _OPENAIS:
        way = _GATEWAY
    if way is not None:
        call.note_dropped(*way.dropped)
        if way.cost_dropped:
            call.note_gap(PriceGap.DETAILS_DROPPED)
    gap = PriceGap.SERVER_TOOLS if _searched(about) else _gap_in(getattr(message, "content", None))
    if gap is not None:
        call.note_gap(gap)


def metadata_of(message: object) -> Mapping[str, Any]:
    """A message's `response_metadata`; nothing where it is something else than a mapping."""
    about = getattr(message, "response_metadata", None)
    return about if isinstance(about, Mapping) else {}


def _searched(about: Mapping[str, Any]) -> bool:
    """Whether Gemini grounded the answer by searches, which are billed apart."""
    grounds = about.get("grounding_metadata")
    return isinstance(grounds, Mapping) and any(grounds.get(key) for key in _SEARCHES)


def _gap_in(content: object) -> str | None:
    """Why the tokens are not the whole cost, judged by the blocks of an answer; streams hand on nothing else of it."""
    if type(content) is not list:
        return None
    kinds = {kind for part in content if isinstance(part, Mapping) and type(kind := part.get("type")) is str}
    if "fallback" in kinds:
        return PriceGap.OTHER_MODEL
    return PriceGap.SERVER_TOOLS if kinds & _BILLED_BLOCKS else None


def answering_model_is_unknown(call: LlmInvocation, message: object, *, streamed: bool) -> bool:
    """Whether the model that a message names is only the one asked for: ChatMistralAI repeats it in whole answers."""
    about = metadata_of(message)
    by_mistral = call.provider == _MISTRAL and about.get("model_provider") in (None, "mistralai")
    return by_mistral and not streamed and about.get("model_name") == call.request_model


def without_zeros(usage: Mapping[str, Any], message: object) -> Mapping[str, Any]:
    """LangChain's usage without the zeros that it puts where a provider stated nothing; an answer takes tokens."""
    if usage.get("output_tokens") and usage.get("input_tokens"):
        return usage
    if not is_answer(message):
        return usage
    stated = {key: usage.get(key) or None for key in ("input_tokens", "output_tokens")}
    return {**usage, **stated, "total_tokens": None}


def is_answer(message: object) -> bool:
    """Whether a message holds something that a model generated."""
    return bool(getattr(message, "content", None) or getattr(message, "tool_calls", None))
