"""Budgets where two parts meet: a reservation and its record, a refusal and its reader, a stream and who leaves it."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taskpilot_obs import configure, exceptions, observe_agent, observe_llm, request_context, track_llm, track_tool
from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, BudgetAlert, budget_status
from taskpilot_obs.budgets.model import CallScope, literal
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.exceptions import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    GuardrailBlockedError,
    MissingExtraError,
    PolicyViolationError,
    RefusedError,
    TaskpilotError,
)
from taskpilot_obs.records import CheckResult, Decision, Origin, Source, Status
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import FixedClock, capture_invocations, capture_records, fresh_recorder

MODEL = "gpt-4o"
"""2.50 USD for a million tokens in, 10.00 USD out."""
CALL: dict[str, Any] = {"model": MODEL, "input_tokens": 40_000, "max_output_tokens": 2_000}
"""0.12 USD at most."""


def enforced(limit: str = "0.45", **options: Any) -> Budget:
    return Budget("team", limit_usd=limit, action="enforce", **options)


def state(recorder: Recorder) -> Any:
    """Spent, assumed and reserved of the first account."""
    found = budget_status(recorder=recorder)[0]
    return found.spent, found.assumed, found.reserved


def internal_errors(recorder: Recorder) -> dict[str, int]:
    """Failures of the library that it counted, by their place."""
    recorder.drain()
    totals = recorder.counters.totals
    return {labels[0]: number for (metric, labels), number in totals.items() if metric is INTERNAL_ERRORS}


# --- one path -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """In this process, and in a store."""
    return {} if request.param == "memory" else {"budget_store": f"sqlite:///{tmp_path / 'budgets.db'}"}


def test_the_ledger_equals_the_calls_whoever_reserved_them(where: dict[str, Any]) -> None:
    """Calls within blocks and calls of their own, in threads, among other records: to the last digit, once each."""
    with fresh_recorder(budgets=[enforced("500")], **where) as recorder:

        def work(number: int) -> None:
            with Reservation(recorder, model=MODEL, kwargs=CALL):
                recorder.record_llm_call(model=MODEL, cost="0.001")
            with track_llm(recorder=recorder, **CALL) as running:
                running.set_cost("0.0002")
            for _ in range(number % 7):
                with track_tool("t", recorder=recorder):
                    pass

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(400)))
        assert recorder.flush(30)
        assert state(recorder) == (Decimal("0.48"), 0, 0)


def test_a_running_call_keeps_its_reservation_in_a_store(tmp_path: Path) -> None:
    """Its process renews it: after twice its length another call still finds no room."""
    budget = Budget("b", limit_tokens=100, period="total", action="enforce")
    told: list[bool] = []
    with fresh_recorder(
        budgets=[budget], budget_reservation_s=1, budget_store=f"sqlite:///{tmp_path / 'budgets.db'}"
    ) as recorder:
        options: Any = {"model": MODEL, "input_tokens": 60, "max_output_tokens": 40, "recorder": recorder}
        with track_llm(**options) as running:
            until = time.monotonic() + 2.2
            while time.monotonic() < until:
                with pytest.raises(BudgetExceededError), track_llm(**options):
                    told.append(True)
                time.sleep(0.05)
            running.record_usage(input_tokens=60, output_tokens=40)
        recorder.flush()
        assert (state(recorder), told) == ((100, 0, 0), [])


def test_calls_that_run_while_the_library_is_configured_again_are_settled(tmp_path: Path, recorder: Recorder) -> None:
    """Their reservations end in the store that both configurations use."""
    options: dict[str, Any] = {"budgets": [enforced()], "budget_store": f"sqlite:///{tmp_path / 'budgets.db'}"}
    configure(**options)
    with track_llm(**CALL) as running:
        configure(**options)
        assert state(recorder)[2] == Decimal("0.12")
        running.set_cost("0.05")
    assert recorder.flush(10)
    assert state(recorder) == (Decimal("0.05"), 0, 0)


@pytest.mark.parametrize("delay_s", [0, 0.01, 0.2])
def test_a_call_that_is_cancelled_while_it_waits_for_the_store_costs_nothing(tmp_path: Path, delay_s: float) -> None:
    """It was never made: what its thread reserves afterwards is given back."""
    with fresh_recorder(budgets=[enforced()], budget_store=f"sqlite:///{tmp_path / 'budgets.db'}") as recorder:
        assert recorder.parts is not None
        assert recorder.parts.budgets is not None
        ledger, go = recorder.parts.budgets.ledger, threading.Event()
        reserve = ledger.reserve

        def late(*given: Any) -> Any:
            go.wait(10)
            return reserve(*given)

        ledger.reserve = late  # type: ignore[method-assign,assignment]  # the store is slow

        async def cancelled() -> None:
            async def ask() -> None:
                async with track_llm(recorder=recorder, **CALL):
                    raise AssertionError

            task = asyncio.create_task(ask())
            await asyncio.sleep(delay_s)
            task.cancel()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        assert recorder.flush(10)
        assert state(recorder) == (0, 0, 0)


def test_an_asynchronous_call_with_room_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget in memory reserves in the event loop itself, and the library counts no failure of its own."""

    def no_thread(*_given: Any) -> None:
        raise AssertionError

    async def ask() -> Any:
        async with track_llm(recorder=recorder, **CALL) as running:
            running.set_cost("0.05")
            return state(recorder)

    with fresh_recorder(budgets=[enforced()]) as recorder:
        with track_llm(recorder=recorder, **CALL) as running:  # loads the prices
            running.set_cost("0.01")
        monkeypatch.setattr(asyncio, "to_thread", no_thread)
        assert asyncio.run(ask()) == (Decimal("0.01"), 0, Decimal("0.12"))
        assert state(recorder) == (Decimal("0.06"), 0, 0)
        assert internal_errors(recorder) == {}


# --- estimates ------------------------------------------------------------------------------------------------------


def test_an_asynchronous_call_is_estimated_by_its_arguments() -> None:
    """Of 30,000 characters that are passed by position and 100 tokens of answer, 0.026 USD are reserved."""

    async def ask(prompt: str, *, max_tokens: int) -> Any:
        return state(recorder)[2]

    with fresh_recorder(budgets=[enforced()]) as recorder:
        asked = observe_llm(model=MODEL, recorder=recorder)(ask)
        assert asyncio.run(asked("x" * 30_000, max_tokens=100)) == Decimal("0.026")
        assert internal_errors(recorder) == {}


def chunks() -> Iterator[dict[str, Any]]:
    for _ in range(2_000):
        yield {"id": "chatcmpl-123456789", "model": MODEL, "choices": [{"delta": {"content": "word "}}]}


def test_a_reader_who_leaves_costs_the_input_and_what_was_streamed() -> None:
    """Three words are some six tokens: 0.1 USD of input and a little, and not the 0.12 USD that were reserved."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with track_llm(recorder=recorder, **CALL) as running:
            for number, _ in enumerate(running.stream(chunks())):
                if number == 2:
                    break
        spent, assumed, reserved = state(recorder)
        assert Decimal("0.10003") <= spent < Decimal("0.1002")
        assert (assumed, reserved) == (spent, 0)
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_assumed_usd", {"budget": "team", "period": "day"}) == float(assumed)


def test_what_the_provider_stated_of_the_input_counts_when_a_reader_leaves() -> None:
    """Anthropic states the input in the first event: 80,000 tokens are 0.2 USD, whatever was estimated before."""
    began = {
        "type": "message_start",
        "message": {"model": MODEL, "usage": {"input_tokens": 80_000, "output_tokens": 1}},
    }
    piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word "}}
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with track_llm(recorder=recorder, **CALL) as running:
            for number, _ in enumerate(running.stream(iter([began, *[piece] * 100]))):
                if number == 3:
                    break
        spent, assumed, reserved = state(recorder)
        assert Decimal("0.20003") <= spent < Decimal("0.2002")
        assert (assumed, reserved) == (spent, 0)


def test_a_client_that_disconnects_is_a_reader_who_leaves() -> None:
    """Servers cancel the task of a client that has gone."""

    async def serve(recorder: Recorder) -> None:
        async def stream() -> Any:
            for chunk in chunks():
                yield chunk
                await asyncio.sleep(0)

        async with track_llm(recorder=recorder, **CALL) as running:
            number = 0
            async for _ in running.astream(stream()):
                number += 1
                if number == 3:
                    raise asyncio.CancelledError

    with fresh_recorder(budgets=[enforced()]) as recorder:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(serve(recorder))
        assert Decimal("0.1") < state(recorder)[0] < Decimal("0.1002")


def test_a_call_whose_cost_is_unknown_is_booked_as_reserved_and_marked() -> None:
    """A timeout may have been billed: it counts against the limit, apart from what calls are known to have cost."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with pytest.raises(TimeoutError), track_llm(recorder=recorder, **CALL):
            raise TimeoutError
        with track_llm(recorder=recorder, **CALL) as running:
            running.set_cost("0.05")
        assert state(recorder) == (Decimal("0.17"), Decimal("0.12"), 0)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_refusal_states_every_figure_and_whose_limit_it_is() -> None:
    """What the call needs, what there is, when it resets and which tenant; all of it survives pickling."""
    budget = enforced("0.20", scope={"tenant": "*"})
    with fresh_recorder(budgets=[budget], clock=FixedClock()) as recorder, request_context(tenant_id="acme"):
        with track_llm(recorder=recorder, **CALL) as running:
            running.set_cost("0.1")
        with pytest.raises(BudgetExceededError) as caught, track_llm(recorder=recorder, **CALL):
            pass
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert (error.needed, error.limit, error.spent, error.reserved) == (
        Decimal("0.12"),
        Decimal("0.2"),
        Decimal("0.1"),
        Decimal(0),
    )
    assert (error.tenant, error.scope, error.unit) == ("acme", {"tenant": "acme"}, "usd")
    assert error.resets_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert "has no room for this call" in str(error)
    assert "used up" not in str(error)
    assert vars(error) == vars(caught.value)


def test_only_a_budget_without_anything_left_is_used_up() -> None:
    """The message tells a call that is too large from a limit that is reached."""
    with fresh_recorder(budgets=[enforced("0.1")]) as recorder:
        with pytest.raises(BudgetExceededError, match="no room for this call"), track_llm(recorder=recorder, **CALL):
            pass
        recorder.record_llm_call(model=MODEL, cost="0.1")
        with pytest.raises(BudgetExceededError, match="is used up"), track_llm(recorder=recorder, **CALL):
            pass


def test_the_exhausted_alert_is_given_when_calls_find_no_room() -> None:
    """Once in a period, at less than the whole limit; a call larger than the whole limit exhausts nothing."""
    alerts: list[BudgetAlert] = []
    with fresh_recorder(budgets=[enforced("0.20")], on_budget_alert=alerts.append) as recorder:
        with pytest.raises(BudgetExceededError), track_llm(recorder=recorder, model=MODEL, input_tokens=10**6):
            pass
        recorder.flush()
        assert alerts == []
        with track_llm(recorder=recorder, **CALL) as running:
            running.set_cost("0.12")
        for _ in range(3):
            with pytest.raises(BudgetExceededError), track_llm(recorder=recorder, **CALL):
                pass
        recorder.flush()
    assert [(each.threshold, each.refused) for each in alerts] == [(0.5, False), (1.0, True)]


def test_alerts_carry_scope_and_tenant() -> None:
    """As fields of the alert, and as attributes of the decision in the audit log."""
    alerts: list[BudgetAlert] = []
    budget = Budget("each", limit_usd="0.1", thresholds=[1], scope={"tenant": "*", "model": "gpt-4o"})
    with (
        fresh_recorder(budgets=[budget], on_budget_alert=alerts.append) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        with request_context(tenant_id="acme"):
            recorder.record_llm_call(model=MODEL, cost="0.2")
        recorder.flush()
        (decision,) = decisions
    assert [(each.tenant, dict(each.scope)) for each in alerts] == [("acme", {"tenant": "acme", "model": "gpt-4o"})]
    assert (decision.origin.tenant, decision.attributes["scope.tenant"]) == ("acme", "acme")


@pytest.mark.parametrize(
    ("scope", "name", "meant"),
    [
        ("team[1]", "team[1]", True),
        ("team[1]", "team1", False),
        ("[!a]", "b", False),
        ("gpt-4o*", "gpt-4o-mini", True),
        ("gpt-?o", "gpt-4o", True),
        ("a.c", "abc", False),
        ("what\\?", "what?", True),
        ("what\\?", "whats", False),
        ("a\\b", "a\\b", True),
        (literal("*?\\[x]"), "*?\\[x]", True),
        (literal("*"), "anything", False),
        ("line\n*", "line\nend", True),
    ],
)
def test_names_in_a_scope_are_literal_but_for_two_wildcards(scope: str, name: str, meant: bool) -> None:
    """`*` and `?` ask for a pattern; brackets, dots and what stands behind a backslash are characters."""
    assert (Budget("b", limit_usd=1, scope={"agent": scope}).scope_key(_by(name)) == "") is meant


def _by(agent: str) -> CallScope:
    return CallScope(Origin(agent=agent), None, None, None, Source())


def test_the_budget_of_a_function_is_for_its_name_whatever_that_is(recorder: Recorder) -> None:
    """A name with wildcards does not match other agents."""
    observe_agent("Why?", budget=Budget("why", limit_usd=1))(print)
    try:
        (budget,) = recorder.wiring.own_budgets
        assert budget.scope_key(_by("Why?")) == ""
        assert budget.scope_key(_by("Whys")) is None
    finally:
        recorder.wiring.own_budgets = ()


def test_a_synchronous_block_in_an_event_loop_says_what_to_write_instead(tmp_path: Path) -> None:
    """Where a store would be asked, which would stop the loop; `async with` goes on, and so does a thread."""
    with fresh_recorder(budgets=[enforced()], budget_store=f"sqlite:///{tmp_path / 'budgets.db'}") as recorder:

        async def right() -> None:
            async with track_llm(recorder=recorder, **CALL) as running:
                running.set_cost("0.01")

        async def wrong() -> None:
            with track_llm(recorder=recorder, **CALL):
                raise AssertionError

        with pytest.raises(ConfigurationError, match="async with track_llm"):
            asyncio.run(wrong())
        asyncio.run(right())
        with track_llm(recorder=recorder, **CALL) as running:
            running.set_cost("0.01")
        assert recorder.flush(10)
        assert state(recorder) == (Decimal("0.02"), 0, 0)


def test_a_refused_reservation_is_recorded_as_a_blocked_call() -> None:
    """By the model and provider that it was made for, beneath the run around it, and free."""
    with fresh_recorder(budgets=[enforced("0.01")]) as recorder, capture_invocations(recorder) as seen:

        @observe_agent("Planner", recorder=recorder)
        def plan() -> None:
            with Reservation(recorder, model=MODEL, kwargs=CALL):
                raise AssertionError

        with pytest.raises(BudgetExceededError), request_context("req-1", tenant_id="acme", variant="b"):
            plan()
        refused, agent = list(seen)
        assert (refused.request_id, refused.tenant, dict(refused.attributes)) == ("req-1", "acme", {"variant": "b"})
        assert (refused.status, refused.request_model, refused.provider) == (Status.BLOCKED, MODEL, "openai")
        assert (refused.agent, refused.parent_id) == ("Planner", agent.invocation_id)
        assert state(recorder) == (0, 0, 0)


# --- rates ----------------------------------------------------------------------------------------------------------


def test_requests_by_the_minute_are_limited_and_say_when_to_come_back() -> None:
    """Two calls a minute; the third is told how long to wait, and is let in then."""
    budget = Budget("rate", limit_requests=2, period="minute", action="enforce")
    clock = FixedClock()
    with fresh_recorder(budgets=[budget], clock=clock) as recorder:

        def ask() -> None:
            with track_llm(recorder=recorder, model=MODEL):
                pass

        ask()
        ask()
        clock.advance(20)
        with pytest.raises(BudgetExceededError) as caught:
            ask()
        error = caught.value
        assert (error.retry_after_s, error.unit, int(error.spent)) == (40.0, "requests", 2)
        clock.advance(40)
        ask()
        assert state(recorder)[0] == 1


def test_tokens_by_the_hour_can_be_watched_in_shadow() -> None:
    """The call goes on, and the decision says that it would have been refused."""
    budget = Budget("tokens", limit_tokens=50_000, period="hour", action="shadow")
    with fresh_recorder(budgets=[budget]) as recorder, capture_records(Decision, recorder) as decisions:
        for _ in range(2):
            with track_llm(recorder=recorder, **CALL) as running:
                running.record_usage(input_tokens=40_000, output_tokens=100)
        assert [each.result for each in decisions if each.stage] == [CheckResult.WOULD_BLOCK]


def test_processes_share_a_rate_by_their_store(tmp_path: Path) -> None:
    """Two recorders on one store have one limit."""
    budget = Budget("rate", limit_requests=3, period="hour", action="enforce")
    url = f"sqlite:///{tmp_path / 'budgets.db'}"
    with (
        fresh_recorder(budgets=[budget], budget_store=url) as one,
        fresh_recorder(budgets=[budget], budget_store=url) as other,
    ):
        for used in (one, other, one):
            with track_llm(recorder=used, model=MODEL):
                pass
        with pytest.raises(BudgetExceededError), track_llm(recorder=other, model=MODEL):
            pass


# --- exceptions -----------------------------------------------------------------------------------------------------


def made(kind: type[BaseException]) -> BaseException:
    """One with every field, where the class has fields."""
    with_fields = (
        BudgetExceededError(
            "team",
            limit=Decimal("1.50"),
            spent=Decimal(1),
            reserved=Decimal(0),
            resets_at=datetime(2026, 12, 1, tzinfo=UTC),
            needed=Decimal("0.75"),
            tenant="acme",
            scope={"tenant": "acme"},
            retry_after_s=3.5,
            request_id="r",
        ),
        RefusedError("no", request_id="r"),
        BudgetUnavailableError("team", "no price", request_id="r"),
        PolicyViolationError("words", "no", request_id="r"),
        GuardrailBlockedError("pii", "output", None, request_id="r"),
        MissingExtraError("It", "store"),
        PartialExportError(3),
    )
    return next((error for error in with_fields if type(error) is kind), None) or kind("told")


def everything_raised() -> list[type[BaseException]]:
    kinds: list[type[BaseException]] = []
    new: list[type[BaseException]] = [TaskpilotError, PartialExportError]
    while new:
        kinds += new
        new = [each for kind in new for each in kind.__subclasses__()]
    return [kind for kind in kinds if kind.__module__.startswith("taskpilot_obs")]


@pytest.mark.parametrize("kind", everything_raised())
def test_every_exception_of_ours_survives_pickling_with_its_fields(kind: type[BaseException]) -> None:
    """Through process pools and task queues: class, message, arguments and attributes."""
    error = made(kind)
    error.add_note("seen in a test")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  our own
        assert (type(back), str(back), back.args, vars(back)) == (kind, str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", everything_raised())
def test_every_exception_of_ours_is_rebuilt_from_its_class_and_json(kind: type[BaseException]) -> None:
    """As Celery does with JSON results: the class is called with `args`, which JSON has carried."""
    error = made(kind)
    back = kind(*json.loads(json.dumps(error.args)))
    assert (str(back), repr(back), back.args, vars(back)) == (str(error), repr(error), error.args, vars(error))


def test_the_exceptions_that_are_tested_are_those_of_the_module() -> None:
    """One that is added there is pickled here."""
    public = {each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, BaseException)}
    assert public <= set(everything_raised())
