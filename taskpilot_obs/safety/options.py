"""The options that checks share, validated when a check is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final, TypeVar

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Severity, Stage

E = TypeVar("E", bound=StrEnum)

INPUT: Final = (Stage.INPUT,)
_LONGEST_NAME = 100

Stages = Collection[Stage | str]


def one_of(kind: type[E], option: str, given: str) -> E:
    """Parse a member of `kind`.

    Args:
        kind: the enumeration.
        option: the name of the option, for the message.
        given: a member, or its value.

    Raises:
        ConfigurationError: it is not a member; the message names the allowed ones.
    """
    try:
        return kind(given)
    except ValueError:
        allowed = ", ".join(kind)
        raise ConfigurationError(f"{option}: expected one of {allowed}, got {given!r}") from None


def as_stages(given: Stages | Stage | str) -> tuple[Stage, ...]:
    """Parse one stage or several, without duplicates.

    Raises:
        ConfigurationError: one is not a stage, or none is given.
    """
    several = (given,) if isinstance(given, str) else tuple(given)
    if not several:
        raise ConfigurationError("stages: expected input, output or both, got none")
    return tuple(dict.fromkeys(one_of(Stage, "stages", stage) for stage in several))


def as_name(given: object) -> str:
    """Validate a name for a metric label.

    Raises:
        ConfigurationError: it is not a text of a length that labels take.
    """
    if not isinstance(given, str) or not given.strip() or len(given) > _LONGEST_NAME:
        raise ConfigurationError(f"name: expected 1 to {_LONGEST_NAME} characters, got {given!r}")
    return given


def as_words(option: str, given: Iterable[object]) -> tuple[str, ...]:
    """Validate a list of at least one text, none of them blank.

    Raises:
        ConfigurationError: it is empty, or holds a blank or another object.
    """
    words = (given,) if isinstance(given, str) else tuple(given)
    found = tuple(word for word in words if isinstance(word, str) and word.strip())
    if not found or len(found) != len(words):
        raise ConfigurationError(f"{option}: expected at least one text, none of them blank, got {given!r}")
    return found


def positive(option: str, given: object) -> int:
    """Validate a whole number above 0.

    Raises:
        ConfigurationError: it is another number or object.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ConfigurationError(f"{option}: expected a whole number from 1, got {given!r}")
    return given


class NamedCheck:
    """Base of the shipped policies: a name, the severity of denials, and the stages."""

    __slots__ = ("name", "severity", "stages")

    def __init__(self, name: str, severity: Severity | str, stages: Stages | Stage | str = INPUT) -> None:
        self.name = as_name(name)
        self.severity = one_of(Severity, "severity", severity)
        self.stages = as_stages(stages)
