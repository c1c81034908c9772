"""Detects generated content in events of a stream; the first event with content is the first token."""

from __future__ import annotations

from typing import Any, Final

from taskpilot_obs.usage.fields import NOTHING, Fields, fields, inner, items, wrapped

_DELTA_ENDS: Final = (".delta", "_delta", "-delta", ".partial_image")
_COHERE_CONTENT: Final = frozenset(
    {"text-generation", "tool-calls-chunk", "tool-calls-generation", "citation-generation"}
)
_DELTA_PARTS: Final = ("content", "tool_calls", "reasoning_content", "reasoning", "function_call", "refusal", "audio")
_MESSAGE_PARTS: Final = ("content", "tool_call_chunks", "tool_calls", "thinking", "reasoning_content")
_GEMINI_PARTS: Final = ("text", "functionCall", "function_call", "inlineData", "inline_data", "executableCode")
_OUTPUTS: Final = ("output", "outputs", "steps", "raw_output", "parts")
_MESSAGE_TYPES: Final = frozenset({"AIMessageChunk", "ai", "message", "Generation", "ChatGeneration"})
_HOLDERS: Final = ("output", "generations")
"""What holds an answer's message: the body of Bedrock, the result of LangChain."""
_TEXTS: Final = ("response", "text", "outputText", "generation", "completion", "contentBlockDelta", "token")


def has_content(event: Fields) -> bool:
    """Whether the event carries generated text, reasoning, audio or a piece of a tool call."""
    choices = event.get("choices")
    if choices is not None:
        return _choice_has_content(choices)
    contents = event.get("contents")
    if type(contents) is list:
        return any(_is_generated(part) for part in items(contents))
    kind = event.get("type") or event.get("event_type") or event.get("event")
    if isinstance(kind, str) and kind not in _MESSAGE_TYPES:
        return _typed_has_content(kind, event)
    candidates = event.get("candidates")
    if candidates is not None:
        return _candidate_has_content(candidates)
    if event.get("contentBlockIndex") is not None:
        return bool(event.get("delta"))
    return _untyped_has_content(event)


def has_answer(body: Fields) -> bool:
    """Whether a whole response, or an event, carries generated content."""
    if has_content(body):
        return True
    whole = fields(body.get("response"))  # of the last event of a stream of OpenAI
    if whole is not None and whole is not body:
        body = whole
    outputs = (part for key in _OUTPUTS for part in items(body.get(key)))
    if any(part.get(key) for part in outputs for key in ("content", "text", "arguments", "args", "summary")):
        return True
    return any(has_content(held) for key in _HOLDERS if (held := wrapped(body.get(key))) is not None)


def _choice_has_content(choices: Any) -> bool:
    choice = _head(choices)
    if choice is None:
        return False
    delta = inner(choice, "delta", "message")
    return any(delta.get(key) for key in _DELTA_PARTS) or bool(choice.get("text"))


def _untyped_has_content(event: Fields) -> bool:
    if any(event.get(key) for key in _MESSAGE_PARTS) or any(event.get(key) for key in _TEXTS):
        return True
    message = inner(event, "message")
    return any(message.get(key) for key in _MESSAGE_PARTS)


def _is_generated(part: Fields) -> bool:
    """Whether a part of an update of agent-framework is text, reasoning or a piece of a tool call."""
    return bool(part.get("text") or part.get("arguments"))


def _typed_has_content(kind: str, event: Fields) -> bool:
    if kind in _COHERE_CONTENT:
        return True
    if kind in ("content_block_start", "content-block-start"):
        return inner(event, "content_block", "content").get("type") not in (None, "text", "thinking", "reasoning")
    return kind.endswith(_DELTA_ENDS) and kind not in ("message_delta", "message-delta")


def _candidate_has_content(candidates: Any) -> bool:
    parts = inner(_head(candidates) or NOTHING, "content").get("parts")
    return any(part.get(key) for part in items(parts) for key in _GEMINI_PARTS)


def _head(values: Any) -> Fields | None:
    return fields(values[0]) if isinstance(values, (list, tuple)) and values else None
