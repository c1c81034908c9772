"""A request to start a call, and the call that was admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskpilot_obs.budgets.estimates import CallEstimate, StreamEstimate

if TYPE_CHECKING:
    from taskpilot_obs.budgets.ledger import ReservationLine
    from taskpilot_obs.budgets.model import CallScope
    from taskpilot_obs.records import Origin


class AdmissionRequest(NamedTuple):
    """A request to start a call."""

    reservation_id: str
    call: CallScope
    estimate: CallEstimate
    at_unix_ns: int

    @property
    def origin(self) -> Origin:
        """Where the call comes from."""
        return self.call.origin


class Admitted:
    """An admitted call: its reservation, and an estimate of what it has streamed so far.

    Args:
        request: the question.
        is_block: whether the reservation ends with a block of code, in which calls are recorded, rather than with the
            record of one call.
    """

    __slots__ = ("assumed_for", "is_block", "is_cancelled", "is_recorded", "lines", "request", "streamed")

    def __init__(self, request: AdmissionRequest, *, is_block: bool = False) -> None:
        self.request = request
        self.is_block = is_block
        self.lines: tuple[ReservationLine, ...] = ()
        self.streamed = StreamEstimate()
        self.is_cancelled = False
        """Whether the call was cancelled before it was made; a thread may still be reserving for it."""
        self.is_recorded = False
        """Whether a call within the block was recorded."""
        self.assumed_for: str | None = None
        """The call in the block that was charged by estimate, because the reservation is for one call."""

    def note_streamed(self, item: object) -> None:
        """Record one item of the call's stream, for an estimate if its usage is never stated."""
        self.streamed.note(item)

    @property
    def reservation_id(self) -> str:
        """The ID of the reservation, in the ledger and on the call's record."""
        return self.request.reservation_id
