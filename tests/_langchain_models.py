"""Fake chat models: real LangChain classes that answer at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

USAGE = UsageMetadata(input_tokens=150, output_tokens=50, total_tokens=200)
COST = 0.0000525
"""Of that usage, with the model's price."""


class Model(BaseChatModel):
    """Answers with `answers` in turn (the last one for ever), or raises the exception that is one of them."""

    answers: Sequence[Any] = ("An answer.",)
    calls: int = 0
    hangs: bool = False

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "ls_temperature": 0.5, "ls_max_tokens": 99}

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _next(self) -> AIMessage:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        message = answer.model_copy() if isinstance(answer, AIMessage) else AIMessage(answer)
        message.usage_metadata = USAGE
        message.response_metadata = {"model_name": "gpt-4o-mini-2024-07-18", "finish_reason": "stop"}
        return message

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next())])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self.hangs:
            await asyncio.sleep(60)
        return self._generate(messages)

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        answer = self._next()
        for word in str(answer.content).split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        wanted = [
            ToolCallChunk(name=each["name"], args=json.dumps(each["args"]), id=each["id"], index=number)
            for number, each in enumerate(answer.tool_calls)
        ]
        last = AIMessageChunk(
            content="", usage_metadata=USAGE, response_metadata=answer.response_metadata, tool_call_chunks=wanted
        )
        yield ChatGenerationChunk(message=last)

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(60 if self.hangs else 0)
            yield chunk


def asks_for(tool: str, **arguments: Any) -> AIMessage:
    """An answer that calls a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": "call_1"}])
