"""What LangChain's packages make of usage where they add up, drop or misplace it: right, unknown or flagged."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from _replay import ReplayServer, exchange
from hypothesis import given
from hypothesis import strategies as st
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from taskpilot_obs_langchain import ObservabilityHandler, answers, with_stream_usage
from taskpilot_obs_langchain.runs import runs_of

from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.testing import Captured
from taskpilot_obs.usage import Usage, read_response

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the SDKs' own, about their own
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydantic, about bodies that models outgrew
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of clients that LangChain keeps open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # raised when they are collected
]

KEY = SecretStr("none")
STOP = [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]


def counts(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def chunk(content: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def tool_chunk(number: int) -> dict[str, Any]:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    return chunk("", usage=counts(12, number)) | {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


def body(model: str, **usage: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": STOP, "usage": usage}


def through_openai(said: Any, model: str = "m") -> None:
    """One call of LangChain's OpenAI client to a server that answers this."""
    with ReplayServer([exchange(said)]) as server:
        client = ChatOpenAI(model=model, api_key=KEY, base_url=f"{server.url(0)}/v1", max_retries=0)
        config: Any = {"callbacks": [ObservabilityHandler()]}
        if isinstance(said, list):
            list(client.stream("hello", config))
        else:
            client.invoke("hello", config)


LAST = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": counts(12, 3)}
REPEATED: dict[str, list[dict[str, Any]]] = {
    "the counts so far, with each chunk": [chunk(text, usage=counts(12, n)) for n, text in enumerate("abc", 1)],
    "the counts so far, and once more at the end": [
        *(chunk(text, usage=counts(12, n)) for n, text in enumerate("abc", 1)),
        LAST,
    ],
    "the last two chunks": [chunk("a"), chunk("b"), chunk("", "stop", usage=counts(12, 3)), LAST],
    "only the last": [chunk("a"), chunk("b"), chunk("", "stop"), LAST],
    "pieces of a tool call": [tool_chunk(number) for number in (1, 2, 3)],
}


@pytest.mark.parametrize("case", REPEATED)
def test_usage_that_a_stream_repeats_counts_once(case: str, recorder: Recorder, seen: Captured[Invocation]) -> None:
    """LangChain adds up the usage of all chunks; where they repeat it, the last one's is what was used."""
    through_openai(REPEATED[case])
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (12, 3)
    assert not runs_of(recorder).stated


def test_a_gateway_is_asked_for_usage_only_on_request(recorder: Recorder) -> None:
    """`stream_options` is sent to a custom address only by a model that `with_stream_usage` has made."""
    with ReplayServer([exchange(REPEATED["only the last"])]) as server:
        model = ChatOpenAI(model="gpt-4o", api_key=KEY, base_url=f"{server.url(0)}/v1", max_retries=0)
        asking = with_stream_usage(model)
        list(model.stream("hello"))
        list(asking.stream("hello"))
        assert with_stream_usage(asking) is asking
    assert [request.get("stream_options") for request in server.requests] == [None, {"include_usage": True}]


def test_two_handlers_see_a_chunk_once(seen: Captured[Invocation]) -> None:
    """A chunk that two handlers of one recorder receive is not a repetition."""
    additive = [
        AIMessageChunk(content="a", usage_metadata=lc(10, 1)),
        AIMessageChunk(content="", usage_metadata=lc(0, 7)),
    ]
    handlers: Any = [ObservabilityHandler(), ObservabilityHandler()]
    list(Scripted(chunks=additive).stream("hello", {"callbacks": handlers}))
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (10, 8)


def test_additions_after_a_repetition_are_added(seen: Captured[Invocation]) -> None:
    """Counts with another input are new ones, as LangChain means them."""
    chunks = [AIMessageChunk(content="", usage_metadata=lc(*pair)) for pair in ((10, 1), (10, 2), (0, 7))]
    list(Scripted(chunks=chunks).stream("hello", {"callbacks": [ObservabilityHandler()]}))
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (10, 9)


def test_a_broken_stream_keeps_what_was_stated_last(seen: Captured[Invocation]) -> None:
    """Usage that was repeated until the stream broke counts once, too."""
    chunks = [AIMessageChunk(content=text, usage_metadata=lc(12, n)) for n, text in enumerate("ab", 1)]
    with pytest.raises(ConnectionError):
        list(Scripted(chunks=chunks, breaks=True).stream("hello", {"callbacks": [ObservabilityHandler()]}))
    (run,) = seen
    assert (run.status, run.usage and run.usage[:2]) == (Status.ERROR, (12, 2))


def lc(given_tokens: int, generated: int) -> Any:
    return {"input_tokens": given_tokens, "output_tokens": generated, "total_tokens": given_tokens + generated}


class Scripted(BaseChatModel):
    """Streams these chunks, then perhaps breaks."""

    chunks: list[AIMessageChunk]
    breaks: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Yes."))])

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield from (ChatGenerationChunk(message=one) for one in self.chunks)
        if self.breaks:
            raise ConnectionError


OWN: dict[str, tuple[dict[str, Any], Usage | None]] = {
    "xAI counts reasoning apart": (
        body(
            "grok-4-0709", **counts(32, 9) | {"total_tokens": 135}, completion_tokens_details={"reasoning_tokens": 94}
        ),
        Usage(32, 103, reasoning_tokens=94),
    ),
    "Gemini's thoughts are in the total alone": (
        body("gemini-2.5-flash", prompt_tokens=10, completion_tokens=20, total_tokens=300),
        Usage(10, 290),
    ),
    "Perplexity's are not even there": (
        body("sonar-deep-research", **counts(33, 7163, reasoning_tokens=5000)),
        Usage(33, 12163, reasoning_tokens=5000),
    ),
    "DeepSeek's cache hits have another name": (
        body("deepseek-chat", **counts(20, 30, prompt_cache_hit_tokens=12)),
        Usage(20, 30, 12),
    ),
    "a total alone says neither of the two": (body("gpt-4o", total_tokens=40), None),
    "an empty usage says nothing": (body("gpt-4o"), None),
    "a prompt alone leaves the output unknown": (body("gpt-4o", prompt_tokens=40), Usage(40)),
    "zeros beside an answer stand for what is unknown": (body("gpt-4o", **counts(0, 0)), None),
    "an answer without tokens is unknown": (body("gpt-4o", **counts(40, 0)), Usage(40)),
    "OpenAI's own are those that LangChain hands on": (
        body("gpt-4o", **counts(20, 30, prompt_tokens_details={"cached_tokens": 12})),
        Usage(20, 30, 12),
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_the_providers_own_usage_says_more(case: str, seen: Captured[Invocation]) -> None:
    """What LangChain has no name for is read from the usage that its OpenAI client keeps beside."""
    said, expected = OWN[case]
    through_openai(said, said["model"])
    (run,) = seen
    assert run.usage == expected


def test_reasoning_apart_is_seen_in_the_total_of_a_stream(seen: Captured[Invocation]) -> None:
    """A stream keeps no usage of the provider's own: there the total says that reasoning is outside."""
    usage = counts(32, 9) | {"total_tokens": 135, "completion_tokens_details": {"reasoning_tokens": 94}}
    through_openai([chunk("a"), LAST | {"usage": usage}], "grok-4")
    (run,) = seen
    assert run.usage == Usage(32, 103, reasoning_tokens=94)


def test_thoughts_that_the_total_hints_at_leave_the_output_unknown(seen: Captured[Invocation]) -> None:
    """Google's total may hold thoughts or prompts of tools besides: which, a stream through OpenAI's client drops."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 300}
    named = chunk("a", "stop") | {"model": "gemini-2.5-flash"}
    through_openai([named, LAST | {"usage": usage, "model": "gemini-2.5-flash"}], "gemini-2.5-flash")
    (run,) = seen
    assert (run.usage, run.cost) == (Usage(10, None), None)


def anthropic_events(**at_last: Any) -> list[dict[str, Any]]:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
    begun = message | {"stop_reason": None, "usage": {"input_tokens": 1500, "output_tokens": 2}}
    text = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [
        {"type": "message_start", "message": begun},
        text,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15, **at_last}},
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("at_last", "expected", "cost"),
    [({}, Usage(None, 15), None), ({"input_tokens": 1500}, Usage(1500, 15), Decimal("0.004725"))],
)
def test_input_that_langchain_does_not_read_is_unknown(
    at_last: dict[str, int], expected: Usage, cost: Decimal | None, seen: Captured[Invocation]
) -> None:
    """Its Anthropic client reads a stream's last event only: input that was stated in the first one is not 0."""
    with ReplayServer([exchange(anthropic_events(**at_last))]) as server:
        client: Any = ChatAnthropic  # its arguments have aliases that checkers do not know
        model = client(model="claude-sonnet-4-5", api_key=KEY, base_url=server.url(0), max_retries=0)
        list(model.stream("hello", {"callbacks": [ObservabilityHandler()]}))
    (run,) = seen
    assert (run.usage, run.cost) == (expected, cost)


def tell(
    handler: ObservabilityHandler, provider: str, message: AIMessage, model: str = "m", *, streamed: bool = False
) -> None:
    """One call as LangChain tells it."""
    run_id = uuid4()
    metadata = {"ls_provider": provider, "ls_model_name": model}
    handler.on_chat_model_start({}, [[HumanMessage("hello")]], run_id=run_id, metadata=metadata)
    if streamed:
        handler.on_llm_new_token("Yes.", run_id=run_id)
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)


def test_tokens_of_coheres_that_were_not_billed_are_unknown(seen: Captured[Invocation]) -> None:
    """Its package hands on the tokens consumed, and of a stream those billed: only the latter are booked."""
    consumed = {"input_tokens": 71.0, "output_tokens": 418.0}
    whole = AIMessage("Yes.", usage_metadata=lc(71, 418), response_metadata={"token_count": consumed})
    handler = ObservabilityHandler()
    tell(handler, "cohere", whole, "command-a-03-2025")
    tell(handler, "cohere", AIMessage("Yes.", usage_metadata=lc(5, 418)), "command-a-03-2025", streamed=True)
    first, second = seen
    assert (first.usage, first.cost) == (None, None)
    assert (second.usage, second.cost) == (Usage(5, 418), Decimal("0.0041925"))


@pytest.mark.parametrize(("model", "known"), [("gemini-2.5-flash-image", False), ("gemini-2.5-flash", True)])
def test_images_that_google_counts_as_text_have_no_cost(model: str, seen: Captured[Invocation], *, known: bool) -> None:
    """A model that answers with images is unpriced: Google's package does not say how many tokens were image."""
    about = {"model_name": model}
    tell(
        ObservabilityHandler(),
        "google_genai",
        AIMessage("", usage_metadata=lc(8, 1290), response_metadata=about),
        model,
    )
    (run,) = seen
    assert run.usage == Usage(8, 1290)
    assert (run.cost is not None) is known


PLAIN = {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}


@pytest.mark.parametrize(
    ("usage", "about"),
    [
        (PLAIN, {"model_name": "gpt-4o", "model": "gpt-4o-mini"}),
        (PLAIN, {"model_name": "gpt-4o", "finish_reason": "stop", "stop_reason": "end_turn"}),
        (PLAIN, {"model_name": "gpt-4o", "finish_reason": ["stop"]}),
        (PLAIN | {"input_tokens": -1}, {"model_name": "gpt-4o"}),
        (PLAIN | {"total_tokens": 34}, {"model_name": "gpt-4o"}),
        (PLAIN | {"output_token_details": {"reasoning": 4}}, {"model_name": "sonar-pro"}),
    ],
    ids=["two models", "two reasons", "a reason in a list", "no count", "another total", "reasoning apart"],
)
def test_the_quick_reader_leaves_what_is_not_plain(usage: Any, about: Any) -> None:
    """Answers that contradict themselves or say more than a plain one does are the general reader's."""
    assert answers.quick_reading({"usage_metadata": PLAIN, "response_metadata": {"model_name": "gpt-4o"}, "id": None})
    assert answers.quick_reading({"usage_metadata": usage, "response_metadata": about, "id": None}) is None


COUNTS = st.one_of(st.none(), st.integers(0, 30), st.just("7"))
OWN_USAGE = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens", "cached_tokens"]), COUNTS
)
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "image_tokens"]), COUNTS
)
MODELS = st.sampled_from(["gpt-4o", "grok-4", "sonar-pro", "gemini-2.5-pro", None])


@given(
    usage=st.fixed_dictionaries({"input_tokens": st.integers(0, 30), "output_tokens": st.integers(0, 30)})
    | st.fixed_dictionaries(
        {
            "input_tokens": st.just(20),
            "output_tokens": st.just(10),
            "total_tokens": st.sampled_from([30, 34, 50]),
            "input_token_details": st.just({"cache_read": 4}),
            "output_token_details": st.just({"reasoning": 4}),
        }
    ),
    own=OWN_USAGE | st.just({}) | st.just({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}),
    details=DETAILS | st.just({"cached_tokens": 4, "reasoning_tokens": 4}),
    model=MODELS,
)
def test_the_quick_reader_leaves_what_the_provider_adds(usage: Any, own: Any, details: Any, model: str | None) -> None:
    """With the provider's own usage beside, the quick reader reads what the general one reads, or leaves it to that."""
    own = own and own | {"prompt_tokens_details": details, "completion_tokens_details": details}
    said = {"usage_metadata": usage, "response_metadata": {"model_name": model, "token_usage": own}, "id": None}
    quick = answers.quick_reading(said)
    if quick is not None:
        assert quick == read_response(said)._replace(provider=None)


def test_a_provider_that_only_the_answer_names(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A call whose start was booked without a provider ends with the one that its answer names, and with its price."""
    about = {"model_provider": "openai", "model_name": "gpt-4o"}
    call = recorder.start_llm(model="house-model")
    recorder.drain()
    call.record_response(AIMessage("Yes.", usage_metadata=lc(3, 1), response_metadata=about))
    call.stop()
    (run,) = seen
    assert (run.provider, run.request_model, run.response_model) == ("openai", "house-model", "gpt-4o")
    assert run.cost == Decimal("0.0000175")
