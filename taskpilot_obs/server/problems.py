"""Errors as problem documents (RFC 9457): what was wrong, and what is allowed, without stack traces."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import ConfigurationError, SourceError, StoreError
from taskpilot_obs.server.bodies import MAX_BODY_BYTES, limited

MEDIA_TYPE: Final = "application/problem+json"
_LONGEST: Final = 300
"""Maximum characters of a value that is repeated in a message."""


class Problem(HTTPException):
    """An answer that is an error.

    Args:
        status: the HTTP status.
        detail: a sentence that explains the problem.
        headers: further headers.
        errors: what was wrong with which parameter.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[ParameterError] = (),
    ) -> None:
        super().__init__(status.value, detail, dict(headers) if headers else None)
        self.errors = errors


class ParameterError(BaseModel):
    """One parameter that cannot be taken."""

    parameter: str
    message: str


class ProblemDocument(BaseModel):
    """A problem document of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ParameterError] | None = None


def problem_response(error: HTTPException) -> Response:
    """The document that stands for an error."""
    status = HTTPStatus(error.status_code)
    errors = list(getattr(error, "errors", ())) or None
    document = ProblemDocument(title=status.phrase, status=status.value, detail=str(error.detail), errors=errors)
    return JSONResponse(
        document.model_dump(exclude_none=True), status.value, headers=error.headers, media_type=MEDIA_TYPE
    )


def as_problem(error: Exception) -> HTTPException | None:
    """Convert an error of the library to a problem; None for other errors."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, ConfigurationError):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    if isinstance(error, StoreError):
        log_failure("server", error)
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the telemetry store cannot be asked now; the log says why")
    if isinstance(error, SourceError):
        log_failure("server", error)
        return Problem(HTTPStatus.BAD_GATEWAY, "the Prometheus server cannot be asked now; the log says why")
    return None


def _invalid(error: RequestValidationError) -> Problem:
    errors = [_parameter_error(found) for found in error.errors()]
    detail = "; ".join(f"{one.parameter}: {one.message}" for one in errors)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _parameter_error(found: Mapping[str, Any]) -> ParameterError:
    place = [str(part) for part in found["loc"][1:]] or [str(part) for part in found["loc"]]
    if found["type"] == "extra_forbidden":
        return ParameterError(parameter=".".join(place)[:_LONGEST], message="unknown; see /openapi.json")
    message = str(found["msg"]).removeprefix("Value error, ")
    return ParameterError(parameter=".".join(place)[:_LONGEST], message=message)


class ProblemRoute(APIRoute):
    """A route whose errors are problem documents, and whose bodies are bounded, in any application."""

    max_body_bytes = MAX_BODY_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with both around it."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(limited(request, self.max_body_bytes))
            except (HTTPException, RequestValidationError, ConfigurationError, StoreError, SourceError) as error:
                problem = as_problem(error)
                if problem is None:
                    raise
                return problem_response(problem)

        return handled


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ProblemDocument, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in (
        (401, "No token, or a wrong one."),
        (403, "The token may not do this."),
        (422, "A parameter is wrong or unknown; the document says what is allowed."),
        (429, "Too many wrong tokens from this address."),
        (503, "The telemetry store cannot be asked now."),
    )
}
"""For OpenAPI: what every route may answer."""
