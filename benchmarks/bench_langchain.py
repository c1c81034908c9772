"""What the LangChain handler costs: microseconds added on the caller's thread, beside a handler that does nothing.

    python benchmarks/bench_langchain.py

W4 invokes `prompt | model | StrOutputParser()`; W5 streams it, 100 chunks. The handler that does nothing shows what
LangChain itself takes to call any handler; "spans by hand" makes the two spans of such a run and nothing else. All are
measured in turns, in one run, for figures of different runs on a busy machine cannot be compared. What is measured is
the processor time of the calling thread. "SDK" is OpenTelemetry's, with the batch processor and an exporter that
discards; "all by hand" makes the same spans and counts, times and logs each run besides, which is what ours does.
"""

from __future__ import annotations

import gc
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram
from pythonjsonlogger.json import JsonFormatter
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs.config import build_recorder
from taskpilot_obs.semconv import RUN_BUCKETS

ROUNDS = 41
CALLS = 60
CHUNKS = 100
_USAGE = UsageMetadata(input_tokens=150, output_tokens=50, total_tokens=200)


class Model(BaseChatModel):
    """Answers at once, and states its usage."""

    @property
    def _llm_type(self) -> str:
        return "bench"

    def _get_ls_params(self, *_: Any, **__: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "ls_model_type": "chat"}

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        about = {"model_name": "gpt-4o-mini-2024-07-18", "finish_reason": "stop"}
        message = AIMessage("An answer.", usage_metadata=_USAGE, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for number in range(CHUNKS):
            usage = _USAGE if number == CHUNKS - 1 else None
            yield ChatGenerationChunk(message=AIMessageChunk(content="word ", usage_metadata=usage))


class DoesNothing(BaseCallbackHandler):
    """Hears everything and does nothing."""

    run_inline = True

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Do nothing; without it LangChain would make text of the messages."""


class SpansByHand(DoesNothing):
    """Makes a span of the run and one of the model's call, with the least that the conventions ask for."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("by hand")
        self._open: dict[UUID, trace.Span] = {}

    def on_chain_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **said: Any) -> None:
        """Begin the outermost run's."""
        if parent_run_id is None:
            name = said["name"]
            about = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": name}
            self._open[run_id] = self._tracer.start_span(f"invoke_workflow {name}", attributes=about)

    def on_chain_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """End the span of the chain."""
        span = self._open.pop(run_id, None)
        if span is not None:
            span.end()

    def on_chat_model_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **said: Any) -> None:
        """Begin the call's."""
        metadata = said["metadata"]
        model = metadata["ls_model_name"]
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": metadata["ls_provider"],
            "gen_ai.request.model": model,
        }
        above = trace.set_span_in_context(self._open[parent_run_id]) if parent_run_id is not None else None
        self._open[run_id] = self._tracer.start_span(f"chat {model}", above, trace.SpanKind.CLIENT, about)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """End it, with what the answer says."""
        generation: Any = response.generations[0][0]
        message = generation.message
        span = self._open.pop(run_id)
        span.set_attributes(
            {
                "gen_ai.usage.input_tokens": message.usage_metadata["input_tokens"],
                "gen_ai.usage.output_tokens": message.usage_metadata["output_tokens"],
                "gen_ai.response.model": message.response_metadata.get("model_name", ""),
                "gen_ai.response.finish_reasons": (message.response_metadata.get("finish_reason", ""),),
            }
        )
        span.end()


class AllByHand(SpansByHand):
    """The two spans, and for each a counter, a histogram and a line of JSON: what ours records, without a library."""

    def __init__(self, provider: TracerProvider) -> None:
        super().__init__(provider)
        registry = CollectorRegistry()
        runs = Counter("hand_runs", "Runs.", ["operation", "status"], registry=registry)
        seconds = Histogram("hand_seconds", "Duration.", ["operation"], buckets=RUN_BUCKETS, registry=registry)
        self._runs = {operation: runs.labels(operation, "success") for operation in ("workflow", "chat")}
        self._seconds = {operation: seconds.labels(operation) for operation in ("workflow", "chat")}
        self._tokens = Counter("hand_tokens", "Tokens.", ["model", "type"], registry=registry)
        self._began: dict[UUID, float] = {}
        self._logger = logging.getLogger("hand")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(JsonFormatter("{message}{levelname}", style="{", timestamp=True))
        self._logger.addHandler(handler)

    def _record(self, operation: str, run_id: UUID, **fields: object) -> None:
        seconds = time.perf_counter() - self._began.pop(run_id)
        self._runs[operation].inc()
        self._seconds[operation].observe(seconds)
        self._logger.info("[AUDIT] %s", operation, extra={"duration_ms": seconds * 1e3, **fields})

    def on_chain_start(self, *given: Any, run_id: UUID, parent_run_id: UUID | None = None, **said: Any) -> None:
        """Begin the outermost run's."""
        if parent_run_id is None:
            self._began[run_id] = time.perf_counter()
        super().on_chain_start(*given, run_id=run_id, parent_run_id=parent_run_id, **said)

    def on_chain_end(self, *given: Any, run_id: UUID, **said: Any) -> None:
        """End the span of the chain."""
        super().on_chain_end(*given, run_id=run_id, **said)
        if run_id in self._began:
            self._record("workflow", run_id, status="success")

    def on_chat_model_start(self, *given: Any, run_id: UUID, **said: Any) -> None:
        """Begin the call's."""
        self._began[run_id] = time.perf_counter()
        super().on_chat_model_start(*given, run_id=run_id, **said)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **said: Any) -> None:
        """End it, with what the answer says."""
        super().on_llm_end(response, run_id=run_id, **said)
        generation: Any = response.generations[0][0]
        usage, model = generation.message.usage_metadata, generation.message.response_metadata.get("model_name", "")
        self._tokens.labels(model, "input").inc(usage["input_tokens"])
        self._tokens.labels(model, "output").inc(usage["output_tokens"])
        self._record("chat", run_id, status="success", model=model, **usage)


class Discard(SpanExporter):
    """Takes spans and drops them."""

    def export(self, _spans: Sequence[ReadableSpan], /) -> SpanExportResult:
        """Drop the spans."""
        return SpanExportResult.SUCCESS


def main() -> None:
    """Measure, print."""
    chain: Runnable[Any, str] = ChatPromptTemplate.from_template("Say {what}") | Model() | StrOutputParser()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Discard()))
    plain = build_recorder(registry=CollectorRegistry(), tracing=False)
    traced = build_recorder(registry=CollectorRegistry(), tracer_provider=provider)
    contestants: dict[str, list[BaseCallbackHandler]] = {
        "no handler": [],
        "does nothing": [DoesNothing()],
        "taskpilot_obs": [ObservabilityHandler(recorder=plain)],
        "spans by hand, SDK": [SpansByHand(provider)],
        "all by hand, SDK": [AllByHand(provider)],
        "taskpilot_obs, SDK": [ObservabilityHandler(recorder=traced)],
    }
    print(f"Python {sys.version.split()[0]}; best of {ROUNDS} rounds of {CALLS} calls, in turns; us per call")
    for label, work in (("W4 invoke", _invoke), (f"W5 stream, {CHUNKS} chunks", _stream)):
        figures = _measure(chain, work, contestants)
        floor = figures["does nothing"] - figures["no handler"]
        for name, figure in figures.items():
            added = figure - figures["no handler"]
            print(f"{label:24} {name:20} {figure:8.1f}  added {added:7.1f}  {added / floor:5.2f} x doing nothing")
        ours, by_hand = (figures[name] - figures["no handler"] for name in ("taskpilot_obs, SDK", "all by hand, SDK"))
        print(f"{label:24} ours against all by hand, SDK: {ours / by_hand:.2f} x")
    plain.shutdown()
    traced.shutdown()
    provider.shutdown()


def _measure(
    chain: Runnable[Any, str],
    work: Callable[[Runnable[Any, str], RunnableConfig], None],
    contestants: dict[str, list[BaseCallbackHandler]],
) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(ROUNDS + 3):
        for name, handlers in contestants.items():
            config = RunnableConfig(callbacks=handlers)
            gc.collect()
            gc.disable()
            begin = time.thread_time_ns()
            for _ in range(CALLS):
                work(chain, config)
            end = time.thread_time_ns()
            gc.enable()
            if round_number >= 3:  # the first rounds warm up
                taken[name].append((end - begin) / CALLS / 1_000)
            time.sleep(0.01)  # let the drainer finish, so that it is not measured with the next
    return {name: min(times) for name, times in taken.items()}


def _invoke(chain: Runnable[Any, str], config: RunnableConfig) -> None:
    chain.invoke({"what": "hello"}, config)


def _stream(chain: Runnable[Any, str], config: RunnableConfig) -> None:
    for _ in chain.stream({"what": "hello"}, config):
        pass


if __name__ == "__main__":
    main()
