"""One data set, asked for on every surface: cost coverage and p95 are one definition each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from decimal import Decimal
from math import ceil, inf
from pathlib import Path

import pytest
from _http import answering
from _servers import prometheus_server, shipped_rules

from taskpilot_obs import golden_signals, track_llm, track_workflow
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.golden_signals import GoldenSignals
from taskpilot_obs.golden_signals.from_exposition import signals_from_registry
from taskpilot_obs.golden_signals.from_prometheus import signals_from_prometheus
from taskpilot_obs.semconv import WORKFLOW_BUCKETS, PriceGap
from taskpilot_obs.stats import get_stats
from taskpilot_obs.testing import FixedClock, fresh_recorder

DURATIONS = [*(0.02 * n for n in range(1, 18)), 1.5, 3.0, 7.0]
COVERAGE = 4 / 7
"""Of seven calls that may cost something two are unpriced, one is partial; a refusal and a cache hit are free."""


def call_models() -> None:
    """Calls of every kind that coverage tells apart."""
    for _ in range(4):
        with track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=10, output_tokens=1)
    with track_llm(model="no-such-model", provider="openai") as call:
        call.record_usage(input_tokens=10, output_tokens=1)
    with track_llm(model="gpt-4o"):
        pass  # its usage never came
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=10, output_tokens=1)
        call.note_gap(PriceGap.SERVER_TOOLS)
    with suppress(ConnectionRefusedError), track_llm(model="gpt-4o"):
        raise ConnectionRefusedError
    with track_llm(model="gpt-4o") as call:
        call.set_cached(cached=True)


def surfaces(store: str, folder: Path) -> dict[str, GoldenSignals]:
    """What the process, its exposition, the store and a Prometheus say."""
    clock = FixedClock(time.time_ns() - 60 * 1_000_000_000)
    with fresh_recorder(clock=clock, store=store) as recorder:
        for duration in DURATIONS:
            with track_workflow("handle"):
                clock.advance(duration)
        call_models()
        assert recorder.flush()
        assert recorder.registry is not None
        page = render(recorder.registry)[0]
        found = {
            "process": golden_signals("15m"),
            "exposition": signals_from_registry(recorder.registry),
            "store": golden_signals("1h", store=store),
        }
    with answering(lambda _: (200, "text/plain; version=0.0.4", page)) as target:
        where = target.removeprefix("http://")
        job = f"{{job_name: a, static_configs: [{{targets: ['{where}']}}]}}"
        config = f"global: {{scrape_interval: 1s}}\nscrape_configs: [{job}]\n"
        with prometheus_server(config, rules_dir=shipped_rules(folder)) as url:
            deadline = time.monotonic() + 60
            while not (said := signals_from_prometheus(url)).runs.total and time.monotonic() < deadline:
                time.sleep(0.2)
    return found | {"promql": said}


def test_every_surface_says_the_same(tmp_path: Path) -> None:
    """Coverage is equal everywhere; p95 is the exact one within 1 %, or says that it is interpolated in its bucket."""
    exact = 1000 * sorted(DURATIONS)[ceil(0.95 * len(DURATIONS)) - 1]
    lower = 1000 * max(bound for bound in (0.0, *WORKFLOW_BUCKETS) if 1000 * bound < exact)
    upper = 1000 * min(bound for bound in (*WORKFLOW_BUCKETS, inf) if 1000 * bound >= exact)
    found = surfaces(f"sqlite:///{tmp_path / 'telemetry.db'}", tmp_path)
    assert {name: each.cost_coverage for name, each in found.items()} == dict.fromkeys(found, pytest.approx(COVERAGE))
    assert {each.llm_calls for each in found.values()} == {7}
    assert {each.cost_usd for each in found.values()} == {float(Decimal("0.000035") * 5)}
    for name, signals in found.items():
        only = signals.workflows["handle"]
        for p95, interpolated in (
            (signals.p95_latency_ms, signals.p95_is_interpolated),
            (only.p95_latency_ms, only.p95_is_interpolated),
        ):
            assert p95 is not None
            assert interpolated or p95 == pytest.approx(exact, rel=0.01), name
            assert lower <= p95 <= upper, name
    assert found["exposition"].p95_latency_ms == found["promql"].p95_latency_ms
    assert not found["process"].p95_is_interpolated
    assert not found["store"].p95_is_interpolated
    assert "interpolated" in str(found["promql"])


def test_an_alias_names_its_model_everywhere(tmp_path: Path) -> None:
    """A model's alias in the configuration, and the model itself, are one in filters of the store and in budgets."""
    store = f"sqlite:///{tmp_path / 'telemetry.db'}"
    scoped = Budget("deployment", limit_usd=1, scope={"model": "gpt-4o"})
    with fresh_recorder(store=store, model_aliases={"our-deployment": "gpt-4o"}, budgets=[scoped]) as recorder:
        with track_llm(model="Our-Deployment", provider="openai") as call:
            call.record_usage(input_tokens=10, output_tokens=1)
        assert recorder.flush()
        found = [get_stats("1h", store=store, model=name).requests for name in ("our-deployment", "gpt-4o")]
        (status,) = budget_status([scoped])
    assert found == [1, 1]
    assert status.spent == Decimal("0.000035")


def test_commands_know_the_aliases_of_the_price_files_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--model` takes an alias in a process that configures nothing, and a wrong file is named."""
    file, store = tmp_path / "prices.toml", f"sqlite:///{tmp_path / 'telemetry.db'}"
    file.write_text('[aliases]\n"env-deployment" = "gpt-4o"\n')
    with fresh_recorder(store=store, prices=[file]) as recorder:
        with track_llm(model="env-deployment", provider="openai") as call:
            call.record_usage(input_tokens=10, output_tokens=1)
        assert recorder.flush()
    asked = ("stats", "--store", store, "--model", "env-deployment", "--json")
    assert json.loads(command(*asked).stdout)["requests"] == 0
    monkeypatch.setenv("TASKPILOT_OBS_PRICES", str(file))
    assert json.loads(command(*asked).stdout)["requests"] == 1
    assert command("price", "env-deployment", "--input", "4").stdout.startswith("0.00001 USD")
    monkeypatch.setenv("TASKPILOT_OBS_PRICES", str(tmp_path / "gone.toml"))
    refused = command(*asked)
    assert (refused.returncode, str(tmp_path / "gone.toml") in refused.stderr) == (2, True)
    assert "Traceback" not in refused.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    program = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
