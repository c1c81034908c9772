"""Bodies of requests, bounded before they are read."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import Message

MAX_BODY_BYTES: Final = 64 * 1024


def limited(request: Request, limit: int) -> Request:
    """Return the request with a body that cannot be read beyond `limit` bytes.

    Raises:
        HTTPException: 413, immediately if the stated length is too large, else from the read that exceeds the limit.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated[:20]) > limit:
        raise _too_large(limit)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return Request(request.scope, receive, request._send)  # noqa: SLF001  FastAPI needs it to see who went away


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value,
        f"the body has more than {limit} bytes",
        {"Connection": "close"},
    )
