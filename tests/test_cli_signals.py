"""`taskpilot-obs signals`: what it prints, and how it exits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import typer
from _http import Reply, answering
from _servers import free_port
from typer.testing import CliRunner, Result

from taskpilot_obs.cli import signals
from taskpilot_obs.cli._credentials import PASSWORD_VARIABLE
from taskpilot_obs.cli._program import add_commands

HEALTHY = """\
workflow_runs_total{workflow="handle",status="success"} 99
workflow_runs_total{workflow="handle",status="error"} 1
workflow_duration_seconds_bucket{workflow="handle",le="0.5"} 100
workflow_duration_seconds_bucket{workflow="handle",le="+Inf"} 100
workflow_cost_usd_total{workflow="handle",status="success"} 1.98
llm_cost_usd_total{agent="a",model="m",provider="p"} 1.98
llm_billable_requests_total{model="m",provider="p"} 200
llm_unpriced_requests_total{model="m",provider="p"} 10
policy_violations_total{workflow="handle",agent="a",policy="pii",severity="high"} 1
llm_feedback_total{verdict="correct"} 19
llm_feedback_total{verdict="incorrect"} 1
"""
WARNING = HEALTHY.replace('"error"} 1', '"error"} 8')
CRITICAL = HEALTHY.replace('"error"} 1', '"error"} 50')
SLOW = """\
workflow_runs_total{workflow="slow",status="success"} 4
workflow_duration_seconds_bucket{workflow="slow",le="5.0"} 0
workflow_duration_seconds_bucket{workflow="slow",le="10.0"} 4
workflow_duration_seconds_bucket{workflow="slow",le="+Inf"} 4
llm_cost_usd_total{agent="a",model="m",provider="p"} 5000
"""


class Page:
    """What the endpoint answers, in turn; the last answer stays."""

    def __init__(self) -> None:
        self.texts = [HEALTHY]
        self.content_type = "text/plain; version=0.0.4"
        self.authorization: str | None = None

    def next(self) -> bytes:
        return (self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]).encode()


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def url(page: Page) -> Iterator[str]:
    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        page.authorization = handler.headers.get("Authorization")
        return 200, page.content_type, page.next()

    with answering(reply) as base:
        yield f"{base}/metrics"


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    app = typer.Typer()
    add_commands(app, signals)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "140", "NO_COLOR": "1", **(env or {})})


def words(text: str) -> str:
    return re.sub(r"[^\w$%./]+", " ", text)


@pytest.mark.parametrize(
    ("text", "code"), [(HEALTHY, 0), (WARNING, 1), (CRITICAL, 2), ("", 3), ("go_threads 7\n", 3), ("<html>", 4)]
)
def test_the_exit_code_is_the_status(page: Page, url: str, text: str, code: int) -> None:
    """0 healthy, 1 warning, 2 critical, 3 no evidence, 4 cannot read."""
    page.texts = [text]
    assert run("--url", url).exit_code == code


def test_the_table_shows_figures_with_their_evidence(url: str) -> None:
    """Each signal stands with its figure, interval, evidence and status, and the workflows below."""
    shown = words(run("--url", url).output)
    assert "Golden signals all workers since the start" in shown
    assert "success rate 99.0 % 94.6 to 99.8 % 99 of 100 counted runs healthy" in shown
    assert "p95 latency 475 ms 100 tasks interpolated healthy" in shown
    assert "cost per success $0.02 $1.98 / 99 successful tasks healthy" in shown
    assert "confirmed correct 95.0 % 76.4 to 99.1 % 19 of 20 rated healthy" in shown
    assert "policy violations 1.0 % 1 in 100 counted runs healthy" in shown
    assert "overall 95.0 % of LLM calls priced healthy" in shown
    assert "handle 100 100 99.0 % 475 ms $0.02 healthy" in shown
    assert "note the cost covers 95.0% of LLM calls" in shown


@pytest.mark.promise("no-evidence")
def test_no_evidence_is_said_in_words(page: Page, url: str) -> None:
    """Without evidence the table reports that, and shows no 0."""
    page.texts = [""]
    shown = words(run("--url", url).output)
    assert "success rate no data insufficient_data" in shown
    assert "note no run" in shown


def test_one_workflow(url: str) -> None:
    """With --workflow the figures are that workflow's, and the headline names it."""
    shown = words(run("--url", url, "--workflow", "handle").output)
    assert "since the start workflow handle" in shown
    assert "By workflow" not in shown


def test_json_is_the_model(url: str) -> None:
    """--json prints the model: the five keys first, nothing rounded."""
    result = run("--url", url, "--json")
    answer = json.loads(result.output)
    assert next(iter(answer)) == "success_rate"
    assert answer["cost_per_successful_task_usd"] == 0.02
    assert answer["status"] == "healthy"


def test_over_tells_what_happened_between_two_scrapes(page: Page, url: str) -> None:
    """--over scrapes twice and tells the difference, so that an old incident no longer shows."""
    page.texts = [CRITICAL, CRITICAL.replace('"success"} 99', '"success"} 109')]
    result = run("--url", url, "--over", "1s", "--json")
    answer = json.loads(result.stdout)
    assert (answer["runs"]["success"], answer["runs"]["error"]) == (10, 0)
    assert 1 <= answer["window_s"] < 10
    page.texts = [CRITICAL, HEALTHY]
    assert "last 1" in words(run("--url", url, "--over", "1s").stdout)


def test_a_mounted_endpoint_may_redirect_to_itself() -> None:
    """A redirect from `/metrics` to `/metrics/`, as web frameworks answer for a mount, is followed."""

    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        if handler.path.endswith("/"):
            return 200, "text/plain", HEALTHY.encode()
        return 307, "text/plain", b""

    with answering(reply, location="/metrics/") as base:
        assert run("--url", f"{base}/metrics").exit_code == 0


def test_large_figures_are_readable(page: Page, url: str) -> None:
    """Seconds, dollars and full percentages are written as people write them."""
    page.texts = [SLOW]
    shown = words(run("--url", url).output)
    assert "success rate 100.0 %" in shown
    assert "p95 latency 9.75 s" in shown
    assert "cost per success $1 250.00" in shown


def test_a_server_that_is_not_there_cannot_be_read() -> None:
    """A closed port exits with 4 and names the address on standard error."""
    address = f"http://127.0.0.1:{free_port()}/metrics"
    result = run("--url", address)
    assert result.exit_code == 4
    assert address in result.stderr.replace("\n", "")
    assert run("--prometheus", address).exit_code == 4


def test_a_fleet_is_asked_of_its_prometheus() -> None:
    """With --prometheus the server answers for every replica, over the last hour unless told otherwise."""
    runs = [{"metric": {"workflow": "handle", "status": "success"}, "value": [0, "4"]}]

    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        data: dict[str, object] = {"result": runs if "workflow_runs_total" in handler.path else []}
        if handler.path.startswith("/api/v1/rules"):
            data = {"groups": [{"name": "g", "rules": [{"name": "job:llm_cost_usd:increase5m"}]}]}
        return 200, "application/json", json.dumps({"status": "success", "data": data}).encode()

    with answering(reply) as base:
        result = run("--prometheus", base)
        assert result.exit_code == 0
        assert "every replica last 60 min" in words(result.output)
        assert "last 24 h" in words(run("--prometheus", base, "--window", "1d").output)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--window", "1h"], "need --prometheus"),
        (["--job", "agents"], "need --prometheus"),
        (["--prometheus", "http://127.0.0.1:9", "--over", "60s"], "takes --window"),
        (["--prometheus", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9"], "takes --window"),
        (["--over", "soon"], "window: given 'soon'"),
        (["--url", "ftp://127.0.0.1"], "allowed is http"),
        (["--user", "u"], PASSWORD_VARIABLE),
        (["--bearer-token-file", "/nowhere/token"], "cannot be read"),
        (["--timeout", "0"], "above 0"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_do(arguments: Sequence[str], reason: str) -> None:
    """Contradicting or unusable options exit with 2 and say what was wrong."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert words(reason) in words(result.stderr)


def test_credentials_come_from_a_file_or_the_environment(page: Page, url: str, tmp_path: Path) -> None:
    """A bearer token is read from its file, a password from the environment: neither stands on the command line."""
    token = tmp_path / "token"
    token.write_text("t0ken\n", encoding="utf-8")
    assert run("--url", url, "--bearer-token-file", str(token)).exit_code == 0
    assert page.authorization == "Bearer t0ken"
    assert run("--url", url, "--user", "u", env={PASSWORD_VARIABLE: "p"}).exit_code == 0
    assert page.authorization == "Basic dTpw"
