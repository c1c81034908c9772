"""Streams that state their usage again with each chunk: LangChain adds up what was meant to replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages.ai import add_usage

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

_ADDED_UP: Final = frozenset({"google_genai", "google_vertexai", "perplexity"})
"""Whose packages subtract what was stated before, as LangChain wants it."""


def begin(repeating: dict[int, UsageMetadata], key: int, chunk: Any) -> None:
    """Look at a stream's first chunk: one that states usage belongs to a stream that will state it again."""
    message = getattr(chunk, "message", None)
    usage = getattr(message, "usage_metadata", None)
    about = getattr(message, "response_metadata", None)
    if usage is not None and (not about or about.get("model_provider") not in _ADDED_UP):
        repeating[key] = usage


def follow(repeating: dict[int, UsageMetadata], key: int, chunk: Any) -> None:
    """Keep what such a stream states last; usage with another input, or none, was made to be added."""
    before = repeating.get(key)
    usage = getattr(getattr(chunk, "message", None), "usage_metadata", None)
    if before is None or usage is None:
        return
    again = usage["input_tokens"] and usage["input_tokens"] == before["input_tokens"]
    repeating[key] = usage if again else add_usage(before, usage)
