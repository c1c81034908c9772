"""Functions of the application that policies ask: approvals, and predicates of arguments. They answer at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Verdict
from taskpilot_obs.safety.subjects import CheckInput, PolicyResult

Approved = Callable[[CheckInput], bool]


def is_async(function: object) -> bool:
    """Whether a call of it returns a coroutine: a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  an object's own


def answers_later(function: object) -> bool:
    """Whether a call of it returns a coroutine or a generator, which are true whatever they would come to."""
    return is_async(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


def as_approved(given: Any) -> Approved | None:
    """Validate the option `approved`.

    Raises:
        ConfigurationError: it cannot be called, or is asynchronous.
    """
    if given is None:
        return None
    if not callable(given):
        raise ConfigurationError(f"approved: expected a function of a CheckInput, got {given!r}")
    if answers_later(given):
        raise ConfigurationError(
            f"approved: expected a function that returns a bool, got {given!r}, which is asynchronous"
        )
    approved: Approved = given
    return approved


def settle_approval(
    approved: Approved | None, subject: CheckInput, what: str, version: str | None = None
) -> PolicyResult:
    """Return the verdict on a call that needs an approval: allowed if `approved` returns True itself.

    Args:
        approved: the function that is asked; None where there is none.
        subject: the call.
        what: names the call in the reason.
        version: of the policy that decided.

    Raises:
        TypeError: `approved` returned an awaitable. The check fails with it.
    """
    answer = None if approved is None else at_once("approved", approved(subject))
    if answer is True:
        return PolicyResult(Verdict.ALLOW, "approved", version=version)
    reason = f"{what} needs an approval"
    if answer is not None and answer is not False:
        reason += f": approved returned an object of type {type(answer).__name__} in place of True"
    return PolicyResult(Verdict.REQUIRE_APPROVAL, reason, version=version)


def at_once(option: str, answer: object) -> object:
    """Return an answer that is not an awaitable.

    Args:
        option: names the function that answered.
        answer: what it returned.

    Raises:
        TypeError: it is an awaitable, which is true whatever it would come to.
    """
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{option} returned an awaitable, where a bool was expected")
    return answer
