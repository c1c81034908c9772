"""Policies in Rego, decided in the process by regopy (extra `rego`)."""

from __future__ import annotations

import ctypes
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Unpack

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.safety.engines import (
    REGO_TEXT,
    EnginePolicy,
    Files,
    Found,
    PolicyOptions,
    found_in,
    input_document,
    read_files,
    version_of,
)
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult
from taskpilot_obs.semconv import WarningCode

__all__ = ["RegoPolicy"]

logger = logging.getLogger("taskpilot_obs")

RULES: Final = ("deny", "require_approval", "allow")
"""The rules of a package that make a verdict."""
_PACKAGE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MESSAGE: Final = re.compile(r"\(errormsg \d+:(.*?)\)$", re.MULTILINE)


class RegoPolicy(EnginePolicy):
    """Asks the rules `deny`, `require_approval` and `allow` of a package of Rego about each tool call.

    `RegoPolicy("tools.rego", package="taskpilot.tool_calls")`. What `deny` holds are the reasons of a denial.
    `require_approval` that is true asks for a person. `allow`, where the package has it, must be true.

    The policy is compiled once. Each thread has an interpreter of its own, which holds the input while it decides.

    Args:
        files: one file of Rego, or several.
        package: the package that has the rules.
        data: what policies find under `data`.
        **options: those of `PolicyOptions`: name, severity, stages, operations, approved.

    Raises:
        ConfigurationError: a file does not compile or calls functions that regopy lacks, the package has none of the
            rules, or an option is not as described.
        MissingExtraError: regopy is not installed (extra `rego`).
    """

    __slots__ = ("_bundle", "_interpreters", "_reads_allow", "version")

    def __init__(
        self,
        files: Files,
        *,
        package: str,
        data: Mapping[str, object] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        super().__init__("rego", options)
        texts = read_files(files, REGO_TEXT)
        self._interpreters = _Interpreters()
        interpreter = self._interpreters.interpreter
        _load(interpreter, texts, data)
        self.version = version_of(texts.values(), data)
        rules = _rules_of(interpreter, as_package(package), ", ".join(texts))
        self._reads_allow = "allow" in rules
        # A comprehension is empty where a rule is undefined, so one rule that is does not make all of them undefined.
        asked = ", ".join(f'"{rule}": [value | value := data.{package}.{rule}]' for rule in rules)
        self._bundle = interpreter.build(f"found = {{{asked}}}")

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Decide; what cannot be decided is a failure of the check."""
        if not self._concerns(subject):
            return ALLOW
        return self._settle(subject, self._find(input_document(subject)))

    def _find(self, document: dict[str, object]) -> Found:
        interpreter = self._interpreters.interpreter
        interpreter.set_input(document)
        output = interpreter.query_bundle(self._bundle)
        if not output.ok():
            raise RuntimeError("the policy has no value for this input: its rules contradict each other")
        found = output.results[0].bindings["found"]
        return found_in({rule: values[0] for rule, values in found.items() if values}, reads_allow=self._reads_allow)


class _Interpreters(threading.local):
    """One interpreter a thread, because `set_input` and `query_bundle` are two steps."""

    def __init__(self) -> None:
        self.interpreter = _interpreter()


def load_regopy() -> Any:
    """Import regopy so that it shares the allocator of the process.

    Raises:
        MissingExtraError: it is not installed.
    """
    _share_allocator()
    try:
        import regopy
    except ImportError:
        raise MissingExtraError("RegoPolicy", "rego") from None
    return regopy


@cache
def _share_allocator() -> None:
    """Put libstdc++ into the global scope before regopy.

    regopy's library exports an `operator new` of its own. Loaded first, it lends that to libstdc++, and other
    extensions (RE2 for `DenyPattern`) free what they did not allocate: the process aborts. Loaded later, it never
    frees the texts that libstdc++ made for it. With libstdc++ in the global scope, all use that of libstdc++.
    """
    if sys.modules.get("regopy") is not None:
        logger.warning(
            "taskpilot_obs: regopy was imported before RegoPolicy was made: other C++ extensions may crash, or memory "
            "be lost; leave the import to RegoPolicy [%s]",
            WarningCode.IMPORTED_TOO_EARLY,
        )
    elif sys.platform == "linux":
        with suppress(OSError):  # a system without GNU's library
            ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)


def _interpreter() -> Any:
    regopy = load_regopy()
    made = regopy.Interpreter()
    made.log_level = regopy.LogLevel.NONE  # it would print errors to the application's standard output
    return made


def as_package(given: object) -> str:
    """Validate the name of a package.

    Raises:
        ConfigurationError: it is not a dotted name.
    """
    if not isinstance(given, str) or not _PACKAGE.fullmatch(given):
        raise ConfigurationError(f"package: expected a name like taskpilot.tool_calls, got {given!r}")
    return given


def _load(interpreter: Any, texts: Mapping[str, str], data: Mapping[str, object] | None) -> None:
    from regopy import RegoError

    path = "data"
    try:
        if data is not None:
            interpreter.add_data_json(json.dumps(dict(data)))
        for path, text in texts.items():
            interpreter.add_module(path, text)
    except (RegoError, TypeError, ValueError) as error:
        said = "; ".join(dict.fromkeys(_MESSAGE.findall(str(error)))) or str(error)
        raise ConfigurationError(f"{path}: is not accepted: {said}") from None


def _rules_of(interpreter: Any, package: str, files: str) -> list[str]:
    """The verdict's rules that a package has, after a look at all that it calls."""
    plan = _plan(interpreter, f"found = data.{package}")
    functions = {function["name"]: tuple(function.get("path", ())) for function in plan["funcs"]["funcs"]}
    at = tuple(package.split("."))
    defined = {path[1:] for path in functions.values()}
    rules = [rule for rule in RULES if (*at, rule) in defined]
    if not rules:
        raise ConfigurationError(f"{files}: package {package} has no rule {', '.join(RULES[:-1])} or {RULES[-1]}")
    lacking = sorted({name for name in _calls(plan) if name not in functions and not interpreter.is_builtin(name)})
    if lacking:
        raise ConfigurationError(
            f"{files}: calls {', '.join(lacking)}, which regopy does not have; rules that do would be undefined"
        )
    return rules


def _plan(interpreter: Any, query: str) -> Any:
    """The compiled form, in OPA's intermediate representation, which regopy gives away as a file only."""
    from regopy import RegoError

    try:
        with TemporaryDirectory(prefix="taskpilot-obs-") as folder:
            interpreter.save_bundle(folder, interpreter.build(query))
            return json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    except RegoError as error:
        said = "; ".join(dict.fromkeys(_MESSAGE.findall(str(error)))) or "it does not compile"
        raise ConfigurationError(f"{query}: {said}") from None


def _calls(node: object) -> Iterator[str]:
    """The names of the functions that a plan calls."""
    if isinstance(node, dict):
        if node.get("type") == "CallStmt":
            yield node["stmt"]["func"]
        for each in node.values():
            yield from _calls(each)
    elif isinstance(node, list):
        for each in node:
            yield from _calls(each)
