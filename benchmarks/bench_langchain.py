"""What the LangChain handler costs: microseconds added on the caller's thread, beside a handler that does nothing.

    python benchmarks/bench_langchain.py

W4 invokes `prompt | model | StrOutputParser()`; W5 streams it, 100 chunks. The handler that does nothing shows what
LangChain itself takes to call any handler; both are measured in turns, in one run, for figures of different runs on
a busy machine cannot be compared. What is measured is the processor time of the caller's thread. "SDK" is
OpenTelemetry's, with the batch processor and an exporter that discards.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs.config import build_recorder

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


class Discard(SpanExporter):
    """Takes spans and drops them."""

    def export(self, _spans: Sequence[ReadableSpan], /) -> SpanExportResult:
        """Drop them."""
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
        "taskpilot_obs, SDK": [ObservabilityHandler(recorder=traced)],
    }
    print(f"Python {sys.version.split()[0]}; first decile of {ROUNDS} rounds of {CALLS} calls, in turns; us per call")
    for label, work in (("W4 invoke", _invoke), (f"W5 stream, {CHUNKS} chunks", _stream)):
        figures = _measure(chain, work, contestants)
        floor = figures["does nothing"] - figures["no handler"]
        for name, figure in figures.items():
            added = figure - figures["no handler"]
            print(f"{label:24} {name:20} {figure:8.1f}  added {added:7.1f}  {added / floor:5.2f} x doing nothing")
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
    return {name: statistics.quantiles(times, n=10)[0] for name, times in taken.items()}


def _invoke(chain: Runnable[Any, str], config: RunnableConfig) -> None:
    chain.invoke({"what": "hello"}, config)


def _stream(chain: Runnable[Any, str], config: RunnableConfig) -> None:
    for _ in chain.stream({"what": "hello"}, config):
        pass


if __name__ == "__main__":
    main()
