"""Questions about the past, on both engines."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from _clickhouse import IN_FULL
from _postgres import Server, postgres_server
from _runs import run_tasks
from _stored import NOON, clear, denial, llm_call, new_store, sqlite_url, store_at, task, url_of, verdict
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from taskpilot_obs import golden_signals
from taskpilot_obs._support.calendar import calendar_period
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.exporters.window import RollingWindow
from taskpilot_obs.golden_signals import signals_from_window
from taskpilot_obs.golden_signals.from_store import signals_from_store
from taskpilot_obs.records import Rollup, Status, Usage
from taskpilot_obs.stats import (
    aget_cost_breakdown,
    aget_cost_summary,
    aget_stats,
    aget_tenant_stats,
    aget_tenants_report,
    get_cost_breakdown,
    get_cost_rate,
    get_cost_summary,
    get_stats,
    get_tenant_stats,
    get_tenants_report,
)
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
AROUND = (NOON - HOUR, NOON + HOUR)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql", IN_FULL])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with store_at(new_store(request, tmp_path)) as opened:
        yield opened


def fill(store: Store, *records: object) -> None:
    """Write records."""
    Writer(store).write(rows_of(records))  # type: ignore[arg-type]  # records of any kind


def test_a_stretch_of_time_is_told_in_full(store: Store) -> None:
    """Counts, tokens, money, coverage, durations, groups and errors of a known set of calls."""
    failed: dict[str, Any] = {
        "status": Status.ERROR,
        "error_type": "openai.RateLimitError",
        "error_category": "rate_limit",
    }
    fill(
        store,
        llm_call(duration_s=1.0, cost=Decimal("0.1")),
        llm_call(duration_s=2.0, cost=Decimal("0.2"), streaming=True, ttft_s=0.25),
        llm_call(duration_s=3.0, cost=None, usage=None, provider="anthropic", response_model="claude", agent=None),
        llm_call(duration_s=4.0, cost=Decimal("0.3"), **failed),
        llm_call(status=Status.CANCELLED, duration_s=5.0, cost=Decimal("0.4")),
        llm_call(cached=True, usage=None, cost=None, duration_s=0.001),
        llm_call(NOON + 2 * HOUR),
    )
    found = get_stats(AROUND, store=store)
    assert (found.requests, found.successes, found.failures) == (6, 4, 1)
    assert found.success_rate == 80.0
    assert (found.cost_usd, found.cost_coverage, found.cache_hits) == (Decimal("1.0"), 0.8, 1)
    assert (found.tokens.input, found.tokens.output, found.tokens.total) == (4_000, 800, 4_800)
    assert (found.tokens.cached, found.tokens.reasoning, found.tokens.cache_write) == (400, 200, 0)
    assert found.latency.mean_ms == pytest.approx(15_001 / 6)
    assert found.latency.p50_ms == pytest.approx(2_000, rel=0.01)
    assert found.latency.p99_ms == pytest.approx(5_000, rel=0.01)
    assert found.time_to_first_token.p95_ms == pytest.approx(250, rel=0.01)
    assert found.errors_by_type == {"rate_limit": 1}
    assert {name: part.requests for name, part in found.by_provider.items()} == {"openai": 5, "anthropic": 1}
    assert {name: part.requests for name, part in found.by_agent.items()} == {"planner": 5, "__none__": 1}
    assert found.by_model["claude"].cost_coverage == 0.0
    assert found.by_model["claude"].latency.p95_ms == pytest.approx(3_000, rel=0.01)
    assert (found.start, found.end, found.incomplete_before) == (*AROUND, None)


def test_without_a_call_nothing_is_made_up(store: Store) -> None:
    """Rates, coverage and durations of nothing are None, and never 0 or 100."""
    found = get_stats("1h", store=store)
    assert (found.requests, found.cost_usd) == (0, Decimal(0))
    assert (found.success_rate, found.cost_coverage, found.latency.p95_ms, found.latency.mean_ms) == (None,) * 4
    assert found.errors_by_type == {}


@pytest.mark.parametrize(
    ("asked", "requests"),
    [
        ({"tenant": "acme"}, 5),
        ({"user": "bob"}, 1),
        ({"agent": "writer"}, 1),
        ({"workflow": "billing"}, 1),
        ({"model": "claude"}, 1),
        ({"provider": "anthropic"}, 1),
        ({"prompt_name": "draft"}, 1),
        ({"tenant": "acme", "agent": "writer"}, 1),
        ({"tenant": "umbrella", "agent": "writer"}, 0),
        ({"tenant": None}, 6),
    ],
)
def test_a_question_is_narrowed(store: Store, asked: dict[str, str], requests: int) -> None:
    """Every filter alone and together, from rows and from summaries."""
    fill(
        store,
        llm_call(user="bob"),
        llm_call(agent="writer"),
        llm_call(workflow="billing"),
        llm_call(provider="anthropic", response_model="claude"),
        llm_call(attributes={"prompt_name": "draft"}),
        llm_call(tenant="umbrella"),
    )
    assert get_stats(AROUND, store=store, **asked).requests == requests  # type: ignore[arg-type]  # names are right
    aggregate_summaries("daily", None, store=store)
    assert get_stats(AROUND, store=store, **asked).requests == requests  # type: ignore[arg-type]  # names are right


@pytest.mark.parametrize("period", ["1h", "24h", "7d", "30d", timedelta(minutes=90)])
def test_a_period_ends_now(store: Store, period: str | timedelta) -> None:
    """A length of time is counted back from the present, to the microsecond."""
    found = get_stats(period, store=store, now=NOON)
    assert found.end == NOON
    assert found.end - found.start in {HOUR, DAY, 7 * DAY, 30 * DAY, timedelta(minutes=90)}


@pytest.mark.parametrize(
    "period", ["soon", "", (NOON, NOON), (NOON, NOON - HOUR), (NOON.replace(tzinfo=None), NOON), timedelta(0)]
)
def test_a_period_that_cannot_be_read_is_refused(store: Store, period: str) -> None:
    """Text without a unit, an empty stretch and a time without zone are errors."""
    with pytest.raises(ConfigurationError):
        get_stats(period, store=store)


def test_a_filter_that_does_not_exist_is_refused(store: Store) -> None:
    """A misspelt filter, or an empty one, must not mean everything."""
    with pytest.raises(ConfigurationError, match="allowed are tenant"):
        get_stats(store=store, tennant="acme")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="tenant"):
        get_stats(store=store, tenant_id="")
    with pytest.raises(ConfigurationError, match="tenant"):
        get_tenant_stats("", store=store)


def test_former_names_of_filters_narrow_as_well(store: Store) -> None:
    """`tenant=` and `user=` mean `tenant_id=` and `user_id=`; both at once are refused, and None widens nothing."""
    fill(store, llm_call(tenant="acme", user="ann"), llm_call(tenant="umbrella", user="bob"))
    for tenant, user in (("tenant", "user"), ("tenant_id", "user_id")):
        assert get_stats("1h", store=store, now=NOON + HOUR, **{tenant: "acme"}).requests == 1
        assert get_stats("1h", store=store, now=NOON + HOUR, **{user: "bob"}).requests == 1
    assert get_stats("1h", store=store, now=NOON + HOUR, tenant="acme", tenant_id=None).requests == 1
    with pytest.raises(ConfigurationError, match="give tenant_id= only"):
        get_stats(store=store, tenant="acme", tenant_id="umbrella")


def test_quantiles_are_within_one_percent(store: Store) -> None:
    """p50, p95 and p99 of a thousand calls are within 1 % of those of the sorted values."""
    durations = [0.01 * 1.01**number for number in range(1_000)]
    fill(store, *(llm_call(duration_s=duration) for duration in durations))
    found = get_stats(AROUND, store=store).latency
    exact = statistics.quantiles(durations, n=100, method="inclusive")
    assert found.p50_ms == pytest.approx(1_000 * exact[49], rel=0.01)
    assert found.p95_ms == pytest.approx(1_000 * exact[94], rel=0.011)
    assert found.p99_ms == pytest.approx(1_000 * exact[98], rel=0.011)


names = st.sampled_from(["acme", "umbrella", "acme ", "ACME", "%", "_", "' OR 1=1 --", "acme\x00"])
tenants = names | st.none()
asked_for = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["u-1", "u-2", "%"]),
        "agent": st.sampled_from(["a-1", "a-2", "' OR ''='"]),
        "workflow": st.sampled_from(["w-1", "w-2"]),
        "model": st.sampled_from(["m-1", "m-2", "_"]),
        "provider": st.sampled_from(["p-1", "p-2"]),
        "prompt_name": st.sampled_from(["q-1", "q-2"]),
    },
)


def _of(tenant: str | None, number: int) -> object:
    """A call that tells whose it is by its cost: each tenant has a decimal place of its own."""
    which = number % 2 + 1
    return llm_call(
        NOON + number * HOUR,
        tenant=tenant,
        user=f"u-{which}",
        agent=f"a-{which}",
        workflow=f"w-{which}",
        response_model=f"m-{which}",
        provider=f"p-{which}",
        attributes={"prompt_name": f"q-{which}"},
        cost=Decimal(1) if tenant == "acme" else Decimal(1_000_000),
        usage=Usage(1 if tenant == "acme" else 1_000_000, 0),
    )


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    owners=st.lists(tenants, min_size=1, max_size=12),
    asked=asked_for,
    summed=st.booleans(),
    narrow=st.booleans(),
)
def test_a_tenant_never_sees_a_row_of_another(
    store: Store, owners: list[str | None], asked: dict[str, str], *, summed: bool, narrow: bool
) -> None:
    """Under any filters, from rows or summaries, an answer for one tenant holds nothing of any other."""
    clear(store)
    fill(store, *(_of(owner, number) for number, owner in enumerate(owners)))
    if summed:
        aggregate_summaries("daily", None, store=store)
    period = (NOON - HOUR / 2, NOON + 6 * HOUR) if narrow else (NOON - 2 * DAY, NOON + 2 * DAY)
    found = get_stats(period, store=store, tenant_id="acme", **asked)  # type: ignore[arg-type]  # names are right
    assert found.cost_usd == found.requests == found.tokens.input
    assert found.requests <= owners.count("acme")
    breakdown = get_cost_breakdown(period, store=store, tenant_id="acme", **asked)  # type: ignore[arg-type]  # as above
    assert breakdown.cost_usd == found.cost_usd
    assert set(breakdown.by_tenant) <= {"acme"}
    tenant = get_tenant_stats("acme", period, store=store)
    assert tenant.cost_usd == tenant.requests


def test_one_tenant_is_told_by_name(store: Store) -> None:
    """A tenant's statistics are those of its own calls, and carry its name."""
    fill(store, llm_call(), llm_call(tenant="umbrella"), llm_call(tenant=None))
    found = get_tenant_stats("acme", AROUND, store=store)
    assert (found.tenant, found.requests) == ("acme", 1)


def test_tenants_come_in_falling_order_of_cost(store: Store) -> None:
    """The report has a line for every tenant, with its share of the money."""
    fill(
        store,
        llm_call(cost=Decimal(1), duration_s=1.0),
        llm_call(tenant="umbrella", cost=Decimal(3), duration_s=2.0),
        llm_call(tenant=None, cost=None),
    )
    found = get_tenants_report(AROUND, store=store)
    assert found.cost_usd == 4
    assert [(line.tenant, line.cost_usd, line.percent) for line in found.tenants] == [
        ("umbrella", Decimal(3), 75.0),
        ("acme", Decimal(1), 25.0),
        ("__none__", Decimal(0), 0.0),
    ]
    assert found.tenants[0].p95_ms == pytest.approx(2_000, rel=0.01)
    assert found.tenants[2].cost_coverage == 0.0


@pytest.mark.parametrize("summed_up", [False, True])
def test_a_tenant_named_as_none_is_another_than_none(store: Store, summed_up: bool) -> None:
    """A tenant whose name is the word for no tenant has a line, a share and statistics of its own."""
    fill(store, llm_call(tenant="__none__"), llm_call(tenant=None), llm_call(tenant=None), llm_call(tenant=""))
    if summed_up:
        aggregate_summaries("daily", store=store, now=NOON + DAY)
    lines = {line.tenant: line.requests for line in get_tenants_report(AROUND, store=store).tenants}
    assert lines == {"__none__": 3, (named := max(lines, key=len)): 1}
    assert named.startswith("__none__~")
    assert {name: one.requests for name, one in get_cost_breakdown(AROUND, store=store).by_tenant.items()} == lines
    assert {name: get_tenant_stats(name, AROUND, store=store).requests for name in lines} == lines  # asked as told


def test_no_money_is_a_plain_zero(store: Store) -> None:
    """What costs nothing prints as `0` everywhere, and a small amount has no exponent in JSON."""
    fill(store, llm_call(cost=Decimal("0E-8")))
    found = get_cost_breakdown(AROUND, store=store)
    summary = get_cost_summary(store=store, now=NOON)
    rate = get_cost_rate(AROUND, store=store)
    tenants = get_tenants_report(AROUND, store=store)
    stats = get_stats(AROUND, store=store)
    amounts = (found.cost_usd, found.cost_per_request_usd, stats.cost_usd, tenants.cost_usd, rate.per_month_usd)
    assert {str(amount) for amount in (*amounts, summary.projected_cost_usd, summary.previous_cost_usd)} == {"0"}
    small = found.model_copy(update={"cost_usd": Decimal("7.5E-7")}).model_dump_json()
    assert '"cost_usd":"0.00000075"' in small
    assert "E-" not in small


def test_money_is_broken_down(store: Store) -> None:
    """Each group has its share in percent, its requests, and the cost of one with a known price."""
    fill(
        store,
        llm_call(cost=Decimal("0.3")),
        llm_call(cost=Decimal("0.6"), provider="anthropic"),
        llm_call(cost=None, provider="anthropic"),
    )
    found = get_cost_breakdown(AROUND, store=store)
    assert (found.cost_usd, found.percent, found.requests) == (Decimal("0.9"), 100.0, 3)
    assert list(found.by_provider) == ["anthropic", "openai"]
    anthropic = found.by_provider["anthropic"]
    assert anthropic.percent == pytest.approx(66.6667, rel=1e-4)
    assert (anthropic.requests, anthropic.cost_per_request_usd, anthropic.cost_coverage) == (2, Decimal("0.6"), 0.5)
    assert found.by_tenant["acme"].cost_usd == Decimal("0.9")


def test_nothing_spent_has_no_shares(store: Store) -> None:
    """Without money there is no percentage and no cost per request."""
    fill(store, llm_call(cost=None))
    found = get_cost_breakdown(AROUND, store=store)
    assert (found.percent, found.cost_per_request_usd, found.cost_usd) == (None, None, Decimal(0))


def test_a_month_is_summed_up_and_projected(store: Store) -> None:
    """So far, against the same stretch of the month before, and at this rate to its end."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    fill(
        store,
        llm_call(start + DAY, cost=Decimal(10)),
        llm_call(start - 27 * DAY, cost=Decimal(4)),
        llm_call(start - DAY, cost=Decimal(100)),
    )
    found = get_cost_summary("month", store=store, now=start + timedelta(days=3, hours=2, minutes=24))
    assert (found.start, found.end) == (start, datetime(2026, 4, 1, tzinfo=UTC))
    assert (found.cost_usd, found.previous_cost_usd, found.previous_to_date_usd) == (
        Decimal(10),
        Decimal(104),
        Decimal(4),
    )
    assert found.change_percent == 150.0
    assert found.projected_cost_usd == 100
    assert found.by_model["gpt-4o"].cost_usd == 10


def test_a_period_that_has_just_begun_is_not_projected(store: Store) -> None:
    """In the first hundredth of a period there is no projection, and no change against nothing."""
    found = get_cost_summary("month", store=store, now=datetime(2026, 3, 1, tzinfo=UTC))
    assert (found.cost_usd, found.projected_cost_usd, found.change_percent) == (Decimal(0), None, None)


def local(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A time on a wall, whose zone the case tells."""
    return datetime(year, month, day, hour, minute)  # noqa: DTZ001  without a zone on purpose


@pytest.mark.parametrize(
    ("period", "zone", "at", "start", "hours"),
    [
        ("day", "Europe/Berlin", local(2026, 3, 29, 12), local(2026, 3, 29), 23),
        ("day", "Europe/Berlin", local(2026, 10, 25, 12), local(2026, 10, 25), 25),
        ("week", "Europe/Berlin", local(2026, 3, 29, 12), local(2026, 3, 23), 7 * 24 - 1),
        ("month", "Europe/Berlin", local(2026, 3, 31, 23, 59), local(2026, 3, 1), 31 * 24 - 1),
        ("month", "Asia/Kolkata", local(2026, 2, 10), local(2026, 2, 1), 28 * 24),
        ("day", "America/Havana", local(2026, 3, 8, 12), local(2026, 3, 8, 1), 23),
        ("week", "UTC", local(2026, 1, 1), local(2025, 12, 29), 7 * 24),
    ],
)
def test_the_calendar_is_right_where_clocks_change(
    period: str, zone: str, at: datetime, start: datetime, hours: int
) -> None:
    """Days of 23 and 25 hours, ISO weeks over the new year, half-hour zones, a midnight that does not exist."""
    found = calendar_period(period, at.replace(tzinfo=ZoneInfo(zone)), zone)  # type: ignore[arg-type]  # one of the three
    assert found.start == start.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    assert found.end - found.start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("period", "zone", "at"),
    [
        ("year", "UTC", NOON),
        ("day", "Mars/Olympus", NOON),
        ("day", "../etc", NOON),
        ("day", "UTC", local(2026, 1, 1)),
    ],
)
def test_a_calendar_that_does_not_exist_is_refused(period: str, zone: str, at: datetime) -> None:
    """Another period, an unknown zone and a time without zone are errors."""
    with pytest.raises(ConfigurationError):
        calendar_period(period, at, zone)  # type: ignore[arg-type]  # wrong on purpose


def test_answers_are_frozen(store: Store) -> None:
    """What was told cannot be changed afterwards."""
    with pytest.raises(ValidationError):
        get_stats("1h", store=store).requests = 5  # type: ignore[misc]  # wrong on purpose


def test_the_asynchronous_twins_answer_the_same(store: Store) -> None:
    """Each question can be awaited, and its answer is that of the plain function."""
    fill(store, llm_call())

    async def ask() -> list[object]:
        return [
            await aget_stats(AROUND, store=store),
            await aget_tenant_stats("acme", AROUND, store=store),
            await aget_tenants_report(AROUND, store=store),
            await aget_cost_breakdown(AROUND, store=store),
            await aget_cost_summary("day", store=store, now=NOON),
        ]

    assert asyncio.run(ask()) == [
        get_stats(AROUND, store=store),
        get_tenant_stats("acme", AROUND, store=store),
        get_tenants_report(AROUND, store=store),
        get_cost_breakdown(AROUND, store=store),
        get_cost_summary("day", store=store, now=NOON),
    ]
    assert aget_stats.__name__ == "aget_stats"


# Which store is meant


def test_the_store_of_this_process_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name: the store that this process fills, else the one in the environment, else what it holds itself."""
    monkeypatch.delenv("TASKPILOT_OBS_STORE", raising=False)
    assert get_stats("1h").scope == "process"
    exporter = StoreExporter(sqlite_url(tmp_path))
    exporter.export([llm_call()])
    assert get_stats(AROUND).requests == 1
    exporter.shutdown(1.0)
    monkeypatch.setenv("TASKPILOT_OBS_STORE", sqlite_url(tmp_path))
    assert get_stats(AROUND).requests == 1
    monkeypatch.setenv("TASKPILOT_OBS_STORE", sqlite_url(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="there is no telemetry store"):
        get_stats("1h")


# Golden signals


def test_golden_signals_of_a_store_are_those_of_the_window(store: Store) -> None:
    """The same records give the same five signals on this surface as in the process."""
    now = datetime.now(UTC)
    wrong = verdict(now, correct=False)
    records = [
        *(task(now, duration_s=0.1 * n) for n in range(1, 31)),
        task(now, status=Status.ERROR, duration_s=9.0, rollup=Rollup(violations=2, cost=Decimal("0.5"))),
        task(now, name="billing", status=Status.CANCELLED, rollup=None),
        *(llm_call(now, cost=Decimal("0.01")) for _ in range(20)),
        llm_call(now, cost=None),
        llm_call(now, cached=True, cost=None),
        denial(now),
        denial(now),
        verdict(now),
        verdict(now),
        wrong,
        wrong._replace(correct=True, revision=True, time_unix_ns=wrong.time_unix_ns + 1_000),
    ]
    fill(store, *records)
    window = RollingWindow()
    window.export(records)  # type: ignore[arg-type]  # records of every kind
    ours = signals_from_store("15m", store=store)
    theirs = signals_from_window(window, "15m")
    for name in ("success_rate", "cost_per_successful_task_usd", "user_confirmed_correctness_percent"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name))
    assert ours.policy_violation_rate_percent == theirs.policy_violation_rate_percent
    assert ours.p95_latency_ms == pytest.approx(theirs.p95_latency_ms, rel=0.016)
    assert (ours.runs, ours.cost_coverage, ours.llm_calls) == (theirs.runs, theirs.cost_coverage, theirs.llm_calls)
    assert (ours.scope, ours.status) == ("store", theirs.status)
    assert ours.runs_with_violations_percent == theirs.runs_with_violations_percent
    assert {name: part.runs for name, part in ours.workflows.items()} == {
        name: part.runs for name, part in theirs.workflows.items()
    }
    assert ours.workflows["triage"].cost_usd == pytest.approx(theirs.workflows["triage"].cost_usd)


def test_golden_signals_of_an_empty_store_are_unknown(store: Store) -> None:
    """Without a run every signal is None."""
    found = signals_from_store("15m", store=store)
    assert (found.success_rate, found.p95_latency_ms, found.status.value) == (None, None, "insufficient_data")


def test_golden_signals_of_all_that_a_store_holds(store: Store) -> None:
    """Without a window they cover everything that was kept."""
    fill(store, task(datetime(2020, 1, 1, tzinfo=UTC)), task())
    found = signals_from_store(None, store=store)
    assert (found.runs.success, found.window_s) == (2, None)


def test_golden_signals_read_the_store_of_a_recorder(store: Store, tmp_path: Path) -> None:
    """What just ended is written first, so that the store tells what the process tells."""
    url = url_of(store)
    exporter = StoreExporter(url, spool_dir=tmp_path / "spool")
    recorder = build_recorder(exporters=[exporter])
    run_tasks(recorder, 10)
    ours = golden_signals("15m", recorder=recorder, store=url)
    theirs = golden_signals("15m", recorder=recorder)
    assert ours.success_rate == theirs.success_rate == 90.0
    assert ours.cost_per_successful_task_usd == theirs.cost_per_successful_task_usd
    assert ours.p95_latency_ms == pytest.approx(theirs.p95_latency_ms, rel=0.016)
    assert ours.runs == theirs.runs
    with pytest.raises(ConfigurationError, match="drop one"):
        golden_signals(recorder=recorder, store=url, prometheus="http://127.0.0.1:1")
    recorder.shutdown()
