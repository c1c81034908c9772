"""What LangChain says of a model's answer: usage, model, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from taskpilot_obs.usage import Reading, Usage
from taskpilot_obs_langchain.dropped import (
    answering_model_is_unknown,
    is_answer,
    metadata_of,
    note_dropped,
    without_zeros,
)
from taskpilot_obs_langchain.models import plain
from taskpilot_obs_langchain.own_usage import adds_nothing

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult

    from taskpilot_obs.integration import LlmInvocation

Said = dict[str, Any]

_MERGED: Final = ("model_name", "model", "finish_reason", "stop_reason", "service_tier")
_PLAIN_USAGE: Final = frozenset(
    {"input_tokens", "output_tokens", "total_tokens", "input_token_details", "output_token_details"}
)
_PLAIN_ABOUT: Final = frozenset(
    {
        "created",
        "created_at",
        "finish_reason",
        "id",
        "logprobs",
        "model",
        "model_name",
        "object",
        "prompt_feedback",
        "safety_ratings",
        "service_tier",
        "stop_reason",
        "stop_sequence",
        "system_fingerprint",
        "token_usage",
        "usage",
    }
)
_COHERE: Final = "cohere"
_OWN_IDS: Final = ("run-", "lc_")


def note_answer(
    call: LlmInvocation, response: LLMResult, *, cacheable: bool, repeated: Mapping[str, Any] | None = None
) -> None:
    """Note an answer: of several generations the first, for each repeats the usage of the whole call.

    Args:
        call: the LLM call.
        response: its answer.
        cacheable: whether LangChain looked into a cache of its own first.
        repeated: the usage that a stream stated last, where it stated it with each chunk.
    """
    generations = response.generations
    generation = generations[0][0] if generations and generations[0] else None
    message = getattr(generation, "message", None)
    streamed = call.first_token_ns != 0
    if cacheable and not streamed:
        call.set_cached(cached=False)
    said = said_by(message, streamed=streamed)
    if said is not None:
        said["usage_metadata"] = without_zeros(corrected(call, said, repeated), message)
        # Without content, the zeros that the provider states elsewhere in the answer would be booked.
        said["content"] = is_answer(message)
        if answering_model_is_unknown(call, message, streamed=streamed):
            said["response_metadata"].pop("model_name")
            said["response_metadata"].pop("model", None)
    note_dropped(call, message, streamed=streamed)
    if said is None or call.span is None or call.provider is None or not _read_now(call, said):
        call.read_later(response if said is None else said)
    if generation is None:
        return
    call.output_length = len(generation.text)
    if call.callsite.runtime.redactor is not None:
        call.set_output(generation.text if message is None else plain([message]))


def lend_usage(call: LlmInvocation, response: LLMResult) -> None:
    """Give an answer's usage to the call of a layer above, which may not see the answer; what it reads itself wins."""
    generations = response.generations
    message = getattr(generations[0][0], "message", None) if generations and generations[0] else None
    said = said_by(message, streamed=call.streaming)
    if said is not None and call.usage is None:
        call.note_response(said)


def _read_now(call: LlmInvocation, said: Said) -> bool:
    """Read it for a span that ends now, the quick way; whether that was enough."""
    reading = quick_reading(said)
    if reading is None:
        return False
    call.record_reading(reading)
    return True


def note_partial_answer(
    call: LlmInvocation, response: LLMResult | None, repeated: Mapping[str, Any] | None = None
) -> None:
    """Keep the usage that a stream had stated before it broke; what the error itself brought is not looked at."""
    if response is None or not response.generations or not response.generations[0]:
        return
    message = getattr(response.generations[0][0], "message", None)
    said = said_by(message, streamed=True)
    if said is not None:
        said["usage_metadata"] = corrected(call, said, repeated)
        note_dropped(call, message, streamed=True)
        call.record_response(said)


def said_by(message: object, *, streamed: bool) -> Said | None:
    """What a message says of itself, for the reader of usage; None where it states no usage.

    Not who served it: LangChain names the protocol there, and that was known when the call began.
    """
    usage = getattr(message, "usage_metadata", None)
    if not isinstance(usage, Mapping):
        return None
    about = dict(metadata_of(message))
    protocol = about.pop("model_provider", None)
    if streamed:
        about.pop("token_usage", None)
        about.pop("usage", None)  # of one chunk, or of several put together
        if protocol == "anthropic" and usage.get("input_tokens") == 0:
            usage = {**usage, "input_tokens": None}  # stated in the first event, which LangChain does not read
        about.update({key: _once(about[key]) for key in _MERGED if key in about})
    return {"usage_metadata": usage, "response_metadata": about, "id": getattr(message, "id", None)}


def corrected(call: LlmInvocation, said: Said, repeated: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """LangChain's usage where it can be right; none where it is known to be another number than the one billed."""
    if repeated is not None:
        return repeated
    about = said["response_metadata"]
    if call.provider == _COHERE and not call.first_token_ns and "token_usage" not in about:
        about.pop("token_count", None)
        return {}  # the tokens that were consumed: its package drops how many of them are billed
    return cast("Mapping[str, Any]", said["usage_metadata"])


def _once(text: object) -> object:
    """A text that LangChain has put together from several chunks although each said all of it (`stopstop`)."""
    if isinstance(text, str) and len(text) > 1:
        period = (text + text).find(text, 1)
        return text[:period]
    return text


# --- the quick way ----------------------------------------------------------------------------------------------------


def quick_reading(said: Said) -> Reading | None:
    """What `taskpilot_obs.usage.read_response` reads, in a fifth of the time; None where only that one knows.

    That is the case as soon as anything is there that a plain answer does not have, or numbers do not fit.
    """
    usage, about = said["usage_metadata"], said["response_metadata"]
    if not usage.keys() <= _PLAIN_USAGE or not about.keys() <= _PLAIN_ABOUT:
        return None
    get = about.get
    model, other, reason, stopped, tier = (
        get("model_name"),
        get("model"),
        get("finish_reason"),
        get("stop_reason"),
        get("service_tier"),
    )
    if (model and other and model != other) or (reason and stopped):
        return None
    tokens, model, reason = _tokens(usage), model or other, reason or stopped
    if tokens is None or not (_is_text(model) and _is_text(reason) and _is_text(tier)):
        return None
    if not adds_nothing(usage, about, tokens):
        return None
    response_id = _provider_id(said["id"]) or _provider_id(get("id"))
    return Reading(
        tokens, model or None, None, tier.lower() if tier else None, response_id, (reason,) if reason else ()
    )


def _is_text(value: object) -> bool:
    return value is None or type(value) is str


def _provider_id(value: object) -> str | None:
    """An ID of the provider's; LangChain gives messages its own."""
    return value if type(value) is str and value and not value.startswith(_OWN_IDS) else None


def _tokens(usage: Mapping[str, Any]) -> Usage | None:
    """Counts that fit into each other; None for any others."""
    given, generated = usage.get("input_tokens"), usage.get("output_tokens")
    if type(given) is not int or type(generated) is not int or not (0 <= given < _MANY and 0 <= generated < _MANY):
        return None
    ins, outs = usage.get("input_token_details"), usage.get("output_token_details")
    return _detailed(given, generated, ins or {}, outs or {}) if ins or outs else Usage(given, generated)


def _detailed(given: int, generated: int, ins: Mapping[str, Any], outs: Mapping[str, Any]) -> Usage | None:
    if not ins.keys() <= _INPUT_DETAILS or not outs.keys() <= _OUTPUT_DETAILS:
        return None
    read, written, heard = ins.get("cache_read"), ins.get("cache_creation"), ins.get("audio")
    reasoned, spoken = outs.get("reasoning"), outs.get("audio")
    for number in (read, written, heard, reasoned, spoken):
        if number is not None and (type(number) is not int or number < 0):
            return None
    if (read or 0) + (written or 0) > given or (heard or 0) > given or max(reasoned or 0, spoken or 0) > generated:
        return None
    return Usage(given, generated, read, written, None, None, heard, reasoned, spoken)


_INPUT_DETAILS: Final = frozenset({"cache_read", "cache_creation", "audio"})
_OUTPUT_DETAILS: Final = frozenset({"reasoning", "audio"})
_MANY: Final = 10**9
