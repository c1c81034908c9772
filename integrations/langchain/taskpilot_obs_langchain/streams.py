"""Streams that state their usage more than once: LangChain adds up what was meant to replace.

Servers that imitate OpenAI's state the counts so far with each chunk, or the final ones with the last two. Looking at
every chunk would cost more than all else that is done for it, so that is done only from the first that states usage,
which is looked for in the first chunk of a stream and in those without text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.messages.ai import add_usage

from taskpilot_obs_langchain.dropped import metadata_of
from taskpilot_obs_langchain.runs import StreamedUsage

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

    from taskpilot_obs_langchain.runs import RunRegistry

_ADDED_UP: Final = frozenset({"google_genai", "google_vertexai", "perplexity"})
"""Whose packages subtract what was stated before, as LangChain wants it."""


def look(runs: RunRegistry, key: int, chunk: Any) -> None:
    """Note the usage that a chunk states, if it does: with the same input it replaces, with another it adds."""
    message = getattr(chunk, "message", None)
    told = getattr(message, "usage_metadata", None)
    if not isinstance(told, Mapping):
        return
    usage = cast("UsageMetadata", told)
    before = runs.stated.get(key)
    if before is None:
        if key in runs and metadata_of(message).get("model_provider") not in _ADDED_UP:
            runs.stated[key] = StreamedUsage(usage, usage, repeats=False)
    elif usage is not before.last:
        if usage["input_tokens"] and usage["input_tokens"] == before.last["input_tokens"]:
            runs.stated[key] = StreamedUsage(usage, usage, repeats=True)
        else:
            runs.stated[key] = StreamedUsage(usage, add_usage(before.usage, usage), before.repeats)


def repeated(runs: RunRegistry, key: int) -> UsageMetadata | None:
    """The usage of a stream that stated it more than once; None where the sum that LangChain made is right."""
    stated = runs.stated.get(key)
    return stated.usage if stated is not None and stated.repeats else None
