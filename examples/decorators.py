"""Decorators only: a workflow, an agent, a tool, an LLM call by hand. Runs offline: python examples/decorators.py."""

import asyncio
import tempfile
from pathlib import Path

from taskpilot_obs import (
    configure,
    golden_signals,
    observe_agent,
    observe_tool,
    observe_workflow,
    record_feedback,
    request_context,
    shutdown,
    track_llm,
)


@observe_tool
def create_task(title: str) -> str:
    """Put a task on the board."""
    return f"created: {title}"


@observe_agent("PlannerAgent")
async def plan(request: str) -> str:
    """Ask a model what to do, then do it."""
    async with track_llm(provider="openai", model="gpt-4o") as call:
        await asyncio.sleep(0.02)  # here you would call the model
        call.record_usage(input_tokens=150, output_tokens=50)
    return create_task(request)


@observe_workflow
async def handle(request: str) -> str:
    """One task, as its user sees it."""
    if not request:
        raise ValueError("nothing to do")
    return await plan(request)


async def main(audit_log: Path) -> None:
    """Three requests: two that succeed, of which one is confirmed, and one that fails."""
    configure(service="taskpilot", audit_log=audit_log)
    with request_context(request_id="req-abc-123", tenant_id="acme", user_id="u1"):
        print(await handle("renew the certificate"))
        record_feedback(correct=True)
    print(await handle("write the release notes"))
    try:
        await handle("")
    except ValueError as error:
        print(f"failed: {error}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "audit.jsonl"
        asyncio.run(main(log))
        signals = golden_signals("15m")
        print(f"success rate {signals.success_rate:.1f} % of {signals.runs.counted:.0f} runs: {signals.status}")
        print(f"cost per success ${signals.cost_per_successful_task_usd}")
        shutdown()  # only because the folder goes away now; otherwise the end of the process does it
        print(f"audit log: {len(log.read_text().splitlines())} lines, the first of them:")
        print(log.read_text().splitlines()[0])
