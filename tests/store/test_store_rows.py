"""What of a record becomes a row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from _stored import NOON, denial, llm_call, task, unix_ns, verdict
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select

from taskpilot_obs._telemetry.values import MAX_TEXT, MAX_TOKENS, stored_text
from taskpilot_obs.records import (
    AuditEvent,
    CheckResult,
    Decision,
    DecisionKind,
    Operation,
    Origin,
    Record,
    Started,
    Status,
    Usage,
    Verdict,
)
from taskpilot_obs.store import Store
from taskpilot_obs.store.rows import LLM_COLUMNS, MAX_MESSAGE, RUN_COLUMNS, rows_of
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, VIOLATIONS, metadata, to_microseconds
from taskpilot_obs.store.writer import Writer


def call_row(**given: Any) -> dict[str, object]:
    """The row of one call, by column."""
    (row,) = rows_of([llm_call(**given)]).llm_calls
    return dict(zip(LLM_COLUMNS, row, strict=True))


def test_a_call_is_stored_with_all_that_is_known_of_it(store: Store) -> None:
    """Tokens, money, names, times and the caller's own attributes come back from the table."""
    attributes = {
        "prompt_name": "plan",
        "step_id": 3,
        "task_id": "t-1",
        "workflow_run_id": "w-1",
        "thought_id": "th-1",
        "llm_key": "main",
        "experiment": "e-1",
        "variant": "b",
    }
    call = llm_call(attributes=attributes, streaming=True, ttft_s=0.2, trace_id="f" * 32, session="s-1")
    Writer(store).write(rows_of([call]))
    with store.reading() as connection:
        row = connection.execute(select(LLM_CALLS)).mappings().one()
    assert row["created_at"] == NOON
    assert (row["telemetry_id"], row["request_id"]) == (call.invocation_id, call.request_id)
    assert (row["organization_id"], row["user_id"], row["session_id"]) == ("acme", "ann", "s-1")
    assert (row["provider"], row["model_name"], row["agent"]) == ("openai", "gpt-4o", "planner")
    assert (row["input_tokens"], row["output_tokens"], row["total_tokens"]) == (1000, 200, 1200)
    assert (row["cached_tokens"], row["reasoning_tokens"], row["cache_write_tokens"]) == (100, 50, None)
    assert (row["latency_ms"], row["time_to_first_token_ms"]) == (500.0, 200.0)
    assert (row["cost_nano"], row["cost_rest"], row["cost_source"]) == (10_500_000, 0, "price_table")
    assert (row["success"], row["status"], row["streaming"], row["cached"]) == (True, "success", True, None)
    assert row["step_id"] == "3"
    assert {name: row[name] for name in attributes if name != "step_id"} == {
        name: value for name, value in attributes.items() if name != "step_id"
    }


def test_a_run_is_stored_with_its_parent_and_roll_up(store: Store) -> None:
    """Workflows, agents and tools share a table, with what happened beneath them."""
    Writer(store).write(rows_of([task(parent_id="above", error_type="KeyError", status=Status.ERROR)]))
    with store.reading() as connection:
        row = connection.execute(select(AGENT_RUNS)).mappings().one()
    assert (row["operation"], row["name"], row["parent_id"]) == ("invoke_workflow", "triage", "above")
    assert (row["success"], row["status"], row["error_type"]) == (False, "error", "KeyError")
    assert (row["llm_calls"], row["tool_calls"], row["input_tokens"], row["cost_nano"]) == (1, 2, 1000, 10_500_000)


def test_verdicts_and_denials_are_stored(store: Store) -> None:
    """A user's word and a policy's no have tables of their own."""
    Writer(store).write(rows_of([verdict(correct=False, revision=True), denial()]))
    with store.reading() as connection:
        feedback = connection.execute(select(FEEDBACK)).mappings().one()
        violation = connection.execute(select(VIOLATIONS)).mappings().one()
    assert (feedback["correct"], feedback["revision"], feedback["organization_id"]) == (False, True, "acme")
    assert (violation["policy"], violation["severity"], violation["created_at"]) == ("no-secrets", "medium", NOON)


def test_what_is_no_fact_about_a_run_has_no_row() -> None:
    """Starts, audit events, and decisions that allow or belong to budgets and guardrails are not stored."""
    origin = Origin()
    records: list[Record] = [
        Started(Operation.AGENT, "planner", "r", "i", None, None, "planner", 0),
        AuditEvent("approved", origin, 0),
        Decision(DecisionKind.POLICY, "p", Verdict.ALLOW, CheckResult.PASSED, origin, 0),
        Decision(DecisionKind.BUDGET, "b", Verdict.DENY, CheckResult.BLOCKED, origin, 0),
    ]
    assert not rows_of(records)


@pytest.mark.parametrize(
    ("status", "success"),
    [(Status.SUCCESS, True), (Status.TIMEOUT, False), (Status.BLOCKED, False), (Status.ABANDONED, None)],
)
def test_success_is_unknown_where_a_status_proves_nothing(status: Status, success: bool | None) -> None:
    """What was cancelled, abandoned or interrupted is neither success nor failure."""
    assert call_row(status=status)["success"] is success


def test_an_unknown_stays_unknown() -> None:
    """No usage and no price are NULL, and never 0."""
    row = call_row(usage=None, cost=None)
    unknown = ("input_tokens", "output_tokens", "total_tokens", "cost_nano", "cost_rest")
    assert [row[name] for name in unknown] == [None] * len(unknown)


def test_half_a_usage_is_a_total() -> None:
    """Tokens that were stated count, even where the other half was not."""
    assert call_row(usage=Usage(input_tokens=7))["total_tokens"] == 7


def test_the_application_s_own_cache_costs_nothing() -> None:
    """A call that the application's own cache answered has no cost, whatever it carries."""
    assert call_row(cached=True, cost=Decimal(1))["cost_nano"] is None


@pytest.mark.parametrize("cost", [Decimal("NaN"), Decimal("Infinity"), Decimal(10**10)])
def test_a_cost_that_no_column_holds_is_unknown(cost: Decimal) -> None:
    """Invalid amounts of money are not stored."""
    assert call_row(cost=cost)["cost_nano"] is None


@pytest.mark.parametrize(("stated", "stored"), [(10**30, MAX_TOKENS), (-(10**30), -MAX_TOKENS), (5, 5)])
def test_nonsense_of_a_provider_cannot_overflow_a_sum(stated: int, stored: int) -> None:
    """A count beyond a trillion tokens is cut down to that."""
    assert call_row(usage=Usage(input_tokens=stated))["input_tokens"] == stored


@pytest.mark.parametrize(("seconds", "stored"), [(-1.0, 0.0), (1.0000004, 1000.0), (1e30, 1e12)])
def test_a_duration_is_a_number_of_microseconds(seconds: float, stored: float) -> None:
    """Negative is 0, longer than thirty years is that, and the rest is rounded to microseconds."""
    assert call_row(duration_s=1.0, ttft_s=seconds)["time_to_first_token_ms"] == stored


def test_a_first_token_that_is_no_number_is_0() -> None:
    """NaN does not reach the database, which would take it for NULL."""
    assert call_row(ttft_s=float("nan"))["time_to_first_token_ms"] == 0.0


hard = st.text(st.characters(codec=None) | st.just("\x00"), max_size=300) | st.just("a" * 1_000)


@given(hard)
def test_text_is_what_both_databases_take(text: str) -> None:
    """No NUL, no half of a surrogate pair and nothing long reaches a row."""
    stored = call_row(provider=text)["provider"]
    assert isinstance(stored, str)
    assert len(stored) <= MAX_TEXT
    assert "\x00" not in stored
    assert stored.encode("utf-8").decode("utf-8") == stored


@given(hard, hard)
@example("acme", "acme\x00")
@example("a" * 300, "a" * 301)
@example("a\ud800", "a\ud801")
@example("__none__", "")
def test_two_names_never_become_one(first: str, second: str) -> None:
    """Whatever is cut out of a name, the name of another tenant stays another."""
    assert (stored_text(first) == stored_text(second)) == (first == second)


def test_a_message_is_cut_off() -> None:
    """An error's text is kept up to a length."""
    assert call_row(error_message="e\x00" * 3_000)["error_message"] == "e" * MAX_MESSAGE


@given(
    st.lists(
        st.none()
        | st.text(max_size=40)
        | st.sampled_from(["x" * MAX_TEXT, "x" * (MAX_TEXT + 1), 0, 7, True, "\x00", "é", "__none__"]),
        min_size=7,
        max_size=7,
    )
)
@example([0, None, "", None, None, None, None])
@example(["a", "__none__", "b", None, None, None, None])
def test_names_beside_each_other_are_stored_as_each_alone(names: list[Any]) -> None:
    """A row is looked over as a whole; what it keeps of a name does not depend on the names beside it."""
    attributes = ("llm_key", "prompt_name", "step_id", "task_id", "workflow_run_id", "thought_id", "experiment")
    row = call_row(attributes=dict(zip(attributes, names, strict=True)))
    assert [row[name] for name in attributes] == [stored_text(name) for name in names]


def test_names_that_hurt_are_written(store: Store) -> None:
    """NUL, surrogates and quotes in every name do not lose the batch."""
    name = "a\x00b\ud800'\";--\n"
    Writer(store).write(rows_of([llm_call(provider=name, tenant=name, agent=name, attributes={"prompt_name": name})]))
    with store.reading() as connection:
        stored = connection.execute(select(LLM_CALLS.c.provider)).scalar_one()
    assert stored.startswith("ab?'\";--\n~")


def test_a_row_can_wait_in_a_file() -> None:
    """Rows hold nothing that JSON does not."""
    rows = rows_of([llm_call(), task(), verdict(), denial()])
    assert [[tuple(row) for row in part] for part in json.loads(json.dumps(rows))] == [list(part) for part in rows]


def test_an_invocation_belongs_to_its_end() -> None:
    """The time of a row is when the call ended, as in the metrics, to the microsecond."""
    row = call_row(start_unix_ns=unix_ns(NOON), duration_s=1.25)
    assert row["created_at"] == to_microseconds(NOON) + 1_250_000


def test_rows_have_the_order_of_their_tables() -> None:
    """Each value stands under its own column."""
    assert set(LLM_COLUMNS) | {"series_id"} == {column.name for column in metadata.tables["llm_call_telemetry"].columns}
    (row,) = rows_of([task()]).runs
    named = dict(zip(RUN_COLUMNS, row, strict=True))
    assert (named["is_task"], named["name"], named["organization_id"]) == (True, "triage", "acme")


def test_an_organization_may_be_an_attribute() -> None:
    """Without a tenant in the context, `organization_id` names it."""
    assert call_row(tenant=None, attributes={"organization_id": "umbrella"})["organization_id"] == "umbrella"
