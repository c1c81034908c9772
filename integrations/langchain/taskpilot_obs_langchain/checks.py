"""Policies, guardrails, token limits and budgets that are configured for everything, asked about LangChain's runs.

A refusal is raised from the callback: LangChain lets it pass to the caller (`raise_error`), and has not called the tool
or the model by then. It reports no end of a run whose start was refused, so the run ends here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import BaseMessage, ToolMessage

from taskpilot_obs.integration import (
    LlmInvocation,
    RefusedError,
    block_above,
    check_input,
    check_output,
    check_released,
    guarded,
    note_released,
)
from taskpilot_obs_langchain import answers
from taskpilot_obs_langchain.runs import RunEntry, close, take

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.outputs import LLMResult

    from taskpilot_obs.integration import ActiveInvocation
    from taskpilot_obs_langchain.runs import RunRegistry

_NO_ARGUMENTS: Final[Mapping[str, object]] = {}


def before(
    handler: object, runs: RunRegistry, run_id: UUID, content: object, arguments: Mapping[str, object] = _NO_ARGUMENTS
) -> None:
    """Ask before a run does its work.

    Args:
        handler: the first handler notified of it; other handlers run no checks.
        runs: where the run is known.
        run_id: LangChain's identifier of it.
        content: what goes in.
        arguments: the arguments of a call by name.

    Raises:
        RefusedError: a check in enforce mode refused; the run has ended as `blocked`.
    """
    entry = runs.get(run_id.int)
    if type(entry) is not RunEntry or entry.owner is not handler or not entry.mine or entry.run is None:
        return
    try:
        check_input(entry.run, content, arguments=arguments)
    except RefusedError as error:
        take(runs, run_id)
        entry.run.fail(error)
        raise


def before_call(handler: object, runs: RunRegistry, said: Mapping[str, Any], content: object) -> None:
    """Ask before a model is called; its longest answer is stated for budgets. See `before`."""
    entry = runs.get(said["run_id"].int)
    if type(entry) is RunEntry and entry.owner is handler and not entry.mine and entry.run is block_above():
        if entry.run is not None:
            check_input(entry.run, content)
        return
    longest = (said.get("metadata") or _NO_ARGUMENTS).get("ls_max_tokens")
    before(handler, runs, said["run_id"], content, _NO_ARGUMENTS if longest is None else {"max_tokens": longest})


def before_tool(handler: object, runs: RunRegistry, asked: str, said: Mapping[str, Any]) -> None:
    """Ask before a tool or a retriever is called, by its arguments where LangChain states them. See `before`."""
    arguments = said.get("inputs")
    if isinstance(arguments, Mapping):
        before(handler, runs, said["run_id"], None, {str(name): value for name, value in arguments.items()})
    else:
        before(handler, runs, said["run_id"], asked)


def after(runs: RunRegistry, entry: RunEntry, output: object, *, released: bool) -> None:
    """Ask about what a chain or a graph produced, before its caller gets it.

    Args:
        runs: where the run is known.
        entry: the run.
        output: what came out.
        released: whether it was streamed, so that nothing can be withheld.

    Raises:
        RefusedError: a check in enforce mode withholds it; the run has ended as `blocked`.
    """
    run = entry.run
    if not entry.mine or run is None or run.ended:
        return
    answer = output
    with guarded("langchain", run.callsite.runtime.counters):  # a state of a user's own class may raise
        answer = _answer_of(entry, output)
    try:
        check_output(run, answer, released=released)
    except BaseException as error:
        close(runs, entry)
        run.fail(error)
        raise


def _answer_of(entry: RunEntry, output: object) -> object:
    """What a run says: of a graph's state, which holds what went in as well, the last message."""
    messages = output.get("messages") if isinstance(output, Mapping) else None
    whole = entry.above is None or entry.graph
    return messages[-1] if whole and isinstance(messages, list) and messages else output


def note_token(handler: object, runs: RunRegistry, run_id: UUID, token: object) -> None:
    """Note a token of a stream, for budgets and checks: a reader may leave before usage and answer are stated."""
    entry = runs.get(run_id.int)
    if type(entry) is not RunEntry or entry.owner is not handler or not isinstance(entry.run, LlmInvocation):
        return
    if entry.run.admitted is not None:
        entry.run.admitted.note_streamed(token)
    if not entry.left and (entry.mine or entry.run is block_above()):  # LangChain reads on where the reader has left
        note_released(entry.run, token)


def take_call(runs: RunRegistry, run_id: UUID) -> tuple[RunEntry | None, LlmInvocation | None]:
    """Remove and return a model call that ends early; of a block above, ask about the stream, and return nothing."""
    entry = take(runs, run_id)
    if entry is None or not isinstance(entry.run, LlmInvocation):
        return None, None
    if not entry.mine:
        check_released(entry.run)
        return None, None
    return entry, entry.run


def after_call(call: LlmInvocation, response: LLMResult, *, left: bool = False) -> None:
    """Ask about a model's answer; one that was streamed is out already, as far as it was read. See `after`.

    Args:
        call: the call, which has not ended.
        response: its whole answer.
        left: whether LangChain has read the answer's end by itself, because the reader had gone.
    """
    if left:
        check_released(call)
        return
    said = [getattr(each, "message", each) for several in response.generations for each in several]
    _withhold(call, [getattr(each, "content", None) or getattr(each, "text", None) for each in said], call.streaming)


def lend_answer(call: LlmInvocation, response: LLMResult) -> None:
    """Give an answer to the call of a layer above, and ask about it where that layer is a block."""
    with guarded("langchain", call.callsite.runtime.counters):
        answers.lend_usage(call, response)
    if call is block_above():
        after_call(call, response)


def after_tool(run: ActiveInvocation, output: object) -> None:
    """Ask about what a tool or a retriever returned. See `after`."""
    _withhold(run, content_of(output), released=False)


def content_of(output: object) -> object:
    """What a tool returned; of a message its content. Objects of users are not asked for attributes."""
    return output.content if isinstance(output, BaseMessage) else output


def is_failure(output: object) -> bool:
    """Whether a tool failed, which it tells by the status of its message."""
    return isinstance(output, ToolMessage) and output.status == "error"


def _withhold(run: ActiveInvocation, output: object, released: bool) -> None:  # noqa: FBT001  one place reads it
    try:
        check_output(run, output, released=released)
    except BaseException as error:
        run.fail(error)
        raise
