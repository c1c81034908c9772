"""Which price a call gets: own ones, aliases, the response's model; and what stays unknown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taskpilot_obs import pricing
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.pricing import OwnPrice, Price, PriceTable, library, load_prices
from taskpilot_obs.usage import Usage

USAGE = Usage(150, 50)
GPT_4O = Decimal("0.000875")
GPT_4O_MINI = Decimal("0.0000525")
UNKNOWN = Price(None, None)


def at(year: int, month: int, day: int, hour: int = 12) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1_000_000_000


NOW = at(2026, 11, 20)


def price(
    provider: str | None,
    request: str | None,
    response: str | None = None,
    *,
    table: PriceTable | None = None,
    usage: Usage | None = USAGE,
    when: int = NOW,
    tier: str | None = None,
) -> Price:
    return (table or PriceTable()).price(
        usage, provider=provider, request_model=request, response_model=response, at_unix_ns=when, service_tier=tier
    )


PRICED = [
    ("openai", "gpt-4o", None, GPT_4O),
    ("openai", "gpt-4o", "gpt-4o-2024-08-06", GPT_4O),
    ("openai", "gpt-4o", "gpt-4o-mini-2024-07-18", GPT_4O_MINI),  # what answered, not what was asked for
    (None, "gpt-4o", None, GPT_4O),
    (None, "openai/gpt-4o", None, GPT_4O),
    (None, "openai:gpt-4o", None, GPT_4O),
    ("openai", "openai/gpt-4o", None, GPT_4O),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::x", None, Decimal("0.000105")),
    ("litellm", "openai/gpt-4o", None, GPT_4O),
    ("litellm", "gpt-4o", None, GPT_4O),
    ("openai", "litellm/anthropic/claude-sonnet-4-5", None, Decimal("0.0012")),
    ("openai", "anthropic/claude-sonnet-4-5", None, Decimal("0.0012")),
    ("openai", "claude-sonnet-4-5", None, Decimal("0.0012")),
    ("azure", "my-deployment", "gpt-4o-2024-11-20", GPT_4O),
    ("azure.ai.openai", "gpt-4o", None, GPT_4O),
    ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", Decimal("0.0012")),
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929", Decimal("0.00132")),
    ("aws.bedrock", "anthropic.claude-3-5-sonnet-20240620-v1:0", None, Decimal("0.0012")),
    ("google_vertexai", "publishers/anthropic/models/claude-sonnet-4-5", None, Decimal("0.0012")),
    ("anthropic", "publishers/anthropic/models/claude-sonnet-4-5", None, Decimal("0.0012")),  # its client for Vertex
    ("google_genai", "models/gemini-2.5-pro", None, Decimal("0.0006875")),
    ("xai", "grok-4", None, Decimal("0.0012")),
    ("openrouter", "anthropic/claude-sonnet-4.6", "anthropic/claude-4.6-sonnet-20260217", Decimal("0.0012")),
    ("groq", "openai/gpt-oss-120b", None, Decimal("0.0000525")),
    (None, "models/gemini-2.5-pro", None, Decimal("0.0006875")),
]


@pytest.mark.parametrize(("provider", "request_model", "response_model", "expected"), PRICED)
def test_models_are_found_under_all_their_names(
    provider: str | None, request_model: str, response_model: str | None, expected: Decimal
) -> None:
    """Vendors' prefixes, paths, snapshots, regions, fine-tunes and gateways lead to the right price list."""
    assert price(provider, request_model, response_model) == Price(expected, "price_table")


UNPRICED = [
    ("openai", None, None),
    ("openai", "no-such-model", None),
    ("openai", "gpt-4o", "no-such-model"),  # a router answered with an unknown model
    ("openai", "gpt-4", "gpt-4-turbo-of-acme"),
    ("azure", "my-deployment", None),
    ("ollama", "gpt-4o", None),
    ("my-proxy", "gpt-4o", None),
    ("groq", "openai/gpt-4o", None),  # not Groq's, and OpenAI's price is none of Groq's
    ("huggingface", "openai/gpt-oss-120b", None),
    ("groq", "whisper-large-v3", None),  # billed by the hour
    (None, "llama-3.3-70b", None),
    (None, "litellm/litellm/x", None),
]


@pytest.mark.promise("unknown-cost")
@pytest.mark.parametrize(("provider", "request_model", "response_model"), UNPRICED)
def test_what_nobody_knows_stays_unknown(
    provider: str | None, request_model: str | None, response_model: str | None
) -> None:
    """No model, no list, another vendor's list or another unit: the cost is None, and never 0."""
    assert price(provider, request_model, response_model) == UNKNOWN


@pytest.mark.parametrize("usage", [None, Usage(), Usage(None, 50), Usage(150, None), "x", (1, 2), object()])
def test_unknown_usage_has_no_cost(usage: Any) -> None:
    """A usage that is missing, partial or none at all has an unknown cost; nothing raises."""
    assert price("openai", "gpt-4o", usage=usage) == UNKNOWN


@pytest.mark.parametrize(
    "wrong", [{"provider": []}, {"provider": 3}, {"request": {}}, {"when": None}, {"when": "x"}, {"when": 10**40}]
)
def test_wrong_types_do_not_raise(wrong: dict[str, Any]) -> None:
    """Instrumentation never raises, whatever it is given."""
    given = {"provider": "openai", "request": "gpt-4o", **wrong}
    assert price(**given) == UNKNOWN


def test_the_price_is_that_of_the_calls_day() -> None:
    """o3 cost five times as much before 2025-06-10."""
    assert price("openai", "o3", when=at(2025, 1, 1)).cost == Decimal("0.0035")
    assert price("openai", "o3", when=at(2026, 1, 1)).cost == Decimal("0.0007")


def test_some_models_are_cheaper_at_night() -> None:
    """A price that depends on the time of the day changes with it, without any card going stale."""
    table = PriceTable()
    costs = {price("deepseek", "deepseek-chat", table=table, when=at(2025, 3, 1, hour)).cost for hour in (12, 20)}
    assert len(costs) == 2


def test_service_tiers() -> None:
    """Flex costs half, priority twice; standard tiers and unknown names cost the standard price."""
    costs = {
        tier: price("openai", "gpt-5", tier=tier).cost for tier in (None, "default", "flex", "PRIORITY", "batch", "?")
    }
    standard = Decimal("0.0006875")
    cheap, dear = standard / 2, standard * 2
    assert costs == {
        None: standard,
        "default": standard,
        "flex": cheap,
        "PRIORITY": dear,
        "batch": cheap,
        "?": standard,
    }


def test_another_providers_list_has_no_tiers_of_its_own() -> None:
    """What Azure has no list for is priced by OpenAI's; what Azure takes for a tier is not known from there."""
    table = library.load()
    borrowed = [
        found.model.id
        for found in table.models("openai")
        if any(variant.when == {"service_tier": "flex"} for variant in found.model.price_variants or ())
        and (at_azure := table.find("azure.ai.openai", found.model.id)) is not None
        and at_azure.model is found.model
    ]
    assert borrowed
    for model in borrowed:
        assert price("azure", model).cost is not None
        assert price("azure", model, tier="flex") == UNKNOWN


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-audio", "0.0142305"),
        ("openai", "gpt-4o-audio-preview", None),
        ("azure", "gpt-4o-audio-preview", None),
        ("openrouter", "openai/gpt-audio", None),
        ("google", "gemini-2.5-pro", "0.0022775"),
    ],
)
def test_openais_audio_is_never_billed_as_text(provider: str, model: str, expected: str | None) -> None:
    """Where a list has no rate for OpenAI's audio it is unpriced: it costs many times what text does."""
    cost = price(provider, model, usage=Usage(110, 214, 0, input_audio_tokens=93, output_audio_tokens=168)).cost
    assert cost == (None if expected is None else Decimal(expected))
    assert price(provider, model, usage=Usage(110, 214, input_audio_tokens=0)).cost is not None


@pytest.mark.parametrize(
    ("provider", "model", "tier", "known"),
    [
        ("openai", "gpt-4o", "priority", True),
        ("openai", "gpt-4o", "flex", False),
        ("openai", "gpt-4o", "scale", False),
        ("anthropic", "claude-sonnet-4-5", "batch", True),
        ("anthropic", "claude-sonnet-4-5", "priority", False),
        ("anthropic", "claude-3-5-haiku-20241022", "batch", False),
        ("gcp.vertex_ai", "gemini-2.5-pro", "provisioned_throughput", False),
        ("gcp.vertex_ai", "gemini-2.5-pro", "flex", True),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0", "flex", False),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0", "default", True),
        ("groq", "openai/gpt-oss-120b", "flex", True),
        ("groq", "openai/gpt-oss-120b", "on_demand", True),
    ],
)
def test_a_tier_without_a_price_of_its_own_is_unpriced(provider: str, model: str, tier: str, *, known: bool) -> None:
    """A tier that costs something else is never billed at the standard price, which would be a wrong figure."""
    assert (price(provider, model, tier=tier).cost is not None) is known


# --- aliases and own prices -----------------------------------------------------------------------------------------


def test_an_alias_names_the_model() -> None:
    """A deployment's name leads to its model, also at a provider without a list, with or without a vendor."""
    table = PriceTable(aliases={"My-Deployment": "gpt-4o", "gw": "azure/gpt-4o", "plain": "gpt-4o"})
    assert price("azure", "my-deployment", table=table).cost == GPT_4O
    assert price("my-proxy", "gw", table=table).cost == GPT_4O
    assert price("my-proxy", "plain", table=table).cost == GPT_4O
    assert price("azure", "asked", "my-deployment", table=table).cost == GPT_4O


def test_an_alias_of_a_model_that_is_not_there_has_no_price() -> None:
    """A name that you gave a meaning is not priced by anything else that it might have meant."""
    table = PriceTable(aliases={"gpt-4o": "azure/no-such-model"})
    assert price("openai", "gpt-4o", table=table) == price(None, "gpt-4o", table=table) == UNKNOWN


def test_an_alias_names_the_provider_of_an_own_price() -> None:
    """A deployment that stands for `azure/gpt-4o` costs what you pay Azure for it."""
    table = PriceTable(aliases={"dep": "azure/gpt-4o"}, own_prices=[own("gpt-4o", 1, provider="azure")])
    assert price("my-proxy", "dep", table=table) == price(None, "azure/gpt-4o", table=table) == Price(ONE, "own_price")
    assert price("openai", "gpt-4o", table=table).source == "price_table"


def own(model: str, usd: int | str, **more: Any) -> OwnPrice:
    return OwnPrice(model=model, input=Decimal(usd), output=Decimal(usd), **more)


ONE = Decimal("0.0002")
"""150 + 50 tokens at 1 USD a million."""


def test_own_prices_win() -> None:
    """An own price goes before the table's: for the model, its dated snapshots, and one provider if it names it."""
    table = PriceTable(own_prices=[own("gpt-4o", 1), own("claude-sonnet-4-5", 1, provider="bedrock"), own("mine", 1)])
    mine = Price(ONE, "own_price")
    assert price("openai", "gpt-4o", table=table) == mine
    assert price("openai", "gpt-4o", "gpt-4o-2024-08-06", table=table) == mine
    assert price("azure", "openai/gpt-4o", table=table) == mine
    assert price("my-proxy", "mine", table=table) == mine
    assert price("bedrock", "claude-sonnet-4-5", table=table) == mine
    assert price("anthropic", "claude-sonnet-4-5", table=table) == Price(Decimal("0.0012"), "price_table")


def test_an_own_price_for_the_requested_model_does_not_price_another() -> None:
    """What a router answered with is not priced as what was asked for; a name of your own is what you say it is."""
    table = PriceTable(own_prices=[own("gpt-4o", 1), own("my-router", 1)])
    assert price("openai", "gpt-4o", "gpt-4o-mini", table=table) == Price(GPT_4O_MINI, "price_table")
    assert price("openai", "gpt-4o", "no-such-model", table=table) == UNKNOWN
    assert price("openai", "my-router", "gpt-4o-mini", table=table) == Price(ONE, "own_price")


def test_own_prices_have_their_days() -> None:
    """Of several own prices the latest that has begun holds; before the first the table does."""
    table = PriceTable(
        own_prices=[
            own("gpt-4o", 1, effective_from=date(2026, 3, 1)),
            own("gpt-4o", 2, effective_from=date(2026, 6, 1)),
        ]
    )
    costs = [price("openai", "gpt-4o", table=table, when=at(2026, month, 1)).cost for month in (2, 3, 6)]
    assert costs == [GPT_4O, ONE, ONE * 2]
    assert price("openai", "gpt-4o", table=table, when=at(2026, 5, 31, 23)).cost == ONE


def test_the_day_of_a_price_is_that_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price begins at midnight in UTC, in whatever zone the machine is."""
    own_prices = [own("gpt-4o", 1, effective_from=date(2026, 3, 1)), own("gpt-4o", 2, effective_from=date(2026, 6, 1))]
    try:
        for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            table = PriceTable(own_prices=own_prices)
            moments = (at(2026, 5, 31, 23), at(2026, 6, 1, 0))
            assert [price("openai", "gpt-4o", table=table, when=when).cost for when in moments] == [ONE, ONE * 2]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_own_prices_know_details() -> None:
    """Cache reads and writes, an hour's writes, audio, reasoning and a fee have rates of their own."""
    table = PriceTable(
        own_prices=[
            OwnPrice(
                model="m",
                input=Decimal(10),
                output=Decimal(20),
                cache_read=Decimal(1),
                cache_write_1h=Decimal(15),
                input_audio=Decimal(30),
                reasoning=Decimal(40),
                per_request=Decimal("0.5"),
            )
        ]
    )
    millions = [3_000_000, 2_000_000, 1_000_000, 1_000_000, None, 1_000_000]
    assert price("p", "m", table=table, usage=Usage(*millions)).cost == 10 + 1 + 15 + 40 + Decimal("0.5")
    special = Usage(4_000_000, 1_000_000, 1_000_000, input_audio_tokens=1_000_000, reasoning_tokens=1_000_000)
    assert price("p", "m", table=table, usage=special).cost == 20 + 1 + 30 + 40 + Decimal("0.5")
    heard = Usage(1_000_000, 0, 1_000_000, input_audio_tokens=1_000_000)  # all of it is audio that was read
    assert price("p", "m", table=table, usage=heard).cost == 1 + Decimal("0.5")


def test_the_same_price_twice_is_refused() -> None:
    """Two prices for one model, provider and day are ambiguous."""
    with pytest.raises(ConfigurationError, match=r"two own prices for model 'GPT-4o'.*'openai'.*leave one"):
        PriceTable(own_prices=[own("gpt-4o", 1, provider="openai"), own("GPT-4o", 2, provider="openai")])


TOML = """
[aliases]
deployment = "azure/gpt-4o"

[[prices]]
model = "m"
provider = "azure"
effective_from = 2026-01-01
input = 0.1
output = 1
"""
YAML = """
aliases:
  deployment: azure/gpt-4o
prices:
  - {model: m, provider: azure, effective_from: 2026-01-01, input: 0.1, output: 1}
"""


@pytest.mark.parametrize(("name", "content"), [("p.toml", TOML), ("p.yaml", YAML), ("p.yml", YAML)])
def test_price_files(tmp_path: Path, name: str, content: str) -> None:
    """TOML and YAML say the same; floats become the decimals that were written."""
    (tmp_path / name).write_text(content)
    file = load_prices(tmp_path / name)
    expected = OwnPrice(
        model="m", provider="azure", effective_from=date(2026, 1, 1), input=Decimal("0.1"), output=Decimal(1)
    )
    assert (file.aliases, file.prices) == ({"deployment": "azure/gpt-4o"}, (expected,))
    table = PriceTable.load([tmp_path / name], aliases={"other": "gpt-4o"})
    assert price("azure", "m", table=table).cost == Decimal("0.000065")
    assert price("azure", "deployment", table=table).cost == price("azure", "other", table=table).cost == GPT_4O


WRONG_FILES = [
    ("p.toml", "prices = 3", r"prices, given 3"),
    ("p.toml", "price = []", r"price, given \[\].*[Ee]xtra.*allowed are aliases, prices$"),
    ("p.toml", f"tool = {{a = '{'x' * 500}'}}", r"tool, given \{'a': 'x{10,60}\.\.\.: Extra"),
    (
        "p.toml",
        '[[prices]]\nmodel = "m"\ninput = -1\noutput = 1',
        r"prices\.0\.input, given .*-1.*greater than or equal to 0",
    ),
    ("p.toml", '[[prices]]\nmodel = "m"\ninput = nan\noutput = 1', r"prices\.0\.input.*finite"),
    ("p.toml", '[[prices]]\nmodel = "m"\ninput = 1', r"prices\.0\.output: Field required"),
    (
        "p.toml",
        '[[prices]]\nmodel = "m"\ninput = 1\noutput = 1\nouput = 2',
        r"ouput, given 2.*allowed are model, input",
    ),
    ("p.toml", "= 3", "is not TOML"),
    ("p.yaml", "a: [", "is not YAML"),
    ("p.yaml", "- 1", "holds list"),
    ("missing.toml", None, "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG_FILES)
def test_a_wrong_price_file_says_what_is_wrong(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    """The error names the file, the field, what was given and what is allowed."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_prices(tmp_path / name)
    assert name in str(raised.value)


def test_an_empty_yaml_file_says_nothing(tmp_path: Path) -> None:
    """An empty file is one without prices."""
    (tmp_path / "p.yaml").write_text("")
    assert load_prices(tmp_path / "p.yaml").prices == ()


def test_yaml_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YAML file needs PyYAML; the error says how to get it."""
    (tmp_path / "p.yaml").write_text(YAML)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"taskpilot-obs\[prices\]"):
        load_prices(tmp_path / "p.yaml")


# --- warnings, bounds, threads and processes ------------------------------------------------------------------------


def test_an_unknown_model_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning per provider and model, however often it is called, on whatever day."""
    table = PriceTable()
    with caplog.at_level(logging.WARNING, "taskpilot_obs"):
        for when in (NOW, NOW, at(2026, 1, 1)):
            price("openai", "no-such-model", table=table, when=when)
            price("openai", None, table=table, when=when)
        price("groq", "no-such-model" + "x" * 1_000, table=table)
        price("openai", "no-such-model", table=table, tier="flex")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "'no-such-model' of provider 'openai':" in caplog.messages[0]
    assert len(caplog.messages[1]) < 400
    assert "'no-such-model' of provider 'openai' at service tier 'flex':" in caplog.messages[2]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Names that a caller makes up fill no memory: cards and warnings have bounds."""
    monkeypatch.setattr("taskpilot_obs.pricing.table._MAX_CARDS", 10)
    monkeypatch.setattr("taskpilot_obs.pricing.table._MAX_WARNED", 5)
    table = PriceTable()
    with caplog.at_level(logging.WARNING, "taskpilot_obs"):
        for number in range(40):
            price("openai", f"made-up-{number}", table=table)
            assert len(table._entries) <= 10
    assert len(caplog.records) == 5
    assert price("openai", "gpt-4o", table=table).cost == GPT_4O


def test_threads_get_the_same_price() -> None:
    """Many threads that ask at once for models not yet looked up all get the right answer."""
    table = PriceTable()
    found: list[Price] = []

    def ask() -> None:
        found.extend(price("openai", "gpt-4o", table=table) for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {Price(GPT_4O, "price_table")}
    assert len(found) == 1_600


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded no price table yet."""
    monkeypatch.setattr(library, "_state", library._State())


@pytest.mark.parametrize("name", pricing.__all__)
def test_every_public_name_of_prices_can_be_had(name: str) -> None:
    """Names that are imported at their first use are those of their module; others do not exist."""
    assert getattr(pricing, name) is not None
    assert pricing.OwnPrice is OwnPrice
    with pytest.raises(AttributeError, match="has no attribute 'OwnPrices'"):
        pricing.OwnPrices  # noqa: B018  asked for on purpose


@pytest.mark.usefixtures("unloaded")
def test_a_table_that_cannot_be_loaded_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The helper logs why it failed, and nothing where the end of the interpreter interrupts it."""

    def broken() -> None:
        raise ImportError

    monkeypatch.setattr(library, "load", broken)
    library._state.is_ending = True
    library._load_in_background()
    assert caplog.messages == []
    library._state.is_ending = False
    library._load_in_background()
    assert "taskpilot_obs: price_table failed with ImportError" in caplog.text


@pytest.mark.usefixtures("unloaded")
def test_warming_up_makes_the_table_ready() -> None:
    """`warm_up` loads the table in the background; calling it again, before or after, changes nothing."""
    table = PriceTable()
    assert not table.ready
    table.warm_up()
    table.warm_up()
    helper = library._state.helper
    assert helper is not None
    assert helper.name == "taskpilot-obs-prices"
    helper.join()
    assert table.ready
    table.warm_up()
    assert library._state.helper is helper


@pytest.mark.usefixtures("unloaded")
def test_an_interpreter_that_shuts_down_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more, `warm_up` does nothing, and `price` loads the table itself."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    table = PriceTable()
    table.warm_up()
    assert library._state.helper is None
    assert price("openai", "gpt-4o", table=table).cost == GPT_4O


def run(script: str) -> str:
    """The output of a fresh interpreter, in which nothing is loaded yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_configuring_loads_the_table() -> None:
    """`configure()` begins to load the prices, so that the first runs are priced; switched off, it does not."""
    output = run(
        """
        import sys, threading
        import taskpilot_obs
        taskpilot_obs.configure(enabled=False)
        assert not [t for t in threading.enumerate() if t.name == "taskpilot-obs-prices"]
        recorder = taskpilot_obs.configure()
        for helper in [t for t in threading.enumerate() if t.name == "taskpilot-obs-prices"]:
            helper.join()
        assert recorder.runtime.prices.ready
        print("done")
        """
    )
    assert output == "done\n"


def test_the_table_is_loaded_late_and_by_one_helper() -> None:
    """Importing loads no prices; `warm_up` starts one daemon thread in any number of calls; `ready` reports it."""
    output = run(
        """
        import sys, threading, time
        from taskpilot_obs.pricing import PriceTable
        table = PriceTable()
        assert "genai_prices" not in sys.modules and not table.ready
        for _ in range(20):
            table.warm_up()
        helpers = [t for t in threading.enumerate() if t.name == "taskpilot-obs-prices"]
        assert len(helpers) == 1 and helpers[0].daemon
        helpers[0].join()
        assert table.ready and "genai_prices" in sys.modules
        table.warm_up()
        assert not [t for t in threading.enumerate() if t.name == "taskpilot-obs-prices"]
        print("done")
        """
    )
    assert output == "done\n"


def test_a_price_asked_for_too_early_waits() -> None:
    """`price` without `ready` waits for the helper's import instead of giving up, and instead of importing twice."""
    output = run(
        """
        from taskpilot_obs.pricing import PriceTable
        from taskpilot_obs.usage import Usage
        table = PriceTable()
        table.warm_up()
        print(table.price(Usage(150, 50), provider="openai", request_model="gpt-4o", response_model=None,
                          at_unix_ns=1_790_000_000_000_000_000).cost.normalize())
        """
    )
    assert output == "0.000875\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_in_the_middle_of_loading_is_safe() -> None:
    """A process that forks while the helper imports leaves the child a table that it can use, and no lock held."""
    output = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried here
        from taskpilot_obs.pricing import PriceTable
        from taskpilot_obs.usage import Usage
        table = PriceTable()
        table.warm_up()
        child = os.fork()
        cost = table.price(Usage(150, 50), provider="openai", request_model="gpt-4o", response_model=None,
                           at_unix_ns=1_790_000_000_000_000_000).cost
        if child == 0:
            table.warm_up()
            os._exit(0 if cost is not None and table.ready else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), cost.normalize())
        """
    )
    assert output == "0 0.000875\n"


def test_explain_gives_the_reasons() -> None:
    """A price with the rates and their source; None where there is no price."""
    table = PriceTable(own_prices=[own("mine", 1)])
    explained = table.explain("gpt-4o", USAGE, at_unix_ns=NOW)
    assert explained is not None
    assert explained[:2] == (GPT_4O, explained.source)
    assert explained.source.startswith("genai-prices ")
    assert (explained.provider, explained.model) == ("openai", "gpt-4o")
    assert {rate.kind: rate.base for rate in explained.rates}["cache_read_tokens"] == Decimal("1.25")
    mine = table.explain("mine", USAGE, provider="p", at_unix_ns=NOW)
    assert mine is not None
    assert (mine.cost, mine.source, mine.provider) == (ONE, "own price", "p")
    assert table.explain("no-such-model", USAGE, at_unix_ns=NOW) is None


def test_lists() -> None:
    """The models of a provider with their rates, under any of its names; nothing for one that has no list."""
    table = PriceTable()
    listed = {one.model: one for one in table.list_models("google_genai", at_unix_ns=NOW)}
    assert listed["gemini-2.5-pro"].rates[0].tiers[0].above == 200_000
    assert table.list_models("no-such-provider", at_unix_ns=NOW) == []
    assert {"aws.bedrock", "azure.ai.openai", "openai", "x_ai"} <= set(table.list_providers())


@pytest.mark.parametrize(
    ("provider", "asked", "answered"),
    [
        (
            "aws.bedrock",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:eu-west-1:1:provisioned-model/abc",
        ),
        ("gcp.vertex_ai", "gemini-2.5-flash", "projects/1/locations/europe-west4/endpoints/77"),
        ("gcp.vertex_ai", "gemini-2.5-flash", "1234567890"),
    ],
)
def test_an_id_that_only_the_request_prices(provider: str, asked: str, answered: str) -> None:
    """Where the answer names a deployment by its ID, the model asked for has the price; at a router it has none."""
    assert price(provider, asked, answered).cost == price(provider, asked).cost is not None
    assert price("openrouter", "openai/gpt-4o", answered).cost is None
