"""Spans of the three dialects become runs: names that come late, nesting both ways, ends of every kind, sampling."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from taskpilot_obs_opentelemetry import GenAiBridge, RecordAll
from taskpilot_obs_opentelemetry.tree import MOST_LIVE

from taskpilot_obs import observe_agent, observe_llm, observe_tool, track_llm
from taskpilot_obs.exceptions import GuardrailBlockedError
from taskpilot_obs.integration import Operation, Status, attached, check_input, get_recorder
from taskpilot_obs.records import Invocation, Pricing
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

OP = "gen_ai.operation.name"
AGENT = {OP: "invoke_agent", "gen_ai.agent.name": "Planner"}
USAGE: dict[str, Any] = {
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.usage.cache_read.input_tokens": 40,
    "gen_ai.usage.reasoning.output_tokens": 8,
}
CHAT: dict[str, Any] = {OP: "chat", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.provider.name": "openai", **USAGE}


class Bridged:
    """A tracer provider with a bridge."""

    def __init__(self, **options: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.bridge = GenAiBridge()
        self.provider.add_span_processor(self.bridge)
        self.tracer = self.provider.get_tracer("a.framework")

    def span(self, name: str, attributes: dict[str, Any] | None = None, scope: str = "a.framework") -> Any:
        return self.provider.get_tracer(scope).start_as_current_span(name, attributes=attributes)


@pytest.fixture
def bridged() -> Iterator[Bridged]:
    made = Bridged()
    yield made
    left = made.bridge.live, made.bridge.native.held
    made.provider.shutdown()
    assert left == (0, 0)


def table(seen: Captured[Invocation]) -> list[tuple[str, str, str | None]]:
    """Operation, name and the name of the parent, in the order of the starts."""
    runs = sorted(seen, key=lambda run: run.start_unix_ns)
    names = {run.invocation_id: run.name for run in runs}
    return [(run.operation.value, run.name, names.get(run.parent_id or "")) for run in runs]


def test_names_that_come_late(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Frameworks set attributes after the start, and usage on agents is a sum that is not read."""
    with bridged.span("invoke_agent Planner") as agent:
        agent.set_attributes({**AGENT, **USAGE, "gen_ai.conversation.id": "c-1"})
        with bridged.span("chat gpt-4o-mini") as call:
            call.set_attributes({**CHAT, "gen_ai.response.model": "gpt-4o-mini-2024-07-18"})
        with bridged.span("GET /things"), bridged.span("execute_tool search") as tool:
            tool.set_attributes({OP: "execute_tool", "gen_ai.tool.name": "search"})
    assert table(seen) == [
        ("invoke_agent", "Planner", None),
        ("chat", "gpt-4o-mini", "Planner"),
        ("execute_tool", "search", "Planner"),
    ]
    call, planner = next(run for run in seen if run.usage), next(run for run in seen if run.name == "Planner")
    assert call.usage is not None
    assert call.usage[:2] == (100, 20)
    assert (call.usage.cache_read_tokens, call.usage.reasoning_tokens) == (40, 8)
    assert (call.provider, call.response_model, call.agent) == ("openai", "gpt-4o-mini-2024-07-18", "Planner")
    assert call.cost is not None
    assert (call.ttft_s, call.streaming, call.retries) == (None, False, 0)
    assert planner.rollup is not None
    assert (planner.rollup.llm_calls, planner.rollup.tool_calls, planner.rollup.input_tokens) == (1, 1, 100)
    assert planner.usage is None
    assert planner.attributes["conversation"] == "c-1"


def test_runs_have_the_times_and_identifiers_of_their_spans(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Start, duration, trace and span ID are those that the framework's own spans have."""
    span = bridged.tracer.start_span("chat x", attributes=CHAT, start_time=1_000_000_000)
    span.end(end_time=3_500_000_000)
    (run,) = seen
    identity = span.get_span_context()
    assert (run.start_unix_ns, run.duration_s) == (1_000_000_000, 2.5)
    assert (run.trace_id, run.span_id) == (f"{identity.trace_id:032x}", f"{identity.span_id:016x}")


DIALECTS = {
    "openinference": (
        {"openinference.span.kind": "AGENT", "agent.name": "Planner"},
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4o-mini",
            "llm.provider": "openai",
            "llm.token_count.prompt": 100,
            "llm.token_count.completion": 20,
            "llm.token_count.prompt_details.cache_read": 40,
            "llm.token_count.completion_details.reasoning": 8,
            "llm.token_count.prompt_details.audio": 30,
            "llm.token_count.completion_details.audio": 10,
        },
        {"openinference.span.kind": "TOOL", "tool.name": "search"},
    ),
    "traceloop": (
        {"traceloop.span.kind": "agent", "traceloop.entity.name": "Planner"},
        {
            "llm.request.type": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 20,
            "gen_ai.usage.cache_read_input_tokens": 40,
            "gen_ai.usage.reasoning_tokens": 8,
        },
        {"traceloop.span.kind": "tool", "traceloop.entity.name": "search"},
    ),
    "gen_ai 1.27": (
        AGENT,
        {
            OP: "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.reasoning.output_tokens": 8,
        },
        {OP: "execute_tool", "gen_ai.tool.name": "search"},
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(bridged: Bridged, seen: Captured[Invocation], dialect: str) -> None:
    """OpenInference, Traceloop and older names of OpenTelemetry come out as today's names do."""
    agent, call, tool = DIALECTS[dialect]
    with bridged.span("a", agent):
        with bridged.span("b", call):
            pass
        with bridged.span("c", tool):
            pass
    chat = next(run for run in seen if run.operation is Operation.CHAT)
    assert {(run.operation.value, run.name) for run in seen} == {
        ("invoke_agent", "Planner"),
        ("chat", "gpt-4o-mini"),
        ("execute_tool", "search"),
    }
    assert chat.usage is not None
    assert (*chat.usage[:2], chat.usage.cache_read_tokens, chat.usage.reasoning_tokens) == (100, 20, 40, 8)
    heard = chat.usage.input_audio_tokens, chat.usage.output_audio_tokens
    assert heard == ((30, 10) if dialect == "openinference" else (None, None))
    assert chat.provider == "openai"


def test_sound_that_a_span_does_not_state(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Audio costs more than text: a call of an audio model whose span states no such tokens has a partial cost."""
    for model in ("gpt-audio", "gpt-4o-mini"):
        with bridged.span("chat", {**CHAT, "gen_ai.request.model": model}):
            pass
    assert [run.pricing for run in seen] == [Pricing.PARTIAL, Pricing.PRICED]


def test_quirks_of_scopes(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Strands states itself as provider and milliseconds to the first token; a run of openai-agents is a workflow."""
    late = {"gen_ai.system": "strands-agents", "gen_ai.server.time_to_first_token": 250}
    call = {**CHAT, **late}
    del call["gen_ai.provider.name"]
    bridged.provider.get_tracer("strands.telemetry").start_span("chat", attributes=call).end()
    scope = "openinference.instrumentation.openai_agents"
    with bridged.span("Agent workflow", {"openinference.span.kind": "AGENT"}, scope):
        pass
    chat, whole = sorted(seen, key=lambda run: run.operation)
    assert (chat.provider, chat.ttft_s, chat.streaming) == ("openai", 0.25, True)
    assert whole.operation is Operation.WORKFLOW


@pytest.mark.parametrize("stated", [math.inf, math.nan, -1.0, 1e18, "1"])
def test_a_first_token_that_cannot_be(bridged: Bridged, seen: Captured[Invocation], stated: Any) -> None:
    """An invalid time to the first token, or one beyond a day, is unknown; the rest of the record stays."""
    with bridged.span("chat", {**CHAT, "gen_ai.response.time_to_first_chunk": stated}):
        pass
    assert [(run.status.value, run.usage and run.usage[:2], run.ttft_s) for run in seen] == [
        ("success", (100, 20), None)
    ]


# --- beside decorators -----------------------------------------------------------------------------------------------


def test_nested_with_decorators_both_ways(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Decorated above spans above decorated above spans."""

    @observe_tool
    def lookup() -> None:
        with bridged.span("chat", CHAT):
            pass

    @observe_agent(name="Outer")
    def outer() -> None:
        with bridged.span("invoke_agent Planner", AGENT), bridged.span("plumbing"):
            lookup()

    outer()
    assert table(seen) == [
        ("invoke_agent", "Outer", None),
        ("invoke_agent", "Planner", "Outer"),
        ("execute_tool", "lookup", "Planner"),
        ("chat", "gpt-4o-mini", "lookup"),
    ]


def test_the_same_agent_is_recorded_once(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """An agent that is decorated and has a span of its framework is one run."""

    @observe_agent(name="Planner")
    def plan() -> None:
        with bridged.span("invoke_agent Planner", AGENT), bridged.span("chat", CHAT):
            pass

    plan()
    assert table(seen) == [("invoke_agent", "Planner", None), ("chat", "gpt-4o-mini", "Planner")]
    assert bridged.bridge.folded == 1


def test_a_span_beneath_a_decorated_call_is_that_call(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """A `track_llm` block that states no usage has that of the span of the client that it uses."""
    with track_llm(model="gpt-4o-mini"), bridged.span("chat", CHAT):
        pass
    (run,) = seen
    assert run.usage is not None
    assert run.usage.input_tokens == 100


@pytest.mark.parametrize("verdict", [None, False], ids=["passes", "refuses"])
@pytest.mark.parametrize("has_id", [False, True], ids=["without ID", "with ID"])
def test_the_span_of_a_judge_is_a_call_of_its_own(
    bridged: Bridged, seen: Captured[Invocation], has_id: bool, verdict: Any
) -> None:
    """What a guardrail asks a model, through a framework and an SDK, is neither the judged call nor its usage."""

    def judge(_: object) -> Any:
        said = {**CHAT, "gen_ai.response.id": "judge"} if has_id else CHAT
        with bridged.span("chat", {OP: "chat"}, "a.wrapper"), bridged.span("chat", said):
            return verdict

    @observe_llm(model="gpt-4o-mini", provider="openai", guardrails=[judge], mode="enforce")
    def ask() -> Any:
        with bridged.span("chat", {OP: "chat", "gen_ai.request.model": "gpt-4o-mini"}):
            return {"usage": {"prompt_tokens": 7, "completion_tokens": 1}}

    with suppress(GuardrailBlockedError):
        ask()
    own = {run.parent_id is None: run.usage and run.usage[:2] for run in seen}
    assert own == {True: None if verdict is False else (7, 1), False: (100, 20)}
    assert len(seen) == 2


def test_a_check_that_is_asked_within_the_span_of_a_call() -> None:
    """A framework's span of a call is open while its adapter asks about the agent: the check's call is another one."""
    made: list[Bridged] = []

    def judge(_: object) -> None:
        with made[0].span("chat", CHAT):
            pass

    with fresh_recorder(guardrails=[judge]) as fresh, capture_invocations(fresh) as seen:
        made.append(Bridged())
        run = fresh.start("invoke_agent", "Planner")
        with attached(run), made[0].span("chat", {**CHAT, "gen_ai.usage.input_tokens": 7}):
            check_input(run, "hello")
        run.stop()
        made[0].provider.shutdown()
    assert sorted((one.agent, one.usage and one.usage[0]) for one in seen if one.operation == "chat") == [
        ("Planner", 7),
        ("Planner", 100),
    ]


def test_layers_of_spans_are_one_call(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """A framework's span above an SDK's above an instrumentor's: the outermost stays, with usage from beneath, once."""
    bare = {key: value for key, value in CHAT.items() if key not in USAGE}
    with bridged.span("chat", bare), bridged.span("chat", CHAT), bridged.span("chat", CHAT):
        pass
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (100, 20)
    assert bridged.bridge.folded == 2


# --- how they end ----------------------------------------------------------------------------------------------------


def test_an_inner_layer_that_ends_last(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Where a stream is left, its inner span may end after the outer one: they are one call. A later one is not."""
    outer = bridged.tracer.start_span("chat gpt-4o-mini", attributes=CHAT)
    beneath = trace.set_span_in_context(outer)
    inner = bridged.tracer.start_span("chat gpt-4o-mini", beneath, attributes=CHAT)
    outer.end()
    inner.end()
    assert (len(seen), bridged.bridge.folded) == (1, 1)
    bridged.tracer.start_span("chat gpt-4o-mini", beneath, attributes=CHAT).end()
    assert len(seen) == 2


def test_a_framework_that_cancels_a_failed_stream(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """The request beneath states why: its last attempt decides, and a stream that is left names no error."""
    for ends in (["ValueError"], ["ValueError", "CancelledError"], ["_OTHER"]):
        with bridged.span("chat gpt-4o-mini", attributes=CHAT) as outer:
            for error_type in ends:
                with bridged.span("chat gpt-4o-mini", attributes=CHAT) as inner:
                    inner.set_attribute("error.type", error_type)
                    inner.set_status(trace.StatusCode.ERROR)
            outer.set_attribute("error.type", "CancelledError")
    assert [run.status.value for run in seen] == ["error", "cancelled", "cancelled"]


def test_cancelled_and_abandoned(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Frameworks leave the status of a cancelled task unset; the exception in flight tells."""

    async def cancelled() -> None:
        with bridged.span("invoke_agent Planner", AGENT), bridged.span("chat", CHAT):
            await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def stream() -> Generator[int, None, None]:
        with bridged.tracer.start_as_current_span("chat", attributes=CHAT):
            yield from range(3)

    asyncio.run(run())
    left = stream()
    next(left)
    left.close()
    assert [run.status for run in seen] == [Status.CANCELLED, Status.CANCELLED, Status.ABANDONED]


def test_failed(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """The exception in flight is classified as anywhere; one that a span merely names decides by its name."""
    with pytest.raises(TimeoutError), bridged.span("chat", CHAT):
        raise TimeoutError
    bridged.tracer.start_span("chat", attributes={**CHAT, "error.type": "openai.RateLimitError"}).end()
    bridged.tracer.start_span("invoke_agent x", attributes={"error.type": "httpx.ReadTimeout"}).end()
    assert [(run.status.value, run.error_type, run.error_category) for run in seen] == [
        ("timeout", "TimeoutError", "timeout"),
        ("error", "openai.RateLimitError", "rate_limit"),
        ("timeout", "httpx.ReadTimeout", None),
    ]


def test_an_exception_that_passes_by_is_none_of_the_spans(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Work in the handler of an exception succeeds."""
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        with bridged.span("chat", CHAT):
            pass
    assert [run.status for run in seen] == [Status.SUCCESS]


def test_spans_that_never_end_end_with_their_root(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Strands leaves spans open when it is cancelled: they end with their local root, as what happened to it."""
    with suppress(asyncio.CancelledError), bridged.span("invoke_agent Planner", AGENT):
        tool = bridged.tracer.start_span("execute_tool search", attributes={OP: "execute_tool"})
        bridged.tracer.start_span("chat", context=trace.set_span_in_context(tool), attributes=CHAT)
        raise asyncio.CancelledError
    assert {run.status for run in seen} == {Status.CANCELLED}
    assert len(seen) == 3


def test_a_task_that_outlives_its_root(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """What goes on behind the end of a root that succeeded is recorded when it ends."""
    with bridged.span("invoke_agent Planner", AGENT):
        later = bridged.tracer.start_span("chat", attributes=CHAT)
    later.end()
    assert table(seen) == [("invoke_agent", "Planner", None), ("chat", "gpt-4o-mini", "Planner")]
    assert bridged.bridge.live == 0


def test_memory_is_bounded(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Spans that are never ended are dropped, the oldest first; a call of a model is recorded then, and once."""
    started = [bridged.tracer.start_span("chat", attributes=CHAT)]
    started += [bridged.tracer.start_span("invoke_agent x") for _ in range(MOST_LIVE + 99)]
    assert bridged.bridge.live == MOST_LIVE
    for span in started:
        span.end()
    assert [run.status for run in seen if run.operation == "chat"] == [Status.ABANDONED]


def test_tasks_that_start_tasks_build_no_chain(bridged: Bridged) -> None:
    """Each span starts the next one before it ends; what is kept does not grow."""
    above = bridged.tracer.start_span("plumbing")
    for _ in range(50):
        below = bridged.tracer.start_span("plumbing", context=trace.set_span_in_context(above))
        above.end()
        above = below
    (node,) = bridged.bridge._live.values()
    length = sum(1 for _ in itertools.takewhile(bool, _upwards(node)))
    above.end()
    assert length <= 3


def _upwards(node: Any) -> Iterator[Any]:
    while node is not None:
        yield node
        node = node.parent


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["ratio", "RecordAll(ratio)"])
def test_sampling(seen: Captured[Invocation], whole: bool) -> None:
    """Behind a sampler of 10 % most calls are lost; with `RecordAll` none is, and exporters still get the sample."""
    ratio = ParentBased(TraceIdRatioBased(0.1))
    bridged = Bridged(sampler=RecordAll(ratio) if whole else ratio)
    exporter = InMemorySpanExporter()
    bridged.provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(200):
        with bridged.span("chat", CHAT):
            pass
    exported = len(exporter.get_finished_spans())
    bridged.provider.shutdown()
    assert exported < 60
    assert len(seen) == (200 if whole else exported)


def test_record_all_passes_on_what_the_sampler_says() -> None:
    """Its description names the inner sampler, and a remote parent that was not sampled stays so."""
    sampler = RecordAll(ALWAYS_OFF)
    assert sampler.get_description() == "RecordAll(AlwaysOffSampler)"
    with Bridged(sampler=sampler).span("x", {"asked": "before the start"}) as span:
        assert span.is_recording()
        assert span.attributes["asked"] == "before the start"
        assert not span.get_span_context().trace_flags.sampled


# --- counted once ----------------------------------------------------------------------------------------------------


def native_call(bridged: Bridged, response_id: str | None, *, fails: bool, layers: int) -> None:
    """A call that a handler records without making it current, and that spans see in so many layers."""
    native = get_recorder().start_llm(model="gpt-4o-mini")
    said = {**CHAT, **({} if response_id is None else {"gen_ai.response.id": response_id})}
    try:
        _spans(bridged, said, layers, fails)
    except ConnectionError as error:
        native.fail(error)
        return
    native.record_answer(response_id=response_id)
    native.record_usage(input_tokens=100, output_tokens=20)
    native.stop()


def _spans(bridged: Bridged, said: dict[str, Any], layers: int, fails: bool) -> None:
    with bridged.span("chat", said):
        if layers > 1:
            _spans(bridged, said, layers - 1, fails)
        elif fails:
            raise ConnectionError


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("fails", [False, True], ids=["answered", "failed"])
@pytest.mark.parametrize("has_id", [False, True], ids=["without ID", "with ID"])
def test_twenty_concurrent_calls_are_twenty_records(
    bridged: Bridged, seen: Captured[Invocation], layers: int, fails: bool, has_id: bool
) -> None:
    """Calls that a handler and one or two layers of spans see at the same time are recorded once each."""
    ready = threading.Barrier(20)

    def work(number: int) -> None:
        ready.wait(10)
        native_call(bridged, f"id-{number}" if has_id else None, fails=fails, layers=layers)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 20
    assert bridged.bridge.folded == 20 * layers


def test_a_direct_call_beside_native_ones_is_kept(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """A span that no handler owns is recorded when the handler's call has ended, and not before."""
    native = get_recorder().start_llm(model="gpt-4o-mini")
    with bridged.span("chat", {**CHAT, "gen_ai.response.id": "direct"}):
        pass
    assert bridged.bridge.native.held == 1
    with bridged.span("chat", {**CHAT, "gen_ai.response.id": "mine"}):
        pass
    native.record_answer(response_id="mine")
    native.stop()
    assert len(seen) == 2
    assert bridged.bridge.folded == 1


def test_an_abandoned_native_call_settles_in_its_finalizer(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """A handler's call that is dropped without an end releases what waited for it; its own span is folded."""
    native = get_recorder().start_llm(model="gpt-4o-mini")
    with bridged.span("chat", CHAT):
        pass
    assert bridged.bridge.native.held == 1
    del native
    assert [run.status for run in seen] == [Status.ABANDONED]


def test_costs_are_those_of_the_price_table(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Cached tokens are priced as such."""
    with bridged.span("chat", CHAT):
        pass
    (run,) = seen
    assert run.cost == Decimal("0.000024")


def test_what_raises_in_the_bridge_stays_there(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """Values of the wrong types in a span's attributes are not the application's problem."""
    with bridged.span("chat", {**CHAT, "gen_ai.usage.input_tokens": "many", "gen_ai.response.finish_reasons": 3}):
        pass
    (run,) = seen
    assert run.usage_inconsistent


def test_it_is_a_span_processor(bridged: Bridged) -> None:
    """It flushes with the provider."""
    assert isinstance(bridged.bridge, SpanProcessor)
    assert bridged.provider.force_flush()


def test_a_call_that_the_collector_ends_while_a_span_ends(bridged: Bridged, seen: Captured[Invocation]) -> None:
    """A left call that Python's collector ends while a span is compared with the open calls costs no record."""
    span = bridged.tracer.start_span("chat x", attributes=CHAT)
    calls = [get_recorder().start_llm(model="gpt-4o") for _ in range(2_000)]
    get_recorder().drain()
    gc.collect()
    left: list[Any] = [get_recorder().start_llm(model="gpt-4o")]
    left.append(left)
    get_recorder().drain()  # it holds what has begun
    before = gc.get_threshold()
    gc.collect(0)
    gc.set_threshold(1_000, 0)  # reached among the two thousand
    try:
        del left
        span.end()
    finally:
        gc.set_threshold(*before)
    for call in calls:
        call.stop()
    gc.collect()
    assert Counter(run.status.value for run in seen) == {"abandoned": 1, "success": 2_001}
