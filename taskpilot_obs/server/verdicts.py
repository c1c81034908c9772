"""Feedback over HTTP: one verdict a request, however often and from wherever it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse

from taskpilot_obs.records import Feedback, Origin
from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.server import params
from taskpilot_obs.server.access import Writing
from taskpilot_obs.server.examples import EXAMPLES
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.problems import PROBLEMS, ProblemRoute
from taskpilot_obs.server.shapes import Accepted, UserVerdict
from taskpilot_obs.store import Store
from taskpilot_obs.store.rows import FEEDBACK_COMMENT, rows_of
from taskpilot_obs.store.writer import Writer

Keep = Callable[[Feedback], None]
"""Where a verdict goes."""
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=256, description="The same key twice is the same verdict, whatever came between."),
]


def feedback_routes(keep: Keep) -> APIRouter:
    """`POST /v1/feedback`, which hands each verdict to `keep`."""
    routes = APIRouter(prefix="/v1", route_class=ProblemRoute, responses=PROBLEMS)

    @routes.post(
        "/feedback",
        status_code=HTTPStatus.ACCEPTED,
        response_model=Accepted,
        responses={202: {"content": {"application/json": {"example": EXAMPLES["/feedback"]}}}},
    )
    def feedback(
        verdict: UserVerdict,
        writer: Writing,
        _: Annotated[params.Query, Query()],
        idempotency_key: IdempotencyKey = None,
    ) -> JSONResponse:
        """Say whether the answer to a request was right.

        A request has one verdict: sent again it changes nothing, the opposite one revises it. It may come days later,
        before the request's own records, and to any replica.
        """
        keep(feedback_of(verdict, writer, idempotency_key))
        accepted = Accepted(request_id=verdict.request_id, correct=verdict.correct)
        return JSONResponse(accepted.model_dump(), HTTPStatus.ACCEPTED)

    return routes


def feedback_of(verdict: UserVerdict, writer: Principal, idempotency_key: str | None) -> Feedback:
    """The record of a verdict; its comment is redacted here."""
    attributes = {}
    if verdict.comment is not None:
        attributes[FEEDBACK_COMMENT] = _REDACTOR.text(verdict.comment)
    if idempotency_key is not None:
        attributes["feedback_id"] = _identifier(writer, idempotency_key)
    return Feedback(
        verdict.request_id,
        verdict.correct,
        revision=False,
        origin=Origin(request_id=verdict.request_id, tenant=writer.tenant, user=verdict.user_id),
        time_unix_ns=time.time_ns(),
        attributes=attributes,
    )


_REDACTOR: Final = Redactor()


def _identifier(writer: Principal, key: str) -> str:
    """Of one tenant alone, so that no tenant can use up the key of another."""
    return sha256(f"{writer.tenant!r}:{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def into_store(store: Store) -> Keep:
    """Write each verdict at once, so that it is safe when the sender gets its answer."""
    return lambda feedback: Writer(store).write(rows_of([feedback]))


def into_recorder(feedback: Feedback) -> None:
    """Hand each verdict to the default recorder: metrics, audit log, and the store that this process writes to."""
    from taskpilot_obs.config import get_recorder

    get_recorder().emit(feedback)
