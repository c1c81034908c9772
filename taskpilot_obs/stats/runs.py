"""The tree of one request: workflow, agents, tools and LLM calls, with what was decided and said about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats.model import Frozen, Usd

if TYPE_CHECKING:
    from taskpilot_obs.store import Store
    from taskpilot_obs.store.calls import Line, RequestRows

Model = TypeVar("Model", bound=Frozen)
MOST_STEPS: Final = 2_000
"""Most rows of each table that one tree is made of."""
_LLM_CALL: Final = "chat"


class Step(Frozen):
    """One run or LLM call of a request. None is unknown."""

    id: str
    parent_id: str | None
    depth: int
    """0 for a root; a step whose parent is not in the store is a root too."""
    operation: str
    """`invoke_workflow`, `invoke_agent`, `execute_tool`, or `chat` for an LLM call."""
    name: str | None
    """Of the workflow, agent or tool; the model of an LLM call."""
    status: str
    error_type: str | None
    start: datetime
    end: datetime
    duration_ms: float
    input_tokens: int | None
    """Of an LLM call itself; of a workflow or an agent all calls beneath."""
    output_tokens: int | None
    cost: Usd | None
    """In USD, likewise, of the calls with a known price."""
    provider: str | None = None
    agent: str | None = None
    workflow: str | None = None
    trace_id: str | None = None
    time_to_first_token_ms: float | None = None
    cached: bool | None = None
    unpriced_calls: int = 0
    """LLM calls without a known price, of or beneath this step: with any, `cost` is incomplete."""


class DecisionLine(Frozen):
    """One denial by a policy."""

    created_at: datetime
    policy: str
    severity: str
    result: str
    agent: str | None
    tool: str | None


class FeedbackLine(Frozen):
    """One verdict of a user; the newest one counts."""

    created_at: datetime
    correct: bool
    revision: bool
    comment: str | None = None


class RunTree(Frozen):
    """Everything that the store holds of one request."""

    request_id: str
    start: datetime | None
    """None for a request that has feedback only."""
    end: datetime | None
    duration_ms: float | None
    status: str | None
    """Of the first root."""
    llm_calls: int
    tool_calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost: Usd | None
    """In USD, of the LLM calls with a known price; None where no call has one."""
    unpriced_calls: int
    """LLM calls without a cost in the store; calls that a cache answered are not among them."""
    steps: tuple[Step, ...]
    """Depth first, siblings in the order in which they began."""
    decisions: tuple[DecisionLine, ...]
    feedback: tuple[FeedbackLine, ...]
    truncated: bool
    """Whether the store holds more steps than are listed."""


def get_run_tree(request_id: str, *, store: str | Store | None = None, tenant_id: str | None = None) -> RunTree | None:
    """Everything that the store holds of one request; None where it holds nothing.

    Args:
        request_id: of the request.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        tenant_id: only what belongs to this tenant; None for all.

    Raises:
        ConfigurationError: no request ID, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    stored = stored_text(request_id)
    if not stored:
        raise ConfigurationError("request_id: given nothing; give the ID of a request")
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.calls import request_rows

    with opened(store) as opened_store, opened_store.reading() as connection:
        rows = request_rows(connection, stored, stored_text(tenant_id), MOST_STEPS, opened_store.known_version)
    return _tree(stored, rows) if any(rows) else None


def _tree(request_id: str, rows: RequestRows) -> RunTree:
    steps = tuple(_ordered([*map(_run_step, rows.runs), *map(_call_step, rows.calls)]))
    start = min((step.start for step in steps), default=None)
    end = max((step.end for step in steps), default=None)
    costs = [line["cost"] for line in rows.calls if line["cost"] is not None]
    return RunTree(
        request_id=request_id,
        start=start,
        end=end,
        duration_ms=(end - start) / timedelta(milliseconds=1) if start and end else None,
        status=steps[0].status if steps else None,
        llm_calls=len(rows.calls),
        tool_calls=sum(line["operation"] == "execute_tool" for line in rows.runs),
        input_tokens=_sum(line["input_tokens"] for line in rows.calls),
        output_tokens=_sum(line["output_tokens"] for line in rows.calls),
        cost=sum(costs, Decimal(0)) if costs else None,
        unpriced_calls=sum(line["cost"] is None and not line["cached"] for line in rows.calls),
        steps=steps,
        decisions=tuple(_taken(DecisionLine, line) for line in rows.decisions),
        feedback=tuple(_taken(FeedbackLine, line) for line in rows.feedback),
        truncated=len(rows.runs) == MOST_STEPS or len(rows.calls) == MOST_STEPS,
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _taken(model: type[Model], line: Line) -> Model:
    return model(**{name: line[name] for name in model.model_fields if name in line})


def _run_step(line: Line) -> Step:
    has_calls = line["llm_calls"] > 0
    return Step(
        id=line["run_id"],
        operation=line["operation"],
        name=line["name"],
        duration_ms=line["duration_ms"],
        input_tokens=line["input_tokens"] if has_calls else None,
        output_tokens=line["output_tokens"] if has_calls else None,
        cost=line["cost"] if line["llm_calls"] > line["unpriced_calls"] else None,
        unpriced_calls=line["unpriced_calls"],
        **_common(line, line["duration_ms"]),
    )


def _call_step(line: Line) -> Step:
    return Step(
        id=line["telemetry_id"],
        operation=_LLM_CALL,
        name=line["model_name"],
        duration_ms=line["latency_ms"],
        input_tokens=line["input_tokens"],
        output_tokens=line["output_tokens"],
        cost=line["cost"],
        provider=line["provider"],
        time_to_first_token_ms=line["time_to_first_token_ms"],
        cached=line["cached"],
        **_common(line, line["latency_ms"]),
    )


def _common(line: Line, duration_ms: float) -> dict[str, object]:
    end: datetime = line["created_at"]
    same = ("parent_id", "status", "error_type", "agent", "workflow", "trace_id")
    return {
        "depth": 0,
        "end": end,
        "start": end - timedelta(milliseconds=duration_ms),
        **{name: line[name] for name in same},
    }


def _ordered(steps: Sequence[Step]) -> Iterator[Step]:
    """Depth first from the roots, without recursion; steps that only a circle of parents holds come last, as roots."""
    known = {step.id for step in steps}
    children: defaultdict[str | None, list[Step]] = defaultdict(list)
    for step in sorted(steps, key=lambda step: (step.start, -step.duration_ms, step.id)):
        is_root = step.parent_id not in known or step.parent_id == step.id
        children[None if is_root else step.parent_id].append(step)
    seen: set[str] = set()
    waiting = [(root, 0) for root in reversed(children[None])]
    while True:
        while waiting:
            step, depth = waiting.pop()
            if step.id in seen:
                continue
            seen.add(step.id)
            yield step.model_copy(update={"depth": depth})
            waiting += [(child, depth + 1) for child in reversed(children[step.id])]
        left = next((step for step in steps if step.id not in seen), None)
        if left is None:
            return
        waiting.append((left, 0))
