"""What can be observed through spans, and how each is turned on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple


class CatalogueEntry(NamedTuple):
    """An SDK or framework."""

    name: str
    distribution: str
    native_from: tuple[int, ...] | None = None
    """The version from which it states spans by itself, unasked."""
    switch: Callable[[], None] | None = None
    """Turns on the spans that it has, without content."""
    switch_off: Callable[[], None] | None = None
    instrumentors: tuple[str, ...] = ()
    """Distributions that instrument it, the best first."""
    by_hand: str = ""
    """What the application has to do itself."""
    refused_from: tuple[int, ...] | None = None
    """The version from which the instrumentors do nothing, in silence."""
    instead: str = ""
    """What observes it from that version on."""
    imported_as: str = ""
    """The module that the application imports; left out, the target's name."""

    @property
    def module(self) -> str:
        """The module whose import makes it worth turning on."""
        return self.imported_as or self.name


def _pydantic_ai(on: object) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings

    Agent.instrument_all(InstrumentationSettings(include_content=False) if on else False)


CATALOGUE: Final = (
    CatalogueEntry("ag2", "ag2", by_hand="give each agent a TelemetryMiddleware(agent_name=…, capture_content=False)"),
    CatalogueEntry("agent_framework", "agent-framework-core", native_from=(1,)),
    CatalogueEntry(
        "anthropic", "anthropic", native_from=(2,), instrumentors=("opentelemetry-instrumentation-genai-anthropic",)
    ),
    CatalogueEntry("autogen", "autogen-agentchat", native_from=(0, 7)),
    CatalogueEntry("crewai", "crewai", by_hand="call observe() of taskpilot_obs_crewai"),
    CatalogueEntry(
        "dspy",
        "dspy",
        instrumentors=("opentelemetry-instrumentation-genai-dspy", "openinference-instrumentation-dspy"),
    ),
    CatalogueEntry("google_adk", "google-adk", native_from=(2,)),
    CatalogueEntry(
        "google_genai",
        "google-genai",
        instrumentors=("opentelemetry-instrumentation-google-genai",),
        refused_from=(3,),
        instead="use wrap(client) of taskpilot_obs_google_genai",
        imported_as="google.genai",
    ),
    CatalogueEntry("haystack", "haystack-ai", by_hand="call observe() of taskpilot_obs_haystack"),
    CatalogueEntry(
        "langchain", "langchain-core", by_hand="pass callbacks=[ObservabilityHandler()] of taskpilot_obs_langchain"
    ),
    CatalogueEntry("litellm", "litellm", by_hand="call observe() of taskpilot_obs_litellm"),
    CatalogueEntry(
        "llama_index",
        "llama-index-core",
        instrumentors=("opentelemetry-instrumentation-genai-llama-index",),
        imported_as="llama_index.core",
    ),
    CatalogueEntry("mcp", "mcp", native_from=(2,)),
    CatalogueEntry(
        "openai",
        "openai",
        instrumentors=(
            "opentelemetry-instrumentation-genai-openai",
            "openinference-instrumentation-openai",
            "opentelemetry-instrumentation-openai",
        ),
    ),
    CatalogueEntry("openai_agents", "openai-agents", by_hand="call observe() of taskpilot_obs_openai_agents"),
    CatalogueEntry(
        "pydantic_ai",
        "pydantic-ai-slim",
        switch=lambda: _pydantic_ai(on=True),
        switch_off=lambda: _pydantic_ai(on=False),
    ),
    CatalogueEntry(
        "smolagents",
        "smolagents",
        instrumentors=("openinference-instrumentation-smolagents", "opentelemetry-instrumentation-genai-smolagents"),
    ),
    CatalogueEntry("strands", "strands-agents", native_from=(1,)),
)

NO_CONTENT: Final = {
    "OPENINFERENCE_HIDE_INPUTS": "true",
    "OPENINFERENCE_HIDE_OUTPUTS": "true",
    "TRACELOOP_TRACE_CONTENT": "false",
}
"""Environment variables that keep prompts and answers out of spans, for instrumentors that would put them there."""
