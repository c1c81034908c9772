"""The runs that are to be recorded of calls made at once: how many, where each stands, its tokens, cost and status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple

from _layers import Asker, Call, Level, Stack
from _layers_of_frameworks import ASKERS
from _runs import figures

from taskpilot_obs.records import LLM_OPERATIONS, Invocation

MODELS = {
    "openai": ("gpt-4o-mini", "gpt-4.1-mini"),
    "anthropic": ("claude-haiku-4-5", "claude-sonnet-4-6"),
    "google": ("gemini-2.5-pro", "gemini-2.5-flash"),
}
COSTS_USD = {
    "gpt-4o-mini": "0.000024",
    "gpt-4.1-mini": "0.00006",
    "claude-haiku-4-5": "0.000164",
    "claude-sonnet-4-6": "0.000492",
    "gemini-2.5-flash": "0.0000692",
    "gemini-2.5-pro": "0.00028",
}
"""Of 60 input, 40 cached and 20 output tokens, by the providers' price lists."""
OUTER: Level = ("invoke_agent", "Outer")
TOOL: Level = ("execute_tool", "get_weather")
WITHIN_TOOL: Level = ("execute_tool", "lookup")
OUTPUT_TOKENS = 20
UNNAMED = "unnamed"
STATUSES = {"answered": "success", "fails": "error", "cancelled": "cancelled"}


class Case(NamedTuple):
    """What is made at once."""

    stacks: tuple[Stack, ...]
    has_bridge: bool
    has_agent: bool

    def calls(self) -> Iterator[tuple[int, Stack, Call]]:
        """The calls, each with the place of its stack."""
        for place, stack in enumerate(self.stacks):
            for call in stack.calls:
                yield place, stack, call

    def is_seen(self, stack: Stack) -> bool:
        """Whether any layer records the calls of a stack."""
        return stack.decorator is not None or stack.native or stack.wrapped or self.is_seen_by_spans(stack)

    def is_seen_by_spans(self, stack: Stack) -> bool:
        """Whether the bridge sees them."""
        return self.has_bridge and ASKERS[stack.asker].has_spans

    def label(self, place: int, stack: Stack) -> str:
        """The model that the records of a stack name; a decorated function that fails knows of none."""
        knows = ASKERS[stack.asker].names_model
        is_told = stack.wrapped or (knows if stack.native else stack.decorator != "observe_llm")
        return model_of(ASKERS[stack.asker], place) if is_told else UNNAMED

    def above(self, stack: Stack) -> tuple[Level, ...]:
        """The runs around a call, the innermost first."""
        asker = ASKERS[stack.asker]
        outer = (OUTER,) if self.has_agent else ()
        if stack.native:
            beside_spans = asker.above_by_both if self.is_seen_by_spans(stack) else ()
            return (*(beside_spans or asker.above), *outer)
        return (*asker.above_by_spans, *outer) if self.is_seen_by_spans(stack) else outer


def model_of(asker: Asker, place: int) -> str:
    """The model that a stack asks, which no other stack of its case asks."""
    return MODELS[asker.sdk][place]


def requests_of(call: Call) -> int:
    """How often a model is asked: with a tool, a second time with the tool's result."""
    return 2 if call.has_tool else 1


def expected_places(case: Case) -> Counter[tuple[Level, ...]]:
    """Each run that is to be recorded, with the runs above it."""
    found: Counter[tuple[Level, ...]] = Counter([(OUTER,)] if case.has_agent else [])
    for place, stack, call in case.calls():
        above = case.above(stack)
        if case.is_seen(stack):
            found[("chat", case.label(place, stack)), *above] += requests_of(call)
        within = above[: -1 if case.has_agent else None]
        if within:
            found.update(above[number:] for number in range(len(within)))
            found[TOOL, *above] += call.has_tool
            found[WITHIN_TOOL, TOOL, *above] += call.has_tool
        else:
            found[WITHIN_TOOL, *above] += call.has_tool
    return +found


def recorded_places(case: Case, runs: Iterable[Invocation]) -> Counter[tuple[Level, ...]]:
    """Each run that was recorded, with the runs above it; calls of models by their model."""
    by_id = {run.invocation_id: run for run in runs}

    def levels(run: Invocation | None) -> Iterator[Level]:
        while run is not None:
            yield run.operation.value, _label_of(case, run) if run.operation in LLM_OPERATIONS else run.name
            run = by_id.get(run.parent_id or "")

    return Counter(tuple(levels(run)) for run in by_id.values())


def _label_of(case: Case, call: Invocation) -> str:
    labels = {case.label(place, stack) for place, stack in enumerate(case.stacks)}
    return call.request_model if call.request_model in labels else UNNAMED


def states_usage(stack: Stack, call: Call) -> bool:
    """Whether a layer reads the answer: a decorated function that returns a raw response has nothing to read."""
    return call.form != "raw" or stack.decorator != "observe_llm"


def allowed(stack: Stack, call: Call) -> set[str]:
    """The statuses that a record of a call may have."""
    if call.outcome == "cancelled" and stack.asker in ("langchain", "litellm") and stack.native:
        return {"cancelled", "abandoned"}  # these report no end of it
    if call.outcome != "left":
        return {STATUSES[call.outcome]}
    only_spans = stack.decorator is None and not stack.native and not stack.wrapped
    return {"abandoned", "cancelled", "success"} if only_spans else {"abandoned", "cancelled"}


def assert_runs(case: Case, captured: Iterable[Invocation]) -> None:
    """Each run once, beneath its parent and in its request, with its status, tokens and cost."""
    runs = list(captured)
    recorded, expected = recorded_places(case, runs), expected_places(case)
    assert recorded == expected, f"too many: {recorded - expected}, missing: {expected - recorded}"
    assert_requests(runs, has_agent=case.has_agent)
    groups: dict[str, list[tuple[Stack, Call]]] = {}
    for place, stack, call in case.calls():
        if case.is_seen(stack):
            groups.setdefault(case.label(place, stack), []).append((stack, call))
    for label, calls in groups.items():
        mine = [run for run in runs if run.operation in LLM_OPERATIONS and _label_of(case, run) == label]
        assert_statuses(calls, mine)
        assert_figures(calls, mine)


def assert_requests(runs: list[Invocation], *, has_agent: bool) -> None:
    """A run works for the request of its parent, within its trace, and begins behind it."""
    by_id = {run.invocation_id: run for run in runs}
    roots = [run for run in runs if run.parent_id not in by_id]
    assert len({run.request_id for run in runs}) == len(roots)
    assert not has_agent or len(roots) == 1
    for run in runs:
        parent = by_id.get(run.parent_id or "")
        if parent is not None:
            assert (run.request_id, run.trace_id or parent.trace_id) == (
                parent.request_id,
                parent.trace_id or run.trace_id,
            )
            assert run.start_unix_ns >= parent.start_unix_ns


def assert_statuses(calls: list[tuple[Stack, Call]], runs: list[Invocation]) -> None:
    """Each call ended as it was made to end."""
    statuses = [run.status.value for run in runs]
    wanted = [allowed(stack, call) for stack, call in calls for _ in range(requests_of(call))]
    for options in sorted(wanted, key=len):
        found = next((status for status in sorted(options) if status in statuses), None)
        assert found is not None, [run.status.value for run in runs]
        statuses.remove(found)


def assert_figures(calls: list[tuple[Stack, Call]], runs: list[Invocation]) -> None:
    """Each call that was answered has its tokens and its cost; no call has other ones."""
    answered = [requests_of(call) for stack, call in calls if call.outcome == "answered" and states_usage(stack, call)]
    whole = [run for run in runs if run.status.value == "success" and run.usage is not None]
    if any("success" in allowed(stack, call) for stack, call in calls if call.outcome == "left"):
        whole = [run for run in whole if run.usage and run.usage.output_tokens == OUTPUT_TOKENS]  # spans state a part
    askers = [ASKERS[stack.asker] for stack, _ in calls]
    wanted = {figures for asker in askers for figures in (asker.figures, asker.own_figures)}
    assert len(whole) >= sum(answered), [(run.status.value, figures(run)) for run in runs]
    for run in whole:
        assert figures(run) in wanted
        assert run.cost == Decimal(COSTS_USD[_without_snapshot(run.request_model or run.response_model)])


def _without_snapshot(model: str | None) -> str:
    return next(known for known in COSTS_USD if (model or "").startswith(known))
