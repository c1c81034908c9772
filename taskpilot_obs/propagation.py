"""One request across services: its ID, trace, tenant, user and session travel in headers.

`inject(headers)` writes them into an outgoing request or message. `ReceivedRequest(headers)` reads them where the
request arrives, and binds them to the work. The middleware of the integrations `fastapi`, `flask`, `django` and
`celery` does the second, so most applications call `inject` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from taskpilot_obs._recording import w3c
from taskpilot_obs._recording.attributes import plain_text
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.scope import current_scope, restore
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs._support.ids import accepted_request_id
from taskpilot_obs.config import get_recorder
from taskpilot_obs.records import Scope
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, MutableMapping
    from contextvars import Token

__all__ = ["REQUEST_ID_HEADER", "Identity", "ReceivedRequest", "inject"]

T = TypeVar("T")

REQUEST_ID_HEADER: Final = "X-Request-ID"
"""The header that carries the request ID, in and out."""
_COMPONENT: Final = "propagation"


class Identity(NamedTuple):
    """On whose behalf a request is made, as the application has found out."""

    tenant_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None


NOBODY: Final = Identity()


def inject(headers: MutableMapping[str, str], *, baggage: bool = False) -> None:
    """Write the current request ID and W3C trace context into the headers of a request to another service.

    Outside of a request and a run, nothing is written.

    Args:
        headers: of the outgoing request; changed in place.
        baggage: whether to write request, tenant, user and session into the W3C `baggage` header too. Each receiver can
            read it, so send it to services of your own only.
    """
    with guarded(_COMPONENT, get_recorder().counters):
        run, scope = current_run(), current_scope.get()
        if scope is None and run is not None:
            scope = run.scope or Scope(run.request_id)
        w3c.write_trace(headers, None if run is None or run.span is None else run.span.context)
        if scope is not None:
            headers[REQUEST_ID_HEADER] = scope.request_id
            if baggage:
                w3c.write_baggage(headers, _as_baggage(scope))


def _as_baggage(scope: Scope) -> dict[str, str]:
    values = (scope.request_id, scope.tenant, scope.user, scope.session)
    # A lone surrogate would raise while the header is written, and cost the receiver all other entries too.
    named = zip(_BAGGAGE, values, strict=True)
    return {name: value.encode("utf-8", "replace").decode() for name, value in named if value is not None}


_BAGGAGE: Final = (Attr.REQUEST_ID, Attr.TENANT_ID, Attr.USER_ID, Attr.SESSION_ID)
"""The keys of baggage are those of span attributes."""


class ReceivedRequest:
    """A request that has arrived: code inside `with` belongs to it, and its spans join the trace of the caller.

    It may be entered again and again, but not within itself: step by step around a streamed body.

    Args:
        headers: of the request; names in any case.
        identity: on whose behalf it is made; wins over baggage.
        trust_baggage: whether tenant, user and session are taken from the W3C `baggage` header. It is the caller who
            writes them: only behind a gateway of your own, which removes what comes from outside.
    """

    __slots__ = ("_context", "_tokens", "scope")

    def __init__(self, headers: Mapping[str, str], *, identity: Identity = NOBODY, trust_baggage: bool = False) -> None:
        lower = {name.lower(): value for name, value in headers.items()}
        stated_id = lower.get(REQUEST_ID_HEADER.lower())
        self.scope = Scope(accepted_request_id(stated_id))
        """What records of its work bear."""
        self._context = None
        self._tokens: tuple[Token[Scope | None], Token[Any] | None] | None = None
        with guarded(_COMPONENT, get_recorder().counters):
            if trust_baggage and "baggage" in lower:
                self._take_baggage(w3c.stated_baggage(lower), stated_id)
            self.identify(identity)
            self._context = w3c.remote_context(lower)

    def _take_baggage(self, stated: Mapping[str, str], stated_id: str | None) -> None:
        request_id, tenant, user, session = (stated.get(name) for name in _BAGGAGE)
        if stated_id is None and request_id is not None:
            self.scope = Scope(accepted_request_id(request_id))
        self.identify(Identity(tenant, user, session))

    def identify(self, identity: Identity) -> None:
        """State on whose behalf the request is made; what is None stays as it is."""
        known = self.scope
        given = [None if value is None else plain_text(value) for value in identity]
        tenant, user, session = (was if now is None else now for was, now in zip(known[1:4], given, strict=True))
        self.scope = known._replace(tenant=tenant, user=user, session=session)

    def __enter__(self) -> Self:
        scope = current_scope.set(self.scope)
        self._tokens = scope, None if self._context is None else w3c.attach(self._context)
        return self

    def __exit__(self, *_: object) -> None:
        tokens, self._tokens = self._tokens, None
        # Another context keeps what it has: a framework may leave elsewhere what it has entered.
        if tokens is not None and restore(current_scope, tokens[0]) and tokens[1] is not None:
            w3c.detach(tokens[1])

    def iterate(self, body: Iterable[T]) -> Steps[T]:
        """A streamed body, each step of which works for this request; closing it closes the body."""
        return Steps(self, body)

    async def aiterate(self, body: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        """Like `iterate`, for an asynchronous body."""
        with self:
            steps = aiter(body)
        try:
            while True:
                with self:
                    try:
                        step = await anext(steps)
                    except StopAsyncIteration:
                        return
                yield step
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                with self:
                    await close()


class Steps(Iterator[T]):
    """A streamed body. No generator, because one that has not begun would not pass its closing on."""

    __slots__ = ("_body", "_request", "_steps")

    def __init__(self, request: ReceivedRequest, body: Iterable[T]) -> None:
        self._request = request
        self._body = body
        self._steps: Iterator[T] | None = None

    def __next__(self) -> T:
        with self._request:
            if self._steps is None:
                self._steps = iter(self._body)
            return next(self._steps)

    def close(self) -> None:
        """Close the body."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with self._request:
                close()
