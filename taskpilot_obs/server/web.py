"""Pages over HTTP: `/costs` for people, `/costs.json` and `/costs.csv` for programs, from one question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from taskpilot_obs._support.charts import STYLE
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.server.access import Doorkeeper
from taskpilot_obs.server.blocks import Page, as_csv, as_json, tables
from taskpilot_obs.server.pages import (
    benchmarks,
    budgets,
    calls,
    costs,
    experiments,
    overview,
    request,
    tenants,
)
from taskpilot_obs.server.pages.query import PageQuery
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.problems import Problem, as_problem, problem_response
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.server.services import Services

HERE: Final = Path(__file__).parent
TONES: Final = {"healthy": "ok", "warning": "warn", "critical": "bad", "insufficient_data": "none"}
WORDS: Final = {
    "healthy": "healthy",
    "warning": "warning",
    "critical": "critical",
    "insufficient_data": "not enough data",
}
_A_DAY: Final = "public, max-age=86400, immutable"
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Shown(NamedTuple):
    """One page of the server."""

    path: str
    label: str
    query: type[PageQuery]
    build: Callable[..., Page]


PAGES: Final = (
    Shown("/", "Overview", overview.OverviewQuery, overview.build),
    Shown("/benchmarks", "Benchmarks", benchmarks.BenchmarksQuery, benchmarks.build),
    Shown("/costs", "Costs", costs.CostsPageQuery, costs.build),
    Shown("/calls", "Calls", calls.CallsQuery, calls.build),
    Shown("/budgets", "Budgets", budgets.BudgetsQuery, budgets.build),
    Shown("/tenants", "Tenants", tenants.TenantsPageQuery, tenants.build),
    Shown("/experiments", "Experiments", experiments.ExperimentsPageQuery, experiments.build),
)
DETAILS: Final = (
    Shown("/requests/{request_id:path}", "Request", request.RequestQuery, request.build),
    Shown("/experiments/{name:path}", "Experiment", experiments.ExperimentPageQuery, experiments.build_one),
)
"""Pages about one thing, which are not in the navigation."""


def _static() -> dict[str, bytes]:
    """The files that pages load, with the style of the charts beside that of the pages."""
    found = {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir())}
    found["style.css"] += STYLE.encode()
    return found


STATIC: Final = _static()
VERSION: Final = sha256(b"".join(STATIC.values())).hexdigest()[:12]
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Site:
    """Renders pages for the application that `create_app` makes.

    Args:
        services: what the answers are made from.
        doorkeeper: says who asks.
        pages: the pages, in the order of the navigation.
    """

    services: Services
    doorkeeper: Doorkeeper
    _: KW_ONLY
    pages: tuple[Shown, ...] = PAGES

    async def html(self, shown: Shown, http: Request) -> Response:
        """Serve the page to a browser, which is sent to the login without a session; to programs its tables as JSON."""
        if _wants_json(http):
            return await self.json(shown, http)
        principal: Principal | None = None
        try:
            principal = await self.doorkeeper.who(http)
            page, ask = await self._built(shown, http, principal)
        except (HTTPException, RequestValidationError, ConfigurationError, StoreError) as error:
            problem = as_problem(error) or HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR.value)
            if problem.status_code == HTTPStatus.UNAUTHORIZED and "authorization" not in http.headers:
                return RedirectResponse(
                    f"{base_of(http)}/login?{urlencode({'next': _here(http)})}", HTTPStatus.SEE_OTHER
                )
            return self.error(http, problem, principal)
        here = _path(shown, http)
        return self.render(
            "page.html",
            http,
            page=page,
            here=here,
            principal=principal,
            now=ask.now,
            refresh=True,
            can_write=principal.may_write,
            csv=lambda key: f"{base_of(http)}{here if here != '/' else '/overview'}.csv?{_with(http, table=key)}",
        )

    async def json(self, shown: Shown, http: Request) -> Response:
        """The page's tables as JSON."""
        page, _ = await self._built(shown, http, await self.doorkeeper.who(http))
        return JSONResponse(as_json(page))

    async def csv(self, shown: Shown, http: Request) -> Response:
        """One of the page's tables as CSV; `table` names it, else it is the first.

        Raises:
            Problem: 404 where the page has no such table.
        """
        page, _ = await self._built(shown, http, await self.doorkeeper.who(http), table=http.query_params.get("table"))
        found = tables(page.blocks)
        key = http.query_params.get("table") or next(iter(found), "")
        if key not in found:
            raise Problem(HTTPStatus.NOT_FOUND, f"this page has no such table; it has {', '.join(found) or 'none'}")
        headers = {"Content-Disposition": f'attachment; filename="{key}.csv"'}
        return Response(as_csv(found[key]), media_type="text/csv; charset=utf-8", headers=headers)

    async def _built(
        self, shown: Shown, http: Request, principal: Principal, *, table: str | None = None
    ) -> tuple[Page, Questions]:
        if not principal.may_read:
            raise Problem(HTTPStatus.FORBIDDEN, "a writer's token does not read; use a viewer's or an admin's")
        given: dict[str, Any] = dict(http.query_params)
        try:
            query = shown.query.model_validate({**given, "table": table or given.get("table") or ""})
        except ValidationError as error:
            raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in error.errors()]) from error
        ask = Questions(self.services, principal)
        return await asyncio.to_thread(shown.build, ask, query, *http.path_params.values()), ask

    def error(self, http: Request, problem: HTTPException, principal: Principal | None = None) -> Response:
        """A page that says what went wrong."""
        status = HTTPStatus(problem.status_code)
        page = Page(f"{status.value} {status.phrase}", str(problem.detail), ())
        return self.render("error.html", http, status, page=page, here="", principal=principal, headers=problem.headers)

    def render(
        self,
        template: str,
        http: Request,
        status: HTTPStatus = HTTPStatus.OK,
        *,
        headers: Any = None,
        refresh: bool = False,
        **values: Any,
    ) -> Response:
        """A template with what every page needs."""
        text = _TEMPLATES.get_template(template).render(
            base=base_of(http),
            version=VERSION,
            nav=self.pages,
            tones=TONES,
            words=WORDS,
            refresh=refresh,
            csrf=self.doorkeeper.csrf(http),
            **values,
        )
        return HTMLResponse(text, status.value, headers=headers)


def site_router(site: Site) -> APIRouter:
    """Every page, and the files that they load."""
    routes = APIRouter(include_in_schema=False)
    for shown in (*site.pages, *DETAILS):
        path = "/overview" if shown.path == "/" else shown.path
        _add(routes, f"{path}.json", site.json, shown)
        _add(routes, f"{path}.csv", site.csv, shown)
    for shown in (*site.pages, *DETAILS):
        _add(routes, shown.path, site.html, shown)

    async def static(name: str) -> Response:
        """Serve a static file of the library."""
        if name not in STATIC:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such file")
        return Response(STATIC[name], media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": _A_DAY})

    async def favicon() -> Response:
        """Browsers ask for it by this name where a page names none."""
        return await static("favicon.svg")

    routes.add_api_route("/static/{name}", static)
    routes.add_api_route("/favicon.ico", favicon)
    return routes


def _add(routes: APIRouter, path: str, answer: Callable[[Shown, Request], Any], shown: Shown) -> None:
    async def endpoint(http: Request) -> Response:
        try:
            found: Response = await answer(shown, http)
        except (HTTPException, RequestValidationError, ConfigurationError, StoreError) as error:
            return problem_response(as_problem(error) or HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR.value))
        return found

    routes.add_route(path, endpoint, methods=["GET", "HEAD"])


def base_of(http: Request) -> str:
    """The path that the application is mounted under."""
    return str(http.scope.get("root_path", "")).rstrip("/")


def _wants_json(http: Request) -> bool:
    """Whether a program asks for the URL of a page: browsers accept HTML."""
    accepted = http.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


def _path(shown: Shown, http: Request) -> str:
    """The path of a page, its parameters filled in."""
    path = shown.path
    for name, value in http.path_params.items():
        path = path.replace(f"{{{name}:path}}", quote(str(value), safe=""))
    return path


def _here(http: Request) -> str:
    path = http.url.path.removeprefix(base_of(http))
    return f"{path}?{http.url.query}" if http.url.query else path


def _with(http: Request, **more: str) -> str:
    return urlencode({**dict(http.query_params), **more})
