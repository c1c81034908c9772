"""The metric families over OTLP: your own meter provider sends them, here to a receiver in this process.

Needs `opentelemetry-sdk` (extra `otel`) and `opentelemetry-exporter-otlp-proto-http`. In a service, leave out the
receiver and give the exporter the address of your collector.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from taskpilot_obs import configure, observe_agent, track_llm

requests: list[ExportMetricsServiceRequest] = []


class Collector(BaseHTTPRequestHandler):
    """Takes what an OpenTelemetry collector would take."""

    def do_POST(self) -> None:
        """Keep one request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@observe_agent("planner")
def plan(question: str) -> str:
    """Answer, with one call of a model."""
    with track_llm(model="gpt-4o", provider="openai") as call:
        call.record_usage(input_tokens=120, output_tokens=30)
    return question.upper()


def main() -> None:
    """Record three runs, send them, and print what arrived."""
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{server.server_address[1]}/v1/metrics")
    provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(exporter)])
    configure(meter_provider=provider)
    for _ in range(3):
        plan("what next?")
    provider.shutdown()  # drains, collects and sends, as the end of the process does
    server.shutdown()
    server.server_close()

    for metric in requests[0].resource_metrics[0].scope_metrics[0].metrics:
        if metric.name in {"agent_runs_total", "llm_cost_usd_total"}:
            print(metric.name, [point.as_double for point in metric.sum.data_points if point.as_double])
        elif metric.name in {"agent_run_duration_seconds", "gen_ai.client.token.usage"}:
            print(metric.name, [point.count for point in metric.histogram.data_points], "observations")


if __name__ == "__main__":
    main()
