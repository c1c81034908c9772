"""Hostile input at every door: whatever comes in, the user's code gets its result, and errors are the declared ones.

Usage in JSON, request IDs as text, mutations of a sound audit log and secrets in text have properties of their own
beside their modules; here are the doors that those leave open.
"""

from __future__ import annotations

import json
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskpilot_obs import observe_llm, request_context, track_agent
from taskpilot_obs._support.ids import REQUEST_ID
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.exceptions import AuditLogError, SourceError
from taskpilot_obs.exporters.prometheus.reading import parse_text
from taskpilot_obs.exposition import MetricsServer, metrics_wsgi_app, start_metrics_server
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.testing import capture_records, fresh_recorder
from taskpilot_obs.usage import StreamReader, read_response

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=9), inside, max_size=4),
    max_leaves=15,
)
ATTRIBUTES = ("usage", "usage_metadata", "response_metadata", "model", "choices", "prompt_tokens", "input_tokens", "x")


class Hostile:
    """An object whose attributes are anything, or raise."""

    def __init__(self, held: dict[str, Any], raises: bool) -> None:
        self._held = held
        self._raises = raises

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_held", ()):
            return self._held[name]
        raise RuntimeError if self.__dict__.get("_raises") else AttributeError(name)

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def objects(raises: st.SearchStrategy[bool]) -> st.SearchStrategy[object]:
    """Anything that JSON can express, and objects with attributes of it, to any depth."""
    return st.recursive(
        ANYTHING,
        lambda inside: st.builds(Hostile, st.dictionaries(st.sampled_from(ATTRIBUTES), inside, max_size=5), raises),
        max_leaves=6,
    )


OBJECTS = objects(st.booleans())


@EXAMPLES
@given(OBJECTS)
def test_answers_of_any_shape_come_back_as_they_are(answer: object) -> None:
    """An observed LLM call hands on whatever the client answered, read or not, and is recorded."""
    with fresh_recorder(capture_content=True) as recorder, capture_records(Invocation, recorder) as runs:
        assert observe_llm(model="m")(lambda: answer)() is answer
        assert [run.status for run in runs] == ["success"]


@EXAMPLES
@given(st.lists(objects(st.just(False)), max_size=5))
def test_readers_take_any_object(chunks: list[object]) -> None:
    """Readers of usage get objects of any shape, whole and as streams, and never raise."""
    stream = StreamReader()
    for chunk in chunks:
        read_response(chunk)
        stream.feed(chunk)
    stream.reading()


@EXAMPLES
@given(
    ANYTHING, ANYTHING, st.dictionaries(st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1), ANYTHING)
)
def test_identities_of_any_kind(request_id: Any, user: Any, attributes: dict[str, Any]) -> None:
    """Whatever a header held, the request gets a sound ID, and the work in it goes on."""
    attributes = {f"a_{name}": value for name, value in attributes.items()}
    with request_context(request_id, user_id=user, **attributes), track_agent("a") as run:
        assert REQUEST_ID.fullmatch(run.request_id)


@EXAMPLES
@given(OBJECTS)
def test_redaction_of_anything(value: object) -> None:
    """Any value becomes text of a bounded length that can be encoded."""
    text = Redactor(max_length=100).value(value)
    assert len(text.encode("utf-8", "surrogatepass")) < 10_000


def test_redaction_of_what_holds_itself() -> None:
    """A value that holds itself, or is nested without end, comes to an end."""
    loop: list[object] = []
    loop.append(loop)
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    for value in (loop, deep):
        assert isinstance(Redactor().value(value), str)


@EXAMPLES
@given(st.lists(st.binary(max_size=80), max_size=6))
def test_verification_of_any_bytes(tmp_path: Path, lines: list[bytes]) -> None:
    """A file of any bytes is found wanting, or refused; verification never fails in another way."""
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"\n".join(lines))
    with suppress(AuditLogError):
        assert not any(report.is_whole and report.records for report in verify(log))


@EXAMPLES
@given(st.dictionaries(st.sampled_from(("seq", "prev_hash", "hash", "timestamp", "event")), ANYTHING))
def test_verification_of_any_record(tmp_path: Path, record: dict[str, Any]) -> None:
    """A line with the right fields and arbitrary values is not a record of the chain."""
    log = tmp_path / "audit.jsonl"
    log.write_text(json.dumps(record, default=repr) + "\n")
    with suppress(AuditLogError):
        assert not any(report.is_whole and report.records for report in verify(log))


@EXAMPLES
@given(st.text(max_size=200), st.sampled_from(("", "text/plain", "application/openmetrics-text; version=1.0.0")))
def test_expositions_of_any_text(text: str, content_type: str) -> None:
    """What an endpoint answers is read, or refused as no exposition."""
    with suppress(SourceError):
        parse_text(text, content_type)


@EXAMPLES
@given(accept=st.text(max_size=60), method=st.sampled_from(("GET", "HEAD", "POST", "")))
def test_accept_headers_of_any_text(accept: str, method: str) -> None:
    """Whatever a scraper asks for, it gets an answer that it can read."""
    answers: list[str] = []
    app = metrics_wsgi_app()
    environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept}
    body = b"".join(app(environ, lambda status, _headers: answers.append(status)))  # type: ignore[arg-type]
    assert answers[0].split()[0] == ("200" if method in {"GET", "HEAD"} else "405")
    assert bool(body) == (method != "HEAD")


@pytest.fixture(scope="module")
def server() -> Any:
    """A server of its own, for all examples."""
    with start_metrics_server(0) as running:
        yield running


@EXAMPLES
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_paths_of_any_text(server: MetricsServer, path: str) -> None:
    """Any path is answered: with metrics, or with where they are."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/" + path)
        assert connection.getresponse().status in {200, 404}
    finally:
        connection.close()
