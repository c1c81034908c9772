"""What the policies of policy engines share: the input document, the reading of verdicts, approvals, the version."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, SupportsFloat, TypedDict, cast

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Operation, Severity, Stage, Verdict
from taskpilot_obs.safety.asked import Approved, as_approved, settle_approval
from taskpilot_obs.safety.options import INPUT, NamedCheck, Stages, one_of
from taskpilot_obs.safety.rendering import fields_of, name_of
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult

_MAX_DEPTH: Final = 32
INT64: Final = range(-(2**63), 2**63)
"""The whole numbers that engines hold."""
_MESSAGE_KEYS: Final = ("msg", "message", "reason")

Files = str | Path | Iterable[str | Path]


MOST_LEVELS: Final = 200
_BRACKET: Final = re.compile(r"[()\[\]{}]")
CEDAR_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\r\n]*|(?P<rest>".*)', re.DOTALL)
"""Strings and comments; `rest` begins at a quote that begins no string, behind which an engine may read code."""
REGO_TEXT: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])*"|`[^`]*`|#[^\r\n]*|(?P<rest>["`].*)', re.DOTALL)


class PolicyOptions(TypedDict, total=False):
    """Options that the policies of all engines take."""

    name: str
    """Name of the policy; a metric label."""
    severity: Severity | str
    """Severity of its denials; `high` by default."""
    stages: Stages | Stage | str
    """Where it is asked: input (the default), output or both."""
    operations: Collection[Operation | str]
    """What it is asked about; tool calls by default, because a policy that allows certain tools denies all else."""
    approved: Approved
    """A function, not asynchronous, that is asked whether a person has approved a call that needs an approval. Only
    True approves. Without the function, such calls are refused."""


class Found(NamedTuple):
    """What an engine answered, in the same form for all engines."""

    denials: tuple[str, ...] | None = None
    """The reasons of a denial, of which there may be none; None where nothing denies."""
    needs_approval: bool = False
    is_allowed: bool = True
    version: str | None = None
    """The version that decided, where it is known for each decision only."""


class EnginePolicy(NamedCheck):
    """Base of the policies that an engine decides: which calls are judged, and what an answer comes to.

    Args:
        name: of the policy, unless the options state one.
        options: those of `PolicyOptions`.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ("_approved", "_operations")

    def __init__(self, name: str, options: PolicyOptions) -> None:
        unknown = options.keys() - PolicyOptions.__annotations__.keys()
        if unknown:
            raise ConfigurationError(f"{', '.join(sorted(unknown))}: unknown; a policy takes {', '.join(_OPTIONS)}")
        super().__init__(
            options.get("name", name), options.get("severity", Severity.HIGH), options.get("stages", INPUT)
        )
        self._operations = _as_operations(options.get("operations", (Operation.TOOL,)))
        self._approved = as_approved(options.get("approved"))

    def _concerns(self, subject: CheckInput) -> bool:
        return subject.operation in self._operations

    def _settle(self, subject: CheckInput, found: Found) -> PolicyResult:
        """A denial counts first, then an approval, which a person may have given, then what is not allowed."""
        if found.denials is not None:
            return PolicyResult(Verdict.DENY, "; ".join(found.denials) or "denied", version=found.version)
        if found.needs_approval:
            return settle_approval(self._approved, subject, _what(subject), found.version)
        if not found.is_allowed:
            return PolicyResult(Verdict.DENY, f"{_what(subject)} is not allowed", version=found.version)
        return ALLOW if found.version is None else PolicyResult(Verdict.ALLOW, version=found.version)


_OPTIONS: Final = sorted(PolicyOptions.__annotations__)


def _what(subject: CheckInput) -> str:
    return f"tool {subject.tool!r}" if subject.tool is not None else str(subject.operation)


def _as_operations(given: Collection[Operation | str]) -> frozenset[Operation]:
    several = (given,) if isinstance(given, str) else tuple(given)
    if not several:
        raise ConfigurationError(f"operations: expected some of {', '.join(Operation)}, got none")
    return frozenset(one_of(Operation, "operations", each) for each in several)


def input_document(subject: CheckInput) -> dict[str, object]:
    """Return what engines are asked about, made of JSON's types.

    `tool_name`, `parameters` and `agent_type` repeat the values of `tool`, `args` and `agent`, because existing
    policies of agents use either set of names.
    """
    tool, agent, arguments = plain(subject.tool), plain(subject.agent), plain(subject.arguments)
    return {
        "operation": subject.operation.value,
        "stage": subject.stage.value,
        "tool": tool,
        "tool_name": tool,
        "args": arguments,
        "parameters": arguments,
        "agent": agent,
        "agent_type": agent,
        "workflow": plain(subject.workflow),
        "tenant": plain(subject.tenant),
        "user": plain(subject.user),
        "text": plain(subject.text),
    }


def plain(value: object, depth: int = 0) -> object:
    """Return a value in JSON's types; an object of the application is named by its type.

    Nothing is shortened or left out, because a policy must see all that a tool gets. Integers beyond 64 bits become
    floats and NUL becomes U+FFFD, because regopy would cut both without an error.

    Args:
        value: any value.
        depth: how deep it lies in the value that was given.

    Raises:
        ValueError: NaN, infinity, or more than 32 levels. The check fails with it.
        OverflowError: an integer beyond the range of floats. The check fails with it.
    """
    if value is None or isinstance(value, bool | str | bytes | bytearray | memoryview | float | int):
        return _scalar(value)
    if hasattr(value, "as_integer_ratio"):  # Decimal, Fraction, numbers of numpy
        return _finite(float(cast("SupportsFloat", value)))
    if depth >= _MAX_DEPTH:
        raise ValueError(f"arguments lie more than {_MAX_DEPTH} levels deep")
    fields = fields_of(value)
    if fields is not None:
        return {_text(str(key)): plain(each, depth + 1) for key, each in fields}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth + 1) for each in value]
    return name_of(value)


def _scalar(value: str | bytes | bytearray | memoryview | float | None) -> str | float | None:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value in INT64 else float(value)
    return _finite(value) if isinstance(value, float) else _text(bytes(value).decode("utf-8", "backslashreplace"))


def _text(value: str) -> str:
    return str.__str__(value).replace("\0", "\ufffd")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("JSON has neither NaN nor infinity")
    return float(value)


def found_in(document: Mapping[str, object], *, reads_allow: bool, version: str | None = None) -> Found:
    """Read the rules `deny`, `require_approval` and `allow` of a package of Rego.

    Args:
        document: the values of the rules that are defined for the input.
        reads_allow: whether the package has a rule `allow`: where that is undefined, the call is not allowed.
        version: of the policy, where the engine states it with the answer.
    """
    return Found(
        _denials(document.get("deny")),
        bool(document.get("require_approval")),
        document.get("allow", not reads_allow) is True,
        version,
    )


def _denials(value: object) -> tuple[str, ...] | None:
    """The messages of `deny`: a set of them, an object by message as Rego 0 has it, one text, or true for none."""
    if not value:
        return None
    if isinstance(value, Mapping):
        value = [key if each is True else each for key, each in value.items()]
    items = value if isinstance(value, list) else [value]
    return tuple(sorted(filter(None, map(_message, items))))


def _message(item: object) -> str:
    if isinstance(item, Mapping):
        item = next((item[key] for key in _MESSAGE_KEYS if key in item), "denied")
    return item if isinstance(item, str) else ""


def read_files(files: Files, text: re.Pattern[str]) -> dict[str, str]:
    """Read policy files, by their paths as given.

    Args:
        files: their paths.
        text: what strings and comments look like: `CEDAR_TEXT` or `REGO_TEXT`.

    Raises:
        ConfigurationError: there is none, or one cannot be read as UTF-8 or is nested too deeply.
    """
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ConfigurationError("files: expected at least one file of policies, got none")
    texts = {}
    for path in paths:
        try:
            texts[str(path)] = Path(path).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read: {reason_of(error)}") from None
        if _nesting(text.sub(r"\g<rest>", texts[str(path)])) > MOST_LEVELS:
            raise ConfigurationError(f"{path}: brackets are nested deeper than {MOST_LEVELS} levels")
    return texts


def _nesting(code: str) -> int:
    """How deeply brackets are nested in code without strings and comments.

    A native parser recurses with them, and the end of its stack ends the process.
    """
    depth = deepest = 0
    for bracket in _BRACKET.findall(code):
        depth = max(0, depth + (1 if bracket in "([{" else -1))
        deepest = max(deepest, depth)
    return deepest


def version_of(texts: Iterable[str], data: object = None) -> str:
    """Return the hash of policy texts and their data; that of one file alone is what `sha256sum` prints."""
    digest = hashlib.sha256("".join(texts).encode())
    if data is not None:
        digest.update(json.dumps(data, sort_keys=True).encode())
    return f"sha256:{digest.hexdigest()}"
