"""Model calls that the hooks asked about, until the SDK's span of the call takes them over."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from agents.models import get_default_model

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation

_waiting: WeakKeyDictionary[ActiveInvocation, LlmInvocation] = WeakKeyDictionary()
"""The call that each agent's run is about to make. An agent makes one call at a time."""


def expect(agent_run: ActiveInvocation, call: LlmInvocation) -> None:
    """Keep a call that was allowed until its span begins."""
    _waiting[agent_run] = call


def claim(agent_run: ActiveInvocation) -> LlmInvocation | None:
    """Take the call that an agent's run is about to make; None where no hook asked about it."""
    return _waiting.pop(agent_run, None)


def model_of(agent: Any) -> str | None:
    """The model that an agent asks for, by its name."""
    model = getattr(agent, "model", None)
    if model is None:
        return str(get_default_model())
    name = model if isinstance(model, str) else getattr(model, "model", None)
    return None if name is None else str(name)


def longest_answer(agent: Any) -> dict[str, object]:
    """What the agent's settings state about the length of an answer, for an estimate of its cost."""
    limit = getattr(getattr(agent, "model_settings", None), "max_tokens", None)
    return {} if limit is None else {"max_tokens": limit}
