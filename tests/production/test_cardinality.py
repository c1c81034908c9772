"""Names without end: labels stay within their bounds, and no sum loses anything."""

from __future__ import annotations

from collections import Counter

import pytest
from _figures import measured

from taskpilot_obs import semconv, track_agent, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.semconv import LABEL_BOUNDS, MAX_CHILDREN, METRICS, OTHER, Kind, Label

AGENTS, MODELS = 50_000, 10_000


@pytest.mark.promise("bounded-labels")
def test_names_without_end(recorder: Recorder) -> None:
    """50,000 names of agents and 10,000 of unknown models: series within the declared bounds, sums exact."""
    for number in range(AGENTS):
        with track_agent(f"agent-{number}"):
            if number < MODELS:
                with track_llm(model=f"bogus-{number}", provider=f"nobody-{number % 100}") as call:
                    call.record_usage(input_tokens=2, output_tokens=1)
    recorder.drain()
    assert recorder.registry is not None
    sums: Counter[str] = Counter()
    series: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for family in recorder.registry.collect():
        for sample in family.samples:
            sums[sample.name] += int(sample.value)
            series[sample.name] += 1
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    assert sums[semconv.AGENT_RUNS.name] == sums[semconv.WORKFLOW_RUNS.name] == AGENTS
    assert sums[semconv.LLM_REQUESTS.name] == sums[semconv.LLM_UNPRICED.name] == MODELS
    assert sums[semconv.LLM_TOKENS.name] == 3 * MODELS
    for label in (Label.AGENT, Label.WORKFLOW, Label.MODEL, Label.PROVIDER):
        assert OTHER in values[label]
        assert len(values[label]) <= LABEL_BOUNDS[label] + 2, label  # and `__other__`, `__none__`
    for metric in METRICS:
        if metric.kind is not Kind.HISTOGRAM:
            assert series[metric.name] <= MAX_CHILDREN, metric.name
    measured("bounded-labels", agents=AGENTS, models=MODELS)
