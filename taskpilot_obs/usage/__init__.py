"""Readers of what providers state about token usage: one call for a whole response, one object for a stream.

`values` holds what is read, `read` and `streams` put it together, `envelopes` and `content` know bodies and events,
`fields` looks into any object, and `shapes` has one file for each way to state counts.
"""

from __future__ import annotations

from taskpilot_obs.records import Usage
from taskpilot_obs.usage.read import StreamReader, read_response
from taskpilot_obs.usage.values import Reading, from_counts

__all__ = ["Reading", "StreamReader", "Usage", "from_counts", "read_response"]
