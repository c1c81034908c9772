"""What surrounds a usage object: the bodies and events that name the model, the tier, the id and the finish reasons."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, Final

from taskpilot_obs.usage_readers.fields import NOTHING, Fields, fields, first, inner, items, text

_MODEL_KEYS: Final = ("model", "model_name", "modelVersion", "model_version", "model_id", "modelId")
_ID_KEYS: Final = ("id", "response_id", "responseId", "generation_id")
_OWN_IDS: Final = ("run-", "lc_")
_REASON_KEYS: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason", "completionReason", "finishReason")
_HEADER_COUNTS: Final = {
    "inputTokens": "x-amzn-bedrock-input-token-count",
    "outputTokens": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokens": "x-amzn-bedrock-cache-write-input-token-count",
}
_WRAPPERS: Final = ("response", "message", "delta", "body", "response_metadata", "llm_output", "generation_info")
_PROOFS: Final = (
    ("x_groq", "groq"),
    ("usageMetadata", "gcp.gemini"),
    ("modelVersion", "gcp.gemini"),
    ("prompt_filter_results", "azure.ai.openai"),
    ("eval_count", "ollama"),
    ("inputTextTokenCount", "aws.bedrock"),
    ("amazon-bedrock-invocationMetrics", "aws.bedrock"),
    ("contentBlockDelta", "aws.bedrock"),
    ("stopReason", "aws.bedrock"),
)
"""Keys of a body that only one provider writes."""


def opened(event: object) -> Fields | None:
    """The fields of a body or an event, out of what carries it: JSON text, a line of an event stream, a Bedrock chunk."""
    found = fields(event)
    if found is None:
        return _decoded(event) if isinstance(event, (str, bytes, bytearray)) else None
    chunk = found.get("chunk")
    carrier = (fields(chunk) or NOTHING) if chunk is not None else found
    payload = carrier.get("bytes")
    if payload is None:
        return found
    if isinstance(payload, str):
        payload = _from_base64(payload)
    return (_decoded(payload) if isinstance(payload, (bytes, bytearray)) else None) or found


def _from_base64(payload: str) -> bytes | None:
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return None


def _decoded(payload: str | bytes | bytearray) -> Fields | None:
    """The object in a JSON text or in a `data:` line; None for any other text."""
    if isinstance(payload, (bytes, bytearray)):
        payload = payload.decode("utf-8", "replace")
    line = payload.strip().removeprefix("data:").strip()
    if not line.startswith("{"):
        return None
    try:
        return fields(json.loads(line))
    except (ValueError, RecursionError):
        return None


def is_framing(line: str) -> bool:
    """Whether a text is the framing of an event stream rather than a piece of an answer."""
    return line.startswith(("data:", "event:", "id:", "retry:", ":"))


def events_of(response: object) -> Iterator[object]:
    """A response as events: a list is that of a stream, a text with many lines too, and all else is one event.

    A list of finished messages is no response: each was booked when it came, and agents hand them on again and again.
    """
    if isinstance(response, (str, bytes, bytearray)) and opened(response) is None:
        yield from response.splitlines()
    elif isinstance(response, list):
        yield from (event for event in response if not _finished_message(event))
    else:
        yield response


def _finished_message(event: object) -> bool:
    found = fields(event) or NOTHING
    return found.get("response_metadata") is not None and not is_chunk(event)


def is_chunk(event: object) -> bool:
    """Whether this is one of LangChain's message chunks, whose counts are made to be added up."""
    return type(event).__name__.endswith("MessageChunk") or (fields(event) or NOTHING).get("type") == "AIMessageChunk"


def layers(event: Fields, depth: int = 3) -> Iterator[Fields]:
    """The event and what it wraps, outermost first: `response.completed`, `message_start`, LangChain's results."""
    yield event
    if depth == 0:
        return
    for key in _WRAPPERS:
        found = inner(event, key)
        if found is not NOTHING:
            yield from layers(found, depth - 1)
    generation = _first_generation(event.get("generations"))
    if generation is not None:
        yield from layers(generation, depth - 1)


def _first_generation(generations: Any) -> Fields | None:
    """LangChain's first generation; the others of one call repeat its usage."""
    while isinstance(generations, (list, tuple)) and generations:
        generations = generations[0]
        if not isinstance(generations, (list, tuple)):
            return fields(generations)
    return None


def usages_of(layer: Fields) -> Iterator[Fields]:
    """The usage objects of one layer, the most telling first."""
    for key in ("usage", "usage_metadata", "usageMetadata", "token_usage"):
        found = inner(layer, key)
        if found is not NOTHING:
            yield found
    yield from (
        found
        for found in (
            inner(inner(layer, "x_groq"), "usage"),
            inner(inner(layer, "metadata"), "usage"),
            inner(layer, "meta"),
            inner(layer, "amazon-bedrock-invocationMetrics"),
            _from_headers(layer),
            _from_predictions(layer),
        )
        if found is not NOTHING
    )
    if layer.get("role") is None or layer.get("eval_count") is not None:
        yield layer


def _from_headers(layer: Fields) -> Fields:
    """Bedrock's counts in the headers of boto3's answer, the only place where `invoke_model` has them for all models."""
    headers = inner(inner(layer, "ResponseMetadata"), "HTTPHeaders")
    stated = {key: headers.get(header) for key, header in _HEADER_COUNTS.items()}
    counts = {key: int(value) for key, value in stated.items() if isinstance(value, str) and value.isdecimal()}
    return counts or NOTHING


def _from_predictions(layer: Fields) -> Fields:
    """Vertex' embeddings: a count beside each vector."""
    statistics = [
        inner(inner(prediction, "embeddings"), "statistics").get("token_count")
        for prediction in items(layer.get("predictions"))
    ]
    known = [int(value) for value in statistics if isinstance(value, (int, float)) and 0 <= value < float("inf")]
    return {"prompt_tokens": sum(known), "completion_tokens": 0} if known else NOTHING


def is_embedding(body: Fields) -> bool:
    """Whether a body holds embeddings, which have no output to count."""
    if any(body.get(key) is not None for key in ("embeddings", "embedding", "embeddingsByType", "predictions")):
        return True
    data = items(body.get("data"))
    return bool(data) and data[0].get("embedding") is not None


def model_of(layer: Fields) -> str | None:
    """The model that a layer names."""
    return next((name for key in _MODEL_KEYS if (name := text(layer.get(key)))), None)


def id_of(layer: Fields) -> str | None:
    """The response's id; LangChain's own for a message is none of the provider's."""
    names = (text(layer.get(key)) for key in _ID_KEYS)
    return next((name for name in names if name is not None and not name.startswith(_OWN_IDS)), None)


def provider_of(layer: Fields) -> str | None:
    """The provider that a layer proves by name or by a key that only one writes."""
    named = text(first(layer.get("model_provider"), layer.get("provider_name")))
    if named is not None:
        return named
    if text(layer.get("provider")) is not None and (text(layer.get("id")) or "").startswith("gen-"):
        return "openrouter"
    if layer.get("type") == "message" and layer.get("role") == "assistant" and layer.get("model") is not None:
        return "anthropic"
    return next((provider for key, provider in _PROOFS if layer.get(key) is not None), None)


def tier_of(layer: Fields) -> str | None:
    """The service tier that a layer names."""
    stated = first(layer.get("service_tier"), layer.get("serviceTier"))
    tier = text(stated) or (text(inner(layer, "serviceTier").get("type")) if stated is not None else None)
    return tier.lower() if tier is not None else None


def reasons_of(layer: Fields) -> tuple[str, ...]:
    """Why the generation ended, one reason a choice; `error` where a body with status 200 holds an error."""
    if layer.get("error"):
        return ("error",)
    candidates = first(layer.get("choices"), layer.get("candidates"), layer.get("results"))
    stated = [_reason(candidate) for candidate in items(candidates)] or [_reason(layer)]
    return tuple(reason for reason in stated if reason is not None)


def _reason(layer: Fields) -> str | None:
    incomplete = text(inner(layer, "incomplete_details").get("reason"))
    return incomplete or next((reason for key in _REASON_KEYS if (reason := text(layer.get(key)))), None)
