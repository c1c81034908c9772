"""One tenant's token learns nothing of another tenant, and no token opens more than its role."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from _serving import PRESENT, bearer, benchmark_run, budget_store_of, fill, present, requests_of, serving, tokens_in
from _stored import new_store, store_at, task
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url
from starlette.testclient import TestClient

from taskpilot_obs.budgets import Budget
from taskpilot_obs.server import create_app
from taskpilot_obs.server.web import PAGES

BUDGETS = [
    Budget("everyone", limit_usd=10),
    Budget("each", limit_usd=1, scope={"tenant": "*"}),
    Budget("ours", limit_usd=1, scope={"tenant": "acme"}),
    Budget("theirs", limit_usd=1, scope={"tenant": "globex"}),
    Budget("alike", limit_usd=1, scope={"tenant": "*me*"}),
]
THEIR_TEST = {"experiment": "globex-test", "variant": "v1", "experiment_unit": "1"}
NAMES = ["acme", "globex", "acme-agent", "globex-agent", "acme-flow", "globex-flow", "globex-prompt", "globex-user"]
POOL: dict[str, list[str]] = {
    "tenant": ["acme", "globex", "*", "__none__"],
    "provider": ["openai", "anthropic", "globex", "x"],
    "model": ["gpt-4o", "claude-sonnet-4", "x"],
    "status": ["success", "error", "wrong"],
    "period": ["1h", "30m", "30d", "month", "day", "soon"],
    "window": ["1h", "30d", "0s"],
    "start": ["2026-03-10", "2026-03-10T12:10:00Z", "2000-01-01"],
    "end": ["2026-03-10", "2026-03-10T12:20:00Z"],
    "start_date": ["2026-03-10", "2026-03-10T12:10:00Z"],
    "end_date": ["2026-03-10", "2026-03-10T12:20:00Z"],
    "group_by": ["provider", "model", "prompt", "day", "tenant"],
    "by": ["model", "provider", "agent", "tenant"],
    "limit": ["1", "3", "1000", "0"],
    "min_cost": ["0", "0.005", "x"],
    "run": ["run-1", "x"],
    "primary": ["success", "cost", "p95", "x"],
    "shares": ["v1=0.5,v2=0.5", "v1=0.9,globex=0.1", "v1=2", "x"],
    "request_id": ["acme-1", "globex-1", "nothing"],
    "table": ["calls", "tenants", "shares", "models", "steps"],
    "timezone": ["Europe/Berlin", "Mars/Olympus"],
    "source": ["store", "prometheus"],
    "strict": ["0", "1", "2"],
    "cursor": ["abc", "WzE3NzMxNDQwMDAwMDAwMDAsIngiLCJ5Il0"],
    "_next": ["abc"],
}


class Pair:
    """The same server twice: over a store of acme alone, and over one that holds globex too."""

    def __init__(self, alone: FastAPI, beside: FastAPI, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.alone, self.beside = (
            TestClient(app, base_url="http://testserver", client=("127.0.0.1", 1), follow_redirects=False)
            for app in (alone, beside)
        )

    def ask(self, path: str, parameters: dict[str, str], token: str = "acme") -> Any:  # noqa: S107  a name
        """What one token is answered, which must not depend on the other tenant."""
        header = bearer(self.tokens[token])
        first, second = (client.get(path, params=parameters, headers=header) for client in (self.alone, self.beside))
        assert first.status_code == second.status_code, (path, parameters)
        assert first.content == second.content, (path, parameters)
        assert dict(first.headers) == dict(second.headers), (path, parameters)
        return first


@pytest.fixture(scope="module")
def pair(engine_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Pair]:
    other = new_store(request, tmp_path_factory.mktemp("beside"), engine=make_url(engine_url).get_backend_name())
    file, tokens = tokens_in(tmp_path_factory.mktemp("tokens"))
    ours, theirs = requests_of("acme", 12), requests_of("globex", 9, seed=5)
    with store_at(engine_url) as alone, store_at(other) as beside:
        fill(alone, ours)
        fill(beside, theirs)
        fill(beside, ours)
        fill(beside, requests_of("globex", 3, seed=6, spread_s=60 * 86_400))
        fill(beside, [task(PRESENT - timedelta(minutes=1), tenant="globex", attributes=THEIR_TEST)])
        benchmark_run(beside)
        kept_in = budget_store_of(alone, tmp_path_factory.mktemp("budgets"))
        first, second = (
            create_app(store=one, tokens=file, budgets=BUDGETS, budget_store=kept_in, now=present)
            for one in (alone, beside)
        )
        yield Pair(first, second, tokens)


def paths(pair: Pair) -> list[str]:
    """Every path that answers a GET."""
    documented = [path for path, methods in pair.alone.get("/openapi.json").json()["paths"].items() if "get" in methods]
    pages = [shown.path if shown.path != "/" else "/overview" for shown in PAGES]
    shown = ["/", *[page for page in pages if page != "/overview"]]
    return [
        *documented,
        *shown,
        *[page + ending for page in pages for ending in (".json", ".csv")],
        "/requests/{request_id}",
        *["/experiments/{name}" + ending for ending in ("", ".json", ".csv")],
    ]


def filled_in(path: str, request_id: str = "acme-1", experiment: str = "plan-test") -> str:
    """A path with its parameters."""
    return path.replace("{request_id}", request_id).replace("{name}", experiment)


@pytest.mark.promise("tenants-apart")
def test_every_route_answers_as_if_there_were_no_other_tenant(pair: Pair) -> None:
    """With the defaults, equal bytes whether the store holds another tenant or not."""
    for path in paths(pair):
        for request_id in ("acme-1", "globex-1", "nothing"):
            found = pair.ask(filled_in(path, request_id), {})
            assert "globex" not in found.text.replace("globex-1", ""), path


@pytest.mark.promise("tenants-apart")
@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_filter_cursor_order_or_error_tells_of_another_tenant(pair: Pair, data: st.DataObject) -> None:
    """Any route, any of its parameters, any values, also the other tenant's: the same bytes either way."""
    path = data.draw(st.sampled_from(paths(pair)))
    names = data.draw(
        st.lists(st.sampled_from(sorted({*POOL, "agent", "workflow", "prompt_name", "user"})), max_size=4)
    )
    parameters = {name: data.draw(st.sampled_from(POOL.get(name, NAMES)), label=name) for name in names}
    request_id = data.draw(st.sampled_from(["acme-1", "globex-1", "nothing"]))
    experiment = data.draw(st.sampled_from(["plan-test", "globex-test", "nothing"]))
    found = pair.ask(filled_in(path, request_id, experiment), parameters)
    assert found.status_code in (200, 403, 404, 422, 503)


def test_cursors_lead_through_the_own_calls_alone(pair: Pair) -> None:
    """Page by page, each is the same, and together they are the tenant's calls."""
    parameters, found = {"limit": "5"}, []
    while True:
        page = pair.ask("/v1/benchmarks/traces", parameters).json()
        found += [call["organization_id"] for call in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters = {"limit": "5", "cursor": page["next_cursor"]}
    assert found == ["acme"] * 24


def test_a_cursor_of_another_tenant_shows_own_calls_only(pair: Pair) -> None:
    """It names a place in time, and opens nothing."""
    theirs = pair.beside.get("/v1/benchmarks/traces?limit=2", headers=bearer(pair.tokens["globex"])).json()
    page = pair.beside.get(
        "/v1/benchmarks/traces",
        params={"cursor": theirs["next_cursor"], "limit": "2"},
        headers=bearer(pair.tokens["acme"]),
    )
    assert {call["organization_id"] for call in page.json()["items"]} <= {"acme"}


def test_the_token_decides_the_tenant(pair: Pair) -> None:
    """To name any tenant is refused, own or other, with the same words; a token of all may choose."""
    refusals = {pair.ask("/v1/stats", {"tenant": name}).text for name in ("acme", "globex", "nobody")}
    assert len(refusals) == 1
    root = pair.beside.get(
        "/v1/stats", params={"tenant": "globex", "period": "1h"}, headers=bearer(pair.tokens["root"])
    )
    assert root.json()["requests"] == 18


def test_experiments_are_told_by_the_own_tasks_alone(pair: Pair) -> None:
    """An experiment that runs for two tenants has the units of the one who asks; another's has no name and no page."""
    (own,) = pair.ask("/v1/experiments", {}).json()
    assert (own["experiment"], own["tasks"]) == ("plan-test", 12)
    assert sum(arm["tasks"] for arm in pair.ask("/v1/experiments/plan-test", {}).json()["arms"]) == 12
    theirs = pair.beside.get("/v1/experiments/globex-test", headers=bearer(pair.tokens["globex"]))
    assert theirs.status_code == 200
    unknown = {pair.ask(f"/v1/experiments/{name}", {}).text for name in ("globex-test", "nothing")}
    assert len(unknown) == 1


def test_benchmark_runs_are_for_tokens_of_every_tenant(pair: Pair) -> None:
    """They belong to no tenant, so a token of one is refused, whether there are runs or not."""
    assert pair.ask("/v1/benchmark-runs", {}).status_code == 403
    assert "run-1" not in pair.ask("/benchmarks", {"period": "30d"}).text
    (run,) = pair.beside.get("/v1/benchmark-runs", headers=bearer(pair.tokens["root"])).json()
    assert run["run_id"] == "run-1"


def test_budgets_are_those_about_the_tenant_alone(pair: Pair) -> None:
    """Not those of everyone, of a pattern or of others."""
    found = pair.ask("/v1/budgets", {}).json()
    assert {line["budget"] for line in found} <= {"each", "ours"}
    assert {line["budget"] for line in found} >= {"ours"}


def test_feedback_on_anothers_request_stays_with_who_sent_it(pair: Pair) -> None:
    """A writer of acme can name a request of globex; globex sees no trace of it."""
    before = pair.beside.get("/v1/runs/globex-2", headers=bearer(pair.tokens["globex"])).content
    sent = pair.beside.post(
        "/v1/feedback", json={"request_id": "globex-2", "correct": False}, headers=bearer(pair.tokens["writer"])
    )
    assert sent.status_code == 202
    assert pair.beside.get("/v1/runs/globex-2", headers=bearer(pair.tokens["globex"])).content == before
    pair.alone.post(
        "/v1/feedback", json={"request_id": "globex-2", "correct": False}, headers=bearer(pair.tokens["writer"])
    )


def test_roles(pair: Pair) -> None:
    """A viewer does not write, a writer does not read, an admin does both, and none without a token."""
    body = {"request_id": "acme-1", "correct": True}
    for name, reads, writes in (("acme", 200, 403), ("writer", 403, 202), ("owner", 200, 202), ("root", 200, 202)):
        header = bearer(pair.tokens[name])
        for path in ("/v1/stats", "/v1/runs/acme-1", "/health/golden", "/costs", "/costs.csv", "/calls.json"):
            assert pair.alone.get(path, headers=header).status_code in (reads, 503 if reads == 200 else reads), path
        assert pair.alone.post("/v1/feedback", json=body, headers=header).status_code == writes


def test_without_a_token_nothing_is_told(pair: Pair) -> None:
    """Every route but the probes, the schema and the login: 401, or a way to the login for browsers."""
    for path in paths(pair):
        found = pair.beside.get(filled_in(path))
        if path in ("/health/live", "/health/ready"):
            assert set(found.json()) <= {"status", "store"}
        elif found.status_code == 303:
            assert found.headers["location"].startswith("/login?next=")
        else:
            assert found.status_code == 401, path
            assert found.headers["www-authenticate"] == "Bearer"
            assert "acme" not in found.text


def test_over_http_too(pair: Pair) -> None:
    """By uvicorn, on a socket: the same answer for the same token."""
    with serving(pair.beside.app) as url:  # type: ignore[arg-type]  # a FastAPI application
        found = httpx.get(f"{url}/v1/stats", headers=bearer(pair.tokens["acme"]))
    assert found.json() == pair.ask("/v1/stats", {}).json()
