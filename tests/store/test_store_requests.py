"""Single calls, the tree of a request, benchmarks and verdicts, on both engines."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from _stored import NOON, denial, llm_call, run_processes, task, unix_ns

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.from_store import signals_from_store
from taskpilot_obs.records import Feedback, Operation, Origin, Rollup, Status
from taskpilot_obs.stats import (
    Call,
    CallPosition,
    get_benchmark_summaries,
    get_calls,
    get_providers,
    get_run_tree,
    get_stats,
)
from taskpilot_obs.store import Store, aggregate_summaries
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
AROUND = (NOON - HOUR, NOON + HOUR)


def fill(store: Store, *records: object) -> None:
    """Write records."""
    Writer(store).write(rows_of(records))  # type: ignore[arg-type]  # records of any kind


def said(request_id: str, correct: bool, *, tenant: str | None = "acme", second: int = 0) -> Feedback:
    """A user's word on a request."""
    moment = NOON + timedelta(seconds=second)
    return Feedback(request_id, correct, revision=False, origin=Origin(tenant=tenant), time_unix_ns=unix_ns(moment))


def walked(store: Store, limit: int, **asked: str) -> list[Call]:
    """Every call, page by page."""
    found: list[Call] = []
    after: CallPosition | None = None
    while True:
        page = get_calls(store=store, limit=limit, after=after, **asked)  # type: ignore[arg-type]
        found += page.calls
        after = page.next
        if after is None:
            return found


def test_pages_hold_every_call_once_newest_first(store: Store) -> None:
    """Whatever the size of a page, and with many calls in one microsecond, the pages add up to all calls in order."""
    random.seed(3)
    fill(store, *(llm_call(NOON + timedelta(seconds=random.randrange(5))) for _ in range(47)))
    expected = [call.telemetry_id for call in walked(store, 1_000)]
    assert len(set(expected)) == 47
    times = [call.created_at for call in walked(store, 1_000)]
    assert times == sorted(times, reverse=True)
    for limit in (1, 7, 46, 47, 48):
        assert [call.telemetry_id for call in walked(store, limit)] == expected


def test_a_page_stays_where_it_is_while_calls_arrive(store: Store) -> None:
    """Calls that arrive after the first page neither repeat nor hide a call of the second."""
    fill(store, *(llm_call(NOON + timedelta(seconds=number)) for number in range(6)))
    first = get_calls(store=store, limit=3)
    fill(store, *(llm_call(NOON + timedelta(minutes=number)) for number in range(1, 5)))
    second = get_calls(store=store, limit=3, after=first.next)
    assert [call.created_at.second for call in (*first.calls, *second.calls)] == [5, 4, 3, 2, 1, 0]


def test_calls_are_found_by_each_of_their_values(store: Store) -> None:
    """A filter keeps exactly the calls that have the value, and an unknown cost is above no bound."""
    one = llm_call(cost=Decimal("0.5"), session="s1", attributes={"prompt_name": "plan", "step_id": "a"})
    other = llm_call(
        cost=Decimal("0.000000000001"), tenant="globex", agent="reviewer", provider="anthropic", attributes={}
    )
    unknown = llm_call(cost=None, usage=None, status=Status.ERROR, error_message="what the user wrote")
    fill(store, one, other, unknown)

    def found(**given: object) -> set[str]:
        return {call.telemetry_id for call in get_calls(store=store, **given).calls}  # type: ignore[arg-type]

    everything = {one.invocation_id, other.invocation_id, unknown.invocation_id}
    assert found() == found(period=AROUND) == everything
    assert found(tenant="globex") == found(agent="reviewer") == found(provider="anthropic") == {other.invocation_id}
    assert found(exact={"status": "error"}) == {unknown.invocation_id}
    assert found(exact={"session_id": "s1"}) == found(exact={"step_id": "a"}) == {one.invocation_id}
    assert found(exact={"request_id": one.request_id}) == {one.invocation_id}
    assert found(min_cost="0.5") == {one.invocation_id}
    assert found(min_cost="0.500000000001") == set()
    assert found(min_cost=0) == {one.invocation_id, other.invocation_id}
    assert "what the user wrote" not in get_calls(store=store).model_dump_json()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": 0}, "limit: given 0; allowed is 1 to 1000"),
        ({"limit": 1_001}, "limit: given 1001"),
        ({"min_cost": "cheap"}, "min_cost: given 'cheap'"),
        ({"min_cost": "NaN"}, "min_cost"),
        ({"min_cost": -1}, "min_cost"),
        ({"exact": {"status": "fine"}}, "status: given 'fine'; allowed are success"),
        ({"exact": {"colour": "red"}}, "exact: given 'colour'; allowed are"),
        ({"exact": {"trace_id": ""}}, "trace_id: given nothing"),
    ],
)
def test_a_wrong_question_is_refused(given: dict[str, object], message: str) -> None:
    """Before any store is opened, with what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        get_calls(store="sqlite:///nowhere.db", **given)  # type: ignore[arg-type]


def test_the_tree_of_a_request(store: Store) -> None:
    """Workflow, agent, tool and LLM call stand beneath each other, with tokens, cost, denials and verdicts."""
    shared = {"request_id": "r1", "workflow": "triage"}
    root = task(NOON, duration_s=4.0, **shared)
    agent = task(
        NOON - timedelta(seconds=0.5),
        duration_s=3.0,
        operation=Operation.AGENT,
        name="planner",
        agent="planner",
        parent_id=root.invocation_id,
        is_task=False,
        **shared,
    )
    tool = task(
        NOON - timedelta(seconds=1),
        duration_s=0.5,
        operation=Operation.TOOL,
        name="search",
        parent_id=agent.invocation_id,
        is_task=False,
        rollup=None,
        **shared,
    )
    call = llm_call(NOON - timedelta(seconds=2), duration_s=1.0, parent_id=agent.invocation_id, **shared)
    lost = llm_call(NOON, parent_id="elsewhere", cost=None, **shared)
    denied = denial(NOON)._replace(origin=Origin(request_id="r1", tenant="acme"))
    fill(store, root, agent, tool, call, lost, denied, said("r1", correct=False), llm_call(request_id="r2"))
    tree = get_run_tree("r1", store=store)
    assert tree is not None
    assert [(step.depth, step.operation, step.name) for step in tree.steps] == [
        (0, "invoke_workflow", "triage"),
        (1, "invoke_agent", "planner"),
        (2, "chat", "gpt-4o"),
        (2, "execute_tool", "search"),
        (0, "chat", "gpt-4o"),
    ]
    assert (tree.llm_calls, tree.tool_calls, tree.unpriced_calls, tree.cost) == (2, 1, 1, Decimal("0.0105"))
    assert (tree.input_tokens, tree.status, tree.duration_ms) == (2_000, "success", 4_000.0)
    assert [line.policy for line in tree.decisions] == ["no-secrets"]
    assert [line.correct for line in tree.feedback] == [False]
    assert get_run_tree("r1", store=store, tenant_id="globex") is None
    assert get_run_tree("nothing", store=store) is None


def test_a_circle_of_parents_is_shown(store: Store) -> None:
    """Steps that name each other as parents, or themselves, are listed once each."""
    ids = [f"circle-{number}" for number in range(3)]
    parents = [*ids[1:], ids[0]]
    runs = [task(request_id="r1", invocation_id=one, parent_id=two) for one, two in zip(ids, parents, strict=True)]
    fill(store, *runs, task(request_id="r1", invocation_id="self", parent_id="self"))
    tree = get_run_tree("r1", store=store)
    assert tree is not None
    assert sorted(step.id for step in tree.steps) == [*ids, "self"]


def test_a_deep_tree_is_no_recursion(store: Store) -> None:
    """1,500 runs beneath each other are a list with depths."""
    fill(store, *(task(request_id="r1", invocation_id=f"d{n}", parent_id=f"d{n - 1}") for n in range(1_500)))
    tree = get_run_tree("r1", store=store)
    assert tree is not None
    assert [step.depth for step in tree.steps] == list(range(1_500))


@pytest.mark.parametrize("summed_up", [False, True], ids=["rows", "summaries"])
def test_benchmarks_agree_with_statistics(store: Store, summed_up: bool) -> None:
    """Each group of a benchmark has the figures of `get_stats` for that group, from rows and from summaries."""
    random.seed(5)
    models = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude")]
    for day, number in itertools.product(range(3), range(20)):
        provider, model = random.choice(models)
        fill(
            store,
            llm_call(
                NOON - timedelta(days=day, minutes=number),
                provider=provider,
                response_model=model,
                duration_s=random.uniform(0.1, 3),
                cost=None if number % 7 == 0 else Decimal(number + 1).scaleb(-4),
                status=Status.ERROR if number % 5 == 0 else Status.SUCCESS,
                attributes={"prompt_name": random.choice(["plan", "act"])},
            ),
        )
    if summed_up:
        aggregate_summaries("hourly", store=store, now=NOON + HOUR)
        aggregate_summaries("daily", store=store, now=NOON + 24 * HOUR)
    period = (NOON - timedelta(days=4), NOON + HOUR)
    for line in get_benchmark_summaries(period, store=store):
        assert line.provider is not None
        assert line.model_name is not None
        stats = get_stats(period, store=store, provider=line.provider, model=line.model_name)
        assert (line.total_calls, line.successful_calls, line.failed_calls, line.total_cost) == (
            stats.requests,
            stats.successes,
            stats.failures,
            stats.cost_usd,
        )
        assert (line.success_rate, line.cost_coverage) == (stats.success_rate, stats.cost_coverage)
        assert line.p95_latency_ms == pytest.approx(stats.latency.p95_ms, rel=0.021)
    by = {
        group: get_benchmark_summaries(period, group_by=group, store=store)
        for group in ("provider", "model", "prompt", "day")
    }
    assert {sum(line.total_calls for line in lines) for lines in by.values()} == {60}
    assert {sum(line.total_cost or 0 for line in lines) for lines in by.values()} == {
        get_stats(period, store=store).cost_usd
    }
    assert [line.prompt_name for line in by["prompt"]] in (["plan", "act"], ["act", "plan"])
    assert [line.day for line in by["day"]] == [(NOON - timedelta(days=number)).replace(hour=0) for number in (2, 1, 0)]


def test_a_cost_that_nobody_knows_is_not_zero(store: Store) -> None:
    """A model without a price has no cost and no average; a model whose calls a cache answered cost 0."""
    fill(store, llm_call(cost=None, response_model="new"), llm_call(cached=True, response_model="kept"))
    found = {line.model_name: line for line in get_benchmark_summaries(AROUND, store=store)}
    assert (found["new"].total_cost, found["new"].avg_cost, found["new"].cost_coverage) == (None, None, 0.0)
    assert (found["kept"].total_cost, found["kept"].avg_cost, found["kept"].cost_coverage) == (Decimal(0), None, None)


def test_providers_are_known_by_their_first_and_last_call(store: Store) -> None:
    """Of all tenants, or of one alone; with summaries as well as without."""
    fill(
        store,
        llm_call(NOON - 2 * HOUR),
        llm_call(NOON, response_model="gpt-4o-mini"),
        llm_call(NOON - HOUR, provider="anthropic", response_model="claude", tenant="globex"),
        llm_call(NOON - HOUR, provider=None, tenant="globex"),
    )
    assert [(seen.provider, seen.models, seen.first_seen, seen.last_seen) for seen in get_providers(store=store)] == [
        ("__none__", 1, NOON - HOUR, NOON - HOUR),
        ("anthropic", 1, NOON - HOUR, NOON - HOUR),
        ("openai", 2, NOON - 2 * HOUR, NOON),
    ]
    aggregate_summaries("hourly", store=store, now=NOON + HOUR)
    assert [seen.provider for seen in get_providers(store=store, tenant_id="acme")] == ["openai"]


def correctness(store: Store, tenant: str | None = None) -> tuple[float | None, float]:
    """The golden signal and how many verdicts it rests on."""
    signals = signals_from_store("2h", store=store, tenant=tenant, now=NOON + HOUR)
    evidence = signals.evidence["user_confirmed_correctness_percent"]
    return signals.user_confirmed_correctness_percent, evidence.denominator


def test_verdicts_of_many_processes_are_one_a_request(store: Store) -> None:
    """Repeated ones count once and opposite ones revise, also where each writer knows nothing of the others."""
    for number, (request, correct) in enumerate(
        [("a", True), ("a", True), ("b", False), ("a", False), ("b", True), ("b", True), ("c", True)]
    ):
        fill(store, said(request, correct, second=number))
    assert correctness(store) == pytest.approx((200 / 3, 3))
    fill(store, said("a", correct=True, second=0))  # a word from before the last one, which arrived late
    assert correctness(store) == pytest.approx((200 / 3, 3))


def test_verdicts_of_one_batch_revise_each_other(store: Store) -> None:
    """As those of several batches do; feedback without a request ID always counts."""
    fill(store, said("a", True, second=2), said("a", False, second=1), said("", True), said("", True))
    assert correctness(store) == (100.0, 3)


def test_a_verdict_belongs_to_the_tenant_of_its_request(store: Store) -> None:
    """A word without a tenant takes that of the request's run, and counts for that tenant if the run comes later."""
    fill(store, task(request_id="a", tenant="acme"))
    fill(store, said("a", True, tenant=None), said("b", False, tenant=None))
    fill(store, task(request_id="b", tenant="globex"))
    assert correctness(store, "acme") == (100.0, 1)
    assert correctness(store, "globex") == (0.0, 1)
    assert correctness(store, "initech") == (None, 0)
    assert correctness(store) == (50.0, 2)


def test_one_tenant_cannot_revise_the_verdict_of_another(store: Store) -> None:
    """The same request ID under two tenants is two requests."""
    fill(store, said("a", True, tenant="acme"), said("a", False, tenant="globex"))
    assert correctness(store, "acme") == (100.0, 1)
    assert correctness(store, "globex") == (0.0, 1)


def rate(url: str, number: int) -> None:
    """Say five times, from a process of its own, that one of three requests was right."""
    store = Store(url)
    for turn in range(5):
        fill(store, said(f"r{(number + turn) % 3}", correct=True, second=turn))


def test_processes_that_rate_one_request_at_once_count_once(url: str, store: Store) -> None:
    """Four processes, twenty verdicts, three requests: three are counted."""
    codes = run_processes(rate, *((url, number) for number in range(4)))
    assert codes == [0, 0, 0, 0]
    assert correctness(store) == (100.0, 3)


def test_signals_of_one_tenant(store: Store) -> None:
    """Tasks, cost, denials and coverage are those of the tenant alone, and overall they are those of all."""
    fill(
        store,
        task(tenant="acme"),
        task(tenant="globex", status=Status.ERROR, rollup=Rollup(1, 1, Decimal("0.5"), 1, 0, 0, 0)),
        llm_call(tenant="acme", cost=Decimal("0.25")),
        llm_call(tenant="globex", cost=None),
        denial(),
    )
    acme, globex, both = (
        signals_from_store("2h", store=store, tenant=tenant, now=NOON + HOUR) for tenant in ("acme", "globex", None)
    )
    assert (acme.success_rate, globex.success_rate, both.success_rate) == (100.0, 0.0, 50.0)
    assert (acme.cost_usd, globex.cost_usd, both.cost_usd) == (0.25, 0.0, 0.25)
    assert (acme.cost_coverage, globex.cost_coverage, both.cost_coverage) == (1.0, 0.0, 0.5)
    assert (acme.policy_violation_rate_percent, globex.policy_violation_rate_percent) == (100.0, 0.0)
