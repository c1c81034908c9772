"""The request that code works for: the context variable behind `request_context`."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from taskpilot_obs.records import Scope

T = TypeVar("T")

current_scope: ContextVar[Scope | None] = ContextVar("taskpilot_obs_scope", default=None)


def restore(variable: ContextVar[T], token: Token[T]) -> bool:
    """Reset a context variable; False where the token belongs to another context, which then keeps what it has."""
    try:
        variable.reset(token)
    except ValueError:
        return False
    return True
