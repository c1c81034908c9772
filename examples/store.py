"""History in one file: record calls of two tenants, then ask what they cost. Offline; needs the extra `store`."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from taskpilot_obs import Usage, configure, flush, observe_workflow, record_llm_call, request_context, shutdown
from taskpilot_obs.stats import get_cost_breakdown, get_cost_summary, get_stats, get_tenants_report
from taskpilot_obs.store import StoreExporter, aggregate_summaries


@observe_workflow("answer")
def answer(question: str) -> str:
    """A workflow whose one LLM call is booked by hand."""
    usage = Usage(input_tokens=10 * len(question), output_tokens=50)
    record_llm_call(provider="openai", model="gpt-4o", usage=usage, duration_seconds=0.4)
    return question.upper()


def main() -> None:
    """Fill a store, sum it up and ask."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'telemetry.db'}"
        configure(exporters=[StoreExporter(url)])
        for number in range(20):
            with request_context(tenant_id="acme" if number % 4 else "umbrella", user_id=f"user-{number % 3}"):
                answer("where is my order? " * (1 + number % 5))
        flush()

        stats = get_stats("1h")
        print(f"{stats.requests} calls, {stats.tokens.total} tokens, {stats.cost_usd:.6f} USD")
        print(f"cost known for {stats.cost_coverage:.0%} of them, p95 {stats.latency.p95_ms:.0f} ms")
        for tenant in get_tenants_report("1h").tenants:
            print(f"  {tenant.tenant}: {tenant.requests} calls, {tenant.percent:.0f} % of the money")
        print("user-1 alone:", get_stats("1h", user_id="user-1").requests, "calls")

        print(aggregate_summaries("daily"), "hours and days summed up; the answer stays the same:")
        now = datetime.now(UTC)
        print(f"  {get_cost_breakdown((now - timedelta(days=1), now)).cost_usd:.6f} USD in the last day")
        month = get_cost_summary("month", "Europe/Berlin")
        print(f"  this month {month.cost_usd:.6f} USD, the month before {month.previous_cost_usd:.6f} USD")
        shutdown()


if __name__ == "__main__":
    main()
