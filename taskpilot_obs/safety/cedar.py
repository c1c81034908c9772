"""Policies in Cedar, decided in the process by cedarpy (extra `cedar`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.safety.engines import (
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


class CedarPolicy(EnginePolicy):
    """Asks policies in Cedar whether `Agent::"…"` may do `Action::"execute_tool"` with `Tool::"…"`.

    A `forbid` that matches denies the call, with its annotation `@reason` or `@id` as the reason; one with the
    annotation `@require_approval` asks for a person instead. Without a `permit` that matches, the call is not allowed.
    `context` is the input document of all engines, without its nulls; numbers with a fraction are decimals.

    A policy that cannot be evaluated is a failure of the check, because Cedar would skip it, and a `forbid` with it.
    A schema finds such policies when the check is made.

    Args:
        files: one file of Cedar policies, or several.
        schema: a file with a Cedar schema, which the policies are validated against.
        entities: the groups and attributes of agents and tools, as Cedar's JSON has them.
        **options: those of `PolicyOptions`: name, severity, stages, operations, approved.

    Raises:
        ConfigurationError: files are not Cedar, hold no policy or contradict the schema, or an option is not as
            described.
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
        texts = read_files(files)
        self.version = version_of(texts.values(), [*entities] or None)
        text = "\n".join(texts.values())
        named = ", ".join(texts)
        try:
            self._policies = cedarpy.PolicySet.from_str(text)
            self._entities = cedarpy.Entities.from_json_str(json.dumps([*entities]))
            annotations = {key: one.annotations for key, one in self._policies.to_pst().static_policies.items()}
            found = [] if schema is None else cedarpy.validate_policies(text, _read_schema(schema)).errors
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{named}: is not accepted: {error}") from None
        if found or not annotations:
            raise ConfigurationError(f"{named}: {'; '.join(map(str, found)) or 'holds no policy'}")
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
            "context": _cedar(context),
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
    (text,) = read_files(path).values()
    return text


def _reason(annotations: Mapping[str, str | None]) -> str:
    return next((said for name in _REASONS if (said := annotations.get(name))), "")


def _cedar(value: object) -> Any:
    """A document as Cedar takes it: without nulls, with decimals in place of floats."""
    if isinstance(value, dict):
        return {key: _cedar(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_cedar(each) for each in value if each is not None]
    if isinstance(value, float):
        return int(value) if value.is_integer() else {"__extn": {"fn": "decimal", "arg": format(value, _DECIMAL)}}
    return value
