"""Spans over OTLP/HTTP become rows, as the real OpenTelemetry exporter's wire format has them."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from _serving import bearer, tokens_in
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.testclient import TestClient

from taskpilot_obs.exceptions import StoreUnavailableError
from taskpilot_obs.genai_spans import FinishedSpan, read_spans
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import Invocation, Operation, Status
from taskpilot_obs.server import create_app, otlp
from taskpilot_obs.server import trace_buffer as buffers
from taskpilot_obs.server.trace_buffer import TraceBuffer
from taskpilot_obs.stats import get_calls, get_run_tree
from taskpilot_obs.store import Store

TRACE = "0af7651916cd43dd8448eb211c80319c"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
START_NS = 1_773_144_000_000_000_000
SECOND = 1_000_000_000


def span(number: int, parent: int | None, operation: str | None, trace: str = TRACE, **said: Any) -> FinishedSpan:
    """A span of the conventions; `said` are attributes, dots written as two underscores."""
    attributes = {name.replace("__", "."): value for name, value in said.items()}
    if operation is not None:
        attributes["gen_ai.operation.name"] = operation
    return FinishedSpan(
        trace,
        f"{number:016x}",
        None if parent is None else f"{parent:016x}",
        f"{operation} x",
        START_NS + number * SECOND,
        START_NS + (number + 2) * SECOND,
        attributes,
    )


def chat(number: int, parent: int | None, **said: Any) -> FinishedSpan:
    """An LLM call of 1,000 tokens in and 100 out."""
    usage = {"gen_ai__usage__input_tokens": 1_000, "gen_ai__usage__output_tokens": 100}
    model = {"gen_ai__request__model": "gpt-4o", "gen_ai__provider__name": "openai"}
    return span(number, parent, "chat", **{**usage, **model, **said})


def agents_at_work() -> list[FinishedSpan]:
    """A workflow of two agents, an HTTP span between, a tool, three LLM calls."""
    return [
        span(1, None, "invoke_workflow", gen_ai__workflow__name="triage"),
        span(2, 1, "invoke_agent", gen_ai__agent__name="planner", gen_ai__usage__input_tokens=99_999),
        chat(3, 2),
        span(4, 2, None, http__request__method="GET"),
        span(5, 4, "execute_tool", gen_ai__tool__name="search"),
        span(6, 5, "invoke_agent", gen_ai__agent__name="helper"),
        chat(7, 6),
        chat(8, 1, error__type="openai.RateLimitError", gen_ai__usage__input_tokens=None),
    ]


def wire(spans: list[FinishedSpan]) -> ExportTraceServiceRequest:
    """The request that an exporter would send."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for one in spans:
        made: Span = scope.spans.add()
        made.trace_id, made.span_id = bytes.fromhex(one.trace_id), bytes.fromhex(one.span_id)
        made.parent_span_id = bytes.fromhex(one.parent_id or "")
        made.name, made.start_time_unix_nano, made.end_time_unix_nano = one.name, one.start_unix_ns, one.end_unix_ns
        for name, value in one.attributes.items():
            if value is not None:
                pair = made.attributes.add()
                pair.key = name
                setattr(pair.value, "string_value" if isinstance(value, str) else "int_value", value)
    return request


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, str]]]:
    file, tokens = tokens_in(tmp_path)
    with TestClient(create_app(store=store, tokens=file)) as made:
        yield made, tokens


def test_spans_of_a_trace_become_a_tree(store: Store, client: tuple[TestClient, dict[str, str]]) -> None:
    """Names, nesting, tokens, cost, errors; the HTTP span between is passed through; the tenant is the token's."""
    asked, tokens = client
    body = wire(agents_at_work()).SerializeToString()
    answer = asked.post("/v1/traces", content=body, headers={**PROTOBUF, **bearer(tokens["writer"])})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    tree = get_run_tree(TRACE, store=store, tenant_id="acme")
    assert tree is not None
    assert [(step.depth, step.operation, step.name) for step in tree.steps] == [
        (0, "invoke_workflow", "triage"),
        (1, "invoke_agent", "planner"),
        (2, "chat", "gpt-4o"),
        (2, "execute_tool", "search"),
        (3, "invoke_agent", "helper"),
        (4, "chat", "gpt-4o"),
        (1, "chat", "gpt-4o"),
    ]
    assert tree.cost == 2 * Decimal("0.0035")
    assert [step.input_tokens for step in tree.steps[:2]] == [2_000, 2_000]
    failed = next(call for call in get_calls(store=store).calls if call.status == "error")
    assert (failed.error_category, failed.cost, failed.workflow) == ("rate_limit", None, "triage")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", ["protobuf", "json"])
def test_every_encoding_says_the_same(
    store: Store, client: tuple[TestClient, dict[str, str]], kind: str, packed: bool
) -> None:
    """Protobuf or JSON, with IDs in hexadecimal as OTLP has them, plain or gzip."""
    asked, tokens = client
    request = wire(agents_at_work())
    body = request.SerializeToString() if kind == "protobuf" else _json(request)
    headers = {"Content-Type": "application/x-protobuf" if kind == "protobuf" else "application/json"}
    headers |= {"Content-Encoding": "gzip"} if packed else {}
    answer = asked.post(
        "/v1/traces", content=gzip.compress(body) if packed else body, headers={**headers, **bearer(tokens["owner"])}
    )
    assert answer.status_code == 200, answer.text
    tree = get_run_tree(TRACE, store=store)
    assert tree is not None
    assert (len(tree.steps), tree.input_tokens) == (7, 2_000)


def _json(request: ExportTraceServiceRequest) -> bytes:
    document = MessageToDict(request)
    for one in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in one:
                from base64 import b64decode

                one[name] = b64decode(one[name]).hex()
    return json.dumps(document).encode()


def test_only_writers_send(client: tuple[TestClient, dict[str, str]]) -> None:
    """A viewer is refused, and so is a caller without a token."""
    asked, tokens = client
    body = wire(agents_at_work()).SerializeToString()
    assert asked.post("/v1/traces", content=body, headers={**PROTOBUF, **bearer(tokens["acme"])}).status_code == 403
    assert asked.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 401


def test_what_is_no_batch_is_refused(client: tuple[TestClient, dict[str, str]]) -> None:
    """Wrong type, wrong bytes, a bomb, half a stream: 4xx with a word, never a crash."""
    asked, tokens = client
    header = bearer(tokens["writer"])
    bomb = gzip.compress(b"\0" * (buffers.MOST_SPANS * 1_000))
    for headers, body, expected in (
        ({"Content-Type": "text/plain"}, b"x", 415),
        (PROTOBUF, b"\xff\xff\xff", 400),
        ({"Content-Type": "application/json"}, b"{", 400),
        ({"Content-Type": "application/json"}, b'{"resourceSpans": 3}', 400),
        ({"Content-Type": "application/json"}, b'{"traceId": "xyz"}', 400),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, b"x", 400),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(b"x" * 99)[:-4], 400),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, bomb, 413),
        ({**PROTOBUF, "Content-Encoding": "br"}, b"x", 415),
        (PROTOBUF, b"x" * (4 * 1024 * 1024 + 1), 413),
    ):
        answer = asked.post("/v1/traces", content=body, headers={**headers, **header})
        assert answer.status_code == expected, answer.text
        assert answer.json()["detail"]


def test_a_server_without_protobuf_takes_no_spans(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `otlp` all else is served, also where no other package brings the namespace `google`."""
    monkeypatch.setitem(sys.modules, "google", None)
    monkeypatch.delitem(sys.modules, "google.protobuf")
    with TestClient(create_app(store=store), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get("/").status_code == 200
        assert client.post("/v1/traces", content=b"", headers=PROTOBUF).status_code == 404


def test_a_batch_is_parsed_beside_the_event_loop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes up to seconds to parse, in which the server still answers its probes."""
    threads = []

    def noting(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return ParseDict(*args, **options)

    async def send() -> int:
        transport = httpx.ASGITransport(create_app(store=store), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"Content-Type": "application/json"}
            return (await client.post("/v1/traces", content=_json(wire(agents_at_work())), headers=headers)).status_code

    monkeypatch.setattr(otlp, "ParseDict", noting)
    assert asyncio.run(send()) == 200
    assert len(threads) == 1
    assert threading.get_ident() not in threads


class Kept:
    """Where a buffer writes, and whether it can."""

    def __init__(self) -> None:
        self.runs: dict[str, Invocation] = {}
        self.is_away = False
        self.transactions = 0

    def __call__(self, runs: Any) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")
        self.transactions += 1
        for run in runs:
            self.runs.setdefault(run.invocation_id, run)


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(agents_at_work()), sizes=st.lists(st.integers(1, 4), min_size=8, max_size=8))
def test_any_order_and_any_batches_give_the_same_rows(order: list[FinishedSpan], sizes: list[int]) -> None:
    """Children before parents or after them: names, parents and agents are the same, and nothing is there twice."""
    whole = read_spans(agents_at_work()).runs
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    with mock.patch.object(buffer, "_start"):
        position = 0
        for size in sizes:
            buffer.add(None, order[position : position + size])
            position += size
        buffer.close()
    assert buffer.counted()["written"] >= 7
    assert {run.invocation_id for run in kept.runs.values()} == {run.invocation_id for run in whole.values()}
    for run in whole.values():
        found = kept.runs[run.invocation_id]
        assert (found.parent_id, found.agent, found.workflow) == (run.parent_id, run.agent, run.workflow)


def test_late_spans_find_their_parents() -> None:
    """What arrives after its trace was written is beneath its parent all the same, and is counted as late."""
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    spans = agents_at_work()
    with mock.patch.object(buffer, "_start"):
        buffer.add("acme", spans[:2])
        buffer.add("acme", [spans[2]])
    agent = next(run for run in kept.runs.values() if run.operation is Operation.AGENT)
    call = next(run for run in kept.runs.values() if run.operation is Operation.CHAT)
    assert (call.parent_id, call.agent, call.workflow, call.tenant) == (
        agent.invocation_id,
        "planner",
        "triage",
        "acme",
    )
    assert (buffer.counted()["written"], buffer.counted()["late"]) == (3, 1)


def test_a_trace_without_a_root_is_written_when_it_is_quiet() -> None:
    """After ten seconds without news; and it is counted as torn."""
    now = [0.0]
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: now[0])
    with mock.patch.object(buffer, "_start"):
        buffer.add(None, [chat(3, 2)])
        now[0] = 9.9
        buffer.flush_quiet()
        assert kept.runs == {}
        now[0] = 10.0
        buffer.flush_quiet()
    assert len(kept.runs) == 1
    assert buffer.counted()["torn"] == 1


def test_what_waits_is_bounded() -> None:
    """Past the bound the oldest trace is written as it is; no span is lost, and memory does not grow."""
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    with mock.patch.object(buffer, "_start"), mock.patch.object(buffers, "MOST_SPANS", 100):
        for number in range(1_000):
            buffer.add(None, [chat(3, 2)._replace(trace_id=f"{number:032x}")])
            assert buffer._waiting <= 100
        buffer.close()
    assert len(kept.runs) == 1_000
    assert len(buffer._remembered) <= 2_000


def test_traces_of_one_batch_are_written_together() -> None:
    """A batch of 2,500 whole traces takes three transactions, because a commit takes longer than a trace."""
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    with mock.patch.object(buffer, "_start"):
        buffer.add(None, [chat(3, None)._replace(trace_id=f"{number:032x}") for number in range(2_500)])
    assert (len(kept.runs), kept.transactions, buffer._waiting) == (2_500, 3, 0)
    assert buffer.counted() == {"received": 2_500, "ignored": 0, "written": 2_500, "late": 0, "torn": 0}


def test_a_store_that_is_away_loses_nothing() -> None:
    """The sender gets an error and sends again; each span is one row in the end."""
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    kept.is_away = True
    with mock.patch.object(buffer, "_start"):
        with pytest.raises(StoreUnavailableError):
            buffer.add(None, agents_at_work())
        kept.is_away = False
        buffer.add(None, agents_at_work())
    assert len(kept.runs) == 7
    assert buffer._waiting == 0


def test_one_tenant_cannot_take_up_the_rows_of_another() -> None:
    """The same trace and span IDs from two tenants are two rows."""
    kept = Kept()
    buffer = TraceBuffer(kept, PriceTable(), clock=lambda: 0.0)
    with mock.patch.object(buffer, "_start"):
        for tenant in ("acme", "globex"):
            buffer.add(tenant, [span(1, None, "invoke_workflow"), chat(2, 1, taskpilot__tenant__id="other")])
    assert sorted(str(run.tenant) for run in kept.runs.values()) == ["acme", "acme", "globex", "globex"]


def test_a_call_seen_twice_is_one_call() -> None:
    """A framework's LLM span and that of the client beneath it: the outer one stays, with the usage of the inner."""
    outer = span(2, 1, "chat", gen_ai__request__model="gpt-4o")
    found = read_spans([span(1, None, "invoke_agent", gen_ai__agent__name="a"), outer, chat(3, 2)]).runs
    calls = [run for run in found.values() if run.operation is Operation.CHAT]
    assert [(run.usage and run.usage.input_tokens, run.provider) for run in calls] == [(1_000, "openai")]
    agent = next(run for run in found.values() if run.operation is Operation.AGENT)
    assert agent.rollup is not None
    assert (agent.rollup.llm_calls, agent.rollup.input_tokens) == (1, 1_000)


def test_the_call_of_a_check_is_kept() -> None:
    """Two LLM spans of this library, one beneath the other, are two calls: it folds what is one call by itself."""
    ours = [one._replace(scope="taskpilot_obs") for one in (chat(1, None), chat(2, 1), chat(3, 2))]
    client = chat(4, 3)._replace(scope="an.instrumentor")
    found = read_spans([*ours, client]).runs
    assert [(run.parent_id or "")[-1:] for run in found.values()] == ["", "1", "2"]
    assert [run.usage and run.usage.input_tokens for run in found.values()] == [1_000] * 3


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, Status.SUCCESS),
        ({"error__type": "TimeoutError"}, Status.TIMEOUT),
        ({"error__type": "httpx.ReadTimeout"}, Status.TIMEOUT),
        ({"error__type": "asyncio.CancelledError"}, Status.CANCELLED),
        ({"error__type": "ValueError"}, Status.ERROR),
        ({"taskpilot__status": "blocked"}, Status.BLOCKED),
        ({"taskpilot__status": "nonsense"}, Status.SUCCESS),
    ],
)
def test_how_a_span_ended(said: dict[str, Any], status: Status) -> None:
    """Its own word, the type of its error, or nothing."""
    (run,) = read_spans([chat(1, None, **said)]).runs.values()
    assert run.status is status


def test_old_and_new_names_are_read() -> None:
    """Attributes that the conventions renamed give the same usage and provider."""
    old = span(
        1, None, "chat", gen_ai__system="openai", gen_ai__usage__prompt_tokens=7, gen_ai__usage__completion_tokens=3
    )
    (run,) = read_spans([old]).runs.values()
    assert run.usage is not None
    assert (run.usage.input_tokens, run.usage.output_tokens, run.provider) == (7, 3, "openai")


def test_a_circle_of_spans_ends() -> None:
    """Spans that name each other as parents are read, once each."""
    random.seed(1)
    spans = [chat(number, (number + 1) % 50) for number in range(50)]
    assert len(read_spans(itertools.chain(spans, [chat(99, 99)])).runs) >= 1
