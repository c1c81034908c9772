"""The client metrics of OpenTelemetry's GenAI conventions, with the bucket bounds that these recommend."""

from __future__ import annotations

from typing import Final

from taskpilot_obs.semconv import Kind, Metric

TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  no password
UNIT_SECONDS: Final = "s"
UNIT_TOKENS: Final = "{token}"

CLIENT_DURATION: Final = Metric(
    "gen_ai.client.operation.duration",
    Kind.HISTOGRAM,
    "Duration of a GenAI operation.",
    buckets=tuple(0.01 * 2**power for power in range(14)),
)
CLIENT_TOKENS: Final = Metric(
    "gen_ai.client.token.usage",
    Kind.HISTOGRAM,
    "Number of input and output tokens of an operation.",
    buckets=tuple(4.0**power for power in range(14)),
)
CLIENT_METRICS: Final = (CLIENT_DURATION, CLIENT_TOKENS)
