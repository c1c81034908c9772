"""Why an LLM call failed, as one of a few words that a metric can carry, told by class names, statuses and error bodies.

No SDK is imported: the names of the classes over the MRO, the HTTP status and the provider's own error code say enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from taskpilot_obs.guarded import guarded

_GUARD = guarded("error_category")
_OTHER: Final = "other"
_MAX_TEXT: Final = 2_000

_HINTS: Final = (
    (
        "context_length",
        r"context_length|context_window|contextwindow|maximum context|max_context|context length|context window|prompt is too long"
        r"|input is too long|too many (?:input )?tokens|request_too_large|input token count|tokens? exceeds? the (?:maximum|limit)"
        r"|string_above_max_length|model_max_prompt_tokens|reduce the length",
    ),
    (
        "content_filter",
        r"content_filter|contentfilter|content_policy|content policy|responsibleai|responsible ai|content management policy"
        r"|safety system|moderation_blocked|blocked_reason|prohibited_content|usage policies|guardrail_intervened",
    ),
    (
        "rate_limit",
        r"rate_limit|rate limit|ratelimit|insufficient_quota|quota|too many requests|throttl|resource_exhausted|overloaded"
        r"|capacity_exceeded|credit balance|billing_hard_limit",
    ),
    (
        "auth",
        r"invalid_api_key|invalid api key|incorrect api key|invalid_authentication|authentication_error|unauthenticated"
        r"|permission_denied|permission_error|unauthorized|accessdenied|expiredtoken|unrecognizedclient|invalidsignature"
        r"|signaturedoesnotmatch|api key not valid",
    ),
    ("timeout", r"deadline_exceeded|timed out|timeout"),
    (
        "bad_request",
        r"invalid_request|invalid_argument|bad_request|validationexception|model_not_found|not_found|unsupported"
        r"|unprocessable|failed_precondition",
    ),
    ("server", r"api_error|internal_server|server_error|internal error|unavailable|modelerrorexception|internalserver"),
)
_HINT_PATTERNS: Final = tuple((category, re.compile(pattern, re.IGNORECASE)) for category, pattern in _HINTS)
_DECISIVE: Final = frozenset({"context_length", "content_filter"})
"""What providers report as a bad request, or as a rate limit, and is neither."""

_CLASSES: Final = (
    ("context_length", r"Context(?:Window|Length|Overflow)|LengthFinishReason|MaxTokensReached"),
    (
        "content_filter",
        r"ContentFilter|ContentPolicy|ModelRefusal|BlockedPrompt|StopCandidate|ResponseBlocked|ResponseValidation",
    ),
    ("rate_limit", r"RateLimit|TooManyRequests|ResourceExhausted|Throttl|QuotaExceeded|Overloaded|ServiceQuota"),
    (
        "auth",
        r"Authentication|PermissionDenied|Unauthorized|Unauthenticated|Forbidden|AccessDenied|NoCredentials|PartialCredentials"
        r"|CredentialRetrieval|DefaultCredentials|RefreshError|ExpiredToken|UnrecognizedClient|TokenRetrieval",
    ),
    ("timeout", r"Timeout(?:Error|Exception)?$|TimedOut|DeadlineExceeded|ReadTimeout|ConnectTimeout"),
    (
        "connection",
        r"ConnectionError$|APIConnection|ConnectError|NetworkError|ProtocolError|TransportError|ConnectionClosed|ProxyError"
        r"|ReadError|WriteError|CloseError|EndpointConnection|ConnectionReset|gaierror$|SSLError|ClientConnector|IncompleteRead"
        r"|ServerDisconnected|ChunkedEncoding",
    ),
    (
        "server",
        r"InternalServer|ServiceUnavailable|ServerError$|BadGateway|GatewayTimeout|ModelError|ModelNotReady|InternalFailure"
        r"|ServiceException|Unavailable$|APIResponseValidation",
    ),
    (
        "bad_request",
        r"BadRequest|InvalidRequest|InvalidArgument|UnprocessableEntity|NotFound|Unsupported|ValidationException"
        r"|FailedPrecondition|ParamValidation|ResourceNotFound|ConflictError|ClientError$",
    ),
)
_CLASS_PATTERNS: Final = tuple((category, re.compile(pattern)) for category, pattern in _CLASSES)
_STATUSES: Final[dict[int, str]] = {
    400: "bad_request",
    401: "auth",
    402: "rate_limit",  # out of credit
    403: "auth",
    404: "bad_request",
    405: "bad_request",
    408: "timeout",
    409: "bad_request",
    413: "context_length",
    415: "bad_request",
    422: "bad_request",
    424: "server",
    429: "rate_limit",
    499: "connection",
    504: "timeout",
    529: "rate_limit",  # Anthropic: overloaded
}
_FOREIGN: Final = frozenset({"builtins", "asyncio.exceptions", "concurrent.futures._base"})


def error_category(exc: BaseException) -> str:
    """One of `semconv.ERROR_CATEGORIES` for an exception of a call; `other` for what is no provider's failure.

    The provider's words decide where they are specific (`context_length_exceeded` comes as a 400, `insufficient_quota` as
    a 429), then the HTTP status, then the class names. Never raises, whatever the exception does when it is looked at.
    """
    with _GUARD:
        return _category(exc)
    return _OTHER


def _category(exc: BaseException) -> str:
    names = [cls.__name__ for cls in type(exc).__mro__ if cls not in (object, BaseException, Exception)]
    by_class = _by_patterns(_CLASS_PATTERNS, names)
    status = _status(exc)
    code = _code(exc)
    provider_speaks = status is not None or bool(code) or by_class is not None
    hint = _by_patterns(_HINT_PATTERNS, [code, _text(exc)]) if provider_speaks else None
    if hint in _DECISIVE:
        return str(hint)
    return _from_status(status) or _by_patterns(_HINT_PATTERNS, [code]) or by_class or hint or _OTHER


def _by_patterns(patterns: tuple[tuple[str, re.Pattern[str]], ...], texts: list[str]) -> str | None:
    """The first category, in the order of the texts and then of the patterns."""
    for text in texts:
        for category, pattern in patterns:
            if text and pattern.search(text):
                return category
    return None


def _from_status(status: int | None) -> str | None:
    if status is None or status < 400:  # noqa: PLR2004  the first status that is an error
        return None
    return _STATUSES.get(status) or ("server" if status >= 500 else "bad_request")  # noqa: PLR2004  HTTP's own classes


def _status(exc: BaseException) -> int | None:
    """The HTTP status, wherever the SDK keeps it: httpx, openai, google, aiohttp, requests, botocore."""
    response = getattr(exc, "response", None)
    places = (
        getattr(exc, "status_code", None),
        getattr(exc, "http_status", None),
        getattr(exc, "status", None),
        getattr(exc, "code", None),
        getattr(response, "status_code", None),
        getattr(response, "status", None),
        _at(response, "ResponseMetadata", "HTTPStatusCode"),
        getattr(exc, "grpc_status_code", None),
    )
    return next((place for place in places if type(place) is int and 100 <= place < 600), None)  # noqa: PLR2004  HTTP's range


def _code(exc: BaseException) -> str:
    """The provider's own code of the error, in lower case; empty where there is none."""
    body = getattr(exc, "body", None)
    details = getattr(exc, "details", None)
    response = getattr(exc, "response", None)
    places = (
        getattr(exc, "code", None),
        getattr(exc, "type", None),
        getattr(exc, "status", None),
        _at(body, "code"),
        _at(body, "type"),
        _at(body, "error", "code"),
        _at(body, "error", "type"),
        _at(body, "error", "status"),
        _at(details, "error", "status"),
        _at(response, "Error", "Code"),
        getattr(getattr(exc, "reason", None), "name", None),
    )
    return " ".join(place.lower() for place in places if isinstance(place, str))


def _text(exc: BaseException) -> str:
    """What the error says, shortened; it is looked through, and goes nowhere."""
    body = getattr(exc, "body", None)
    message = _at(body, "error", "message") or _at(body, "message") or getattr(exc, "message", None)
    return (message if isinstance(message, str) else str(exc))[:_MAX_TEXT]


def _at(value: object, *keys: str) -> object:
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
