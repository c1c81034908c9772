"""A reservation for a call that somebody else records: a framework's handler, say, which cannot refuse by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taskpilot_obs._recording.context import request_context
from taskpilot_obs._recording.invocation import current_run
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs._recording.statuses import classify
from taskpilot_obs._support.ids import new_request_id
from taskpilot_obs.budgets.admission import AdmissionRequest
from taskpilot_obs.budgets.estimates import estimate_call
from taskpilot_obs.budgets.model import CallScope
from taskpilot_obs.budgets.settlement import RESERVATION
from taskpilot_obs.providers.names import canonical, infer_provider
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.budgets.admission import AdmissionController
    from taskpilot_obs.budgets.settlement import Settler
    from taskpilot_obs.records import Record

_UNBILLED: Final = frozenset({Status.ERROR, Status.BLOCKED})


class _Ended:
    """The end of a reservation, behind the records of its call in the queue."""

    def __init__(self, settler: Settler, reservation_id: str, *, billed: bool) -> None:
        self._settler = settler
        self._id = reservation_id
        self._billed = billed

    def droppable(self) -> bool:
        return False  # what was set aside would count neither as spent nor as free

    def freeze(self, _records: list[Record]) -> None:
        self._settler.end_unrecorded(self._id, billed=self._billed)


class Reservation:
    """Reserve for one LLM call while a block runs, `with` or `async with`; the block makes the call.

    What the call took is booked when its record comes. Where none comes, what was set aside counts as spent.

    Args:
        recorder: whose budgets.
        model: the model asked for.
        provider: who serves it; inferred from the model when left out.
        args: what the call is made with: its text is measured.
        kwargs: likewise; `max_tokens` and its likes state the longest answer, `input_tokens` the input.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        model: str | None,
        provider: str | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self._recorder = recorder
        self._about = (model, canonical(provider) if provider else infer_provider(model))
        self._arguments = (args, kwargs or {})
        self._id = new_request_id()
        self._made = False
        self._step: AbstractContextManager[None] = nullcontext()

    def _admission(self) -> AdmissionController | None:
        budgets, scope = self._budgets(), current_scope.get()
        if not self._recorder.enabled or (scope is not None and RESERVATION in scope.attributes):
            return None
        return budgets

    def _budgets(self) -> AdmissionController | None:
        """The recorder's budgets, where one of them may refuse."""
        parts = self._recorder.parts
        return parts.budgets if parts is not None and parts.budgets is not None and parts.budgets.asks else None

    def _request(self, admission: AdmissionController) -> AdmissionRequest:
        running, scope = current_run(), current_scope.get()
        if scope is None and running is not None:
            scope = running.scope
        workflow, agent = (None, None) if running is None else running.lineage()
        tenant, user = (None, None) if scope is None else (scope.tenant, scope.user)
        model, provider = self._about
        call = CallScope(tenant, agent, workflow, model, provider, user)
        return AdmissionRequest(
            self._id, call, estimate_call(*self._arguments), self._recorder.origin(), admission.now()
        )

    def reserve(self) -> None:
        """Reserve; within another reservation nothing, for that one is made for the call.

        Raises:
            BudgetExceededError: a budget in `enforce` mode has no room.
            BudgetUnavailableError: one that is closed then cannot judge.
        """
        admission = self._admission()
        if admission is not None:
            admission.ask(self._request(admission))
            self._made = True

    async def reserve_async(self) -> None:
        """The same, in an event loop that goes on meanwhile."""
        admission = self._admission()
        if admission is not None:
            await admission.ask_async(self._request(admission))
            self._made = True

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let what begins here be known as the call; a stream is stepped through in several of these."""
        if not self._made:
            yield
            return
        with request_context(**{RESERVATION: self._id}):
            yield

    def end(self, error: BaseException | None = None) -> None:
        """The call is over, or it failed; later calls of this change nothing."""
        parts = self._recorder.parts
        if self._made and parts is not None and parts.settler is not None:
            billed = error is None or classify(type(error))[0] not in _UNBILLED
            self._recorder.pipeline.put(_Ended(parts.settler, self._id, billed=billed))
        self._made = False

    def __enter__(self) -> None:
        self.reserve()
        self._step = self.step()
        self._step.__enter__()

    async def __aenter__(self) -> None:
        await self.reserve_async()
        self._step = self.step()
        self._step.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._step.__exit__(None, None, None)
        self.end(error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)
