"""A LangGraph agent with a tool and a streamed answer. Runs offline: python examples/langgraph_streaming.py."""

from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs.testing import capture_invocations


class ScriptedModel(BaseChatModel):
    """Streams a fixed text. In your service: ChatAnthropic(model="claude-sonnet-4-5")."""

    script: list[list[AIMessageChunk]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="anthropic", ls_model_name="claude-sonnet-4-5")

    def bind_tools(self, *_: Any, **__: Any) -> "ScriptedModel":
        """The script knows which tools it calls."""
        return self

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("this model only streams")

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for chunk in self.script.pop(0):
            yield ChatGenerationChunk(message=chunk)


@tool
def open_tasks(team: str) -> int:
    """How many tasks a team has open."""
    return len(team)


def end() -> AIMessageChunk:
    """The last chunk, with what a provider says about the whole answer."""
    return AIMessageChunk(
        content="",
        usage_metadata={"input_tokens": 400, "output_tokens": 30, "total_tokens": 430},
        response_metadata={"model_name": "claude-sonnet-4-5-20250929"},
    )


question = AIMessageChunk(
    content="",
    tool_call_chunks=[
        {"type": "tool_call_chunk", "id": "1", "index": 0, "name": "open_tasks", "args": '{"team": "billing"}'}
    ],
)
words = [AIMessageChunk(content=word) for word in ("Billing ", "has ", "7 ", "open ", "tasks.")]
agent = create_agent(ScriptedModel(script=[[question, end()], [*words, end()]]), [open_tasks], name="CountingAgent")

if __name__ == "__main__":
    config: RunnableConfig = {"callbacks": [ObservabilityHandler()], "configurable": {"thread_id": "thread-7"}}
    with capture_invocations() as seen:
        given: Any = {"messages": [{"role": "user", "content": "How many tasks has billing open?"}]}
        for message, _ in agent.stream(given, config, stream_mode="messages"):
            if isinstance(message, AIMessageChunk):
                print(message.text, end="", flush=True)
        print()
        for run in seen:
            print(f"{run.operation} {run.name}: {run.status} in {run.duration_s * 1000:.1f} ms, cost {run.cost}")
