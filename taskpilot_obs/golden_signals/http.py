"""One GET over HTTP, by the standard library: with a time limit, verified TLS and credentials that stay secret."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Final, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from taskpilot_obs._support.daemon_threads import call_in_daemon
from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.exceptions import ConfigurationError, SourceError

T = TypeVar("T")
TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 65_536
_EXCERPT: Final = 300
_SIZE_DIGITS: Final = 20
"""So many digits of a `Content-Length` are read: more are more than any answer has, and `int` refuses thousands."""
_UNAUTHORIZED: Final = frozenset({401, 403})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an endpoint. Certificates are always verified.

    Args:
        bearer_token: sent as `Authorization: Bearer …`.
        username: for basic authentication, together with `password`.
        password: see `username`.
        ca_file: certificates to trust instead of the system's.
        timeout_s: seconds for the whole request.
    """

    bearer_token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        if self.bearer_token is not None and self.username is not None:
            raise ConfigurationError("both a bearer token and a user name were given; give one of them")
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("basic authentication needs both a user name and a password")
        if self.bearer_token is not None and not _is_header_value(self.bearer_token):
            raise ConfigurationError("the bearer token is empty or holds spaces or control characters")
        if not self.timeout_s > 0:
            raise ConfigurationError(f"timeout_s: given {self.timeout_s}; it must be above 0")

    def headers(self) -> dict[str, str]:
        """The header with the credentials; empty without any."""
        if self.bearer_token is not None:
            return {"Authorization": f"Bearer {self.bearer_token}"}
        if self.username is not None:
            pair = f"{self.username}:{self.password}".encode()
            return {"Authorization": f"Basic {b64encode(pair).decode('ascii')}"}
        return {}


def get(url: str, access: Access | None = None, *, accept: str = "*/*") -> tuple[str, str]:
    """Request a URL, and return the body and the content type.

    Redirects to another origin are refused, because they would send the credentials elsewhere.

    Args:
        url: http or https, without credentials.
        access: credentials, timeout and certificates; without credentials when left out.
        accept: the media types that the answer may have.

    Raises:
        ConfigurationError: the URL is not http(s), has no host, carries credentials or is not ASCII.
        SourceError: no answer in time, an error status, a redirect, too much, or no text.
    """
    access = access or Access()
    shown = checked_url(url)
    if not url.isascii():
        raise ConfigurationError(f"given {url!r}; write other characters than ASCII percent-encoded, a host as xn--…")
    request = Request(url, headers={"Accept": accept, **access.headers()})  # noqa: S310  checked_url admits http(s) only
    handlers = [HTTPSHandler(context=_tls(access))] if shown.startswith("https:") else []
    opener = build_opener(_SameOrigin, *handlers)
    return _in_time(access.timeout_s, shown, lambda: _answer(opener, request, access.timeout_s, shown))


def _in_time(timeout_s: float, shown: str, ask: Callable[[], T]) -> T:
    """Call `ask` within the time for the whole request.

    A socket's timeout only bounds each read, so a server that sends one byte a second would block the caller for ever.
    So a thread calls `ask`, and is abandoned when the time is up.
    """
    try:
        answer = call_in_daemon(ask, "taskpilot_obs-http")
    except RuntimeError as error:  # this process may start no more threads
        raise SourceError(f"{shown} was not asked: {error}") from error
    try:
        return answer.result(timeout_s)
    except TimeoutError:
        if answer.done():
            raise
        raise SourceError(f"{shown} did not answer within {timeout_s:g} s") from None


def _answer(opener: OpenerDirector, request: Request, timeout_s: float, shown: str) -> tuple[str, str]:
    deadline = time.monotonic() + timeout_s
    try:
        with opener.open(request, timeout=timeout_s) as response:
            body = _read(response, deadline, shown)
            return body.decode("utf-8"), response.headers.get("Content-Type", "")
    except HTTPError as error:
        raise SourceError(_explained(error, shown)) from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{shown} did not answer text in UTF-8") from error
    except UnicodeError as error:  # a host with a label that is empty or too long
        raise SourceError(f"{shown} cannot be reached: {error}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):  # the socket's limit came first
            raise SourceError(f"{shown} did not answer within {timeout_s:g} s") from error
        raise SourceError(f"{shown} cannot be reached: {reason_of(reason)}") from error


def checked_url(url: str) -> str:
    """Return the URL without its query, for messages.

    Raises:
        ConfigurationError: see `get`.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"the URL cannot be read: {error}") from None
    if "@" in parts.netloc:
        raise ConfigurationError("the URL carries credentials; give them apart, so that they stay out of logs")
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(f"given {url!r}; allowed is http://HOST… or https://HOST…")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ConfigurationError(f"given {url!r}; a URL has no spaces or control characters")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


class _SameOrigin(HTTPRedirectHandler):
    """Follows redirects within one scheme, host and port only; the opener raises others as errors."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(req.full_url)[:2] != urlsplit(newurl)[:2]:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _tls(access: Access) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=access.ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"ca_file: {access.ca_file} holds no certificates that can be read: {reason_of(error)}"
        ) from error


def _read(response: HTTPResponse, deadline: float, shown: str) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):  # read the available bytes without waiting for more
        body += chunk
        if len(body) > MAX_BYTES:
            raise SourceError(f"{shown} answered more than {MAX_BYTES // 1024**2} MiB")
        if time.monotonic() > deadline:
            raise SourceError(f"{shown} did not finish its answer in time")
    stated = response.headers.get("Content-Length", "")
    if stated.isdecimal() and len(body) < int(stated[:_SIZE_DIGITS]):  # `read1` reports a broken connection as the end
        raise SourceError(f"{shown} broke off after {len(body)} of {stated[:_SIZE_DIGITS]} bytes")
    return bytes(body)


def _explained(error: HTTPError, shown: str) -> str:
    text = error.read(_EXCERPT).decode("utf-8", "replace").strip()
    error.close()
    if error.code in _UNAUTHORIZED:
        return f"{shown} answered {error.code}: the credentials are missing or wrong"
    if error.code in _REDIRECTS:
        return f"{shown} answered {error.code}, a redirect to elsewhere, which is not followed: ask the final URL"
    return f"{shown} answered {error.code} {error.reason}: {text or 'no explanation'}"


def _is_header_value(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
