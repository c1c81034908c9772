"""Classifies failed LLM calls: a category for a metric label, and whether the call was refused and so costs nothing.

No SDK is imported: the class names in the MRO, the HTTP status and the provider's error code suffice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.guarded import guarded

if TYPE_CHECKING:
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.usage.values import StatedError

_OTHER: Final = "other"
_BAD_REQUEST: Final = "bad_request"
_RATE_LIMIT: Final = "rate_limit"
_MAX_TEXT: Final = 2_000

Patterns = tuple[tuple[str, re.Pattern[str]], ...]


def _patterns(flags: re.RegexFlag, **words: str) -> Patterns:
    return tuple((category, re.compile("|".join(stated.split(";")), flags)) for category, stated in words.items())


_DECISIVE: Final = _patterns(
    re.IGNORECASE,
    context_length=(
        "context_length;context_window;contextwindow;context length;context window;maximum context;max_context"
        ";prompt is too long;input is too long;too many (?:input )?tokens;input token count;request_too_large"
        ";tokens? exceeds? the (?:maximum|limit);string_above_max_length;reduce the length;exceed context limit"
        ";max_new_tokens`? must be"
    ),
    content_filter=(
        "content_filter;contentfilter;content_policy;content policy;responsibleai;responsible ai"
        ";content management policy;content filtering policy;violating our usage polic;flagged by moderation"
        ";safety system;moderation_blocked;prohibited_content;guardrail_intervened"
    ),
    auth="api key not valid;api_key_invalid;invalid api key;incorrect api key",
    rate_limit=(
        "insufficient_(?:quota|balance|funds|credits?);insufficient (?:quota|balance|funds|credits?);credit balance"
        ";exceeded_current_quota;exceeded your current quota;billing_error;billing_(?:hard|soft)_limit;arrearage"
        ";out of credits?;(?:no|any) credits;not enough credits;payment required"
    ),
)
"""Texts that identify the category although providers report a bad request or another error."""
_CODES: Final = _patterns(
    re.IGNORECASE,
    rate_limit="rate_limit;ratelimit;quota;too_?many_?requests;throttl;resource_exhausted;overloaded;capacity;billing;budget",
    auth=(
        "api_key;authentication;unauthenticated;permission;unauthorized;accessdenied;expiredtoken;unrecognizedclient"
        ";invalidsignature;signaturedoesnotmatch"
    ),
    timeout="deadline_exceeded;timed_out;timeout",
    bad_request=(
        "invalid_request;invalid_argument;bad_request;validationexception;not_found;unsupported;unprocessable"
        ";failed_precondition"
    ),
    server="api_error;internal;server_error;unavailable;model(?:stream)?errorexception;modelnotready",
)
_CLASSES: Final = _patterns(
    re.NOFLAG,
    context_length="ContextWindow;ContextLength;ContextOverflow;LengthFinishReason;ContentTooLarge",
    content_filter=(
        "ContentFilter;ContentPolicy;ModelRefusal;BlockedPrompt;StopCandidate;ResponseBlocked;ResponseValidationError$"
    ),
    rate_limit="RateLimit;TooManyRequests;ResourceExhausted;Throttl;QuotaExceeded;Overloaded;ServiceQuota;SpendLimit",
    auth=(
        "Authentication;PermissionDenied;Unauthorized;Unauthenticated;Forbidden;AccessDenied;NoCredentials"
        ";PartialCredentials;CredentialRetrieval;DefaultCredentials;RefreshError;ExpiredToken;UnrecognizedClient"
    ),
    timeout="Timeout(?:Error|Exception)?$;TimedOut;DeadlineExceeded;ReadTimeout;ConnectTimeout",
    connection=(
        "ConnectionError$;APIConnection;ConnectError;NetworkError;ProtocolError;TransportError;ConnectionClosed"
        ";ProxyError;ReadError;WriteError;EndpointConnection;ConnectionReset;gaierror$;SSLError;ClientConnector"
        ";IncompleteRead;ServerDisconnected;ChunkedEncoding"
    ),
    server=(
        "InternalServer;ServiceUnavailable;ServerError$;BadGateway;GatewayTimeout;ModelError;ModelNotReady"
        ";InternalFailure;ServiceException;Unavailable$;APIResponseValidation"
    ),
    bad_request=(
        "BadRequest;InvalidRequest;InvalidArgument;UnprocessableEntity;(?<!File)(?<!Module)NotFoundError$"
        ";Unsupported(?!Operation);ValidationException"
        ";FailedPrecondition;ParamValidation;ResourceNotFound;ConflictError;ClientError$"
    ),
)
_BROKEN: Final = re.compile(
    "ConnectionReset|ConnectionAborted|BrokenPipe|BrokenResource|EndOfStream|ReadError|WriteError|ReadTimeout|WriteTimeout"
    "|ProtocolError|ServerDisconnected|IncompleteRead|ChunkedEncoding|ConnectionClosed|(?<!Connect)(?<!Pool)Timeout"
)
"""Established connections that broke: the provider may have processed the call."""
_NOT_SENT: Final = re.compile(
    "ConnectError|ConnectTimeout|ConnectionTimeout|PoolTimeout|ConnectionRefused|gaierror|NameResolution|NewConnection"
    "|ClientConnector|EndpointConnection|ProxyError|SSLError|ConnectionError$|InvalidURL|UnsupportedProtocol"
    "|LocalProtocol|ParamValidation"
)
"""No connection, or nothing was sent over it."""
_REFUSING_CLASSES: Final = frozenset({"rate_limit", "auth"})
_REFUSING_WORDS: Final = frozenset({"rate_limit", "auth", "bad_request", "context_length"})
_UNDECIDED: Final = frozenset({408, 499})
"""Timeouts and cancellations: the provider may have processed the call."""
_MAX_CAUSES: Final = 8
_HTTP: Final = range(100, 600)
_STATUSES: Final[dict[int, str]] = {
    401: "auth",
    402: "rate_limit",  # out of credit; other providers report it as 400, 403 or 429
    403: "auth",
    408: "timeout",
    413: "context_length",
    424: "server",  # Bedrock: the model failed
    429: "rate_limit",
    499: "connection",
    504: "timeout",
    529: "rate_limit",  # Anthropic: overloaded
}


def error_category(exc: BaseException, counters: InternalCounters | None = None) -> str:
    """One of `semconv.ERROR_CATEGORIES` for an exception of a call; `other` if the provider did not fail.

    Specific texts of the provider decide first (`context_length_exceeded` comes as a 400), then the status. If the
    status is missing or only means a bad request, the provider's code and the class names decide.
    Never raises, even if reading the exception fails; that is counted in `counters`
    (`taskpilot_obs_internal_errors_total{where="error_category"}`).
    """
    with guarded("error_category", counters):
        return _category(exc)
    return _OTHER


def is_refused(exc: BaseException, counters: InternalCounters | None = None) -> bool:
    """Whether an exception proves that the provider did not process the call: it refused it, or was not reached.

    That is a status 4xx other than 408, a rate limit, an authentication failure, or no connection. All other failures
    (5xx, a connection that broke, an exception in application code) may have been billed.
    """
    with guarded("is_refused", counters):
        return _is_refused(causes_of(exc))
    return False


def is_stated_refusal(error: StatedError) -> bool:
    """Whether an error that came with HTTP status 200 states that the provider refused the call."""
    if error.status is not None:
        return _refuses(error.status)
    return stated_category(error) in _REFUSING_WORDS


def causes_of(exc: BaseException) -> list[BaseException]:
    """Yield an exception and its causes, the outermost first; bounded, because causes can form a cycle."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and len(chain) < _MAX_CAUSES and not any(cause is known for known in chain):
        chain.append(cause)
        cause = cause.__cause__
    return chain


def _is_refused(chain: list[BaseException]) -> bool:
    status = next((status for exc in chain if (status := _status(exc)) is not None), None)
    if status is not None:
        return _refuses(status)
    for exc in reversed(chain):  # the innermost is the most specific
        for cls in type(exc).__mro__:
            if _NOT_SENT.search(cls.__name__):
                return True
            if _BROKEN.search(cls.__name__):
                return False
    return any(_match(_CLASSES, *(cls.__name__ for cls in type(exc).__mro__)) in _REFUSING_CLASSES for exc in chain)


def _refuses(status: int) -> bool:
    return 400 <= status < 500 and status not in _UNDECIDED  # noqa: PLR2004  HTTP's own class


def stated_category(error: StatedError) -> str:
    """Like `error_category`, for an error that came with HTTP status 200, as gateways and streams send them."""
    return _decide(None, _from_status(error.status), error.code, error.message[:_MAX_TEXT])


def _category(exc: BaseException) -> str:
    by_class = _match(_CLASSES, *(cls.__name__ for cls in type(exc).__mro__))
    by_status, code = _from_status(_status(exc)), _code(exc)
    if by_class is None and by_status is None and not code:
        return _OTHER  # not a provider's exception: its text belongs to the application
    return _decide(by_class, by_status, code, _text(exc))


def _decide(by_class: str | None, by_status: str | None, code: str, message: str) -> str:
    by_code = _match(_CODES, code)
    decisive = _match(_DECISIVE, code, "" if by_code == _RATE_LIMIT else message)  # rate limits mention tokens too
    if decisive is not None:
        return decisive
    if by_status not in (None, _BAD_REQUEST):
        return str(by_status)
    return by_code or by_class or by_status or _OTHER


def _match(patterns: Patterns, *texts: str) -> str | None:
    """Return the first category that matches, by the order of the texts, then of the patterns."""
    for text in texts:
        for category, pattern in patterns:
            if pattern.search(text):
                return category
    return None


def _from_status(status: int | None) -> str | None:
    if status is None or status < 400:  # noqa: PLR2004  the first status that is an error
        return None
    return _STATUSES.get(status) or ("server" if status >= 500 else _BAD_REQUEST)  # noqa: PLR2004  HTTP's own classes


def _status(exc: BaseException) -> int | None:
    """The HTTP status, as kept by httpx, openai, google, aiohttp, requests or botocore."""
    response = getattr(exc, "response", None)
    places = (
        getattr(exc, "status_code", None),
        getattr(exc, "http_status", None),
        getattr(exc, "status", None),
        getattr(exc, "code", None),
        getattr(response, "status_code", None),
        getattr(response, "status", None),
        _at(response, "ResponseMetadata", "HTTPStatusCode"),
        _at(_body(exc), "code"),
        _at(_body(exc), "error", "code"),
    )
    return next((place for place in places if isinstance(place, int) and place in _HTTP), None)


def _code(exc: BaseException) -> str:
    """The provider's error codes; empty if there are none."""
    body = _body(exc)
    places = (
        getattr(exc, "code", None),
        getattr(exc, "type", None),
        getattr(exc, "status", None),
        _at(body, "code"),
        _at(body, "type"),
        _at(body, "error", "code"),
        _at(body, "error", "type"),
        _at(body, "error", "status"),
        _at(getattr(exc, "details", None), "error", "status"),
        _at(getattr(exc, "response", None), "Error", "Code"),
    )
    return " ".join(place for place in places if isinstance(place, str))


def _body(exc: BaseException) -> object:
    """The provider's error body: SDKs keep it on the exception, LangChain raises it as a ValueError."""
    body = getattr(exc, "body", None)
    if body is None and len(exc.args) == 1 and isinstance(exc.args[0], Mapping):
        return exc.args[0]
    return body


def _text(exc: BaseException) -> str:
    """The error's text, shortened; it is only searched and never stored."""
    body = _body(exc)
    message = _at(body, "error", "message") or _at(body, "message") or getattr(exc, "message", None)
    if not isinstance(message, str) or isinstance(body, str):
        message = f"{exc} {body}" if isinstance(body, str) else str(exc)  # xAI's body is a plain text
    return message[:_MAX_TEXT]


def _at(value: object, *keys: str) -> object:
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
