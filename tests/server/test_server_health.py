"""Health for probes, feedback from anywhere, and the server's own metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from _serving import PRESENT, bearer, fill, present, requests_of, serving, tokens_in
from _stored import sqlite_url, store_at, task
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from taskpilot_obs.golden_signals.from_store import signals_from_store
from taskpilot_obs.records import Status
from taskpilot_obs.server import Principal, create_app, feedback_router, health_router, router
from taskpilot_obs.stats import get_run_tree, get_stats
from taskpilot_obs.store import Store


def local(app: FastAPI) -> TestClient:
    """A client on this machine."""
    return TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("ended", "status", "plain", "strict"),
    [
        ([], "insufficient_data", 200, 200),
        ([Status.SUCCESS] * 20, "healthy", 200, 200),
        ([Status.SUCCESS] * 37 + [Status.ERROR] * 3, "warning", 200, 503),
        ([Status.SUCCESS, Status.ERROR], "critical", 503, 503),
    ],
)
def test_golden_health(store: Store, ended: list[Status], status: str, plain: int, strict: int) -> None:
    """Healthy, warning and no evidence are 200, critical is 503; `strict=1` makes a warning 503."""
    fill(store, [task(PRESENT - timedelta(minutes=1), status=one, duration_s=0.5) for one in ended])
    asked = local(create_app(store=store, now=present))
    assert asked.get("/health/golden").json()["status"] == status
    assert asked.get("/health/golden").status_code == plain
    assert asked.get("/health/golden?strict=1").status_code == strict
    assert asked.head("/health/golden").status_code == plain


def test_a_probe_a_second_costs_nothing(store: Store) -> None:
    """A hundred probes at once ask the store once."""
    app = create_app(store=store, now=present)
    with mock.patch("taskpilot_obs.server.questions.signals_from_store", wraps=signals_from_store) as signals:
        codes = {local(app).get("/health/golden").status_code for _ in range(100)}
    assert codes == {200}
    assert signals.call_count == 1
    with mock.patch.object(store, "require_current", wraps=store.require_current) as checked:
        for path in ("/health/ready", "/health/live") * 50:
            assert local(app).get(path).status_code == 200
    assert checked.call_count <= 2


def test_readiness_looks_at_prometheus_where_it_is_configured(store: Store) -> None:
    """503 while the server is away."""
    assert local(create_app(store=store, prometheus="http://127.0.0.1:9")).get("/health/ready").json() == {
        "status": "unavailable",
        "store": "ok",
        "prometheus": "unavailable",
    }


def test_many_readers_of_one_question_cost_as_much_as_one(store: Store) -> None:
    """Within a second, for one tenant; another question is asked for itself."""
    fill(store, requests_of("acme", 1))
    asked = local(create_app(store=store, now=present))
    with mock.patch("taskpilot_obs.server.questions.get_stats", wraps=get_stats) as answered:
        bodies = {asked.get("/v1/stats").content for _ in range(20)}
        assert len(bodies) == 1
        assert answered.call_count <= 2  # a slow machine may take longer than a second
        before = answered.call_count
        asked.get("/v1/stats?provider=openai")
        assert answered.call_count == before + 1


def verdicts(store: Store) -> tuple[float | None, float]:
    """The golden signal and how many verdicts it rests on."""
    signals = signals_from_store("9999d", store=store)
    evidence = signals.evidence["user_confirmed_correctness_percent"]
    return signals.user_confirmed_correctness_percent, evidence.denominator


def test_feedback_is_idempotent_and_revisable_from_any_replica(tmp_path: Path) -> None:
    """Two servers over one store: a verdict counts once, the opposite revises it, a repeated key changes nothing."""
    with (
        store_at(sqlite_url(tmp_path)) as first,
        store_at(sqlite_url(tmp_path)) as second,
        serving(create_app(store=first)) as one,
        serving(create_app(store=second)) as two,
    ):

        def say(url: str, correct: bool, key: str | None = None) -> int:
            headers = {"Idempotency-Key": key} if key else {}
            body = {"request_id": "r1", "correct": correct, "user_id": "ann"}
            return httpx.post(f"{url}/v1/feedback", json=body, headers=headers).status_code

        assert [say(one, True), say(two, True), say(one, True)] == [202] * 3
        assert verdicts(first) == (100.0, 1)
        assert say(two, False, "k1") == 202
        assert verdicts(first) == (0.0, 1)
        assert [say(one, True, "k2"), say(two, False, "k1")] == [202, 202]
        assert verdicts(second) == (100.0, 1)


def test_feedback_before_and_long_after_its_run(store: Store) -> None:
    """It is accepted before the request is in the store, and is on its tree when the run comes."""
    asked = local(create_app(store=store))
    assert asked.post("/v1/feedback", json={"request_id": "r1", "correct": False}).status_code == 202
    fill(store, [task(request_id="r1", tenant="acme")])
    tree = get_run_tree("r1", store=store)
    assert tree is not None
    assert [line.correct for line in tree.feedback] == [False]
    assert signals_from_store("9999d", store=store, tenant="acme").user_confirmed_correctness_percent == 0.0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request_id": "r"},
        {"request_id": "", "correct": True},
        {"request_id": "r", "correct": "yes"},
        {"request_id": "r", "correct": 1},
        {"request_id": "r", "correct": True, "colour": "red"},
        {"request_id": "r" * 257, "correct": True},
        {"request_id": "r", "correct": True, "comment": "x" * 2_001},
        [],
        "text",
    ],
)
def test_wrong_feedback_is_refused(store: Store, body: Any) -> None:
    """422 that names the field."""
    answer = local(create_app(store=store)).post("/v1/feedback", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_comment_is_redacted_before_it_is_kept(store: Store, tmp_path: Path) -> None:
    """An address in it reaches neither the rows nor the file."""
    body = {"request_id": "r1", "correct": True, "comment": "mail jane.doe@example.com about it"}
    asked = local(create_app(store=store))
    assert asked.post("/v1/feedback", json=body).status_code == 202
    (line,) = asked.get("/v1/runs/r1").json()["feedback"]
    assert line["comment"].startswith("mail ")
    assert asked.post("/v1/feedback", json={**body, "comment": "still right"}).status_code == 202
    (line,) = asked.get("/v1/runs/r1").json()["feedback"]
    assert line["comment"] == "still right"
    store.close()
    written = b"".join(file.read_bytes() for file in tmp_path.glob("telemetry.db*"))
    assert b"jane.doe@example.com" not in written


def me() -> Principal:
    """The application's own authentication."""
    return Principal("me", "admin", "acme")


@pytest.fixture
def own(store: Store) -> Iterator[str]:
    """An application of one's own with the routers in it."""
    fill(store, [*requests_of("acme", 3), *requests_of("globex", 3)])
    app = FastAPI()
    app.include_router(router(store=store, who=me), prefix="/observability")
    app.include_router(health_router(store=store, who=me))
    app.include_router(feedback_router(store=store, who=me), prefix="/only")
    with serving(app) as url:
        yield url


def test_routers_in_an_application_of_ones_own(own: str) -> None:
    """Under its own paths and authentication: the tenant is what the application says, and errors are problems."""
    found = httpx.get(f"{own}/observability/v1/stats", params={"period": "3660d"}).json()
    assert found["requests"] == 6
    assert httpx.get(f"{own}/observability/v1/stats?tenant=globex").status_code == 403
    refused = httpx.get(f"{own}/observability/v1/stats?colour=red")
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert httpx.get(f"{own}/health/ready").json()["status"] == "ok"
    body = {"request_id": "acme-1", "correct": True}
    assert httpx.post(f"{own}/only/v1/feedback", json=body).status_code == 202
    assert httpx.post(f"{own}/observability/v1/feedback", content=b"x" * 65_537).status_code == 413
    assert httpx.get(f"{own}/openapi.json").status_code == 200


def test_the_servers_own_metrics(store: Store, tmp_path: Path) -> None:
    """Requests by route as declared, their time, and spans; for a token of every tenant only."""
    file, tokens = tokens_in(tmp_path)
    with serving(create_app(store=store, tokens=file)) as url:
        for path in ("/v1/runs/a", "/v1/runs/b", "/nope", "/v1/stats"):
            httpx.get(url + path, headers=bearer(tokens["root"]))
        assert httpx.get(f"{url}/metrics", headers=bearer(tokens["acme"])).status_code == 403
        assert httpx.get(f"{url}/metrics").status_code == 401
        text = httpx.get(f"{url}/metrics", headers=bearer(tokens["root"])).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    requests = {
        (sample.labels["route"], sample.labels["status_code"]): sample.value
        for sample in families["taskpilot_obs_server_requests"].samples
        if sample.name.endswith("_total")
    }
    assert requests["/v1/runs/{request_id}", "404"] == 2
    assert requests["/v1/stats", "200"] == 1
    assert not [route for route, _ in requests if "nope" in route]
    assert "taskpilot_obs_server_request_duration_seconds" in families
    assert "taskpilot_obs_server_spans" in families


def test_prometheus_answers_for_the_fleet(store: Store, tmp_path: Path) -> None:
    """A token of one tenant is refused: Prometheus cannot tell tenants apart."""
    file, tokens = tokens_in(tmp_path)
    app = create_app(store=store, tokens=file, prometheus="http://127.0.0.1:9")
    asked = TestClient(app)
    path = "/v1/golden-signals?source=prometheus"
    assert asked.get(path, headers=bearer(tokens["acme"])).status_code == 403
    answer = asked.get(path, headers=bearer(tokens["root"]))
    assert (answer.status_code, "127.0.0.1" in answer.text) == (502, False)
