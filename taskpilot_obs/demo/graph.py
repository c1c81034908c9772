"""The same service as a LangGraph, observed by the handler of the LangChain integration. Imported by the demo alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from taskpilot_obs_langchain import ObservabilityHandler
from tenacity import AsyncRetrying, RetryCallState

from taskpilot_obs._api.decorators import observe_tool
from taskpilot_obs.demo.provider import attempts, expected_reply, pieces
from taskpilot_obs.demo.script import EXECUTOR, PLANNER, REVIEWER, WORKFLOW, Reply
from taskpilot_obs.demo.service import FAILURES, Service
from taskpilot_obs.demo.tools import act, no_injection

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

_TASKS: Final = {
    PLANNER: "Plan in at most three short steps how to do this on a task board: ",
    REVIEWER: "Name the one weakest point of this plan in one sentence: ",
    EXECUTOR: "Tell the user in two short sentences that this was done: ",
}


class GraphState(TypedDict, total=False):
    """What travels through the graph."""

    wish: str
    draft: str
    notes: str


class PretendChatModel(BaseChatModel):
    """A chat model that answers for one agent as the script of the demo says."""

    agent: str

    @property
    def _llm_type(self) -> str:
        return "pretend"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        reply = expected_reply(self.agent)
        return LangSmithParams(
            ls_provider=reply.provider, ls_model_name=reply.asked_model, ls_model_type="chat", ls_stop=stop or []
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("this model answers asynchronously: use ainvoke or astream")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = expected_reply(self.agent)
        text = "".join([piece async for piece in self._answer(reply, run_manager)])
        named = {"model_name": reply.model}
        message = AIMessage(text, usage_metadata=_usage(reply), response_metadata=named)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = expected_reply(self.agent)
        async for piece in self._answer(reply, run_manager):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        named = {"model_name": reply.model}
        last = AIMessageChunk(content="", usage_metadata=_usage(reply), response_metadata=named)
        yield ChatGenerationChunk(message=last)

    async def _answer(self, reply: Reply, run_manager: AsyncCallbackManagerForLLMRun | None) -> AsyncIterator[str]:
        async for _ in attempts(reply):
            if run_manager is not None:
                await run_manager.on_retry(RetryCallState(AsyncRetrying(), None, (), {}))
        async for piece in pieces(reply):
            yield piece


def _usage(reply: Reply) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        total_tokens=reply.input_tokens + reply.output_tokens,
        input_token_details=InputTokenDetails(cache_read=reply.cached_tokens),
        output_token_details=OutputTokenDetails(reasoning=reply.reasoning_tokens),
    )


@observe_tool("read_wish", guardrails=[no_injection], mode="enforce")
async def read_wish(wish: str) -> str:
    """What the user wants, unless it is an attack."""
    return wish.strip()


async def _plan(state: GraphState, *, model: BaseChatModel) -> GraphState:
    wish = await read_wish(state["wish"])
    return {"draft": (await model.ainvoke(_TASKS[PLANNER] + wish)).text}


async def _review(state: GraphState, *, model: BaseChatModel) -> GraphState:
    return {"notes": (await model.ainvoke(_TASKS[REVIEWER] + state["draft"])).text}


async def _execute(state: GraphState, *, model: BaseChatModel) -> GraphState:
    await act(state["wish"])
    async for _ in model.astream(_TASKS[EXECUTOR] + state["wish"]):
        pass  # LangGraph passes the pieces on
    return {}


def _compiled(planner: BaseChatModel, reviewer: BaseChatModel, executor: BaseChatModel) -> CompiledStateGraph[Any]:
    graph = StateGraph(GraphState)
    graph.add_node(PLANNER, partial(_plan, model=planner))
    graph.add_node(REVIEWER, partial(_review, model=reviewer))
    graph.add_node(EXECUTOR, partial(_execute, model=executor))
    graph.add_edge(START, PLANNER)
    graph.add_edge(PLANNER, REVIEWER)
    graph.add_edge(REVIEWER, EXECUTOR)
    graph.add_edge(EXECUTOR, END)
    return graph.compile(name=WORKFLOW)


async def _handle(wish: str, *, graph: CompiledStateGraph[Any], handler: ObservabilityHandler) -> AsyncIterator[str]:
    config: RunnableConfig = {"callbacks": [handler]}
    async for piece, metadata in graph.astream({"wish": wish}, config, stream_mode="messages"):
        if cast(dict[str, Any], metadata)["langgraph_node"] == EXECUTOR:
            yield cast(AIMessageChunk, piece).text


def _service(description: str, graph: CompiledStateGraph[Any], failures: tuple[type[Exception], ...]) -> Service:
    return Service(description, partial(_handle, graph=graph, handler=ObservabilityHandler()), failures)


def graph_service() -> Service:
    """The LangGraph on pretend chat models."""
    graph = _compiled(
        PretendChatModel(agent=PLANNER, disable_streaming=True),
        PretendChatModel(agent=REVIEWER, disable_streaming=True),
        PretendChatModel(agent=EXECUTOR),
    )
    return _service("planner, reviewer and executor as a LangGraph", graph, FAILURES)


def live_service(package: str) -> Service:
    """The LangGraph on the chat models of a real provider.

    Args:
        package: `langchain_openai` or `langchain_anthropic`.
    """
    model, failures = _anthropic() if package == "langchain_anthropic" else _openai()
    description = f"planner, reviewer and executor as a LangGraph, live on {type(model).__name__}"
    return _service(description, _compiled(model, model, model), (*FAILURES, *failures))


def _openai() -> tuple[BaseChatModel, tuple[type[Exception], ...]]:
    from langchain_openai import ChatOpenAI
    from openai import OpenAIError

    return ChatOpenAI(model="gpt-4o-mini", stream_usage=True), (OpenAIError,)


def _anthropic() -> tuple[BaseChatModel, tuple[type[Exception], ...]]:
    from anthropic import AnthropicError
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model="claude-haiku-4-5"), (AnthropicError,)
