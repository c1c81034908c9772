"""Adds request and trace IDs to the application's log records, to match audit records and spans."""

from __future__ import annotations

import logging

from taskpilot_obs._recording.context import get_request_id
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.spans import current_ids
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.semconv import Field


class LogContextFilter(logging.Filter):
    """Stamps records with `request_id`, `trace_id`, `span_id`, `workflow` and `agent`; lets every record pass.

    Add it to a handler (a logger's own filters do not see what its children log):
    `handler.addFilter(LogContextFilter())`. Missing values are empty text, so that a format string may
    name them. Attributes that a record already has are kept.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Stamp the record."""
        with guarded("log_context"):
            running = current_run()
            ids = running.span_ids if running is not None and running.span is not None else current_ids()
            for name, value in (
                (Field.REQUEST_ID, get_request_id()),
                (Field.TRACE_ID, ids.trace_id),
                (Field.SPAN_ID, ids.span_id),
                (Field.WORKFLOW, running.workflow if running is not None else None),
                (Field.AGENT, running.agent if running is not None else None),
            ):
                if not hasattr(record, name):
                    setattr(record, name, value or "")
        return True
