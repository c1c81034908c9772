"""The doctor: what it finds in an environment, at a running `/metrics` and at a real Prometheus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from shutil import disk_usage

import pytest
from _folders import open_to_all
from _http import answering
from _servers import prometheus_server
from prometheus_client import CollectorRegistry

from taskpilot_obs import record_llm_call, semconv, track_agent
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._support.assets import RULES, observability_dir
from taskpilot_obs.config import build_recorder, library_version
from taskpilot_obs.doctor import Finding, Level, diagnose
from taskpilot_obs.doctor import environment as environment_checks
from taskpilot_obs.doctor.server import shipped_groups
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus.worker_files import mark_namespace
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs.testing import fresh_recorder

NOBODY = 65534
INFO = f'{semconv.INFO.name}{{version="{library_version()}"}} 1\n'


def look(check: str, level: Level | None = None, **given: object) -> list[Finding]:
    found = diagnose(**{"environ": {}, **given})  # type: ignore[arg-type]  # a test's shorthand
    return [finding for finding in found if finding.check == check and level in (None, finding.level)]


def one(check: str, **environ: str) -> Finding:
    (finding,) = look(check, environ=environ)
    return finding


def test_an_environment_in_order() -> None:
    """Where nothing is wrong, nothing is said to be, and no remedy is offered."""
    found = diagnose(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert {finding.level for finding in found} == {Level.OK}
    assert {finding.remedy for finding in found} == {""}


@pytest.mark.parametrize(
    "environ",
    [{"WEB_CONCURRENCY": "4"}, {"GUNICORN_CMD_ARGS": "--bind=:80 --workers=4"}, {"GUNICORN_CMD_ARGS": "-w 4"}],
)
def test_several_processes_without_a_directory(environ: dict[str, str], tmp_path: Path) -> None:
    """Several workers without PROMETHEUS_MULTIPROC_DIR are a problem, and the remedy names it."""
    finding = one("processes", **environ)
    assert finding.level is Level.PROBLEM
    assert "PROMETHEUS_MULTIPROC_DIR" in finding.remedy
    assert one("processes", **environ, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).level is Level.OK
    assert look("processes", workers=3)[0].level is Level.PROBLEM
    assert one("processes", WEB_CONCURRENCY="many").level is Level.OK


def test_the_directory_of_many_processes(tmp_path: Path) -> None:
    """A directory that is missing is a problem; one that was not emptied, or is full of the dead, a warning."""
    values = tmp_path / "values"

    def directory() -> Finding:
        return one("multi-process directory", PROMETHEUS_MULTIPROC_DIR=str(values))

    assert directory().level is Level.PROBLEM
    values.mkdir()
    mark_namespace(values)
    assert directory().level is Level.OK
    for number in range(environment_checks.MANY_DEAD + 1):
        (values / f"counter_{2**22 + number}.db").touch()
    assert "have ended" in directory().text
    (values / "taskpilot_obs.namespace-1").touch()
    assert "empty it between runs" in directory().remedy


def test_an_environment_that_makes_no_configuration() -> None:
    """A variable that cannot be read is a problem, named with what was given."""
    finding = one("settings", TASKPILOT_OBS_QUEUE_CAPACITY="lots")
    assert finding.level is Level.PROBLEM
    assert "TASKPILOT_OBS_QUEUE_CAPACITY" in finding.text


def test_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below a file is a problem, a disk that is nearly full a warning, standard output is fine."""
    (tmp_path / "file").touch()
    assert one("audit log", TASKPILOT_OBS_AUDIT_LOG=str(tmp_path / "file" / "a.jsonl")).level is Level.PROBLEM
    path = str(tmp_path / "new" / "a.jsonl")
    assert one("audit log", TASKPILOT_OBS_AUDIT_LOG=path).level is Level.OK
    assert one("audit log", TASKPILOT_OBS_AUDIT_LOG="stdout").level is Level.OK
    monkeypatch.setattr(environment_checks, "LITTLE_ROOM_BYTES", disk_usage(tmp_path).total + 1)
    assert one("audit log", TASKPILOT_OBS_AUDIT_LOG=path).level is Level.WARNING


def test_what_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system does not let be written is a problem, folder or file."""
    (tmp_path / "audit.jsonl").touch()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) == tmp_path)
    log = one("audit log", TASKPILOT_OBS_AUDIT_LOG=str(tmp_path / "audit.jsonl"))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    directory = one("multi-process directory", PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert log.level is directory.level is Level.PROBLEM


def test_what_another_user_owns(tmp_path: Path) -> None:
    """Folders and files that the service's user may not write are problems."""
    code = """
import os, sys
from taskpilot_obs.doctor import diagnose
home = sys.argv[1]
diagnose(environ={})  # what it imports may stand where only root may read
if os.getuid() == 0:
    os.setuid(65534)
for log in ("ro/audit.jsonl", "rw/audit.jsonl"):
    found = diagnose(environ={"PROMETHEUS_MULTIPROC_DIR": f"{home}/ro", "TASKPILOT_OBS_AUDIT_LOG": f"{home}/{log}"})
    print([f.level.value for f in found if f.check in {"audit log", "multi-process directory"}])
"""
    for name, mode in (("ro", 0o555), ("rw", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.jsonl").touch(0o444)
        (tmp_path / name).chmod(mode)
    open_to_all(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "['problem', 'problem']\n" * 2


def test_tracing_seen_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing that goes nowhere is a warning; switched off on purpose it is none."""
    assert one("tracing").level is Level.WARNING
    assert one("tracing", OTEL_SDK_DISABLED="true").level is Level.WARNING
    assert one("tracing", TASKPILOT_OBS_TRACING="false").level is Level.OK
    monkeypatch.setattr(environment_checks, "is_installed", lambda _name: False)
    assert "not installed" in one("tracing").text


@pytest.mark.parametrize("exporter", [False, True])
def test_tracing_seen_from_within(exporter: bool) -> None:
    """Within the service, a tracer provider without an exporter is a warning."""
    code = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
from taskpilot_obs.doctor import diagnose
provider = TracerProvider()
if sys.argv[1] == "True":
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
print(next(f.level.value for f in diagnose(environ={}) if f.check == "tracing"))
"""
    done = subprocess.run([sys.executable, "-c", code, str(exporter)], capture_output=True, text=True, check=True)
    assert done.stdout == ("ok\n" if exporter else "warning\n")


def test_versions_that_do_not_fit() -> None:
    """A package that is older than what is needed, or missing, is found; extras count where they are installed."""
    requirements = [
        "pydantic>=999.1",
        "prometheus-client>=0.22",
        "no-such-package>=1",
        'no-such-extra>=1; extra == "cli"',
        'rich>=999; extra == "cli"',
        "anything",
    ]
    found = {name: needed for name, _, needed in environment_checks._outdated(requirements)}
    assert found == {"pydantic": "999.1", "no-such-package": "1", "rich": "999"}


def test_nothing_answers() -> None:
    """A `/metrics` that cannot be reached is a problem."""
    (finding,) = look("metrics", metrics_url="http://127.0.0.1:9/metrics")
    assert finding.level is Level.PROBLEM


def test_metrics_of_somebody_else() -> None:
    """An endpoint without this library's metrics is a problem."""
    with start_metrics_server(0, registry=CollectorRegistry()) as server:
        (finding,) = look("metrics", metrics_url=server.url)
    assert (finding.level, finding.remedy[:16]) == (Level.PROBLEM, "call configure()")


def test_a_service_in_order(recorder: Recorder) -> None:
    """A service in order has nothing but good findings."""
    with track_agent("a"):
        pass
    with start_metrics_server(0, registry=recorder.registry) as server:
        found = diagnose(metrics_url=server.url, environ={"TASKPILOT_OBS_TRACING": "0"})
    assert {finding.level for finding in found} == {Level.OK}


def test_what_the_library_says_about_itself() -> None:
    """Dropped records are a problem; failures, folded names and unpriced models are warnings that name them."""

    def fails(_run: object) -> None:
        raise ValueError

    with fresh_recorder(exporters=[fails]) as recorder:
        for number in range(semconv.LABEL_BOUNDS[semconv.Label.AGENT] + 5):
            with track_agent(f"a{number}"):
                pass
        record_llm_call(model="nobody-knows", provider="nobody")
        recorder.flush()
        recorder.parts.counters.add(semconv.INTERNAL_ERRORS, ("freeze",))  # type: ignore[union-attr]
        with start_metrics_server(0, registry=recorder.registry) as server:
            found = {
                finding.check: finding
                for finding in diagnose(metrics_url=server.url, environ={"TASKPILOT_OBS_TRACING": "0"})
                if finding.level is not Level.OK
            }
    assert found["dropped records"].level is Level.PROBLEM
    assert "exporter_1 did not get" in found["dropped records"].text
    assert "fix its target" in found["dropped records"].remedy
    assert found["unpriced models"].text == "1 LLM calls have no known cost: nobody-knows (1)"
    assert "those calls stated no usage" in found["unpriced models"].remedy
    assert set(found) == {"dropped records", "exporters", "internal errors", "label overflow", "unpriced models"}


def test_several_processes_behind_one_port() -> None:
    """Answers that jump between processes, each with its own counts, are a problem that names the directory."""
    answers = iter([3, 9, 4, 9, 3, 9])
    body = f'{INFO}{semconv.RECORDS.name}{{exporter="window"}} %d\n'
    with answering(lambda _: (200, "text/plain", (body % next(answers)).encode())) as url:
        (finding,) = [each for each in look("processes", metrics_url=url) if each.level is not Level.OK]
    assert "PROMETHEUS_MULTIPROC_DIR" in finding.remedy


def test_another_version_runs_there() -> None:
    """A service with another version of the library is a warning."""
    with answering(lambda _: (200, "text/plain", f'{semconv.INFO.name}{{version="0.0.1"}} 1\n'.encode())) as url:
        assert "0.0.1 runs there" in look("versions", Level.WARNING, metrics_url=url)[0].text


def test_a_prometheus_without_rules_that_scrapes_nothing() -> None:
    """A real Prometheus that has no rules and no target of this library has both said, with what to do."""
    with prometheus_server() as url:
        found = {finding.check: finding for finding in diagnose(prometheus=url, environ={})}
    assert found["rules"].level is found["scrapes"].level is Level.PROBLEM
    assert "export-assets" in found["rules"].remedy
    assert found["clock"].level is Level.OK


def test_a_prometheus_in_order(recorder: Recorder) -> None:
    """A real Prometheus with the shipped rules that scrapes this library is in order."""
    with start_metrics_server(0, registry=recorder.registry) as metrics:
        config = f"""
scrape_configs:
  - job_name: app
    scrape_interval: 1s
    static_configs: [{{targets: ["127.0.0.1:{metrics.port}"]}}]
"""
        with prometheus_server(config, rules_dir=observability_dir() / RULES) as url:
            for _ in range(150):
                time.sleep(0.2)
                found = diagnose(prometheus=url, environ={"TASKPILOT_OBS_TRACING": "0"})
                if {finding.level for finding in found} == {Level.OK}:
                    break
    assert {finding.level for finding in found} == {Level.OK}
    assert len(shipped_groups()) > 5


def always(body: bytes) -> Callable[[BaseHTTPRequestHandler], tuple[int, str, bytes]]:
    return lambda _: (200, "text/plain", body)


def test_prometheus_answers_of_every_kind() -> None:
    """Rules that are missing in part or fail, a clock that is off, versions that differ, and no Prometheus at all."""
    groups: list[dict[str, object]] = [{"name": name, "rules": []} for name in sorted(shipped_groups())[1:]]
    groups[0]["rules"] = [{"name": "broken", "health": "err", "lastError": "many-to-many"}]
    versions = [{"metric": {"version": version}, "value": [0, "1"]} for version in ("1", "2")]
    replies = {
        "rules": {"groups": groups},
        "time": {"result": [0, "100"]},
        "count": {"result": versions},
    }

    def reply(handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        data = next(data for name, data in replies.items() if f"{name}" in handler.path.partition("/api/v1/")[2])
        return 200, "application/json", json.dumps({"data": data}).encode()

    with answering(reply) as url:
        found = [(finding.check, finding.level) for finding in diagnose(prometheus=url, environ={})][-4:]
        assert found == [
            ("rules", Level.WARNING),
            ("rules", Level.PROBLEM),
            ("clock", Level.PROBLEM),
            ("versions", Level.WARNING),
        ]
        replies["time"] = {"result": [0, "soon"]}
        assert "does not report its time" in look("prometheus", prometheus=url)[0].text
    for body in (b"hello", b"[]"):
        with answering(always(body)) as url:
            assert "is not a Prometheus server" in look("prometheus", prometheus=url)[0].text


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from taskpilot_obs.cli import main; main()", "doctor", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_exit_codes(tmp_path: Path) -> None:
    """0 without a problem, 1 with one, 2 for wrong usage; warnings count with --strict."""
    assert command().returncode == 0
    assert command("--strict").returncode == 1
    several = command("--workers=4")
    assert several.returncode == 1
    assert "-> set PROMETHEUS_MULTIPROC_DIR to a directory" in several.stdout
    findings = json.loads(command("--json", WEB_CONCURRENCY="4").stdout)
    assert [each["check"] for each in findings if each["level"] == "problem"] == ["processes"]
    assert command("--url=ftp://x").returncode == 2
    assert command(f"--bearer-token-file={tmp_path / 'none'}").returncode == 2
    (tmp_path / "token").write_text("secret\n")
    assert command(f"--bearer-token-file={tmp_path / 'token'}").returncode == 0


def test_a_service_is_judged_by_its_own_answers(recorder: Recorder) -> None:
    """With a URL the command judges the service, not the shell: what is set or missing here is not its fault."""
    with start_metrics_server(0, registry=recorder.registry) as server:
        here = {"WEB_CONCURRENCY": "4", "TASKPILOT_OBS_QUEUE_CAPACITY": "lots"}
        asked = command("--json", "--strict", f"--url={server.url}", **here)
        both = command("--json", f"--url={server.url}", "--environment", **here)
    assert asked.returncode == 0, asked.stdout
    assert {each["check"] for each in json.loads(asked.stdout)} == {"metrics"}
    assert {"processes", "settings"} <= {each["check"] for each in json.loads(both.stdout)}
    refused = command("--workers=4", f"--url={server.url}")
    assert refused.returncode == 2
    assert "--environment" in refused.stderr


def test_a_url_that_is_none() -> None:
    """An invalid URL is refused, not diagnosed."""
    with pytest.raises(ConfigurationError):
        diagnose(metrics_url="nonsense", environ={})


def test_it_can_look_from_within_a_service() -> None:
    """The doctor may be asked by the service itself, whose recorder is left as it is."""
    recorder = build_recorder(registry=CollectorRegistry())
    assert diagnose(environ={})
    assert recorder.shutdown()
