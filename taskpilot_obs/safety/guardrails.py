"""Options for single checks: mode, stages, failure behaviour and timeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Severity, Stage
from taskpilot_obs.safety.options import Stages, as_name, as_stages, one_of

Mode = Literal["monitor", "enforce"]
"""`monitor` records what would be refused; `enforce` refuses it."""
OnError = Literal["open", "closed"]
"""The effect of a failed check: the work continues (`open`), or is refused in enforce mode (`closed`)."""

_MODES: tuple[Mode, ...] = ("monitor", "enforce")
_ON_ERROR: tuple[OnError, ...] = ("open", "closed")


class Check(NamedTuple):
    """A policy or guardrail with options of its own, accepted wherever a policy or guardrail is.

    An option that is None comes from the check itself, then from the place where it is attached.
    """

    check: Any
    """The policy or guardrail: an object with `check(subject)`, or a function of a subject."""
    name: str | None = None
    """A metric label, so of a bounded set."""
    severity: Severity | None = None
    """The severity of a policy's violations."""
    stages: tuple[Stage, ...] | None = None
    """The stages at which it runs."""
    mode: Mode | None = None
    on_error: OnError | None = None
    """By default `open` in monitor mode and `closed` in enforce mode."""
    timeout_s: float | None = None
    """Seconds that an asynchronous check may take; after that it counts as failed."""


def check_with(
    check: Callable[..., object] | object,
    *,
    name: str | None = None,
    severity: Severity | str | None = None,
    stages: Stages | Stage | str | None = None,
    mode: Mode | None = None,
    on_error: OnError | None = None,
    timeout_s: float | None = None,
) -> Check:
    """Give a policy or guardrail options of its own: `check_with(judge, stages="output", timeout_s=2)`.

    Options left out come from the check itself, then from the place where it is attached.

    Args:
        check: an object with `check(subject)`, or a function of a subject.
        name: a metric label, so of a bounded set.
        severity: of a policy's violations: low, medium, high or critical.
        stages: where it runs: `input`, `output` or both.
        mode: `enforce` or `monitor`.
        on_error: `open` or `closed`: whether the work goes on where the check fails.
        timeout_s: seconds that an asynchronous check may take; after that it counts as failed.

    Returns:
        The check, for `policies=` or `guardrails=`.

    Raises:
        ConfigurationError: an option is not one of those that `Check` describes.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigurationError(f"timeout_s: expected seconds above 0, got {timeout_s!r}")
    return Check(
        check,
        None if name is None else as_name(name),
        None if severity is None else one_of(Severity, "severity", severity),
        None if stages is None else as_stages(stages),
        None if mode is None else as_mode(mode),
        None if on_error is None else as_on_error(on_error),
        timeout_s,
    )


def as_mode(given: str) -> Mode:
    """Parse a mode.

    Raises:
        ConfigurationError: it is not a mode; the message names the allowed ones.
    """
    for mode in _MODES:
        if given == mode:
            return mode
    raise ConfigurationError(f"mode: expected monitor or enforce, got {given!r}")


def as_on_error(given: str) -> OnError:
    """Parse an `on_error` value.

    Raises:
        ConfigurationError: it is not one; the message names the allowed ones.
    """
    for on_error in _ON_ERROR:
        if given == on_error:
            return on_error
    raise ConfigurationError(f"on_error: expected open or closed, got {given!r}")
