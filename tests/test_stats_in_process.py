"""Statistics without a telemetry store: from the calls that this process holds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _stored import NOON, llm_call, sqlite_url, store_at, task, unix_ns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskpilot_obs import configure, record_llm_call, request_context, track_llm
from taskpilot_obs._telemetry.answers import By, CallSource
from taskpilot_obs._telemetry.filters import EVERYTHING, Filters
from taskpilot_obs._telemetry.window import CallWindow
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Invocation, Status, Usage
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats import (
    get_benchmark_summaries,
    get_calls,
    get_cost_breakdown,
    get_cost_rate,
    get_cost_summary,
    get_series,
    get_stats,
    get_tenant_stats,
    get_tenants_report,
)
from taskpilot_obs.stats.asking import filters_of
from taskpilot_obs.store import Store
from taskpilot_obs.store.questions import StoreSource
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
LATER = NOON + HOUR


@pytest.fixture(autouse=True)
def _no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKPILOT_OBS_STORE", raising=False)


def window_of(*calls: Invocation, max_calls: int = 1_000, max_age: timedelta = timedelta(days=1)) -> CallWindow:
    """A window that began an hour before noon, got these calls, and is asked an hour after noon."""
    times = iter([NOON - HOUR])
    window = CallWindow(lambda: unix_ns(next(times, LATER)), max_calls, max_age)
    window.export(calls)
    return window


def test_without_a_store_this_process_answers() -> None:
    """The questions and their models, from the calls recorded in this process; the answer states its window."""
    before = datetime.now(UTC) - timedelta(seconds=1)  # the clock of records is anchored, and may differ by a little
    configure(service="shop")
    with request_context(tenant_id="acme"):
        record_llm_call(model="gpt-4o", provider="openai", usage=Usage(1_000, 200), duration_seconds=0.5)
        record_llm_call(model="gpt-4o", provider="openai", error_type="openai.RateLimitError", duration_seconds=2.5)
    record_llm_call(model="claude-sonnet-4-5", provider="anthropic", usage=Usage(10, 10))
    stats = get_stats("1h")
    assert (stats.requests, stats.successes, stats.failures) == (3, 2, 1)
    assert stats.tokens.total == 1_220
    assert stats.by_model["gpt-4o"].latency.p95_ms == pytest.approx(2_500, rel=0.01)
    assert stats.errors_by_type == {"rate_limit": 1}
    assert stats.scope == "process"
    assert stats.window is not None
    assert before <= stats.window.since <= datetime.now(UTC)
    assert (stats.window.calls, stats.window.max_calls, stats.window.max_age_s) == (3, 10_000, 86_400)
    assert stats.incomplete_before == stats.window.since
    assert get_tenant_stats("acme").requests == 2
    spent = get_cost_breakdown("1h")
    assert spent.scope == "process"
    assert spent.by_tenant["acme"].cost_usd == Decimal("0.0045")
    assert get_cost_summary("day").cost_usd == spent.cost_usd
    assert get_cost_rate("1h").cost_usd == spent.cost_usd
    assert get_tenants_report("1h").tenants[0].tenant == "acme"
    assert sum(point.requests for point in get_series("1h")) == 3
    assert [line.model_name for line in get_benchmark_summaries("1h")] == ["gpt-4o", "claude-sonnet-4-5"]
    assert get_stats("1h", service="shop").requests == 3
    assert get_stats("1h", service="other").requests == 0


def test_a_read_sees_the_call_before_it() -> None:
    """No flush is needed: what ended before the question is in the answer."""
    configure()
    for number in range(1, 50):
        with track_llm(model="gpt-4o", provider="openai"):
            pass
        assert get_stats("1h").requests == number


def test_a_store_answers_where_there_is_one(tmp_path: Path) -> None:
    """A process with a store holds no calls itself; one that is named answers instead of what is held."""
    configure()
    record_llm_call(model="gpt-4o", provider="openai")
    with store_at(sqlite_url(tmp_path)) as store:
        assert (get_stats("1h", store=store).requests, get_stats("1h", store=store).scope) == (0, "store")
    assert get_stats("1h").requests == 1
    recorder = configure(store=sqlite_url(tmp_path))
    record_llm_call(model="gpt-4o", provider="openai")
    recorder.flush()
    assert recorder.parts is not None
    assert recorder.parts.calls is None
    assert (get_stats("1h").requests, get_stats("1h").scope) == (1, "store")
    configure()
    assert get_stats("1h").scope == "process"


@pytest.mark.parametrize("options", [{"stats_calls": 0}, {"enabled": False}])
def test_nothing_is_held_that_was_not_asked_for(options: dict[str, Any]) -> None:
    """Without calls held, the question is refused and names what is missing."""
    configure(**options)
    record_llm_call(model="gpt-4o", provider="openai")
    with pytest.raises(ConfigurationError, match="TASKPILOT_OBS_STORE is not set"):
        get_stats("1h")


def test_single_calls_need_a_store() -> None:
    """Rows with identifiers are the store's; the refusal says how to name one."""
    configure()
    with pytest.raises(ConfigurationError, match="name one, as in sqlite"):
        get_calls("1h")


def test_the_window_is_bounded_by_a_count() -> None:
    """Of more calls the oldest are forgotten, and the answer is incomplete before the newest of them."""
    calls = [llm_call(NOON + timedelta(seconds=number)) for number in range(30)]
    held = window_of(*calls, max_calls=20).read()
    assert held.held.calls == 20
    assert held.held.since == NOON + timedelta(seconds=9, microseconds=1)
    with held.about(NOON, LATER, EVERYTHING) as answers:
        assert answers.totals()[()].requests == 20
        assert answers.incomplete_before() == held.held.since
    with held.about(NOON + timedelta(seconds=10), LATER, EVERYTHING) as answers:
        assert (answers.totals()[()].requests, answers.incomplete_before()) == (20, None)


def test_the_window_is_bounded_by_an_age() -> None:
    """Calls that ended too long ago are neither held nor told."""
    window = window_of(llm_call(NOON), llm_call(LATER - timedelta(minutes=9)), max_age=timedelta(minutes=10))
    assert window.read().held == (LATER - timedelta(minutes=10), 1, 1_000, timedelta(minutes=10))


def test_a_configuration_keeps_the_calls_before_it() -> None:
    """A second `configure()` loses nothing, and applies its own bounds."""
    configure()
    for _ in range(5):
        record_llm_call(model="gpt-4o", provider="openai")
    configure(stats_calls=3)
    assert get_stats("1h").requests == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_empty() -> None:
    """Calls of the parent are not counted by its children."""
    window = window_of(llm_call(NOON))
    child = os.fork()
    if child == 0:
        os._exit(window.read().held.calls)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert window.read().held.calls == 1


def test_nothing_that_users_wrote_is_held() -> None:
    """Prompts, outputs, error messages and other attributes are not in memory, captured or not."""
    secret = "a captured text"  # noqa: S105  no password
    call = llm_call(input_text=secret, output_text=secret, error_message=secret, attributes={"note": secret})
    assert secret not in repr(list(window_of(call).read()._calls))


def test_values_of_derived_classes_are_held_as_plain_ones() -> None:
    """Identifiers and counts of classes derived from text and numbers are counted like plain ones."""

    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    odd = llm_call(tenant=Name("acme"), user=Name("ann"))._replace(usage=Usage(Number(5), Number(7)))
    with window_of(odd, llm_call()).read().about(NOON - HOUR, LATER, EVERYTHING) as answers:
        ((key, counts),) = answers.totals(By(("organization_id",))).items()
    assert (key, counts.requests, counts.input_tokens) == (("acme",), 2, 1_005)


def test_it_works_without_the_extra(tmp_path: Path) -> None:
    """A process without SQLAlchemy asks and is answered; a store that is named names the extra."""
    program = textwrap.dedent("""
        import sys
        sys.modules["sqlalchemy"] = None
        import importlib.util
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "sqlalchemy" else found(name, *rest)
        from taskpilot_obs import Usage, configure, record_llm_call
        from taskpilot_obs.exceptions import MissingExtraError
        from taskpilot_obs.stats import get_cost_breakdown, get_cost_summary, get_stats, get_tenant_stats
        configure()
        record_llm_call(model="gpt-4o", provider="openai", usage=Usage(100, 10), tenant_id="acme")
        print(get_stats().requests, get_tenant_stats("acme").requests, get_cost_breakdown("1h").requests,
              get_cost_summary("day").requests)
        try:
            get_stats(store="sqlite:///none.db")
        except MissingExtraError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[0] == "1 1 1 1"
    assert "taskpilot-obs[store]" in done.stdout


def test_the_window_is_small() -> None:
    """At the default bound, with names of their own for every call, it takes at most 20 MB."""
    import tracemalloc

    def stranger(number: int) -> Invocation:
        name = f"{number:08d}"
        attributes = {word: f"{word}-{name}-{'x' * 16}" for word in ("step_id", "task_id", "workflow_run_id")}
        return llm_call(
            duration_s=number / 977,
            ttft_s=number / 1_777,
            usage=Usage(number * 999, number * 777, number, number, None, None, None, number, None),
            cost=Decimal(number) / 999_983,
            user=f"user-{name}-{'x' * 24}",
            session=f"session-{name}-{'x' * 24}",
            request_id=f"{name}{'f' * 24}",
            attributes=attributes,
        )

    window = CallWindow(lambda: unix_ns(LATER))
    tracemalloc.start()
    try:
        for number in range(11_000):
            window.export((stranger(number),))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert window.read().held.calls == 10_000
    assert held < 20_000_000


NAMES = st.sampled_from(["a", "b", None, "é" * 300, "__none__", ""])
TOKENS = st.one_of(st.none(), st.integers(0, 10**6))


@st.composite
def calls(draw: st.DrawFn) -> Invocation:
    """Any finished LLM call of the two hours around noon."""
    cached = draw(st.sampled_from([None, True, False]))
    return llm_call(
        NOON + timedelta(seconds=draw(st.integers(-3_600, 3_599))),
        duration_s=draw(st.floats(0, 100)),
        ttft_s=draw(st.one_of(st.none(), st.floats(0, 10))),
        status=draw(st.sampled_from([*Status])),
        error_type=draw(st.sampled_from([None, "KeyError"])),
        error_category=draw(st.sampled_from([None, "rate_limit"])),
        refused=draw(st.booleans()),
        cached=cached,
        usage=draw(st.one_of(st.none(), st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, reasoning_tokens=TOKENS))),
        cost=draw(st.one_of(st.none(), st.decimals(0, 100, places=12), st.just(Decimal("NaN")))),
        price_gap=draw(st.sampled_from([None, "fees"])),
        provider=draw(st.sampled_from(["openai", "anthropic", None])),
        request_model=draw(st.sampled_from(["gpt-4o", None])),
        agent=draw(NAMES),
        tenant=draw(NAMES),
        user=draw(NAMES),
        session=draw(NAMES),
        attributes={"task_id": draw(st.integers(1, 2)), "prompt_name": "plan"},
    )


def told(source: CallSource, by: By, filters: Filters) -> list[Any]:
    """Everything that a source answers, in a comparable form."""
    with source.about(NOON - HOUR, NOON + HOUR / 2, filters) as answers:
        totals = {
            key: (*counts[:-1], pytest.approx(counts.latency_total_ms, rel=1e-6, abs=1e-2))
            for key, counts in answers.totals(by).items()
        }
        bins = [{key: dict(counter) for key, counter in part.items() if counter} for part in answers.bins(by)]
        failed = {key: dict(counter) for key, counter in answers.errors(by).items()}
    return [totals, bins, failed]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(calls(), max_size=12),
    st.sampled_from(
        [By(), By(("provider", "model_name", "agent")), By(("organization_id",)), By(("agent",), HOUR), By((), HOUR)]
    ),
    st.sampled_from(
        [
            EVERYTHING,
            filters_of({"tenant_id": "a"}),
            filters_of({"user_id": NONE}),
            filters_of({"task_id": "1"}),
            filters_of({"model": "GPT-4o"}),
        ]
    ),
)
def test_a_process_answers_as_a_store_does(shared: Store, made: list[Invocation], by: By, filters: Filters) -> None:
    """Over the same calls, sums, durations and failures are the same from memory and from SQL."""
    with shared.writing() as connection:
        for table in ("llm_call_telemetry", "llm_series", "llm_summary_work"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608  our names
    Writer(shared).write(rows_of([*made, task()]))
    assert told(window_of(*made, task()).read(), by, filters) == told(StoreSource(shared), by, filters)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One store for all examples."""
    with store_at(sqlite_url(tmp_path_factory.mktemp("shared"))) as store:
        yield store
