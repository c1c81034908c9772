"""Labels of the Prometheus exporter: bounded, fit for the exposition, and never at the cost of a sum."""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.labels import LONGEST_VALUE, Admission, clean
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import (
    CheckResult,
    Decision,
    DecisionKind,
    Invocation,
    Operation,
    Origin,
    Severity,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.usage import Usage


class Text(str):
    """A string with a will of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("never called")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("planner", "planner"),
        (None, "__none__"),
        ("", "__none__"),
        (Status.SUCCESS, "success"),
        (Text("planner"), "planner"),
        (7, "<int>"),
        (object(), "<object>"),
        ("a\x00b\nc", "a\ufffdb\ufffdc"),
        ("lone \ud800 half", "lone ? half"),
        ("schöner\u00a0Name", "schöner\ufffdName".replace("\ufffd", "\u00a0")),
        ("x" * 5000, "x" * (LONGEST_VALUE - 1) + "…"),
    ],
)
def test_any_value_becomes_a_label(value: object, label: str) -> None:
    """A label value is printable text of at most 200 characters, whatever was given."""
    assert clean(value) == label


@given(st.text(st.characters(), max_size=300))
def test_no_text_breaks_the_exposition(name: str) -> None:
    """Any name, with control characters, lone surrogates or quotes, is exposed and parsed back in both formats."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    exporter.export([run(name)])
    render(registry, "application/openmetrics-text; version=1.0.0")
    parsed = [
        sample
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "agent_runs_total" and sample.value
    ]
    assert [sample.labels for sample in parsed] == [{"agent": clean(name), "status": "success"}]


def test_admission_is_sticky_and_first_come() -> None:
    """The names that come first stay, those past the bound fold and stay folded, fixed sets take their members only."""
    admission = Admission()
    bound = semconv.LABEL_BOUNDS["provider"]
    names = [f"p{number}" for number in range(bound + 5)]

    def admit(label: str, value: str, family: str = "llm_requests_total") -> str:
        return admission.admit(family, label, value)

    for _ in range(2):
        assert [admit("provider", name) for name in names] == names[:bound] + ["__other__"] * 5
    assert admit("provider", "__none__") == "__none__"
    assert admit("status", "success") == "success"
    assert admit("status", "splendid") == "__other__"
    assert admit("version", "1.2.3") == "1.2.3"
    assert admit("reason", "fees", "llm_partially_priced_requests_total") == "fees"
    assert admit("reason", "fees", "taskpilot_obs_records_dropped_total") == "__other__"


def run(name: str, status: Status = Status.SUCCESS) -> Invocation:
    return Invocation(status, 0.1, Operation.AGENT, name, "req", name, None, None, name, 1, is_task=True)


def started(name: str) -> Started:
    return Started(Operation.AGENT, name, "req", name, None, None, name, 1, is_task=True)


def values(registry: CollectorRegistry, name: str) -> list[Sample]:
    return [sample for family in registry.collect() for sample in family.samples if sample.name == name]


def total(registry: CollectorRegistry, name: str) -> float:
    return sum(sample.value for sample in values(registry, name))


def test_declared_names_are_admitted_first_and_their_gauges_balance() -> None:
    """A declared name keeps its own series in a flood of others, and folded runs raise and lower the same gauge."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    exporter.declare(Operation.AGENT, "mine")
    flood = [f"agent-{number}" for number in range(1000)]
    exporter.export([started(name) for name in flood])
    assert registry.get_sample_value("agent_active_runs", {"agent": "__other__"}) == 1000 - 199
    assert total(registry, "agent_active_runs") == 1000
    exporter.export([run(name) for name in flood])
    exporter.export([run("mine")])
    assert registry.get_sample_value("agent_runs_total", {"agent": "mine", "status": "success"}) == 1
    assert registry.get_sample_value("agent_runs_total", {"agent": "__other__", "status": "success"}) == 1000 - 199
    assert total(registry, "agent_active_runs") == 0
    assert total(registry, "workflow_active_runs") == 0
    assert {sample.value for sample in values(registry, "agent_active_runs")} == {0}
    folded = registry.get_sample_value("taskpilot_obs_label_overflow_total", {"metric": "agent_runs_total"})
    assert folded == 1000 - 199


def test_folded_names_are_looked_up_once_and_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of names beyond the bound share the series of the first: no label is admitted for any of them again."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)

    def turn(name: str) -> list[Started | Invocation]:
        tool: dict[str, Any] = {"operation": Operation.TOOL, "name": "search", "agent": name, "is_task": False}
        call: dict[str, Any] = {**tool, "operation": Operation.CHAT, "provider": "p"}
        answered: dict[str, Any] = {**call, "response_model": "m"}
        starts, ends = started(name), run(name)
        return [
            starts,
            ends,
            starts._replace(**tool),
            ends._replace(**tool),
            starts._replace(**call),
            ends._replace(**answered),
        ]

    exporter.export([record for number in range(201) for record in turn(f"kept-{number}")])
    admitted: list[str] = []
    admit = Admission.admit

    def counting(self: Admission, family: str, label: str, value: str) -> str:
        admitted.append(label)
        return admit(self, family, label, value)

    monkeypatch.setattr(Admission, "admit", counting)
    for _ in range(2):
        exporter.export([record for number in range(5_000) for record in turn(f"folded-{number}")])
    assert admitted == []
    assert registry.get_sample_value("agent_runs_total", {"agent": "__other__", "status": "success"}) == 10_001
    folded = {each.labels["metric"]: each.value for each in values(registry, "taskpilot_obs_label_overflow_total")}
    agents = ("agent_runs_total", "agent_active_runs", "agent_run_duration_seconds", "agent_run_llm_calls")
    calls = ("agent_tool_calls_total", "llm_active_requests", "llm_requests_total")
    assert {folded[name] for name in agents + calls} == {10_001}
    assert {folded[name] for name in ("workflow_runs_total", "workflow_active_runs", "workflow_cost_usd_total")} == {
        10_101
    }
    assert total(registry, "agent_active_runs") == total(registry, "llm_active_requests") == 0


def test_no_family_outgrows_its_bound() -> None:
    """After a flood of names no family has more than 2,000 children, and every sum is exact."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    number = 10_000
    for at in range(number):
        name = f"name-{at}"
        tool = run(f"tool-{at % 211}")._replace(operation=Operation.TOOL, agent=f"agent-{at % 223}", is_task=False)
        call = run(name)._replace(
            operation=Operation.CHAT,
            agent=f"agent-{at % 223}",
            response_model=f"model-{at % 131}",
            provider=f"provider-{at % 37}",
            usage=Usage(2, 1, cache_read_tokens=1),
            cost=Decimal("0.01"),
            is_task=False,
        )
        denial = Decision(
            DecisionKind.POLICY,
            f"policy-{at % 113}",
            Verdict.DENY,
            CheckResult.BLOCKED,
            Origin(workflow=f"w-{at % 101}", agent=f"agent-{at % 223}"),
            1,
            severity=list(Severity)[at % 4],
        )
        exporter.export([run(name), tool, call, denial])
    children: Count[str] = Count()
    totals: defaultdict[str, float] = defaultdict(float)
    for family in registry.collect():
        for sample in family.samples:
            children[sample.name] += 1
            totals[sample.name] += sample.value
    for metric in semconv.METRICS:
        suffix = "_count" if metric.kind is semconv.Kind.HISTOGRAM else ""
        assert children[metric.name + suffix] <= semconv.MAX_CHILDREN, metric.name
    for name in (
        "agent_runs_total",
        "workflow_runs_total",
        "agent_tool_calls_total",
        "llm_requests_total",
        "llm_token_details_total",
        "policy_violations_total",
        "policy_decisions_total",
        "agent_run_duration_seconds_count",
        "llm_request_duration_seconds_count",
    ):
        assert totals[name] == number, name
    assert totals["llm_tokens_total"] == 3 * number
    assert totals["llm_cost_usd_total"] == pytest.approx(0.01 * number, rel=1e-9)


NAMES = st.one_of(st.integers(0, 400).map("n{}".format), st.text(st.characters(), max_size=8))
CALLS = st.lists(st.tuples(NAMES, NAMES, NAMES, st.sampled_from(list(Status)), st.integers(0, 9)), max_size=300)


@settings(deadline=None, max_examples=30)
@given(calls=CALLS, size=st.integers(1, 50))
def test_label_bounds_conserve_totals(calls: list[tuple[str, str, str, Status, int]], size: int) -> None:
    """Under any names, in any batches: sums over all labels are exact, by status too, and labels keep their bounds."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    records = [
        run(agent, status)._replace(
            operation=Operation.CHAT,
            is_task=False,
            agent=agent,
            response_model=model,
            provider=provider,
            usage=Usage(tokens, tokens),
        )
        for agent, model, provider, status, tokens in calls
    ]
    for at in range(0, len(records), size):
        exporter.export(records[at : at + size])
    by_status: Count[str] = Count()
    for sample in values(registry, "llm_requests_total"):
        by_status[sample.labels["status"]] += int(sample.value)
    assert +by_status == Count(status.value for _, _, _, status, _ in calls)
    assert total(registry, "llm_tokens_total") == 2 * sum(tokens for *_, tokens in calls)
    assert total(registry, "llm_request_duration_seconds_count") == len(calls)
    for label in ("agent", "model", "provider"):
        used = {sample.labels[label] for sample in values(registry, "llm_requests_total")}
        assert len(used - {"__none__", "__other__"}) <= semconv.LABEL_BOUNDS[label]


def test_names_that_are_cut_do_not_fill_the_memory() -> None:
    """Raw names that had to be changed are not remembered: a million of them fold into one series and no table."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    prefix = "x" * LONGEST_VALUE
    for number in range(500):
        exporter.export([started(f"{prefix}{number}"), run(f"{prefix}{number}")])
    assert total(registry, "agent_runs_total") == 500
    assert len(values(registry, "agent_active_runs")) == 1
    assert (exporter._runs._completions, exporter._runs._starts) == ({}, {})
    assert exporter._families.active == {}
