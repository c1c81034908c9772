from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _audit import event, finished, llm_call, read, samples, started
from pythonjsonlogger.json import JsonFormatter

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.exporter import Exporter, PartialExportError
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.exporters.json_logging import JsonLogFormatter, LoggerExporter, StdoutExporter
from taskpilot_obs.records import Operation

CHAIN = ("seq", "prev_hash", "hash")


@pytest.fixture
def lines() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of the application, and what its handler wrote."""
    logger, stream = logging.getLogger("app.audit"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLogFormatter("svc"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger, stream
    logger.removeHandler(handler)


def parsed(text: str) -> list[dict[str, Any]]:
    assert text.isascii()
    return [json.loads(line, parse_float=Decimal) for line in text.split("\n")[:-1]]


def test_file_stdout_and_logger_say_the_same(
    tmp_path: Path, lines: tuple[logging.Logger, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, standard output and a logger with our formatter carry the same fields in the same order."""
    logger, stream = lines
    batch = [*samples(), finished(user="\u2028" + "x" * 10_000, attributes={"level": "forged", "nan": float("nan")})]
    exporters = AuditLogExporter(tmp_path / "audit.jsonl", service="svc"), StdoutExporter(service="svc")
    for exporter in (*exporters, LoggerExporter(logger, service="svc")):
        assert isinstance(exporter, Exporter)
        exporter.export(batch)
    exporters[0].shutdown(1.0)
    in_file = [
        [(name, value) for name, value in record.items() if name not in CHAIN]
        for record in read(tmp_path / "audit.jsonl")
    ]
    assert [list(record.items()) for record in parsed(capsys.readouterr().out)] == in_file
    assert [list(record.items()) for record in parsed(stream.getvalue())] == in_file


def test_a_formatter_of_the_users_own(caplog: pytest.LogCaptureFixture) -> None:
    """For any other formatter the message is the record's, the level too, and the fields are extras."""
    logger = logging.getLogger("app.plain")
    with caplog.at_level(logging.WARNING, logger="app.plain"):
        LoggerExporter(logger).export([started(), finished(Operation.TOOL, "t", status="error"), llm_call()])
    (record,) = caplog.records
    assert record.getMessage() == "[ERROR] t Tool"
    assert record.levelname == "ERROR"
    assert vars(record)["request_id"] == "req-1"
    assert record.created == pytest.approx(1_763_717_401.500001)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="app.plain"):
        LoggerExporter(logger).export([llm_call()])
    said = json.loads(JsonFormatter().format(caplog.records[0]))
    assert said["cost_usd"] == 0.0000525
    assert said["message"] == "[AUDIT] gpt-4o LLM"


def test_the_default_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Without a logger given it is `taskpilot_obs.audit`."""
    with caplog.at_level(logging.INFO, logger="taskpilot_obs.audit"):
        LoggerExporter().export([event()])
    assert [record.name for record in caplog.records] == ["taskpilot_obs.audit"]


def test_application_records(lines: tuple[logging.Logger, io.StringIO]) -> None:
    """The application's own records share the shape, so that they join the audit log by request ID and trace ID."""
    logger, stream = lines
    logger.info("saved %s", "it", extra={"request_id": "req-1", "trace_id": "", "agent": "Planner", "rows": 3})
    (said,) = parsed(stream.getvalue())
    assert said.pop("timestamp").endswith("Z")
    assert said == {
        "level": "INFO",
        "logger": "app.audit",
        "message": "saved it",
        "service": "svc",
        "request_id": "req-1",
        "agent": "Planner",
        "attributes": {"rows": 3},
    }


def test_application_records_cannot_forge_fields(lines: tuple[logging.Logger, io.StringIO]) -> None:
    """What the application passes as extra or as a dictionary does not overwrite time, level or service."""
    logger, stream = lines
    logger.warning({"message": "m\nn", "level": "DEBUG", "service": "other", "k": 1})
    logger.warning("x", extra={"timestamp": "never", "level": "DEBUG", "hash": "h"})
    first, second = parsed(stream.getvalue())
    assert (first["level"], first["service"], first["message"]) == ("WARNING", "svc", "m\nn")
    assert first["attributes"] == {"level": "DEBUG", "service": "other", "k": 1}
    assert second["timestamp"] != "never"
    assert second["attributes"] == {"timestamp": "never", "level": "DEBUG", "hash": "h"}


def test_exceptions_of_the_application(lines: tuple[logging.Logger, io.StringIO]) -> None:
    """A traceback is one field on the record's one line."""
    logger, stream = lines
    try:
        raise ValueError("bad\u2028")
    except ValueError:
        logger.exception("failed")
    logger.info("here", stack_info=True)
    first, second = parsed(stream.getvalue())
    assert first["exception"].endswith("ValueError: bad\u2028")
    assert first["level"] == "ERROR"
    assert "Stack" in second["exception"]


@pytest.mark.parametrize("exporter", [StdoutExporter(io.StringIO()), LoggerExporter(logging.getLogger("app.none"))])
def test_an_unfit_record_costs_itself_only(exporter: Exporter) -> None:
    """A record that cannot be said is counted as lost, the others are written."""
    with pytest.raises(PartialExportError) as lost:
        exporter.export([event(), finished(duration_s="x"), event()])
    assert lost.value.written == 2


def test_stdout_is_looked_up_for_each_batch() -> None:
    """Output that is redirected later goes where it then should."""
    exporter = StdoutExporter()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exporter.export([event("a"), started(Operation.TOOL, "t")])
        exporter.export([])
    assert [record["event"] for record in parsed(out.getvalue())] == ["a"]


def test_a_closed_stdout_is_counted() -> None:
    """A closed stream or a broken pipe costs records, which are counted, and raises nowhere else."""
    closed = io.StringIO()
    closed.close()
    reading, writing = os.pipe()
    os.close(reading)
    pipe = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    for stream in (closed, pipe):
        counters = InternalCounters()
        batched = Batched(StdoutExporter(stream), name="audit_log", counters=counters)
        batched.export([event(), event()])
        assert batched.flush(10.0) in (True, False)
        batched.shutdown(10.0)
        counters.take()
        counted = {metric.name: amount for (metric, _), amount in counters.totals.items()}
        assert counted["taskpilot_obs_records_dropped_total"] == 2
        assert counted["taskpilot_obs_export_errors_total"] == 1
    with contextlib.suppress(OSError):
        pipe.close()


def test_stdout_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process has no standard output at all, the batch is lost with an error that explains it."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ValueError, match="no standard output"):
        StdoutExporter().export([event()])
