"""Model calls that the hooks asked about, until the SDK's span of the call takes them over."""

from __future__ import annotations

from traceback import walk_tb
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from agents import InputGuardrail, InputGuardrailTripwireTriggered
from agents.models import get_default_model

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Status,
    expect_request_elsewhere,
    on_failure,
    unwrap_refusal,
)

_waiting: WeakKeyDictionary[ActiveInvocation, ref[LlmInvocation]] = WeakKeyDictionary()
"""The call that each agent's run is about to make. An agent makes one call at a time. The call refers to the run, so
a strong reference here would keep both for ever where no span claims the call."""
_held: WeakKeyDictionary[object, LlmInvocation] = WeakKeyDictionary()
"""The last call of each run of the SDK, which goes with the SDK's context of that run."""
_traced: WeakSet[ActiveInvocation] = WeakSet()
"""The runs of agents that the SDK's spans begin. Beneath others no span comes, because tracing is disabled or not
observed."""
_unclaimed: WeakKeyDictionary[ActiveInvocation, WeakSet[LlmInvocation]] = WeakKeyDictionary()
"""The calls beneath each of those others, which may be the run of several agents at once."""


def expect_spans(agent_run: ActiveInvocation) -> None:
    """Expect a span for each call of a model that an agent makes, because the agent's run began by a span."""
    _traced.add(agent_run)


def expect(agent_run: ActiveInvocation, call: LlmInvocation, context: object) -> None:
    """Keep a call that was allowed until its span begins, or until its answer where no span comes.

    Args:
        agent_run: makes the call.
        call: is open.
        context: the SDK's, whose end lets go of a call that nothing has claimed; it is then abandoned.
    """
    _held[context] = call
    if agent_run in _traced:
        _waiting[agent_run] = ref(call)
        return
    _unclaimed.setdefault(agent_run, WeakSet()).add(call)
    on_failure(agent_run, _fail_unclaimed)  # of the SDK, only the exception that leaves it tells that a model failed
    expect_request_elsewhere(call)  # hooks run in tasks of their own, and no span will make the call current


def claim(agent_run: ActiveInvocation) -> LlmInvocation | None:
    """Take the call that an agent's run is about to make; None where no hook asked about it."""
    waiting = _waiting.pop(agent_run, None) if _waiting else None  # without the hooks nothing ever waits
    return None if waiting is None else waiting()


def claim_answered(agent_run: ActiveInvocation, context: object) -> LlmInvocation | None:
    """Take the call that a model has answered; None where the SDK's span has taken it over.

    Args:
        agent_run: made the call.
        context: the SDK's. It tells the calls of several agents apart that run beneath one run without spans.
    """
    return claim(agent_run) if agent_run in _traced else _held.pop(context, None)


def end_unanswered(call: LlmInvocation, error: BaseException | None) -> None:
    """End a call without an answer, because its agent has ended.

    Args:
        call: is open, or has ended; then nothing happens.
        error: ended the agent. It is that of the model, unless it comes from a guardrail that runs beside the call,
            which the SDK cancels then.
    """
    if error is None or _is_of_a_guardrail(error):
        call.end_as(Status.CANCELLED)
    else:
        call.fail(unwrap_refusal(error))


def _fail_unclaimed(agent_run: ActiveInvocation, error: BaseException) -> None:
    for call in tuple(_unclaimed.pop(agent_run, ())):
        end_unanswered(call, error)


def _is_of_a_guardrail(error: BaseException) -> bool:
    if isinstance(error, InputGuardrailTripwireTriggered):
        return True
    return any(frame.f_code is InputGuardrail.run.__code__ for frame, _ in walk_tb(error.__traceback__))


def model_of(agent: Any) -> str | None:
    """The model that an agent asks for, by its name."""
    model = getattr(agent, "model", None)
    if model is None:
        return str(get_default_model())
    name = model if isinstance(model, str) else getattr(model, "model", None)
    return None if name is None else str(name)
