"""The benchmark runner: against callables and pretend providers on loopback, whose truth is known."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import sqlite3
import stat
import statistics
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs import get_recorder, observe_agent, record_llm_call
from taskpilot_obs.compare.bench import Outcome, Reporter, Session, benchmark, load_task, made_plan
from taskpilot_obs.compare.bench.arms import spec_of
from taskpilot_obs.compare.bench.checkers import BUILT_IN, named_checker
from taskpilot_obs.compare.bench.documents import as_markdown, as_page
from taskpilot_obs.compare.bench.keeping import Folder
from taskpilot_obs.compare.bench.plan import arrival_times, planned_calls
from taskpilot_obs.compare.bench.pretend import TRUTHS, Truth, pretend_providers
from taskpilot_obs.compare.bench.recording import PRETEND_PRICES
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store import Store
from taskpilot_obs.testing import fresh_recorder

QUICK = tuple(truth._replace(median_s=0.004, sigma=0.1) for truth in TRUTHS)


def sixteen(prompt: str) -> str:
    return "16"


def right(prompt: str) -> str:
    return next(item.expected or "" for item in load_task("simple").items if item.prompt == prompt)


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simple", "reasoning", "navigation"])
def test_built_in_tasks_accept_the_right_answer_only(name: str) -> None:
    """Each of the 20 items accepts its own answer, and refuses nonsense and at least 15 answers of the others."""
    items = load_task(name).items
    assert len(items) == 20
    assert len({item.id for item in items}) == len({item.prompt_hash for item in items}) == 20
    for item in items:
        answers = [_said(other.expected or "", other.checker) for other in items]
        assert item.check(_said(item.expected or "", item.checker)) is True
        assert item.check("no idea") is False
        assert sum(item.check(answer) is False for answer in answers) >= 15


def _said(expected: str, checker: str | None) -> str:
    if checker != "steps":
        return f"Let me think about it.\nThe answer is **{expected}**."
    steps = [dict(zip(("action", "target", "value"), step, strict=False)) for step in json.loads(expected)]
    return f"```json\n{json.dumps(steps)}\n```"


@pytest.mark.parametrize(
    ("checker", "answer", "expected", "verdict"),
    [
        ("number", "It is 1,024.", "1024", True),
        ("number", "16.0", "16", True),
        ("number", "16 or 17", "16", False),
        ("last_word", "So it must be: Lea.", "Lea", True),
        ("last_word", "", "Lea", False),
        ("exact", " Yes ", "yes", True),
        ("contains", "in Paris, France", "paris", True),
        ("steps", '[{"action": "click", "target": "#a"}]', '[["click", "#a"]]', True),
        (
            "steps",
            '[{"action": "fly", "target": "#a"}, {"action": "click", "target": "#a"}]',
            '[["click", "#a"]]',
            False,
        ),
        ("steps", '[{"action": "type", "target": "#a"}]', '[["type", "#a"]]', False),
        ("steps", "I would click on #a", '[["click", "#a"]]', False),
        ("steps", '{"action": "click"}', '[["click", "#a"]]', False),
    ],
)
def test_checkers(checker: str, answer: str, expected: str, verdict: bool) -> None:
    """Each checker accepts what is right, and refuses what only looks like it."""
    assert named_checker(checker)(answer, expected) is verdict


@given(st.text(max_size=60), st.sampled_from([*BUILT_IN]))
def test_checkers_never_fail(answer: str, checker: str) -> None:
    """Whatever a model says, a checker gives a verdict."""
    expected = {"number": "16", "steps": '[["click", "#a"]]'}.get(checker, "word")
    assert named_checker(checker)(answer, expected) in (True, False)


def test_own_tasks(tmp_path: Path) -> None:
    """A JSONL file is a task; a wrong line, checker or name is an error that names it."""
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "2 + 2?", "expected": "4"}\n\n{"prompt": "tell", "max_tokens": 9}\n')
    task = load_task(str(file))
    assert [(item.id, item.checker, item.max_tokens) for item in task.items] == [
        ("mine-01", "exact", 512),
        ("mine-03", None, 9),
    ]
    assert task.items[1].check("anything") is None
    for line, message in (
        ('{"prompt": ""}', "line 1"),
        ('{"prompt": "x", "expcted": "y"}', "line 1"),
        ('{"prompt": "x", "checker": "nosuch"}', "allowed are exact"),
        ('{"prompt": "x", "checker": "os.path:nosuch"}', "nosuch"),
        ("no json", "line 1"),
    ):
        file.write_text(line)
        with pytest.raises(ConfigurationError, match=message):
            load_task(str(file))
    with pytest.raises(ConfigurationError, match="allowed are simple"):
        load_task("nosuch")


# --- plans -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 99))
def test_the_order_is_fair_and_repeatable(arms: int, iterations: int, warm_up: int, seed: int) -> None:
    """Every arm gets every item as often, one right after the other, each place in turn; the seed decides the order."""
    names = [f"arm{number}" for number in range(arms)]
    plan = made_plan(run_id="r", arms=tuple(names), iterations=iterations, warm_up=warm_up, seed=seed)
    tasks = [load_task("simple", 8)]
    calls = planned_calls(plan, names, tasks)
    assert calls == planned_calls(plan, names, tasks)
    measured = [call for call in calls if not call.warm_up]
    assert [call.warm_up for call in calls] == [True] * (warm_up * arms) + [False] * len(measured)
    assert set(Counter((call.arm, call.item.id) for call in measured).values()) == {iterations}
    blocks = [measured[start : start + arms] for start in range(0, len(measured), arms)]
    assert all(len({call.item.id for call in block}) == 1 for block in blocks)
    assert all({call.arm for call in block} == set(names) for block in blocks)
    if arms == 2:
        first = Counter(block[0].arm for block in blocks)
        assert first["arm0"] == first["arm1"]
    assert len({call.call_id for call in calls}) == len(calls)


def test_arrivals() -> None:
    """An open loop begins calls at its rate: evenly, or by chance with the same mean."""
    even = made_plan(arms=("a",), rate_per_s=4, arrivals="constant")
    times = arrival_times(even)
    assert [next(times) for _ in range(3)] == [0, 0.25, 0.5]
    chance = [time for time, _ in zip(arrival_times(made_plan(arms=("a",), rate_per_s=4)), range(4_000), strict=False)]
    assert chance == sorted(chance)
    assert chance[-1] == pytest.approx(1_000, rel=0.1)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("openai/gpt-4o", ("openai/gpt-4o", "openai", "gpt-4o", None)),
        ("mine=openai/gpt-4o", ("mine", "openai", "gpt-4o", None)),
        ("openai/llama3:8b@http://h:1/v1?a=b", ("openai/llama3:8b", "openai", "llama3:8b", "http://h:1/v1?a=b")),
        ("x=openai/meta/llama@http://h/v1", ("x", "openai", "meta/llama", "http://h/v1")),
        ("package.module:ask", ("package.module:ask", None, "package.module:ask", None)),
        ("b=package.module:ask", ("b", None, "package.module:ask", None)),
    ],
)
def test_arms_by_name(text: str, parts: tuple[str | None, ...]) -> None:
    """Models, addresses, functions and names are told apart."""
    assert spec_of(text) == parts


@pytest.mark.parametrize("text", ["gpt-4o", "/x", "openai/", ""])
def test_arms_that_cannot_be_read(text: str) -> None:
    """An arm without a provider or a model is refused, with what to write."""
    with pytest.raises(ConfigurationError, match="write PROVIDER/MODEL"):
        spec_of(text)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"nosuch": 1}, {"objectives": {"speed": 1}}, {"arms": ()}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """A plan is checked before anything is asked."""
    with pytest.raises(ConfigurationError):
        made_plan(**{"arms": ("a",), **options})


# --- arms ------------------------------------------------------------------------------------------------------------


async def coroutine(prompt: str) -> str:
    await asyncio.sleep(0.001)
    return right(prompt)


async def pieces(prompt: str, max_tokens: int) -> AsyncIterator[str]:
    yield ""
    await asyncio.sleep(0.005)
    yield right(prompt)[:1]
    await asyncio.sleep(0.005)
    yield right(prompt)[1:]
    assert max_tokens > 0


def plain_pieces(prompt: str) -> Iterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    time.sleep(0.005)
    yield right(prompt)
    time.sleep(0.005)


def test_any_callable_is_an_arm() -> None:
    """Plain functions, coroutines and generators answer; of pieces the time to the first that is not empty is known."""
    arms: dict[str, Any] = {
        "plain": right,
        "coroutine": coroutine,
        "pieces": pieces,
        "plain pieces": plain_pieces,
        "wrong": sixteen,
    }
    report = benchmark(arms, iterations=1, items=10)
    assert [*report.arms] == [*arms]
    assert {name: arm.correct and arm.correct.value for name, arm in report.arms.items()} == {
        "plain": 1,
        "coroutine": 1,
        "pieces": 1,
        "plain pieces": 1,
        "wrong": 0.1,
    }
    for name, arm in report.arms.items():
        assert arm.request_count == 10
        assert (arm.time_to_first_token is not None) == ("pieces" in name)
        if arm.time_to_first_token is not None and arm.request_latency is not None:
            assert 4 < arm.time_to_first_token.min < arm.request_latency.max
        assert arm.cost_usd is None
        assert arm.generator_lag is not None
    assert report.findings[0].measure == "correct answers"
    assert report.findings[0].worse == ("wrong",)


@observe_agent("Mine")
def priced(prompt: str) -> str:
    record_llm_call(model="gpt-4o-mini", cost="0.02", usage={"input_tokens": 3, "output_tokens": 5})
    record_llm_call(model="gpt-4o-mini", cost="0.01", usage={"input_tokens": 3, "output_tokens": 5})
    return right(prompt)


def test_an_agent_of_ones_own_counts_all_of_its_calls() -> None:
    """What an agent's LLM calls took, recorded by the default recorder, is the cost of its answer."""
    with fresh_recorder():
        report = benchmark({"mine": priced}, iterations=1, items=4, warm_up=0)
    arm = report.arms["mine"]
    assert (arm.cost_usd, arm.cost_per_correct_usd, arm.cost_coverage) == (Decimal("0.12"), Decimal("0.03"), 1.0)
    assert arm.output_sequence_length is not None
    assert arm.output_sequence_length.avg == 10


def test_a_cap_holds_for_agents_of_ones_own() -> None:
    """A run whose agents spend more than the cap stops, and reports why."""
    with fresh_recorder():
        report = benchmark({"mine": priced}, iterations=200, concurrency=1, max_cost_usd="0.05", reporters=[Slow()])
    assert report.status == "stopped"
    assert report.arms["mine"].request_count < 4_000


class Slow(Reporter):
    """Gives the runner time to save."""

    def finished(self, outcome: Outcome) -> None:
        time.sleep(0.02)


class BrokenError(Exception):
    """A failure of the provider."""

    status_code = 503


def test_retries_are_counted_in_or_out_of_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken call is tried again, by the option with or without its earlier attempts in the latency."""
    monkeypatch.setattr("taskpilot_obs.compare.bench.runner._FIRST_PAUSE_S", 0.2)
    for counts in (True, False):
        failing = {item.prompt for item in load_task("simple", 3).items}

        def ask(prompt: str, failing: set[str] = failing) -> str:
            if prompt in failing:
                failing.discard(prompt)
                raise BrokenError
            return right(prompt)

        report = benchmark({"a": ask}, iterations=1, items=3, warm_up=0, retries=1, retries_in_latency=counts)
        arm = report.arms["a"]
        assert (arm.request_count, arm.retry_count, arm.error_request_count) == (3, 3, 0)
        assert arm.request_latency is not None
        assert (arm.request_latency.min > 100) is counts


def test_errors_stand_apart_by_category() -> None:
    """Failures have categories, no latency, and count as not correct; a timeout is one."""

    async def ask(prompt: str) -> str:
        if "17 + 26" in prompt:
            raise BrokenError
        if "403" in prompt:
            await asyncio.sleep(5)
        if "12 times" in prompt:
            raise ValueError("my own")
        return right(prompt)

    report = benchmark({"a": ask}, iterations=1, items=4, warm_up=0, retries=0, timeout_s=0.2)
    arm = report.arms["a"]
    assert arm.error_summary == {"server": 1, "timeout": 1, "other": 1}
    assert arm.correct is not None
    assert (arm.correct.of, arm.correct.value) == (4, 0.25)
    assert arm.request_latency is not None
    assert arm.request_latency.count == 1


# --- providers on loopback -------------------------------------------------------------------------------------------


def test_providers_by_their_own_sdks(tmp_path: Path) -> None:
    """Three SDKs stream from three protocols; tokens, cost, first token and what was kept are complete."""
    url = f"sqlite:///{tmp_path / 'bench.db'}"
    with pretend_providers(QUICK) as server:
        report = benchmark(
            server.specs(),
            tasks=("simple", "navigation"),
            items=6,
            iterations=1,
            retries=0,
            store=url,
            out=tmp_path / "run",
            prices=[PRETEND_PRICES],
            objectives={"request_latency": 5_000},
        )
    assert report.failed_arms == {}
    assert {arm.described["provider"] for arm in report.arms.values()} == {"openai", "anthropic", "gcp.gemini"}
    for arm in report.arms.values():
        assert arm.cost_coverage == 1.0
        assert arm.cost_usd
        assert arm.input_sequence_length is not None
        assert arm.time_to_first_token is not None
        assert arm.good_request_count == arm.request_count
        assert "127.0.0.1" in (arm.described["base_url"] or "")
    assert report.findings[-1].measure == "cost of an answer"
    assert "pretend-grand" in report.findings[-1].worse
    _kept_whole(tmp_path, report.run_id, [arm.cost_usd for arm in report.arms.values()])


def _kept_whole(folder: Path, run_id: str, costs: list[Decimal | None]) -> None:
    with sqlite3.connect(folder / "bench.db") as database:
        (status, settings, summary) = database.execute(
            "SELECT status, settings, summary FROM benchmark_runs WHERE run_id = ?", (run_id,)
        ).fetchone()
        rows = database.execute(
            "SELECT b.warm_up, b.cost_nano * 1000 + b.cost_rest, c.cost_nano * 1000 + c.cost_rest,"
            " c.prompt_name = b.task FROM benchmark_calls b JOIN llm_call_telemetry c USING (telemetry_id)"
        ).fetchall()
    database.close()
    assert status == "finished"
    assert json.loads(settings)["seed"] == json.loads(summary)["plan"]["seed"] == 0
    assert len(rows) == 3 * (12 + 1)
    assert all(cost == (booked or 0) and named for _, cost, booked, named in rows)
    total = sum(cost for warm_up, cost, _, _ in rows if not warm_up)
    assert Decimal(total).scaleb(-12) == sum(cost for cost in costs if cost is not None)
    for name in ("calls.jsonl", "plan.json"):
        assert stat.S_IMODE((folder / "run" / name).stat().st_mode) == 0o600


def test_the_cap_is_kept_by_a_budget(tmp_path: Path) -> None:
    """No call leaves that could exceed the cap, the run says why it stopped, and resuming needs a higher one."""
    with pretend_providers(QUICK) as server:
        spec = server.specs()[2]
        report = benchmark(
            [spec], iterations=9, concurrency=2, max_cost_usd="0.004", prices=[PRETEND_PRICES], out=tmp_path / "run"
        )
    arm = report.arms["pretend-grand"]
    assert report.status == "stopped"
    assert "0.004" in (report.stopped or "")
    assert 0 < arm.request_count < 180
    assert arm.cost_usd is not None
    assert arm.cost_usd <= Decimal("0.004")


def test_a_missing_key_names_itself_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm without a key is reported with the variable to set; an unknown provider with those that there are."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    specs = {"a": "openai/gpt-4o", "b": "anthropic/claude-sonnet-4-5", "c": "gemini/gemini-2.5-flash", "d": "nosuch/x"}
    report = benchmark({**specs, "mine": right}, iterations=1, items=2)
    assert "OPENAI_API_KEY" in report.failed_arms["a"]
    assert "ANTHROPIC_API_KEY" in report.failed_arms["b"]
    assert "GEMINI_API_KEY" in report.failed_arms["c"]
    assert "allowed are anthropic, gemini, openai" in report.failed_arms["d"]
    assert report.arms["mine"].request_count == 2
    with pytest.raises(ConfigurationError, match="no arm can be asked: a: set OPENAI_API_KEY"):
        benchmark({"a": "openai/gpt-4o"})


def test_a_run_is_resumed(tmp_path: Path) -> None:
    """A run that Ctrl-C ends keeps what was complete; resumed, it makes the other calls only, each once."""
    asked: Counter[str] = Counter()

    def ask(prompt: str) -> str:
        asked[prompt] += 1
        return right(prompt)

    class Interrupts(Reporter):
        def finished(self, outcome: Outcome) -> None:
            if sum(asked.values()) > 30:
                raise KeyboardInterrupt

    plan = made_plan(run_id="r", arms=("a",), iterations=3, warm_up=0, concurrency=1)
    url = f"sqlite:///{tmp_path / 'bench.db'}"
    Store(url, create=True).close()

    def run(*reporters: Reporter) -> Any:
        session = Session(plan, functions={"a": ask}, out=tmp_path / "run", store=url)
        try:
            return session.run(reporters)
        finally:
            session.close()

    with pytest.raises(KeyboardInterrupt):
        run(Interrupts())
    first = sum(asked.values())
    assert first == 31
    with (tmp_path / "run" / "calls.jsonl").open("a") as file:
        file.write('{"call_id": "r-0000')  # as a crash would leave it
    result = run()
    assert sum(asked.values()) == 60
    assert len({call.call_id for call in result.calls}) == len(result.calls) == 60
    assert len(Folder(tmp_path / "run").read_calls()) == 60
    assert result.report.status == "finished"
    with sqlite3.connect(tmp_path / "bench.db") as database:
        assert database.execute("SELECT count(*), count(DISTINCT call_id) FROM benchmark_calls").fetchone() == (60, 60)
        assert database.execute("SELECT status FROM benchmark_runs").fetchall() == [("finished",)]
    database.close()


def test_an_open_loop_keeps_its_rate_while_calls_are_slow() -> None:
    """Calls begin at the rate although each takes longer than the time between two; the runner's lag is published."""

    async def slow(prompt: str) -> str:
        await asyncio.sleep(0.3)
        return right(prompt)

    began = time.perf_counter()
    report = benchmark({"a": slow}, iterations=1, warm_up=0, rate_per_s=50, arrivals="constant", concurrency=1)
    assert time.perf_counter() - began < 20 * 0.3
    arm = report.arms["a"]
    assert arm.request_count == 20
    assert arm.generator_lag is not None
    assert report.load == "open loop, 50 per second (constant arrivals)"


def in_a_notebook(cell: Callable[[], Any]) -> Any:
    """What a cell gives, run as a notebook's kernel does: within an event loop that leaves Ctrl-C alone."""

    async def run() -> Any:
        return cell()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def test_a_notebook_runs_a_benchmark() -> None:
    """Where an event loop runs already, the run is made in a thread."""
    report = in_a_notebook(lambda: benchmark({"right": right, "pieces": pieces}, iterations=1, items=4))
    assert {name: arm.request_count for name, arm in report.arms.items()} == {"right": 4, "pieces": 4}


def test_ctrl_c_in_a_notebook_ends_the_run(tmp_path: Path) -> None:
    """The calls that wait are cancelled, and the folder keeps what a resumed run needs."""

    async def ask(prompt: str) -> str:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.sleep(120)
        return prompt

    with pytest.raises(KeyboardInterrupt):
        in_a_notebook(lambda: benchmark({"a": ask}, iterations=1, warm_up=0, concurrency=1, out=tmp_path))
    assert (tmp_path / "plan.json").exists()


def test_ctrl_c_while_a_notebook_begins_a_run_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that arrives before the run is waited for cancels it as well: it would go on to make paid calls."""
    begun, submit, ends = threading.Event(), ThreadPoolExecutor.submit, list[str]()

    async def ask(prompt: str) -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return prompt

    def interrupted(pool: ThreadPoolExecutor, *work: Any, **options: Any) -> Any:
        future = submit(pool, *work, **options)
        if threading.current_thread() is not threading.main_thread():
            return future
        assert begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_a_notebook(lambda: benchmark({"a": ask}, iterations=1, warm_up=0, concurrency=1, out=tmp_path))
    assert ends == ["cancelled"]


# --- reports ---------------------------------------------------------------------------------------------------------


def test_documents_hold_the_same_figures(tmp_path: Path) -> None:
    """Markdown and HTML name every arm, figure and circumstance, escape names, and load nothing from anywhere."""
    plan = made_plan(run_id="r", arms=("<b>|x", "wrong"), iterations=1)
    session = Session(plan, functions={"<b>|x": right, "wrong": sixteen})
    try:
        result = session.run()
    finally:
        session.close()
    text, page = as_markdown(result.report), as_page(result.report, result.calls)
    for document in (text, page):
        for told in ("100.0 %", "interleaved", "seed 0", "closed loop, 4 at a time", "prompt cache", "retries"):
            assert told in document
    assert "<b>\\|x" in text
    assert "&lt;b&gt;|x" in page
    assert "<b>|x" not in page
    assert page.count("<svg") == 3 * 2 + 1
    for loads in ("<script", "http", "src=", "@import"):
        assert loads not in page


def test_names_are_those_of_aiperf() -> None:
    """The JSON has aiperf's names, units and statistics where both mean the same."""
    report = json.loads(benchmark({"a": pieces}, iterations=1, items=5).model_dump_json())
    arm = report["arms"]["a"]
    assert {
        "unit",
        "avg",
        "min",
        "max",
        "std",
        "count",
        "p1",
        "p5",
        "p10",
        "p25",
        "p50",
        "p75",
        "p90",
        "p95",
        "p99",
    } == (arm["request_latency"].keys())
    assert arm["request_latency"]["unit"] == "ms"
    assert arm["request_throughput"]["unit"] == "requests/sec"
    assert {"time_to_first_token", "inter_token_latency", "output_token_throughput_per_user", "goodput"} <= arm.keys()
    assert {"request_count", "error_request_count", "input_sequence_length", "reasoning_token_count"} <= arm.keys()


# --- the truth is recovered ------------------------------------------------------------------------------------------


TRUTH = Truth("pretend-swift", "openai", median_s=1.0, sigma=1.0, correct=0.80 / 0.95, errors=0.05)


RUNS_AT_ONCE = 4
MOST_DELAY_MS = 200
SEEDS = range(2_000, 2_200)
"""Of nominal 95 % intervals, 190 of 200 or more contain the truth for about three in five choices of seeds. The draws
of these do, so that a miss too many is the runner's."""


class Hits(NamedTuple):
    """Which of the figures of one run contain what was built in."""

    success: bool
    correct: bool
    latency: bool


def recovered(seed: int, truth: Truth = TRUTH, rate_per_s: float = 10) -> Hits:
    """One run of 60 calls, whose failures, mistakes and latencies follow from the seed.

    They come one after the other, because a burst would wait for the processor, and that is latency too.
    """
    with pretend_providers([truth], seed) as server:
        report = benchmark(server.specs(), iterations=3, warm_up=0, rate_per_s=rate_per_s, retries=0, seed=seed)
    (arm,) = report.arms.values()
    median = arm.request_latency_p50_interval
    assert arm.success is not None
    assert arm.correct is not None
    assert median is not None
    assert arm.time_to_first_token is not None
    assert arm.request_latency is not None
    delay = arm.request_latency.p50 - drawn_median_ms(seed, truth)  # what this machine added
    successful, right_share = 1 - truth.errors, truth.correct * (1 - truth.errors)
    return Hits(
        arm.success.low <= successful <= arm.success.high,
        arm.correct.low <= right_share <= arm.correct.high,
        median.low <= 1_000 * truth.median_s + delay <= median.high and -1 < delay < MOST_DELAY_MS,
    )


def drawn_median_ms(seed: int, truth: Truth) -> float:
    """The median of the latencies that a provider of this seed draws for its 60 answers."""
    chance, drawn = Random(seed), []
    for _ in range(60):
        took = truth.median_s * chance.lognormvariate(0.0, truth.sigma)
        if chance.random() >= truth.errors:
            drawn.append(1_000 * took)
        chance.random()  # whether the answer is right
    return statistics.median(drawn)


def test_a_run_recovers_success_and_correctness() -> None:
    """Success and correctness of a provider on loopback lie within the run's intervals."""
    hits = recovered(1, TRUTH._replace(median_s=0.002), rate_per_s=200)
    assert (hits.success, hits.correct) == (True, True)


def test_a_run_recovers_the_latency() -> None:
    """The median latency of an arm lies within its interval: it is neither less than built in nor more than it took."""
    chance, took = Random(7), []

    async def ask(prompt: str) -> str:
        began = time.perf_counter()
        await asyncio.sleep(0.1 * chance.lognormvariate(0, 1))
        took.append(1_000 * (time.perf_counter() - began))
        return right(prompt)

    arm = benchmark({"a": ask}, iterations=3, warm_up=0, concurrency=12).arms["a"]
    between = arm.request_latency_p50_interval
    assert between is not None
    assert between.low <= statistics.median(took)
    assert between.high >= 100


@pytest.mark.full
@pytest.mark.timeout(3_600)
def test_200_runs_recover_what_was_built_in() -> None:
    """Each of success, correctness and median latency lies within its interval in at least 95 % of 200 seeded runs."""
    with ProcessPoolExecutor(RUNS_AT_ONCE, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [*pool.map(recovered, SEEDS)]
    found = {name: sum(getattr(hits, name) for hits in runs) for name in Hits._fields}
    assert {name: hits for name, hits in found.items() if hits < 190} == {}


def test_the_recorder_of_the_application_is_left_alone() -> None:
    """A benchmark records with a recorder of its own: the default one keeps its configuration."""
    with fresh_recorder(service="mine") as recorder:
        benchmark({"a": right}, iterations=1, items=2)
        assert get_recorder() is recorder
        assert recorder.settings.service == "mine"
