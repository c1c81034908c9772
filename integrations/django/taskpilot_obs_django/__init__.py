"""taskpilot-obs in Django, under WSGI and ASGI: who asks is bound to everything that runs for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.utils.module_loading import import_string

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import get_recorder, guarded
from taskpilot_obs.propagation import REQUEST_ID_HEADER, Identity, ReceivedRequest

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["Identity", "ObservabilityMiddleware"]

_IDENTIFY, _TRUST_BAGGAGE = "TASKPILOT_OBS_IDENTIFY", "TASKPILOT_OBS_TRUST_BAGGAGE"
_COMPONENT = "django.identify"


class ObservabilityMiddleware:
    """Middleware, synchronous and asynchronous: binds request ID, trace, tenant, user and session.

    It answers with the request ID, and each step of a streamed body works for its request. Two of Django's settings
    belong to it: `TASKPILOT_OBS_IDENTIFY`, a function of the request (or its dotted name) that returns an `Identity` or
    None, asynchronous only under ASGI; and `TASKPILOT_OBS_TRUST_BAGGAGE`, whether tenant, user and session are taken
    from the caller's W3C `baggage` header. An exception of the function is counted and logged, and the request goes on.

    Args:
        get_response: the next middleware or the view, as Django passes it.

    Raises:
        ConfigurationError: `TASKPILOT_OBS_IDENTIFY` cannot be called.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._identify = _identify_of(getattr(settings, _IDENTIFY, None))
        self._trust_baggage = bool(getattr(settings, _TRUST_BAGGAGE, False))
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        received = ReceivedRequest(request.headers, trust_baggage=self._trust_baggage)
        if self._is_async:
            return self._serve_async(request, received)
        with received:
            self._find_identity(request, received)
        with received:
            response: HttpResponseBase = self._get_response(request)
        return _answered(received, response)

    async def _serve_async(self, request: HttpRequest, received: ReceivedRequest) -> HttpResponseBase:
        with received:
            await self._find_identity_async(request, received)
        with received:
            response: HttpResponseBase = await self._get_response(request)
        return _answered(received, response)

    def _find_identity(self, request: HttpRequest, received: ReceivedRequest) -> None:
        if self._identify is None:
            return
        with guarded(_COMPONENT, get_recorder().counters):
            identity = self._identify(request)
            if identity is not None:
                received.identify(identity)

    async def _find_identity_async(self, request: HttpRequest, received: ReceivedRequest) -> None:
        if self._identify is None:
            return
        with guarded(_COMPONENT, get_recorder().counters):
            found = self._identify(request)
            identity = await found if isawaitable(found) else found
            if identity is not None:
                received.identify(identity)


def _identify_of(setting: Any) -> Callable[[HttpRequest], Any] | None:
    found = import_string(setting) if isinstance(setting, str) else setting
    if found is not None and not callable(found):
        raise ConfigurationError(f"{_IDENTIFY}: expected a function of the request or its dotted name, got {found!r}")
    return found  # type: ignore[no-any-return]  # what Django's settings hold has no type


def _answered(received: ReceivedRequest, response: Any) -> Any:
    """The response with the request ID, its streamed body followed."""
    response.headers.setdefault(REQUEST_ID_HEADER, received.scope.request_id)
    if response.streaming and getattr(response, "file_to_stream", None) is None:  # a file is sent by the server
        follow = received.aiterate if response.is_async else received.iterate
        response.streaming_content = follow(response.streaming_content)
    return response
