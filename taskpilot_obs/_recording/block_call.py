"""The call of a `track_llm` block, which others tell from calls whose content is known where they begin."""

from __future__ import annotations

from taskpilot_obs._recording.llm_invocation import LlmInvocation


class BlockCall(LlmInvocation):
    """A call that a `track_llm` block records.

    The block asks budgets by itself, and knows no content: layers beneath it, which do, ask the checks about it.
    """

    __slots__ = ()
