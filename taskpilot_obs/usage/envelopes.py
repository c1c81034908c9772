"""Interprets the envelopes of usage objects: bodies, events, and their transports and wrappers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, Final

from taskpilot_obs.usage.fields import NOTHING, Fields, fields, first, inner, items, text
from taskpilot_obs.usage.shapes import PROOFS
from taskpilot_obs.usage.values import StatedError, parse_token_count

MODEL_KEYS: Final = ("model", "model_name", "modelVersion", "model_version", "model_id", "modelId")
ID_KEYS: Final = ("id", "response_id", "responseId", "generation_id", "provider_response_id")
REASON_KEYS: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason", "completionReason", "finishReason")
TIER_KEYS: Final = ("service_tier", "serviceTier")
PROVIDER_KEYS: Final = ("model_provider", "provider_name")
CHOICE_KEYS: Final = ("choices", "candidates", "results", "outputs")
FEEDBACK_KEYS: Final = ("promptFeedback", "prompt_feedback")
"""Keys under which Gemini states why it generated nothing."""
_BESIDE_ERROR: Final = frozenset({"error", "error_type", "status", "code", "type", "detail", "message", "request_id"})
_NOT_STATED: Final = StatedError()
_HTTP_ERRORS: Final = range(400, 600)
EMBEDDING_KEYS: Final = ("embeddings", "embedding", "embeddingsByType", "predictions")

_LONGEST_BODY: Final = 1_000_000
"""Maximum length of a text that is decoded on the caller's thread; longer texts are answers, not bodies."""
BATCH_KEYS: Final = ("custom_id", "recordId", "processed_time")
"""Keys of a line of batch results: OpenAI, Anthropic and Mistral; Bedrock; Vertex."""
_BILLED_TOOLS: Final = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "x_search_call",
        "google_search_call",
        "google_maps_call",
    }
)
_SEARCHES: Final = (
    *("webSearchQueries", "web_search_queries", "imageSearchQueries", "image_search_queries"),
    *("retrievalQueries", "retrieval_queries"),
    *("googleMapsWidgetContextToken", "google_maps_widget_context_token"),
)
_BILLERS: Final = (("msg_bdrk_", "aws.bedrock"), ("msg_vrtx_", "gcp.vertex_ai"))
_OWN_IDS: Final = ("run-", "lc_")
_ASKED_FOR: Final = tuple(
    dict.fromkeys(
        (
            *MODEL_KEYS,
            *ID_KEYS,
            *REASON_KEYS,
            *TIER_KEYS,
            *PROVIDER_KEYS,
            *CHOICE_KEYS,
            *EMBEDDING_KEYS,
            *FEEDBACK_KEYS,
            *BATCH_KEYS,
            "content_block",
            "contents",
            "output",
            "steps",
            "data",
            "incomplete_details",
            "error",
            "type",
        )
    )
)


def opened(event: object) -> Fields | None:
    """Return the fields of a body or an event, unwrapped from its transport.

    Transports are JSON text, a line of a stream, an event object with data (Mistral's SDK, clients of event streams),
    and Bedrock's chunk.
    """
    found = fields(event)
    if found is None:
        return _decoded(event) if isinstance(event, (str, bytes, bytearray)) else None
    data = found.get("data")
    if data is not None and not isinstance(data, (list, tuple)) and found.get("usage") is None:
        return (_decoded(data) if isinstance(data, (str, bytes, bytearray)) else fields(data)) or found
    chunk = found.get("chunk")
    carrier = (fields(chunk) or NOTHING) if chunk is not None else found
    payload = carrier.get("bytes")
    if payload is None:
        return carrier if carrier.get("choices") is not None else found  # OpenAI's stream helper wraps its chunks
    if isinstance(payload, str):
        payload = _from_base64(payload)
    return (_decoded(payload) if isinstance(payload, (bytes, bytearray)) else None) or found


def _from_base64(payload: str) -> bytes | None:
    if len(payload) > _LONGEST_BODY:
        return None
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return None


def _decoded(payload: str | bytes | bytearray) -> Fields | None:
    """Decode a JSON text or a `data:` line; None for any other text, and for texts that are too long."""
    if len(payload) > _LONGEST_BODY:
        return None
    if isinstance(payload, (bytes, bytearray)):
        payload = payload.decode("utf-8", "replace")
    line = payload.strip().removeprefix("data:").strip()
    if not line.startswith("{"):
        return None
    try:
        return fields(json.loads(line))
    except (ValueError, RecursionError):
        return None


_LONGEST_DONE: Final = 16
"""Characters of a line that may be a bare `[DONE]`: a longer one is not worth a copy."""


def is_framing(line: str) -> bool:
    """Whether a text is framing of an event stream instead of a piece of an answer."""
    is_last = len(line) <= _LONGEST_DONE and line.strip() == "[DONE]"
    return is_last or line.startswith(("data:", "event:", "id:", "retry:", ":"))


def events_of(response: object) -> Iterable[object]:
    """Split a response into events: a list or a text with many lines is a stream, anything else is one event.

    A list of finished messages is not a response: each was recorded on arrival, and agents pass them on repeatedly.
    """
    if isinstance(response, (str, bytes, bytearray)) and opened(response) is None:
        return _lines(response)
    if isinstance(response, list):
        return [event for event in response if not _finished_message(event)]
    return (response,)


def _lines(text: str | bytes | bytearray) -> Iterable[object]:
    """The lines of a text that may be a stream; empty if it contains no object, or is too long."""
    if len(text) > _LONGEST_BODY:
        return ()
    begun = "{" in text if isinstance(text, str) else b"{" in text
    return text.splitlines() if begun else ()


def _finished_message(event: object) -> bool:
    """Whether this is a message of LangChain or pydantic-ai."""
    found = fields(event) or NOTHING
    if found.get("kind") == "response" and found.get("parts") is not None:
        return True
    return found.get("response_metadata") is not None and not is_chunk(event)


def is_chunk(event: object) -> bool:
    """Whether this is a message chunk of LangChain, whose counts are increments."""
    if type(event) is dict:
        return event.get("type") == "AIMessageChunk"
    return type(event).__name__.endswith("MessageChunk")


def entries(layer: Fields) -> Iterable[tuple[str, Any]]:
    """The names and values of a layer; for an object with properties, only those that the readers use."""
    if isinstance(layer, dict):
        return layer.items()
    return [(key, layer.get(key)) for key in _ASKED_FOR]


def are_embeddings(data: object) -> bool:
    """Whether the `data` of a list object are embeddings, which have no output tokens."""
    return isinstance(data, (list, tuple)) and bool(data) and (fields(data[0]) or NOTHING).get("embedding") is not None


_NO_SUCH_KEY: Final = "taskpilot_obs_no_such_key"


def proven_by(layer: Fields) -> str | None:
    """The provider that a body proves by a key that only one provider writes, or by its structure."""
    if layer.get(_NO_SUCH_KEY) is not None:  # a mock has every attribute, and proves nothing
        return None
    for key, provider in PROOFS.items():
        if layer.get(key) is not None:
            return provider
    if layer.get("provider") is not None and (text(layer.get("id")) or "").startswith("gen-"):
        return "openrouter"
    if layer.get("role") == "assistant" and layer.get("type") == "message" and layer.get("model") is not None:
        return "anthropic"
    return None


def id_of(value: object) -> str | None:
    """The ID if it comes from the provider, because LangChain gives messages IDs of its own."""
    name = text(value)
    return None if name is None or name.startswith(_OWN_IDS) else name


def billed_by(response_id: str | None) -> str | None:
    """The provider that an ID proves: IDs of Anthropic's models state if Bedrock or Vertex serves them."""
    return (
        None if response_id is None else next((name for start, name in _BILLERS if response_id.startswith(start)), None)
    )


def is_batch_status(body: Fields) -> bool:
    """Whether a body states how a whole batch (OpenAI, Mistral, Gemini, Vertex) stands: its lines are booked apart."""
    name = text(body.get("name")) or ""
    return body.get("object") == "batch" or name.startswith("batches/") or "/batchPredictionJobs/" in name


def is_batch_line(body: Fields) -> bool:
    """Whether a body is a line of Gemini's batch results, which has the key that the request was given."""
    keyed = body.get("key") is not None or inner(body, "metadata").get("key") is not None
    return keyed and first(inner(body, "response"), "usageMetadata", "usage_metadata") is not None


def used_tools(output: object) -> bool:
    """Whether items of a response are uses of tools that the provider bills separately from tokens."""
    return any(item.get("type") in _BILLED_TOOLS for item in items(output))


def searched(choices: object) -> bool:
    """Whether Gemini grounded an answer by searches, which it bills per search."""
    return any(_is_grounded(inner(choice, "groundingMetadata", "grounding_metadata")) for choice in items(choices))


def _is_grounded(grounds: Fields) -> bool:
    """Whether the grounds of an answer name a search of the web, of images, of a corpus or of maps."""
    return any(grounds.get(key) for key in _SEARCHES)


def tier_of(value: object) -> str | None:
    """Read a service tier, which Bedrock wraps in an object."""
    tier = text(value) or text((fields(value) or NOTHING).get("type"))
    return tier.lower() if tier is not None else None


def error_of(layer: Fields) -> StatedError | None:
    """The error that a layer states: under `error` as an object (or as the only text), or by its type."""
    stated = layer.get("error")
    if stated is None and layer.get("type") == "error":
        stated = layer
    elif isinstance(stated, str):
        alone = isinstance(layer, dict) and _BESIDE_ERROR.issuperset(layer)
        return StatedError(message=stated) if alone and stated else None
    body = fields(stated)
    within = None if body is None else fields(body.get("error"))
    body = body if within is None else within  # Anthropic's error, or a batch line's error in its result
    if body is None:
        return None
    numbers = (body.get(key) for key in ("code", "status", "status_code", "http_status"))
    codes = (text(body.get(key)) for key in ("code", "type", "status"))
    error = StatedError(
        next((number for number in map(parse_token_count, numbers) if number in _HTTP_ERRORS), None),
        " ".join(code for code in codes if code is not None),
        text(body.get("message")) or "",
    )
    return None if error == _NOT_STATED else error


def reasons_of(choices: object) -> tuple[str, ...]:
    """The finish reasons, one per choice."""
    stated = (text(first(choice, *REASON_KEYS)) for choice in items(choices))
    return tuple(reason for reason in stated if reason is not None)


def ends_choice(choices: object) -> bool:
    """Whether a chunk of OpenAI ends a choice."""
    if not isinstance(choices, (list, tuple)):
        return False
    return any((fields(choice) or NOTHING).get("finish_reason") is not None for choice in choices)
