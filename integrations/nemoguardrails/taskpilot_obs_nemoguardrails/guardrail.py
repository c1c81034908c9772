"""The adapter: a subject becomes a message, the result of the rails a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemoguardrails.rails.llm.options import RailStatus, RailType

from taskpilot_obs.safety import PASSED, CheckInput, GuardrailResult, Stage

if TYPE_CHECKING:
    from nemoguardrails import LLMRails
    from nemoguardrails.rails.llm.options import RailsResult

_ROLES = {Stage.INPUT: ("user", RailType.INPUT), Stage.OUTPUT: ("assistant", RailType.OUTPUT)}


class _Rails:
    def __init__(self, rails: LLMRails, *, name: str = "nemo_guardrails", block_modified: bool = False) -> None:
        self.name = name
        self.stages = _stages_of(rails)
        self._rails = rails
        self._block_modified = block_modified

    def _finding(self, result: RailsResult) -> GuardrailResult:
        if result.status is RailStatus.BLOCKED:
            return GuardrailResult(blocked=True, reason=f"rail {result.rail!r}")
        if result.status is RailStatus.MODIFIED:
            return GuardrailResult(blocked=self._block_modified, reason="a rail rewrites the text")
        return PASSED


class NemoGuardrail(_Rails):
    """The input and output rails of an `LLMRails`, for asynchronous functions.

    Args:
        rails: your rails. Those of the input are asked about what goes in, those of the output about what comes out.
        name: of the guardrail; a metric label.
        block_modified: whether text that a rail rewrites (masks, say) is blocked. A guardrail decides and rewrites
            nothing: by default such text passes as it is.

    Raises:
        ValueError: the rails have neither input nor output rails.
    """

    async def check(self, subject: CheckInput, /) -> GuardrailResult:
        """Ask the rails of the subject's stage."""
        role, rail = _ROLES[subject.stage]
        message = {"role": role, "content": subject.text}
        return self._finding(await self._rails.check_async([message], rail_types=[rail]))


class SyncNemoGuardrail(_Rails):
    """A guardrail of rails for synchronous functions; it blocks the thread while the rails think."""

    def check(self, subject: CheckInput, /) -> GuardrailResult:
        """Ask the rails of the subject's stage."""
        role, rail = _ROLES[subject.stage]
        message = {"role": role, "content": subject.text}
        return self._finding(self._rails.check([message], rail_types=[rail]))


def _stages_of(rails: LLMRails) -> tuple[Stage, ...]:
    configured = rails.config.rails
    stages = tuple(stage for stage in Stage if getattr(configured, stage.value).flows)
    if not stages:
        raise ValueError("the rails have neither input nor output flows: nothing would be checked")
    return stages
