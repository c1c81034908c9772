"""Runs that are over already, as `record_llm_call` and `record_run` report them: one record each, and no span."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, Unpack

from taskpilot_obs._recording.attributes import plain_text
from taskpilot_obs._recording.context import NOT_STATED, IdentityOptions, StatedIdentity
from taskpilot_obs._recording.invocation import BEGUN, LOST, ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.statuses import error_type, status_of_name
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import SUCCESS, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs.records import Started, Usage

MAX_SECONDS: Final = 10**9
_NO_LINEAGE: Final = (None, None)


class EndedOptions(IdentityOptions, total=False):
    """What `record_llm_call` and `record_run` take about any run that is over."""

    agent: str | None
    workflow: str | None
    ended_at: datetime | float | None
    error: BaseException | None
    error_type: str | None
    error_message: str | None


class Facts(NamedTuple):
    """What is known of any run that is over."""

    status: Status | str | None
    """How it ended; None where the error tells, or means success."""
    duration_seconds: float
    ended_at: datetime | float | None
    error: BaseException | None
    error_type: str | None
    error_message: str | None
    lineage: tuple[str | None, str | None]
    """The workflow and the agent that it belonged to."""
    identity: StatedIdentity


def facts_of(
    status: Status | str | None,
    duration_seconds: float,
    *,
    agent: str | None = None,
    workflow: str | None = None,
    ended_at: datetime | float | None = None,
    error: BaseException | None = None,
    error_type: str | None = None,
    error_message: str | None = None,
    **identity: Unpack[IdentityOptions],
) -> Facts:
    """What a caller states about a run that is over; the arguments are fields of `Facts` and `EndedOptions`."""
    whom = StatedIdentity(**identity) if identity else NOT_STATED
    return Facts(status, duration_seconds, ended_at, error, error_type, error_message, (workflow, agent), whom)


class StatedAnswer(NamedTuple):
    """What is known of the answer of an LLM call that is over."""

    usage: object
    """What `record_usage` takes as a whole."""
    cost: Decimal | float | str | None
    """In USD."""
    cached: bool | None
    """Whether the application's own cache answered."""
    time_to_first_token: float | None
    """In seconds from the start."""
    retries: int
    streaming: bool
    response_model: str | None
    response_id: str | None
    finish_reasons: Sequence[str]
    service_tier: str | None


_FIRST_DETAIL: Final = StatedAnswer._fields.index("response_model")
_NO_DETAILS: Final = (None, None, (), None)


class _Stated(ActiveInvocation):
    """A run whose workflow and agent may be stated, because no run around it tells them."""

    __slots__ = ()

    stated: tuple[str | None, str | None]

    def lineage(self) -> tuple[str | None, str | None]:
        """The stated workflow and agent; what is left out comes from the context."""
        workflow, agent = super().lineage()
        if self.stage >= BEGUN:
            return workflow, agent
        stated_workflow, stated_agent = self.stated
        agent = agent if stated_agent is None or self.callsite.is_agent else stated_agent
        if stated_workflow is not None and not self.callsite.is_workflow:
            return stated_workflow, agent
        is_new_task = stated_agent is not None and self.parent is None and not self.callsite.is_inner
        return stated_agent if is_new_task else workflow, agent

    def is_task(self) -> bool:
        """Whether it is a task: not an agent for which a workflow or an agent above is stated."""
        return super().is_task() and (self.callsite.is_workflow or self.stated == _NO_LINEAGE)

    def _freeze_start(self) -> Started:
        begun = super()._freeze_start()
        if self.stated == _NO_LINEAGE:
            return begun
        workflow, agent = self.lineage()
        return begun._replace(workflow=workflow, agent=agent, is_task=self.is_task())


class StatedRun(_Stated):
    """A workflow, agent or tool call that is over."""

    __slots__ = ("stated",)


class StatedCall(_Stated, LlmInvocation):
    """An LLM call that is over."""

    __slots__ = ("stated",)


class RecordedRun:
    """What was booked of a run: who it is, and how it ended.

    Args:
        run: the run; None where nothing is recorded (`enabled=False`).
    """

    __slots__ = ("_run",)

    def __init__(self, run: ActiveInvocation | None) -> None:
        self._run = run

    @property
    def request_id(self) -> str | None:
        """The request that it is booked under, for feedback; None where nothing is recorded."""
        return None if self._run is None else self._run.request_id

    @property
    def invocation_id(self) -> str | None:
        """The identifier of its records; None where nothing is recorded."""
        return None if self._run is None else self._run.invocation_id

    @property
    def status(self) -> Status | None:
        """How it ended; None where nothing is recorded."""
        return None if self._run is None else self._run.status


class RecordedCall(RecordedRun):
    """What was booked of an LLM call: its usage and its cost, worked out when asked for.

    Args:
        call: the call; None where nothing is recorded (`enabled=False`).
    """

    __slots__ = ("_call",)

    def __init__(self, call: LlmInvocation | None) -> None:
        super().__init__(call)
        self._call = call

    @property
    def usage(self) -> Usage | None:
        """The tokens; None where they are unknown, and for a hit of a cache of the application."""
        return None if self._call is None or self._call.cached else self._call.usage

    @property
    def cost(self) -> Decimal | None:
        """The cost in USD; None where it is unknown, and for a hit. The first one asked for loads the price table."""
        return None if self._call is None else self._call.price()

    @property
    def cost_source(self) -> str | None:
        """Where the cost comes from: `price_table`, `own_price`, `provider` or `caller`; None without a cost."""
        return self._call.cost_source if self._call is not None and self.cost is not None else None

    @property
    def error_category(self) -> str | None:
        """One of `semconv.ERROR_CATEGORIES` where the call failed."""
        return None if self._call is None else self._call.error_category


def book_run(make: Callable[[], StatedRun], facts: Facts, runtime: RecorderRuntime) -> RecordedRun:
    """Record a workflow, an agent's run or a tool call that is over.

    Args:
        make: makes the run.
        facts: what is known of it.
        runtime: the runtime of its recorder.

    Raises:
        ValueError: the status is unknown.
    """
    return RecordedRun(_book("record_run", make, facts, runtime))


def book_call(
    make: Callable[[], StatedCall], facts: Facts, answer: StatedAnswer, runtime: RecorderRuntime
) -> RecordedCall:
    """Record an LLM call that is over.

    Args:
        make: makes the call.
        facts: what is known of it.
        answer: what is known of its answer.
        runtime: the runtime of its recorder.

    Raises:
        ValueError: the status is unknown.
    """
    return RecordedCall(_book("record_llm_call", make, facts, runtime, lambda call: _note_answer(call, answer)))


R = TypeVar("R", StatedRun, StatedCall)


def _book(
    where: str, make: Callable[[], R], facts: Facts, runtime: RecorderRuntime, note: Callable[[R], None] | None = None
) -> R | None:
    """Make a run and end it; None where nothing is recorded, or where it failed, which is counted."""
    facts = _checked(facts)
    run: R | None = None
    if runtime.enabled:
        with guarded(where, runtime.counters):
            run = make()
            ended_ns = _prepare(run, facts)
            if note is not None:
                note(run)
            _finish(run, facts, ended_ns)
    return run


def _checked(facts: Facts) -> Facts:
    return facts if facts.status is None else facts._replace(status=Status(facts.status))


def _prepare(run: StatedRun | StatedCall, facts: Facts) -> int:
    """Note what a run belonged to, what it worked for and when it began.

    Returns:
        When it ended, on the recorder's clock. Times that cannot be read are counted, and it ends now.
    """
    workflow, agent = facts.lineage
    run.stated = (None if workflow is None else plain_text(workflow), None if agent is None else plain_text(agent))
    scope = facts.identity.scope()
    if scope is not None:
        run.scope = scope
    runtime = run.callsite.runtime
    ended_ns = runtime.now()
    if facts.ended_at is not None:
        with guarded("ended_at", runtime.counters):
            ended_ns = runtime.clock.ticks(_unix_ns(facts.ended_at))
    run.stage = LOST  # never announced: its end brings both of its records
    run.started_ns = ended_ns
    seconds = facts.duration_seconds
    if type(seconds) is float:  # cannot fail, and is what most callers have
        run.started_ns -= nanoseconds(seconds)
    else:
        with guarded("duration_seconds", runtime.counters):
            run.started_ns -= nanoseconds(seconds)
    return ended_ns


def _finish(run: StatedRun | StatedCall, facts: Facts, ended_ns: int) -> None:
    """End a prepared run with the outcome that is stated."""
    if facts.status is None and facts.error is None and facts.error_type is None:
        run.end(SUCCESS, at_ns=ended_ns)
        return
    at_unix_ns = run.callsite.runtime.clock.unix_ns(ended_ns)
    if facts.error is not None and facts.status is None:
        run.fail(facts.error, at_unix_ns=at_unix_ns)
        return
    name = facts.error_type if facts.error is None else error_type(type(facts.error))
    status = facts.status or (Status.SUCCESS if name is None else status_of_name(name))
    run.end_as(status, error_type=name, error_message=facts.error_message, at_unix_ns=at_unix_ns)


def _note_answer(call: LlmInvocation, answer: StatedAnswer) -> None:
    if answer.usage is not None:
        call.note_usage(answer.usage)
    if answer.cost is not None:
        call.set_cost(answer.cost)
    if answer.cached is not None:
        call.set_cached(answer.cached)
    if answer.streaming:
        call.set_streaming()
    if answer.time_to_first_token is not None:
        call.first_token_after(answer.time_to_first_token)
    if answer.retries != 0:
        with guarded("retries", call.callsite.runtime.counters):
            call.retries = max(0, int(answer.retries))
    if answer[_FIRST_DETAIL:] != _NO_DETAILS:
        call.record_answer(
            model=answer.response_model,
            response_id=answer.response_id,
            finish_reasons=answer.finish_reasons,
            service_tier=answer.service_tier,
        )


def _unix_ns(moment: datetime | float) -> int:
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return int(seconds * 1e9)


def nanoseconds(seconds: float) -> int:
    """A duration in nanoseconds; 0 where it is NaN, infinite or negative."""
    return int(seconds * 1e9) if 0 < seconds < MAX_SECONDS else 0
