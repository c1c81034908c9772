"""Logging a browser in and out, and the buttons on a request's page."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from taskpilot_obs.server.access import host_of
from taskpilot_obs.server.blocks import Page
from taskpilot_obs.server.bodies import MAX_BODY_BYTES, limited
from taskpilot_obs.server.problems import Problem, as_problem
from taskpilot_obs.server.sessions import COOKIE, LASTS_S
from taskpilot_obs.server.shapes import UserVerdict
from taskpilot_obs.server.tokens import digest_of
from taskpilot_obs.server.verdicts import feedback_of, into_store
from taskpilot_obs.server.web import Site, base_of

LOGIN_COOKIE: Final = "taskpilot_obs_login"
_LOGIN_LASTS_S: Final = 600
_PAGE: Final = Page("Log in", "", ())


def login_router(site: Site) -> APIRouter:
    """`/login`, `/logout` and the verdict of a request's page."""
    routes = APIRouter(include_in_schema=False)
    forms = _Forms(site)
    routes.add_route("/login", forms.show, methods=["GET", "HEAD"])
    routes.add_route("/login", forms.login, methods=["POST"])
    routes.add_route("/logout", forms.logout, methods=["POST"])
    routes.add_route("/requests/{request_id:path}/feedback", forms.feedback, methods=["POST"])
    return routes


class _Forms:
    """What browsers post."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._door = site.doorkeeper
        self._keep = into_store(site.services.store)

    async def show(self, http: Request) -> Response:
        """Show the form; without tokens there is no login."""
        if self._door.tokens is None:
            return RedirectResponse(f"{base_of(http)}/", HTTPStatus.SEE_OTHER)
        return self._form(http, _local_path(http.query_params.get("next")))

    def _form(self, http: Request, following: str, problem: HTTPException | None = None) -> Response:
        nonce = secrets.token_urlsafe(16)
        status = HTTPStatus.OK if problem is None else HTTPStatus(problem.status_code)
        shown = self._site.render(
            "login.html",
            http,
            status,
            page=_PAGE,
            here="/login",
            principal=None,
            login_csrf=nonce,
            next=following,
            problem="" if problem is None else problem.detail,
            headers=None if problem is None else problem.headers,
        )
        _set_cookie(http, shown, LOGIN_COOKIE, nonce, _LOGIN_LASTS_S)
        return shown

    async def login(self, http: Request) -> Response:
        """Open a session for a caller with a valid token."""
        try:
            fields = await _fields(http)
            nonce = http.cookies.get(LOGIN_COOKIE, "")
            if not nonce or not hmac.compare_digest(nonce.encode(), fields.get("csrf", "").encode("utf-8", "replace")):
                raise Problem(HTTPStatus.FORBIDDEN, "the form is too old; send it again")
            token = fields.get("token", "").strip()
            principal = self._door.principal_of(token, http)
        except HTTPException as error:
            following = _local_path(fields.get("next")) if "fields" in locals() else "/"
            return self._form(http, following, error)
        answer = RedirectResponse(base_of(http) + _local_path(fields.get("next")), HTTPStatus.SEE_OTHER)
        if self._door.sessions is not None:
            cookie = self._door.sessions.open(principal, digest_of(token))
            _set_cookie(http, answer, COOKIE, cookie, LASTS_S)
        answer.delete_cookie(LOGIN_COOKIE, path=_cookie_path(http))
        return answer

    async def logout(self, http: Request) -> Response:
        """End the session."""
        try:
            self._check(http, await _fields(http))
        except HTTPException as error:
            return self._site.error(http, error)
        answer = RedirectResponse(f"{base_of(http)}/login", HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE, path=_cookie_path(http))
        return answer

    async def feedback(self, http: Request) -> Response:
        """Record a verdict from a request's page."""
        request_id = str(http.path_params["request_id"])
        try:
            fields = await _fields(http)
            self._check(http, fields)
            principal = self._door.session(http) if self._door.tokens is not None else await self._door.who(http)
            if principal is None or not principal.may_write:
                raise Problem(HTTPStatus.FORBIDDEN, "this session may not write")
            if fields.get("correct") not in ("true", "false"):
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "correct: allowed are true and false")
            verdict = UserVerdict(request_id=request_id[:256], correct=fields["correct"] == "true")
            await asyncio.to_thread(self._keep, feedback_of(verdict, principal, None))
        except (HTTPException, ValueError) as error:
            problem = as_problem(error) or Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the form cannot be read")
            return self._site.error(http, problem)
        return RedirectResponse(f"{base_of(http)}/requests/{quote(request_id, safe='')}", HTTPStatus.SEE_OTHER)

    def _check(self, http: Request, fields: Mapping[str, str]) -> None:
        """Refuse requests that another site's page sends in the user's name."""
        if not _is_own_site(http):
            raise Problem(HTTPStatus.FORBIDDEN, "the form came from another site")
        if self._door.tokens is not None and not self._door.has_csrf(http, fields.get("csrf", "")):
            raise Problem(HTTPStatus.FORBIDDEN, "the form is too old; reload the page and send it again")


async def _fields(http: Request) -> dict[str, str]:
    body = await limited(http, MAX_BODY_BYTES).body()
    try:
        parsed = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the form cannot be read") from error
    return {name: values[-1] for name, values in parsed.items()}


def _is_own_site(http: Request) -> bool:
    site = http.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = http.headers.get("origin")
    return origin is None or host_of(origin.partition("://")[2]) == host_of(http.headers.get("host", ""))


def _local_path(given: str | None) -> str:
    """The target after the login: a page of this server, never another site."""
    if not given or not given.startswith("/") or given.startswith(("//", "/\\")) or not given.isprintable():
        return "/"
    return given


def _cookie_path(http: Request) -> str:
    return base_of(http) or "/"


def _set_cookie(http: Request, answer: Response, name: str, value: str, lasts_s: int) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=lasts_s,
        path=_cookie_path(http),
        secure=http.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
