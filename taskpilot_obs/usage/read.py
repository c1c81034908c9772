"""Reads usage: `read_response` for a whole response, `StreamReader` for a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import Usage, install_usage_reader
from taskpilot_obs.usage.agent_results import agent_result
from taskpilot_obs.usage.fields import fields
from taskpilot_obs.usage.langchain import read_result
from taskpilot_obs.usage.shapes import read_embedding_counts
from taskpilot_obs.usage.streams import Stream
from taskpilot_obs.usage.values import UNREAD, Reading

if TYPE_CHECKING:
    from taskpilot_obs._support.counters import InternalCounters

_COMPONENT = "usage"


def read_response(
    response: object, *, provider: str | None = None, counters: InternalCounters | None = None
) -> Reading:
    """Read a provider's whole response: usage, model, provider, service tier, id and finish reasons.

    Args:
        response: a decoded body, the SDK's own object, a LangChain message or `LLMResult`, the result of an agent of
            agent-framework, pydantic-ai or openai-agents, a usage object alone, or the list of all events of a stream.
        provider: the provider, in any spelling; by default recognised by the shape.
        counters: counts what could not be read (`taskpilot_obs_internal_errors_total{where="usage"}`).

    Returns:
        A reading, whose `usage` is None if the response states none. Never raises, whatever is passed.
    """
    with guarded(_COMPONENT, counters):
        short = read_result(response, provider)
        if short is not None:
            return short
        stream = Stream(provider)
        summed = agent_result(response)
        if summed is None:
            stream.feed_all(response)
        else:
            stream.feed_result(summed)
        return stream.reading()
    return UNREAD


def embedding_usage(stated: object) -> Usage | None:
    """The usage that an embeddings call states alone, of which some providers give the total only; None where none."""
    found = fields(stated)
    return None if found is None else read_embedding_counts(found)[0]


class StreamReader:
    """Reads a provider's events as they pass, and keeps the last statement of each value.

    Later counts replace earlier ones, because providers repeat or correct them; only the counts of LangChain's chunks,
    which are increments, are added.

    Args:
        provider: whose events they are, where their shape does not tell.
        counters: counts events that cannot be read.
    """

    __slots__ = ("_guard", "_stream", "ends_at_reason", "is_empty")

    def __init__(self, provider: str | None = None, counters: InternalCounters | None = None) -> None:
        self._stream = Stream(provider)
        self.is_empty = True
        """Whether no event was read."""
        self.ends_at_reason = False
        """Whether nothing of interest follows the finish reason."""
        self._guard = guarded(_COMPONENT, counters)

    def feed(self, event: object) -> bool:
        """Read the next event; return whether it carries generated content (the first that does is the first token)."""
        self.is_empty = False
        with self._guard:
            return self._stream.feed(event)
        return False

    def reading(self) -> Reading:
        """Return what the stream has stated so far."""
        with self._guard:
            return self._stream.reading()
        return UNREAD


def _read_usage(response: object, provider: str | None) -> Usage | None:
    return read_response(response, provider=provider).usage


install_usage_reader(_read_usage)
