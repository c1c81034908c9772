"""Checks that ask a model: their calls are recorded, priced and limited like others, and are not checked in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
import taskpilot_obs_anthropic
import taskpilot_obs_openai
from _bridged import openai_spans_bridged
from _provider import TEXT, Provider, serving

from taskpilot_obs import observe_agent, observe_llm, observe_tool, request_context, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.integration import Operation, check_input, get_recorder
from taskpilot_obs.records import Decision, Invocation
from taskpilot_obs.safety import DenyWords, blocked, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

JUDGED, JUDGE = "gpt-4o", "gpt-4o-mini"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


class Sdk:
    """An SDK's wrapped clients: `ask` is synchronous, `ask_async` is not."""

    def __init__(self, name: str, provider: Provider) -> None:
        self._url = provider.url
        self._is_openai = name == "openai"
        self.judged, self.judge = (JUDGED, JUDGE) if self._is_openai else ("claude-opus-4-6", "claude-haiku-4-5")
        self.questions: list[str] = []

    def _options(self, model: str, text: str) -> dict[str, Any]:
        self.questions.append(model)
        return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}

    def ask(self, model: str, text: str = "hello", **more: Any) -> Any:
        if self._is_openai:
            with openai.OpenAI(api_key="k", base_url=f"{self._url}/v1", max_retries=0) as client:
                return taskpilot_obs_openai.wrap(client).chat.completions.create(**self._options(model, text), **more)
        with anthropic.Anthropic(api_key="k", base_url=self._url, max_retries=0) as client:
            return taskpilot_obs_anthropic.wrap(client).messages.create(**self._options(model, text), **more)

    async def ask_async(self, model: str, text: str = "hello") -> Any:
        if self._is_openai:
            async with openai.AsyncOpenAI(api_key="k", base_url=f"{self._url}/v1") as client:
                return await taskpilot_obs_openai.wrap(client).chat.completions.create(**self._options(model, text))
        async with anthropic.AsyncAnthropic(api_key="k", base_url=self._url) as client:
            return await taskpilot_obs_anthropic.wrap(client).messages.create(**self._options(model, text))


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest, provider: Provider) -> Sdk:
    return Sdk(request.param, provider)


@pytest.fixture
def gpt(provider: Provider) -> Sdk:
    return Sdk("openai", provider)


@contextmanager
def checked_by(*guardrails: Any, **options: Any) -> Iterator[Captured[Invocation]]:
    """A recorder with these guardrails, which are asked about every call."""
    with (
        fresh_recorder(guardrails=[*guardrails], **{"mode": "enforce", **options}) as fresh,
        capture_invocations(fresh) as seen,
    ):
        yield seen


def calls_of(seen: Captured[Invocation]) -> dict[str, list[Invocation]]:
    """The LLM calls by model."""
    found: dict[str, list[Invocation]] = {}
    for run in seen:
        if run.operation is Operation.CHAT:
            found.setdefault(run.request_model or "", []).append(run)
    return found


def judge_of(sdk: Sdk, verdict: Any = None) -> Callable[[Any], Any]:
    """A guardrail that asks a model, and then answers so."""

    def judge(subject: Any) -> Any:
        sdk.ask(sdk.judge, f"Is this harmful? {subject.text}")
        return verdict

    return judge


def judge_async_of(sdk: Sdk) -> Callable[[Any], Any]:
    """An asynchronous guardrail that asks a model."""

    async def judge_async(subject: Any) -> None:
        await sdk.ask_async(sdk.judge, f"Is this harmful? {subject.text}")

    return judge_async


def run_judged(sdk: Sdk, stages: Any, *, is_async: bool) -> Captured[Invocation]:
    """One call of an agent, judged at these stages of the call alone."""

    def calls_only(judge: Any) -> Any:
        return lambda subject: judge(subject) if subject.operation is Operation.CHAT else None

    if not is_async:
        with checked_by(check_with(calls_only(judge_of(sdk)), name="judge", stages=stages)) as seen:
            observe_agent("Asker")(sdk.ask)(sdk.judged)
        return seen

    judge = judge_async_of(sdk)

    async def judge_calls(subject: Any) -> None:
        if subject.operation is Operation.CHAT:
            await judge(subject)

    with checked_by(check_with(judge_calls, name="judge", stages=stages)) as seen:
        asyncio.run(observe_agent("Asker")(sdk.ask_async)(sdk.judged))
    return seen


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("stages", [("input",), ("output",), ("input", "output")], ids="-".join)
def test_the_call_of_a_judge_is_a_record_of_its_own(sdk: Sdk, stages: Any, is_async: bool) -> None:
    """Each request is one record with its own tokens and cost, beneath the call that it judges and of its agent."""
    seen = run_judged(sdk, stages, is_async=is_async)
    calls = calls_of(seen)
    (judged,) = calls[sdk.judged]
    assert len(calls[sdk.judge]) == len(stages) == len(sdk.questions) - 1
    for call in (judged, *calls[sdk.judge]):
        assert call.usage is not None
        assert call.usage[:2] == (100, 20)
        assert (call.agent, call.workflow, call.request_id) == ("Asker", "Asker", judged.request_id)
    assert {call.parent_id for call in calls[sdk.judge]} == {judged.invocation_id}
    (agent,) = (run for run in seen if run.operation is Operation.AGENT)
    assert agent.rollup is not None
    assert agent.rollup.llm_calls == len(sdk.questions)
    assert agent.rollup.cost == sum(call.cost or Decimal("NaN") for each in calls.values() for call in each)


def test_what_a_refusing_judge_costs(sdk: Sdk, provider: Provider) -> None:
    """A call that a judge refuses costs nothing, and the judge's call what it cost."""
    with checked_by(judge_of(sdk, blocked("harmful"))) as seen, pytest.raises(GuardrailBlockedError):
        sdk.ask(sdk.judged)
    calls = calls_of(seen)
    (judged,), (judge,) = calls[sdk.judged], calls[sdk.judge]
    assert (judged.status.value, judged.usage, judged.cost) == ("blocked", None, None)
    assert judge.status.value == "success"
    assert judge.cost is not None
    assert len(provider.calls) == 1


def test_budgets_count_the_calls_of_judges(gpt: Sdk, provider: Provider) -> None:
    """Two calls with their judges use up a budget of four requests, and no fifth is sent."""
    budget = Budget("calls", limit_requests=4, period="day", action="enforce")
    with checked_by(judge_of(gpt), budgets=[budget]) as seen:
        gpt.ask(JUDGED)
        gpt.ask(JUDGED)
        with pytest.raises(BudgetExceededError):
            gpt.ask(JUDGED)
    assert len(provider.calls) == 4
    assert sorted(run.status.value for run in seen) == ["blocked"] + ["success"] * 4


def test_a_judge_without_budget_fails(gpt: Sdk, provider: Provider) -> None:
    """Where a budget has no room for the judge's call, the check fails: in enforce mode the judged call is refused."""
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with checked_by(judge_of(gpt), budgets=[budget]) as seen, pytest.raises(GuardrailBlockedError):
        gpt.ask(JUDGED)
    assert provider.calls == []
    assert [run.status.value for run in seen] == ["blocked", "blocked"]


def test_a_decorated_call_and_its_judge(gpt: Sdk) -> None:
    """The client beneath `@observe_llm` sends its call, the client beneath its guardrails theirs: two records."""
    ask = observe_llm(guardrails=[check_with(judge_of(gpt), stages=("input", "output"))])(gpt.ask)
    with checked_by() as seen:
        ask(JUDGED)
    assert {model: len(calls) for model, calls in calls_of(seen).items()} == {JUDGED: 1, JUDGE: 2}
    assert len(gpt.questions) == 3


def test_the_judge_of_a_stream(gpt: Sdk, provider: Provider) -> None:
    """A judge that sees a stream at its end makes a call of its own too, and the stream keeps its usage."""
    more = {"stream": True, "stream_options": {"include_usage": True}}
    judged = check_with(judge_of(gpt), stages="output", mode="monitor")
    with checked_by(judged) as seen, openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1") as client:
        said: Any = {"messages": [{"role": "user", "content": "hello"}], **more}
        stream = taskpilot_obs_openai.wrap(client).chat.completions.create(model=JUDGED, **said)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "".join(TEXT)
    calls = calls_of(seen)
    assert [(run.streaming, run.usage and run.usage[:2]) for run in calls[JUDGED]] == [(True, (100, 20))]
    assert [(run.streaming, run.usage and run.usage[:2]) for run in calls[JUDGE]] == [(False, (100, 20))]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_judge_of_a_langchain_model(gpt: Sdk, provider: Provider, is_async: bool) -> None:
    """LangChain's handler records the judged call, and a wrapped client the judge's, though both ask one model."""
    from langchain_openai import ChatOpenAI
    from taskpilot_obs_langchain import ObservabilityHandler

    def judge(_: Any) -> None:
        gpt.ask(JUDGED)

    options: Any = {"api_key": "k", "base_url": f"{provider.url}/v1"}
    handlers: Any = {"model": JUDGED, "api_key": "k", "callbacks": [ObservabilityHandler()]}

    async def ainvoke() -> None:
        async with openai.AsyncOpenAI(**options) as client:
            await ChatOpenAI(async_client=client.chat.completions, **handlers).ainvoke("hello")

    with checked_by(check_with(judge, stages=("input", "output"))) as seen:
        if is_async:
            asyncio.run(ainvoke())
        else:
            with openai.OpenAI(**options) as client:
                ChatOpenAI(client=client.chat.completions, **handlers).invoke("hello")
    calls = calls_of(seen)[JUDGED]
    assert [run.usage and run.usage[:2] for run in calls] == [(100, 20)] * 3 == [(100, 20)] * len(provider.calls)
    assert len({run.invocation_id for run in calls if run.parent_id is None}) == 1


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("is_judged_wrapped", [False, True], ids=["span judged", "wrapped judged"])
def test_a_judge_beside_the_bridge(provider: Provider, wrapped: bool, is_judged_wrapped: bool) -> None:
    """Where OpenAI's instrumentor writes a span of each call, the judged call and the judge's are two records."""
    wrap = taskpilot_obs_openai.wrap

    def judge(_: Any) -> None:
        said: Any = [{"role": "user", "content": "harmful?"}]
        (wrap(other) if wrapped else other).chat.completions.create(model=JUDGED, messages=said)

    @observe_agent("Asker")
    def ask() -> None:
        said: Any = [{"role": "user", "content": "hello"}]
        if is_judged_wrapped:
            wrap(client).chat.completions.create(model=JUDGED, messages=said)
            return
        with track_llm(model=JUDGED, provider="openai") as call:
            check_input(call, "hello")
            call.record_response(client.chat.completions.create(model=JUDGED, messages=said))

    options: Any = {"api_key": "k", "base_url": f"{provider.url}/v1"}
    calls_alone = check_with(lambda subject: judge(subject) if subject.operation is Operation.CHAT else None)
    with (
        openai.OpenAI(**options) as client,
        openai.OpenAI(**options) as other,
        checked_by(calls_alone) as seen,
        openai_spans_bridged(get_recorder()),
    ):
        ask()
    calls = calls_of(seen)[JUDGED]
    assert [(run.agent, run.usage and run.usage[:2]) for run in calls] == [("Asker", (100, 20))] * 2
    assert len(provider.calls) == 2
    assert all(run.cost is not None for run in calls)


def test_judges_do_not_judge_each_other(gpt: Sdk) -> None:
    """Two judges of every call make two calls for one, and a violation in what they quote counts once."""
    first, second = judge_of(gpt), judge_of(gpt)
    words = check_with(DenyWords(["delete"]), mode="monitor")
    with checked_by(first, second, policies=[words]) as seen, capture_records(Decision) as decisions:
        gpt.ask(JUDGED, "delete it")
    assert {model: len(calls) for model, calls in calls_of(seen).items()} == {JUDGED: 1, JUDGE: 2}
    assert [each.name for each in decisions if each.is_violation] == ["deny_words"]


def test_a_judge_that_is_a_decorated_function(gpt: Sdk) -> None:
    """A guardrail that calls a decorated agent, which it is attached to itself, is asked once and ends."""

    def judge(subject: Any) -> None:
        ask_judge(subject.text)

    @observe_agent("Judge", guardrails=[judge], mode="enforce")
    def ask_judge(text: str) -> None:
        gpt.ask(JUDGE, text)

    with checked_by(judge) as seen:
        gpt.ask(JUDGED)
    (call,) = calls_of(seen)[JUDGE]
    assert (call.agent, call.workflow) == ("Judge", "Judge")
    assert [run.name for run in seen if run.operation is Operation.AGENT] == ["Judge"]


def test_checks_that_hold_within_a_check(gpt: Sdk) -> None:
    """What is attached to a judge's own function holds there, and tools that a judge calls are asked about."""

    @observe_agent("Judge", policies=[DenyWords(["forged"])], mode="enforce")
    def ask_judge(text: str) -> None:
        gpt.ask(JUDGE, text)

    @observe_tool("erase")
    def erase(what: str) -> None:
        raise AssertionError(f"{what} is erased")

    refused: list[str] = []

    def judge(subject: Any) -> None:
        with pytest.raises(PolicyViolationError) as forged:
            ask_judge("forged")
        with pytest.raises(PolicyViolationError) as erased:
            erase("everything")
        refused.extend(error.value.policy for error in (forged, erased))

    def tools_only(subject: Any) -> Any:
        return subject.tool is None

    with checked_by(judge, policies=[check_with(tools_only, name="no-tools")]) as seen:
        gpt.ask(JUDGED)
    assert refused == ["deny_words", "no-tools"]
    assert calls_of(seen).keys() == {JUDGED}


def test_the_request_of_a_judge_is_that_of_the_call(gpt: Sdk) -> None:
    """Tenant and user of the judged call are those of the judge's."""
    with checked_by(judge_of(gpt)) as seen, request_context(tenant_id="acme", user_id="u1"):
        gpt.ask(JUDGED)
    assert [(run.tenant, run.user) for run in seen] == [("acme", "u1")] * 2
