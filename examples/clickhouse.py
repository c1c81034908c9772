"""The store of a company, on the engine of ClickHouse in this process. Offline.

Needs `pip install 'taskpilot-obs[clickhouse]' chdb`. With a server the URL is all that changes.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec

from taskpilot_obs import Usage, configure, flush, record_llm_call, request_context, shutdown
from taskpilot_obs.stats import get_stats, get_tenants_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, erase, upgrade


def main() -> None:
    """Make the tables, fill them, ask, and erase a tenant."""
    with tempfile.TemporaryDirectory() as folder:
        url = (
            f"clickhouse+chdb:///{folder}?database=telemetry"  # clickhouse://USER:PASSWORD@HOST:8443/telemetry?secure=1
        )
        store = Store(url)
        upgrade(store)  # once, as `taskpilot-obs db upgrade --store URL`
        configure(exporters=[StoreExporter(url)])
        for number in range(20):
            with request_context(tenant_id="acme" if number % 4 else "umbrella"):
                usage = Usage(input_tokens=200 + number, output_tokens=50)
                record_llm_call(provider="openai", model="gpt-4o", usage=usage, duration_seconds=0.4)
        flush()

        stats = get_stats("1h")
        print(f"{stats.requests} calls, {stats.tokens.total} tokens, {stats.cost_usd:.6f} USD")
        for tenant in get_tenants_report("1h").tenants:
            print(f"  {tenant.tenant}: {tenant.requests} calls, {tenant.percent:.0f} % of the money")
        print(aggregate_summaries("daily"), "hours and days summed up: those of the last five minutes come later")
        print(erase(tenant="umbrella").erased["llm_call_telemetry"], "calls of umbrella erased,", end=" ")
        print(get_stats("1h").requests, "left")
        shutdown()
        store.close()


if __name__ == "__main__":
    if find_spec("chdb") and find_spec("clickhouse_connect"):
        main()
    else:
        print("chdb is not installed: pip install 'taskpilot-obs[clickhouse]' chdb")
