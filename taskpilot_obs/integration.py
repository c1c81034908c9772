"""The public interface for integrations and for custom frameworks.

This module is stable: names are added in minor versions and removed or changed in major ones only.
`docs/extending.md` shows each of them at work.

**Where a framework calls you before and after the work**, start a run, make it current while the work runs, and end it
once::

    recorder = get_recorder()
    run = recorder.start("execute_tool", "search")           # or start_llm(model=…, provider=…)
    with attached(run):                                      # runs beneath find their parent; an exception ends it
        check_input(run, arguments={"query": query})         # policies, guardrails, budgets: raises RefusedError
        result = work()
        check_output(run, result)
    run.stop()

`attached` is `attach()` and `detach()` around a block, with `fail(error)` for what leaves it; hooks that are called
before and after the work call these themselves.

A run whose last reference goes before it has ended is recorded as `abandoned`. `fail` and `stop` on a run that has
ended do nothing.

**Where a framework streams**, `note_released(run, piece)` keeps what is handed out. A stream that is read to its end is
checked by `check_output(run, whole, released=True)`. For one that is left or cut, `fail(error)` and `end_as(status)`
ask about the pieces; in asynchronous code `await end_early(run, error)` does, and awaits asynchronous checks.

**Where a framework does not report failures**, `on_failure(run, tell)` calls `tell(run, error)` just before an
exception ends the run around the work.

**Where a framework reports work after the fact**, by spans or events, adopt it: `recorder.adopt(…)` and
`recorder.adopt_llm(…)` take the parent, the start time and the existing span; `stop`, `fail` and `end_as` take the end
time. `recorder.record_llm_call(…)` and `recorder.record_run(…)` do it in one call, and return a `RecordedCall` or a
`RecordedRun`.

**Where a client sends requests to models** (a provider's SDK), `call_model` and `call_model_async` do all of it around
one function that sends: checks and budgets before, the record, streams to their end, and no second record where another
layer records the call.

**Where two layers see the same LLM call**, `recorder.add_llm_listener(…)` reports the calls that others record.
`open_llm_call()` and `open_run(operation, name)` find the run of a layer above that records this very work. One by
`track_llm`, which `block_above()` finds, knows no content: ask the checks about it where you do.
`current_question()` is about the run that a check is being asked about here, and `is_judged(run)` tells whether it is a
given one: what a check does is not the work of that run.

**Where a framework keeps context by itself**, `add_current_resolver(find)` lets decorators and `track_*` blocks find
the run that they belong to.

**Where a framework raises exceptions that are not failures** (a hand-over, a pause for a human),
`register_status(class_name, status)` declares the status of runs that they end.

Failures of your adapter must not reach the application: wrap its own work in `with guarded("my_framework",
recorder.counters):`, which counts and logs an exception, and re-raises only what is addressed to the
application (`KeyboardInterrupt`, `CancelledError`).
"""

from __future__ import annotations

from taskpilot_obs._enforcement.adapters import (
    answer_limits,
    attached,
    block_above,
    is_content_read,
    note_sound_dropped,
    on_failure,
    open_llm_call,
    open_run,
)
from taskpilot_obs._enforcement.asking import CheckQuestion, current_question, is_judged
from taskpilot_obs._enforcement.enforcer import unwrap_refusal
from taskpilot_obs._enforcement.model_calls import (
    ModelRequest,
    call_model,
    call_model_async,
    count_attempt,
    expect_calls,
    expect_request_elsewhere,
)
from taskpilot_obs._enforcement.run_checks import (
    check_input,
    check_input_async,
    check_output,
    check_output_async,
    check_released,
    check_released_async,
    end_early,
    note_released,
)
from taskpilot_obs._enforcement.sdk_clients import wrap_sdk_client
from taskpilot_obs._recording.after_the_fact import RecordedCall, RecordedRun
from taskpilot_obs._recording.callsite import Callsite, LlmCallsite
from taskpilot_obs._recording.context import request_context
from taskpilot_obs._recording.current_run import (
    CURRENT,
    add_current_resolver,
    current_run,
    is_within,
    remove_current_resolver,
)
from taskpilot_obs._recording.invocation import ActiveInvocation, Step, current_running
from taskpilot_obs._recording.llm_invocation import LlmInvocation, LlmListener
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs._recording.spans import SpanIds
from taskpilot_obs._recording.statuses import register_status
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.config import get_recorder
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.records import Operation, Scope, Stage, Status

__all__ = [
    "CURRENT",
    "ActiveInvocation",
    "Callsite",
    "CheckQuestion",
    "LlmCallsite",
    "LlmInvocation",
    "LlmListener",
    "ModelRequest",
    "Operation",
    "RecordedCall",
    "RecordedRun",
    "Recorder",
    "RefusedError",
    "Scope",
    "SpanIds",
    "Stage",
    "Status",
    "Step",
    "add_current_resolver",
    "answer_limits",
    "attached",
    "block_above",
    "call_model",
    "call_model_async",
    "check_input",
    "check_input_async",
    "check_output",
    "check_output_async",
    "check_released",
    "check_released_async",
    "count_attempt",
    "current_question",
    "current_run",
    "current_running",
    "current_scope",
    "end_early",
    "expect_calls",
    "expect_request_elsewhere",
    "get_recorder",
    "guarded",
    "is_content_read",
    "is_judged",
    "is_within",
    "note_released",
    "note_sound_dropped",
    "on_failure",
    "open_llm_call",
    "open_run",
    "register_status",
    "remove_current_resolver",
    "request_context",
    "unwrap_refusal",
    "wrap_sdk_client",
]
