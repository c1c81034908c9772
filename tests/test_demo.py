"""The demo: what its users meet, what the terminal shows, and that everything it suggests works."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from taskpilot_obs.audit.query import query, tail
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.cli import demo as command
from taskpilot_obs.cli._demo_view import closing_view
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.demo.choose import choose
from taskpilot_obs.demo.load import Load
from taskpilot_obs.demo.script import Fate, Request, current_request, requests
from taskpilot_obs.demo.service import Service, decorated_service
from taskpilot_obs.demo.spend import DemoSpend
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.golden_signals.facade import golden_signals
from taskpilot_obs.records import Feedback, Invocation, Operation, Status
from taskpilot_obs.testing import Captured, capture_records, fresh_recorder
from taskpilot_obs.usage import Usage

PROGRAM = Path(sys.executable).with_name("taskpilot-obs")
ENDS = {
    Fate.FINE: Status.SUCCESS,
    Fate.RETRIED: Status.SUCCESS,
    Fate.OUTSIDE_EMAIL: Status.SUCCESS,
    Fate.RATE_LIMITED: Status.ERROR,
    Fate.SERVER_ERROR: Status.ERROR,
    Fate.TOOL_TIMEOUT: Status.TIMEOUT,
    Fate.INJECTION: Status.BLOCKED,
    Fate.DELETION: Status.BLOCKED,
    Fate.HANGS_UP: Status.CANCELLED,
    Fate.STOPS_READING: Status.ABANDONED,
}
KINDS = ["decorators", "langgraph"]


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest) -> Service:
    """Both services."""
    if request.param == "decorators":
        return choose(decorators=True)
    pytest.importorskip("langgraph")
    return choose()


def one_of_each() -> list[Request]:
    """The first request of every fate, but for the slow one."""
    first: dict[Fate, Request] = {}
    for request in islice(requests(), 200):
        first.setdefault(request.fate, request)
    return [request for fate, request in first.items() if fate in ENDS]


def serve(service: Service, load: list[Request]) -> None:
    asyncio.run(Load(service, load, per_second=500).run())


def test_every_run_sees_the_same_requests() -> None:
    """The same seed gives the same requests, and every 200 of them hold the same fates."""
    first, again, other = (list(islice(requests(seed), 400)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    shares = [Counter(request.fate for request in part) for part in (first[:200], first[200:], other[:200])]
    assert shares[0] == shares[1] == shares[2]
    assert set(shares[0]) == set(Fate)


def test_a_request_ends_as_its_fate_says(service: Service, seen: Captured[Invocation]) -> None:
    """Each fate ends the workflow with its status, on LangGraph as with decorators."""
    load = one_of_each()
    serve(service, load)
    ended = Counter(run.status for run in seen if run.operation is Operation.WORKFLOW)
    assert ended == Counter(ENDS[request.fate] for request in load)
    assert {run.name for run in seen if run.operation is Operation.WORKFLOW} == {"handle_request"}


def test_what_the_models_say_of_themselves_is_booked(service: Service, seen: Captured[Invocation]) -> None:
    """Cached and reasoning tokens, streams, retries, provider errors and a model without a price: all are there."""
    serve(service, one_of_each() + list(islice(requests(), 16)))
    calls = [run for run in seen if run.operation is Operation.CHAT]
    usages = [run.usage for run in calls if run.usage is not None]
    assert any(usage.cache_read_tokens for usage in usages)
    assert any(usage.reasoning_tokens for usage in usages)
    assert any(run.ttft_s is not None and run.streaming for run in calls)
    assert sum(run.retries for run in calls) >= 3
    assert {run.error_category for run in calls if run.status is Status.ERROR} == {"rate_limit", "server"}
    answered = [run for run in calls if run.status is Status.SUCCESS]
    assert {run.model for run in answered if run.cost is None} == {"house-reviewer-7b"}
    assert all(run.cost > 0 for run in answered if run.cost is not None)


def test_the_graphs_model_answers_asynchronously_alone() -> None:
    """Asked in the other way, the pretend model says how it can be asked."""
    graph = pytest.importorskip("taskpilot_obs.demo.graph")
    context = copy_context()
    context.run(current_request.set, next(requests()))
    with pytest.raises(NotImplementedError, match="use ainvoke or astream"):
        context.run(graph.PretendChatModel(agent="PlannerAgent").invoke, "hello")


def test_users_say_whether_the_answer_was_right(service: Service) -> None:
    """A rating is recorded only for an answer that was read to its end."""
    with capture_records(Feedback) as ratings:
        fine = [request for request in islice(requests(), 100) if request.rating is not None and request.fate in ENDS]
        serve(service, fine[:8])
        delivered = [request.rating for request in fine[:8] if ENDS[request.fate] is Status.SUCCESS]
        assert Counter(rating.correct for rating in ratings) == Counter(delivered)


def test_the_signals_are_not_all_healthy() -> None:
    """Policy violations and wrong answers are there to be seen, and so is the part of the cost that is unknown."""
    with fresh_recorder():
        serve(decorated_service(), [request for request in islice(requests(), 200) if request.fate is not Fate.SLOW])
        signals = golden_signals("15m")
    assert signals.status == "warning"
    assert signals.evidence["policy_violation_rate_percent"].status == "warning"
    assert signals.evidence["user_confirmed_correctness_percent"].status == "warning"
    assert signals.cost_coverage is not None
    assert 0.9 < signals.cost_coverage < 1


def test_spend_adds_up_by_agent_and_model() -> None:
    """Calls, tokens and cost are summed by agent and model; other runs are not calls; the dearest comes first."""
    spend = DemoSpend()
    call = Invocation(Status.SUCCESS, 1.0, Operation.CHAT, "m", "r", "i", None, None, "a", 0, request_model="m")
    priced = call._replace(usage=Usage(input_tokens=10, output_tokens=5), cost=Decimal("0.25"))
    for run in (call._replace(agent="cheap"), priced, priced, priced._replace(operation=Operation.TOOL)):
        spend(run)
    (first, second) = spend.lines()
    assert first == ("a", "m", (2, 20, 10, Decimal("0.5"), 0))
    assert second == ("cheap", "m", (1, 0, 0, Decimal(0), 1))


# --- the command -----------------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, in a folder of its own; a warning ends it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(PROGRAM), "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "110"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def metrics_of(process: subprocess.Popen[str]) -> str:
    """What /metrics says as soon as runs have ended, read at the address that the command prints."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"/metrics is on (\S+)", line)
        if found is not None:
            break
    else:
        pytest.fail(f"no address was printed: {process.communicate()[1]}")
    while True:
        with urlopen(found[1], timeout=10) as answer:
            text = answer.read().decode()
        if re.search(r'^workflow_runs_total\{status="success",workflow="handle_request"\} [1-9]', text, re.MULTILINE):
            return str(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_shows_the_signals_and_the_audit_log(kind: str, tmp_path: Path) -> None:
    """/metrics answers while it runs; at the end come the signals, the audit log and commands that work."""
    arguments = ["--decorators"] if kind == "decorators" else []
    with running(tmp_path, "--seconds", "1", "--svg", "demo.svg", *arguments) as process:
        assert 'llm_requests_total{agent="PlannerAgent",model="gpt-4o"' in metrics_of(process)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    for text in ("success rate", "30/30 requests", "policy violations", "claude-sonnet-4-5", "no price", ".demo/audit"):
        assert text in shown
    assert [report.is_whole for report in verify(tmp_path / ".demo" / "audit.jsonl")] == [True]
    assert "success" in (tmp_path / "demo.svg").read_text()
    assert "@font-face" not in (tmp_path / "demo.svg").read_text()
    suggested = [line.strip() for line in shown.splitlines() if str(PROGRAM.name) in line and "#" not in line]
    assert len(suggested) == 5
    for line in suggested:
        if " demo " not in line and " signals " not in line:
            done = subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    assert list((tmp_path / "observability-assets").rglob("alerts.yml"))


def test_serve_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    """With --serve the load has no end; Ctrl-C ends it, and the closing report comes all the same."""
    with running(tmp_path, "--decorators", "--serve", "--directory", "logs") as process:
        metrics_of(process)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "until Ctrl-C" in shown
    assert "What to do next" in shown
    running_ones = [
        record for record in query(tmp_path / "logs" / "audit.jsonl") if record.get("status") == "cancelled"
    ]
    assert running_ones


def test_the_closing_report_without_a_refusal(tmp_path: Path) -> None:
    """Where nothing was refused the last three records are shown; a failure that the user can fix comes first."""
    with fresh_recorder(audit_log=tmp_path / "audit.jsonl") as recorder:
        for number in range(4):
            recorder.record_audit_event(f"event.{number}")
        recorder.flush(10)
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(closing_view(tmp_path / "audit.jsonl", "taskpilot-obs", failure=ValueError("no such key")))
    shown = console.export_text()
    assert "The last failure: ValueError: no such key" in shown
    assert "event.0" not in shown
    assert all(f"event.{number}" in shown for number in (1, 2, 3))
    assert len(tail(tmp_path / "audit.jsonl", 10)) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--live"], "set OPENAI_API_KEY or ANTHROPIC_API_KEY"),
        (["--live", "--decorators"], "without --decorators"),
        (["--seconds", "0"], "0.1"),
        (["--port", "70000"], "65535"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that cannot be followed exit with 2 and say what to do."""
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    app = typer.Typer()
    add_commands(app, command)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert reason in result.stderr


def test_without_langgraph_the_decorators_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LangGraph the demo reports that and continues."""
    monkeypatch.setitem(sys.modules, "langgraph", None)
    service = choose()
    assert service.handle is decorated_service().handle
    assert "langgraph is not installed" in service.description


def test_live_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """--live without LangGraph names the extra, without the provider's package names the package."""
    environ = {"OPENAI_API_KEY": "sk-test"}
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(ConfigurationError, match="pip install langchain-openai"):
        choose(live=True, environ=environ)
    monkeypatch.setitem(sys.modules, "langgraph", None)
    with pytest.raises(MissingExtraError, match=r"taskpilot-obs\[demo\]"):
        choose(live=True, environ=environ)


def test_the_program_is_named_so_that_it_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name where it is on PATH, otherwise by a path from here."""
    script = tmp_path / "bin" / "taskpilot-obs"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert command.program() == str(script)
    monkeypatch.chdir(tmp_path)
    assert command.program() == "bin/taskpilot-obs"
    monkeypatch.setenv("PATH", str(script.parent))
    assert command.program() == "taskpilot-obs"


# --- live, against a loopback server that speaks as the provider does ------------------------------------------------


class Provider(BaseHTTPRequestHandler):
    """Answers chat completions as a stream of OpenAI's, and refuses Anthropic's messages."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/chat/completions"):
            return self.answer(401, "application/json", b'{"type":"error","error":{"type":"authentication_error"}}')
        head: dict[str, object] = {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-mini-2024-07-18",
        }
        words: list[dict[str, object]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]} for word in ("Do ", "it.")
        ]
        usage = {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200}
        events: list[dict[str, object]] = [
            *words,
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        lines = [f"data: {json.dumps(head | event)}\n\n" for event in events]
        return self.answer(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[str]:
    """The address of the provider."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_live_asks_the_real_client(provider: str, monkeypatch: pytest.MonkeyPatch, seen: Captured[Invocation]) -> None:
    """With --live the same graph runs on the provider's own LangChain model, and its tokens are priced."""
    pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider}/v1")
    service = choose(live=True)
    assert "ChatOpenAI" in service.description
    serve(service, list(islice(requests(), 1)))
    calls = [run for run in seen if run.operation is Operation.CHAT]
    assert [(run.agent, run.status) for run in calls] == [
        (agent, Status.SUCCESS) for agent in ("PlannerAgent", "ReviewerAgent", "ExecutorAgent")
    ]
    assert {(run.response_model, run.cost) for run in calls} == {("gpt-4o-mini-2024-07-18", Decimal("0.0000525"))}


def test_live_keeps_the_providers_refusal(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that refuses ends no demo: its answer is kept, to be shown at the end."""
    pytest.importorskip("langchain_anthropic")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider)
    load = Load(choose(live=True), islice(requests(), 1), per_second=500)
    asyncio.run(load.run())
    assert type(load.last_failure).__name__.endswith("AuthenticationError")
