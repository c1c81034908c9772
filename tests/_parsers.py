"""Every parser of the library, as a function of bytes: it returns, or raises the errors that it declares.

`with parsers() as all_of_them:` gives them by name. What comes from outside the process is read by one of these.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from _http import answering
from pydantic import ValidationError

from taskpilot_obs._recording import w3c
from taskpilot_obs._support.durations import parse_duration
from taskpilot_obs._support.guarded import forget_causes
from taskpilot_obs._support.ids import REQUEST_ID, accepted_request_id
from taskpilot_obs._support.timestamps import unix_seconds
from taskpilot_obs.audit import manifest
from taskpilot_obs.audit import query as audit
from taskpilot_obs.audit.chain import GENESIS, check_line, digest_with, head_of
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.budgets.files import load_budgets
from taskpilot_obs.compare.bench.arms import spec_of
from taskpilot_obs.compare.bench.checkers import BUILT_IN
from taskpilot_obs.compare.bench.keeping import CALLS, PLAN, Folder
from taskpilot_obs.compare.bench.tasks import load_task
from taskpilot_obs.doctor.server import check_server
from taskpilot_obs.exceptions import (
    AuditLogError,
    ConfigurationError,
    MissingExtraError,
    SourceError,
    StoreError,
)
from taskpilot_obs.exporters.prometheus.multiprocess import Workers
from taskpilot_obs.exporters.prometheus.reading import parse_text
from taskpilot_obs.exposition import metrics_wsgi_app
from taskpilot_obs.genai_spans import FinishedSpan, read_spans
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.from_exposition import signals_from_exposition
from taskpilot_obs.golden_signals.from_prometheus import signals_from_prometheus
from taskpilot_obs.pricing import cost_of
from taskpilot_obs.pricing.own import load_prices
from taskpilot_obs.propagation import ReceivedRequest
from taskpilot_obs.providers.errors import error_category, is_refused
from taskpilot_obs.rules import promql
from taskpilot_obs.rules.settings import load_settings
from taskpilot_obs.safety import CedarPolicy, OpaServerPolicy
from taskpilot_obs.safety.engines import found_in
from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.semconv import WarningCode
from taskpilot_obs.server import cursors, otlp, params
from taskpilot_obs.server.pages import query as pages
from taskpilot_obs.server.problems import Problem
from taskpilot_obs.server.sessions import Sessions
from taskpilot_obs.server.tokens import TokenFile, create_token
from taskpilot_obs.settings import Settings
from taskpilot_obs.stats.periods import bounds
from taskpilot_obs.store.spool import Spool
from taskpilot_obs.store.urls import parsed
from taskpilot_obs.usage import StreamReader, Usage, read_response

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MEANT = NOW, "24h"
"""What the parameters of a query are asked with: the present, and a default."""


class Parser(NamedTuple):
    """One parser."""

    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()
    """The errors that it declares."""

    def takes(self, given: bytes) -> bool:
        """Whether it reads the input; an error that it does not declare is raised."""
        try:
            self.read(given)
        except self.refuses:
            return False
        return True


def text_of(given: bytes) -> str:
    """The text of an input, with lone surrogates for bytes that cannot be decoded, as in the environment."""
    return given.decode("utf-8", "surrogateescape")


def plain(given: bytes) -> str:
    """The text of an input from a file, which was decoded before."""
    return given.decode("utf-8", "replace")


def in_json(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    """Read what a client of a provider has parsed already; anything but JSON is none of the parser's business."""

    def reading(given: bytes) -> object:
        try:
            value = json.loads(given)
        except (ValueError, RecursionError):
            return None
        return read(value)

    return reading


# --- audit log --------------------------------------------------------------------------------------------------------


def audit_line(given: bytes) -> None:
    """A line of the log, without its file."""
    line = given + b"\n"
    problem, _ = check_line(line, GENESIS, digest_with(None))
    assert problem is None or head_of(line) is None or isinstance(problem, str)
    manifest.parse_line(line)


def audit_log(folder: Path, given: bytes) -> None:
    """A whole file: verified, asked, and its last lines."""
    log = folder / "audit.jsonl"
    log.write_bytes(given)
    verify(log)
    list(audit.query(log, audit.Filter()))
    audit.tail(log, 3)


def audit_manifest(folder: Path, given: bytes) -> None:
    """The anchors and the notes of a log."""
    file = folder / "audit.manifest"
    file.write_bytes(given)
    list(manifest.read_anchors(file))
    list(manifest.read_notes(file))


# --- metrics ----------------------------------------------------------------------------------------------------------


def exposition(given: bytes) -> None:
    """What an endpoint answers; the first byte decides which of the two formats its header states."""
    text, kind = plain(given[1:]), "application/openmetrics-text; version=1.0.0" if given[:1] == b"o" else "text/plain"
    parse_text(text, kind)
    signals_from_exposition(text, content_type=kind)


def request_for_metrics(given: bytes) -> None:
    """Accept, Accept-Encoding and the query, a line each: any scraper gets an answer that it can read."""
    accept, encoding, query = (*text_of(given).split("\n", 2), "", "")[:3]
    answers: list[str] = []
    headers = {"HTTP_ACCEPT": accept, "HTTP_ACCEPT_ENCODING": encoding, "QUERY_STRING": query}
    environ = {"REQUEST_METHOD": "GET", **headers}
    body = b"".join(metrics_wsgi_app()(environ, lambda status, _headers: answers.append(status)))  # type: ignore[arg-type]
    assert answers == ["200 OK"]
    assert body or query, "a query may ask for names that there are not"


def worker_file(folder: Path, given: bytes) -> None:
    """A file of values that a process left behind."""
    (folder / "counter_7.db").write_bytes(given)
    Workers(folder).collect()


# --- usage and spans --------------------------------------------------------------------------------------------------


def usage(value: Any) -> None:
    """A provider's answer, whole and as a stream of chunks; counts are unknown or whole numbers from 0."""
    stream = StreamReader()
    for chunk in value if isinstance(value, list) else [value]:
        stream.feed(chunk)
    for reading in (read_response(value), stream.reading()):
        check_usage(reading.usage)


def check_usage(found: Usage | None) -> None:
    """No count is negative, a fraction or a truth value."""
    assert all(count is None or (type(count) is int and count >= 0) for count in found or ())


def stream_text(given: bytes) -> None:
    """The lines of a stream as a client without an SDK reads them."""
    stream = StreamReader()
    for line in given.split(b"\n"):
        stream.feed(line)
    check_usage(stream.reading().usage)


def span_attributes(value: Any) -> None:
    """Attributes of spans of other libraries: an object a span, or a list of them, each beneath the one before."""
    stated = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
    spans = [
        FinishedSpan("t", str(number), str(number - 1), str(each.get("name", "chat")), 1, 2, each, bool(number % 2))
        for number, each in enumerate(stated)
    ]
    for run in read_spans(spans).runs.values():
        check_usage(run.usage)


def otlp_body(kind: str) -> Callable[[bytes], None]:
    """Spans as a collector sends them."""

    def read(given: bytes) -> None:
        read_spans(otlp._spans(otlp._parsed(given, kind)))

    return read


class StatedError(Exception):
    """An error of a client, with the body and the status of the answer."""


def provider_error(value: Any) -> None:
    """The body of a provider's error answer; it has a category, and is refused or not."""
    error = StatedError(str(value)[:200])
    error.body = error.response = value  # type: ignore[attr-defined]  # as SDKs have them
    error.status_code = value.get("status", 400) if isinstance(value, dict) else 429  # type: ignore[attr-defined]
    assert error_category(error)
    assert isinstance(is_refused(error), bool)


def price_question(given: bytes) -> None:
    """The name of a model."""
    cost_of(text_of(given), input_tokens=1, output_tokens=1)


# --- requests ---------------------------------------------------------------------------------------------------------


def trace_headers(given: bytes) -> None:
    """`traceparent`, `tracestate`, `baggage` and the request's ID, a line each as `name: value`."""
    headers = dict(line.split(": ", 1) for line in text_of(given).splitlines() if ": " in line)
    lower = {name.lower(): value for name, value in headers.items()}
    w3c.remote_context(lower)
    w3c.stated_baggage(lower)
    with ReceivedRequest(headers, trust_baggage=True) as _:
        pass
    assert REQUEST_ID.fullmatch(accepted_request_id(headers.get("x-request-id")))


def query_parameters(given: bytes) -> None:
    """The query of a URL of the server: every route's parameters, and what they come to."""
    stated = dict(parse_qsl(text_of(given), keep_blank_values=True))
    for model in (*_subclasses(params.Query), *_subclasses(pages.PageQuery)):
        try:
            query = model(**{name: value for name, value in stated.items() if name in model.model_fields})
        except ValidationError:
            continue
        for meaning in ("span", "given_span", "stretch", "over"):
            if hasattr(query, meaning):
                getattr(query, meaning)(
                    *((NOW, "24h") if meaning == "span" and isinstance(query, params.Times) else (NOW,))
                )
        for meaning in ("asked", "exact", "narrowing", "planned"):
            if hasattr(query, meaning):
                getattr(query, meaning)()


def _subclasses(model: type[params.Query]) -> set[type[params.Query]]:
    return {model, *(below for each in model.__subclasses__() for below in _subclasses(each))}


# --- files of settings ------------------------------------------------------------------------------------------------


def environment(given: bytes) -> None:
    """Options as a container states them: a line each as `NAME=VALUE`, without the prefix."""
    lines = [line.partition("=") for line in text_of(given).split("\n")]
    Settings.resolve({}, {f"TASKPILOT_OBS_{name}": value for name, _, value in lines})


def file_of(folder: Path, name: str, load: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of a file."""

    def read(given: bytes) -> object:
        file = folder / name
        file.write_bytes(given)
        return load(file)

    return read


def spool_file(folder: Path, given: bytes) -> None:
    """A file of batches that a process left behind: each line is handed on, or counted as lost."""
    (folder / "7-abc.jsonl").write_bytes(given)
    handed: list[object] = []
    lost: list[StoreError] = []
    Spool(folder).replay(handed.append, lost=lost.append)
    whole = [line for line in io.BytesIO(given) if line.endswith(b"\n")]
    assert len(handed) + len(lost) == len(whole)


# --- times and names --------------------------------------------------------------------------------------------------


def each_of(*reads: Callable[[str], object], refuses: type[Exception]) -> Callable[[bytes], None]:
    """Parsers of the same text, each of which may refuse it for itself."""

    def read(given: bytes) -> None:
        for parse in reads:
            Parser(lambda _, parse=parse: parse(text_of(given)), (refuses,)).takes(given)  # type: ignore[misc]

    return read


def periods(given: bytes) -> None:
    """A stretch of time as text, and as two ends."""
    start, _, end = text_of(given).partition("..")
    begin, stop = bounds((start or None, end or None) if end else start, NOW)
    assert begin < stop


def bench_answers(given: bytes) -> None:
    """A model's answer, which a checker judges by what was expected, a line before it."""
    expected, _, answer = text_of(given).partition("\n")
    for name, check in BUILT_IN.items():
        if name not in {"steps", "number"}:
            check(answer, expected)
    BUILT_IN["steps"](answer, '[["click", "#a"]]')
    BUILT_IN["number"](answer, "42")


def redaction(given: bytes) -> None:
    """Any text is redacted to a bounded length, and redacting the result again changes nothing that is shown."""
    text = Redactor(max_length=200).text(text_of(given))
    assert len(text) < 2_000


def opa_documents(value: Any) -> None:
    """The values of a package's rules."""
    if isinstance(value, dict):
        found_in(value, reads_allow=True)


# --- all --------------------------------------------------------------------------------------------------------------


class Homes:
    """A new folder for each input, so that no file of the one before is read."""

    def __init__(self, stack: ExitStack) -> None:
        self.root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parsers-")))

    def given(self, read: Callable[[Path, bytes], object]) -> Callable[[bytes], object]:
        """A parser of files, in a folder of its own each time."""

        def reading(given: bytes) -> object:
            with tempfile.TemporaryDirectory(dir=self.root) as folder:
                return read(Path(folder), given)

        return reading


class Answers:
    """A server on the loopback that answers every question with the input."""

    def __init__(self, stack: ExitStack) -> None:
        self.body = b""
        self.url = stack.enter_context(answering(lambda _: (200, "application/json", self.body)))

    def to(self, ask: Callable[[str], object]) -> Callable[[bytes], object]:
        """A parser of what a server answers."""

        def reading(given: bytes) -> object:
            self.body = given
            return ask(self.url)

        return reading


@contextmanager
def internal_failures() -> Iterator[list[str]]:
    """What the library logs of failures of its own, which it does not raise."""
    failures: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if WarningCode.INTERNAL_ERROR in record.getMessage():
                failures.append(record.getMessage())

    handler = Kept()
    logger = logging.getLogger("taskpilot_obs")
    logger.addHandler(handler)
    try:
        yield failures
    finally:
        logger.removeHandler(handler)


def watched(read: Callable[[bytes], object], failures: list[str]) -> Callable[[bytes], object]:
    """A parser that also fails where the library logs a failure of its own."""

    def reading(given: bytes) -> object:
        failures.clear()
        forget_causes()
        found = read(given)
        assert not failures, failures
        return found

    return reading


@contextmanager
def parsers() -> Iterator[dict[str, Parser]]:
    """Every parser, by the name of its folder in tests/fuzz_corpus."""
    with ExitStack() as stack:
        homes, answers = Homes(stack), Answers(stack)
        configured = (ConfigurationError, MissingExtraError)
        kept, tokens = Folder(homes.root), homes.root / "tokens.toml"
        create_token(tokens, "ann", "viewer", "acme")
        sessions = Sessions(TokenFile(tokens))
        failures = stack.enter_context(internal_failures())
        found = {
            "accept": Parser(request_for_metrics),
            "audit-duration": Parser(lambda given: audit.parse_duration(text_of(given)), (AuditLogError,)),
            "audit-line": Parser(audit_line),
            "audit-log": Parser(homes.given(audit_log), (AuditLogError,)),
            "audit-manifest": Parser(homes.given(audit_manifest)),
            "bench-answer": Parser(bench_answers),
            "bench-arm": Parser(lambda given: spec_of(text_of(given)), (ConfigurationError,)),
            "bench-calls": Parser(file_of(homes.root, CALLS, lambda _: kept.read_calls()), configured),
            "bench-plan": Parser(file_of(homes.root, PLAN, lambda _: kept.read_plan()), configured),
            "bench-task": Parser(file_of(homes.root, "task.jsonl", lambda file: load_task(str(file))), configured),
            "budgets-toml": Parser(file_of(homes.root, "budgets.toml", load_budgets), configured),
            "budgets-yaml": Parser(file_of(homes.root, "budgets.yaml", load_budgets), configured),
            "cedar": Parser(file_of(homes.root, "a.cedar", CedarPolicy), configured),
            "cursor": Parser(lambda given: cursors.decode(text_of(given), {}), (ConfigurationError,)),
            "duration": Parser(each_of(parse_duration, promql.seconds, refuses=ValueError)),
            "environment": Parser(environment, configured),
            "exposition": Parser(exposition, (SourceError,)),
            "model-name": Parser(price_question, (ConfigurationError,)),
            "opa-answer": Parser(answers.to(lambda url: OpaServerPolicy(url, package="agents")), (ConfigurationError,)),
            "opa-document": Parser(in_json(opa_documents)),
            "otlp-json": Parser(otlp_body("application/json"), (Problem,)),
            "otlp-protobuf": Parser(otlp_body(otlp.PROTOBUF), (Problem,)),
            "period": Parser(periods, (ConfigurationError,)),
            "price-file-toml": Parser(file_of(homes.root, "prices.toml", load_prices), configured),
            "price-file-yaml": Parser(file_of(homes.root, "prices.yaml", load_prices), configured),
            "prometheus-answer": Parser(
                answers.to(lambda url: signals_from_prometheus(url, "1h", job="a")), (SourceError, ConfigurationError)
            ),
            "prometheus-server": Parser(answers.to(lambda url: check_server(url, None)), (SourceError,)),
            "provider-error": Parser(in_json(provider_error)),
            "query": Parser(query_parameters),
            "redaction": Parser(redaction),
            "rules-settings": Parser(file_of(homes.root, "rules.yaml", load_settings), configured),
            "session": Parser(lambda given: sessions.principal(text_of(given))),
            "shares": Parser(lambda given: params.shares_of(text_of(given)), (ValueError,)),
            "span-attributes": Parser(in_json(span_attributes)),
            "spool": Parser(homes.given(spool_file)),
            "store-url": Parser(lambda given: parsed(text_of(given)), configured),
            "stream": Parser(stream_text),
            "time": Parser(each_of(unix_seconds, params.moment, refuses=ValueError)),
            "token-file": Parser(file_of(homes.root, "other.toml", TokenFile), configured),
            "trace-headers": Parser(trace_headers),
            "usage": Parser(in_json(usage)),
            "window": Parser(lambda given: parse_window(text_of(given)), (ConfigurationError,)),
            "worker-file": Parser(homes.given(worker_file), (SourceError,)),
        }
        yield {name: each._replace(read=watched(each.read, failures)) for name, each in found.items()}
