"""The scope of the current request: the context variable behind `request_context`."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Protocol, TypeVar

from taskpilot_obs.records import NO_ATTRIBUTES

if TYPE_CHECKING:
    from taskpilot_obs.records import Attributes, Origin, Scope

T = TypeVar("T")

current_scope: ContextVar[Scope | None] = ContextVar("taskpilot_obs_scope", default=None)


class CallReservation(Protocol):
    """A budget reservation for a call."""

    @property
    def reservation_id(self) -> str:
        """The ID of the reservation, which the call's record carries too."""

    def note_streamed(self, item: object) -> None:
        """Record one item of the call's stream, for an estimate if its usage is never stated."""


current_admitted: ContextVar[CallReservation | None] = ContextVar("taskpilot_obs_admitted", default=None)
"""The reservation for the call that the surrounding code is about to make."""


def restore(variable: ContextVar[T], token: Token[T]) -> bool:
    """Reset a context variable; False where the token belongs to another context or was used, and nothing changes."""
    try:
        variable.reset(token)
    except (ValueError, RuntimeError):
        return False
    return True


def of_the_request(request_id: object, origin: Origin) -> Attributes:
    """Return the context's attributes of a request, such as its variant; empty for another request."""
    scope = current_scope.get()
    return NO_ATTRIBUTES if scope is None or request_id != origin.request_id else scope.attributes
