"""Policies in Cedar, decided in the process by cedarpy (extra `cedar`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.safety.engines import (
    CEDAR_TEXT,
    INT64,
    EnginePolicy,
    Files,
    Found,
    PolicyOptions,
    input_document,
    read_files,
    version_of,
)
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult

__all__ = ["CedarPolicy"]

_APPROVAL: Final = "require_approval"
_REASONS: Final = ("reason", "id")
"""The annotations that name a policy in a denial, the first that it has."""
_DECIMAL: Final = ".4f"
"""Cedar's decimals have four places."""
_RESERVED: Final = {"__entity", "__extn", "__expr"}
"""Keys by which Cedar's JSON writes other values than records."""
_WIDEST: Final = 2**63 // 10_000
"""Cedar's decimals are 64 bits wide, places included."""


class CedarPolicy(EnginePolicy):
    """Asks policies in Cedar whether `Agent::"…"` may do `Action::"execute_tool"` with `Tool::"…"`.

    A `forbid` that matches denies the call, with its annotation `@reason` or `@id` as the reason; one with the
    annotation `@require_approval` asks for a person instead. Without a `permit` that matches, the call is not allowed.
    `context` is the input document of all engines, without its nulls. Whole numbers are Longs, numbers with a fraction
    decimals; `context.decimals` is `context.args` with all numbers as decimals. A number that would be rounded
    or cut is its text, so that comparing its size is a failure of the check.

    A policy that cannot be evaluated is a failure of the check, because Cedar would skip it, and a `forbid` with it.
    A schema finds such policies when the check is made.

    Args:
        files: one file of Cedar policies, or several.
        schema: a file with a Cedar schema, which the policies are validated against.
        entities: the groups and attributes of agents and tools, as Cedar's JSON has them.
        **options: those of `PolicyOptions`: name, severity, stages, operations, approved.

    Raises:
        ConfigurationError: files are not Cedar, hold no policy, hold templates, contradict the schema or have
            `@require_approval` on a `permit`, or an option is not as described.
        MissingExtraError: cedarpy is not installed (extra `cedar`).
    """

    __slots__ = ("_approvals", "_entities", "_policies", "_reasons", "version")

    def __init__(
        self,
        files: Files,
        *,
        schema: str | Path | None = None,
        entities: Sequence[Mapping[str, object]] = (),
        **options: Unpack[PolicyOptions],
    ) -> None:
        super().__init__("cedar", options)
        try:
            import cedarpy
        except ImportError:
            raise MissingExtraError("CedarPolicy", "cedar") from None
        texts = read_files(files, CEDAR_TEXT)
        self.version = version_of(texts.values(), [*entities] or None)
        text = "\n".join(texts.values())
        named = ", ".join(texts)
        try:
            self._policies = cedarpy.PolicySet.from_str(text)
            self._entities = cedarpy.Entities.from_json_str(json.dumps([*entities]))
            parsed = self._policies.to_pst()
            found = [] if schema is None else cedarpy.validate_policies(text, _read_schema(schema)).errors
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{named}: is not accepted: {error}") from None
        wrong = [*map(str, found), *_without_effect(parsed)]
        if wrong:
            raise ConfigurationError(f"{named}: {'; '.join(wrong)}")
        annotations = {key: one.annotations for key, one in parsed.static_policies.items()}
        self._approvals = {key for key, notes in annotations.items() if _APPROVAL in notes}
        self._reasons = {key: _reason(notes) for key, notes in annotations.items()}

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Decide; what cannot be decided is a failure of the check."""
        return self._settle(subject, self._find(subject)) if self._concerns(subject) else ALLOW

    def _find(self, subject: CheckInput) -> Found:
        from cedarpy import Decision, is_authorized

        context = input_document(subject)
        request = {
            "principal": {"type": "Agent", "id": context["agent"] or ""},
            "action": {"type": "Action", "id": context["operation"]},
            "resource": {"type": "Tool", "id": context["tool"] or ""},
            "context": {**_cedar(context), "decimals": _cedar(context["args"], _decimal)},
        }
        answer = is_authorized(request, self._policies, self._entities)
        if answer.decision is Decision.NoDecision or answer.diagnostics.errors:
            raise RuntimeError(f"{len(answer.diagnostics.errors)} policies cannot be evaluated for this call")
        if answer.allowed:
            return Found()
        return self._refused(answer.diagnostics.reasons)

    def _refused(self, matched: Iterable[str]) -> Found:
        """Policies that matched: forbids, or none where no permit did."""
        forbids = set(matched)
        denying = sorted(self._reasons[key] for key in forbids - self._approvals)
        denials = tuple(filter(None, denying)) if denying else None
        return Found(denials, needs_approval=bool(forbids & self._approvals), is_allowed=False)


def _read_schema(path: str | Path) -> str:
    (text,) = read_files(path, CEDAR_TEXT).values()
    return text


def _without_effect(parsed: Any) -> Iterator[str]:
    """Parts of a policy set that would never decide, though their author believes that they do."""
    policies = parsed.static_policies
    if not policies:
        yield "holds no policy"
    if parsed.templates:
        yield "has templates (?principal, ?resource), which are not linked to anything; write them as policies"
    allowing = [key for key, one in policies.items() if one.effect == "permit" and _APPROVAL in one.annotations]
    if allowing:
        yield f"@{_APPROVAL} stands on a permit ({', '.join(allowing)}), which allows; write it on a forbid"


def _reason(annotations: Mapping[str, str | None]) -> str:
    return next((said for name in _REASONS if (said := annotations.get(name))), "")


def _long(value: float) -> Any:
    """A whole number as a Long, one with a fraction as a decimal; as its text where Cedar has no such number."""
    whole = int(value)
    if whole != value:
        return _decimal(value)
    return whole if whole in INT64 else str(value)


def _decimal(value: float) -> Any:
    """A number as a decimal, or as its text where a decimal has another value: Cedar does not compare texts by size."""
    arg = f"{value}.0" if isinstance(value, int) else format(value, _DECIMAL)
    is_equal = abs(value) < _WIDEST and float(arg) == value
    return {"__extn": {"fn": "decimal", "arg": arg}} if is_equal else str(value)


def _cedar(value: object, number: Callable[[float], Any] = _long) -> Any:
    """A document as Cedar takes it: without nulls, and with its numbers as `number` makes them."""
    if isinstance(value, dict):
        if _RESERVED & value.keys():
            raise ValueError(
                f"Cedar would read {', '.join(sorted(_RESERVED & value.keys()))} as a value of another type"
            )
        return {key: _cedar(each, number) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_cedar(each, number) for each in value if each is not None]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return value
