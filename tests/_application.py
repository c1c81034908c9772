"""A service of agents, observed in full: a program that a test starts and steers by lines on its standard input.

`support` is made of decorators, `research` of a LangChain agent and `digest` of a LangGraph graph. Models, tools and
providers are pretend ones; whatever observes them is the library as shipped. The service counts for itself how its
runs end, so that what was scraped can be held to it. It configures the process that it runs in, so no test imports it:
`_steered.py` is the test's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import IO, Any, TypedDict

from _steered import DIGEST, RESEARCH, SUPPORT
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs import (
    configure,
    flush,
    golden_signals,
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    record_audit_event,
    record_cache_size,
    record_feedback,
    request_context,
    track_llm,
)
from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs.budgets import Budget
from taskpilot_obs.compare import Experiment
from taskpilot_obs.exceptions import BudgetExceededError, RefusedError
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs.records import AuditEvent, Record
from taskpilot_obs.safety.guardrails import check_with
from taskpilot_obs.safety.policies import DenyWords, MaxTokens, RequireApproval
from taskpilot_obs.safety.subjects import CheckInput
from taskpilot_obs.semconv import EXPERIMENT_STOPPED

SAMPLED = 0.5
"""Share of traces whose spans are kept."""
CACHES = 60
"""More than a label admits, so that some fold into `__other__`."""
ANSWERS_A_ROUND = 40
_THREADS = 4


# --- what the service is made of -------------------------------------------------------------------------------------


class ProviderDownError(Exception):
    """What a provider's client raises."""

    status_code = 503


class UnreliableLedger:
    """An exporter of the application, which fails whenever a certain event is among the records."""

    def export(self, batch: Sequence[Record], /) -> None:
        """Fail, or do nothing."""
        if any(isinstance(record, AuditEvent) and record.event == "ledger.breaks" for record in batch):
            raise OSError("the ledger is read-only")


class HesitantLedger:
    """An exporter that writes everything, and complains whenever a certain event is among the records."""

    def export(self, batch: Sequence[Record], /) -> None:
        """Complain, or do nothing."""
        if any(isinstance(record, AuditEvent) and record.event == "ledger.hesitates" for record in batch):
            raise PartialExportError(len(batch)) from OSError("written, but not confirmed")


class Unreadable:
    """An answer of a provider that nothing can be read of."""

    @property
    def usage(self) -> object:
        """Raises, as what is generated lazily may."""
        raise ValueError("not yet decoded")


class PretendModel(BaseChatModel):
    """A chat model that calls its tool once, then answers."""

    model: str = "gpt-4o-mini"
    provider: str = "openai"

    @property
    def _llm_type(self) -> str:
        return "pretend"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": self.provider, "ls_model_name": self.model, "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        time.sleep(0.004)
        question = str(messages[0].content)
        calls = [ToolCall(name="look_up", args={"query": question}, id="1")] if messages[-1].type == "human" else []
        usage = UsageMetadata(
            input_tokens=900,
            output_tokens=120,
            total_tokens=1020,
            input_token_details={"cache_read": 300},
            output_token_details={"reasoning": 40},
        )
        answer = AIMessage(
            "" if calls else "found",
            tool_calls=calls,
            usage_metadata=usage,
            response_metadata={"model_name": self.model, "model_provider": self.provider},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])


@tool
def look_up(query: str) -> str:
    """Look something up; "unknown" things make the tool fail."""
    if "unknown" in query:
        raise LookupError("no such thing")
    return "a fact"


def no_insults(subject: CheckInput) -> bool:
    """A guardrail of the answer."""
    return "fool" not in subject.text


def judge(subject: CheckInput) -> bool:
    """A guardrail that asks a service, which may be down."""
    if "judge down" in subject.text:
        raise ConnectionError("the judge does not answer")
    return "borderline" not in subject.text


WORDING = Experiment("wording", {"plain": 0.5, "warm": 0.5})
SPANS = InMemorySpanExporter()
PROVIDER = TracerProvider(sampler=ParentBased(TraceIdRatioBased(SAMPLED)))
PROVIDER.add_span_processor(SimpleSpanProcessor(SPANS))
configure(
    service="assistant",
    service_version="2.4.0",
    tracer_provider=PROVIDER,
    exporters=[UnreliableLedger(), HesitantLedger()],
    budgets=[
        Budget("team", limit_usd=1_000, period="month"),
        Budget("trial", limit_usd="0.000001", period="total", action="enforce", scope={"user": "trial"}),
    ],
)


@observe_llm(model="gpt-4o", provider="openai")
def complete(fate: str) -> dict[str, Any]:
    """One call of a provider, in the shape of OpenAI's answer."""
    if fate == "provider down":
        raise ProviderDownError("overloaded")
    if fate == "provider slow":
        raise TimeoutError("no answer in time")
    usage: dict[str, Any] = {"prompt_tokens": 800, "completion_tokens": 90, "total_tokens": 890}
    if fate == "inconsistent usage":
        usage["prompt_tokens_details"] = {"cached_tokens": 5_000}
    if fate == "more expensive than listed":
        usage["cost"] = 0.5
    answer = {"object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], "usage": usage}
    if fate == "no usage":
        del answer["usage"]
    return answer


@observe_llm(model="claude-sonnet-4-5", provider="anthropic")
def stream(fate: str) -> Iterator[dict[str, Any]]:
    """A streamed answer in the shape of Anthropic's events; searches of the web are billed besides the tokens."""
    usage: dict[str, Any] = {"input_tokens": 700, "output_tokens": 1}
    if fate == "web search":
        usage["server_tool_use"] = {"web_search_requests": 1}
    yield {"type": "message_start", "message": {"type": "message", "model": "claude-sonnet-4-5", "usage": usage}}
    time.sleep(0.01)
    yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 60}}
    yield {"type": "message_stop"}


def call_by_hand(fate: str) -> None:
    """Calls that the application describes itself."""
    model, provider = ("house-7b", "self_hosted") if fate == "unpriced" else ("gpt-4o-mini", "openai")
    with track_llm(model=model, provider=provider) as call:
        if fate == "retried":
            call.retry()
        call.set_cached(fate == "cached")
        if fate != "cached":
            call.record_usage(input_tokens=500, output_tokens=50)


@observe_tool("update_board", policies=[check_with(RequireApproval(["update_board"]), mode="monitor")])
def update_board(fate: str) -> str:
    """A tool, which may fail."""
    if fate == "tool fails":
        raise ConnectionError("the board is away")
    return "updated"


@observe_agent(
    "support.triage",
    policies=[
        check_with(DenyWords(["forbidden"], name="no_forbidden_words", severity="critical"), mode="enforce"),
        DenyWords(["frowned"], name="no_frowned_words", severity="low"),
        MaxTokens(2_000),
    ],
    guardrails=[
        check_with(judge, name="judge", on_error="open"),
        check_with(judge, name="strict_judge", mode="enforce", on_error="closed", stages="output"),
    ],
)
def triage(fate: str) -> str:
    """Decide what to do: one or two calls of a provider and a tool."""
    match fate:
        case "streamed" | "web search":
            list(stream(fate))
        case "unpriced" | "retried" | "cached":
            call_by_hand(fate)
        case "tokens":
            for _ in range(4):
                complete(fate)
        case _:
            complete(fate)
    update_board(fate)
    return "judge down" if fate == "strict judge fails" else "to be answered"


@observe_agent("support.answerer", guardrails=[check_with(no_insults, stages="output")], mode="enforce")
def answer(fate: str) -> str:
    """Answer; an insult is held back after the call was paid for."""
    complete("")
    return "you fool" if fate == "insult" else "it is done"


@observe_workflow(SUPPORT)
def support(fate: str) -> str:
    """A task of a user."""
    triage(fate)
    return answer(fate)


@observe_workflow(RESEARCH)
def research(fate: str) -> str:
    """A task that a LangChain agent does."""
    question = "unknown" if fate == "tool fails" else "known"
    config = RunnableConfig(callbacks=[ObservabilityHandler()])
    RESEARCHER.invoke({"messages": [("user", question)]}, config=config)
    return "researched"


RESEARCHER: Any = create_agent(model=PretendModel(), tools=[look_up], name="research.planner")


def digest(fate: str) -> str:
    """A task that a LangGraph graph does, without a decorator anywhere."""
    GRAPH.invoke({"text": fate}, config=RunnableConfig(callbacks=[ObservabilityHandler(name=DIGEST)]))
    return "digested"


class Digest(TypedDict):
    """What the graph's nodes pass on."""

    text: str


def _graph() -> Any:
    model = PretendModel(model="claude-sonnet-4-5", provider="anthropic")

    def collect(state: Digest) -> Digest:
        model.invoke("collect")
        return state

    def shorten(state: Digest) -> Digest:
        model.invoke("shorten")
        return state

    graph = StateGraph(Digest)
    graph.add_node("digest.collector", collect)
    graph.add_node("digest.shortener", shorten)
    graph.add_edge(START, "digest.collector")
    graph.add_edge("digest.collector", "digest.shortener")
    graph.add_edge("digest.shortener", END)
    return graph.compile(name=DIGEST)


GRAPH = _graph()


@observe_workflow("nightly")
async def nightly() -> None:
    """A task that is cancelled."""
    await asyncio.sleep(60)


# --- load ------------------------------------------------------------------------------------------------------------

OUTCOMES: tuple[tuple[Callable[[str], str], str, str], ...] = (
    (support, "", "success"),
    (support, "streamed", "success"),
    (support, "unpriced", "success"),
    (support, "retried", "success"),
    (support, "cached", "success"),
    (support, "tokens", "success"),
    (support, "no usage", "success"),
    (support, "inconsistent usage", "success"),
    (support, "more expensive than listed", "success"),
    (support, "web search", "success"),
    (support, "frowned", "success"),
    (support, "borderline", "success"),
    (support, "judge down", "success"),
    (support, "provider down", "error"),
    (support, "tool fails", "error"),
    (support, "provider slow", "timeout"),
    (support, "forbidden", "blocked"),
    (support, "insult", "blocked"),
    (support, "strict judge fails", "blocked"),
    (research, "", "success"),
    (research, "tool fails", "error"),
    (digest, "", "success"),
)
"""What is done, with which fate, and how it ends."""
EXPECTED_FAILURES = (ProviderDownError, TimeoutError, ConnectionError, LookupError, RefusedError)
_NAMES: dict[Callable[[str], str], str] = {support: SUPPORT, research: RESEARCH, digest: DIGEST}
ended: Counter[tuple[str, str]] = Counter()
verdicts: Counter[bool] = Counter()
_counting = Lock()
EVERY_TENTH = {0: "streamed", 3: "cached", 7: "retried"}
"""What happens often enough for the rules to believe it."""


def run(function: Callable[[str], str], fate: str, status: str) -> None:
    """One task, whose fate decides its status."""
    with contextlib.suppress(*EXPECTED_FAILURES):
        function(fate)
    with _counting:
        ended[_NAMES[function], status] += 1


def leisurely(number: int) -> None:
    """A request that takes its time, and a verdict about it; every twentieth is wrong."""
    with request_context(request_id=f"request-{number}"), WORDING.assign(f"user-{number % 7}"):
        run(timed, EVERY_TENTH.get(number % 10, ""), "success")
        correct = number % 20 != 0
        record_feedback(correct=correct)
    with _counting:
        verdicts[correct] += 1


@observe_workflow(SUPPORT)
def timed(fate: str) -> str:
    """The task with a waiting step."""
    time.sleep(random.Random(time.monotonic_ns()).lognormvariate(-4, 0.8))
    triage(fate)
    return answer(fate)


_NAMES[timed] = SUPPORT


def healthy(rounds: int, pause_s: float) -> None:
    """Rounds of ordinary requests; every third one also has everything that happens but rarely."""
    with ThreadPoolExecutor(_THREADS) as threads:
        for number in range(rounds):
            if number % 3 == 0:
                for function, fate, status in OUTCOMES:
                    run(function, fate, status)
                rare_events(number)
            list(threads.map(leisurely, range(number * ANSWERS_A_ROUND, (number + 1) * ANSWERS_A_ROUND)))
            time.sleep(pause_s)


def rare_events(number: int) -> None:
    """Records other than a task's run: a change of mind, sizes of caches, a broken ledger, a task that is cancelled."""
    with request_context(request_id=f"revised-{number}"):
        for correct in (False, True, False, True):
            record_feedback(correct=correct)
    verdicts[True] += 1
    for cache in range(CACHES):
        record_cache_size(f"cache-{cache}", number)
    record_audit_event("ledger.breaks")
    record_audit_event("ledger.hesitates")
    # What a guard of an experiment says when a guardrail is broken.
    record_audit_event(EXPERIMENT_STOPPED, experiment=WORDING.name, variant="warm", measure="cost")
    with track_llm(model="gpt-4o-mini", provider="openai") as call:
        call.record_response(Unreadable())
    with (
        request_context(user_id="trial"),
        contextlib.suppress(BudgetExceededError),
        track_llm(model="gpt-4o", provider="openai", input_tokens=1_000, max_output_tokens=1_000),
    ):
        raise AssertionError("a call that no budget has room for was let through")
    asyncio.run(cancel_nightly())


async def cancel_nightly() -> None:
    """Begin the nightly task, and cancel it."""
    task = asyncio.create_task(nightly())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    ended["nightly", "cancelled"] += 1


def spans() -> dict[str, str]:
    """Name of every span that was exported, by trace and span ID."""
    found = {}
    for span in SPANS.get_finished_spans():
        assert span.context is not None
        found[f"{span.context.trace_id:032x}:{span.context.span_id:016x}"] = span.name
    return found


def carry_out(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One command of the test's."""
    match command:
        case "healthy":
            healthy(**arguments)
        case "outage":
            for _ in range(arguments["runs"]):
                run(support, "provider down", "error")
        case "recover":
            for _ in range(arguments["runs"]):
                run(support, "", "success")
        case "spans":
            return spans()
        case "signals":
            return golden_signals(arguments["window"]).model_dump(mode="json")
    flush()
    return {"ended": [[*key, count] for key, count in ended.items()], "verdicts": [verdicts[True], verdicts[False]]}


def main() -> None:
    """Serve the metrics, and carry out commands until the input ends."""
    answers: IO[str] = sys.stdout
    sys.stdout = sys.stderr  # whatever else is printed must not stand between the answers
    with start_metrics_server(0) as server:
        print(json.dumps({"metrics": f"127.0.0.1:{server.port}"}), file=answers, flush=True)
        for line in sys.stdin:
            arguments = json.loads(line)
            print(json.dumps(carry_out(arguments.pop("command"), arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
