"""A model has one price, whatever path, region or snapshot its name comes with."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.testing import Captured

PATHS = {
    "models/gemini-2.5-pro": "gcp.vertex_ai",
    "publishers/google/models/gemini-2.5-pro": "gcp.vertex_ai",
    "projects/acme/locations/eu/publishers/google/models/gemini-2.5-pro": "gcp.vertex_ai",
    "arn:aws:bedrock:us-east-1:123:foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0": "aws.bedrock",
}


def cost(recorder: Recorder, seen: Captured[Invocation], provider: str | None, *models: str | None) -> Decimal | None:
    """The cost of a call of a model, or of one that was asked for and another that answered."""
    request, response = (*models, None)[:2]
    recorder.record_llm_call(provider=provider, model=request, response_model=response, usage=Usage(1_000, 100))
    return list(seen)[-1].cost


@pytest.mark.parametrize("name", PATHS)
def test_a_path_does_not_change_the_price(recorder: Recorder, seen: Captured[Invocation], name: str) -> None:
    """The resource name of a model is priced as its bare name at the provider."""
    priced = cost(recorder, seen, PATHS[name], name)
    assert priced is not None
    assert priced == cost(recorder, seen, PATHS[name], name.rsplit("/", 1)[-1])


@pytest.mark.parametrize("snapshot", ["gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14"])
def test_a_snapshot_without_a_price_has_that_of_its_model(
    recorder: Recorder, seen: Captured[Invocation], snapshot: str
) -> None:
    """Where the deployment that answered names nothing, the model that was asked for is priced."""
    asked = snapshot.rsplit("-", 3)[0]
    assert cost(recorder, seen, "azure.ai.openai", asked, snapshot) == cost(recorder, seen, "azure.ai.openai", snapshot)
    own = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
    assert cost(recorder, seen, "azure.ai.openai", asked, own) == cost(recorder, seen, "azure.ai.openai", asked)
    assert cost(recorder, seen, "openrouter", asked, own) is None


def test_an_alias_has_the_canonical_name_of_its_model() -> None:
    """Metrics and filters name the model that a configured alias stands for, in any case."""
    table = PriceTable(aliases={"Prod": "openai/gpt-4o"})
    assert table.canonical_model("prod") == "gpt-4o"
    assert PriceTable().canonical_model("prod") == "prod"
