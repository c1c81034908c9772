"""Authenticates callers by a bearer token, a browser's session, or the application that mounts the router."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, Request

from taskpilot_obs.server.principal import LOCAL, Principal
from taskpilot_obs.server.problems import Problem
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.server.rate import WrongTokens
from taskpilot_obs.server.services import Services
from taskpilot_obs.server.sessions import COOKIE, Sessions

if TYPE_CHECKING:
    from taskpilot_obs.server.tokens import TokenFile

Who = Callable[..., Any]
"""A FastAPI dependency that returns the caller, or raises an `HTTPException`."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "X-CSRF-Token"
_STATE: Final = "taskpilot_obs_principal"
_SERVICES: Final = "taskpilot_obs_services"


class Doorkeeper:
    """Authenticates callers of the application that `create_app` makes.

    Args:
        tokens: the accepted tokens; None admits all callers on this machine, and no others.
    """

    def __init__(self, tokens: TokenFile | None) -> None:
        self.tokens = tokens
        self.sessions = None if tokens is None else Sessions(tokens)
        self._wrong = WrongTokens()

    async def who(self, request: Request) -> Principal:
        """The principal of this request.

        Raises:
            Problem: 401 without a token or with a wrong one, 403 from another machine, 429 after five wrong ones.
        """
        if self.tokens is None:
            return _local(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.principal_of(token.strip(), request)
        found = self.session(request)
        if found is None:
            raise _unauthorized("this needs a token: send `Authorization: Bearer …`, or log in at /login")
        if request.method not in SAFE_METHODS and not self.has_csrf(request, request.headers.get(CSRF_HEADER, "")):
            raise Problem(HTTPStatus.FORBIDDEN, f"a browser's session needs the page's {CSRF_HEADER}")
        return found

    def principal_of(self, token: str, request: Request) -> Principal:
        """Return the owner of a token.

        A valid token is accepted even from an address that sent wrong ones: it cannot be guessed, and clients behind
        one proxy must not lock each other out.

        Raises:
            Problem: 401, or 429 after five wrong ones within a minute.
        """
        address = request.client.host if request.client else ""
        found = None if self.tokens is None else self.tokens.find(token)
        if found is not None:
            return found
        wait_s = self._wrong.note(address)
        if wait_s is not None:
            headers = {"Retry-After": str(wait_s)}
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens from this address", headers=headers)
        raise _unauthorized("the token is wrong, or was revoked")

    def session(self, request: Request) -> Principal | None:
        """The principal of a browser that logged in."""
        cookie = request.cookies.get(COOKIE)
        return None if cookie is None or self.sessions is None else self.sessions.principal(cookie)

    def csrf(self, request: Request) -> str:
        """Return the CSRF token for forms of this session; empty without a session."""
        cookie = request.cookies.get(COOKIE)
        return "" if cookie is None or self.sessions is None else self.sessions.csrf(cookie)

    def has_csrf(self, request: Request, given: str) -> bool:
        """Whether a form carries the CSRF token of this session."""
        wanted = self.csrf(request)
        return bool(wanted) and hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def _local(request: Request) -> Principal:
    """Admit only this machine when there are no tokens. Checking `Host` stops foreign pages from sending requests."""
    address = request.client.host if request.client else ""
    if not is_loopback(address):
        raise Problem(HTTPStatus.FORBIDDEN, "without a token file this server answers its own machine only")
    if host_of(request.headers.get("host", "")) not in LOCAL_NAMES:
        raise Problem(HTTPStatus.FORBIDDEN, "without a token file this server is named localhost or 127.0.0.1")
    return LOCAL


def is_loopback(address: str) -> bool:
    """Whether an IP address is of this machine's loopback network."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The name in a `Host` header, without its port."""
    name = header.lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]


def bound(services: Services | None, who: Who) -> Any:
    """A dependency for routers that authenticates the caller before any of their routes runs."""

    async def bind(request: Request, principal: Any = Depends(who)) -> None:  # noqa: B008  FastAPI's way for a local one
        setattr(request.state, _STATE, principal)
        setattr(request.state, _SERVICES, services)

    return Depends(bind)


async def reading(request: Request) -> Questions:
    """Return the queries that the principal may make.

    Raises:
        Problem: 403 if it may not read.
    """
    principal: Principal = getattr(request.state, _STATE)
    if not principal.may_read:
        raise Problem(HTTPStatus.FORBIDDEN, "a writer's token does not read; use a viewer's or an admin's")
    return Questions(getattr(request.state, _SERVICES), principal)


async def writing(request: Request) -> Principal:
    """Return the principal, if it may write.

    Raises:
        Problem: 403 if it may not.
    """
    principal: Principal = getattr(request.state, _STATE)
    if not principal.may_write:
        raise Problem(HTTPStatus.FORBIDDEN, "a viewer's token does not write; use a writer's or an admin's")
    return principal


async def services_of(request: Request) -> Services:
    """Return the services of the router."""
    found: Services = getattr(request.state, _SERVICES)
    return found


Reading = Annotated[Questions, Depends(reading)]
Writing = Annotated[Principal, Depends(writing)]
