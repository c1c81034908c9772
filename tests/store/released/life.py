"""Run by the code of any version: write, book and read in a store, and print what it sees."""

import json
import sys
import tempfile

from prometheus_client import CollectorRegistry

import taskpilot_obs
from taskpilot_obs import request_context, track_llm, track_workflow
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.config import build_recorder
from taskpilot_obs.stats import get_stats, get_tenants_report
from taskpilot_obs.store import StoreExporter

url = sys.argv[1]
team = Budget("team", limit_usd=10, period="total", action="enforce")
with tempfile.TemporaryDirectory() as spool:
    exporter = StoreExporter(url, spool_dir=spool)
    recorder = build_recorder(exporters=[exporter], budgets=[team], registry=CollectorRegistry())
    with request_context(tenant_id="acme", user_id="ann"), track_workflow("triage", recorder=recorder):
        for _ in range(3):
            with track_llm(provider="openai", model="gpt-4o", recorder=recorder) as call:
                call.record_usage(input_tokens=100, output_tokens=50)
                call.set_cost("0.25")
    assert recorder.flush(20)
    stats = get_stats("1h", store=url)
    (tenant,) = get_tenants_report("1h", store=url).tenants
    (status,) = budget_status([team], store=url)
    recorder.shutdown()
found = {"requests": stats.requests, "cost": float(stats.cost_usd), "spent": float(status.spent)}
print(json.dumps({**found, tenant.tenant: tenant.requests, "file": taskpilot_obs.__file__}))  # noqa: T201  for the test
