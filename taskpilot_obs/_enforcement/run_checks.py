"""The configured checks, asked about a run by an adapter: before its work, after it, and where its stream is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskpilot_obs._enforcement.enforcer import Enforcer, note_bypass
from taskpilot_obs._enforcement.streams import ReleasedOutput
from taskpilot_obs._recording.block_call import is_limited
from taskpilot_obs._recording.details import Details
from taskpilot_obs.records import Status
from taskpilot_obs.safety.subjects import NO_ARGUMENTS

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation


def check_input(
    run: ActiveInvocation, content: object = None, *, arguments: Mapping[str, object] = NO_ARGUMENTS
) -> None:
    """Run the configured policies, guardrails, token limits and budgets before a run does its work.

    Each result is recorded as a decision of the run.

    Args:
        run: the run that is about to work: a tool call, an agent, an LLM call.
        content: its input: a text, messages, or any nesting of them.
        arguments: a tool's arguments by name.

    Raises:
        RefusedError: a check in enforce mode refused, or an asynchronous check cannot be awaited here. Do not call the
            tool or the model; end the run with `fail(error)`.
    """
    runtime = run.callsite.runtime
    if runtime.enabled and is_checked(run):
        args, kwargs = _as_call(content, arguments)
        if is_limited(run) and runtime.limits is not None and runtime.limits.budgets is not None:
            for budget in runtime.limits.budgets.bypass_in_event_loop(run, args, kwargs):
                note_bypass(runtime, "budget", budget, "its store cannot be queried without blocking the event loop")
        _enforcer_of(run).ask_in(run, args, kwargs)


async def check_input_async(
    run: ActiveInvocation, content: object = None, *, arguments: Mapping[str, object] = NO_ARGUMENTS
) -> None:
    """Like `check_input`, awaiting asynchronous checks."""
    if run.callsite.runtime.enabled and is_checked(run):
        await _enforcer_of(run).ask_in_async(run, *_as_call(content, arguments))


def check_output(run: ActiveInvocation, result: object, *, released: bool = False) -> None:
    """Run the configured policies and guardrails on what a run produced, before it is returned.

    Args:
        run: the run, which has not ended.
        result: its output: a text, messages, a response.
        released: whether the result has already left, as a stream's has: refusals are recorded, and nothing is
            raised.

    Raises:
        RefusedError: a check in enforce mode withholds the result. End the run with `fail(error)`.
    """
    if run.callsite.runtime.enabled and is_checked(run):
        _settle(run)
        enforcer = _enforcer_of(run)
        (enforcer.ask_too_late if released else enforcer.ask_out)(run, result)


async def check_output_async(run: ActiveInvocation, result: object, *, released: bool = False) -> None:
    """Like `check_output`, awaiting asynchronous checks."""
    if run.callsite.runtime.enabled and is_checked(run):
        _settle(run)
        enforcer = _enforcer_of(run)
        await (enforcer.ask_too_late_async if released else enforcer.ask_out_async)(run, result)


def note_released(run: ActiveInvocation, piece: object) -> None:
    """Note a piece that a run's stream hands out, for the case that the stream is left before `check_output`.

    A run that then ends otherwise than as a success (`fail`, `end_as`) has the checks asked about what it has handed
    out by then. Nothing is kept where no check is asked about outputs.

    Args:
        run: the run, which has not ended.
        piece: a text, or an object with texts: the pieces together make one text.
    """
    if not run.callsite.runtime.enabled or not is_checked(run) or not run.is_open:
        return
    if run.details is None:
        run.details = Details()
    if run.details.released is None:
        run.details.released = ReleasedOutput(_enforcer_of(run))
    run.details.released.note(piece)


def check_released(run: ActiveInvocation) -> None:
    """Ask the checks about what a stream that is left or cut has handed out; its run goes on."""
    if run.details is not None and run.is_open:
        run.details.check_released(run)


async def check_released_async(run: ActiveInvocation) -> None:
    """Like `check_released`, awaiting asynchronous checks, each for at most two seconds."""
    details = run.details
    if details is not None and details.released is not None and run.is_open:
        await details.released.leave_async(run)


async def end_early(
    run: ActiveInvocation, error: BaseException | None = None, *, status: Status = Status.ABANDONED
) -> None:
    """End the run of a stream that is left or cut, once the checks are asked about what it has handed out.

    `fail` and `end_as` ask by themselves too, but there asynchronous checks cannot be awaited, and fail. Each check
    gets at most two seconds, because a cancellation waits for it.

    Args:
        run: the run; nothing happens if it has ended.
        error: the exception that has ended it.
        status: how it ends without one.
    """
    try:
        await check_released_async(run)
    finally:
        if error is None:
            run.end_as(status)
        else:
            run.fail(error)


def is_checked(run: ActiveInvocation) -> bool:
    """Whether a check, a token limit or a budget applies to a run."""
    callsite = run.callsite
    runtime = callsite.runtime
    return runtime.checks is not None or runtime.limits is not None or callsite.checks is not None


def _settle(run: ActiveInvocation) -> None:
    """Ask no further about pieces: the whole output is asked about."""
    if run.details is not None and run.details.released is not None:
        run.details.released.settle()


def _enforcer_of(run: ActiveInvocation) -> Enforcer:
    return Enforcer(run.callsite.runtime, run.callsite.checks)


def _as_call(content: object, arguments: Mapping[str, object]) -> tuple[tuple[object, ...], Mapping[str, object]]:
    return (() if content is None else (content,)), arguments
