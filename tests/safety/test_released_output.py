"""What adapters note as handed out by a framework's stream is judged where no whole output is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from _runs import judging

from taskpilot_obs.budgets import Budget
from taskpilot_obs.integration import (
    ActiveInvocation,
    Status,
    check_output,
    check_released_async,
    end_early,
    get_recorder,
    note_released,
)
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import capture_invocations, fresh_recorder


def streaming() -> ActiveInvocation:
    """A run that has handed out two pieces."""
    run = get_recorder().start_llm(model="gpt-4o-mini")
    for piece in ("my card ", "", "is 4111"):
        note_released(run, piece)
    return run


def early(run: ActiveInvocation) -> None:
    """End it in an event loop."""
    asyncio.run(end_early(run, ConnectionError()))


def asked_before(run: ActiveInvocation) -> None:
    """Have it judged, and end it later."""
    asyncio.run(check_released_async(run))
    run.fail(ConnectionError())


ENDS: dict[str, Callable[[ActiveInvocation], None]] = {
    "failed": lambda run: run.fail(ConnectionError()),
    "left": lambda run: run.end_as(Status.ABANDONED),
    "early": early,
    "asked before": asked_before,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_run_that_ends_early_is_judged_once(end: Callable[[ActiveInvocation], None]) -> None:
    """However it ends: one decision about one text, which its record counts as a violation of nothing withheld."""
    with judging() as judged:
        run = streaming()
        end(run)
        end(run)
        note_released(run, "more")
        assert judged.asked == [("chat", "my card is 4111")]
        assert judged.results == ["bypassed"]
        assert judged.bypassed == 1


def test_a_whole_output_is_judged_in_place_of_its_pieces() -> None:
    """`check_output` settles the pieces, whether the run then succeeds or fails; a success alone asks nothing."""
    with judging() as judged:
        run = streaming()
        check_output(run, "whole", released=True)
        run.fail(ConnectionError())
        other = streaming()
        other.end_as(Status.SUCCESS)
        assert judged.asked == [("chat", "whole")]


def test_asynchronous_checks_are_awaited_by_those_who_can() -> None:
    """`end_early` awaits an asynchronous check; `fail` cannot, and the check counts as failed."""
    with judging(asynchronous=True) as judged:
        early(streaming())
        assert judged.asked == [("chat", "my card is 4111")]
        streaming().fail(ConnectionError())
        assert len(judged.asked) == 1
        assert judged.results == ["bypassed", "error"]


def test_a_run_without_an_end_counts_its_checks() -> None:
    """A finalizer asks no checks, because it runs anywhere: what they did not see is counted."""
    with judging() as judged:
        run = streaming()
        get_recorder().flush()
        del run
        gc.collect()
        assert (judged.asked, judged.bypassed) == ([], 1)


def test_a_cancellation_within_a_check_does_not_keep_the_run_open() -> None:
    """A second cancellation ends the check; the run ends all the same, and is not asked about again."""

    async def main() -> list[Invocation]:
        task = asyncio.ensure_future(end_early(streaming(), asyncio.CancelledError()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [*seen]

    with judging(asynchronous=True), capture_invocations() as seen:
        (run,) = asyncio.run(main())
        assert run.status is Status.CANCELLED


def test_nothing_is_kept_without_a_check_of_outputs() -> None:
    """Without checks, with budgets alone and where recording is off, pieces are dropped."""
    for options in ({}, {"budgets": [Budget("all", limit_usd=1, action="enforce")]}, {"enabled": False}):
        with fresh_recorder(**options):
            run = streaming()
            released = None if run.details is None else run.details.released
            assert released is None or not released.settle()
            run.fail(ConnectionError())
