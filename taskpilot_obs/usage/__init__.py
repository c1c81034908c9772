"""Readers of what providers state about token usage: one call for a whole response, one object for a stream.

`values` defines the results, `read` and `streams` produce them, `envelopes` and `content` interpret bodies and events,
`fields` reads any object, and `shapes` has one file for each format of counts.
"""

from __future__ import annotations

from taskpilot_obs.records import Usage
from taskpilot_obs.usage.read import StreamReader, read_response
from taskpilot_obs.usage.values import Reading, from_counts

__all__ = ["Reading", "StreamReader", "Usage", "from_counts", "read_response"]
