"""Recorded exchanges through the real LangChain models and SDKs: what they leave of the usage reads as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from _recorded import Exchange, exchanges
from _replay import ReplayServer
from hypothesis import given
from hypothesis import strategies as st
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import SecretStr
from taskpilot_obs_langchain import ObservabilityHandler, answers, models

from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation, Pricing, Status
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder
from taskpilot_obs.usage import Usage, read_response

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the SDKs' own, about their own
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydantic, about recorded bodies that models outgrew
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of clients that LangChain keeps open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # raised when they are collected
]

Pairs = list[tuple[Exchange, Invocation]]


class Listener(BaseCallbackHandler):
    """Keeps the messages that answers are."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Nothing; without it LangChain would make text of the messages."""

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Keep the messages."""
        self.messages += [getattr(generation[0], "message", None) for generation in response.generations]


TOTALS = {"input_total": "input_tokens", "output_total": "output_tokens"}
DETAILS = {
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": "input_audio_tokens",
    "input_image": "input_image_tokens",
    "reasoning": "reasoning_tokens",
    "output_audio": "output_audio_tokens",
    "output_image": "output_image_tokens",
}
MODALITIES = {"input_audio", "input_image", "output_audio", "output_image"}
KEY = SecretStr("none")


def call(exchange: Exchange, url: str, *handlers: BaseCallbackHandler) -> bool:
    """Send the recorded call; False where no LangChain model of those installed speaks the protocol."""
    name = exchange["request_model"] or "none"
    openai: Any = {"model": name, "api_key": KEY, "base_url": f"{url}/v1", "max_retries": 0}
    model: Any
    match exchange["kind"]:
        case "chat.completions":
            model = ChatOpenAI(**openai)
        case "responses":
            model = ChatOpenAI(**openai, use_responses_api=True)
        case "completions":
            model = OpenAI(**openai)
        case "messages":
            model = ChatAnthropic(model=name, api_key=KEY, base_url=url, max_retries=0, stop=None, timeout=10)
        case "generateContent":
            model = ChatGoogleGenerativeAI(model=name, google_api_key=KEY, base_url=url, max_retries=0)
        case _:
            return False
    config: Any = {"callbacks": [*handlers]}
    try:
        if exchange["streaming"]:
            for _ in model.stream("hello", config):
                pass
        else:
            model.invoke("hello", config)
    except Exception as error:  # whatever a client makes of a recorded failure
        print(exchange["index"], repr(error)[:200])
    return True


@pytest.fixture(scope="module")
def replayed() -> Pairs:
    """Every exchange that a LangChain model speaks, with what was recorded of it."""
    recorded, pairs = exchanges(), []
    with ReplayServer(recorded) as server, fresh_recorder() as recorder, capture_invocations(recorder) as seen:
        handler = ObservabilityHandler(recorder=recorder)
        for position, exchange in enumerate(recorded):
            before = len(seen)
            if call(exchange, server.url(position), handler):
                assert len(seen) == before + 1, exchange["index"]
                pairs.append((exchange, seen[-1]))
    return pairs


def answered(pairs: Pairs) -> Iterator[tuple[Exchange, Invocation]]:
    """The exchanges that LangChain could read; what it raises at is unknown, and tested on its own."""
    return (pair for pair in pairs if pair[0]["status"] == 200 and pair[1].status is Status.SUCCESS)


def counted(usage: Usage | None, fields: dict[str, str]) -> dict[str, int | None] | None:
    return None if usage is None else {name: getattr(usage, field) for name, field in fields.items()}


def test_totals_equal_what_the_provider_stated(replayed: Pairs) -> None:
    """Input and output of every answer are those that the provider stated; where it stated none they are unknown.

    LangChain writes 0 where Google states no count for the answer: such an output is unknown too.
    """
    for exchange, run in answered(replayed):
        truth = exchange["truth"]
        expected = truth and {name: truth[name] for name in TOTALS}
        found = counted(run.usage, TOTALS)
        if "gemini-no-candidatesTokenCount" in exchange["oddities"] and found and expected:
            assert found.pop("output_total") is None, exchange["index"]
            del expected["output_total"]
        assert found == expected, exchange["index"]


def test_details_equal_what_the_provider_stated_or_langchain_drops_them(replayed: Pairs) -> None:
    """Cache, reasoning and audio are as stated, but for Google's: its package drops what was audio and image."""
    for exchange, run in answered(replayed):
        dropped = MODALITIES if exchange["kind"] == "generateContent" else set()
        for name, stated in (exchange["truth"] or {}).items():
            if name in DETAILS and name not in dropped:
                assert (getattr(run.usage, DETAILS[name]) or 0) == (stated or 0), (exchange["index"], name)


def test_costs_equal_the_agreed_price_or_are_unknown(replayed: Pairs) -> None:
    """An agreed cost is met within a thousandth; a model with open weights at an unknown address has an unknown cost.

    One exception cannot be seen from the answer: audio that Google's package counts as text. It is seen in the prompt.
    """
    for exchange, run in answered(replayed):
        agreed, truth = exchange["cost"]["consensus_usd"], exchange["truth"] or {}
        if agreed is None or (exchange["kind"] == "generateContent" and truth.get("input_audio")):
            continue
        if run.provider in {None, "openai_compatible"}:
            assert (run.cost, exchange["provider"] == "openai") == (None, False), exchange["index"]
        else:
            assert float(run.cost or 0) == pytest.approx(agreed, rel=1e-3), exchange["index"]


def test_the_model_that_answered_is_known_unless_langchain_drops_it(replayed: Pairs) -> None:
    """Every answer names its model, but for text completions, and streams whose choices never said that they ended."""
    for exchange, run in answered(replayed):
        if exchange["kind"] == "completions" or run.response_model == exchange["response_model"]:
            continue
        assert (exchange["streaming"], run.response_model) == (True, None), exchange["index"]


def test_streams_show_their_first_token(replayed: Pairs) -> None:
    """A streamed answer has a time to its first token, within its duration; one that came whole has none."""
    for exchange, run in answered(replayed):
        assert run.streaming is exchange["streaming"], exchange["index"]
        if run.ttft_s is not None:
            assert 0 < run.ttft_s <= run.duration_s


def test_failures_are_errors_of_a_known_kind_without_usage(replayed: Pairs) -> None:
    """What a provider refuses, or LangChain cannot read, is an error with unknown usage; nothing is booked for it."""
    expected = {400: "bad_request", 401: "auth", 403: "auth", 404: "bad_request", 429: "rate_limit", 500: "server"}
    failed = [(exchange, run) for exchange, run in replayed if run.status is not Status.SUCCESS]
    for exchange, run in failed:
        assert run.status is Status.ERROR
        assert run.error_type
        assert run.usage is None
        assert run.cost is None
        if exchange["status"] in expected:
            assert run.error_category == expected[exchange["status"]], exchange["index"]
    assert {exchange["index"] for exchange, _ in failed} >= {
        exchange["index"] for exchange, _ in replayed if exchange["status"] != 200
    }


def test_what_a_message_says_reads_like_the_message() -> None:
    """The excerpt of a message that is kept for the drainer reads as the message itself does."""
    message = AIMessage(
        "Yes.",
        id="msg_1",
        usage_metadata={
            "input_tokens": 30,
            "output_tokens": 9,
            "total_tokens": 39,
            "input_token_details": {"cache_read": 5, "ephemeral_1h_input_tokens": 7},
            "output_token_details": {"flex_reasoning": 4},
        },
        response_metadata={"model_name": "gpt-5", "finish_reason": "stop", "service_tier": "flex"},
    )
    reading = read_response(answers.said_by(message, streamed=False), provider="openai")
    assert reading == read_response(message, provider="openai")
    assert reading.usage is not None
    assert (reading.usage.cache_write_tokens, reading.usage.reasoning_tokens) == (7, 4)


@pytest.fixture
def streamed_usage() -> Exchange:
    """A stream that states usage in its last chunk."""
    return next(e for e in exchanges() if e["kind"] == "chat.completions" and e["streaming"] and e["truth"])


def test_a_broken_stream_keeps_what_it_had_stated(
    recorder: Recorder, seen: Captured[Invocation], streamed_usage: Exchange
) -> None:
    """A connection that breaks before the usage came is a connection error with unknown usage, not with none."""
    with ReplayServer([streamed_usage], cut_after=3) as server:
        model = ChatOpenAI(model="gpt-4o", api_key=KEY, base_url=f"{server.url(0)}/v1", max_retries=0)
        with pytest.raises(Exception, match=r"peer closed|incomplete|connection|Connection"):
            list(model.stream("hello", config={"callbacks": [ObservabilityHandler()]}))
    (run,) = seen
    assert (run.status, run.error_category, run.usage, run.cost) == (Status.ERROR, "connection", None, None)
    assert run.ttft_s is not None


@pytest.mark.parametrize(
    ("base_url", "model", "provider"),
    [
        (None, "gpt-4o", "openai"),
        ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b", "groq"),
        ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.6", "openrouter"),
        ("https://acme.openai.azure.com/openai/v1", "gpt-4o", "azure.ai.openai"),
        ("http://127.0.0.1:4000/v1", "gpt-4o", "openai"),
        ("http://127.0.0.1:4000/v1", "anthropic/claude-sonnet-4.6", "anthropic"),
        ("http://127.0.0.1:4000/v1", "openai/gpt-oss-120b", "openai_compatible"),
        ("http://127.0.0.1:4000/v1", "llama", None),
        ("not an address", "our-model", None),
    ],
)
def test_an_openai_client_is_billed_by_whom_it_talks_to(base_url: str | None, model: str, provider: str | None) -> None:
    """The address names the provider; at an unknown address, only a vendor's own model does."""
    said = {"ls_provider": "openai", "ls_model_name": model}
    assert models.asked_for(said, {}, {"openai_api_base": base_url}).provider_name == provider


def test_the_quick_reader_reads_what_the_general_one_does() -> None:
    """Where the quick reader dares to read a recorded answer, the general one reads the same; mostly it dares."""
    listener, recorded = Listener(), exchanges()
    with ReplayServer(recorded) as server:
        for position, exchange in enumerate(recorded):
            if exchange["status"] == 200:
                call(exchange, server.url(position), listener)
    said = [
        one for streamed in (False, True) for m in listener.messages if (one := answers.said_by(m, streamed=streamed))
    ]
    quick = [(one, reading) for one in said if (reading := answers.quick_reading(one))]
    for one, reading in quick:
        assert reading == read_response(one)._replace(provider=None)
    assert len(quick) > len(said) / 2 > 50


COUNTS = st.one_of(st.none(), st.integers(-3, 300), st.just(True), st.just(1.0), st.just("7"), st.just(10**13))
WORDS = st.one_of(st.none(), st.text("ab-", max_size=3), st.just("lc_run-1"), st.just(7))
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": COUNTS,
        "output_tokens": COUNTS,
        "total_tokens": COUNTS,
        "total_cost": st.just(0),
        "input_token_details": st.dictionaries(
            st.sampled_from(["cache_read", "cache_creation", "audio", "flex_cache_read", "ephemeral_5m_input_tokens"]),
            COUNTS,
        ),
        "output_token_details": st.dictionaries(st.sampled_from(["reasoning", "audio", "priority_reasoning"]), COUNTS),
    },
)
ABOUT = st.dictionaries(
    st.sampled_from(
        ["model_name", "model", "finish_reason", "stop_reason", "service_tier", "id", "error", "token_usage"]
    ),
    WORDS,
)


@given(usage=USAGES, about=ABOUT, name=WORDS)
def test_the_quick_reader_agrees_on_any_answer(usage: Any, about: Any, name: Any) -> None:
    """On any numbers and words, the quick reader reads what the general one reads, or leaves it to that one."""
    said = {"usage_metadata": usage, "response_metadata": about, "id": name}
    reading = answers.quick_reading(said)
    if reading is not None:
        assert reading == read_response(said)._replace(provider=None)


@pytest.mark.parametrize(
    "details",
    [
        {"input_token_details": {"video": 1}},
        {"output_token_details": {"reasoning": -1}},
        {"input_token_details": {"cache_read": "3"}},
        {"input_token_details": {"cache_read": 8, "cache_creation": 8}},
    ],
)
def test_the_quick_reader_leaves_what_does_not_fit(details: Any) -> None:
    """Details of other kinds, invalid counts, or more than the whole are left to the general reader."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **details}
    assert answers.quick_reading({"usage_metadata": usage, "response_metadata": {}, "id": None}) is None


def test_a_model_class_without_provider_is_known_by_its_model() -> None:
    """LangChain calls a provider by the name of the class where it states none; the model's name says more."""
    assert models.asked_for({"ls_provider": "mygateway"}, {"model": "gpt-4o"}, {}).provider_name == "openai"


def test_sound_that_google_counts_as_text_has_no_cost(seen: Captured[Invocation]) -> None:
    """Google's package does not say how many tokens were audio, which cost more: the cost is unknown, not too low."""
    handler = ObservabilityHandler()
    metadata = {"ls_provider": "google_genai", "ls_model_name": "gemini-2.5-flash"}
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105}
    sound = {"type": "media", "mime_type": "audio/wav", "data": ""}
    contents: list[Any] = ["text", [{"type": "text", "text": "x"}, "more"], [sound]]
    for content in contents:
        handler_call(handler, HumanMessage(content), metadata, usage)
    assert [run.cost is None for run in seen] == [False, False, True]
    assert [run.usage and run.usage.input_tokens for run in seen] == [100, 100, 100]


def handler_call(
    handler: ObservabilityHandler, prompt: HumanMessage, metadata: dict[str, Any], usage: Any, **asked: Any
) -> None:
    """One call as LangChain tells it."""
    run_id = uuid4()
    handler.on_chat_model_start({}, [[prompt]], run_id=run_id, metadata=metadata, **asked)
    message = AIMessage("Yes.", usage_metadata=usage, response_metadata={"model_name": metadata["ls_model_name"]})
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)


MEDIA: dict[str, dict[str, Any]] = {
    "audio by data URI": {"type": "input_audio", "data": "data:audio/wav;base64,AAAA"},
    "audio in a URL of an image": {"type": "image_url", "image_url": {"url": "data:audio/mp3;base64,AAAA"}},
    "video by file URI": {"type": "media", "file_uri": "https://generativelanguage.googleapis.com/v1beta/files/a"},
    "video by file URI and type": {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://bucket/a.mp4"},
    "YouTube": {"type": "media", "file_uri": "https://www.youtube.com/watch?v=a"},
    "YouTube in short": {"type": "image_url", "image_url": "https://youtu.be/a"},
}


@pytest.mark.parametrize("part", MEDIA.values(), ids=MEDIA)
def test_sound_is_seen_however_it_is_passed(part: dict[str, Any], seen: Captured[Invocation]) -> None:
    """Audio and video, by content, by file or by page, have no price where Google's package counts them as text."""
    metadata = {"ls_provider": "google_genai", "ls_model_name": "gemini-2.5-flash"}
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105}
    handler_call(ObservabilityHandler(), HumanMessage([{"type": "text", "text": "What?"}, part]), metadata, usage)
    assert [(run.cost, run.pricing) for run in seen] == [(None, Pricing.UNPRICED)]


def test_cached_content_may_hold_sound(seen: Captured[Invocation]) -> None:
    """What Google keeps in its cache may be audio, so a call that asks for it is partially priced."""
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105, "input_token_details": {"cache_read": 90}}
    metadata = {"ls_provider": "google_genai", "ls_model_name": "gemini-2.5-flash"}
    asked = {"invocation_params": {"cached_content": "cachedContents/a"}}
    handler_call(ObservabilityHandler(), HumanMessage("What?"), metadata, usage, **asked)
    assert [(run.pricing, run.price_gap) for run in seen] == [(Pricing.PARTIAL, "details_dropped")]
