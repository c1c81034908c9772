"""The current object of a context, from a context variable and from frameworks that keep their own context."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar

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
        self.resolvers: tuple[Callable[[T | None], T | None], ...] = ()

    def resolve(self, found: T | None) -> T | None:
        """Return the innermost of the object that the variable holds and those that the resolvers know."""
        for resolve in self.resolvers:
            found = resolve(found)
        return found

    def add_resolver(self, resolve: Callable[[T | None], T | None]) -> None:
        """Add a resolver; adding it again changes nothing."""
        if resolve not in self.resolvers:
            self.resolvers = (*self.resolvers, resolve)

    def remove_resolver(self, resolve: Callable[[T | None], T | None]) -> None:
        """Remove a resolver."""
        self.resolvers = tuple(each for each in self.resolvers if each is not resolve)
