"""One name for each provider, and the vendor that a model's name tells."""

from __future__ import annotations

import pytest

from taskpilot_obs.providers import names as providers
from taskpilot_obs.providers.names import canonical, infer_provider, split_model


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("openai", "openai"),
        (" OpenAI ", "openai"),
        ("azure", "azure.ai.openai"),
        ("azure_openai", "azure.ai.openai"),
        ("azure.ai.openai", "azure.ai.openai"),
        ("azure_ai", "azure.ai.inference"),
        ("amazon_bedrock", "aws.bedrock"),
        ("anthropic_bedrock", "aws.bedrock"),
        ("bedrock_converse", "aws.bedrock"),
        ("google_genai", "gcp.gemini"),
        ("google_vertexai", "gcp.vertex_ai"),
        ("google-vertex", "gcp.vertex_ai"),
        ("google_anthropic_vertex", "gcp.vertex_ai"),
        ("mistralai", "mistral_ai"),
        ("xai", "x_ai"),
        ("x-ai", "x_ai"),
        ("My-Gateway", "my-gateway"),
    ],
)
def test_canonical_names(given: str, expected: str) -> None:
    """LangChain's, the SDKs' and OpenTelemetry's spellings come to one; an unknown name is kept."""
    assert canonical(given) == expected
    assert canonical(canonical(given)) == expected


def test_no_alias_means_two_providers() -> None:
    """Each spelling belongs to one provider."""
    spellings = [alias for name, aliases in providers._ALIASES.items() for alias in (name, *aliases)]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4o", ("openai", "gpt-4o")),
        ("openai:gpt-4o", ("openai", "gpt-4o")),
        ("google_genai:gemini-2.5-pro", ("gcp.gemini", "gemini-2.5-pro")),
        ("bedrock/us.anthropic.claude-x-v1:0", ("aws.bedrock", "us.anthropic.claude-x-v1:0")),
        ("litellm/openai/gpt-4o", ("litellm", "openai/gpt-4o")),
        ("gpt-4o", (None, "gpt-4o")),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", (None, "ft:gpt-4o-mini-2024-07-18:acme::x")),
        ("meta-llama/Llama-4", (None, "meta-llama/Llama-4")),
        ("gpt-oss:20b", (None, "gpt-oss:20b")),
        ("mistral:7b-instruct", (None, "mistral:7b-instruct")),
        ("mistral:latest", (None, "mistral:latest")),
        ("anthropic.claude-x-v1:0", (None, "anthropic.claude-x-v1:0")),
        ("openai/", (None, "openai/")),
        ("", (None, "")),
    ],
)
def test_vendors_come_off_the_front(model: str, expected: tuple[str | None, str]) -> None:
    """A known provider before `/` or `:` is split off; what only looks like one is not."""
    assert split_model(model) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", "openai"),
        ("o3-mini", "openai"),
        ("ft:gpt-4o-mini:acme::x", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("anthropic/claude-sonnet-4-5", "anthropic"),
        ("litellm/anthropic/claude-sonnet-4-5", "anthropic"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"),
        ("amazon.nova-lite-v1:0", "aws.bedrock"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/x", "aws.bedrock"),
        ("gemini-2.5-pro", "gcp.gemini"),
        ("models/gemini-2.5-pro", "gcp.gemini"),
        ("mistral-large-latest", "mistral_ai"),
        ("codestral-latest", "mistral_ai"),
        ("command-r-plus", "cohere"),
        ("deepseek-chat", "deepseek"),
        ("grok-4", "x_ai"),
        ("sonar-pro", "perplexity"),
        ("gpt-oss:20b", None),
        ("gpt-oss-120b", None),
        ("llama-3.3-70b", None),
        ("mistral:7b", None),
        ("deepseek-r1:14b", None),
        ("my-model", None),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_the_provider_that_a_model_tells(model: str | None, expected: str | None) -> None:
    """Only a name that one vendor alone serves tells the provider; open weights do not."""
    assert infer_provider(model) == expected
