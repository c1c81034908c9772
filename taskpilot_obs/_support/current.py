"""The current object of a context, from a context variable and from frameworks that keep their own context."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Current(Generic[T]):
    """A context variable with resolvers that may override it.

    Args:
        name: of the context variable.
    """

    def __init__(self, name: str) -> None:
        self.variable: ContextVar[T | None] = ContextVar(name, default=None)
        self._known: Final = self.variable.get
        self._resolvers: tuple[Callable[[T | None], T | None], ...] = ()

    def get(self) -> T | None:
        """Return the current object: the innermost of those that the variable and the resolvers know."""
        known = self._known
        found = known()
        if self._resolvers:
            for resolve in self._resolvers:
                found = resolve(found)
        return found

    def add_resolver(self, resolve: Callable[[T | None], T | None]) -> None:
        """Add a resolver; adding it again changes nothing."""
        if resolve not in self._resolvers:
            self._resolvers = (*self._resolvers, resolve)

    def remove_resolver(self, resolve: Callable[[T | None], T | None]) -> None:
        """Remove a resolver."""
        self._resolvers = tuple(each for each in self._resolvers if each is not resolve)
