"""`taskpilot-obs price`, as it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from taskpilot_obs.cli import main; main()", "price", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_price_with_its_rates_and_their_source() -> None:
    """The cost without exponent, then the rates, and the price table's name and version."""
    done = run("gpt-4o", "--input", "150", "--output", "50")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "0.000875 USD"
    assert lines[1].startswith("openai gpt-4o, genai-prices ")
    assert any(line.split()[:2] == ["output", "10"] for line in lines[2:])


def test_details_tier_and_day() -> None:
    """Details, a service tier and a day change the price as they do at the provider."""
    cached = run("claude-sonnet-4-5", "--input", "1000", "--output", "5", "--cache-read", "700", "--cache-write", "200")
    assert cached.stdout.startswith("0.001335 USD")
    assert run("gpt-5", "--input", "1000000", "--tier", "flex", "--at", "2026-11-20").stdout.startswith("0.625 USD")
    assert run("o3", "--input", "1000000", "--at", "2025-01-01").stdout.startswith("10 USD")


def test_context_tiers_are_told() -> None:
    """A rate that rises with the input says from where."""
    assert "(above 200,000 input: 2.5)" in run("gemini-2.5-pro", "--input", "1").stdout


def test_json() -> None:
    """For scripts: the cost as a text, so that no digit is lost."""
    done = run("gpt-4o", "--input", "150", "--output", "50", "--json")
    told = json.loads(done.stdout)
    assert (told["cost_usd"], told["provider"], told["model"]) == ("0.000875", "openai", "gpt-4o")
    assert told["usd_per_million_tokens"]["input"] == {"rate": "2.5", "above": []}


def test_lists() -> None:
    """The models of a provider with their rates, as text and as JSON."""
    lines = run("--list", "anthropic").stdout.splitlines()
    assert lines[0] == "anthropic: USD per 1,000,000 tokens"
    assert any("input 3, output 15" in line for line in lines)
    assert any(one["model"] == "gpt-4o" for one in json.loads(run("--list", "openai", "--json").stdout))
    assert "free, or not billed by tokens" in run("--list", "groq").stdout


def test_own_prices(tmp_path: Path) -> None:
    """A price file is asked first, and a wrong one exits 2 with what is wrong."""
    file = tmp_path / "prices.toml"
    file.write_text('[[prices]]\nmodel = "mine"\ninput = 1\noutput = 2\n')
    done = run("mine", "--input", "1000000", "--prices", str(file))
    assert done.stdout.splitlines()[:2] == ["1 USD", "mine, own price"]
    file.write_text("prices = 3")
    wrong = run("mine", "--prices", str(file))
    assert wrong.returncode == 2
    assert "given 3" in wrong.stderr


def test_an_unknown_model_exits_1_with_what_helps() -> None:
    """No price, no figure: the message says what to try."""
    done = run("no-such-model", "--provider", "openai")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no price for model 'no-such-model' of provider 'openai'" in done.stderr
    assert "--prices FILE" in done.stderr
    unlisted = run("--list", "nobody")
    assert unlisted.returncode == 1
    assert "anthropic" in unlisted.stderr


def test_tokens_without_a_price_are_told() -> None:
    """An embedding model has no price for output: the command reports an unknown cost."""
    assert run("text-embedding-3-small", "--input", "5", "--output", "5").stdout.startswith("unknown: ")
    told = json.loads(run("text-embedding-3-small", "--input", "5", "--output", "5", "--json").stdout)
    assert told["cost_usd"] is None


def test_bad_usage_exits_2() -> None:
    """Neither a model nor a list, both, or details above their total: what was wrong, and 2."""
    for arguments in ((), ("gpt-4o", "--list", "openai"), ("gpt-4o", "--input", "1", "--cache-read", "2")):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert "Invalid value" in done.stderr
    assert "Invalid value for '--input'" in run("gpt-4o", "--input", "9" * 20).stderr
