"""The Prometheus exporter: what each record adds to the families of the contract."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from _servers import require_binary
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import Metric as Collected
from prometheus_client.openmetrics import parser as openmetrics

from taskpilot_obs import semconv
from taskpilot_obs._pipeline.exporter import Exporter
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.histogram import BulkHistogram
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import (
    AuditEvent,
    CacheSize,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Record,
    Rollup,
    Severity,
    Stage,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.usage import Usage

parse_openmetrics: Callable[[str], Iterator[Collected]] = openmetrics.text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ORIGIN = Origin(request_id="req-1", workflow="handle", agent="planner")


class Scrape:
    """A registry, an exporter on it, and the values of its samples."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counters = InternalCounters()
        self.exporter = PrometheusExporter(self.registry, counters=self.counters)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def total(self, name: str) -> float:
        return sum(
            sample.value for family in self.registry.collect() for sample in family.samples if sample.name == name
        )

    def export(self, *records: Record) -> None:
        self.exporter.export(records)


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


def started(name: str = "planner", operation: Operation = Operation.AGENT, **fields: object) -> Started:
    record = Started(operation, name, "req-1", "inv-1", None, None, name, 1)
    return record._replace(**fields)  # type: ignore[arg-type]  # keyword fields of the record itself


def ended(
    name: str = "planner", operation: Operation = Operation.AGENT, status: Status = Status.SUCCESS, **fields: object
) -> Invocation:
    record = Invocation(status, 0.3, operation, name, "req-1", "inv-1", None, None, name, 1)
    return record._replace(**fields)  # type: ignore[arg-type]  # keyword fields of the record itself


def llm(status: Status = Status.SUCCESS, **fields: object) -> Invocation:
    known = {"agent": "planner", "response_model": "gpt-4o", "provider": "openai", "duration_s": 1.5}
    call = ended("chat gpt-4o", Operation.CHAT, status)
    return call._replace(**(known | fields))  # type: ignore[arg-type]  # keyword fields of the record itself


MODEL = {"model": "gpt-4o", "provider": "openai"}
INPUT, OUTPUT = {"token_type": "input"}, {"token_type": "output"}


def test_it_is_an_exporter(scrape: Scrape) -> None:
    """The exporter satisfies the one-verb protocol of exporters."""
    assert isinstance(scrape.exporter, Exporter)


def test_every_family_of_the_contract_is_registered(scrape: Scrape) -> None:
    """A fresh registry exposes every family with its type and help, before anything ran."""
    families = {family.name: family for family in scrape.registry.collect()}
    for metric in semconv.METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)


def test_an_agent_run_is_counted_and_timed_and_shown_while_it_runs(scrape: Scrape) -> None:
    """A nested agent run raises its gauge, then counts in the agent families and in no workflow family."""
    scrape.export(started())
    assert scrape("agent_active_runs", agent="planner") == 1
    scrape.export(ended())
    assert scrape("agent_active_runs", agent="planner") == 0
    assert scrape("agent_runs_total", agent="planner", status="success") == 1
    assert scrape("agent_run_duration_seconds_sum", agent="planner") == pytest.approx(0.3)
    assert scrape("agent_run_duration_seconds_bucket", agent="planner", le="0.25") == 0
    assert scrape("agent_run_duration_seconds_bucket", agent="planner", le="0.5") == 1
    assert scrape.total("workflow_runs_total") == 0


def test_an_agent_at_the_top_is_a_task_as_well(scrape: Scrape) -> None:
    """An agent with nothing above it is booked in the agent families and, under its own name, as a workflow."""
    scrape.export(started(is_task=True))
    assert scrape("workflow_active_runs", workflow="planner") == 1
    assert scrape("workflow_runs_total", workflow="planner", status="error") == 0
    scrape.export(ended(is_task=True, status=Status.TIMEOUT))
    assert scrape("workflow_active_runs", workflow="planner") == 0
    assert scrape("workflow_runs_total", workflow="planner", status="timeout") == 1
    assert scrape("agent_runs_total", agent="planner", status="timeout") == 1
    assert scrape("workflow_duration_seconds_count", workflow="planner") == 1


def test_a_task_rolls_up_its_cost_and_whether_it_had_violations(scrape: Scrape) -> None:
    """The cost of a task stands under the status that it ended with; three violations are one run with violations."""
    rollup = Rollup(cost=Decimal("0.0000525"), violations=3)
    workflow = ended("handle", Operation.WORKFLOW, Status.BLOCKED, is_task=True, rollup=rollup)
    scrape.export(workflow, workflow, workflow._replace(rollup=Rollup()))
    assert scrape("workflow_cost_usd_total", workflow="handle", status="blocked") == 0.000105
    assert scrape("workflow_cost_usd_total", workflow="handle", status="success") == 0
    assert scrape("workflow_runs_with_violations_total", workflow="handle") == 2
    assert scrape("workflow_runs_total", workflow="handle", status="blocked") == 3


def test_a_tool_call_stands_under_its_agent(scrape: Scrape) -> None:
    """Tool calls count by agent, tool and status, with all statuses at 0 from the first start on."""
    scrape.export(started("search", Operation.TOOL, agent="planner"))
    assert scrape("agent_tool_calls_total", agent="planner", tool="search", status="error") == 0
    scrape.export(ended("search", Operation.TOOL, agent="planner"), ended("search", Operation.TOOL, agent=None))
    assert scrape("agent_tool_calls_total", agent="planner", tool="search", status="success") == 1
    assert scrape("agent_tool_calls_total", agent="__none__", tool="search", status="success") == 1
    assert scrape("agent_tool_call_duration_seconds_count", tool="search") == 2


def test_an_llm_call_books_tokens_cost_and_first_token_once(scrape: Scrape) -> None:
    """A priced call adds requests, inclusive token totals, their subsets, cost and both durations."""
    usage = Usage(120, 30, cache_read_tokens=100, cache_write_tokens=0, reasoning_tokens=20)
    scrape.export(
        started("chat gpt-4o", Operation.CHAT, agent="planner", provider="openai"),
        llm(usage=usage, cost=Decimal("0.001"), ttft_s=0.2, retries=2, streaming=True),
    )
    by_agent = MODEL | {"agent": "planner"}
    assert scrape("llm_requests_total", status="success", **by_agent) == 1
    assert scrape("llm_requests_total", status="error", **by_agent) == 0
    assert scrape("llm_tokens_total", **by_agent, **INPUT) == 120
    assert scrape("llm_tokens_total", **by_agent, **OUTPUT) == 30
    assert scrape("llm_token_details_total", detail="cache_read", **MODEL) == 100
    assert scrape("llm_token_details_total", detail="reasoning", **MODEL) == 20
    assert scrape("llm_token_details_total", detail="cache_write", **MODEL) is None
    assert scrape("llm_cost_usd_total", **by_agent) == 0.001
    assert scrape("llm_retries_total", **MODEL) == 2
    assert scrape("llm_request_duration_seconds_sum", **MODEL) == 1.5
    assert scrape("llm_time_to_first_token_seconds_sum", **MODEL) == 0.2
    assert scrape("llm_unpriced_requests_total", **MODEL) == 0
    assert scrape("llm_usage_missing_total", **MODEL) == 0
    assert scrape("llm_active_requests", agent="planner", provider="openai") == 0
    assert scrape.total("llm_errors_total") == 0
    assert scrape.total("llm_cache_misses_total") == 0


def test_the_gauge_of_an_llm_call_falls_where_it_rose(scrape: Scrape) -> None:
    """A provider that is known only at the end does not unbalance the gauge, nor does a call without a start."""
    scrape.export(started("chat", Operation.CHAT, agent=None, provider=None))
    assert scrape("llm_active_requests", agent="__none__", provider="__none__") == 1
    scrape.export(llm(), llm(invocation_id="booked-by-hand"))
    assert scrape("llm_active_requests", agent="__none__", provider="__none__") == 0
    assert scrape.total("llm_active_requests") == 0


def test_a_million_small_costs_add_up_exactly(scrape: Scrape) -> None:
    """Costs are summed as decimals within a batch: 10,000 times 0.0000525 USD is 0.525 USD to the last digit."""
    scrape.export(*[llm(cost=Decimal("0.0000525"), usage=Usage(150, 50))] * 10_000)
    assert scrape("llm_cost_usd_total", agent="planner", **MODEL) == 0.525


def test_a_cache_hit_costs_nothing_and_is_not_unknown(scrape: Scrape) -> None:
    """A call that the application's cache answered is a request and a hit; neither tokens nor cost nor unpriced."""
    scrape.export(llm(cached=True, usage=Usage(10, 5), cost=Decimal("0.5")), llm(cached=False, usage=Usage(1, 1)))
    assert scrape("llm_cache_hits_total", agent="planner", model="gpt-4o") == 1
    assert scrape("llm_cache_misses_total", agent="planner", model="gpt-4o") == 1
    assert scrape("llm_requests_total", agent="planner", status="success", **MODEL) == 2
    assert scrape.total("llm_tokens_total") == 2
    assert scrape.total("llm_cost_usd_total") == 0
    assert scrape("llm_unpriced_requests_total", **MODEL) == 1
    assert scrape("llm_usage_missing_total", **MODEL) == 0


@pytest.mark.promise("unknown-cost")
@pytest.mark.parametrize(
    ("status", "usage", "missing", "unpriced"),
    [
        (Status.SUCCESS, None, 1, 1),
        (Status.SUCCESS, Usage(), 1, 1),
        (Status.SUCCESS, Usage(1, 1), 0, 1),
        (Status.ERROR, None, 1, 1),
        (Status.ERROR, Usage(1, 1), 0, 1),
        (Status.TIMEOUT, None, 1, 1),
        (Status.ABANDONED, None, 1, 1),
        (Status.CANCELLED, None, 1, 1),
    ],
)
def test_an_unknown_cost_is_counted_where_money_may_have_been_spent(
    scrape: Scrape, status: Status, usage: Usage | None, missing: int, unpriced: int
) -> None:
    """Without usage a call is missing and unpriced, however it ended; one that was refused is neither, and is free."""
    scrape.export(llm(Status.ERROR, refused=True), llm(Status.BLOCKED, refused=True))
    assert scrape("llm_billable_requests_total", **MODEL) == 0
    scrape.export(llm(status, usage=usage))
    assert scrape("llm_billable_requests_total", **MODEL) == 1
    assert scrape("llm_usage_missing_total", **MODEL) == missing
    assert scrape("llm_unpriced_requests_total", **MODEL) == unpriced


@pytest.mark.parametrize(
    ("status", "category", "booked"),
    [
        (Status.ERROR, "rate_limit", "rate_limit"),
        (Status.ERROR, None, "other"),
        (Status.ERROR, "made_up", "other"),
        (Status.TIMEOUT, None, "timeout"),
    ],
)
def test_a_failed_llm_call_is_counted_by_cause(
    scrape: Scrape, status: Status, category: str | None, booked: str
) -> None:
    """The cause of a failure is one of the ten of the contract, and `other` where it is none of them."""
    scrape.export(llm(status, error_category=category, agent=None, response_model=None, provider=None))
    nobody = {"agent": "__none__", "model": "__none__", "provider": "__none__"}
    assert scrape("llm_errors_total", error_type=booked, **nobody) == 1
    assert scrape.total("llm_errors_total") == 1


def test_embeddings_feed_the_llm_families_and_inconsistent_usage_is_counted(scrape: Scrape) -> None:
    """An embeddings call is an LLM call, and usage that contradicts itself is counted."""
    scrape.export(llm(operation=Operation.EMBEDDINGS, usage=Usage(9, 0), usage_inconsistent=True))
    assert scrape("llm_tokens_total", agent="planner", **MODEL, **INPUT) == 9
    assert scrape("llm_usage_inconsistent_total", **MODEL) == 1


def decision(kind: DecisionKind, verdict: Verdict, result: CheckResult, **fields: object) -> Decision:
    return Decision(kind, "no-secrets", verdict, result, ORIGIN, 1)._replace(**fields)  # type: ignore[arg-type]  # fields


def test_a_violation_is_a_denial_of_a_policy_in_either_mode(scrape: Scrape) -> None:
    """Denials count as violations whether or not they blocked; an approval request and an allowance do not."""
    place = {"workflow": "handle", "agent": "planner", "policy": "no-secrets", "severity": "high"}
    scrape.export(decision(DecisionKind.POLICY, Verdict.ALLOW, CheckResult.PASSED, severity=Severity.HIGH))
    assert scrape("policy_violations_total", **place) == 0
    for verdict, result in (
        (Verdict.DENY, CheckResult.BLOCKED),
        (Verdict.DENY, CheckResult.WOULD_BLOCK),
        (Verdict.REQUIRE_APPROVAL, CheckResult.BLOCKED),
    ):
        scrape.export(decision(DecisionKind.POLICY, verdict, result, severity=Severity.HIGH))
    assert scrape("policy_violations_total", **place) == 2
    assert scrape("policy_decisions_total", policy="no-secrets", decision="deny") == 2
    assert scrape("policy_decisions_total", policy="no-secrets", decision="allow") == 1
    assert scrape("policy_decisions_total", policy="no-secrets", decision="require_approval") == 1
    assert scrape.total("guardrail_checks_total") == 0


def test_a_guardrail_blocks_only_where_it_really_blocked(scrape: Scrape) -> None:
    """Each check counts by its result; only `blocked` is a block; no guardrail makes a policy violation."""
    for result in CheckResult:
        scrape.export(decision(DecisionKind.GUARDRAIL, Verdict.DENY, result, stage=Stage.OUTPUT, duration_s=0.002))
    for result in CheckResult:
        assert scrape("guardrail_checks_total", guardrail="no-secrets", stage="output", result=result.value) == 1
    assert scrape("guardrail_blocks_total", agent="planner", guardrail="no-secrets", stage="output") == 1
    assert scrape("guardrail_check_duration_seconds_bucket", guardrail="no-secrets", le="0.0025") == 5
    assert scrape.total("policy_violations_total") == 0


def test_a_budget_that_refuses_is_counted(scrape: Scrape) -> None:
    """A budget's refusal counts under the period that it states; one that only warns does not."""
    scrape.export(
        decision(DecisionKind.BUDGET, Verdict.DENY, CheckResult.BLOCKED, attributes={"period": "day"}),
        decision(DecisionKind.BUDGET, Verdict.DENY, CheckResult.BLOCKED),
        decision(DecisionKind.BUDGET, Verdict.DENY, CheckResult.WOULD_BLOCK),
    )
    assert scrape("llm_budget_refusals_total", budget="no-secrets", period="day") == 1
    assert scrape("llm_budget_refusals_total", budget="no-secrets", period="__none__") == 1


def test_feedback_and_its_revisions_are_counted_apart(scrape: Scrape) -> None:
    """A first verdict counts in one family; one that replaces it counts in the other, under the new verdict."""
    assert scrape("llm_feedback_total", verdict="incorrect") == 0
    scrape.export(Feedback("req-1", True, False, ORIGIN, 1), Feedback("req-1", False, True, ORIGIN, 2))
    assert scrape("llm_feedback_total", verdict="correct") == 1
    assert scrape("llm_feedback_revisions_total", verdict="incorrect") == 1
    assert scrape.total("llm_feedback_total") == 1


def test_a_cache_says_its_size_and_an_audit_event_adds_nothing(scrape: Scrape) -> None:
    """The last size of a cache stands; audit events have no metric."""
    scrape.export(CacheSize("answers", 10, 1), AuditEvent("task_created", ORIGIN, 1), CacheSize("answers", 7, 2))
    assert scrape("llm_cache_size", cache="answers") == 7


def test_declared_names_stand_at_zero_before_their_first_run(scrape: Scrape) -> None:
    """Every status of a declared workflow, agent and tool, its gauge and its histogram are there, at 0."""
    exporter = scrape.exporter
    exporter.declare(Operation.WORKFLOW, "handle")
    exporter.declare(Operation.AGENT, "planner")
    exporter.declare(Operation.TOOL, "search")
    exporter.declare(Operation.CHAT, "chat gpt-4o")
    for status in Status:
        assert scrape("workflow_runs_total", workflow="handle", status=status.value) == 0
        assert scrape("workflow_cost_usd_total", workflow="handle", status=status.value) == 0
        assert scrape("agent_runs_total", agent="planner", status=status.value) == 0
        assert scrape("agent_tool_calls_total", agent="__none__", tool="search", status=status.value) == 0
    assert scrape("workflow_runs_with_violations_total", workflow="handle") == 0
    assert scrape("workflow_active_runs", workflow="handle") == 0
    assert scrape("workflow_duration_seconds_count", workflow="handle") == 0
    assert scrape("agent_active_runs", agent="planner") == 0
    assert scrape("agent_run_duration_seconds_count", agent="planner") == 0
    assert scrape("agent_tool_call_duration_seconds_count", tool="search") == 0
    assert scrape("workflow_runs_total", workflow="planner", status="success") is None


def test_declared_checks_stand_at_zero(scrape: Scrape) -> None:
    """Every decision of a declared policy and every result of a declared guardrail at its stages is there, at 0."""
    scrape.exporter.declare_check(DecisionKind.POLICY, "no-secrets")
    scrape.exporter.declare_check(DecisionKind.GUARDRAIL, "toxicity", [Stage.INPUT])
    scrape.exporter.declare_check(DecisionKind.BUDGET, "daily")
    for verdict in Verdict:
        assert scrape("policy_decisions_total", policy="no-secrets", decision=verdict.value) == 0
    for result in CheckResult:
        assert scrape("guardrail_checks_total", guardrail="toxicity", stage="input", result=result.value) == 0
    assert scrape("guardrail_checks_total", guardrail="toxicity", stage="output", result="passed") is None
    assert scrape("guardrail_check_duration_seconds_count", guardrail="toxicity") == 0


def test_self_telemetry_is_booked_with_its_zeros(scrape: Scrape) -> None:
    """An exporter that handed over records shows 0 drops for every reason and 0 errors, and its queue."""
    scrape.exporter.book(semconv.RECORDS, ("audit_log",), 3)
    scrape.exporter.book(semconv.INTERNAL_ERRORS, ("freeze",), 1)
    scrape.exporter.set_queue_size("audit_log", 17)
    scrape.exporter.set_gauge(semconv.BUDGET_LIMIT, ("daily", "day"), 2.5)
    assert scrape("taskpilot_obs_records_total", exporter="audit_log") == 3
    assert scrape("taskpilot_obs_records_dropped_total", exporter="audit_log", reason="queue_full") == 0
    assert scrape("taskpilot_obs_export_errors_total", exporter="audit_log") == 0
    assert scrape("taskpilot_obs_internal_errors_total", where="freeze") == 1
    assert scrape("taskpilot_obs_queue_size", exporter="audit_log") == 17
    assert scrape("llm_budget_limit_usd", budget="daily", period="day") == 2.5


def test_info_names_the_service_until_its_exporter_is_shut_down() -> None:
    """`taskpilot_obs_info` is 1 for each service that exports, and goes with the last of its exporters."""
    registry = CollectorRegistry()
    exporters = [PrometheusExporter(registry, service="shop", service_version="2", version="1") for _ in range(2)]
    labels = {"version": "1", "service": "shop", "service_version": "2"}
    PrometheusExporter(registry)
    exporters[0].shutdown()
    assert registry.get_sample_value("taskpilot_obs_info", labels) == 1
    exporters[1].shutdown()
    assert registry.get_sample_value("taskpilot_obs_info", labels) is None


def test_a_registry_tells_when_its_counters_began() -> None:
    """`taskpilot_obs_start_time_seconds` is the moment at which a registry got its families, exporter or not."""
    registry = CollectorRegistry()
    before = time.time()
    PrometheusExporter(registry)
    began = registry.get_sample_value(semconv.START_TIME.name)
    assert began is not None
    assert before <= began <= time.time()
    PrometheusExporter(registry, service="another")
    assert registry.get_sample_value(semconv.START_TIME.name) == began


def test_calls_beneath_a_run_of_an_agent_are_observed(scrape: Scrape) -> None:
    """A run with 2 LLM and 250 tool calls beneath it moves both histograms, a run without any is observed too."""
    agent = ended()
    scrape.export(agent._replace(rollup=Rollup(llm_calls=2, tool_calls=250)), agent)
    assert scrape("agent_run_llm_calls_sum", agent="planner") == 2
    assert scrape("agent_run_tool_calls_bucket", agent="planner", le="200.0") == 1
    assert scrape("agent_run_tool_calls_bucket", agent="planner", le="1.0") == 1
    assert (
        scrape("agent_run_tool_calls_count", agent="planner")
        == scrape("agent_runs_total", agent="planner", status="success")
        == 2
    )


def test_two_exporters_on_one_registry_share_the_families() -> None:
    """Both count into the same series, and a run may start at one and end at the other."""
    registry = CollectorRegistry()
    first, second = PrometheusExporter(registry), PrometheusExporter(registry)
    first.export([ended(), started(invocation_id="inv-2")])
    second.export([ended(), ended(invocation_id="inv-2")])
    assert registry.get_sample_value("agent_runs_total", {"agent": "planner", "status": "success"}) == 3
    assert registry.get_sample_value("agent_active_runs", {"agent": "planner"}) == 0


def test_two_exporters_in_two_threads_lose_nothing() -> None:
    """Batches of two pipelines on one registry, at the same time: the sum is exact."""
    registry = CollectorRegistry()
    exporters = [PrometheusExporter(registry) for _ in range(4)]

    def run(exporter: PrometheusExporter) -> None:
        for number in range(200):
            exporter.export([ended(f"agent-{number}", is_task=True)] * 5)

    threads = [threading.Thread(target=run, args=(exporter,)) for exporter in exporters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = [s for f in registry.collect() for s in f.samples if s.name in {"agent_runs_total", "workflow_runs_total"}]
    assert sum(sample.value for sample in runs) == 2 * 4 * 200 * 5


def test_a_registry_that_has_such_a_metric_is_refused_and_left_as_it_was() -> None:
    """A name that is taken fails at construction, says what to do, and registers nothing."""
    registry = CollectorRegistry()
    Counter("agent_runs", "Mine.", registry=registry)
    with pytest.raises(ConfigurationError, match=r"agent_runs_total.*registry of its own"):
        PrometheusExporter(registry)
    assert [family.name for family in registry.collect()] == ["agent_runs"]


def test_a_scrape_by_hand_sees_what_was_handed_over() -> None:
    """A user's own `generate_latest(registry)` drains every live exporter first, whatever a failing one does."""
    registry = CollectorRegistry()
    calls: list[str] = []

    def fail() -> None:
        calls.append("failed")
        raise OSError("disk")

    counters = InternalCounters()
    exporter = PrometheusExporter(registry, drain=lambda: exporter.export([ended()]))
    failing = PrometheusExporter(registry, drain=fail, counters=counters)
    assert calls == []
    assert b'agent_runs_total{agent="planner",status="success"} 1.0' in generate_latest(registry)
    assert calls == ["failed"]
    assert counters.take() == {(semconv.INTERNAL_ERRORS, ("prometheus.drain",)): 1}
    del failing
    gc.collect()
    generate_latest(registry)
    assert calls == ["failed"]


def test_an_exporter_that_is_gone_or_shut_down_is_not_drained() -> None:
    """After `shutdown` a scrape no longer calls the pipeline, and the counts stay."""
    registry = CollectorRegistry()
    calls: list[int] = []
    exporter = PrometheusExporter(registry, drain=lambda: calls.append(1))
    exporter.export([ended()])
    exporter.shutdown()
    exporter.drain()
    assert registry.get_sample_value("agent_runs_total", {"agent": "planner", "status": "success"}) == 1
    assert calls == []


def test_a_drain_that_scrapes_does_not_deadlock() -> None:
    """Scraping the registry from within a drain ends: the pipeline returns at once on a thread that drains."""
    registry = CollectorRegistry()
    depth: list[int] = []

    def drain() -> None:
        if depth:
            return
        depth.append(1)
        generate_latest(registry)

    exporter = PrometheusExporter(registry, drain=drain)
    thread = threading.Thread(target=generate_latest, args=(registry,), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert depth == [1]
    exporter.shutdown()


def test_a_scrape_of_one_family_drains_as_well() -> None:
    """A restricted registry, which Prometheus' `name[]` makes, sees what was handed over."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, drain=lambda: exporter.export([ended()]))
    only = registry.restricted_registry(["agent_runs_total"])
    assert b'agent_runs_total{agent="planner",status="success"} 1.0' in generate_latest(only)


def test_a_signal_in_the_middle_of_a_scrape_loses_nothing_and_locks_nothing(scrape: Scrape) -> None:
    """A signal handler that books while its own thread scrapes, declares or books: every run of it is counted."""
    handled: list[int] = []

    def handle(*_: object) -> None:
        handled.append(1)
        scrape.export(ended())
        scrape.exporter.book(semconv.INTERNAL_ERRORS, ("freeze",), 1)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(handled) < 300:
            generate_latest(scrape.registry)
            scrape.exporter.declare(Operation.AGENT, f"agent-{len(handled) % 50}")
            scrape.export(ended("other"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert scrape("agent_runs_total", agent="planner", status="success") == len(handled)
    assert scrape("taskpilot_obs_internal_errors_total", where="freeze") == len(handled)


FORKS = """
import os, threading
from prometheus_client import REGISTRY, generate_latest
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.records import Invocation, Operation, Started, Status

exporter = PrometheusExporter()
runs = [Invocation(Status.SUCCESS, 0.1, Operation.AGENT, f"a{n}", "r", "i", None, None, None, 1) for n in range(100)]
exporter.export(runs)
exporter.export([Started(Operation.AGENT, "a0", "r", "parent's", None, None, None, 1)])

def scrape():
    while True:
        generate_latest()

threading.Thread(target=scrape, daemon=True).start()
for _ in range(15):
    child = os.fork()
    if child == 0:
        exporter.export(runs)
        exporter.declare(Operation.AGENT, "new")
        counted = REGISTRY.get_sample_value("agent_runs_total", {"agent": "a99", "status": "success"})
        active = REGISTRY.get_sample_value("agent_active_runs", {"agent": "a0"})
        os._exit(0 if (counted, active) == (2, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert REGISTRY.get_sample_value("agent_active_runs", {"agent": "a0"}) == 1
"""


def test_a_fork_in_the_middle_of_scrapes_leaves_the_child_able_to_count() -> None:
    """A child that is forked while another thread scrapes inherits no held lock and no run of the parent's."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


FORK_WHILE_REGISTERING = """
import os, threading
from prometheus_client import REGISTRY
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.records import Invocation, Operation, Status

exporter = PrometheusExporter()
inside, done = threading.Event(), threading.Event()

class Slow:
    def describe(self):
        inside.set()
        done.wait()
        return []
    collect = describe

thread = threading.Thread(target=REGISTRY.register, args=[Slow()])
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    exporter.export([Invocation(Status.SUCCESS, 0.1, Operation.AGENT, "a", "r", "i", None, None, None, 1)])
    counted = REGISTRY.get_sample_value("agent_runs_total", {"agent": "a", "status": "success"})
    os._exit(0 if counted == 1 else 1)
assert os.waitpid(child, 0)[1] == 0
done.set()
thread.join()
"""


def test_a_fork_while_another_thread_holds_the_registry_leaves_the_child_able_to_scrape() -> None:
    """prometheus_client's own lock, which another thread held at the fork, is not held for ever in the child."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_REGISTERING],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_record_that_cannot_be_booked_takes_no_other_along(scrape: Scrape) -> None:
    """A broken record is counted as an internal error, and the rest of its batch is booked."""
    nameless = ended()._replace(name=["not", "hashable"])  # type: ignore[arg-type]  # what types forbid happens
    wordy = llm(usage=Usage("many", 1))  # type: ignore[arg-type]  # the same
    scrape.export(ended(), nameless, ended(), wordy, ended())
    assert scrape("agent_runs_total", agent="planner", status="success") == 3
    assert scrape.counters.take() == {(semconv.INTERNAL_ERRORS, ("prometheus",)): 2}


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -1.0])
def test_a_duration_that_is_none_does_not_spoil_the_sum(scrape: Scrape, duration: float) -> None:
    """A duration that is negative, infinite or not a number is left out of the histogram; the run counts."""
    scrape.export(ended(duration_s=duration), ended(duration_s=0.5))
    assert scrape("agent_run_duration_seconds_sum", agent="planner") == 0.5
    assert scrape("agent_runs_total", agent="planner", status="success") == 2


@pytest.mark.parametrize("cost", [Decimal("NaN"), Decimal("Infinity"), Decimal(-1)])
def test_a_cost_that_is_no_amount_adds_nothing(scrape: Scrape, cost: Decimal) -> None:
    """A cost that is not a positive amount leaves the counter where it was, and nothing fails."""
    scrape.export(llm(cost=cost, usage=Usage(-1, 1)))
    assert scrape("llm_cost_usd_total", agent="planner", **MODEL) == 0
    assert scrape.counters.take() == {}


def test_exemplars_of_sampled_runs_come_out_in_openmetrics(scrape: Scrape) -> None:
    """A sampled run leaves its trace and span on the bucket that it fell into; an unsampled one does not."""
    scrape.export(ended(trace_id=TRACE_ID, span_id=SPAN_ID, sampled=True))
    scrape.export(ended(name="other", trace_id=TRACE_ID, span_id=SPAN_ID, sampled=False))
    body, content_type = render(scrape.registry, OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = [
        (sample.labels["agent"], sample.labels["le"], sample.exemplar.labels)
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar
    ]
    assert exemplars == [("planner", "0.5", {"trace_id": TRACE_ID, "span_id": SPAN_ID})]


@pytest.mark.parametrize(
    ("trace_id", "span_id"),
    [
        ("a" * 98, SPAN_ID),
        (TRACE_ID, "é"),
        (TRACE_ID, None),
        (None, SPAN_ID),
        ("", ""),
        ("a\nb", SPAN_ID),
        ("\ud800", SPAN_ID),
    ],
)
def test_an_exemplar_that_is_not_valid_is_left_out_and_counted_once(
    scrape: Scrape, trace_id: str | None, span_id: str | None
) -> None:
    """An exemplar that OpenMetrics forbids is dropped before the observation, which counts once."""
    scrape.export(ended(trace_id=trace_id, span_id=span_id, sampled=True))
    assert scrape("agent_run_duration_seconds_count", agent="planner") == 1
    assert b"trace_id" not in render(scrape.registry, OPEN_METRICS)[0]
    assert scrape.counters.take() == {}


def everything() -> list[Record]:
    """One record of every kind, so that every family but the pipeline's own has a child."""
    return [
        started(is_task=True),
        ended(
            is_task=True, trace_id=TRACE_ID, span_id=SPAN_ID, sampled=True, rollup=Rollup(cost=Decimal(1), violations=1)
        ),
        started("search", Operation.TOOL),
        ended("search", Operation.TOOL),
        started("chat", Operation.CHAT),
        llm(usage=Usage(1, 1, 1, 1, 1, 1, 1, 1, 1), cost=Decimal(1), ttft_s=1.0, cached=False, retries=1),
        llm(Status.ERROR, usage_inconsistent=True),
        llm(cached=True),
        decision(DecisionKind.POLICY, Verdict.DENY, CheckResult.BLOCKED),
        decision(DecisionKind.GUARDRAIL, Verdict.DENY, CheckResult.BLOCKED, stage=Stage.INPUT, duration_s=0.1),
        decision(DecisionKind.BUDGET, Verdict.DENY, CheckResult.BLOCKED, attributes={"period": "day"}),
        Feedback("req-1", True, False, ORIGIN, 1),
        Feedback("req-1", False, True, ORIGIN, 1),
        CacheSize("answers", 1, 1),
        ended("assigned", is_task=True, attributes=_ASSIGNED),
        llm(cost=Decimal(1), attributes=_ASSIGNED),
        Feedback("req-2", True, False, ORIGIN, 1, _ASSIGNED),
        AuditEvent(semconv.EXPERIMENT_STOPPED, ORIGIN, 1, {**_ASSIGNED, semconv.Label.MEASURE: "cost"}),
    ]


_ASSIGNED = {"experiment": "planner-prompt", "variant": "v2"}


@pytest.mark.parametrize("expose", [lambda registry: render(registry)[0], generate_latest])
def test_promtool_has_nothing_to_say_about_the_names(
    scrape: Scrape, expose: Callable[[CollectorRegistry], bytes]
) -> None:
    """`promtool check metrics` passes over an exposition in which every family has a child."""
    promtool = require_binary("promtool")
    scrape.export(*everything())
    scrape.exporter.book(semconv.RECORDS, ("prometheus",), 1)
    scrape.exporter.book(semconv.INTERNAL_ERRORS, ("freeze",), 1)
    scrape.exporter.book(semconv.LABEL_OVERFLOW, ("agent_runs_total",), 1)
    scrape.exporter.set_queue_size("prometheus", 1)
    for metric in (
        semconv.BUDGET_LIMIT,
        semconv.BUDGET_SPENT,
        semconv.BUDGET_ASSUMED,
        semconv.BUDGET_RESERVED,
        semconv.BUDGET_USED_RATIO,
        semconv.BUDGET_RESETS,
        semconv.BUDGET_OTHER_LIMITS,
    ):
        scrape.exporter.set_gauge(metric, ("daily", "day"), 1)
    exposition = expose(scrape.registry)
    without_child = [
        family.name
        for family in scrape.registry.collect()
        if family.name != semconv.START_TIME.name and not any(sample.labels for sample in family.samples)
    ]
    assert without_child == []
    checked = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


STATUSES = st.sampled_from(list(Status))
RUNS = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), STATUSES), max_size=60)


@given(runs=RUNS, size=st.integers(1, 7))
def test_starts_and_ends_in_any_batches_balance(runs: list[tuple[bool, str, Status]], size: int) -> None:
    """However records fall into batches, gauges end at the runs in progress and counters at the runs that ended."""
    scrape = Scrape()
    records: list[Record] = []
    for number, (ends, name, status) in enumerate(runs):
        records.append(started(name, invocation_id=str(number), is_task=True))
        if ends:
            records.append(ended(name, status=status, invocation_id=str(number), is_task=True))
    for at in range(0, len(records), size):
        scrape.exporter.export(records[at : at + size])
    finished = sum(ends for ends, _, _ in runs)
    assert scrape.total("agent_active_runs") == scrape.total("workflow_active_runs") == len(runs) - finished
    assert scrape.total("agent_runs_total") == scrape.total("workflow_runs_total") == finished


def counts(histogram: BulkHistogram) -> dict[tuple[str, str], float]:
    """What a scrape shows of a histogram without labels."""
    found = next(iter(histogram.collect())).samples
    return {(each.name, each.labels.get("le", "")): each.value for each in found if each.name != "h_created"}


def exemplars(histogram: BulkHistogram) -> dict[str, tuple[dict[str, str], float]]:
    """By upper bound, the labels and the value of the exemplars that a scrape shows."""
    found = next(iter(histogram.collect())).samples
    return {each.labels["le"]: (each.exemplar.labels, each.exemplar.value) for each in found if each.exemplar}


@given(st.lists(st.floats(min_value=0, max_value=1e9), max_size=50), st.sampled_from([0, 1, 3]))
def test_many_observations_at_once(values: list[float], every: int) -> None:
    """A histogram that takes a batch at once stands where one stands that took each value by itself."""
    one, many = (BulkHistogram("h", "Help.", registry=None, buckets=semconv.RUN_BUCKETS) for _ in range(2))
    labels = [{"trace_id": str(n)} if every and n % every == 0 else None for n in range(len(values))]
    for value, exemplar in zip(values, labels, strict=True):
        one.observe(value, exemplar)
    if every:
        many.observe_traced(values, labels.__getitem__)
    else:
        many.observe_all(values)
    expected, found = counts(one), counts(many)
    assert found.pop(("h_sum", "")) == pytest.approx(expected.pop(("h_sum", "")))
    assert found == expected
    # The last run of a bucket may have no exemplar: then the bucket keeps the one that it had before the batch.
    assert exemplars(many).items() <= exemplars(one).items()
    if every == 1:
        assert exemplars(many) == exemplars(one)
