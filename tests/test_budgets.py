"""Budgets of one process: periods, scopes, refusals before the call, settling, alerts."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from taskpilot_obs import (
    configure,
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    record_llm_call,
    request_context,
    track_agent,
    track_llm,
    track_workflow,
)
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, BudgetAlert, load_budgets
from taskpilot_obs.budgets.estimates import estimate_call
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, IdempotencyKey, MemoryLedger, ReservationLine
from taskpilot_obs.budgets.model import CallScope
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import BudgetExceededError, BudgetUnavailableError, ConfigurationError, MissingExtraError
from taskpilot_obs.records import CheckResult, Decision, Invocation, Origin, Source, Status
from taskpilot_obs.testing import FixedClock, capture_invocations, capture_records, fresh_recorder

MODEL = "gpt-4o"
"""2.50 USD for a million tokens in, 10.00 USD out: 40,000 in and 2,000 out are 0.12 USD."""
CALL: dict[str, Any] = {"model": MODEL, "input_tokens": 40_000, "max_output_tokens": 2_000}
BERLIN = "Europe/Berlin"


def enforced(limit: str = "0.45", **options: Any) -> Budget:
    return Budget("team", limit_usd=limit, action="enforce", **options)


def call(recorder: Recorder, output: int = 2_000, **options: Any) -> None:
    """One LLM call of 0.12 USD, or less with a shorter answer."""
    with track_llm(recorder=recorder, **{**CALL, **options}) as running:
        running.record_usage(input_tokens=40_000, output_tokens=output)


def amounts(recorder: Recorder, name: str = "team") -> tuple[float, float]:
    """What is spent and reserved of a budget."""
    recorder.drain()
    assert recorder.parts is not None
    control = recorder.parts.budgets
    assert control is not None
    balances = [each for each in statuses(control.budgets, control.ledger, control.utc_now()) if each.budget == name]
    return float(sum(each.spent for each in balances)), float(sum(each.reserved for each in balances))


def spent(recorder: Recorder, name: str = "team") -> float:
    return amounts(recorder, name)[0]


def reserved(recorder: Recorder, name: str = "team") -> float:
    return amounts(recorder, name)[1]


@pytest.fixture(autouse=True)
def no_decorated_budgets(recorder: Recorder) -> Iterator[None]:
    """What is attached to a decorated function stays for good; not so here."""
    yield
    recorder.wiring.own_budgets = ()


def at(*utc_now: int, zone: str = "UTC") -> datetime:
    return datetime(*utc_now, tzinfo=ZoneInfo(zone))  # type: ignore[misc,arg-type]


# --- what a budget is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limit_usd": 0}, "limit_usd: given 0; allowed is an amount above 0"),
        ({"limit_usd": "ten"}, "limit_usd: given 'ten'"),
        ({"limit_usd": "nan"}, "limit_usd: given 'nan'"),
        ({}, "give limit_usd or limit_tokens"),
        ({"limit_usd": 1, "limit_tokens": 1}, "and not both"),
        ({"limit_tokens": 1.5}, "limit_tokens: given 1.5"),
        ({"limit_usd": 1, "period": "year"}, "period: given 'year'; allowed is day, week, month, total"),
        ({"limit_usd": 1, "timezone": "Mars/Base"}, "timezone: given 'Mars/Base'"),
        ({"limit_usd": 1, "action": "stop"}, "action: given 'stop'; allowed is alert, shadow, enforce"),
        ({"limit_usd": 1, "when_store_down": "ajar"}, "when_store_down: given 'ajar'"),
        ({"limit_usd": 1, "when_unpriced": "ajar"}, "when_unpriced: given 'ajar'"),
        ({"limit_usd": 1, "thresholds": (0,)}, "thresholds: given 0"),
        ({"limit_usd": 1, "thresholds": 0.5}, "thresholds: given 0.5; allowed is a list"),
        ({"limit_usd": 1, "timezone": None}, "timezone: given None"),
        ({"limit_usd": 1, "scope": "acme"}, "scope: given 'acme'; allowed is a mapping"),
        ({"limit_usd": 1, "scope": {"team": "a"}}, "scope: given {'team': 'a'}"),
        ({"limit_usd": 1, "max_output_tokens": 0}, "max_output_tokens: given 0"),
    ],
)
def test_a_wrong_option_is_refused_when_the_budget_is_made(options: dict[str, Any], told: str) -> None:
    """The message says what was given and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        Budget("team", **options)
    assert told in str(caught.value)


def test_one_message_names_every_wrong_option() -> None:
    """All problems of a budget stand in one message, one behind the other, an unknown option by its name."""
    options: dict[str, Any] = {"limit_usd": 0, "period": "year", "colour": "red"}
    with pytest.raises(ConfigurationError) as caught:
        Budget("team", **options)
    words = str(caught.value)
    assert words.startswith("budget 'team': limit_usd: given 0; ")
    assert "; period: given 'year'; allowed is day, week, month, total" in words
    assert words.endswith("; unknown option 'colour'")


@pytest.mark.parametrize("name", ["", "x" * 201, 7, "a\x00b", "\ud800"])
def test_a_name_is_text_that_a_label_and_every_store_can_have(name: Any) -> None:
    """A budget without a name could be any; one that cannot be stored would hold up all bookings."""
    with pytest.raises(ConfigurationError, match="name"):
        Budget(name, limit_usd=1)


def test_amounts_read_as_people_write_them() -> None:
    """Whole amounts have no exponent, others no trailing zeros."""
    budget = enforced("1000")
    assert [str(budget.amount(units)) for units in (10**15, 45 * 10**10, 1)] == ["1000", "0.45", "1E-12"]
    assert Budget("t", limit_tokens=100).amount(7) == 7


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        ("day", at(2026, 3, 29, 12), at(2026, 3, 28, 23), at(2026, 3, 29, 22)),
        ("day", at(2026, 10, 25, 12), at(2026, 10, 24, 22), at(2026, 10, 25, 23)),
        ("week", at(2026, 1, 1), at(2025, 12, 28, 23), at(2026, 1, 4, 23)),
        ("week", at(2026, 3, 29, 21, 59), at(2026, 3, 22, 23), at(2026, 3, 29, 22)),
        ("month", at(2026, 3, 31, 21, 59), at(2026, 2, 28, 23), at(2026, 3, 31, 22)),
        ("month", at(2026, 10, 31, 23), at(2026, 10, 31, 23), at(2026, 11, 30, 23)),
    ],
)
def test_periods_are_those_of_the_calendar_in_their_zone(
    period: Any, at: datetime, start: datetime, end: datetime
) -> None:
    """A day has 23 hours in March and 25 in October; weeks begin on Monday; months at their own midnight."""
    window = Budget("team", limit_usd=1, period=period, timezone=BERLIN).window(at)
    assert (window.start, window.end) == (start, end)


def test_a_total_never_ends() -> None:
    """It has one line in the ledger for good."""
    window = Budget("team", limit_usd=1, period="total").window(at(2026, 5, 5))
    assert window == Budget("team", limit_usd=1, period="total").window(at(2040, 1, 1))
    assert window.end is None


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ({}, ""),
        ({"tenant": "acme"}, ""),
        ({"tenant": "other"}, None),
        ({"model": "gpt-4o*", "agent": "planner"}, ""),
        ({"model": "gpt-4o-2024-08-06"}, ""),
        ({"model": "claude*"}, None),
        ({"provider": "open_ai"}, ""),
        ({"tenant": "*"}, '{"tenant": "acme"}'),
        ({"user": "*", "tenant": "acme"}, '{"user": "__none__"}'),
        ({"model": "*"}, '{"model": "gpt-4o"}'),
        ({"service": "billing", "environment": "prod*"}, ""),
        ({"service": "search"}, None),
        ({"service": "*", "tenant": "*"}, '{"tenant": "acme", "service": "billing"}'),
    ],
)
def test_a_scope_says_which_calls_count(scope: dict[str, str], key: str | None) -> None:
    """By name, by pattern, or each for itself; what the call does not say is a line of its own, not a way out."""
    origin = Origin(tenant="acme", agent="planner", workflow="triage")
    made = CallScope(origin, "gpt-4o", "openai", "gpt-4o-2024-08-06", Source("billing", "production"))
    assert Budget("team", limit_usd=1, scope=scope).scope_key(made) == key


def _from(model: str | None, origin: Origin) -> CallScope:
    return CallScope(origin, model, None, None, Source())


def test_whoever_is_named_as_no_store_takes_it_has_a_line_of_its_own() -> None:
    """Half a character, or more than an index holds: a short key, of this one alone."""
    budget = Budget("team", limit_usd=1, scope=dict.fromkeys(("tenant", "agent", "workflow", "model", "user"), "*"))
    long = ["\U0001f600" * 2_000, "\U0001f600" * 2_000 + "x", "\ud800", "\ud801"]
    keys = [budget.scope_key(_from(name, Origin(tenant=name, agent=name, workflow=name, user=name))) for name in long]
    assert len(set(keys)) == 4
    assert all(key is not None and len(key.encode()) < 700 for key in keys)
    each = Budget("team", limit_usd=1, scope={"tenant": "*"})
    assert each.scope_key(_from(None, Origin(tenant="M\u00fcller"))) == '{"tenant": "M\u00fcller"}'


# --- files ----------------------------------------------------------------------------------------------------------

TOML = """
[[budgets]]
name = "team"
limit_usd = 50.10
period = "month"
timezone = "Europe/Berlin"
scope = { tenant = "acme" }
thresholds = [0.5, 1.0]
action = "enforce"

[[budgets]]
name = "tokens"
limit_tokens = 1_000_000
"""
YAML = """
budgets:
  - {name: team, limit_usd: 50.10, period: month, timezone: Europe/Berlin, scope: {tenant: acme},
     thresholds: [0.5, 1.0], action: enforce}
  - {name: tokens, limit_tokens: 1000000}
"""


@pytest.mark.parametrize(("name", "text"), [("b.toml", TOML), ("b.yaml", YAML)])
def test_files_hold_the_same_budgets_as_code(tmp_path: Path, name: str, text: str) -> None:
    """TOML and YAML, and amounts that are exact."""
    (tmp_path / name).write_text(text)
    team, tokens = load_budgets(tmp_path / name)
    assert (team.limit, team.period, team.timezone, team.scope) == (501 * 10**11, "month", BERLIN, {"tenant": "acme"})
    assert (team.permilles, team.action, tokens.limit, tokens.unit) == ((500, 1_000), "enforce", 1_000_000, "tokens")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("b.toml", "budgets = 1", "one list, `budgets`"),
        ("b.toml", "x = [", "is not TOML"),
        ("b.yaml", "a: [", "is not YAML"),
        ("b.yaml", "budgets: [7]", "a budget is a table"),
        ("b.yaml", "budgets: [{limit_usd: 1}]", "a budget without a name"),
        ("b.yaml", "budgets: [{name: a, limit: 1}]", "unknown option 'limit'"),
        ("b.yaml", "budgets: [{name: a, limit_usd: 1, scope: 3}]", "scope: given 3"),
        ("b.yaml", "budgets: [{name: a, limit_usd: -1}]", "limit_usd: given -1"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, name: str, text: str, told: str) -> None:
    """What is wrong and where, before anything runs."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_budgets(tmp_path / name)
    assert told in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Not read as no budgets."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_budgets(tmp_path / "none.toml")


def test_configure_takes_objects_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one list; paths also from the environment; anything else is refused."""
    (tmp_path / "b.toml").write_text(TOML)
    with fresh_recorder(budgets=[str(tmp_path / "b.toml"), Budget("own", limit_usd=1)]) as recorder:
        assert recorder.parts is not None
        assert recorder.parts.budgets is not None
        assert [budget.name for budget in recorder.parts.budgets.budgets] == ["team", "tokens", "own"]
    with pytest.raises(ConfigurationError, match="of type int"):
        build_recorder(budgets=[7], registry=CollectorRegistry())
    with pytest.raises(ConfigurationError, match="two of the name 'team'"):
        build_recorder(budgets=[enforced(), enforced("2")], registry=CollectorRegistry())
    with pytest.raises(ConfigurationError, match="on_budget_alert"):
        build_recorder(budgets=[enforced()], on_budget_alert="mail", registry=CollectorRegistry())
    monkeypatch.setenv("TASKPILOT_OBS_BUDGETS", str(tmp_path / "b.toml"))
    with fresh_recorder() as recorder:
        assert recorder.parts is not None
        assert recorder.parts.budgets is not None


# --- refusing -------------------------------------------------------------------------------------------------------


def test_a_call_without_room_is_refused_before_it_is_made() -> None:
    """With the five figures, status blocked, one decision of the audit log, and one count."""
    with (
        fresh_recorder(budgets=[enforced()], clock=FixedClock()) as recorder,
        capture_invocations(recorder) as seen,
        capture_records(Decision, recorder) as decisions,
    ):
        for _ in range(3):
            call(recorder)
        ran = []
        with pytest.raises(BudgetExceededError) as caught, track_llm(recorder=recorder, **CALL):
            ran.append(True)
        assert ran == []
        error = caught.value
        assert (error.budget, error.limit, error.spent, error.reserved) == (
            "team",
            Decimal("0.45"),
            Decimal("0.36"),
            Decimal(0),
        )
        assert error.resets_at == at(2026, 1, 2)
        assert [run.status for run in seen] == [Status.SUCCESS] * 3 + [Status.BLOCKED]
        assert error.request_id == seen[-1].request_id
        blocked = [each for each in decisions if each.result is CheckResult.BLOCKED]
        assert [(each.name, each.attributes["needed"]) for each in blocked] == [("team", "0.12")]
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_refusals_total", {"budget": "team", "period": "day"}) == 1
        assert value("llm_requests_total", _labels("blocked")) == 1


def _labels(status: str) -> dict[str, str]:
    return {"agent": "__none__", "model": MODEL, "provider": "openai", "status": status}


def test_what_calls_in_progress_may_take_is_reserved() -> None:
    """Of five calls at once three find room; one that ends for less makes room for another."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        running = [track_llm(recorder=recorder, **CALL) for _ in range(5)]
        entered, refused = [], []
        for each in running:
            try:
                entered.append((each, each.__enter__()))
            except BudgetExceededError as error:
                refused.append(error.reserved)
        for manager, live in reversed(entered):  # the innermost first, or one would be left current
            live.set_cost("0.05")
            manager.__exit__(None, None, None)
        assert (len(entered), refused) == (3, [Decimal("0.36")] * 2)
        assert (spent(recorder), reserved(recorder)) == (0.15, 0)
        call(recorder)
        call(recorder)
        with pytest.raises(BudgetExceededError):
            call(recorder)


def test_a_call_that_was_refused_costs_nothing() -> None:
    """Its reservation ends; nothing is booked."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with pytest.raises(ConnectionRefusedError), track_llm(recorder=recorder, **CALL):
            raise ConnectionRefusedError
        assert (spent(recorder), reserved(recorder)) == (0, 0)


def test_a_call_that_broke_counts_as_what_was_reserved() -> None:
    """What fails without a refusal may have been billed: the reservation is booked in place of the unknown cost."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with pytest.raises(ConnectionResetError), track_llm(recorder=recorder, **CALL):
            raise ConnectionResetError
        assert spent(recorder) > 0
        assert reserved(recorder) == 0


def test_a_call_whose_cost_nobody_knows_counts_as_what_was_reserved() -> None:
    """A timeout may well have been billed: unknown is not 0."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        with pytest.raises(TimeoutError), track_llm(recorder=recorder, **CALL):
            raise TimeoutError
        assert (spent(recorder), reserved(recorder)) == (0.12, 0)


def test_a_cache_hit_costs_nothing() -> None:
    """In USD and in tokens."""
    budgets = [enforced(), Budget("tokens", limit_tokens=50_000, action="enforce")]
    with fresh_recorder(budgets=budgets) as recorder:
        with track_llm(recorder=recorder, **CALL) as running:
            running.set_cached(cached=True)
        assert (spent(recorder), spent(recorder, "tokens"), reserved(recorder, "tokens")) == (0, 0, 0)


def test_tokens_are_limited_like_money() -> None:
    """Input and longest answer are reserved, input and answer are booked."""
    budget = Budget("tokens", limit_tokens=100_000, action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder:
        call(recorder, output=500)
        assert spent(recorder, "tokens") == 40_500
        call(recorder, output=500)
        with pytest.raises(BudgetExceededError) as caught:
            call(recorder)
        assert caught.value.limit == 100_000
        with track_llm(recorder=recorder, model=MODEL, input_tokens=10, max_output_tokens=10):
            pass
        assert spent(recorder, "tokens") == 81_020, "no usage was stated: what was reserved counts"


def test_the_first_budget_without_room_refuses_and_nothing_is_set_aside() -> None:
    """All or none: a refusal by one leaves the others untouched."""
    budgets = [enforced("10"), Budget("small", limit_usd="0.10", action="enforce")]
    with fresh_recorder(budgets=budgets) as recorder:
        with pytest.raises(BudgetExceededError, match="'small'"):
            call(recorder)
        assert (reserved(recorder), spent(recorder)) == (0, 0)


def test_a_call_out_of_scope_is_not_asked_about() -> None:
    """Neither refused nor booked."""
    with fresh_recorder(budgets=[enforced("0.01", scope={"tenant": "acme"})]) as recorder:
        call(recorder)
        with request_context(tenant_id="acme"), pytest.raises(BudgetExceededError):
            call(recorder)
        assert spent(recorder) == 0


def test_each_tenant_has_the_limit_for_itself() -> None:
    """One that is used up leaves the others theirs; the metrics show the fullest."""
    with fresh_recorder(budgets=[enforced("0.20", scope={"tenant": "*"})]) as recorder:
        for tenant, output in (("acme", 2_000), ("other", 0)):
            with request_context(tenant_id=tenant):
                call(recorder, output=output)
        with request_context(tenant_id="acme"), pytest.raises(BudgetExceededError):
            call(recorder)
        assert spent(recorder) == 0.22
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_spent_usd", {"budget": "team", "period": "day"}) == 0.12


def test_a_new_period_has_the_whole_limit() -> None:
    """At midnight of the zone; what ran over midnight counts where it was reserved."""
    clock = FixedClock()  # 2026-01-01 00:00 UTC: 01:00 in Berlin
    with fresh_recorder(budgets=[enforced("0.12", timezone=BERLIN)], clock=clock) as recorder:
        call(recorder)
        recorder.drain()
        clock.advance(22 * 3600 + 3599)
        with pytest.raises(BudgetExceededError) as caught:
            call(recorder)
        assert caught.value.resets_at == at(2026, 1, 1, 23)
        clock.advance(1)
        with track_llm(recorder=recorder, **CALL) as running:
            clock.advance(24 * 3600)
            running.record_usage(input_tokens=40_000, output_tokens=2_000)
        assert spent(recorder) == 0
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        settler = recorder.parts.settler  # type: ignore[union-attr]
        assert settler is not None
        settler._refreshed -= 2  # seconds: it looks once in a while
        settler.tick()
        assert value("llm_budget_used_ratio", {"budget": "team", "period": "day"}) == 0


def test_a_running_call_keeps_its_reservation() -> None:
    """However long it takes: its process renews it, and another call finds no room until it ends."""
    clock = FixedClock()
    with fresh_recorder(budgets=[enforced("0.12")], clock=clock, budget_reservation_s=60) as recorder:
        with track_llm(recorder=recorder, **CALL) as live:
            for _ in range(10):
                clock.advance(45)
                with pytest.raises(BudgetExceededError) as caught:
                    call(recorder)
            assert caught.value.reserved == Decimal("0.12")
            live.set_cost("0.01")
        assert amounts(recorder) == (0.01, 0)


def test_shadow_records_what_enforce_would_refuse() -> None:
    """The call goes on; one decision says what would have been."""
    budget = Budget("team", limit_usd="0.12", action="shadow")
    with fresh_recorder(budgets=[budget]) as recorder, capture_records(Decision, recorder) as decisions:
        call(recorder)
        call(recorder)
        assert [each.result for each in decisions if each.stage] == [CheckResult.WOULD_BLOCK]
        assert spent(recorder) == 0.24
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_refusals_total", {"budget": "team", "period": "day"}) == 0


def test_a_shadow_that_would_refuse_takes_nothing_from_what_enforce_holds() -> None:
    """The call has its room in the one, and is booked in both."""
    shade = Budget("shade", limit_usd="0.01", action="shadow")
    with fresh_recorder(budgets=[enforced(), shade]) as recorder, capture_records(Decision, recorder) as decisions:
        with track_llm(recorder=recorder, **CALL) as running:
            assert (reserved(recorder), reserved(recorder, "shade")) == (0.12, 0)
            running.set_cost("0.05")
        assert (amounts(recorder), amounts(recorder, "shade")) == ((0.05, 0), (0.05, 0))
        assert [each.result for each in decisions if each.stage] == [CheckResult.WOULD_BLOCK]


@pytest.mark.parametrize("when", ["open", "closed"])
def test_a_model_without_a_price_passes_or_not_as_was_chosen(when: Any) -> None:
    """A call that cannot be estimated: `open` notes that it was not judged, `closed` refuses it."""
    with (
        fresh_recorder(budgets=[enforced(when_unpriced=when)]) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        if when == "open":
            call(recorder, model="own-model")
        else:
            with pytest.raises(BudgetUnavailableError, match="no price"):
                call(recorder, model="own-model")
        expected = CheckResult.BYPASSED if when == "open" else CheckResult.BLOCKED
        assert [each.result for each in decisions] == [expected]


def test_a_disabled_recorder_still_refuses() -> None:
    """Turning the recording off opens no budget that is closed; `enforcement=False` does, and records nothing."""
    with fresh_recorder(budgets=[enforced("0.2")], enabled=False) as recorder:
        call(recorder)
        with pytest.raises(BudgetExceededError):
            call(recorder)
    with fresh_recorder(budgets=[enforced("0.01")], enabled=False, enforcement=False) as recorder:
        call(recorder)
        assert recorder.enabled is False
    with fresh_recorder(budgets=[enforced("0.01")], enforcement=False) as recorder:
        with capture_records(Decision, recorder) as decisions:
            call(recorder)
            assert [each.result for each in decisions if each.stage] == [CheckResult.WOULD_BLOCK]
        assert spent(recorder) == 0.12


def test_a_budget_that_cannot_read_a_call_lets_it_pass() -> None:
    """Arguments that raise when they are read are counted; the call is booked by its answer, and goes on if it fits."""

    class Sly:
        @property
        def content(self) -> str:
            raise RuntimeError("no")

    with fresh_recorder(budgets=[enforced("1")]) as recorder:

        @observe_llm(model=MODEL, recorder=recorder)
        def ask(_: object) -> str:
            return "yes"

        assert ask(Sly()) == "yes"
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("taskpilot_obs_internal_errors_total", {"where": "budgets"}) == 1


# --- where it reaches -----------------------------------------------------------------------------------------------


def test_observe_llm_reserves_by_its_arguments() -> None:
    """`max_tokens` is the longest answer, the prompt's text its input: a prompt too long is refused unsent."""
    with fresh_recorder(budgets=[enforced("0.0205")]) as recorder:
        sent = []

        @observe_llm(model=MODEL, recorder=recorder)
        def ask(messages: list[dict[str, str]], max_tokens: int = 10) -> dict[str, Any]:
            sent.append(messages)
            return {"usage": {"prompt_tokens": 10, "completion_tokens": 10}, "model": MODEL}

        ask([{"role": "user", "content": "x" * 2_000}], max_tokens=1_000)
        with pytest.raises(BudgetExceededError):
            ask([{"role": "user", "content": "x"}], max_tokens=3_000)
        with pytest.raises(BudgetExceededError):
            ask([{"role": "user", "content": "x" * 30_000}], max_tokens=1)
        assert len(sent) == 1


def test_every_kind_of_function_is_refused_before_it_runs() -> None:
    """Coroutines, generators and asynchronous generators too."""
    with fresh_recorder(budgets=[enforced("0.000001")]) as recorder:
        ran: list[str] = []

        @observe_llm(model=MODEL, recorder=recorder)
        async def coroutine() -> None:
            ran.append("coroutine")

        @observe_llm(model=MODEL, recorder=recorder)
        def generator() -> Iterator[int]:
            ran.append("generator")
            yield 1

        @observe_llm(model=MODEL, recorder=recorder)
        async def stream() -> Any:
            ran.append("stream")
            yield 1

        async def consume() -> None:
            async for _ in stream():
                pass

        async def tracked() -> None:
            async with track_llm(recorder=recorder, model=MODEL):
                ran.append("tracked")

        for work in (coroutine, consume, tracked):
            with pytest.raises(BudgetExceededError):
                asyncio.run(work())
        with pytest.raises(BudgetExceededError):
            list(generator())
        assert ran == []


def test_async_calls_are_admitted_and_settled() -> None:
    """Within the limit they run as ever; a tight budget waits for what has ended, off the loop."""
    with fresh_recorder(budgets=[enforced("0.13")]) as recorder:

        async def cheap() -> None:
            async with track_llm(recorder=recorder, **CALL) as running:
                running.set_cost("0.001")

        async def several() -> None:
            for _ in range(10):
                await cheap()

        asyncio.run(several())
        assert spent(recorder) == 0.010


def test_an_agents_budget_counts_the_calls_beneath_it() -> None:
    """`observe_agent(budget=…)` limits its own calls; the agent that passes the refusal on ends as blocked."""
    with fresh_recorder() as recorder, capture_invocations(recorder) as seen:

        @observe_agent("Support", recorder=recorder, budget=enforced("0.20"))
        def support() -> None:
            call(recorder)

        support()
        call(recorder)
        with pytest.raises(BudgetExceededError):
            support()
        assert seen[-1].status is Status.BLOCKED
        assert spent(recorder) == 0.12
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_used_ratio", {"budget": "team", "period": "day"}) == 0.6


def test_a_decorators_budget_alerts_like_any_other() -> None:
    """Though it came after the configuration that names the function."""
    alerts: list[BudgetAlert] = []
    with fresh_recorder(on_budget_alert=alerts.append) as recorder:

        @observe_agent("Alerted", recorder=recorder, budget=Budget("alerted", limit_usd="0.24"))
        def alerted() -> None:
            call(recorder)

        alerted()
        recorder.flush()
        recorder.flush()
        assert [alert.threshold for alert in alerts] == [0.5]


def test_a_decorators_budget_waits_for_a_recorder_that_is_enabled() -> None:
    """While nothing is recorded and nothing enforced, nothing is limited."""
    with fresh_recorder(enabled=False, enforcement=False) as recorder:

        @observe_agent("Waiting", recorder=recorder, budget=Budget("waiting", limit_usd="0.01", action="enforce"))
        def waiting() -> None:
            call(recorder)

        waiting()
    with fresh_recorder() as recorder, pytest.raises(BudgetExceededError):
        waiting()


def test_a_workflows_budget_counts_the_calls_beneath_it() -> None:
    """And a scope of its own is kept; the same budget may stand on two functions."""
    with fresh_recorder() as recorder:
        budget = Budget("flow", limit_usd=5, scope={"workflow": "triage"})
        for name in ("triage", "other"):

            @observe_workflow(name, recorder=recorder, budget=budget)
            def work() -> None:
                call(recorder)

            work()
        assert spent(recorder, "flow") == 0.12


def test_a_decorators_budget_survives_configure() -> None:
    """And what it has spent is kept, for the ledger of a process goes on."""
    recorder = configure(registry=CollectorRegistry())

    @observe_agent("Kept", recorder=recorder, budget=Budget("kept", limit_usd=1, action="enforce"))
    def kept() -> None:
        call(recorder)

    kept()
    configure(registry=CollectorRegistry())
    kept()
    assert spent(recorder, "kept") == 0.24


@pytest.mark.parametrize("decorator", [observe_tool, observe_llm])
def test_a_budget_stands_on_agents_and_workflows_only(decorator: Any) -> None:
    """A tool makes no LLM call, and a single call cannot have a budget."""
    with pytest.raises(TypeError, match="belongs to an agent or a workflow"):
        decorator(budget=enforced())(lambda: None)


def test_calls_that_are_recorded_after_the_fact_are_booked() -> None:
    """They cannot be refused any more, and they were paid for."""
    with fresh_recorder(budgets=[enforced("0.10")]) as recorder:
        record_llm_call(model=MODEL, cost="0.30")
        assert spent(recorder) == 0.30
        with pytest.raises(BudgetExceededError):
            call(recorder)


def test_calls_that_are_made_elsewhere_can_be_reserved_for() -> None:
    """`Held` reserves for a call that another records; their record settles it."""
    with fresh_recorder(budgets=[enforced("0.20")]) as recorder:
        with (
            track_agent("a", recorder=recorder),
            Reservation(recorder, model=MODEL, kwargs={"input_tokens": 40_000, "max_tokens": 2_000}),
        ):
            assert reserved(recorder) == 0.12
            record_llm_call(model=MODEL, cost="0.01")
        assert (spent(recorder), reserved(recorder)) == (0.01, 0)
        with pytest.raises(BudgetExceededError), Reservation(recorder, model=MODEL, kwargs={"max_tokens": 30_000}):
            pytest.fail("it must not run")


def test_a_reservation_whose_call_nobody_records_counts_as_spent() -> None:
    """Else a framework without a handler would spend past any limit; a call that failed took nothing."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        stated = {"input_tokens": 40_000, "max_tokens": 2_000}
        with Reservation(recorder, model=MODEL, kwargs=stated):
            pass
        with pytest.raises(RuntimeError), Reservation(recorder, model=MODEL, kwargs=stated):
            raise RuntimeError
        recorder.drain()
        recorder.parts.settler.tick()  # type: ignore[union-attr]
        assert (spent(recorder), reserved(recorder)) == (0.12, 0)


def test_a_reservation_ends_though_the_queue_is_full() -> None:
    """Records that find no room are dropped and counted; what was set aside does not stay reserved for that."""
    with fresh_recorder(budgets=[enforced()], queue_capacity=64) as recorder:
        held = Reservation(recorder, model=MODEL, kwargs={"input_tokens": 40_000, "max_tokens": 2_000})
        with recorder.pipeline._lock, held:  # no thread makes room
            while len(recorder.pipeline.queue) < 2 * 64:
                recorder.record_audit_event("full")
        assert amounts(recorder) == (0.12, 0)


def test_a_reservation_can_be_held_in_an_event_loop() -> None:
    """`async with` holds a reservation as `with` does; without budgets it does nothing."""

    async def held(recorder: Recorder) -> None:
        async with Reservation(recorder, model=MODEL, provider="openai", args=("hello",)):
            pass

    with fresh_recorder() as recorder:
        asyncio.run(held(recorder))
        with Reservation(recorder, model=MODEL):
            pass
    with fresh_recorder(budgets=[enforced("0.00001")]) as recorder, pytest.raises(BudgetExceededError):
        asyncio.run(held(recorder))
    with fresh_recorder(budgets=[enforced()]) as recorder:
        asyncio.run(held(recorder))


def test_a_reservation_travels_on_the_record_of_its_call() -> None:
    """In a field of its own: the call keeps the attributes and the session that it was given."""
    with fresh_recorder(budgets=[enforced()]) as recorder, capture_invocations(recorder) as seen:
        with Reservation(recorder, model=MODEL):
            record_llm_call(model=MODEL, cost="0.01")
        assert (len(str(seen[0].reservation_id)), dict(seen[0].attributes)) == (32, {})


def test_an_abandoned_call_gives_back_what_it_did_not_take() -> None:
    """A call that is dropped without an end is settled when it is collected."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        live = recorder.start_llm(model=MODEL)
        recorder.runtime.limits.before(live, (), {"input_tokens": 40_000, "max_tokens": 2_000})  # type: ignore[union-attr]
        live.set_cost("0.01")
        del live
        gc.collect()
        assert (spent(recorder), reserved(recorder)) == (0.01, 0)


# --- alerting -------------------------------------------------------------------------------------------------------


def test_each_threshold_is_alerted_once_in_a_period() -> None:
    """In order, with a decision of the audit log each; again in the next period."""
    alerts: list[BudgetAlert] = []
    clock = FixedClock()
    budget = Budget("team", limit_usd=1)
    with (
        fresh_recorder(budgets=[budget], on_budget_alert=alerts.append, clock=clock) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        for _ in range(2):
            for cost in ("0.4", "0.1", "0.1", "0.35", "5"):
                record_llm_call(model=MODEL, cost=cost)
                recorder.drain()
            clock.advance(24 * 3600)
        recorder.flush()
        recorder.flush()
        assert [alert.threshold for alert in alerts] == [0.5, 0.75, 0.9, 1.0] * 2
        assert alerts[0] == BudgetAlert(
            "team", 0.5, Decimal(1), Decimal("0.5"), "usd", "day", at(2026, 1, 1), at(2026, 1, 2), ""
        )
        assert [each.reason for each in decisions][:2] == ["50 % of the limit is spent", "75 % of the limit is spent"]


def test_alerts_of_a_process_that_ends_are_not_lost() -> None:
    """What the last calls cross is told before the exporters stop."""
    alerts: list[BudgetAlert] = []
    recorder = build_recorder(
        budgets=[Budget("team", limit_usd=1, scope={"tenant": "*"}, period="total")],
        on_budget_alert=alerts.append,
        registry=CollectorRegistry(),
    )
    recorder.record_llm_call(model=MODEL, cost="0.5")
    recorder.shutdown()
    assert [(alert.resets_at, alert.scope_key) for alert in alerts] == [(None, '{"tenant": "__none__"}')]


def test_calls_after_a_shutdown_reserve_nothing() -> None:
    """Nothing would settle them: a limit that is used up still refuses, and one with room is not used up by them."""
    with fresh_recorder(budgets=[enforced("0.30")]) as recorder:
        call(recorder)
        recorder.shutdown()
        for _ in range(10):
            call(recorder)
        assert amounts(recorder) == (0.12, 0)
    with fresh_recorder(budgets=[enforced("0.20")]) as recorder:
        call(recorder)
        recorder.shutdown()
        with pytest.raises(BudgetExceededError):
            call(recorder)


def test_calls_after_a_shutdown_pass_a_store_as_while_it_is_away(tmp_path: Path) -> None:
    """The store is closed; `when_store_down` decides."""
    url = f"sqlite:///{tmp_path / 'budgets.db'}"
    with fresh_recorder(budgets=[enforced("0.30")], budget_store=url) as recorder:
        call(recorder)
        recorder.shutdown()
        for _ in range(3):
            call(recorder)
    with fresh_recorder(budgets=[enforced("0.30", when_store_down="closed")], budget_store=url) as recorder:
        recorder.shutdown()
        with pytest.raises(BudgetUnavailableError):
            call(recorder)


def test_alert_budgets_ask_no_caller_anything() -> None:
    """No hook, no reservation: the hot path is what it is without budgets."""
    recorder = build_recorder(budgets=[Budget("team", limit_usd=1)], registry=CollectorRegistry())  # no checks
    assert (recorder.runtime.limits, recorder.runtime.asks_checks) == (None, False)
    call(recorder)
    assert spent(recorder) == 0.12
    recorder.shutdown()


def test_metrics_show_where_a_budget_stands() -> None:
    """From the first moment, at every scrape; in USD for money, as a share for tokens."""
    with fresh_recorder(budgets=[enforced("0.48"), Budget("tokens", limit_tokens=84_000, period="week")]) as recorder:
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        labels = {"budget": "team", "period": "day"}
        assert (value("llm_budget_limit_usd", labels), value("llm_budget_spent_usd", labels)) == (0.48, 0)
        assert value("llm_budget_refusals_total", labels) == 0
        call(recorder)
        assert (value("llm_budget_spent_usd", labels), value("llm_budget_used_ratio", labels)) == (0.12, 0.25)
        tokens = {"budget": "tokens", "period": "week"}
        assert (value("llm_budget_used_ratio", tokens), value("llm_budget_limit_usd", tokens)) == (0.5, None)


def test_metrics_show_what_is_reserved_and_when_the_period_ends() -> None:
    """While a call is in progress its reservation is exposed; a call that broke is exposed as an estimate."""
    labels = {"budget": "team", "period": "day"}
    with fresh_recorder(budgets=[enforced("0.48")], clock=FixedClock()) as recorder:
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_resets_timestamp_seconds", labels) == datetime(2026, 1, 2, tzinfo=UTC).timestamp()
        with suppress(KeyError), track_llm(recorder=recorder, **CALL):
            deadline = time.monotonic() + 30
            while not value("llm_budget_reserved_usd", labels) and time.monotonic() < deadline:
                time.sleep(0.05)  # figures are renewed once a second
            assert value("llm_budget_reserved_usd", labels) == 0.12
            raise KeyError
        assert (value("llm_budget_reserved_usd", labels), value("llm_budget_assumed_usd", labels)) == (0, 0.12)


def test_status_tells_what_is_left_and_where_it_leads() -> None:
    """The projection is what is spent over the time passed, times the period."""
    clock = FixedClock()
    with fresh_recorder(budgets=[enforced("1")], clock=clock) as recorder:
        call(recorder)
        clock.advance(6 * 3600)
        assert spent(recorder) == 0.12
        control = recorder.parts.budgets  # type: ignore[union-attr]
        assert control is not None
        (found,) = statuses(control.budgets, control.ledger, control.utc_now())
        assert (found.left, found.used_ratio, found.projected) == (Decimal("0.88"), 0.12, Decimal("0.48"))
        assert found.excess == 0
        assert found.resets_at == at(2026, 1, 2)
        early = statuses(control.budgets, control.ledger, at(2026, 1, 1, 0, 0, 30))
        assert early[0].projected is None


def test_decisions_of_others_are_no_alerts() -> None:
    """A refusal, and what policies decide, do not call the function for alerts."""
    alerts: list[BudgetAlert] = []
    with fresh_recorder(budgets=[enforced("0.01")], on_budget_alert=alerts.append) as recorder:
        recorder.record_policy_violation("pii")
        with pytest.raises(BudgetExceededError):
            call(recorder)
        recorder.flush()
        assert alerts == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_with_the_parents_figures() -> None:
    """It has its own ledger from then on, and does not settle what the parent's calls hold."""
    with fresh_recorder(budgets=[enforced("0.24")]) as recorder:
        call(recorder)
        assert spent(recorder) == 0.12
        with track_llm(recorder=recorder, **CALL) as live:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    call(recorder)
                except BudgetExceededError:
                    recorder.drain()
                    code = 0
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            live.set_cost("0.01")
        assert amounts(recorder) == (0.13, 0)


def test_a_call_that_was_cancelled_while_it_asked_leaves_nothing_reserved() -> None:
    """Its end was booked before its reservation was made: that one is given back at once."""
    with fresh_recorder(budgets=[enforced()]) as recorder:
        control = recorder.parts.budgets  # type: ignore[union-attr]
        assert control is not None
        reserve = control.ledger.reserve

        def slowly(reservation_id: str, *rest: Any) -> Any:
            control.held.pop(reservation_id)
            return reserve(reservation_id, *rest)

        control.ledger.reserve = slowly  # type: ignore[method-assign]
        with track_llm(recorder=recorder, **CALL) as running:
            assert reserved(recorder) == 0
            running.set_cost("0.01")
        assert amounts(recorder) == (0.01, 0)


def test_a_yaml_file_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    (tmp_path / "b.yaml").write_text(YAML)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match="rules"):
        load_budgets(tmp_path / "b.yaml")


# --- estimates, threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "plan"),
    [
        ((), {"input_tokens": 7, "max_tokens": 9}, (7, 9)),
        (("abcdef",), {}, (2, None)),
        ((), {"messages": [{"content": "日本"}], "max_completion_tokens": 5}, (2, 5)),
        (([b"bytes", 7, None, ("abc",)],), {"max_output_tokens": "many"}, (1, None)),
        ((SimpleNamespace(content="abcdef", text=len),), {}, (2, None)),
    ],
)
def test_a_plan_is_read_from_a_calls_arguments(args: Any, kwargs: Any, plan: tuple[int, int | None]) -> None:
    """Stated figures first; otherwise three bytes of text are a token, in any nesting."""
    assert tuple(estimate_call(args, kwargs)) == plan


@pytest.mark.promise("budget-limit")
def test_threads_never_admit_more_than_the_limit() -> None:
    """Sixteen threads that never settle: what is reserved stays within the limit."""
    with fresh_recorder(budgets=[enforced("1.20")]) as recorder:
        call(recorder, output=0)
        admitted: list[object] = []

        def many() -> None:
            for _ in range(20):
                manager = track_llm(recorder=recorder, **CALL)
                try:
                    manager.__enter__()
                except BudgetExceededError:
                    continue
                admitted.append(manager)

        threads = [threading.Thread(target=many) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(admitted) == 9, "1.20 - 0.10 leaves room for nine of 0.12"
        for manager in admitted:
            manager.__exit__(None, None, None)  # type: ignore[attr-defined]


def test_a_process_ledger_knows_bookings_that_come_again() -> None:
    """They are booked once, and the answer is the same; the next ones are booked."""
    budget, ledger, now = enforced("1"), MemoryLedger(), at(2026, 1, 1, 12)
    window = budget.window(now)
    line = ReservationLine(budget, BudgetAccount("team", "", window.start), window, 6 * 10**11)
    first = ledger.settle([Charge(line)], now, IdempotencyKey("book", 1))
    assert [each.crossed for each in first] == [(500,)]
    assert ledger.settle([Charge(line)], now, IdempotencyKey("book", 1)) == first
    (second,) = ledger.settle([Charge(line)], now, IdempotencyKey("book", 2))
    assert (second.balance.spent, second.crossed) == (2 * line.amount, (750, 900, 1_000))


def test_a_record_that_cannot_be_booked_costs_no_other() -> None:
    """It is counted, and the calls beside it in the batch are booked."""
    with fresh_recorder(budgets=[enforced()]) as recorder, capture_invocations(recorder) as seen:
        record_llm_call(model=MODEL, cost="0.01")
        recorder.drain()
        strange = seen[0]._replace(cost=Decimal("NaN"))
        settler = recorder.parts.settler  # type: ignore[union-attr]
        assert settler is not None
        settler.export([strange, seen[0], strange, seen[0]])
        assert spent(recorder) == 0.03
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("taskpilot_obs_internal_errors_total", {"where": "budgets"}) == 2


def test_periods_of_long_ago_are_forgotten() -> None:
    """The ledger of a process does not grow with the days."""
    clock = FixedClock()
    with fresh_recorder(budgets=[enforced("5")], clock=clock) as recorder:
        for _ in range(5):
            call(recorder)
            recorder.drain()
            clock.advance(24 * 3600)
        control = recorder.parts.budgets  # type: ignore[union-attr]
        assert control is not None
        control.ledger.release_expired(control.utc_now())
        assert len(control.ledger.read(control.budgets, [at(2026, 1, 1) + timedelta(days=n) for n in range(9)])) <= 2


def test_a_call_is_an_invocation_like_any_other() -> None:
    """Reserving adds nothing to the record that a call leaves."""
    with fresh_recorder(budgets=[enforced()]) as recorder, capture_invocations(recorder) as seen:
        with track_workflow("w", recorder=recorder):
            call(recorder)
        made = seen[0]
        assert isinstance(made, Invocation)
        assert (made.cost, made.attributes, UTC.utcoffset(None)) == (Decimal("0.12"), {}, timedelta(0))
