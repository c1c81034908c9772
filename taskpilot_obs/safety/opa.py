"""Policies that an OPA server decides, over its REST API."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, Unpack
from urllib.parse import SplitResult, urlsplit

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.safety.engines import EnginePolicy, Found, PolicyOptions, found_in, input_document
from taskpilot_obs.safety.options import as_words
from taskpilot_obs.safety.rego import RULES, as_package
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult

__all__ = ["AsyncOpaServerPolicy", "OpaServerPolicy"]

_OK: Final = 200


class _OpaPolicy(EnginePolicy):
    """What both forms share.

    Args:
        url: of the server: `http://127.0.0.1:8181`.
        package: the package that has the rules.
        timeout_s: seconds to wait for a connection, and for each part of an answer.
        headers: sent with each request, such as `Authorization`.
        rules: those of `deny`, `require_approval` and `allow` that the package has; the server is asked when left out.
        **options: those of `PolicyOptions`: name, severity, stages, operations, approved.

    Raises:
        ConfigurationError: the server does not answer, has no such package or none of the rules, or an option is not
            as described.
    """

    __slots__ = ("_path", "_reads_allow", "_server")

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
        self._server = _Server(_as_url(url), _as_timeout(timeout_s), dict(headers or {}))
        data = "/v1/data/" + as_package(package).replace(".", "/")
        self._path = f"{data}?provenance=true"
        try:
            if "result" not in self._server.ask("POST", data, {"input": {}}):
                raise ConfigurationError(f"{url}: the server has no package {package}")
            read = _rules_of(self._server, package) if rules is None else as_words("rules", rules)
        except (OSError, HTTPException, ValueError) as error:
            raise ConfigurationError(f"{url}: OPA does not answer as it should: {error}") from None
        if not read or not set(read) <= set(RULES):
            raise ConfigurationError(f"rules: expected some of {', '.join(RULES)} in {package}, found {sorted(read)}")
        self._reads_allow = "allow" in read

    def _decide(self, subject: CheckInput) -> PolicyResult:
        answer = self._server.ask("POST", self._path, {"input": input_document(subject)})
        document = answer["result"]  # a package that is gone is a failure of the check
        return self._settle(subject, self._found(document, answer.get("provenance") or {}))

    def _found(self, document: Any, provenance: Mapping[str, Any]) -> Found:
        bundles = provenance.get("bundles") or {}
        revisions = [f"{name}={bundle.get('revision', '')}" for name, bundle in sorted(bundles.items())]
        return found_in(document, reads_allow=self._reads_allow, version=", ".join(revisions) or None)


class OpaServerPolicy(_OpaPolicy):
    """Asks an OPA server the rules `deny`, `require_approval` and `allow` of a package about each tool call.

    `OpaServerPolicy("http://127.0.0.1:8181", package="taskpilot.tool_calls", timeout_s=0.2)`. The verdicts are those
    of `RegoPolicy`. A server that does not answer in time is a failure of the check, which `on_error` of
    `check_with` decides. Each thread keeps a connection open. The call waits for the answer: in an event loop use
    `AsyncOpaServerPolicy`.

    The version of a decision is the revision of the server's bundles; unknown where policies come without bundles.

    Args:
        url: of the server.
        package: the package that has the rules.
        timeout_s: seconds to wait for a connection, and for each part of an answer.
        headers: sent with each request, such as `Authorization`.
        rules: those of `deny`, `require_approval` and `allow` that the package has; the server is asked when left out.
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
    """`OpaServerPolicy` for asynchronous code: a thread waits for the answer, and the event loop goes on."""

    __slots__ = ()

    async def check(self, subject: CheckInput, /) -> PolicyResult:
        """Ask; what cannot be decided is a failure of the check."""
        return await asyncio.to_thread(self._decide, subject) if self._concerns(subject) else ALLOW


class _Server(threading.local):
    """A connection for each thread, kept open between decisions."""

    def __init__(self, url: SplitResult, timeout_s: float, headers: Mapping[str, str]) -> None:
        self.ask = _Connection(url, timeout_s, headers).ask


class _Connection:
    """One thread's connection; it is closed with its thread."""

    def __init__(self, url: SplitResult, timeout_s: float, headers: Mapping[str, str]) -> None:
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._connection = kind(url.hostname or "", url.port, timeout=timeout_s)
        self._prefix = url.path.rstrip("/")
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


def _as_url(given: str) -> SplitResult:
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.username:
        raise ConfigurationError(f"url: expected an OPA server's, like http://127.0.0.1:8181, got {given!r}")
    return url


def _as_timeout(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise ConfigurationError(f"timeout_s: expected seconds above 0, got {given!r}")
    return float(given)
