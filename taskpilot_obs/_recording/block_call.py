"""The call of a `track_llm` block, which other layers distinguish from calls whose content is known at their start."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from taskpilot_obs._recording.llm_invocation import LlmInvocation

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation


class BlockCall(LlmInvocation):
    """A call that a `track_llm` block records.

    The block asks budgets by itself, and knows no content: layers beneath it, which do, ask the checks about it.
    """

    __slots__ = ()


def is_limited(run: ActiveInvocation) -> TypeGuard[LlmInvocation]:
    """Whether budgets and token limits are to be asked about a run; a `track_llm` block has asked them at its start."""
    return isinstance(run, LlmInvocation) and not isinstance(run, BlockCall)
