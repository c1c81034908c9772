"""LLM calls and point events told with what is of no use: nothing is raised, and every loss is counted."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from email.message import Message
from types import MappingProxyType
from typing import Any, Self
from unittest.mock import MagicMock

import pytest

from taskpilot_obs import (
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    record_cache_size,
    record_decision,
    record_feedback,
    record_guardrail_block,
    record_llm_call,
    record_policy_violation,
    track_agent,
    track_llm,
    track_tool,
    track_workflow,
)
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import CacheSize, Decision, Feedback, Invocation, Record, Status
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder
from taskpilot_obs.usage import Reading, StreamReader, Usage, read_response


class HostileError(Exception):
    """Raises when it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Unreadable:
    """A response that raises whatever a reader asks it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(name)


def failures(recorder: Recorder, where: str) -> int:
    """How many internal errors were counted there."""
    recorder.drain()
    return recorder.counters.totals[INTERNAL_ERRORS, (where,)]


def test_what_cannot_be_read_is_counted(recorder: Recorder) -> None:
    """A response, an event of a stream and an exception that raise when they are read are counted, each where it is."""
    with track_llm(model="gpt-4o") as call:
        call.record_response(Unreadable())
    assert failures(recorder, "usage") == 1
    with track_llm(model="gpt-4o") as call:
        list(call.stream([Unreadable()]))
    assert failures(recorder, "usage") == 2
    with pytest.raises(HostileError), track_llm(model="gpt-4o"):
        raise HostileError
    assert failures(recorder, "error_category") == 1


class Bare:
    __hash__ = None  # type: ignore[assignment]  # what cannot be a key


@pytest.mark.parametrize(("given", "kept"), [(5, "5"), ([], "<list>"), (Bare(), "<Bare>"), (b"x", "<bytes>")])
def test_a_provider_or_model_that_is_no_text_is_named_by_one(seen: Captured[Invocation], given: Any, kept: str) -> None:
    """A provider or model that is not text raises nothing and loses no call."""
    record_llm_call(model="gpt-4o", provider=given)
    record_llm_call(model=given)
    with track_llm(model=given, provider=given) as call:
        call.record_model(given)
        call.record_usage(input_tokens=1, output_tokens=1)
    record_llm_call(model="gpt-4o", response_model=given)
    assert [run.provider for run in seen][:3] == [kept.lower(), None, kept.lower()]
    assert [run.request_model for run in seen] == ["gpt-4o", kept, kept, "gpt-4o"]
    assert [run.response_model for run in seen] == [None, None, kept, kept]


@pytest.mark.parametrize("options", [{"duration_seconds": "long"}, {"usage": 7}, {"cost": []}, {"attributes": 3}])
def test_a_call_told_wrongly_is_counted(recorder: Recorder, options: Any) -> None:
    """A duration, usage, cost or attributes of no use are counted and logged, not raised."""
    record_llm_call(model="gpt-4o", **options)
    recorder.drain()
    assert sum(n for (metric, _), n in recorder.counters.totals.items() if metric is INTERNAL_ERRORS) == 1


class Spoilt(UserDict[str, object]):
    """A mapping that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("given", [3, 0, "step", ["step"], [("step", "plan")], Unreadable(), Spoilt(step="plan")])
def test_attributes_of_no_use_cost_nothing_else(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Attributes that are not a mapping, or cannot be read, are dropped, counted and logged; the run is kept."""
    with (
        fresh_recorder() as recorder,
        capture_invocations() as calls,
        capture_records(Feedback) as words,
        capture_records(Decision) as decisions,
    ):
        record_llm_call(model="gpt-4o", usage=Usage(150, 50), attributes=given)
        record_feedback("req-1", correct=True, attributes=given)
        record_policy_violation("p", attributes=given)
        record_guardrail_block("g", attributes=given)
        record_decision("d", "allow", attributes=given)
        assert [(call.cost, call.attributes) for call in calls] == [(Decimal("0.000875"), {})]
        assert [(word.request_id, word.attributes) for word in words] == [("req-1", {})]
        assert [(one.name, one.attributes) for one in decisions] == [("p", {}), ("g", {}), ("d", {})]
        places = ("record_llm_call", "record_feedback", "record_decision")
        assert [failures(recorder, where) for where in places] == [1, 1, 3]
    assert [record.message.split()[1] for record in caplog.records] == list(places)


@pytest.mark.parametrize("given", [3, 0, "step", Unreadable(), Spoilt(step="plan")])
def test_attributes_of_no_use_stop_no_block(given: Any) -> None:
    """A block whose attributes are not a mapping runs, and is recorded without them; so is an LLM call."""
    with fresh_recorder() as recorder, capture_invocations() as seen:
        with (
            track_workflow("w", attributes=given),
            track_agent("a", attributes=given),
            track_tool("t", attributes=given),
        ):
            pass
        with track_llm(model="gpt-4o", attributes=given):
            pass
        recorder.start("invoke_agent", "a", attributes=given).stop()
        recorder.start_llm(model="gpt-4o", attributes=given).stop()
        assert [run.attributes for run in seen] == [{}] * 6
        assert [failures(recorder, where) for where in ("start", "start_llm")] == [4, 2]


@pytest.mark.parametrize("decorate", [observe_workflow, observe_agent, observe_tool])
def test_a_decorator_refuses_attributes_that_are_no_mapping(decorate: Any) -> None:
    """Where a function is decorated, attributes that are not a mapping are refused, with what to give instead."""
    with pytest.raises(TypeError, match="attributes: given int; give a mapping"):
        decorate("a", attributes=3)
    with pytest.raises(TypeError, match="attributes: given list; give a mapping"):
        observe_llm(model="gpt-4o", attributes=["step"])  # type: ignore[call-overload]


def test_attributes_of_any_mapping_are_kept() -> None:
    """A mapping of another class than `dict` says the same, also one that is none by name but has `items()`."""
    headers = Message()
    headers["step"] = "plan"
    with fresh_recorder(), capture_records(Feedback) as seen:
        for given in (MappingProxyType({"step": "plan"}), UserDict(step="plan"), headers):
            record_feedback(correct=True, attributes=given)  # type: ignore[arg-type]
        assert [dict(one.attributes) for one in seen] == [{"step": "plan"}] * 3


@pytest.mark.parametrize("seconds", ["long", None, timedelta(seconds=2), 1e308, 10**400])
def test_a_call_with_a_duration_of_no_use_is_booked(seen: Captured[Invocation], seconds: Any) -> None:
    """Tokens and cost of a call are booked although its duration is invalid."""
    record_llm_call(model="gpt-4o", duration_seconds=seconds, usage=Usage(150, 50))
    (run,) = seen
    assert (run.cost, run.duration_s < 1) == (Decimal("0.000875"), True)


@pytest.mark.parametrize(("found", "cached"), [("A secret answer.", True), (None, False), (0, False), ({"a": 1}, True)])
def test_what_a_cache_found_says_whether_it_was_a_hit(seen: Captured[Invocation], found: Any, cached: bool) -> None:
    """`set_cached(cache.get(key))` is a hit or a miss, and keeps nothing of the answer."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.set_cached(found)
    (run,) = seen
    assert run.cached is cached
    assert (run.usage is None, run.cost is None) == (cached, cached)


def test_a_cache_hit_that_cannot_be_told_is_counted(recorder: Recorder) -> None:
    """What has no truth, as an array of numbers has none, is neither hit nor miss, and is counted."""
    undecided: Any = Undecided()
    with track_llm(model="gpt-4o") as call:
        call.set_cached(undecided)
        assert call.cached is None
    assert failures(recorder, "set_cached") == 1


class Undecided:
    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


@pytest.mark.parametrize("model", [None, ""])
def test_a_model_that_nobody_names_is_none(seen: Captured[Invocation], model: Any) -> None:
    """`record_model(response.model)` of a response that names none leaves what is known."""
    with track_llm(model="gpt-4o") as call:
        call.record_model(model)
    with track_llm(model="gpt-4o") as call:
        call.record_model("gpt-4o-2024-08-06")
        call.record_model(model)
    assert [run.response_model for run in seen] == [None, "gpt-4o-2024-08-06"]


@pytest.mark.parametrize("entries", ["many", None, math.nan, math.inf, [], 1j, Unreadable()])
def test_a_cache_size_that_is_no_number_is_counted(recorder: Recorder, entries: Any) -> None:
    """A cache size that is not a number is dropped, counted and logged."""
    with Sizes(recorder) as sizes:
        record_cache_size("answers", entries)
        record_cache_size("answers", 3)
    assert sizes == [3]
    assert failures(recorder, "record_cache_size") == 1


class Sizes(list[int]):
    """The cache sizes that are recorded meanwhile."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def export(self, batch: Sequence[Record], /) -> None:
        self.extend(record.entries for record in batch if isinstance(record, CacheSize))

    def __enter__(self) -> Self:
        self._recorder.pipeline.add("sizes", self)
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.drain()


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 150, "completion_tokens": 50}, Usage(150, 50)),
        ({"input_tokens": 150, "output_tokens": 50}, Usage(150, 50)),
        (
            {"input_tokens": 50, "output_tokens": 50, "cache_read_input_tokens": 100},
            Usage(150, 50, cache_read_tokens=100),
        ),
        ({"promptTokenCount": 150, "candidatesTokenCount": 40, "thoughtsTokenCount": 10}, None),
        (Usage(150, 50), Usage(150, 50)),
    ],
)
def test_a_providers_usage_is_read_as_it_is(seen: Captured[Invocation], given: Any, usage: Usage | None) -> None:
    """The usage passed to a running call, or after the fact, may have the provider's own shape."""
    record_llm_call(model="gpt-4o", usage=given)
    with track_llm(model="gpt-4o") as call:
        call.record_usage(given)
    expected = usage or Usage(150, 50, reasoning_tokens=10)
    for run in seen:
        assert run.usage == expected
        assert not run.usage_inconsistent
    assert len(seen) == 2
    if usage == Usage(150, 50):
        assert seen[0].cost == Decimal("0.000875")


@pytest.mark.parametrize("given", [{"no": "shape"}, {"input_tokens": -1, "output_tokens": 2}, {1: 2}, {}])
def test_a_mapping_that_states_no_usage_is_flagged(seen: Captured[Invocation], given: Any) -> None:
    """What a mapping does not tell stays unknown."""
    record_llm_call(model="gpt-4o", usage=given)
    (run,) = seen
    assert run.usage is None or run.usage.input_tokens is None


class Untouchable(str):
    """Text that must not be taken apart."""

    __slots__ = ()

    def strip(self, *_: Any) -> Any:
        raise RuntimeError

    def splitlines(self, *_: Any) -> Any:
        raise RuntimeError


class UntouchableBytes(bytes):
    """Bytes that must not be decoded."""

    def decode(self, *_: Any) -> Any:
        raise RuntimeError

    splitlines = decode  # type: ignore[assignment]  # nor does this


@pytest.mark.parametrize(
    "text", [Untouchable("{" * 1_000_001), UntouchableBytes(b"{" * 1_000_001)], ids=["str", "bytes"]
)
def test_a_text_too_long_for_a_body_is_not_taken_apart(recorder: Recorder, text: Any) -> None:
    """Text of more than a million characters is refused by its length, before it costs the caller anything."""
    carriers = (text, {"chunk": {"bytes": text}}, {"data": text}, [text])
    for response in carriers:
        assert read_response(response, counters=recorder.counters) == Reading()
    reader = StreamReader(counters=recorder.counters)
    for event in carriers[:3]:
        reader.feed(event)
    assert failures(recorder, "usage") == 0


def chat(**more: Any) -> dict[str, Any]:
    """A whole chat completion, and what a gateway puts beside it."""
    return {
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
        **more,
    }


FAILED = [
    ({"error": {"message": "Rate limit exceeded", "code": 429}}, "rate_limit"),
    ({"error": {"message": "No credits", "code": 402, "metadata": {}}, "user_id": "u"}, "rate_limit"),
    ({"error": {"message": "Provider returned error", "code": "502"}, "model": "x"}, "other"),
    ({"error": {"message": "no", "code": 502}, "model": "x"}, "server"),
    ({"error": {"message": "This model's maximum context length is 8192", "type": "x"}}, "context_length"),
    ({"error": {"type": "overloaded_error", "message": "Overloaded"}, "type": "error"}, "rate_limit"),
    ({"type": "error", "code": "server_error", "message": "m"}, "server"),
    ({"response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}}}, "rate_limit"),
    ({"error": "model 'llama9' not found"}, "other"),
    ({"error": "overloaded", "error_type": "overloaded"}, "other"),
    (chat(error={"message": "no", "code": 503}), "server"),
    ({"choices": [{"finish_reason": "error", "error": {"code": 504, "message": "m"}}]}, "timeout"),
    ('{"error": {"message": "m", "type": "insufficient_quota"}}', "rate_limit"),
    (
        {"result": {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error"}}}},
        "bad_request",
    ),
]


@pytest.mark.parametrize(("body", "category"), FAILED)
def test_a_body_that_is_an_error_is_a_failed_call(
    recorder: Recorder, seen: Captured[Invocation], body: Any, category: str
) -> None:
    """An error with HTTP status 200 ends the call as one, of its category, whichever way the body came."""
    with track_llm(model="gpt-4o") as call:
        call.record_response(body)
    with track_llm(model="gpt-4o") as call:
        list(call.stream([body]))
    later = recorder.start_llm(model="gpt-4o")
    later.read_later(body)
    later.stop()
    observe_llm(model="gpt-4o")(lambda: body)()
    assert [(run.status, run.error_category) for run in seen] == [(Status.ERROR, category)] * 4
    assert {run.error_type for run in seen} == {"response_error"}
    assert len({run.usage for run in seen}) == 1


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(error=None),
        chat(error={}),
        {"answer": "42", "error": "a margin of 2"},
        {"error": {"margin": 2}},
        {"error": 7},
        {"error": True, "answer": "x"},
        MagicMock(),
    ],
)
def test_an_answer_that_speaks_of_an_error_is_none(seen: Captured[Invocation], body: Any) -> None:
    """Values that are not errors of a provider do not fail a call."""
    with track_llm(model="gpt-4o") as call:
        call.record_response(body)
    assert (seen[0].status, seen[0].error_category, seen[0].error_type) == (Status.SUCCESS, None, None)


def test_an_attempt_after_an_error_may_succeed(seen: Captured[Invocation]) -> None:
    """The last response decides: an error that a second attempt made good is none."""
    with track_llm(model="gpt-4o") as call:
        call.record_response({"error": {"message": "busy", "code": 503}})
        call.retry()
        call.record_response(chat())
    assert (seen[0].status, seen[0].retries) == (Status.SUCCESS, 1)


def test_an_error_object_of_openais_client_is_read(seen: Captured[Invocation]) -> None:
    """OpenAI's client makes a completion even of a gateway's error; LangChain raises it."""
    import httpx
    import openai
    from langchain_openai import ChatOpenAI
    from taskpilot_obs_langchain import ObservabilityHandler

    def refuse(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"error": {"message": "Rate limit exceeded", "code": 429}})

    http: Any = httpx.Client(transport=httpx.MockTransport(refuse))
    with http:
        client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1", http_client=http)
        with track_llm(model="gpt-4o") as call:
            call.record_response(client.chat.completions.create(model="gpt-4o", messages=[]))
        model = ChatOpenAI(model="gpt-4o", api_key="x", base_url="http://127.0.0.1", http_client=http)
        with pytest.raises(ValueError, match="Rate limit"):
            model.invoke("hello", {"callbacks": [ObservabilityHandler()]})
    assert [(run.status, run.error_category) for run in seen] == [(Status.ERROR, "rate_limit")] * 2
