"""The request's identity, in context variables that asyncio tasks inherit and `with_context` passes to threads."""

from __future__ import annotations

import functools
import inspect
from contextlib import ContextDecorator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Self, TypedDict, TypeVar, cast

from taskpilot_obs._recording.attributes import clean_attributes, plain_text
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.scope import current_scope, restore
from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.ids import accepted_request_id, new_request_id
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import AttributeValue, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import Token
    from types import TracebackType


P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

_MEANT = {"tenant": "tenant_id", "user": "user_id", "session": "session_id"}
"""Likely misspellings of identities: as free attributes they would silently be missing from statistics by tenant."""


_LOST_IN_A_THREAD = (
    "request_context() was entered in a thread and left in another context: what ran between did not see it. A web "
    "framework runs a dependency that is a plain `def` in a thread: write it as `async def`"
)


def scope_around() -> Scope:
    """Return the current request's scope, or a new one outside of any request."""
    scope = current_scope.get()
    if scope is not None:
        return scope
    running = current_run()
    return (running and running.scope) or Scope(running.request_id if running else new_request_id())


class request_context(ContextDecorator):  # noqa: N801  used as a statement, like `contextlib.suppress`
    """Bind a request's identity to everything that runs inside, `with` or `async with`.

    Args:
        request_id: the inbound ID. Accepted if it matches `^[A-Za-z0-9._~-]{1,128}$`, otherwise a fresh one is made;
            None keeps that of the request around it, if there is one.
        tenant_id: the customer or organisation on whose behalf the work is done.
        user_id: the user.
        session_id: the conversation or session.
        attributes: free attributes for spans and the audit log (`prompt_name=…`, `task_id=…`), never metric labels.

    IDs that are numbers or UUIDs are kept as text. Values left out are inherited from the context around. Leaving it in
    another context than it was entered in (the generator dependency of a web framework) is harmless. An attribute named
    `tenant`, `user` or `session` is kept as such, and a warning says that it is not an identity.
    """

    def __init__(
        self,
        request_id: str | None = None,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        **attributes: AttributeValue,
    ) -> None:
        self._request_id = request_id
        if attributes and not _MEANT.keys().isdisjoint(attributes):
            log_failure("request_context", ConfigurationError(_not_these(attributes)))
        self._own = (tenant_id, user_id, session_id)
        self._attributes = attributes
        self._tokens: list[tuple[Token[Scope | None], bool]] = []

    def scope(self) -> Scope:
        """The identity that it binds, over that of the context around."""
        outer = scope_around()
        tenant, user, session = [None if given is None else plain_text(given) for given in self._own]
        return Scope(
            outer.request_id if self._request_id is None else accepted_request_id(self._request_id),
            tenant if tenant is not None else outer.tenant,
            user if user is not None else outer.user,
            session if session is not None else outer.session,
            clean_attributes({**outer.attributes, **self._attributes}) if self._attributes else outer.attributes,
        )

    def _recreate_cm(self) -> Self:
        """As a decorator, each call gets a context of its own."""
        tenant_id, user_id, session_id = self._own
        return type(self)(
            self._request_id, tenant_id=tenant_id, user_id=user_id, session_id=session_id, **self._attributes
        )

    def __call__(self, function: F) -> F:
        """Decorate a function or a coroutine function: each call gets a context of its own.

        Raises:
            TypeError: the function is a generator, whose body would run outside of the context.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: put `with request_context(…)` into its body")
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        async def inside(*args: object, **kwargs: object) -> object:
            with self._recreate_cm():
                return await function(*args, **kwargs)

        return cast(F, inside)

    def __enter__(self) -> Scope:
        scope = self.scope()
        self._tokens.append((current_scope.set(scope), in_event_loop()))
        return scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        token, in_event_loop = self._tokens.pop()
        if not restore(current_scope, token) and not in_event_loop:
            log_failure("request_context", ConfigurationError(_LOST_IN_A_THREAD))

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)


class IdentityOptions(TypedDict, total=False):
    """The arguments by which a call states for whom it works; what is left out comes from the context."""

    request_id: str | None
    tenant_id: str | None
    user_id: str | None
    session_id: str | None


class StatedIdentity(NamedTuple):
    """`IdentityOptions` with None for what is left out."""

    request_id: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None

    def scope(self) -> Scope | None:
        """The identity over that of the context around; None where nothing is stated."""
        if self == NOT_STATED:
            return None
        request_id, tenant_id, user_id, session_id = self
        return request_context(request_id, tenant_id=tenant_id, user_id=user_id, session_id=session_id).scope()


NOT_STATED: Final = StatedIdentity()


def _not_these(given: Iterable[str]) -> str:
    """The identities to suggest for attributes with similar names."""
    instead = " and ".join(f"{_MEANT[name]}=…, not {name}=…" for name in given if name in _MEANT)
    return f"request_context() takes {instead}: statistics and budgets by it miss a free attribute"


def get_request_id() -> str | None:
    """Return the ID of the current request, or None outside of any."""
    scope = current_scope.get()
    if scope is not None:
        return scope.request_id
    running = current_run()
    return running.request_id if running is not None else None


def with_context(function: Callable[P, T]) -> Callable[P, T]:
    """Bind a function to the current context, for threads and executors that do not copy it themselves.

    `loop.run_in_executor(None, with_context(work))`. Each call runs in a copy, so that calls may overlap.
    """
    context = copy_context()

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(function, *args, **kwargs)

    return bound
