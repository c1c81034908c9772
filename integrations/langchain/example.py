"""A LangGraph graph with an agent in it, observed. Runs offline: python integrations/langchain/example.py."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import GenericFakeChatModel, LangSmithParams
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs.testing import capture_invocations


class FakeModel(GenericFakeChatModel):
    """Returns a fixed answer. In your service: ChatAnthropic(model="claude-sonnet-4-5")."""

    def _get_ls_params(self, *_: Any, **__: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="anthropic", ls_model_name="claude-sonnet-4-5")


def said(text: str) -> FakeModel:
    """A model that answers with this text."""
    usage: Any = {
        "input_tokens": 900,
        "output_tokens": 40,
        "total_tokens": 940,
        "input_token_details": {"cache_read": 800},
    }
    message = AIMessage(text, usage_metadata=usage, response_metadata={"model_name": "claude-sonnet-4-5-20250929"})
    return FakeModel(messages=iter([message]))


def plan(state: MessagesState) -> dict[str, Any]:
    """The first node."""
    return {"messages": [said("Two steps.").invoke(state["messages"])]}


def review(state: MessagesState) -> dict[str, Any]:
    """The second node."""
    return {"messages": [said("Fine.").invoke(state["messages"])]}


if __name__ == "__main__":
    builder = StateGraph(MessagesState)
    builder.add_sequence([("planner", plan), ("reviewer", review)])
    builder.add_edge(START, "planner")
    graph: Any = builder.compile(name="report")
    config = {"callbacks": [ObservabilityHandler()], "configurable": {"thread_id": "thread-7"}}
    with capture_invocations() as seen:
        graph.invoke({"messages": [("user", "Write the report.")]}, config)
        for run in seen:
            print(f"{run.operation.value:16} {run.name:20} {run.status:8} agent={run.agent} cost={run.cost}")
