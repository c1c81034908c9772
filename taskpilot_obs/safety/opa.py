"""Policies that an OPA server decides, over its REST API."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, NamedTuple, Unpack
from urllib.parse import SplitResult, urlsplit

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.safety.engines import EnginePolicy, PolicyOptions, found_in, input_document
from taskpilot_obs.safety.options import as_words
from taskpilot_obs.safety.rego import RULES, as_package
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult

__all__ = ["AsyncOpaServerPolicy", "OpaServerPolicy"]

_OK: Final = 200
_WRONG_ANSWERS: Final = (OSError, HTTPException, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What comes of a server that does not answer, or answers JSON of another shape."""
_HEADER: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


class _OpaPolicy(EnginePolicy):
    """What both forms share; `OpaServerPolicy` describes the options."""

    __slots__ = ("_path", "_rules", "_server")

    def __init__(
        self,
        url: str,
        *,
        package: str,
        timeout_s: float = 0.5,
        headers: Mapping[str, str] | None = None,
        rules: Collection[str] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        super().__init__("opa", options)
        at, waits, sent = _as_url(url), _as_timeout(timeout_s), _as_headers(dict(headers or {}))
        self._path = f"/v1/data/{as_package(package).replace('.', '/')}?provenance=true"
        try:
            self._server = _Server(at, waits, sent)
            answer = self._server.ask("POST", self._path, {"input": {}})
            if "result" not in answer:
                raise ConfigurationError(f"{url}: the server has no package {package}")
            read = _rules_of(self._server, package) if rules is None else as_words("rules", rules)
        except _WRONG_ANSWERS as error:
            raise ConfigurationError(f"{url}: OPA does not answer as it should: {error}") from None
        if not read or not set(read) <= set(RULES):
            raise ConfigurationError(f"rules: expected some of {', '.join(RULES)} in {package}, found {sorted(read)}")
        self._rules: _StatedRules | _ReadRules = _StatedRules(frozenset(read))
        if rules is None:
            known = _Known(frozenset(read), _revision(answer))
            self._rules = _ReadRules(known, partial(_rules_of, self._server, package))

    def _decide(self, subject: CheckInput) -> PolicyResult:
        answer = self._server.ask("POST", self._path, {"input": input_document(subject)})
        document = answer["result"]  # a package that is gone is a failure of the check
        reads_allow = self._rules.have_allow(document, _revision(answer))
        return self._settle(subject, found_in(document, reads_allow=reads_allow, version=_version(answer)))


def _bundles(answer: Mapping[str, Any]) -> dict[str, str]:
    """The revisions of the server's bundles, by name; empty where a bundle states none."""
    bundles = (answer.get("provenance") or {}).get("bundles") or {}
    return {name: bundle.get("revision") or "" for name, bundle in sorted(bundles.items())}


def _version(answer: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{name}={revision}" for name, revision in _bundles(answer).items()) or None


def _revision(answer: Mapping[str, Any]) -> str | None:
    """What changes with any change of the server's policies; None where not all bundles state a revision."""
    return _version(answer) if all(_bundles(answer).values()) else None


class _StatedRules(NamedTuple):
    """The verdict's rules that the user states."""

    rules: frozenset[str]

    def have_allow(self, document: Mapping[str, object], _: str | None) -> bool:
        """Whether the package has a rule `allow`.

        Args:
            document: the values of the package for an input.

        Raises:
            LookupError: none of the rules has a value. The check fails with it, because they may be gone.
        """
        if "allow" in self.rules or "allow" in document:
            return True
        if not _is_refusal(document) and not self.rules & document.keys():
            raise LookupError(f"{', '.join(sorted(self.rules))}: undefined; `default deny := false` would define it")
        return False


class _Known(NamedTuple):
    """The verdict's rules of a package, and the revision of the policies that they were read from."""

    rules: frozenset[str]
    revision: str | None


class _ReadRules:
    """The verdict's rules that the server has, read again when it has loaded other policies.

    Args:
        known: those of the start.
        read: reads them again.
    """

    def __init__(self, known: _Known, read: Callable[[], Collection[str]]) -> None:
        self._known = known  # replaced whole, because threads share it
        self._read = read

    def have_allow(self, document: Mapping[str, object], revision: str | None) -> bool:
        """Whether the package has a rule `allow`; once an answer has had one, it does until the revision changes.

        Args:
            document: the values of the package for an input.
            revision: of the policies that gave it, where the server states one.

        Raises:
            LookupError: the package has none of the rules any more. The check fails with it.
        """
        known = self._known
        if "allow" in document:
            self._known = known._replace(rules=known.rules | {"allow"})
        elif not _is_refusal(document) and self._may_be_old(document, revision):
            rules = frozenset(self._read())
            if not rules:
                raise LookupError(f"the package has no rule {', '.join(RULES)} any more")
            known = self._known = _Known(rules, revision)
        return "allow" in document or "allow" in known.rules

    def _may_be_old(self, document: Mapping[str, object], revision: str | None) -> bool:
        rules = self._known.rules
        is_silent = "allow" not in rules and not rules & document.keys()
        return revision != self._known.revision or (revision is None and is_silent)


def _is_refusal(document: Mapping[str, object]) -> bool:
    """Whether an answer refuses the call, whatever other rules the package has."""
    return bool(document.get("deny") or document.get("require_approval"))


class OpaServerPolicy(_OpaPolicy):
    """Asks an OPA server the rules `deny`, `require_approval` and `allow` of a package about each tool call.

    `OpaServerPolicy("http://127.0.0.1:8181", package="taskpilot.tool_calls", timeout_s=0.2)`. The verdicts are those
    of `RegoPolicy`. A server that does not answer in time is a failure of the check, which `on_error` of
    `check_with` decides. Each thread keeps a connection open. The call waits for the answer: in an event loop use
    `AsyncOpaServerPolicy`.

    The version of a decision is the revision of the server's bundles; unknown where policies come without bundles.

    Args:
        url: of the server; credentials go into `headers`.
        package: the package that has the rules.
        timeout_s: seconds to wait for a connection, and for each part of an answer.
        headers: sent with each request, such as `Authorization`.
        rules: those of `deny`, `require_approval` and `allow` that the package has. When left out, the server is asked,
            and asked again when the revision of its bundles changes.
        **options: those of `PolicyOptions`: name, severity, stages, operations, approved.

    Raises:
        ConfigurationError: the server does not answer, has no such package or none of the rules, or an option is not
            as described.
    """

    __slots__ = ()

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Ask; what cannot be decided is a failure of the check."""
        return self._decide(subject) if self._concerns(subject) else ALLOW


class AsyncOpaServerPolicy(_OpaPolicy):
    """`OpaServerPolicy` for asynchronous code: a thread waits for the answer, and the event loop goes on.

    Its options are those of `OpaServerPolicy`.
    """

    __slots__ = ()

    async def check(self, subject: CheckInput, /) -> PolicyResult:
        """Ask; what cannot be decided is a failure of the check."""
        return await asyncio.to_thread(self._decide, subject) if self._concerns(subject) else ALLOW


class _Server(threading.local):
    """A connection for each thread, kept open between decisions."""

    def __init__(self, url: SplitResult, timeout_s: float, headers: Mapping[str, str]) -> None:
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=timeout_s)
        self.ask = _Connection(connection, url.path.rstrip("/"), headers).ask


class _Connection:
    """One thread's connection; it is closed with its thread."""

    def __init__(self, connection: HTTPConnection, prefix: str, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self._prefix = prefix
        self._headers = {**headers, "content-type": "application/json"}
        self._process = os.getpid()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request, once more where the server had closed the connection that was kept, and read the answer."""
        if self._process != os.getpid():  # after a fork the socket is the parent's, and its answers are too
            self._connection.close()
            self._process = os.getpid()
        content = None if body is None else json.dumps(body, allow_nan=False)
        was_open = self._connection.sock is not None
        try:
            return self._send(method, path, content)
        except (ConnectionResetError, BrokenPipeError):
            if not was_open:
                raise
        return self._send(method, path, content)

    def __del__(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, content: str | None) -> dict[str, Any]:
        try:
            self._connection.request(method, self._prefix + path, content, self._headers)
            response = self._connection.getresponse()
            said = response.read()
        except BaseException:
            self._connection.close()  # a late answer must not be read as that of the next question
            raise
        if response.status != _OK:
            raise ValueError(f"it answered {response.status}")
        answer = json.loads(said)
        if not isinstance(answer, dict):
            raise ValueError(f"{path} is not answered with an object")  # noqa: TRY004  an answer is wrong, not a type
        return answer


def _rules_of(server: _Server, package: str) -> list[str]:
    """The verdict's rules that the server's policies define in a package."""
    at = ["data", *package.split(".")]
    defined = [path for policy in server.ask("GET", "/v1/policies")["result"] for path in _paths(policy["ast"])]
    return [rule for rule in RULES if any(path[: len(at) + 1] == [*at, rule] for path in defined)]


def _paths(module: Mapping[str, Any]) -> Iterator[list[str]]:
    """The full paths of a module's rules; a head has a reference, or in older versions a name."""
    package = [term["value"] for term in module["package"]["path"]]
    for rule in module.get("rules") or ():
        head = rule["head"]
        yield package + ([term["value"] for term in head["ref"]] if "ref" in head else [head["name"]])


def _as_url(given: object) -> SplitResult:
    """Validate the URL; a message names its scheme and host only, because the rest may hold credentials."""
    try:
        url = urlsplit(given if isinstance(given, str) else "")
    except ValueError:  # brackets that do not match
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigurationError("url: expected an OPA server's, like http://127.0.0.1:8181")
    named = f"url: {url.scheme}://{url.hostname}"
    if "@" in url.netloc or url.query or url.fragment:
        raise ConfigurationError(f"{named}: has credentials, a query or a fragment; send credentials by headers=")
    try:
        _ = url.port
    except ValueError:
        raise ConfigurationError(f"{named}: its port is not a number from 0 to 65535") from None
    return url


def _as_headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Validate headers; a message names them without their values, which http.client's own errors show."""
    wrong = [name for name, value in given.items() if not (isinstance(value, str) and _HEADER.fullmatch(value))]
    if wrong:
        raise ConfigurationError(f"headers: {', '.join(map(repr, wrong))}: expected Latin-1 text without line breaks")
    return dict(given)


def _as_timeout(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise ConfigurationError(f"timeout_s: expected seconds above 0, got {given!r}")
    return float(given)
