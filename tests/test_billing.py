"""What is billed: refused, failed after an answer, stated by the provider, incomplete; and one name for one model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import openai
import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from openai.types.chat import ChatCompletion

from taskpilot_obs import golden_signals, observe_llm, record_llm_call, track_llm, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.providers.names import canonical_model
from taskpilot_obs.records import Invocation, Pricing
from taskpilot_obs.stats import get_stats
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder
from taskpilot_obs.usage import Usage, read_response

REQUEST = httpx.Request("POST", "http://127.0.0.1/v1")
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "{"}}],
    "usage": {"prompt_tokens": 4_000, "completion_tokens": 16_000, "total_tokens": 20_000},
}


def status_error(status: int) -> openai.APIStatusError:
    return openai.APIStatusError("refused", response=httpx.Response(status, request=REQUEST), body=None)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def length_error() -> BaseException:
    return openai.LengthFinishReasonError(completion=ChatCompletion.model_validate(ANSWER))


UNKNOWN = ("unpriced_requests", "usage_missing")


class WrappedError(Exception):
    """What an application makes of a client's exception."""

    def __init__(self, body: object = None) -> None:
        self.body = body


@pytest.mark.promise("failed-calls")
@pytest.mark.parametrize(
    ("error", "pricing"),
    [
        (status_error(400), Pricing.FREE),
        (status_error(401), Pricing.FREE),
        (status_error(429), Pricing.FREE),
        (status_error(408), Pricing.UNPRICED),
        (status_error(500), Pricing.UNPRICED),
        (caused(WrappedError(), status_error(429)), Pricing.FREE),
        (ConnectionRefusedError(), Pricing.FREE),
        (ConnectionResetError(), Pricing.UNPRICED),
        (openai.APIConnectionError(request=REQUEST), Pricing.FREE),
        (caused(openai.APIConnectionError(request=REQUEST), httpx.ReadError("reset")), Pricing.UNPRICED),
        (caused(openai.APITimeoutError(request=REQUEST), httpx.ConnectTimeout("late")), Pricing.FREE),
        (openai.APITimeoutError(request=REQUEST), Pricing.UNPRICED),
        (openai.ContentFilterFinishReasonError(), Pricing.UNPRICED),
        (ValueError("not JSON"), Pricing.UNPRICED),
        (KeyboardInterrupt(), Pricing.UNPRICED),
        (length_error(), Pricing.PRICED),
        (caused(WrappedError(), length_error()), Pricing.PRICED),
        (WrappedError(ANSWER), Pricing.PRICED),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_only_what_was_refused_is_free(
    recorder: Recorder, seen: Captured[Invocation], error: BaseException, pricing: Pricing
) -> None:
    """A refusal is free; usage that an exception carries is booked; everything else may have been billed."""
    with pytest.raises(type(error)), track_llm(model="gpt-4o", provider="openai"):
        raise error
    (run,) = seen
    assert run.pricing is pricing
    assert run.is_usage_missing is (pricing is Pricing.UNPRICED)
    if pricing is Pricing.PRICED:
        assert run.cost == Decimal("0.17")
    recorder.drain()
    signals = golden_signals()
    assert signals.cost_coverage == {Pricing.FREE: None, Pricing.UNPRICED: 0.0, Pricing.PRICED: 1.0}[pricing]
    assert golden_signals("15m").cost_coverage == signals.cost_coverage


def test_a_cause_that_is_its_own_does_not_hang(seen: Captured[Invocation]) -> None:
    """Exceptions whose causes form a circle are looked at once each."""
    first, second = WrappedError(), WrappedError()
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(WrappedError), track_llm(model="gpt-4o"):
        raise first
    assert [run.pricing for run in seen] == [Pricing.UNPRICED]


def test_a_stream_that_breaks_after_its_first_token_is_unknown(seen: Captured[Invocation]) -> None:
    """Tokens came, so it was billed, whatever the exception is: usage is missing, and the cost unknown."""

    def chunks() -> Iterator[dict[str, Any]]:
        yield {"choices": [{"index": 0, "delta": {"content": "a"}}]}
        raise status_error(429)

    with pytest.raises(openai.APIStatusError), track_llm(provider="openai", model="gpt-4o") as call:
        list(call.stream(chunks()))
    (run,) = seen
    assert (run.pricing, run.is_usage_missing) == (Pricing.UNPRICED, True)


def test_a_stream_that_breaks_is_unknown_on_every_surface(tmp_path: Path) -> None:
    """Signals, store and exposition count it as unpriced, and an enforced budget books what was reserved, apart."""
    store = f"sqlite:///{tmp_path / 'telemetry.db'}"
    budget = Budget("team", limit_usd=1, action="enforce")

    @observe_llm("gpt-4o")
    def broken(prompt: str) -> Iterator[dict[str, Any]]:
        yield {"choices": [{"delta": {"content": prompt}}]}
        raise ConnectionResetError

    with fresh_recorder(store=store, budgets=[budget]) as recorder:
        with pytest.raises(ConnectionResetError), track_workflow("w"):
            list(broken("hi"))
        assert recorder.flush()
        assert recorder.registry is not None
        labels = {"model": "gpt-4o", "provider": "openai"}
        values = [recorder.registry.get_sample_value(f"llm_{name}_total", labels) for name in UNKNOWN]
        signals, stats, (status,) = golden_signals("15m"), get_stats("1h", store=store), budget_status()
    assert values == [1, 1]
    assert (signals.cost_coverage, stats.cost_coverage) == (0, 0)
    assert (signals.cost_per_successful_task_usd, stats.cost_usd) == (None, Decimal(0))  # of those with a known price
    assert status.spent == status.assumed > 0


def test_a_stream_that_is_refused_before_its_first_event_is_free(seen: Captured[Invocation]) -> None:
    """Some clients send the request when the stream is read first: a refusal then is one all the same."""

    def chunks() -> Iterator[dict[str, Any]]:
        raise status_error(429)
        yield {}

    with pytest.raises(openai.APIStatusError), track_llm(provider="openai", model="gpt-4o") as call:
        list(call.stream(chunks()))
    (run,) = seen
    assert (run.pricing, run.is_usage_missing) == (Pricing.FREE, False)


def test_zeros_beside_a_streamed_answer_are_unknown(seen: Captured[Invocation]) -> None:
    """The last event of OpenAI's responses holds the answer, though no piece of it came before."""
    text = {"type": "message", "content": [{"type": "output_text", "text": "hello"}]}
    whole = {
        "object": "response",
        "model": "gpt-4o",
        "output": [text],
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    with track_llm(provider="openai", model="gpt-4o") as call:
        list(call.stream([{"type": "response.completed", "response": whole}]))
    (run,) = seen
    assert (run.usage, run.pricing) == (None, Pricing.UNPRICED)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "cost", "gap"),
    [
        ("perplexity", "sonar", {"cost": {"total_cost": 0.00506}}, "0.00506", None),
        ("openrouter", "acme/unlisted-1", {"cost": 0.000042}, "0.000042", None),
        (
            "openrouter",
            "openai/gpt-4o",
            {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}},
            "0.021",
            None,
        ),
        ("openrouter", "openai/gpt-4o", {"cost": 0.001, "is_byok": True}, "0.001", "upstream"),
        ("x_ai", "grok-4", {"cost_in_usd_ticks": 318_319_000}, "0.0318319", None),
        ("deepinfra", "acme/any", {"estimated_cost": 0.0002}, "0.0002", None),
        ("openrouter", "acme/unlisted-1", {"cost": "0.0012"}, "0.0012", None),
        ("perplexity", "sonar", {"cost": {"total_cost": "5.06E-3"}}, "0.00506", None),
    ],
)
def test_a_cost_that_the_provider_states_is_taken(
    seen: Captured[Invocation], provider: str, model: str, usage: dict[str, Any], cost: str, gap: str | None
) -> None:
    """The provider's own figure wins over the price table, and states its source."""
    with track_llm(provider=provider, model=model) as call:
        call.record_response({"model": model, "usage": {"prompt_tokens": 10, "completion_tokens": 5, **usage}})
    (run,) = seen
    assert (run.cost, run.cost_source, run.price_gap) == (Decimal(cost), "provider", gap)


_GATEWAY = {"cost": "0.0045405", "marketCost": "0.005"}
_COUNTS = {"prompt_tokens": 10, "completion_tokens": 5}


@dataclass
class ResultMessage:
    """The last message of a query of the Claude Agent SDK."""

    session_id: str
    usage: dict[str, int]
    total_cost_usd: float | None
    result: str


@pytest.mark.parametrize(
    ("response", "cost"),
    [
        ({"usage": _COUNTS, "provider_metadata": {"gateway": _GATEWAY}}, "0.0045405"),
        ({"usage": _COUNTS, "providerMetadata": {"gateway": _GATEWAY}}, "0.0045405"),
        ({"usage": _COUNTS, "provider_metadata": {"gateway": {**_GATEWAY, "cost": "0"}}}, "0.005"),
        (
            {
                "choices": [{"message": {"content": "a", "provider_metadata": {"gateway": _GATEWAY}}}],
                "usage": _COUNTS,
            },
            "0.0045405",
        ),
        (
            [
                {"choices": [{"delta": {"content": "a"}}]},
                *[{"choices": [{"delta": {"content": "b"}}]}] * 5,
                {
                    "choices": [
                        {"delta": {"provider_metadata": {"gateway": _GATEWAY}}, "index": 0, "finish_reason": "stop"}
                    ]
                },
                {"choices": [], "usage": _COUNTS},
            ],
            "0.0045405",
        ),
        (ResultMessage("s", {"input_tokens": 10, "output_tokens": 5}, 0.0123, "done"), "0.0123"),
        (
            {
                "type": "result",
                "total_cost_usd": 0.0123,
                "usage": {"input_tokens": 6, "output_tokens": 5, "cache_read_input_tokens": 4},
            },
            "0.0123",
        ),
    ],
)
def test_a_cost_beside_the_usage_is_taken(seen: Captured[Invocation], response: object, cost: str) -> None:
    """Vercel's gateway and the Claude Agent SDK state the cost outside of the usage object."""
    with track_llm(model="acme/unlisted-1") as call:
        call.record_response(response)
    (run,) = seen
    assert (run.cost, run.cost_source, run.price_gap) == (Decimal(cost), "provider", None)
    assert run.usage is not None
    assert run.usage[:2] == (10, 5)


@pytest.mark.parametrize("stated", ["", "free", "-1", "NaN", "Infinity", "1 USD", "0x10", True, [], "9" * 10_000 + "x"])
def test_what_is_no_amount_states_no_cost(seen: Captured[Invocation], stated: object) -> None:
    """Other texts and values leave the cost to the price table."""
    body = {"usage": {**_COUNTS, "cost": stated}, "provider_metadata": {"gateway": {"cost": stated}}}
    with track_llm(provider="openai", model="gpt-4o") as call:
        call.record_response({**body, "total_cost_usd": stated})
    (run,) = seen
    assert run.cost_source == "price_table"


def test_own_prices_and_set_cost_win_over_what_the_provider_states(seen: Captured[Invocation]) -> None:
    """The caller's figure is the last word; a table price that differs by more than 1 % is counted."""
    body = {"model": "gpt-4o", "usage": {"prompt_tokens": 150, "completion_tokens": 50, "cost": 0.5}}
    with track_llm(provider="openai", model="gpt-4o") as call:
        call.record_response(body)
        call.set_cost("0.01")
    record_llm_call(provider="openai", model="gpt-4o", usage=body["usage"])
    by_caller, by_provider = seen
    assert (by_caller.cost, by_caller.cost_source) == (Decimal("0.01"), "caller")
    assert (by_provider.cost_source, by_provider.table_cost) == ("provider", Decimal("0.000875"))
    assert by_provider.is_price_mismatch


@pytest.mark.parametrize("provider", ["azure.ai.inference", "azure.ai.openai"])
def test_grok_on_azure_states_a_total_beyond_its_parts(seen: Captured[Invocation], provider: str) -> None:
    """Azure leaves Grok's reasoning out of the output: its price counts the rest of the total, and is partial."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 25}
    details = {"completion_tokens_details": {"reasoning_tokens": 10}}
    for stated in (usage, {**usage, **details}):
        with track_llm(provider=provider, model="grok-3") as call:
            call.record_response({"model": "grok-3", "usage": stated})
    assert [(run.pricing, run.price_gap) for run in seen] == [(Pricing.PARTIAL, "contradiction")] * 2
    assert seen[1].usage is not None
    assert seen[1].usage[:2] == (10, 15)


@pytest.mark.parametrize(
    ("body", "gap"),
    [
        ({"type": "message", "usage": {"input_tokens": 5, "output_tokens": 6, "inference_geo": "us"}}, "surcharge"),
        ({"usage": {"input_tokens": 5, "output_tokens": 6, "inference_geo": "global"}}, None),
        (
            {"usage": {"input_tokens": 5, "output_tokens": 6, "server_tool_use": {"web_search_requests": 1}}},
            "server_tools",
        ),
        ({"usage": {"input_tokens": 5, "output_tokens": 6, "server_tool_use": {"web_search_requests": 0}}}, None),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 99}}, "contradiction"),
        (
            {
                "output": [{"type": "web_search_call"}, {"type": "message"}],
                "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11},
            },
            "server_tools",
        ),
        (
            {
                "candidates": [{"groundingMetadata": {"webSearchQueries": ["x"]}}],
                "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6},
            },
            "server_tools",
        ),
        (
            [
                {"type": "message_start", "message": {"model": "claude-a", "usage": {"input_tokens": 5}}},
                {
                    "type": "content_block_start",
                    "content_block": {"type": "fallback", "to": {"model": "claude-b"}},
                },
                {"type": "message_delta", "usage": {"output_tokens": 6}},
            ],
            "other_model",
        ),
    ],
)
def test_an_incomplete_price_states_its_reason(body: Any, gap: str | None) -> None:
    """What the tokens do not tell is named by a reason; what costs nothing more is not."""
    reading = read_response(body)
    assert (reading.gap, reading.usage and reading.usage[:2]) == (gap, (5, 6))


_INLINED = {"response": {"candidates": [], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6}}}
_JOB = {"state": "JOB_STATE_SUCCEEDED", "completionStats": {"successfulCount": "2"}}
BATCHES: tuple[dict[str, Any], ...] = (
    {"name": "batches/1", "done": True, "response": {"inlinedResponses": {"inlinedResponses": [_INLINED]}}},
    {"name": "batches/1", "state": "JOB_STATE_SUCCEEDED", "dest": {"inlined_responses": [_INLINED]}},
    {"name": "projects/1/locations/eu/batchPredictionJobs/1", **_JOB, "usageMetadata": {"promptTokenCount": 5}},
    {"type": "message_batch", "id": "msgbatch_1", "processing_status": "ended", "request_counts": {"succeeded": 2}},
)
"""The status of a whole batch, by Gemini's API, its SDK, Vertex and Anthropic."""


def test_the_sum_of_a_batch_is_no_call() -> None:
    """A batch's own object sums up what its lines state one by one; lines are read at the batch's tier."""
    total = {"object": "batch", "id": "b", "usage": {"input_tokens": 500, "output_tokens": 60, "total_tokens": 560}}
    for status in (total, *BATCHES):
        assert read_response(status).usage is None
    gemini = {"candidates": [], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6}}
    for line in (
        {"custom_id": "1", "response": {"status_code": 200, "body": ANSWER}},
        {"processed_time": "2026-01-01T00:00:00Z", "status": "", "response": gemini},
        {"recordId": "1", "modelOutput": {"usage": {"inputTokens": 5, "outputTokens": 6}}},
    ):
        reading = read_response(line)
        assert reading.usage is not None
        assert reading.service_tier == "batch"


def test_an_answer_proves_who_bills_it(seen: Captured[Invocation]) -> None:
    """An ID of Bedrock's or Vertex' decides the price list, where the caller named the vendor of the model."""
    body = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-3-5-sonnet-20240620"}
    assert read_response(body).provider == "aws.bedrock"
    assert read_response({**body, "id": "msg_vrtx_1"}, provider="anthropic").billed_by == "gcp.vertex_ai"


GEMINI: Any = {"candidates": [{"content": {"parts": [{"text": "long"}]}}]}
ZEROS: dict[str, Any] = {
    "OpenAI's responses": {
        "output": [{"type": "message", "content": [{"text": "long"}]}],
        "usage": {"input_tokens": 0, "output_tokens": 0},
    },
    "Bedrock": {"output": {"message": {"content": [{"text": "long"}]}}, "usage": {"inputTokens": 0, "outputTokens": 0}},
    "Gemini": {**GEMINI, "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0}},
    "embeddings": {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 0, "total_tokens": 0}},
    "LangChain": LLMResult(
        generations=[
            [
                ChatGeneration(
                    message=AIMessage("long", usage_metadata={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0})
                )
            ]
        ]
    ),
    "parts": SimpleNamespace(
        parts=[SimpleNamespace(content="long")], usage=SimpleNamespace(input_tokens=0, output_tokens=0)
    ),
}


ZERO_DETAILS = dict.fromkeys(
    ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "image_tokens"), 0
)


@pytest.mark.parametrize("answer", ZEROS.values(), ids=ZEROS)
def test_zeros_beside_an_answer_are_unknown(answer: object) -> None:
    """Placeholders of a framework do not count, in whatever shape the answer comes."""
    assert read_response(answer).usage is None


def test_a_zero_of_one_side_is_unknown_alone() -> None:
    """A count that stands beside a zero is kept, and the zero is unknown."""
    gemini = {**GEMINI, "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 0, "totalTokenCount": 5}}
    assert read_response(gemini).usage == Usage(5, None)
    chat = {"choices": [{"message": {"content": "long"}}], "usage": {"prompt_tokens": 0, "completion_tokens": 6}}
    assert read_response(chat).usage == Usage(None, 6)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 0, "completion_tokens_details": ZERO_DETAILS}, Usage(5, None)),
        ({"prompt_tokens": 0, "completion_tokens": 6, "prompt_tokens_details": ZERO_DETAILS}, Usage(None, 6)),
    ],
)
def test_the_details_of_an_unknown_zero_are_unknown_too(counts: dict[str, Any], expected: Usage) -> None:
    """Where a total is a placeholder, so are the zeros of its details."""
    assert read_response({"choices": [{"message": {"content": "long"}}], "usage": counts}).usage == expected


def test_zeros_that_can_be_true_stay() -> None:
    """An empty answer may have taken 0 tokens, and a guardrail of Bedrock answers without the model."""
    assert read_response({"output": [], "usage": {"input_tokens": 0, "output_tokens": 0}}).usage == Usage(0, 0)
    blocked = {**ZEROS["Bedrock"], "stopReason": "guardrail_intervened"}
    assert read_response(blocked).usage == Usage(0, 0)
    free = {**GEMINI, "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}  # Gemma: the total has no output
    assert read_response(free).usage == Usage(5, 0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openai:gpt-4o", "gpt-4o"),
        ("litellm/openai/gpt-4o", "gpt-4o"),
        ("my-deployment", "gpt-4o"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", "ft:gpt-4o-mini-2024-07-18"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("meta-llama/Llama-4", "meta-llama/llama-4"),
        ("gpt-oss:20b", "gpt-oss:20b"),
        ("acme-deployment", "acme-deployment"),
    ],
)
def test_one_name_for_one_model(given: str, name: str) -> None:
    """A known provider, paths and regions are taken off, upper case is folded, aliases apply; the rest stays."""
    assert canonical_model(given, {"my-deployment": "azure/GPT-4o"}) == name


def test_failures_and_successes_share_the_model_that_was_asked_for(seen: Captured[Invocation]) -> None:
    """The label is the same whatever snapshot answers, and where nothing does."""
    for spelling in ("gpt-4o-mini", "openai/gpt-4o-mini", "GPT-4o-mini"):
        with track_llm(provider="openai", model=spelling) as call:
            call.record_response({"model": "gpt-4o-mini-2024-07-18", "usage": {"prompt_tokens": 1}})
        with pytest.raises(TimeoutError), track_llm(provider="openai", model=spelling):
            raise TimeoutError
    assert {run.model for run in seen} == {"gpt-4o-mini"}
    assert {run.request_model for run in seen} == {"gpt-4o-mini", "openai/gpt-4o-mini", "GPT-4o-mini"}


def test_a_stated_tier_prices_the_call(seen: Captured[Invocation]) -> None:
    """The tier by hand has the price of the tier that a response states."""
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    record_llm_call(model="gpt-5", usage=usage, service_tier="flex")
    record_llm_call(model="gpt-5", usage=usage)
    with track_llm(model="gpt-5") as call:
        call.record_usage(service_tier="Flex", **usage)
    flex, standard, by_hand = (run.cost for run in seen)
    assert flex == by_hand
    assert flex is not None
    assert standard is not None
    assert flex < standard


def test_the_alias_of_the_configuration_names_the_model() -> None:
    """A deployment with an alias is labelled as the model that it stands for."""
    with (
        fresh_recorder(model_aliases={"our-proxy": "openai/gpt-4o"}) as recorder,
        capture_invocations(recorder) as seen,
    ):
        recorder.record_llm_call(model="our-proxy")
        assert [run.model for run in seen] == ["gpt-4o"]
