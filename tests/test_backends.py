"""What back ends are sent: real exporters against loopback receivers, with the attributes that each back end reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from _http import answering

from taskpilot_obs import request_context, track_agent, track_llm, track_tool, track_workflow
from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs.testing import fresh_recorder

if find_spec("opentelemetry.exporter") is None or find_spec("opentelemetry.exporter.otlp") is None:
    assert not os.environ.get("CI"), "opentelemetry-exporter-otlp-proto-http is not installed"
    pytest.skip("the OTLP exporter is NOT INSTALLED: install the dependency group `test`", allow_module_level=True)

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

DOCS = Path(__file__).parent.parent / "docs"
Spans = dict[str, dict[str, Any]]


def work() -> None:
    """One request: a workflow, an agent, a tool, a call of a model, and a tool that fails."""
    request = request_context("req-1", tenant_id="acme", user_id="jane", session_id="s-1")
    with request, track_workflow("answer"), track_agent("Planner"):
        with track_tool("search"):
            pass
        with track_llm(provider="openai", model="gpt-4o-mini") as call:
            call.record_usage(150, 50)
            call.record_model("gpt-4o-mini-2024-07-18")
        with pytest.raises(ValueError, match="broken"), track_tool("broken"):
            raise ValueError("broken")


def value_of(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def receiver(into: Spans, headers: list[dict[str, str]]) -> Iterator[str]:
    """An OTLP receiver on loopback."""

    def take(handler: Any) -> tuple[int, str, bytes]:
        headers.append(dict(handler.headers))
        body = handler.rfile.read(int(handler.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: value_of(one.value) for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    said = {one.key: value_of(one.value) for one in span.attributes}
                    said |= {"service.name": service["service.name"], "status": span.status.code, "kind": span.kind}
                    into[span.name] = said
        return 200, "application/x-protobuf", b""

    with answering(take) as url:
        yield url


def exported(path: str, headers: dict[str, str], wrap: Any = None) -> tuple[Spans, dict[str, str]]:
    """What a back end at this path is sent, and the headers of the first request."""
    spans: Spans = {}
    seen: list[dict[str, str]] = []
    with receiver(spans, seen) as url:
        exporter = OTLPSpanExporter(endpoint=url + path, headers=headers)
        provider = TracerProvider(resource=Resource.create({"service.name": "support-bot"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter if wrap is None else wrap(exporter)))
        with fresh_recorder(tracer_provider=provider):
            work()
        provider.shutdown()
    return spans, {name.lower(): value for name, value in seen[0].items()}


def contains(span: dict[str, Any], **expected: Any) -> None:
    named = {name.replace("__", "."): value for name, value in expected.items()}
    assert {name: span.get(name) for name in named} == named


BACKENDS = {
    "Datadog": ("/v1/traces", {"dd-api-key": "k", "dd-otlp-source": "llmobs"}),
    "Honeycomb": ("/v1/traces", {"x-honeycomb-team": "k"}),
    "Langfuse": ("/api/public/otel/v1/traces", {"authorization": "Basic cGs6c2s="}),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_what_back_ends_of_the_genai_conventions_read(name: str) -> None:
    """Kind, model, provider, tokens, agent, tool, session, cost and errors arrive under the conventions' names."""
    path, headers = BACKENDS[name]
    spans, sent = exported(path, headers)
    assert headers.items() <= sent.items()
    assert len(spans) == 5
    contains(
        spans["chat gpt-4o-mini"],
        gen_ai__operation__name="chat",
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__response__model="gpt-4o-mini-2024-07-18",
        gen_ai__provider__name="openai",
        gen_ai__usage__input_tokens=150,
        gen_ai__usage__output_tokens=50,
        gen_ai__conversation__id="s-1",
        taskpilot__user__id="jane",
        taskpilot__tenant__id="acme",
        taskpilot__request__id="req-1",
        kind=3,
    )
    assert spans["chat gpt-4o-mini"]["taskpilot.cost.usd"] == pytest.approx(0.0000525)
    contains(spans["invoke_agent Planner"], gen_ai__operation__name="invoke_agent", gen_ai__agent__name="Planner")
    contains(spans["execute_tool search"], gen_ai__operation__name="execute_tool", gen_ai__tool__name="search")
    contains(spans["execute_tool broken"], status=2, error__type="ValueError", taskpilot__status="error")
    assert {span["service.name"] for span in spans.values()} == {"support-bot"}


def test_each_attribute_of_the_page_arrives() -> None:
    """Every attribute that docs/backends.md names is on a span that an OTLP receiver gets, and each status too."""
    page = (DOCS / "backends.md").read_text(encoding="utf-8").partition("## What arrives as what")[2]
    rows = re.findall(r"^\| (?!---|of this)(.*) \|$", page.partition("## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row.split(" | ")[1])}
    assert len(rows) == 8
    assert {"gen_ai.usage.input_tokens", "gen_ai.tool.name", "taskpilot.tenant.id", "error.type"} <= named
    for path, headers in BACKENDS.values():
        spans, _ = exported(path, headers)
        assert not named - {name for span in spans.values() for name in span}
        assert [name for name, span in spans.items() if span["status"] == 2] == ["execute_tool broken"]


def test_the_names_that_phoenix_reads() -> None:
    """The exporter of docs/backends.md adds OpenInference's names, which Phoenix reads, and user and session."""
    page = (DOCS / "backends.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/backends.md", "exec"), names)  # noqa: S102  our own page
    spans, _ = exported("/v1/traces", {}, names["OpenInferenceNames"])
    contains(
        spans["chat gpt-4o-mini"],
        openinference__span__kind="LLM",
        llm__model_name="gpt-4o-mini-2024-07-18",
        llm__provider="openai",
        llm__token_count__prompt=150,
        llm__token_count__completion=50,
        user__id="jane",
        session__id="s-1",
        gen_ai__request__model="gpt-4o-mini",
    )
    kinds = {name: span["openinference.span.kind"] for name, span in spans.items()}
    assert kinds == {
        "invoke_workflow answer": "CHAIN",
        "invoke_agent Planner": "AGENT",
        "execute_tool search": "TOOL",
        "execute_tool broken": "TOOL",
        "chat gpt-4o-mini": "LLM",
    }
    contains(spans["execute_tool search"], tool__name="search")
    contains(spans["invoke_agent Planner"], agent__name="Planner")
    assert spans["chat gpt-4o-mini"]["llm.cost.total"] == spans["chat gpt-4o-mini"]["taskpilot.cost.usd"]
    assert not set(names["NAMES"]) - {name for span in spans.values() for name in span}


AZURE = """
import sys
names = {}
exec(compile(open(sys.argv[1]).read(), "docs/azure-monitor.md", "exec"), names)
import test_backends
test_backends.work()
names["provider"].shutdown()
"""


def ingested(number: int, folder: Path) -> list[Any]:
    """What a block of docs/azure-monitor.md, in a process of its own, sends to a fake ingestion."""
    if find_spec("azure") is None or find_spec("azure.monitor") is None:
        assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "azure_monitor", "its exporter is not installed"
        pytest.skip("azure-monitor-opentelemetry-exporter is NOT INSTALLED: scripts/test_frameworks.sh azure_monitor")
    block = re.findall(r"```python\n(.*?)```", (DOCS / "azure-monitor.md").read_text(encoding="utf-8"), re.DOTALL)[
        number
    ]
    (folder / "block.py").write_text(block, encoding="utf-8")
    items: list[Any] = []

    def take(handler: Any) -> tuple[int, str, bytes]:
        items.extend(json.loads(handler.rfile.read(int(handler.headers["content-length"]))))
        return 200, "application/json", json.dumps({"itemsReceived": 9, "itemsAccepted": 9, "errors": []}).encode()

    with answering(take) as url:
        key = "InstrumentationKey=00000000-0000-0000-0000-000000000001"
        environ = {
            **os.environ,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": f"{key};IngestionEndpoint={url}/",
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        command = [sys.executable, "-W", "ignore", "-c", AZURE, str(folder / "block.py")]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return items


def test_metrics_in_azure_monitor(tmp_path: Path) -> None:
    """The families and the client metrics arrive under their names, with their labels and exact values."""
    found = {}
    for item in ingested(1, tmp_path):
        if item["tags"]["ai.cloud.role"] != "support-bot":  # what the exporter counts of itself
            continue
        data = item["data"]["baseData"]
        (metric,) = data["metrics"]
        labels = tuple(sorted(data.get("properties", {}).items()))
        found[metric["name"], labels] = metric
    run = (("agent", "Planner"), ("status", "success"))
    call = (("agent", "Planner"), ("model", "gpt-4o-mini"), ("provider", "openai"))
    assert found["agent_runs_total", run]["value"] == 1
    assert found["llm_tokens_total", (*call, ("token_type", "input"))]["value"] == 150
    assert found["llm_cost_usd_total", call]["value"] == pytest.approx(0.0000525)
    assert found["agent_run_duration_seconds", run[:1]]["count"] == 1
    assert {metric["value"] for (name, _), metric in found.items() if name == "gen_ai.client.token.usage"} == {150, 50}


def test_azure_monitor(tmp_path: Path) -> None:
    """The first block of docs/azure-monitor.md sends the spans as the page states."""
    items = ingested(0, tmp_path)
    found = {item["data"]["baseData"].get("name"): item for item in items}
    call = found["chat gpt-4o-mini"]
    data = call["data"]["baseData"]
    assert (call["data"]["baseType"], data["type"], data["success"]) == ("RemoteDependencyData", "N/A", True)
    contains(
        data["properties"],
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__usage__input_tokens="150",
        taskpilot__tenant__id="acme",
    )
    assert float(data["properties"]["taskpilot.cost.usd"]) == pytest.approx(0.0000525)
    agent, tool = found["invoke_agent Planner"], found["execute_tool broken"]
    assert (agent["data"]["baseData"]["type"], agent["tags"]["ai.cloud.role"]) == ("InProc", "support-bot")
    assert call["tags"]["ai.operation.parentId"] == agent["data"]["baseData"]["id"]
    runs = [item for item in items if item["data"]["baseType"] == "RemoteDependencyData"]
    assert (len(runs), len({item["tags"]["ai.operation.id"] for item in runs})) == (5, 1)
    assert (tool["data"]["baseData"]["success"], tool["data"]["baseData"]["properties"]["taskpilot.status"]) == (
        False,
        "error",
    )
    (raised,) = [item for item in items if item["data"]["baseType"] == "ExceptionData"]
    (exception,) = raised["data"]["baseData"]["exceptions"]
    assert (exception["typeName"], "broken" in str(exception)) == ("ValueError", False)


def test_while_asyncio_is_being_imported_no_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that another thread is importing has no functions yet; a call that ends then keeps its span."""
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(in_event_loop()))
    thread.start()
    thread.join()
    assert found == [False]
