"""Golden signals of a fleet, against a real Prometheus server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, unquote_plus

import pytest
import typer
from _http import Reply, answering
from _servers import prometheus_server, require_binary, shipped_rules
from typer.testing import CliRunner

from taskpilot_obs import golden_signals
from taskpilot_obs.cli import signals
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.exceptions import ConfigurationError, RulesNotLoadedError, SourceError
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.reading import Registry
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.golden_signals.from_exposition import signals_from_registry
from taskpilot_obs.golden_signals.from_prometheus import COUNTS, CountQuery, PrometheusServer, signals_from_prometheus
from taskpilot_obs.golden_signals.http import Access
from taskpilot_obs.records import Feedback, Invocation, Operation, Origin, Rollup, Status
from taskpilot_obs.rules.promql import RuleScope
from taskpilot_obs.semconv import WORKFLOW_BUCKETS

STEP_S = 15
HISTORY_S = 3 * 3600
RECORDED = "job:llm_cost_usd:increase2h"
SCOPE = RuleScope("", ("job",))
SECRET = "s3cret"  # noqa: S105  a made-up one


SHIPPED_RECORDS = {
    "workflow:workflow_duration_seconds_bucket",
    "workflow:workflow_cost_usd",
    "job:llm_cost_usd",
    "job:policy_violations",
}
KINDS = {"workflow_duration_seconds": "histogram", "taskpilot_obs_start_time_seconds": "gauge", RECORDED: "gauge"}


class History:
    """Counters of the last three hours, as OpenMetrics text with a sample every 15 s."""

    def __init__(self) -> None:
        self.now = int(time.time())
        self.families: dict[str, list[str]] = {}

    def grow(self, series: str, labels: str, value_at: Callable[[int], float | None]) -> None:
        """A counter whose value is a function of the seconds before now; None where it was not scraped."""
        lines = self.families.setdefault(series.removesuffix("_total").removesuffix("_bucket"), [])
        for age in range(HISTORY_S, -1, -STEP_S):
            value = value_at(age)
            if value is not None:
                lines.append(f"{series}{{{labels}}} {value} {self.now - age}")

    def blocks(self, folder: Path) -> Path:
        text = []
        for family, lines in self.families.items():
            kind = KINDS.get(family, "counter")
            text += [f"# TYPE {family} {kind}", *lines]
        source = folder / "data.om"
        source.write_text("\n".join([*text, "# EOF", ""]), encoding="utf-8")
        data = folder / "data"
        promtool = require_binary("promtool")
        subprocess.run(
            [promtool, "tsdb", "create-blocks-from", "openmetrics", source, data], check=True, stdout=subprocess.DEVNULL
        )
        return data


def steadily(per_hour: float, start: float = 1000.0) -> Callable[[int], float]:
    return lambda age: start + per_hour * (HISTORY_S - age) / 3600


def fleet() -> History:
    """Two replicas with 3600 runs an hour each, one of them restarted; a policy violated for the first time of all.

    A third job is only there as the rules would have recorded it.
    """
    history = History()
    for instance in ("a", "b"):
        where = f'job="agents",instance="{instance}"'
        history.grow("taskpilot_obs_start_time_seconds", where, lambda _: history.now - 90_000)
        runs = f'{where},workflow="handle"'
        history.grow("workflow_runs_total", f'{runs},status="success"', steadily(3420))
        history.grow("workflow_runs_total", f'{runs},status="error"', steadily(180))
        history.grow("workflow_cost_usd_total", f'{runs},status="success"', steadily(342))
        for bound in (*WORKFLOW_BUCKETS, "+Inf"):
            share = 0.0 if float(bound) < 1 else 0.9 if float(bound) < 2 else 1.0
            history.grow("workflow_duration_seconds_bucket", f'{runs},le="{bound}"', steadily(3600 * share))
        history.grow("llm_cost_usd_total", f'{where},agent="x",model="m",provider="p"', steadily(342))
        history.grow("llm_billable_requests_total", f'{where},model="m",provider="p"', steadily(3600))
        history.grow("llm_unpriced_requests_total", f'{where},model="m",provider="p"', steadily(270))
        partial = f'{where},model="m",provider="p",reason="server_tools"'
        history.grow("llm_partially_priced_requests_total", partial, steadily(90))
    restarted = 'job="agents",instance="a",workflow="report",status="success"'
    history.grow("workflow_runs_total", restarted, lambda age: (HISTORY_S - age if age > 1800 else 1800 - age) / 3.6)
    born = 'job="agents",instance="a",workflow="handle",agent="x",policy="pii",severity="high"'
    history.grow("policy_violations_total", born, lambda age: 144 if age <= 600 else None)
    history.grow(RECORDED, 'job="recorded"', lambda _: 7.5)
    history.grow("llm_feedback_total", 'job="agents",instance="a",verdict="correct"', lambda _: 50)
    history.grow("llm_feedback_total", 'job="other",instance="z",verdict="correct"', steadily(10))
    return history


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with three hours of two replicas and the recording rules of one window."""
    folder = tmp_path_factory.mktemp("fleet")
    data = fleet().blocks(folder)
    config = "global: {evaluation_interval: 1s}\n"
    with prometheus_server(config, rules_dir=shipped_rules(folder), data_dir=data) as url:
        yield url


@pytest.mark.parametrize("window", ["1h", "60m", "45m", "90m"])
def test_a_window_over_all_replicas(server: str, window: str) -> None:
    """Counts of all replicas are added up, a restart costs nothing, and every figure is within 2 % of the truth."""
    result = signals_from_prometheus(server, window, job="agents")
    hours = result.window_s / 3600 if result.window_s else 0
    assert result.scope == "fleet"
    success = (2 * 3420 + 1000) * hours
    counted = success + 2 * 180 * hours
    assert result.runs.success == pytest.approx(success, rel=0.02)
    assert result.success_rate == pytest.approx(100 * success / counted, rel=0.02)
    assert result.p95_latency_ms == pytest.approx(1500, rel=0.02)
    assert result.cost_per_successful_task_usd == pytest.approx(2 * 342 * hours / success, rel=0.02)
    assert result.cost_coverage == pytest.approx(0.9, rel=0.02)
    assert result.policy_violation_rate_percent == pytest.approx(100 * 144 / counted, rel=0.02)
    assert result.user_confirmed_correctness_percent is None
    assert result.workflows["handle"].success_rate == pytest.approx(95, rel=0.02)
    assert result.workflows["report"].success_rate == 100.0


def recorded(url: str, count: CountQuery, window: str) -> dict[str, float]:
    """What a recording rule holds, once it has been evaluated."""
    deadline = time.monotonic() + 30
    while (
        not (samples := PrometheusServer(url).query(count.record(window), count.series)) and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    return {str(sorted(sample.labels.items())): sample.value for sample in samples}


def test_the_shipped_rules_record_what_is_asked_for(server: str) -> None:
    """The shipped rules hold these counts for every window they promise, and they equal the direct expression."""
    prometheus = PrometheusServer(server)
    records = prometheus.records()
    for count in (count for count in COUNTS if count.recorded in SHIPPED_RECORDS):
        assert {count.record(window) for window in ("5m", "30m", "1h", "6h", "1d", "3d")} <= records
        held = recorded(server, count, "1h")
        direct = PrometheusServer(server).query(count.expression("1h", SCOPE), count.series)
        expected = {str(sorted(sample.labels.items())): sample.value for sample in direct if sample.value}
        assert {labels: value for labels, value in held.items() if value} == pytest.approx(expected, rel=0.02)


def test_a_long_window_is_read_from_its_record_once_that_covers_it(server: str) -> None:
    """A record that already existed a window ago is believed; one that is younger falls short, and is not.

    What replicas had counted before the server first saw them is not taken for new either.
    """
    assert signals_from_prometheus(server, "2h", job="recorded").cost_usd == 7.5
    assert recorded(server, COUNTS[4], "6h")
    assert signals_from_prometheus(server, "6h", job="agents").cost_usd == pytest.approx(2 * 342 * 3, rel=0.02)


def test_several_services_are_not_added_up(server: str) -> None:
    """Without a job, a server that knows several services is refused with their names; each can be asked for alone."""
    with pytest.raises(ConfigurationError, match=r"several services \(agents, other\)"):
        signals_from_prometheus(server, "1h")
    with pytest.raises(ConfigurationError, match="several services"):
        golden_signals("1h", prometheus=server)
    assert golden_signals("1h", prometheus=server, job="agents", workflow="report").success_rate == 100.0
    assert signals_from_prometheus(server, "1h", job="other").user_confirmed_correctness_percent == 100.0


def test_an_answer_says_how_much_history_it_rests_on(server: str) -> None:
    """Three hours of samples cover an hour and not a week: `history_s` and a note report it."""
    hour = signals_from_prometheus(server, "1h", job="agents")
    assert hour.history_s == pytest.approx(3_600, rel=0.05)
    assert not any("minutes that were asked for" in note for note in hour.notes)
    week = signals_from_prometheus(server, "7d", job="agents")
    assert week.history_s is not None
    assert week.history_s <= HISTORY_S + 60 * 7
    assert any("of the 1.01e+04 minutes that were asked for" in note for note in week.notes)
    assert signals_from_prometheus(server, job="agents").history_s == pytest.approx(90_000, rel=0.01)


def test_all_figures_rest_on_one_instant() -> None:
    """Every question to a server carries the time that the server had at the first one."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> Reply:
        path = unquote_plus(handler.path)
        asked.append(path)
        if "/rules" in path:
            rule = {"name": "job:llm_cost_usd:increase1h"}
            return 200, "application/json", json.dumps({"data": {"groups": [{"rules": [rule]}]}}).encode()
        result = [1.0, "1234.5"] if "query=time" in path else []
        return 200, "application/json", json.dumps({"data": {"result": result}}).encode()

    with answering(answer) as url:
        signals_from_prometheus(url, "1h", job="shop")
    questions = [path for path in asked if "/query?" in path and "query=time()" not in path]
    assert len(questions) > len(COUNTS)
    assert all("time=1234.5" in path for path in questions)


def test_every_job_of_a_server_gets_its_line(server: str) -> None:
    """`signals --all-jobs` prints each job with its figures, and exits with the code of the worst."""
    app = typer.Typer()
    add_commands(app, signals)
    arguments = ["--prometheus", server, "--all-jobs", "--window", "1h"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160", "NO_COLOR": "1"})
    lines = [line for line in result.output.splitlines() if "agents" in line or "other" in line]
    assert len(lines) == 2, result.output
    assert "warning" in lines[0]
    assert "insufficient_data" in lines[1]
    assert result.exit_code == 1


def test_unknown_names_are_no_data(server: str) -> None:
    """A job that the server does not know is a signal without data."""
    assert signals_from_prometheus(server, "1h", job='no "such" job').status == "insufficient_data"


def test_without_the_rules_the_error_says_what_to_load() -> None:
    """A server without the library's rules is a RulesNotLoadedError that says how to load them."""
    with prometheus_server() as url, pytest.raises(RulesNotLoadedError, match="export-assets"):
        signals_from_prometheus(url, "1h")


def test_without_a_window_the_counters_as_they_stand(tmp_path: Path) -> None:
    """The instant counters of a live target give exactly the figures that the process itself tells."""
    registry = Registry()
    done = Invocation(
        Status.SUCCESS, 0.7, Operation.WORKFLOW, "handle", "r", "i", None, "handle", None, 0, is_task=True
    )
    paid = Rollup(cost=Decimal("0.3"), violations=1)
    PrometheusExporter(registry).export(
        [
            done._replace(rollup=paid),
            done,
            done._replace(status=Status.ERROR, duration_s=3.0),
            done._replace(operation=Operation.CHAT, is_task=False, cost=Decimal("0.3"), response_model="m"),
            Feedback("r", True, False, Origin(), 0),
        ]
    )
    with answering(lambda _: (200, "text/plain; version=0.0.4", render(registry)[0])) as target:
        config = (
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: agents, static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]}}]\n"
        )
        with prometheus_server(config, rules_dir=shipped_rules(tmp_path)) as url:
            deadline = time.monotonic() + 30
            while not (result := signals_from_prometheus(url)).runs.total and time.monotonic() < deadline:
                time.sleep(0.2)
    own = signals_from_registry(registry)
    assert result == own.model_copy(update={"scope": "fleet", "history_s": result.history_s})
    assert result.history_s


RULES_ANSWER = {"groups": [{"name": "g", "rules": [{"name": COUNTS[0].record("5m")}]}]}


def api(handler: BaseHTTPRequestHandler, result: object = ()) -> Reply:
    data = RULES_ANSWER if "/rules" in handler.path else {"result": result}
    return 200, "application/json", json.dumps({"status": "success", "data": data}).encode()


@pytest.mark.parametrize(
    ("access", "header"),
    [
        (Access(bearer_token=SECRET), f"Bearer {SECRET}"),
        (Access(username="u", password=SECRET), "Basic dTpzM2NyZXQ="),
        (Access(), None),
    ],
)
def test_credentials_are_sent(access: Access, header: str | None) -> None:
    """A bearer token or a user and password arrive as the header that they stand for, with every request."""
    seen: set[str | None] = set()

    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        seen.add(handler.headers.get("Authorization"))
        return api(handler)

    with answering(reply) as url:
        signals_from_prometheus(url, "1h", access=access)
    assert seen == {header}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, "text/plain", b"no"), "answered 401: the credentials are missing or wrong"),
        ((302, "text/plain", b""), "a redirect to elsewhere, which is not followed"),
        ((503, "text/plain", b"starting"), "answered 503 .*: starting"),
        ((200, "text/html", b"<html>"), "does not answer JSON"),
        ((200, "application/json", b"[]"), "its answer has no data"),
        ((200, "application/json", b"\xff"), "did not answer text in UTF-8"),
    ],
)
def test_what_a_server_answers_wrongly_is_said(answer: Reply, reason: str) -> None:
    """Refusals, redirects, errors and strangers each end in a SourceError that says which it was."""
    with answering(lambda _: answer) as url, pytest.raises(SourceError, match=reason):
        signals_from_prometheus(url, "1h")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [({"metric": {}}, "a vector that cannot be read"), ({"metric": {}, "value": [0, "many"]}, "'many' where a number")],
)
def test_a_vector_that_cannot_be_read_is_said(entry: object, reason: str) -> None:
    """A sample without labels, time and number is a SourceError."""
    with answering(lambda handler: api(handler, [entry])) as url, pytest.raises(SourceError, match=reason):
        signals_from_prometheus(url, "1h")


def test_a_value_that_is_no_number_counts_nothing() -> None:
    """A NaN of the server does not become a figure."""
    entry = {"metric": {"workflow": "a", "status": "success", "le": "1", "verdict": "correct"}, "value": [0, "NaN"]}
    with answering(lambda handler: api(handler, [entry])) as url:
        assert signals_from_prometheus(url, "1h").status == "insufficient_data"


def test_a_server_that_is_not_there_is_said() -> None:
    """A closed port is a SourceError that names the address."""
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9/api/v1/rules cannot be reached"):
        signals_from_prometheus("http://127.0.0.1:9", "1h", access=Access(timeout_s=5))


def test_a_server_that_hangs_is_given_up() -> None:
    """A server that does not answer within the time limit is a SourceError."""

    def slowly(handler: BaseHTTPRequestHandler) -> Reply:
        time.sleep(1.0)
        return api(handler)

    with answering(slowly) as url, pytest.raises(SourceError, match="did not answer within"):
        signals_from_prometheus(url, "1h", access=Access(timeout_s=0.2))


def test_an_answer_that_trickles_is_given_up() -> None:
    """The time limit is for the whole answer, not for each piece of it."""

    def trickle(handler: BaseHTTPRequestHandler) -> Reply:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b" " * 70_000)
            time.sleep(0.05)
        return api(handler)

    with answering(trickle) as url, pytest.raises(SourceError, match=r"did not answer within|in time"):
        signals_from_prometheus(url, "1h", access=Access(timeout_s=0.3))


def test_an_answer_without_end_is_given_up() -> None:
    """An answer of more than 64 MiB is not read to its end."""
    page = b"x" * (65 * 1024 * 1024)
    with answering(lambda _: (200, "text/plain", page)) as url, pytest.raises(SourceError, match="more than 64 MiB"):
        signals_from_prometheus(url, "1h")


@pytest.mark.parametrize(("window", "promql"), [("90s", "[90s]"), ("120m", "[2h]"), ("48h", "[2d]"), ("90m", "[90m]")])
def test_windows_are_asked_for_in_their_largest_unit(window: str, promql: str) -> None:
    """A window is written as the recording rules write theirs."""
    asked: list[str] = []

    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        asked.append(unquote(handler.path))
        return api(handler)

    with answering(reply) as url:
        signals_from_prometheus(url, window)
    assert sum(promql in query for query in asked) == len(COUNTS)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1", "allowed is http"),
        ("file:///etc/passwd", "allowed is http"),
        ("127.0.0.1:9090", "allowed is http"),
        ("http://user:pa55@127.0.0.1", "give them apart"),
        ("http://[::1", "cannot be read"),
        ("http://127.0.0.1:x", "cannot be read"),
        ("http://127.0.0.1/a b", "no spaces"),
        ("http://127.0.0.1/ü", "percent-encoded"),
        ("http://bücher.example", "a host as xn--"),
    ],
)
def test_other_urls_are_refused(url: str, reason: str) -> None:
    """Only http and https are asked, credentials do not belong in a URL, and a refusal does not repeat them."""
    with pytest.raises(ConfigurationError, match=reason) as refused:
        signals_from_prometheus(url, "1h")
    assert "pa55" not in str(refused.value)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_a_host_that_cannot_exist_cannot_be_reached(host: str) -> None:
    """A label of more than 63 characters, and an empty one, end in this error too."""
    with pytest.raises(SourceError, match="cannot be reached"):
        signals_from_prometheus(f"http://{host}", "1h")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bearer_token": "a", "username": "u", "password": "p"}, "give one of them"),
        ({"username": "u"}, "both a user name and a password"),
        ({"bearer_token": "a\nb"}, "control characters"),
        ({"bearer_token": ""}, "empty"),
        ({"timeout_s": 0}, "above 0"),
    ],
)
def test_access_that_makes_no_sense_is_refused(options: dict[str, object], reason: str) -> None:
    """Contradicting or unusable credentials fail when they are given."""
    with pytest.raises(ConfigurationError, match=reason):
        Access(**options)  # type: ignore[arg-type]


def test_secrets_do_not_show() -> None:
    """Neither token nor password is in the representation of an access."""
    assert SECRET not in repr(Access(bearer_token=SECRET)) + repr(Access(username="u", password=SECRET))


def test_certificates_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """A missing file of certificates is a configuration error."""
    with pytest.raises(ConfigurationError, match="ca_file"):
        signals_from_prometheus("https://127.0.0.1:9", "1h", access=Access(ca_file=tmp_path / "none.pem"))
