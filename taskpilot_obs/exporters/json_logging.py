"""Audit records on standard output or a logger, and the application's log records, as JSON by python-json-logger."""

from __future__ import annotations

import logging
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

from pythonjsonlogger.json import JsonFormatter

from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs._support.timestamps import rfc3339, unix_seconds
from taskpilot_obs.audit.encoding import MAX_STRING, Fields, Value, clean_fields, to_json
from taskpilot_obs.audit.rows import AuditLines
from taskpilot_obs.exporters.audit_log import UNFIT
from taskpilot_obs.semconv import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs.records import Record

LOGGER_NAME = "taskpilot_obs.audit"
STAMPED = (
    Field.REQUEST_ID,
    Field.INVOCATION_ID,
    Field.TRACE_ID,
    Field.SPAN_ID,
    Field.WORKFLOW,
    Field.AGENT,
    Field.TENANT_ID,
    Field.USER_ID,
    Field.SESSION_ID,
)
"""Attributes that `LogContextFilter` adds to log records of the application."""
_AUDIT_FIELDS = "_audit_fields"
"""Attribute of a log record that holds an audit record. Formatters ignore names that begin with an underscore."""


class JsonLogFormatter(JsonFormatter):
    """Formats each log record of the application as one line of JSON, like those of the audit log.

    Fields: timestamp (UTC, microseconds, `Z`), level, logger, message, service, what `LogContextFilter` added to the
    record (request_id, trace_id, span_id, workflow, agent), exception. Everything else that the application passes as
    `extra` or as a dictionary is put under `attributes`, so that it cannot imitate one of these. The audit records of a
    `LoggerExporter` have exactly the fields that they have in the audit log.

    Args:
        service: name of the service.
        max_string: how many characters of one string are kept.
    """

    def __init__(self, service: str = "", *, max_string: int = MAX_STRING) -> None:
        super().__init__()
        self._service = service
        self._max_string = max_string

    def add_fields(self, log_data: Fields, record: logging.LogRecord, message_dict: Fields) -> None:
        """Collect the fields of a record, in their order."""
        audit = getattr(record, _AUDIT_FIELDS, None)
        fields = self._of_application(record, message_dict) if audit is None else audit
        log_data.update(clean_fields(fields, self._max_string))

    def _of_application(self, record: logging.LogRecord, message_dict: Fields) -> Fields:
        extra: Fields = {}
        super().add_fields(extra, record, {})
        extra.pop(Field.MESSAGE, None)  # python-json-logger's own, formatted below
        stamped = {name: extra.pop(name, None) or None for name in STAMPED}
        given = dict(message_dict)
        exception, stack = given.pop("exc_info", None), given.pop("stack_info", None)
        message = given.pop(Field.MESSAGE, None) if isinstance(record.msg, dict) else record.getMessage()
        return {
            Field.TIMESTAMP: rfc3339(int(record.created * 1e9)),
            Field.LEVEL: record.levelname,
            Field.LOGGER: record.name,
            Field.MESSAGE: message,
            Field.SERVICE: self._service or None,
            **stamped,
            Field.EXCEPTION: exception or stack,
            Field.ATTRIBUTES: {**extra, **given} or None,
        }

    def jsonify_log_record(self, log_data: Fields) -> str:
        """Serialise a record as one line of ASCII; numbers keep their digits."""
        return to_json(log_data, self._max_string)


class StdoutExporter:
    """Writes audit records to standard output, or another stream, one JSON object a line.

    There is no hash chain: a stream has no file to verify.

    Args:
        stream: the stream; None looks up `sys.stdout` for each batch, so that redirection works.
        service: name of the service, in each record.
        max_string: how many characters of one string are kept.
    """

    def __init__(self, stream: TextIO | None = None, *, service: str = "", max_string: int = MAX_STRING) -> None:
        self._stream = stream
        self._lines = AuditLines(service, max_string)
        self._formatter = JsonLogFormatter(max_string=max_string)

    def export(self, batch: Sequence[Record], /) -> None:
        """Write a batch.

        Raises:
            PartialExportError: a record was unfit.
            OSError: the stream failed (a broken pipe).
            ValueError: the stream is closed or missing.
        """
        stream: TextIO | None = self._stream if self._stream is not None else sys.stdout
        if stream is None:
            raise ValueError("this process has no standard output")
        lines, unfit, cause = _log_records(batch, self._lines)
        if lines:
            stream.write("".join([f"{self._formatter.format(line)}\n" for line in lines]))
            stream.flush()
        if cause is not None:
            raise PartialExportError(len(batch) - unfit) from cause


class LoggerExporter:
    """Passes audit records to a logger, whose handlers and formatters the user configures.

    Message and level are the audit record's, the time is that of the event, and all other fields are attributes of
    the log record, as if passed as `extra`. A handler with `JsonLogFormatter` writes the line of the audit log, without
    a chain.

    Args:
        logger: the logger; by default `taskpilot_obs.audit`.
        service: name of the service, in each record.
        max_string: how many characters of one string are kept.
    """

    def __init__(
        self, logger: logging.Logger | None = None, *, service: str = "", max_string: int = MAX_STRING
    ) -> None:
        self._logger = logger or logging.getLogger(LOGGER_NAME)
        self._lines = AuditLines(service, max_string)

    def export(self, batch: Sequence[Record], /) -> None:
        """Log a batch.

        Raises:
            PartialExportError: a record was unfit.
        """
        lines, unfit, cause = _log_records(batch, self._lines, name=self._logger.name)
        for line in lines:
            if self._logger.isEnabledFor(line.levelno):
                self._logger.handle(line)
        if cause is not None:
            raise PartialExportError(len(batch) - unfit) from cause


def _log_records(
    batch: Sequence[Record], lines_of: AuditLines, name: str = LOGGER_NAME
) -> tuple[list[logging.LogRecord], int, Exception | None]:
    """Return the log records of a batch, how many records were invalid, and the last error."""
    lines: list[logging.LogRecord] = []
    unfit, cause = 0, None
    for record in batch:
        try:
            fields = lines_of.fields(record)
        except UNFIT as error:
            unfit, cause = unfit + 1, error
            continue
        if fields is not None:
            lines.append(_log_record(fields, name))
    return lines, unfit, cause


def _log_record(fields: Fields, name: str) -> logging.LogRecord:
    level = logging.getLevelNamesMapping()[str(fields[Field.LEVEL])]
    line = logging.LogRecord(name, level, "", 0, str(fields[Field.MESSAGE]), None, None)
    event_time = unix_seconds(str(fields[Field.TIMESTAMP]))
    line.created, line.msecs = event_time, event_time % 1 * 1000
    vars(line).update({field: _plain(value) for field, value in fields.items() if field != Field.MESSAGE})
    setattr(line, _AUDIT_FIELDS, fields)
    return line


def _plain(value: Value) -> Value:
    """Convert money to a float, because formatters may not support decimals; the digits stay the same."""
    return float(value) if isinstance(value, Decimal) else value
