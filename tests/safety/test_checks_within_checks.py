"""What a check does itself, and leaves behind: which checks are asked about that, and that it comes to an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import context as otel_context

from taskpilot_obs import observe_tool
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.integration import current_question
from taskpilot_obs.safety import check_with
from taskpilot_obs.testing import fresh_recorder


@observe_tool
async def lookup(text: str) -> str:
    """What the application calls."""
    return text


@observe_tool
async def note(text: str) -> str:
    """What checks call."""
    return text


@observe_tool
def find(text: str) -> str:
    """What checks call that are functions."""
    return text


class LeavesNotes:
    """A check that starts a task at each question, and does not wait for it."""

    def __init__(self, name: str, *, begin: asyncio.Event | None = None) -> None:
        self.name = name
        self.asked: list[str | None] = []
        self.left: list[asyncio.Task[str]] = []
        self._begin = begin

    async def _note(self) -> str:
        if self._begin is not None:
            await self._begin.wait()
        return await note("drop it")

    async def check(self, subject: Any) -> bool:
        self.asked.append(subject.tool)
        self.left.append(asyncio.create_task(self._note()))
        return True


async def settle(*checks: LeavesNotes) -> list[object]:
    """Wait for everything that the checks leave behind."""
    ended: list[object] = []
    while waiting := [task for check in checks for task in check.left if not task.done()]:
        await asyncio.wait(waiting)
    for check in checks:
        ended += await asyncio.gather(*check.left, return_exceptions=True)
    return ended


def test_what_a_check_leaves_behind_does_not_ask_it_again() -> None:
    """A check whose every question starts a tool in a task is asked once about one call, also after it has answered."""

    async def work() -> None:
        begin = asyncio.Event()
        notes = LeavesNotes("notes", begin=begin)
        with fresh_recorder(policies=[check_with(notes, mode="enforce")]):
            await lookup("a")
            begin.set()
            assert await settle(notes) == ["drop it"]
        assert notes.asked == ["lookup"]

    asyncio.run(work())


def test_checks_that_leave_tasks_behind_for_each_other_come_to_an_end() -> None:
    """Each is asked about what the other leaves behind, and neither about what comes of its own question."""

    async def work() -> None:
        first, second = LeavesNotes("first"), LeavesNotes("second")
        with fresh_recorder(policies=[check_with(first, mode="enforce"), check_with(second, mode="enforce")]):
            await lookup("a")
            assert await settle(first, second) == ["drop it"] * 4
        assert first.asked == second.asked == ["lookup", "note"]

    asyncio.run(work())


def test_a_task_of_one_check_is_asked_about_while_another_is_asked() -> None:
    """A tool that a check left behind is refused by the check that is being asked about something else then."""

    async def work() -> None:
        notes = LeavesNotes("notes")

        async def slow(subject: Any) -> bool:
            if subject.tool == "lookup":
                await asyncio.wait(notes.left)
            return "drop" not in subject.text

        with fresh_recorder(policies=[check_with(notes, mode="enforce"), check_with(slow, mode="enforce")]):
            assert await lookup("a") == "a"
            (refused,) = await settle(notes)
        assert isinstance(refused, PolicyViolationError)
        assert refused.policy == "slow"

    asyncio.run(work())


class Rules:
    """Two checks of one object, of which one calls a tool."""

    def uses_tools(self, subject: Any) -> bool:
        return subject.text == "drop it" or bool(find("drop it"))

    def drops_nothing(self, subject: Any) -> bool:
        return "drop" not in subject.text

    @classmethod
    def uses_tools_too(cls, subject: Any) -> bool:
        return subject.text == "drop it" or bool(find("drop it"))

    @classmethod
    def drops_nothing_too(cls, subject: Any) -> bool:
        return "drop" not in subject.text


RULES = Rules()


@pytest.mark.parametrize(
    "checks",
    [
        (RULES.uses_tools, RULES.drops_nothing),
        (Rules.uses_tools_too, Rules.drops_nothing_too),
    ],
    ids=["methods", "class methods"],
)
def test_two_methods_are_two_checks(checks: tuple[Any, Any]) -> None:
    """A tool that one method calls is refused by another one of its object or class, which fails the first."""
    uses, drops = checks
    with (
        fresh_recorder(policies=[check_with(uses, mode="enforce"), check_with(drops, mode="enforce")]),
        pytest.raises(PolicyViolationError) as refused,
    ):
        find("a")
    assert refused.value.policy == uses.__name__


class Key(str):
    """A key of OpenTelemetry's context that cannot be compared."""

    __slots__ = ("error",)
    error: type[BaseException]

    def startswith(self, *_: object) -> bool:
        raise self.error


def keyed(error: type[BaseException]) -> Key:
    """A key that raises."""
    key = Key("application")
    key.error = error
    return key


@pytest.mark.parametrize("key", [("application", 1), 7, keyed(RuntimeError)], ids=["tuple", "number", "hostile"])
def test_any_key_in_opentelemetrys_context_is_left_alone(key: Any) -> None:
    """An application's key of any type does not make a checked call fail, and no question is left open."""
    with fresh_recorder(policies=[check_with(lambda _: True, name="all", mode="enforce")]):
        token = otel_context.attach(otel_context.set_value(key, 2))
        try:
            assert find("a") == "a"
        finally:
            otel_context.detach(token)
    assert current_question() is None


def test_an_interrupt_at_the_start_of_a_question_leaves_nothing() -> None:
    """A Ctrl-C while a question begins passes, and the question does not stay open."""
    with fresh_recorder(policies=[check_with(lambda _: True, name="all", mode="enforce")]):
        token = otel_context.attach(otel_context.set_value(keyed(KeyboardInterrupt), 2))
        try:
            with pytest.raises(KeyboardInterrupt):
                find("a")
        finally:
            otel_context.detach(token)
    assert current_question() is None
