"""The real LiteLLM against a provider on loopback: records, ends of every kind, refusals, one record beside others."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from _bridged import openai_spans_bridged
from _provider import Provider, serving
from _runs import cancel_under_way, figures, table

from taskpilot_obs import observe_agent, observe_llm, track_agent, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Decision, Invocation
from taskpilot_obs.safety import DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

if find_spec("litellm") is None:
    assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "litellm", "litellm is not installed"
    pytest.skip("litellm is NOT INSTALLED: scripts/test_frameworks.sh litellm", allow_module_level=True)

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be fetched when LiteLLM is imported

import litellm
from taskpilot_obs_litellm import ObservabilityCallback, observe

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own, of pydantic and of coroutines that it drops
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider that closes each connection, because LiteLLM leaves its clients to the garbage collector."""
    with serving() as server:
        handler: Any = server.RequestHandlerClass
        server.RequestHandlerClass = type("OneAnswer", (handler,), {"protocol_version": "HTTP/1.0"})
        yield server


@pytest.fixture(autouse=True)
def callback(recorder: Recorder) -> Iterator[ObservabilityCallback]:
    made = observe()
    yield made
    litellm.callbacks.remove(made)


def asked(provider: Provider, text: str = "hi", **options: Any) -> dict[str, Any]:
    """The arguments of a call."""
    messages = [{"role": "user", "content": text}]
    base = {"api_base": f"{provider.url}/v1", "api_key": "x", "model": "openai/gpt-4o-mini", "max_retries": 0}
    return {"messages": messages, **base, **options}


def until(found: Callable[[], object]) -> None:
    """Wait for what LiteLLM's own threads report."""
    waiting = threading.Event()
    for _ in range(int(WITHIN_S / 0.02)):
        if found():
            return
        waiting.wait(0.02)
    raise AssertionError("nothing was recorded in time")


async def until_async(found: Callable[[], object]) -> None:
    """Wait for what LiteLLM's own tasks report."""
    for _ in range(int(WITHIN_S / 0.02)):
        if found():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing was recorded in time")


def the_call(seen: Captured[Invocation]) -> Invocation:
    (run,) = [run for run in seen if run.provider is not None]
    return run


def test_a_call(provider: Provider, seen: Captured[Invocation]) -> None:
    """A call is beneath its agent, with the provider's usage and cost, and in the agent's sums: it ends before it."""
    with track_agent("Planner"):
        litellm.completion(**asked(provider))
    run = the_call(seen)
    assert table(seen) == [("Planner", None, "success"), ("gpt-4o-mini", "Planner", "success")]
    assert figures(run) == (100, 20, 40, 8)
    assert (run.provider, run.streaming, run.cost is not None) == ("openai", False, True)
    (agent,) = [one for one in seen if one.name == "Planner"]
    assert agent.rollup is not None
    assert (agent.rollup.llm_calls, agent.rollup.input_tokens) == (1, 100)


def test_an_asynchronous_call(provider: Provider, seen: Captured[Invocation]) -> None:
    """As a synchronous one: beneath its agent, in the agent's sums."""

    @observe_agent("Planner")
    async def plan() -> None:
        await litellm.acompletion(**asked(provider))

    asyncio.run(plan())
    run = the_call(seen)
    assert table(seen) == [("Planner", None, "success"), ("gpt-4o-mini", "Planner", "success")]
    assert figures(run) == (100, 20, 40, 8)
    assert next(one.rollup for one in seen if one.name == "Planner").input_tokens == 100  # type: ignore[union-attr]  # it has one


def test_other_interfaces(provider: Provider, seen: Captured[Invocation]) -> None:
    """Responses, embeddings and another provider's protocol."""
    litellm.responses(input="hi", **{name: value for name, value in asked(provider).items() if name != "messages"})
    until(lambda: len(seen) == 1)
    litellm.embedding(model="openai/text-embedding-3-small", input=["hi"], api_base=f"{provider.url}/v1", api_key="x")
    until(lambda: len(seen) == 2)
    litellm.completion(**asked(provider, model="anthropic/claude-sonnet-4-5", api_base=provider.url))
    found = sorted((run.operation.value, run.provider, run.usage[:2] if run.usage else None) for run in seen)
    assert found == [
        ("chat", "anthropic", (100, 20)),
        ("chat", "openai", (100, 20)),
        ("embeddings", "openai", (7, 0)),
    ]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream(stated: bool, is_async: bool, provider: Provider, seen: Captured[Invocation]) -> None:
    """A stream has its first token. Its usage is what the provider states; what LiteLLM makes up is not recorded."""
    options: dict[str, Any] = {"stream": True, **({"stream_options": {"include_usage": True}} if stated else {})}

    async def read() -> None:
        async for _ in await litellm.acompletion(**asked(provider, **options)):
            pass
        await until_async(lambda: list(seen))

    if is_async:
        asyncio.run(read())
    else:
        for _ in litellm.completion(**asked(provider, **options)):
            pass
        until(lambda: list(seen))
    run = the_call(seen)
    assert figures(run) == ((100, 20, 40, 8) if stated else None)
    assert run.attributes.get("usage_not_stated") is (None if stated else True)
    assert (run.status.value, run.streaming, run.ttft_s is not None) == ("success", True, True)


@pytest.mark.parametrize("is_async", [True, False])
def test_failed(is_async: bool, provider: Provider, seen: Captured[Invocation]) -> None:
    """A failed call is an error with its class, its category and no cost."""

    def fail() -> None:
        if is_async:
            asyncio.run(litellm.acompletion(**asked(provider, "FAIL")))
        else:
            litellm.completion(**asked(provider, "FAIL"))

    with pytest.raises(litellm.exceptions.InternalServerError):
        fail()
    until(lambda: list(seen))
    run = the_call(seen)
    assert (run.status.value, run.error_type) == ("error", "litellm.exceptions.InternalServerError")
    assert (run.error_category, run.usage, run.cost) == ("server", None, None)


ATTEMPTS = [("error", None), ("success", (100, 20, 40, 8))]


def attempts(seen: Captured[Invocation]) -> list[tuple[str, object]]:
    """Status and figures of each call, in the order of their starts."""
    return [(run.status.value, figures(run) if run.usage else None) for run in seen if run.provider is not None]


def described_once(provider: Provider, text: str) -> dict[str, Any]:
    """The arguments of a call whose attempts have one description, as the proxy passes them."""
    given = {"model": "house", "messages": [{"role": "user", "content": text}], "litellm_call_id": text}
    logging, given = litellm.utils.function_setup(
        "acompletion", litellm.utils.Rules(), datetime.now(tz=UTC).replace(tzinfo=None), **given
    )
    return {**given, "litellm_logging_obj": logging}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("by", ["retry", "fallback"])
def test_attempts_of_a_router(
    by: str, provider: Provider, seen: Captured[Invocation], *, shared: bool, stream: bool
) -> None:
    """An attempt that fails is an error, and the retry or fallback that succeeds a call of its own with its tokens."""
    served = {name: value for name, value in asked(provider).items() if name != "messages"}
    router = litellm.Router(
        model_list=[{"model_name": name, "litellm_params": served} for name in ("house", "spare")],
        num_retries=1 if by == "retry" else 0,
        fallbacks=[] if by == "retry" else [{"house": ["spare"]}],
        retry_after=0,
    )
    text = f"ONCE {by} {shared} {stream}"
    given = described_once(provider, text) if shared else {**asked(provider, text), "model": "house"}
    given = {name: value for name, value in given.items() if name not in ("api_base", "api_key", "max_retries")}
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}

    async def work() -> None:
        answer = await router.acompletion(**given, **options)
        if stream:
            async for _ in answer:
                pass
        await until_async(lambda: len(seen) == 2)

    asyncio.run(work())
    assert attempts(seen) == ATTEMPTS


def test_two_attempts_of_a_router_fail(provider: Provider, seen: Captured[Invocation]) -> None:
    """Each attempt that fails is one error, though LiteLLM reports one failed request."""
    served = {name: value for name, value in asked(provider).items() if name != "messages"}
    router = litellm.Router([{"model_name": "house", "litellm_params": served}], num_retries=1, retry_after=0)

    async def work() -> None:
        with pytest.raises(litellm.exceptions.InternalServerError):
            await router.acompletion(**described_once(provider, "FAIL twice"))

    asyncio.run(work())
    gc.collect()
    assert attempts(seen) == [("error", None)] * 2
    assert {run.error_type for run in seen} == {"litellm.exceptions.InternalServerError"}


def test_each_attempt_is_asked_about(provider: Provider) -> None:
    """A budget that the first attempt has spent refuses the retry."""
    budget = Budget("all", limit_requests=1, action="enforce")
    served = {name: value for name, value in asked(provider).items() if name != "messages"}
    router = litellm.Router([{"model_name": "house", "litellm_params": served}], num_retries=1, retry_after=0)
    before = len(provider.calls)
    with fresh_recorder(budgets=[budget]) as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(BudgetExceededError):
            asyncio.run(router.acompletion(**described_once(provider, "ONCE asked")))
        assert [run.status.value for run in seen] == ["error", "blocked"]
    assert len(provider.calls) == before + 1


def test_cancelled(provider: Provider, seen: Captured[Invocation], callback: ObservabilityCallback) -> None:
    """LiteLLM calls no callback for a cancelled call; it is recorded when LiteLLM lets go of it."""
    asyncio.run(cancel_under_way(provider, litellm.acompletion(**asked(provider, "HANG"))))
    gc.collect()
    assert [status for _, _, status in table(seen)] == ["cancelled"]


def test_a_stream_that_is_left(provider: Provider, seen: Captured[Invocation]) -> None:
    """A stream that is left half-read is abandoned, without a usage."""

    async def leave() -> None:
        stream = await litellm.acompletion(**asked(provider, "SLOW", stream=True))
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(leave())
    gc.collect()
    until(lambda: gc.collect() or list(seen))
    run = the_call(seen)
    assert (run.status.value, run.usage) == ("abandoned", None)


def test_concurrent_calls_have_their_own_parents(provider: Provider, seen: Captured[Invocation]) -> None:
    """Ten agents at once: ten calls, each beneath its own agent."""

    @observe_agent("Planner")
    async def plan() -> None:
        await litellm.acompletion(**asked(provider))

    async def crowd() -> None:
        await asyncio.gather(*(plan() for _ in range(10)))

    asyncio.run(crowd())
    calls = [run for run in seen if run.provider]
    assert len(calls) == len({run.parent_id for run in calls}) == 10


def test_a_hit_of_the_cache_costs_nothing(provider: Provider, seen: Captured[Invocation]) -> None:
    """What LiteLLM answers from its cache is a hit, without tokens and without a cost."""
    from litellm.caching.caching import Cache

    litellm.cache = Cache()
    try:
        for number in (1, 2):
            litellm.completion(**asked(provider, "cached", caching=True))
            until(lambda number=number: len(seen) == number)  # type: ignore[misc]  # a default binds the loop's value
    finally:
        litellm.cache = None
    assert [(run.cached, run.usage is None) for run in seen] == [(None, False), (True, True)]


def test_a_policy_refuses_an_asynchronous_call(provider: Provider) -> None:
    """A refused call does not reach the provider, its exception reaches the caller, and it is blocked."""
    before = len(provider.calls)
    with fresh_recorder(policies=[DenyWords(["forbidden"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(PolicyViolationError):
            asyncio.run(litellm.acompletion(**asked(provider, "forbidden")))
        assert [status for _, _, status in table(seen)] == ["blocked"]
    assert len(provider.calls) == before


def test_a_budget_refuses_an_asynchronous_call(provider: Provider) -> None:
    """A spent budget refuses before the request, and what calls cost is charged."""
    budget = Budget("all", limit_usd="0.00003", action="enforce")
    with fresh_recorder(budgets=[budget]) as fresh, capture_invocations(fresh) as seen:
        asyncio.run(litellm.acompletion(**asked(provider, max_tokens=20)))
        fresh.drain()
        with pytest.raises(BudgetExceededError):
            asyncio.run(litellm.acompletion(**asked(provider, max_tokens=10_000)))
        assert [run.status.value for run in seen] == ["success", "blocked"]


def test_outputs_are_judged(provider: Provider) -> None:
    """An answer has left when it is judged: a refusal in enforce mode is recorded as bypassed."""
    with fresh_recorder(guardrails=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_records(Decision, recorder=fresh) as decisions:
            litellm.completion(**asked(provider))
            asyncio.run(litellm.acompletion(**asked(provider)))
        assert [one.result.value for one in decisions] == ["bypassed", "bypassed"]


def test_a_decorated_call_is_recorded_once(provider: Provider, seen: Captured[Invocation]) -> None:
    """Beneath a call that is recorded by hand, LiteLLM's is that call."""
    with track_llm(provider="openai", model="gpt-4o-mini") as call:
        call.record_response(litellm.completion(**asked(provider)))
    asyncio.run(asyncio.sleep(0))
    assert len(list(seen)) == 1


@pytest.mark.parametrize("is_left", [False, True], ids=["whole", "left"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_a_stream_of_a_decorated_function(
    model: str, is_async: bool, is_left: bool, provider: Provider, seen: Captured[Invocation]
) -> None:
    """A function that returns LiteLLM's stream ends with it, once, with what the provider states."""
    base = provider.url if model.startswith("anthropic") else f"{provider.url}/v1"
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    can_close = True

    @observe_llm
    def ask() -> Any:
        return litellm.completion(**asked(provider, **options, model=model, api_base=base))

    @observe_llm
    async def ask_async() -> Any:
        return await litellm.acompletion(**asked(provider, **options, model=model, api_base=base))

    async def read() -> None:
        stream = await ask_async()
        async for _ in stream:
            if is_left:
                break
        await stream.aclose()

    if is_async:
        asyncio.run(read())
    else:
        stream = ask()
        next(stream) if is_left else list(stream)
        if can_close := hasattr(stream, "close"):
            stream.close()
        del stream
    until(lambda: gc.collect() >= 0 and list(seen))
    (run,) = seen
    assert (run.provider, run.request_model) == tuple(model.split("/"))
    assert run.streaming
    if not can_close and model.startswith("anthropic"):  # LiteLLM 1.103 drops its own streams before their end
        assert run.status.value in ("abandoned", "success")
        return
    assert run.status.value == ("abandoned" if is_left else "success")
    if not is_left:
        assert ((figures(run) or ())[:3], run.ttft_s is not None) == ((100, 20, 40), True)


def test_the_bridge_beside_it_adds_no_record(
    provider: Provider, recorder: Recorder, seen: Captured[Invocation]
) -> None:
    """OpenAI's instrumentor, which sees calls of LiteLLM 1.103, adds none: ten at once and a failure are eleven."""

    async def crowd() -> None:
        await asyncio.gather(*(litellm.acompletion(**asked(provider)) for _ in range(10)))
        with pytest.raises(litellm.exceptions.InternalServerError):
            await litellm.acompletion(**asked(provider, "FAIL"))
        await until_async(lambda: len(seen) >= 11)

    before = len(provider.calls)
    with openai_spans_bridged(recorder):
        asyncio.run(crowd())
    assert len(provider.calls) - before == 11
    assert sorted(status for _, _, status in table(seen)) == ["error"] + ["success"] * 10


PROXY = """
import asyncio, json, os, sys
import taskpilot_obs
from _provider import serving
from taskpilot_obs.budgets import Budget
from taskpilot_obs.safety import DenyWords
from taskpilot_obs.testing import capture_invocations
budget = Budget("team", limit_requests=1, action="enforce", scope={"user": "poor"})
taskpilot_obs.configure(policies=[DenyWords(["forbidden"])], mode="enforce", budgets=[budget])
from fastapi.testclient import TestClient
from litellm.proxy import proxy_server
with serving() as provider, capture_invocations() as seen:
    served = {"model": "openai/gpt-4o-mini", "api_base": provider.url + "/v1", "api_key": "x"}
    config = {
        "model_list": [{"model_name": "house", "litellm_params": served}],
        "litellm_settings": {"callbacks": ["taskpilot_obs_litellm.handler"]},
        "general_settings": {"master_key": "sk-1234"},
        "router_settings": {"num_retries": 1, "retry_after": 0},
    }
    with open(sys.argv[1], "w") as file:
        json.dump(config, file)
    asyncio.run(proxy_server.initialize(config=sys.argv[1]))
    client = TestClient(proxy_server.app)
    answers = []
    for text, user in (("hi", "jane"), ("forbidden", "jane"), ("hi", "poor"), ("hi", "poor"), ("ONCE", "joe")):
        body = {"model": "house", "messages": [{"role": "user", "content": text}], "user": user}
        answer = client.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer sk-1234"})
        answers.append((answer.status_code, answer.json().get("error", {}).get("message")))
    runs = [(run.status.value, run.user, run.request_model, run.usage and run.usage[:2]) for run in seen]
    print(json.dumps({"answers": answers, "runs": runs, "calls": len(provider.calls)}))
"""


def test_the_proxy(tmp_path: Path) -> None:
    """The proxy refuses before it asks a provider, for the user of the request; the client learns no reason."""
    pytest.importorskip("litellm.proxy.proxy_server", reason="needs litellm[proxy]", exc_type=ImportError)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "tests")}
    command = [sys.executable, "-W", "ignore", "-c", PROXY, str(tmp_path / "config.yaml")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answers"] == [
        [200, None],
        [403, "refused by a policy"],
        [200, None],
        [429, "refused by a budget"],
        [200, None],
    ]
    assert found["runs"] == [
        ["success", "jane", "house", [100, 20]],
        ["blocked", "jane", "house", None],
        ["success", "poor", "house", [100, 20]],
        ["blocked", "poor", "house", None],
        ["error", "joe", "house", None],
        ["success", "joe", "gpt-4o-mini", [100, 20]],
    ]
    assert found["calls"] == 4


def test_observe_is_idempotent(callback: ObservabilityCallback) -> None:
    """A second `observe()` adds nothing."""
    assert observe() is callback
    assert litellm.callbacks.count(callback) == 1
