"""A framework's spans become metrics: no key, no network, no exporter."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from taskpilot_obs_opentelemetry import GenAiBridge, RecordAll

from taskpilot_obs import get_recorder, golden_signals, observe_tool

provider = TracerProvider(sampler=RecordAll(ALWAYS_OFF))
provider.add_span_processor(GenAiBridge())
tracer = provider.get_tracer("a.framework")


@observe_tool
def search(query: str) -> str:
    """A tool that the framework calls; it is recorded beneath the framework's agent."""
    return f"nothing about {query}"


if __name__ == "__main__":
    with tracer.start_as_current_span("invoke_agent Planner"):  # as a framework does
        with tracer.start_as_current_span("chat gpt-4o-mini") as call:
            call.set_attributes({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20})
        search("otters")
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
