"""The REST API over HTTP, by uvicorn, on both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from _serving import PRESENT, benchmark_run, budget_store_of, fill, present, requests_of, serving
from _stored import llm_call, store_at, task
from pydantic import TypeAdapter

from taskpilot_obs.budgets import Budget
from taskpilot_obs.compare import compare_variants
from taskpilot_obs.server import create_app
from taskpilot_obs.server.answers import answer_model
from taskpilot_obs.server.examples import EXAMPLES
from taskpilot_obs.stats import get_benchmark_runs, get_calls, get_cost_breakdown, get_series, get_stats
from taskpilot_obs.stats.series import get_spend
from taskpilot_obs.store import Store, aggregate_summaries

BUDGETS = [Budget("daily", limit_usd=10), Budget("tenants", limit_usd=1, scope={"tenant": "*"})]


@pytest.fixture(scope="module")
def full(engine_url: str) -> Iterator[Store]:
    """A store with two tenants' requests."""
    with store_at(engine_url) as store:
        fill(store, [*requests_of("acme", 25), *requests_of("globex", 10, seed=2)])
        fill(
            store,
            [
                llm_call(
                    PRESENT - timedelta(seconds=1),
                    cost=None,
                    response_model="new-model",
                    provider="someone",
                    request_id="odd",
                )
            ],
        )
        benchmark_run(store)
        yield store


@pytest.fixture(scope="module")
def budget_store(full: Store, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    return budget_store_of(full, tmp_path_factory.mktemp("budgets"))


@pytest.fixture(scope="module")
def url(full: Store, budget_store: str | None) -> Iterator[str]:
    with serving(create_app(store=full, budgets=BUDGETS, budget_store=budget_store, now=present)) as address:
        yield address


def get(url: str, path: str, **parameters: Any) -> Any:
    """The answer to a question that must be answered."""
    answer = httpx.get(url + path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_summaries_add_up_to_the_statistics(url: str, full: Store) -> None:
    """Each model has a line with the contract's fields; together they are the figures of `get_stats`."""
    lines = get(url, "/v1/benchmarks/summaries")
    stats = get_stats("30d", store=full, now=PRESENT)
    assert sum(line["total_calls"] for line in lines) == stats.requests
    assert sum(line["successful_calls"] for line in lines) == stats.successes
    assert sum(Decimal(line["total_cost"] or 0) for line in lines) == stats.cost_usd
    assert {line["model_name"] for line in lines} == set(stats.by_model)
    unknown = next(line for line in lines if line["model_name"] == "new-model")
    unpriced = ("total_cost", "total_cost_float", "avg_cost", "avg_cost_float")
    assert [unknown[name] for name in unpriced] == [None] * 4
    assert unknown["cost_coverage"] == 0.0
    wanted = "provider model_name total_calls successful_calls failed_calls success_rate avg_latency_ms p50_latency_ms"
    wanted += " p95_latency_ms p99_latency_ms total_input_tokens total_output_tokens total_reasoning_tokens"
    wanted += " total_cached_tokens total_cost avg_cost cost_coverage"
    assert set(wanted.split()) <= set(lines[0])


@pytest.mark.parametrize("group", ["provider", "model", "prompt", "day"])
def test_summaries_by_group_and_filter(url: str, group: str) -> None:
    """Groups add up to one total, and a filter keeps its part."""
    everything = sum(line["total_calls"] for line in get(url, "/v1/benchmarks/summaries", group_by=group))
    assert everything == 71
    openai = get(url, "/v1/benchmarks/summaries", group_by=group, provider="openai")
    anthropic = get(url, "/v1/benchmarks/summaries", group_by=group, provider="anthropic")
    assert sum(line["total_calls"] for line in [*openai, *anthropic]) == 70


def test_dates_bound_a_question(url: str) -> None:
    """A date as an end is included, a time is not, and both ends may have any zone."""
    day = PRESENT.date().isoformat()
    assert len(get(url, "/v1/benchmarks/traces", start_date=day, end_date=day, limit=1000)["items"]) == 71
    before = (PRESENT.date() - timedelta(days=1)).isoformat()
    assert get(url, "/v1/benchmarks/traces", start_date=before, end_date=before)["items"] == []
    zoned = f"{PRESENT - timedelta(minutes=10):%Y-%m-%dT%H:%M:%S}Z"
    utc = get(url, "/v1/benchmarks/traces", start_date=zoned, limit=1000)["items"]
    berlin = f"{PRESENT - timedelta(minutes=10) + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}+01:00"
    assert utc == get(url, "/v1/benchmarks/traces", start_date=berlin, limit=1000)["items"]
    assert 0 < len(utc) < 71


def test_traces_page_by_page(url: str, full: Store) -> None:
    """`next_cursor`, and the `Link` header, lead through every call once, newest first."""
    expected = [call.telemetry_id for call in get_calls(store=full, limit=1_000).calls]
    found: list[str] = []
    address = f"{url}/v1/benchmarks/traces?limit=9"
    while address:
        page = httpx.get(address)
        found += [call["telemetry_id"] for call in page.json()["items"]]
        address = page.links.get("next", {}).get("url", "")
        assert (page.json()["next_cursor"] is None) == (address == "")
    assert found == expected


def test_a_cursor_belongs_to_its_filters(url: str) -> None:
    """With other filters it is refused: it would skip calls in silence."""
    cursor = get(url, "/v1/benchmarks/traces", limit=1)["next_cursor"]
    refused = httpx.get(f"{url}/v1/benchmarks/traces", params={"cursor": cursor, "provider": "openai"})
    assert (refused.status_code, "other filters" in refused.json()["detail"]) == (422, True)


def test_traces_hold_no_content_and_no_internals(url: str) -> None:
    """All columns but content, bins and numbers of the store; cost as exact text and as a number."""
    call = get(url, "/v1/benchmarks/traces", limit=1, provider="openai")["items"][0]
    assert not {"error_message", "latency_bin", "series_id", "cost_nano"} & set(call)
    assert float(call["cost"]) == call["cost_float"]
    assert datetime.fromisoformat(call["created_at"]).tzinfo is not None


def test_statistics_and_costs_are_those_of_the_library(url: str, full: Store) -> None:
    """`/v1/stats` and `/v1/costs` give what `get_stats` and `get_cost_breakdown` give, money exact."""
    stats = get_stats("2h", store=full, now=PRESENT, provider="openai")
    found = get(url, "/v1/stats", period="2h", provider="openai")
    assert (found["requests"], Decimal(found["cost_usd"])) == (stats.requests, stats.cost_usd)
    assert found["latency"]["p95_ms"] == stats.latency.p95_ms
    costs = get_cost_breakdown("2h", store=full, now=PRESENT)
    found = get(url, "/v1/costs", period="2h")
    assert {name: Decimal(part["cost_usd"]) for name, part in found["by_model"].items()} == {
        name: part.cost_usd for name, part in costs.by_model.items()
    }
    month = get(url, "/v1/costs", period="month", timezone="Europe/Berlin")
    assert (month["timezone"], month["period"]) == ("Europe/Berlin", "month")


def test_tenants_budgets_providers_signals_and_runs(url: str) -> None:
    """The other questions are answered too, and by the schemas that OpenAPI states."""
    assert [line["tenant"] for line in get(url, "/v1/tenants")["tenants"]] == ["acme", "globex"]
    daily = get(url, "/v1/budgets")[0]
    assert (daily["budget"], daily["limit"], daily["limit_float"]) == ("daily", "10", 10.0)
    assert {line["provider"] for line in get(url, "/v1/benchmarks/providers")} == {"anthropic", "openai", "someone"}
    signals = get(url, "/v1/golden-signals", window="2h")
    assert (signals["runs"]["total"], signals["scope"]) == (35, "store")
    tree = get(url, "/v1/runs/acme-3")
    assert [step["depth"] for step in tree["steps"]] == [0, 1, 2, 2, 2]
    assert (tree["llm_calls"], tree["tool_calls"], len(tree["feedback"])) == (2, 1, 1)
    assert httpx.get(f"{url}/v1/runs/nothing").status_code == 404


def test_summaries_and_rows_answer_alike(url: str, full: Store, budget_store: str | None) -> None:
    """After hours and days are summed up, the same questions have the same answers; quantiles within their 1 %."""
    questions = ["/v1/benchmarks/summaries", "/v1/stats?period=30d", "/v1/costs", "/v1/tenants"]
    before = [get(url, question) for question in questions]
    aggregate_summaries("hourly", store=full, now=PRESENT + timedelta(hours=2))
    aggregate_summaries("daily", store=full, now=PRESENT + timedelta(days=2))
    app = create_app(store=full, budgets=BUDGETS, budget_store=budget_store, now=present)
    with serving(app) as fresh:  # which holds no answer of before
        for question, earlier in zip(questions, before, strict=True):
            assert _rounded(get(fresh, question)) == _rounded(earlier), question


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(held) for name, held in value.items() if not name.startswith("p9") and name[:2] != "p5"}
    if isinstance(value, list):
        return [_rounded(held) for held in value]
    return round(value, 6) if isinstance(value, float) else value


def routes(url: str) -> dict[str, Any]:
    """What OpenAPI says of each route."""
    found: dict[str, Any] = get(url, "/openapi.json")["paths"]
    return found


def test_every_answer_is_what_openapi_says(url: str) -> None:
    """Every GET route answers by its schema, and its example does too; every parameter is described."""
    from jsonschema import Draft202012Validator

    document = get(url, "/openapi.json")
    seen = 0
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            status = "202" if method == "post" else "200"
            content = told["responses"][status]["content"]["application/json"]
            schema = {**content["schema"], "components": document["components"]}
            Draft202012Validator(schema).validate(content["example"])
            assert told.get("description"), path
            if method == "get":
                answer = httpx.get(url + path.replace("{request_id}", "acme-1").replace("{name}", "plan-test"))
                assert answer.status_code == 200 or path == "/health/golden"  # these signals are critical
                Draft202012Validator(schema).validate(answer.json())
                seen += 1
    assert seen >= 12


def test_examples_are_shown_for_every_route(url: str) -> None:
    """No example is left over, and none is missing."""
    assert {path.removeprefix("/v1") for path in routes(url)} == set(EXAMPLES)


def test_unknown_parameters_are_refused_everywhere(url: str) -> None:
    """A typing error must not become a wider question; the problem document names it."""
    for path, methods in routes(url).items():
        if "get" not in methods:
            continue
        found = httpx.get(url + path.replace("{request_id}", "x"), params={"provder": "openai"})
        assert found.status_code == 422, path
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["errors"] == [{"parameter": "provder", "message": "unknown; see /openapi.json"}]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/benchmarks/summaries?group_by=colour", "'provider', 'model', 'prompt' or 'day'"),
        ("/v1/benchmarks/summaries?end_date=2026-01-01", "end_date needs a start_date"),
        ("/v1/benchmarks/summaries?start_date=yesterday", "allowed are a date"),
        ("/v1/benchmarks/summaries?start_date=2026-01-01T00:00:00", "needs its zone"),
        ("/v1/benchmarks/summaries?start_date=0001-01-01", "allowed are years"),
        ("/v1/benchmarks/traces?limit=0", "greater than or equal to 1"),
        ("/v1/benchmarks/traces?limit=1001", "less than or equal to 1000"),
        ("/v1/benchmarks/traces?status=fine", "'success', 'error', 'timeout'"),
        ("/v1/benchmarks/traces?min_cost=cheap", "min_cost: given 'cheap'"),
        ("/v1/benchmarks/traces?cursor=e30", "not one that this server gave"),
        ("/v1/benchmarks/traces?cursor=WyJ4Il0", "not one that this server gave"),
        ("/v1/stats?period=soon", "period"),
        ("/v1/stats?period=999999d", "at most 3660d"),
        ("/v1/stats?period=1h&start=2026-01-01", "give one of them"),
        ("/v1/stats?start=2026-02-01&end=2026-01-01", "must end after it begins"),
        ("/v1/costs?timezone=Mars/Olympus", "timezone"),
        ("/v1/costs?period=fortnight", "period"),
        ("/v1/golden-signals?window=0s", "window"),
        ("/v1/golden-signals?source=oracle", "source"),
    ],
)
def test_a_wrong_parameter_says_what_is_allowed(url: str, path: str, message: str) -> None:
    """422, as a problem document."""
    found = httpx.get(url + path)
    assert found.status_code == 422
    assert message in found.json()["detail"]


def test_an_unknown_path_and_method_are_problems(url: str) -> None:
    """404 and 405 have documents as well."""
    assert httpx.get(f"{url}/v2/stats").json()["status"] == 404
    assert httpx.delete(f"{url}/v1/stats").json()["status"] == 405


def test_prometheus_is_named_where_it_is_missing(url: str) -> None:
    """Without a server the question has no answer, and says what to start with."""
    found = httpx.get(f"{url}/v1/golden-signals", params={"source": "prometheus"})
    assert (found.status_code, "--prometheus" in found.json()["detail"]) == (404, True)


def test_answers_are_valid_by_their_own_models(url: str) -> None:
    """The drawn models accept what is sent, so that clients can use them."""
    from taskpilot_obs.stats import Stats

    made = TypeAdapter(answer_model(Stats)).validate_python(get(url, "/v1/stats"))
    assert json.loads(made.model_dump_json())["requests"] == 71


def test_a_store_that_went_away_is_a_503_without_a_word_on_why(tmp_path: Any) -> None:
    """Readiness fails, questions are refused, liveness goes on; nothing of the path or the error is sent."""
    with store_at(f"sqlite:///{tmp_path}/gone.db") as store, serving(create_app(store=store, now=present)) as url:
        assert httpx.get(f"{url}/health/ready").json() == {"status": "ok", "store": "ok"}
        store.engine.dispose()
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / "gone.db").write_text("this text cannot be a database, and never was one" * 100)
        found = httpx.get(f"{url}/v1/stats")
        assert found.status_code == 503
        assert str(tmp_path) not in found.text
        assert httpx.get(f"{url}/health/live").status_code == 200


def test_benchmark_runs_with_the_figures_of_their_arms(url: str, full: Store) -> None:
    """Calls to warm up are left out, failed ones are not correct, quantiles are exact and unknown is null."""
    (run,) = get(url, "/v1/benchmark-runs")
    assert (run["run_id"], run["status"], run["seed"]) == ("run-1", "finished", 7)
    assert run["settings"] == {"iterations": 20}
    assert run["summary"]["findings"][0]["best"] == ["openai/gpt-4o"]
    local, openai = run["arms"]
    assert [arm["arm"] for arm in run["arms"]] == ["local/small", "openai/gpt-4o"]
    assert (local["calls"], local["success_rate"], local["correct_rate"]) == (21, 2_000 / 21, 1_000 / 21)
    assert (local["p50_latency_ms"], local["p95_latency_ms"]) == (160.0, 169.0)
    assert (openai["p50_latency_ms"], openai["p95_latency_ms"]) == (710.0, 719.0)
    assert (openai["p50_time_to_first_token_ms"], local["p50_time_to_first_token_ms"]) == (110.0, None)
    assert (openai["cost"], openai["cost_per_call"], openai["cost_coverage"]) == ("0.02", "0.001", 1.0)
    assert (local["cost"], local["cost_per_call"], local["cost_coverage"]) == (None, None, 0.0)
    assert get(url, "/v1/benchmark-runs", period="30m") == []
    assert get_benchmark_runs(store=full, now=PRESENT)[0].run_id == "run-1"


def test_experiments_by_name_and_their_comparison(url: str, full: Store) -> None:
    """Which there are, with units and tasks; one of them as `compare_variants` gives it, money as text."""
    (seen,) = get(url, "/v1/experiments")
    assert (seen["experiment"], seen["variants"], seen["tasks"]) == ("plan-test", 2, 35)
    assert get(url, "/v1/experiments", tenant="globex")[0]["tasks"] == 10
    found = get(url, "/v1/experiments/plan-test")
    report = compare_variants("plan-test", store=full, now=PRESENT)
    assert found["conclusion"] == report.conclusion
    assert found["sample_ratio_p_value"] == report.sample_ratio_p_value
    assert not found["shares_stated"]
    for told, arm in zip(found["arms"], report.arms, strict=True):
        assert (told["variant"], told["units"], told["success"]) == (arm.variant, arm.units, arm.success)
        assert told["cost_float"] == pytest.approx(arm.cost)
        low, high = told["intervals"]["success"]
        assert low <= told["success"] <= high
    planned = get(url, "/v1/experiments/plan-test", shares="v2=0.5,v1=0.5", primary="cost")
    assert (planned["control"], planned["effects"][0]["measure"]) == ("v2", "cost")
    assert planned["shares_stated"]
    assert httpx.get(f"{url}/v1/experiments/none").status_code == 404
    assert httpx.get(f"{url}/v1/experiments/plan-test?shares=v1").status_code == 422


def test_names_may_hold_slashes(url: str, full: Store) -> None:
    """A request and an experiment are found by any name, in the API and on their pages."""
    odd = {"experiment": "a/b?c", "variant": "v1", "experiment_unit": "1"}
    fill(full, [task(PRESENT - timedelta(days=40), request_id="r/1?x", attributes=odd)])
    assert get(url, f"/v1/runs/{quote('r/1?x', safe='')}")["request_id"] == "r/1?x"
    assert get(url, f"/v1/experiments/{quote('a/b?c', safe='')}", period="50d")["experiment"] == "a/b?c"
    for path in ("/requests/" + quote("r/1?x", safe=""), "/experiments/" + quote("a/b?c", safe="") + "?period=50d"):
        assert httpx.get(url + path).status_code == 200


def test_dates_are_days_of_the_stated_zone(url: str) -> None:
    """`start=2026-03-10` begins at midnight in `timezone`, also for the golden signals."""
    day = PRESENT.date().isoformat()
    for path in ("/v1/stats", "/v1/costs", "/v1/tenants"):
        assert get(url, path, start=day, timezone="Asia/Tokyo")["start"] == f"{day_before(day)}T15:00:00Z"
    whole = get(url, "/v1/golden-signals", start=day, end=day)
    assert whole["runs"]["total"] == get(url, "/v1/golden-signals", window="24h")["runs"]["total"]
    assert get(url, "/v1/golden-signals", period="1m")["window_s"] == 60.0
    assert httpx.get(f"{url}/v1/golden-signals?window=1h&period=1h").status_code == 422


def day_before(day: str) -> str:
    """The date before."""
    return (datetime.fromisoformat(day) - timedelta(days=1)).date().isoformat()


def test_spend_over_time_is_that_of_the_series(full: Store) -> None:
    """The chart's quick question gives the costs of `get_series`, step by step, and adds up by tenant too."""
    points = get_series("24h", store=full, now=PRESENT)
    by_model = get_spend("24h", "model_name", store=full, now=PRESENT)
    told = [{name: part.cost_usd for name, part in point.by_model.items()} for point in points]
    assert [(spend.start, spend.cost_usd) for spend in by_model] == [
        (point.start, costs) for point, costs in zip(points, told, strict=True)
    ]
    by_tenant = get_spend("24h", "organization_id", store=full, now=PRESENT)
    assert sum(sum(spend.cost_usd.values()) for spend in by_tenant) == sum(point.cost_usd for point in points)
