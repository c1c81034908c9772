"""Recognises what an agent framework returns for a whole run: a result whose usage sums the calls beneath it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from taskpilot_obs.usage.fields import Fields, fields, first, text
from taskpilot_obs.usage.values import parse_token_count

_PLAIN: Final = (dict, str, bytes, bytearray)
_COUNTED_CALLS: Final = ("requests", "successful_requests")
"""Keys under which the usage of an agent counts its calls: pydantic-ai and openai-agents; CrewAI."""


class AgentResult(NamedTuple):
    """The parts of an agent's result that the readers need."""

    usages: Sequence[object]
    """The usage objects to add: mostly one, which is a sum already."""
    calls: int
    """How many calls they sum; 0 for the answer of a chat client that called its model once."""
    last: object
    """The last response, which names the model and the finish reason."""


def agent_result(response: object) -> AgentResult | None:
    """Take the result of an agent's run apart; None for a response of a model."""
    if response is None or isinstance(response, _PLAIN):
        return None
    if isinstance(response, list):
        return _of_responses(response)
    return _of_openai_agents(response) or _of_pydantic_ai(response) or _of_agent_framework(response)


def _of_responses(responses: list[object]) -> AgentResult | None:
    """Read `RunResult.raw_responses` of the OpenAI Agents SDK."""
    if not (responses and hasattr(responses[0], "to_input_items") and hasattr(responses[0], "usage")):
        return None
    return AgentResult([getattr(each, "usage", None) for each in responses], len(responses), responses[-1])


def _of_openai_agents(result: object) -> AgentResult | None:
    responses = getattr(result, "raw_responses", None)
    if not (isinstance(responses, list) and responses):
        return None
    total = getattr(getattr(result, "context_wrapper", None), "usage", None)
    return _of_responses(responses) if total is None else AgentResult([total], _requests(total), responses[-1])


def _of_pydantic_ai(result: object) -> AgentResult | None:
    if not (hasattr(result, "all_messages") and hasattr(result, "new_messages")):
        return None
    total = getattr(result, "usage", None)
    if parse_token_count(getattr(total, "input_tokens", None)) is None:
        return None
    return AgentResult([total], _requests(total), getattr(result, "response", None))


def _of_agent_framework(result: object) -> AgentResult | None:
    """Read an `AgentResponse`, or a `ChatResponse`, whose client repeats the call after each round of tools."""
    usage, messages = getattr(result, "usage_details", None), getattr(result, "messages", None)
    if usage is None or not isinstance(messages, list):
        return None
    rounds = sum(text(getattr(message, "role", None)) == "tool" for message in messages)
    if getattr(result, "model", None) is not None:
        return AgentResult([usage], rounds + 1 if rounds else 0, result)
    return AgentResult([usage], rounds + 1, getattr(result, "raw_representation", None) or result)


def _requests(total: object) -> int:
    found = fields(total)
    return max(1, (None if found is None else parse_token_count(found.get("requests"))) or 0)


def counted_calls(usage: Fields) -> int:
    """How many calls a usage object alone states that it sums; 0 for one, which may be the usage of a response."""
    calls = parse_token_count(first(usage, *_COUNTED_CALLS)) or 0
    return calls if calls > 1 else 0
