"""Model calls that the hooks asked about, until the SDK's span of the call takes them over."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from agents.models import get_default_model

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, expect_request_elsewhere

_waiting: WeakKeyDictionary[ActiveInvocation, ref[LlmInvocation]] = WeakKeyDictionary()
"""The call that each agent's run is about to make. An agent makes one call at a time. The call refers to the run, so
a strong reference here would keep both for ever where no span claims the call."""
_held: WeakKeyDictionary[object, LlmInvocation] = WeakKeyDictionary()
"""The last call of each run of the SDK, which goes with the SDK's context of that run."""
_traced: WeakSet[ActiveInvocation] = WeakSet()
"""The runs of agents that the SDK's spans begin. Beneath others no span comes, because tracing is disabled or not
observed."""


def expect_spans(agent_run: ActiveInvocation) -> None:
    """Expect a span for each call of a model that an agent makes, because the agent's run began by a span."""
    _traced.add(agent_run)


def expect(agent_run: ActiveInvocation, call: LlmInvocation, context: object) -> None:
    """Keep a call that was allowed until its span begins.

    Args:
        agent_run: makes the call.
        call: is open.
        context: the SDK's, whose end lets go of a call that nothing has claimed; it is then abandoned.
    """
    _held[context] = call
    _waiting[agent_run] = ref(call)
    if agent_run not in _traced:
        expect_request_elsewhere(call)  # hooks run in tasks of their own, and no span will make the call current


def claim(agent_run: ActiveInvocation) -> LlmInvocation | None:
    """Take the call that an agent's run is about to make; None where no hook asked about it."""
    waiting = _waiting.pop(agent_run, None) if _waiting else None  # without the hooks nothing ever waits
    return None if waiting is None else waiting()


def model_of(agent: Any) -> str | None:
    """The model that an agent asks for, by its name."""
    model = getattr(agent, "model", None)
    if model is None:
        return str(get_default_model())
    name = model if isinstance(model, str) else getattr(model, "model", None)
    return None if name is None else str(name)
