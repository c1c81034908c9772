"""NeMo Guardrails around observed calls: the real package, a fake model, no network."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

nemo = pytest.importorskip("nemoguardrails", reason="needs nemoguardrails (extra `nemoguardrails`)")

from nemoguardrails import LLMRails, RailsConfig  # noqa: E402  only where it is installed
from nemoguardrails.types import LLMResponse  # noqa: E402  only where it is installed
from taskpilot_obs_nemoguardrails import NemoGuardrail, SyncNemoGuardrail  # noqa: E402  only where it is installed

from taskpilot_obs._api.decorators import observe_agent  # noqa: E402  with the rest
from taskpilot_obs.exceptions import GuardrailBlockedError  # noqa: E402  with the rest
from taskpilot_obs.records import Decision, Stage, Status  # noqa: E402  with the rest
from taskpilot_obs.safety import check_with  # noqa: E402  with the rest
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder  # noqa: E402  with the rest

pytestmark = pytest.mark.filterwarnings("ignore:Use 'nim_base_url' instead:DeprecationWarning")  # of its own defaults

EXAMPLE = Path(__file__).parent.parent / "example.py"
INPUT_AND_OUTPUT = EXAMPLE.read_text().split('"""')[3]
"""The configuration of the example."""
MASK = """
colang_version: "1.0"
rails:
  input:
    flows: [mask]
"""
MASK_FLOW = """
define subflow mask
  $user_message = "something else"
"""


class FakeModel:
    """Says yes to texts about passwords; raises or waits if it is set to."""

    model_name = "fake"
    provider_name = "fake"
    provider_url = None

    def __init__(self, error: Any = None, delay_s: Any = 0.0) -> None:
        self.error = error
        self.delay_s = delay_s
        self.prompts: list[str] = []

    async def generate_async(self, prompt: Any, *, stop: Any = None, **_kwargs: Any) -> Any:
        self.prompts.append(str(prompt))
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return LLMResponse(content="yes" if "password" in str(prompt) else "no")

    async def stream_async(self, prompt: Any, *, stop: Any = None, **_kwargs: Any) -> Any:
        raise AssertionError("rails are not streamed")
        yield


def rails(config: Any = INPUT_AND_OUTPUT, model: Any = None, colang: Any = None) -> Any:
    loaded = RailsConfig.from_content(colang_content=colang, yaml_content=config)
    return LLMRails(loaded, llm=model or FakeModel())


@pytest.fixture(autouse=True)
def loop() -> Any:
    """An event loop that gets closed: the synchronous interface of NeMo leaves its own open."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    own.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def recorder() -> Any:
    with fresh_recorder() as fresh:
        yield fresh


@pytest.fixture
def decisions(recorder: Any) -> Any:
    with capture_records(Decision, recorder) as captured:
        yield captured


@pytest.fixture
def seen(recorder: Any) -> Any:
    with capture_invocations(recorder) as captured:
        yield captured


def support(guardrail: Any, answer: Any = "Fine.", mode: Any = "enforce") -> Any:
    @observe_agent("Support", guardrails=[guardrail], mode=mode)
    async def agent(question: Any) -> Any:
        return answer

    return agent


def ask(agent: Any, question: Any = "Hello") -> Any:
    return asyncio.run(agent(question))


def test_good_conversation_passes(seen: Any, decisions: Any) -> None:
    """What the rails let through goes in and comes out; both checks are recorded with their duration."""
    assert ask(support(NemoGuardrail(rails()))) == "Fine."
    assert seen[0].status is Status.SUCCESS
    assert [(each.name, each.stage, each.result.value) for each in decisions] == [
        ("nemo_guardrails", Stage.INPUT, "passed"),
        ("nemo_guardrails", Stage.OUTPUT, "passed"),
    ]
    assert all(each.duration_s > 0 for each in decisions)


def test_input_rail_blocks(seen: Any, decisions: Any) -> None:
    """A question that the input rail blocks never reaches the agent; the rail is the reason."""
    with pytest.raises(GuardrailBlockedError) as caught:
        ask(support(NemoGuardrail(rails())), "Tell me the password")
    assert (caught.value.stage, caught.value.reason) == ("input", "rail 'self check input'")
    assert seen[0].status is Status.BLOCKED
    assert [each.result.value for each in decisions] == ["blocked"]


def test_output_rail_withholds(seen: Any) -> None:
    """An answer that the output rail blocks is withheld."""
    with pytest.raises(GuardrailBlockedError) as caught:
        ask(support(NemoGuardrail(rails()), answer="The password is hunter2"))
    assert (caught.value.stage, caught.value.reason) == ("output", "rail 'self check output'")
    assert seen[0].status is Status.BLOCKED


def test_monitor_mode_only_records(decisions: Any) -> None:
    """In monitor mode the answer is handed out, and what would have been blocked is recorded."""
    assert ask(support(NemoGuardrail(rails()), mode="monitor"), "Tell me the password") == "Fine."
    assert [each.result.value for each in decisions] == ["would_block", "passed"]


def test_synchronous_agents(seen: Any) -> None:
    """A synchronous agent takes the synchronous guardrail, and refuses the other at decoration."""

    def agent(question: Any) -> Any:
        return "Fine."

    observed = observe_agent("Support", guardrails=[SyncNemoGuardrail(rails())], mode="enforce")(agent)
    assert observed("Hello") == "Fine."
    with pytest.raises(GuardrailBlockedError):
        observed("Tell me the password")
    with pytest.raises(TypeError, match="asynchronous check 'nemo_guardrails'"):
        observe_agent("Support", guardrails=[NemoGuardrail(rails())])(agent)
    assert [run.status for run in seen] == [Status.SUCCESS, Status.BLOCKED]


def test_failing_model_of_the_rails(decisions: Any) -> None:
    """When the rails' own model fails, the check has failed: bypassed in monitor mode, refused in enforce mode."""
    broken = rails(model=FakeModel(error=RuntimeError("down")))
    assert ask(support(NemoGuardrail(broken), mode="monitor")) == "Fine."
    with pytest.raises(GuardrailBlockedError, match="the check failed"):
        ask(support(NemoGuardrail(broken)))
    assert [each.result.value for each in decisions] == ["bypassed", "bypassed", "error"]


def test_timeout_of_the_rails(decisions: Any) -> None:
    """Rails that take longer than the timeout have failed."""
    slow = check_with(NemoGuardrail(rails(model=FakeModel(delay_s=30))), timeout_s=0.05)
    assert ask(support(slow, mode="monitor")) == "Fine."
    assert {each.result.value for each in decisions} == {"bypassed"}


def test_text_that_a_rail_rewrites(decisions: Any) -> None:
    """Rewritten text passes as it was, or is blocked where that was asked for; only configured stages are asked."""
    masking = rails(MASK, colang=MASK_FLOW)
    assert ask(support(NemoGuardrail(masking))) == "Fine."
    with pytest.raises(GuardrailBlockedError, match="a rail rewrites the text"):
        ask(support(NemoGuardrail(masking, name="strict", block_modified=True)))
    assert [(each.name, each.stage.value, each.result.value) for each in decisions] == [
        ("nemo_guardrails", "input", "passed"),
        ("strict", "input", "blocked"),
    ]


def test_rails_without_flows_are_refused() -> None:
    """A guardrail that would check nothing is refused when it is made."""
    with pytest.raises(ValueError, match="neither input nor output"):
        NemoGuardrail(rails("rails: {}"))


def test_example(capsys: Any) -> None:
    """The example runs offline and shows an answer and both ways of being blocked."""
    with fresh_recorder():
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "You asked: Where is my parcel?",
        "blocked at the input: rail 'self check input'",
        "blocked at the output: rail 'self check output'",
    ]
