"""Checkers: whether an answer is correct, decided by code and not by another model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib import import_module
from typing import Any, Final

from taskpilot_obs.exceptions import ConfigurationError

Checker = Callable[[str, str], bool]
"""Takes the answer and what is expected."""

_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARKS: Final = " \t*_`\"'.,:;!?()[]{}$"
_ACTIONS: Final = frozenset({"goto", "click", "type", "select", "wait"})
_WITH_VALUE: Final = frozenset({"type", "select"})


def exact(answer: str, expected: str) -> bool:
    """Whether the answer is the expected text, but for space around it and upper case."""
    return answer.strip().casefold() == expected.strip().casefold()


def contains(answer: str, expected: str) -> bool:
    """Whether the expected text stands somewhere in the answer, in upper or lower case."""
    return expected.casefold() in answer.casefold()


def number(answer: str, expected: str) -> bool:
    """Whether the last number of the answer is the expected one."""
    found = _NUMBER.findall(answer)
    return bool(found) and _parsed(found[-1]) == _parsed(expected)


def _parsed(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def last_word(answer: str, expected: str) -> bool:
    """Whether the last word of the answer is the expected one."""
    words = answer.split()
    return bool(words) and words[-1].strip(_MARKS).casefold() == expected.casefold()


def steps(answer: str, expected: str) -> bool:
    """Whether the answer is a JSON list of valid steps that does what is expected, in its order.

    Args:
        answer: a list of objects with `action`, `target` and, to type or select, `value`; a code fence is allowed.
        expected: a JSON list of the required steps as `[action, target]` or `[action, target, value]`.
    """
    given = _json_list(answer)
    if given is None or not all(map(_is_step, given)):
        return False
    rest = iter(given)
    return all(any(_does(step, wanted) for step in rest) for wanted in json.loads(expected))


def _json_list(answer: str) -> list[Any] | None:
    start, end = answer.find("["), answer.rfind("]")
    try:
        found = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _is_step(step: object) -> bool:
    if not isinstance(step, Mapping) or step.get("action") not in _ACTIONS:
        return False
    named = isinstance(step.get("target"), str) or step["action"] == "wait"
    return named and (step["action"] not in _WITH_VALUE or isinstance(step.get("value"), str))


def _does(step: Mapping[str, Any], wanted: list[str]) -> bool:
    return [step.get("action"), step.get("target"), step.get("value")][: len(wanted)] == wanted


BUILT_IN: Final[dict[str, Checker]] = {each.__name__: each for each in (exact, contains, number, last_word, steps)}
"""The checkers that a task may name."""


def check_expected(name: str, expected: str) -> None:
    """Refuse an expected answer that a checker cannot compare with, before a call is paid for.

    Args:
        name: of the checker; one of your own may expect anything.
        expected: what the task's line states.

    Raises:
        ConfigurationError: it is not a number, or not a list of steps.
    """
    if name == number.__name__ and not _is_number(expected):
        raise ConfigurationError(f"expected: given {expected!r}; the checker `number` needs a number, such as 42")
    if name == steps.__name__ and not _are_steps(expected):
        allowed = 'a JSON list such as [["click", "#login"], ["type", "#name", "ann"]]'
        raise ConfigurationError(f"expected: given {expected!r}; the checker `steps` needs {allowed}")


def _is_number(text: str) -> bool:
    try:
        return _parsed(text).is_finite()
    except ArithmeticError:
        return False


def _are_steps(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and all(isinstance(step, list) and step for step in found)


def named_checker(name: str) -> Checker:
    """A checker by its name, or by `module:function`.

    Raises:
        ConfigurationError: it is neither.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = imported(name, f"checker: given {name!r}; allowed are {', '.join(BUILT_IN)} or module:function")
    return lambda answer, expected: bool(found(answer, expected))


def imported(path: str, otherwise: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Args:
        path: as it was given.
        otherwise: the message where it names none.

    Raises:
        ConfigurationError: with this message, and why the import failed.
    """
    module, colon, name = path.partition(":")
    if not colon:
        raise ConfigurationError(otherwise)
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{otherwise} ({error})") from error
    if not callable(found):
        raise ConfigurationError(f"{otherwise} ({path} cannot be called)")
    return found  # type: ignore[no-any-return]  # it was checked to be callable
