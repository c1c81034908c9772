"""Users' verdicts: counted once a request, and revised by the opposite one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs.records import Feedback

MAX_RATED = 50_000
"""How many rated requests are remembered, so that a second word on one of them is a revision."""


class Verdicts:
    """The last verdict on each of the requests rated last. Belongs to the drainer."""

    def __init__(self) -> None:
        self._rated: OrderedDict[str, bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rated)

    def revise(self, feedback: Feedback) -> Sequence[Feedback]:
        """What a user's word adds to those before it: itself, itself as a revision, or nothing."""
        rated, request_id = self._rated, feedback.request_id
        if not request_id:  # a word on nobody knows what cannot be revised
            return (feedback,)
        before = rated.pop(request_id, None)
        rated[request_id] = feedback.correct
        if len(rated) > MAX_RATED:
            rated.popitem(last=False)
        if before is None:
            return (feedback,)
        return () if before == feedback.correct else (feedback._replace(revision=True),)
