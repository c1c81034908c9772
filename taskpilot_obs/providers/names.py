"""Names of providers: one canonical name for each, whatever a framework calls it, and the vendor that a model tells.

Canonical names are the values of OpenTelemetry's `gen_ai.provider.name` where it has one, otherwise the vendor's own.
They are what the metric label `provider` holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "ai21": ("ai21_labs", "ai21labs"),
    "anthropic": ("claude", "anthropic_messages", "anthropic-chat"),
    "aws.bedrock": (
        "bedrock",
        "aws",
        "amazon",
        "amazon_bedrock",
        "aws_bedrock",
        "bedrock_converse",
        "bedrock-runtime",
        "amazon-bedrock",
        "anthropic_bedrock",
        "anthropic-bedrock",
        "chatbedrock",
        "bedrock-converse",
    ),
    "azure.ai.openai": ("azure", "azure_openai", "azure-openai", "azureopenai", "az.ai.openai", "azure-openai-chat"),
    "azure.ai.inference": ("azure_ai", "azureai", "azure_ai_inference", "azure_inference", "az.ai.inference"),
    "cerebras": (),
    "cloudflare": ("workers_ai", "cloudflare_workers_ai"),
    "cohere": ("cohere_chat", "co"),
    "databricks": (),
    "deepseek": ("deep_seek",),
    "fireworks": ("fireworks_ai", "fireworks-ai", "fireworksai"),
    "gcp.gemini": (
        "google",
        "gemini",
        "google_genai",
        "google-genai",
        "googleai",
        "google_ai",
        "google_ai_studio",
        "google-gla",
        "google_gemini",
        "gcp.gen_ai",
        "google-generative-ai",
    ),
    "gcp.vertex_ai": (
        "vertex",
        "vertexai",
        "vertex_ai",
        "vertex-ai",
        "google_vertexai",
        "google_vertex_ai",
        "google-vertex",
        "gcp_vertex",
        "google_anthropic_vertex",
        "anthropic_vertex",
        "anthropic-vertex",
        "vertex_ai_beta",
    ),
    "github-copilot": ("github_copilot", "copilot"),
    "groq": (),
    "huggingface": ("hugging_face", "hf", "huggingface_hub"),
    "ibm.watsonx.ai": ("ibm", "watsonx", "ibm_watsonx"),
    "minimax": (),
    "mistral_ai": ("mistral", "mistralai", "mistral-ai"),
    "moonshotai": ("moonshot", "moonshot_ai", "kimi"),
    "novita": ("novita_ai", "novita-ai"),
    "nvidia": ("nvidia_nim", "nim"),
    "ollama": ("ollama_chat",),
    "openai": (
        "open_ai",
        "openai-chat",
        "openai_chat",
        "openai-responses",
        "openai_responses",
        "text-completion-openai",
    ),
    "openrouter": ("open_router",),
    "ovhcloud": (),
    "perplexity": ("pplx", "perplexityai", "perplexity_ai"),
    "snowflake": ("snowflake_cortex",),
    "together": ("together_ai", "togetherai", "together-ai"),
    "voyageai": ("voyage", "voyage_ai"),
    "writer": (),
    "x_ai": ("xai", "x-ai", "x.ai", "grok"),
    "zai": ("z-ai", "z_ai", "z.ai"),
    "zhipuai": ("zhipu",),
}
_CANONICAL: Final = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}

GATEWAYS: Final = frozenset({"litellm", "litellm_proxy", "portkey", "helicone", "gateway", "pydantic-ai-gateway"})
"""These pass a call on to the vendor that the model's name tells, at that vendor's price."""

_BEDROCK_MODEL: Final = re.compile(
    r"(?:(?:us|eu|apac|jp|au|ca|sa|me|af|global|us-gov)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|nvidia|openai|qwen|stability"
    r"|twelvelabs|writer|zai)\."
)
_MODELS: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), provider)
    for pattern, provider in (
        (r"(?:ft:)?(?:gpt-(?!oss)|davinci|babbage)|chatgpt-|o[134](?:-|$)|text-embedding-(?:3|ada)", "openai"),
        (r"dall-e|whisper-1|tts-1|codex-|computer-use-|omni-moderation", "openai"),
        (r"claude", "anthropic"),
        (r"(?:models/|publishers/google/models/)?(?:gemini|text-embedding-00[45]|learnlm)", "gcp.gemini"),
        (r"mistral-(?:tiny|small|medium|large|embed|ocr|moderation|saba)", "mistral_ai"),
        (r"(?:code|mini|magi|dev|pix|vox)stral|open-mi", "mistral_ai"),
        (r"command(?:-|$)|c4ai-|(?:embed|rerank)-(?:english|multilingual|v\d)", "cohere"),
        (r"deepseek-(?:chat|reasoner|coder|v\d|flash|pro)", "deepseek"),
        (r"grok-", "x_ai"),
        (r"sonar(?:-|$)|pplx-", "perplexity"),
        (r"jamba-", "ai21"),
        (r"voyage-|rerank-2", "voyageai"),
        (r"kimi-|moonshot-", "moonshotai"),
        (r"palmyra-", "writer"),
    )
)
_BEDROCK_VERSION: Final = re.compile(r"-v\d+(?::\d+)?(?::\d+k)?$")
_PATHS: Final = ("models/", "publishers/", "projects/", "arn:", "tunedmodels/")
_NO_ALIASES: Final[Mapping[str, str]] = MappingProxyType({})
_OLLAMA_TAG: Final = re.compile(r"\d|latest$|instruct$|text$")
"""What follows the colon of `mistral:7b` is a size or a variant, not a model."""


def canonical(provider: str) -> str:
    """The one name of a provider: `azure` and `azure_openai` are `azure.ai.openai`, `xai` is `x_ai`; others stay."""
    name = provider.strip().lower()
    return _CANONICAL.get(name) or _CANONICAL.get(name.replace("-", "_"), name)


def known(name: str) -> str | None:
    """The canonical name, or None for a name that this module does not know."""
    name = name.strip().lower()
    return _CANONICAL.get(name) or (name if name in GATEWAYS else None)


def split_model(model: str) -> tuple[str | None, str]:
    """Take a known provider off the front of `openai/gpt-4o` or `openai:gpt-4o`; (None, model) where there is none.

    What only looks like one stays: `meta-llama/Llama-4`, `ft:gpt-4o-mini:acme::x`, `gpt-oss:20b`.
    """
    for separator in ("/", ":"):
        vendor, _, rest = model.partition(separator)
        provider = known(vendor) if rest else None
        if provider is not None and not (separator == ":" and _OLLAMA_TAG.match(rest)):
            return provider, rest
    return None, model


_alias_sources: Final[list[Callable[[], Mapping[str, str]]]] = []


def set_alias_source(source: Callable[[], Mapping[str, str]]) -> None:
    """Let `canonical_model` apply the aliases that this function returns, where it is given none."""
    _alias_sources[:] = [source]


def canonical_model(model: str, aliases: Mapping[str, str] | None = None) -> str:
    """The one name of a model: `openai/gpt-4o`, `openai:gpt-4o` and `GPT-4o` are `gpt-4o`.

    A known provider is taken off the front, and with it the path, region and version that Vertex and Bedrock put around
    a name. A fine-tuned model keeps what its price depends on (`ft:gpt-4o-mini-2024-07-18`), without the owner's part.

    Args:
        model: in any spelling.
        aliases: your own names, in lower case -> models; by default those of the configuration.
    """
    if aliases is None:
        aliases = _alias_sources[0]() if _alias_sources else _NO_ALIASES
    name = model.strip()
    name = aliases.get(name.lower(), name)
    vendor, rest = split_model(name)
    while vendor is not None:
        name = rest
        vendor, rest = split_model(name)
    name = name.lower()
    if name.startswith(_PATHS):
        name = name.rpartition("/")[2]
    bedrock = _BEDROCK_MODEL.match(name)
    if bedrock is not None:
        name = _BEDROCK_VERSION.sub("", name[bedrock.end() :])
    if name.startswith("ft:"):
        name = ":".join(name.split(":")[:2])
    return name or model


def infer_provider(model: str | None) -> str | None:
    """The provider that a model's name tells; None where several serve it (`llama`, `gpt-oss`) or it is unknown."""
    if not model or not isinstance(model, str):
        return None
    vendor, rest = split_model(model)
    if vendor in GATEWAYS:
        return infer_provider(rest)
    if vendor is not None:
        return vendor
    name = model.strip().lower()
    if _BEDROCK_MODEL.match(name) or name.startswith("arn:aws:bedrock:"):
        return "aws.bedrock"
    return next((provider for pattern, provider in _MODELS if pattern.match(name)), None)


_HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.cerebras.ai", "cerebras"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.fireworks.ai", "fireworks"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.moonshot.ai", "moonshotai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.together.xyz", "together"),
    ("api.x.ai", "x_ai"),
    ("api.z.ai", "zai"),
    ("integrate.api.nvidia.com", "nvidia"),
    ("openrouter.ai", "openrouter"),
    ("router.huggingface.co", "huggingface"),
)
"""Who serves OpenAI's protocol where."""
_SERVED_BY_VENDOR: Final = frozenset(
    {"ai21", "anthropic", "aws.bedrock", "cohere", "gcp.gemini", "mistral_ai", "openai", "perplexity", "writer", "x_ai"}
)
_COMPATIBLE: Final = "openai_compatible"


def provider_at(base_url: str, model: str | None) -> str | None:
    """Who answers a client of OpenAI's protocol that has an address of its own.

    At an unknown address (a gateway, your own server), a model that only its vendor serves is billed as the
    vendor's. One with open weights has as many prices as places: its maker's would be a guess, so it is
    `openai_compatible`.

    Args:
        base_url: the address.
        model: the model asked for.

    Returns:
        The provider's name, None where neither address nor model tell it.
    """
    host = urlsplit(base_url).hostname or ""
    for ending, name in _HOSTS:
        if host == ending or host.endswith("." + ending):
            return name
    vendor = infer_provider((model or "").rpartition("/")[2])
    if vendor in _SERVED_BY_VENDOR:
        return vendor
    return None if infer_provider(model) is None else _COMPATIBLE
