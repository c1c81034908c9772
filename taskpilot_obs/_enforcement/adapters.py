"""What adapters of frameworks share: a run around a block, the run that stands for work at hand, what to read of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from taskpilot_obs._enforcement.asking import is_judged
from taskpilot_obs._enforcement.enforcer import unwrap_refusal
from taskpilot_obs._enforcement.run_checks import is_checked
from taskpilot_obs._recording.block_call import BlockCall
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.details import Details
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.providers.limits import MAX_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from taskpilot_obs._recording.invocation import ActiveInvocation, Step
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.records import Operation

_NAMED_FOR_SOUND: Final = re.compile(r"(?<![a-z])(?:audio|realtime|live)(?![a-z])")
"""A word in the name of a model that takes or makes sound."""


class attached:  # noqa: N801  reads as a statement: `with attached(run):`
    """Make a run the current one for a block; an exception that leaves the block ends the run, and passes.

    The block ends the run where the work succeeds, by `stop` or `end_as`.

    Args:
        run: has begun.
        unwrap: finds the exception that decides the status in that of the framework; by default the refusal of a
            check that the framework has wrapped, else the exception itself.
    """

    __slots__ = ("_run", "_step", "_unwrap")
    _step: Step

    def __init__(
        self, run: ActiveInvocation, unwrap: Callable[[BaseException], BaseException] = unwrap_refusal
    ) -> None:
        self._run = run
        self._unwrap = unwrap

    def __enter__(self) -> None:
        """Make it current."""
        self._step = self._run.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            if error is not None:
                self._run.fail(self._unwrap(error))
        finally:
            self._run.detach(self._step)


def open_run(operation: Operation, name: str | None = None) -> ActiveInvocation | None:
    """Return the current run if another layer records this very work; None if it has to be recorded.

    What a check does is never the work of the run that it is asked about.

    Args:
        operation: the kind of work.
        name: of the agent, tool or workflow; any when left out.
    """
    run = current_run()
    if run is None or not run.is_open or run.operation is not operation or name not in (None, run.name):
        return None
    return None if is_judged(run) else run


def open_llm_call() -> LlmInvocation | None:
    """Return the current run if it is a call of a model that goes on; a call within it is the same call.

    The call that a check makes is another one than the call that it is asked about.
    """
    run = current_run()
    return run if isinstance(run, LlmInvocation) and run.is_open and not is_judged(run) else None


def block_above() -> LlmInvocation | None:
    """Return the `track_llm` block that records the call which is about to be sent here; None if there is none.

    A block knows no content, so the layer that sends the request asks the checks: `check_input(block, messages)`.
    """
    run = open_llm_call()
    return run if isinstance(run, BlockCall) else None


def is_content_read(run: ActiveInvocation) -> bool:
    """Whether anything reads what a run is given and returns: content capture, a check, a token limit or a budget.

    Where it is false, an adapter need not build messages and arguments.
    """
    return is_checked(run) or run.callsite.runtime.redactor is not None


def on_failure(run: ActiveInvocation, tell: Callable[[ActiveInvocation, BaseException], None]) -> None:
    """Call back with a run and the exception that ends it (`fail`), just before it ends.

    For an adapter whose framework reports the start of a call and its answer, and no failure: what is still open
    beneath the run has failed with it. A failure of the callback is counted.

    Args:
        run: has not ended; otherwise nothing happens.
        tell: is called once, however often it is given.
    """
    if not run.is_open:
        return
    if run.details is None:
        run.details = Details()
    if tell not in run.details.on_failure:
        run.details.on_failure = (*run.details.on_failure, tell)


def note_sound_dropped(call: LlmInvocation) -> None:
    """State that a framework drops how many tokens were audio, which cost more: the cost of such a call is partial.

    Args:
        call: its model is known; nothing is stated of models that are not named for sound.
    """
    if _NAMED_FOR_SOUND.search(f"{call.request_model} {call.response_model}".lower()):
        call.note_dropped("input_audio_tokens", "output_audio_tokens")


def answer_limits(options: object, counters: InternalCounters | None = None) -> dict[str, object]:
    """Return the limits of the answer's length (`max_tokens` and its likes) that options state.

    Budgets need them: pass them as `arguments` of `check_input`. Options that cannot be read state none, so that the
    checks are asked all the same.

    Args:
        options: a mapping, or an object with attributes; None states none.
        counters: where a failure to read them is counted (`recorder.counters`); it is only logged when left out.
    """
    stated: dict[str, object] = {}
    with guarded("answer_limits", counters):
        read = options.get if isinstance(options, Mapping) else partial(getattr, options)
        stated = {name: read(name, None) for name in MAX_OUTPUT}
    return {name: limit for name, limit in stated.items() if limit is not None}
