"""Configuration: code beats environment beats defaults, errors name what to do, and replacing loses nothing."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from taskpilot_obs import config, configure, get_recorder, observe_agent, track_agent
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.thresholds import Thresholds
from taskpilot_obs.records import AuditEvent, Invocation, Record
from taskpilot_obs.settings import ENV_PREFIX, Options, Settings


@pytest.fixture(autouse=True)
def _restore(recorder: Recorder) -> Iterator[None]:
    """`configure()` replaces the parts of the default recorder: put back what was there."""
    before = recorder.parts
    assert before is not None
    yield
    recorder.wiring.install(before)


def test_options_are_the_settings() -> None:
    """What type checkers offer at `configure()` are exactly the settings."""
    assert set(Options.__annotations__) == set(Settings.model_fields)


def test_code_beats_environment_beats_defaults() -> None:
    """An option given in code wins, then the environment, then the default."""
    environ = {ENV_PREFIX + "SERVICE": "env", ENV_PREFIX + "QUEUE_CAPACITY": "128", "OTEL_SERVICE_NAME": "otel"}
    assert Settings.resolve({}, {}).service == "unknown_service"
    assert Settings.resolve({}, {"OTEL_SERVICE_NAME": "otel"}).service == "otel"
    assert Settings.resolve({}, environ).service == "env"
    assert Settings.resolve({"service": "code"}, environ).service == "code"
    assert Settings.resolve({"service": "code"}, environ).queue_capacity == 128


def test_the_environment_speaks_text() -> None:
    """Truth values, numbers, durations, paths and lists are read from the environment's text."""
    settings = Settings.resolve(
        {},
        {
            ENV_PREFIX + "ENABLED": "false",
            ENV_PREFIX + "AUDIT_LOG": "a.jsonl",
            ENV_PREFIX + "AUDIT_MAX_AGE": "3600",
            ENV_PREFIX + "PRICES": "a.toml:b.yaml",
            ENV_PREFIX + "AUDIT_KEY": "hush",
        },
    )
    assert (settings.enabled, settings.audit_log, settings.audit_max_age) == (
        False,
        Path("a.jsonl"),
        timedelta(hours=1),
    )
    assert settings.prices == (Path("a.toml"), Path("b.yaml"))
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        ({"servce": "x"}, {}, ["unknown option 'servce'", "did you mean 'service'", "audit_log"]),
        ({"zzz": 1}, {}, ["unknown option 'zzz'", "Allowed:"]),
        ({"queue_capacity": 3}, {}, ["queue_capacity", "given 3", "64"]),
        ({"on_full": "explode"}, {}, ["on_full", "'explode'", "'drop' or 'block'"]),
        ({}, {ENV_PREFIX + "EXIT_TIMEOUT_S": "soon"}, ["exit_timeout_s", ENV_PREFIX + "EXIT_TIMEOUT_S", "'soon'"]),
        ({"audit_key": 17}, {}, ["audit_key", "a secret"]),
        ({"service": object()}, {}, ["service", "an object of type object"]),
        ({"exit_timeout_s": float("nan")}, {}, ["exit_timeout_s", "nan"]),
    ],
)
def test_errors_name_field_given_and_allowed(
    options: dict[str, Any], environ: dict[str, str], words: list[str]
) -> None:
    """Every error names the field, what was given and what is allowed; a secret is never shown."""
    with pytest.raises(ConfigurationError) as error:
        Settings.resolve(options, environ)
    for word in words:
        assert word in str(error.value)


plain_settings = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "service": st.text("abc-é", min_size=1, max_size=20),
        "service_version": st.text("0123.", max_size=9),
        "audit_max_bytes": st.integers(4096, 10**9),
        "audit_max_age": st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
        "audit_keep": st.none() | st.integers(1, 99),
        "audit_durability": st.sampled_from(["flush", "fsync"]),
        "on_full": st.sampled_from(["drop", "block"]),
        "queue_capacity": st.integers(64, 10**6),
        "exit_timeout_s": st.floats(0, 300),
        "capture_content": st.booleans(),
        "capture_max_length": st.integers(16, 10**6),
        "model_aliases": st.dictionaries(st.text("ab", min_size=1), st.text("cd", min_size=1), max_size=3),
        "thresholds": st.just(Thresholds(success_rate=(99, 95))),
    },
)


@given(plain_settings)
def test_settings_survive_the_round_trip(options: dict[str, Any]) -> None:
    """Settings dumped and read again are the same, as values and as JSON."""
    settings = Settings.resolve(options, {})
    assert Settings(**settings.model_dump()) == settings
    assert Settings(**json.loads(settings.model_dump_json())) == settings


def test_configure_again_loses_nothing(tmp_path: Path) -> None:
    """Replacing the configuration writes what was queued, and runs in progress end in the new one."""
    first: list[Invocation] = []
    second: list[Invocation] = []
    registry = CollectorRegistry()
    configure(exporters=[first.append], registry=registry)
    open_run = get_recorder().start("invoke_agent", "across")
    for _ in range(100):
        with track_agent("a"):
            pass
    recorder = configure(exporters=[second.append], registry=registry)
    open_run.stop()
    with track_agent("b"):
        pass
    assert recorder.flush()
    assert len(first) == 100
    assert [run.name for run in second] == ["across", "b"]
    assert registry.get_sample_value("agent_active_runs", {"agent": "across"}) == 0
    assert registry.get_sample_value("agent_runs_total", {"agent": "a", "status": "success"}) == 100


def test_configure_again_keeps_the_audit_log(tmp_path: Path) -> None:
    """Configuring again with the same audit log goes on in the same file, as one chain."""
    path = tmp_path / "audit.jsonl"
    for name in ("a", "b"):
        configure(audit_log=path, registry=CollectorRegistry())
        with track_agent(name):
            pass
    get_recorder().flush()
    assert [entry.name for entry in tmp_path.glob("*.jsonl")] == ["audit.jsonl"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["message"] for line in lines if "agent" in line] == [
        "[AUDIT] a Input",
        "[AUDIT] a Output",
        "[AUDIT] b Input",
        "[AUDIT] b Output",
    ]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_configuration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """When a new configuration cannot be built, the one before goes on."""
    seen: list[Invocation] = []
    configure(exporters=[seen.append], registry=CollectorRegistry())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="audit log"):
        configure(audit_log=tmp_path / "file" / "audit.jsonl")
    with pytest.raises(ConfigurationError, match="exporters: given an object of type int"):
        configure(exporters=[3])
    with track_agent("a"):
        pass
    assert get_recorder().flush()
    assert len(seen) == 1


def test_an_audit_log_to_a_logger_and_to_stdout(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit log can go to a logger of the application, or to standard output."""
    logger = logging.getLogger("app.audit")
    logger.setLevel(logging.INFO)
    configure(audit_log=logger, registry=CollectorRegistry())
    with track_agent("a"):
        pass
    get_recorder().flush()
    assert "[AUDIT] a Output" in caplog.text
    configure(audit_log="stdout", registry=CollectorRegistry())
    with track_agent("b"):
        pass
    get_recorder().flush()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["message"] for line in lines] == ["[AUDIT] b Input", "[AUDIT] b Output"]


def test_an_exporter_object_gets_every_kind_of_record() -> None:
    """An object with `export(batch)` gets all records, behind a worker of its own."""

    class Mine:
        def __init__(self) -> None:
            self.records: list[object] = []

        def export(self, batch: Sequence[Record], /) -> None:
            self.records.extend(batch)

    mine = Mine()
    recorder = configure(exporters=[mine], registry=CollectorRegistry())
    recorder.record_audit_event("deployed")
    assert recorder.flush()
    assert [type(record) for record in mine.records] == [AuditEvent]


def test_a_recorder_of_its_own() -> None:
    """A recorder apart from the default one has its own registry, window and exporters."""
    seen: list[Invocation] = []
    mine = build_recorder(registry=CollectorRegistry(), exporters=[seen.append], prometheus=False)
    observe_agent("mine", recorder=mine)(lambda: None)()
    assert mine.flush()
    assert [run.name for run in seen] == ["mine"]
    mine.shutdown()


def test_without_prometheus_and_disabled() -> None:
    """Metrics can be switched off, and everything can."""
    off = build_recorder(enabled=False, exporters=[print], audit_log="never-made.jsonl")
    assert off.start("invoke_agent", "a").ended
    assert not Path("never-made.jsonl").exists()
    assert off.parts is not None
    assert off.parts.declares is None
    off.shutdown()


def test_lists_in_the_environment() -> None:
    """Kinds are parted by commas or like paths, blanks and empty items do not count; paths keep their commas."""
    sep = os.pathsep
    environ = {
        ENV_PREFIX + "REDACTION_SKIP": f"email, iban{sep}card,",
        ENV_PREFIX + "PRICES": f"a,b.toml{sep}c.toml{sep}",
    }
    settings = Settings.resolve({}, environ)
    assert settings.redaction_skip == ("email", "iban", "card")
    assert settings.prices == (Path("a,b.toml"), Path("c.toml"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"redaction_skip": ["phone"]}, "skip"),
        ({"redaction_rules": ["email"]}, "Rule"),
        ({"redaction_key": "short"}, "hmac_key"),
    ],
)
def test_redaction_is_checked_while_nothing_is_captured(options: Any, said: str, tmp_path: Path) -> None:
    """A wrong option of redaction is refused at once, not when capture is switched on, and before a file is opened."""
    log = tmp_path / "audit.jsonl"
    with pytest.raises(ConfigurationError, match=said):
        configure(**options, audit_log=log)
    assert not list(tmp_path.iterdir())


def test_right_redaction_captures_nothing_by_itself() -> None:
    """Options of redaction alone do not switch capture on."""
    assert build_recorder(redaction_skip=["email"], prometheus=False).runtime.redactor is None


def test_the_environment_configures_the_default_recorder() -> None:
    """Without a call of `configure()` the environment decides: empty is unset, a wrong value is a clear error."""
    code = "from taskpilot_obs import get_recorder; print(get_recorder().settings.service)"
    for value, expected in (("env", "env\n"), ("", "unknown_service\n"), ("x" * 201, "")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={ENV_PREFIX + "SERVICE": value, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == expected
    assert "service (from TASKPILOT_OBS_SERVICE): given 'xxx" in done.stderr


def test_the_version_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported from a checkout that is not installed, the version states that."""

    def missing(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert config.library_version() == "0+unknown"


def test_on_full_is_one_vocabulary() -> None:
    """What an exporter may do when it is full is what the settings allow."""
    from taskpilot_obs._pipeline.batched import OnFull

    assert set(get_args(OnFull)) == set(get_args(Settings.model_fields["on_full"].annotation))
