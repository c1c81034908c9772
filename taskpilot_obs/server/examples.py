"""One answer of each route, for OpenAPI; tests hold them to the schemas."""

from __future__ import annotations

from typing import Any, Final

_TOKENS: Final = {"input": 1200, "output": 300, "total": 1500, "reasoning": 0, "cached": 400, "cache_write": 0}
_LATENCY: Final = {"mean_ms": 812.5, "p50_ms": 790.0, "p95_ms": 1480.0, "p99_ms": 1910.0}
_FIRST_TOKEN: Final = {"p50_ms": 210.0, "p95_ms": 340.0, "p99_ms": 420.0}
_TIMES: Final = {"start": "2026-03-10T12:00:00Z", "end": "2026-03-11T12:00:00Z"}
_CALLS: Final = {
    "requests": 12,
    "successes": 11,
    "failures": 1,
    "success_rate": 91.66666666666667,
    "tokens": _TOKENS,
    "cost_usd": "0.126",
    "cost_usd_float": 0.126,
    "cost_coverage": 1.0,
    "cache_hits": 0,
    "latency": _LATENCY,
    "time_to_first_token": _FIRST_TOKEN,
}
_SHARE: Final = {
    "cost_usd": "0.126",
    "cost_usd_float": 0.126,
    "percent": 100.0,
    "requests": 12,
    "cost_per_request_usd": "0.0105",
    "cost_per_request_usd_float": 0.0105,
    "cost_coverage": 1.0,
}
_GROUPS: Final = {
    "by_provider": {"openai": _SHARE},
    "by_model": {"gpt-4o": _SHARE},
    "by_agent": {"planner": _SHARE},
    "by_tenant": {"acme": _SHARE},
}
_SIGNAL: Final = {"numerator": 11.0, "denominator": 12.0, "interval": [64.6, 98.5], "status": "warning"}
_RUNS: Final = {
    "success": 11.0,
    "error": 1.0,
    "timeout": 0.0,
    "blocked": 0.0,
    "cancelled": 0.0,
    "abandoned": 0.0,
    "interrupted": 0.0,
    "counted": 12.0,
    "total": 12.0,
}
_FIGURES: Final = {
    "success_rate": 91.66666666666667,
    "p95_latency_ms": 1480.0,
    "cost_per_successful_task_usd": 0.0115,
    "user_confirmed_correctness_percent": None,
    "policy_violation_rate_percent": 0.0,
}
_CALL: Final = {
    "telemetry_id": "0b3f6a52f0e14c0f",
    "created_at": "2026-03-10T12:00:00Z",
    "status": "success",
    "success": True,
    "provider": "openai",
    "model_name": "gpt-4o",
    "agent": "planner",
    "workflow": "triage",
    "prompt_name": "plan",
    "organization_id": "acme",
    "user_id": "ann",
    "session_id": None,
    "request_id": "req-1",
    "trace_id": None,
    "parent_id": None,
    "llm_key": None,
    "step_id": None,
    "task_id": None,
    "workflow_run_id": None,
    "thought_id": None,
    "experiment": None,
    "variant": None,
    "latency_ms": 790.0,
    "time_to_first_token_ms": 210.0,
    "streaming": True,
    "cached": False,
    "input_tokens": 1000,
    "output_tokens": 200,
    "reasoning_tokens": None,
    "cached_tokens": 400,
    "cache_write_tokens": None,
    "total_tokens": 1200,
    "cost": "0.0105",
    "cost_float": 0.0105,
    "cost_source": "price_table",
    "error_type": None,
    "error_category": None,
}
_STEP: Final = {
    "id": "9f86d081884c7d65",
    "parent_id": None,
    "depth": 0,
    "operation": "invoke_workflow",
    "name": "triage",
    "status": "success",
    "error_type": None,
    "start": "2026-03-10T12:00:00Z",
    "end": "2026-03-10T12:00:04Z",
    "duration_ms": 4000.0,
    "input_tokens": 1000,
    "output_tokens": 200,
    "cost": "0.0105",
    "cost_float": 0.0105,
    "provider": None,
    "agent": None,
    "workflow": "triage",
    "trace_id": None,
    "time_to_first_token_ms": None,
    "cached": None,
}

EXAMPLES: Final[dict[str, Any]] = {
    "/benchmarks/summaries": [
        {
            "provider": "openai",
            "model_name": "gpt-4o",
            "prompt_name": None,
            "day": None,
            "total_calls": 12,
            "successful_calls": 11,
            "failed_calls": 1,
            "success_rate": 91.66666666666667,
            "success_rate_interval": [64.6, 98.5],
            "avg_latency_ms": 812.5,
            "p50_latency_ms": 790.0,
            "p95_latency_ms": 1480.0,
            "p99_latency_ms": 1910.0,
            "p50_time_to_first_token_ms": 210.0,
            "p95_time_to_first_token_ms": 340.0,
            "total_input_tokens": 1200,
            "total_output_tokens": 300,
            "total_reasoning_tokens": 0,
            "total_cached_tokens": 400,
            "total_cost": "0.126",
            "total_cost_float": 0.126,
            "avg_cost": "0.0105",
            "avg_cost_float": 0.0105,
            "cost_coverage": 1.0,
        }
    ],
    "/benchmarks/traces": {"items": [_CALL], "next_cursor": "WzE3NzMxNDQwMDAwMDAwMDAsIjBiM2YiLCJhYmMiXQ"},
    "/benchmarks/providers": [
        {
            "provider": "openai",
            "models": 2,
            "first_seen": "2026-02-09T08:00:00Z",
            "last_seen": "2026-03-11T11:59:58Z",
        }
    ],
    "/stats": {
        **_CALLS,
        **_TIMES,
        "by_provider": {"openai": _CALLS},
        "by_model": {"gpt-4o": _CALLS},
        "by_agent": {"planner": _CALLS},
        "errors_by_type": {"rate_limit": 1},
        "incomplete_before": None,
    },
    "/costs": {**_SHARE, **_TIMES, **_GROUPS, "incomplete_before": None},
    "/tenants": {
        **_TIMES,
        "cost_usd": "0.126",
        "cost_usd_float": 0.126,
        "tenants_total": 1,
        "incomplete_before": None,
        "tenants": [
            {**_SHARE, "tenant": "acme", "success_rate": 91.66666666666667, "tokens": _TOKENS, "p95_ms": 1480.0}
        ],
    },
    "/budgets": [
        {
            "budget": "daily",
            "scope_key": "",
            "unit": "usd",
            "period": "day",
            "action": "alert",
            "limit": "10",
            "limit_float": 10.0,
            "spent": "2.5",
            "spent_float": 2.5,
            "reserved": "0",
            "reserved_float": 0.0,
            "left": "7.5",
            "left_float": 7.5,
            "used_ratio": 0.25,
            "excess": "0",
            "excess_float": 0.0,
            "refusals": 0,
            "resets_at": "2026-03-11T00:00:00Z",
            "projected": "5",
            "projected_float": 5.0,
            "assumed": "0",
            "assumed_float": 0.0,
            "tenant": None,
        }
    ],
    "/golden-signals": {
        **_FIGURES,
        "status": "warning",
        "scope": "store",
        "window_s": 900.0,
        "workflow": None,
        "runs": _RUNS,
        "evidence": {"success_rate": _SIGNAL},
        "cost_usd": 0.126,
        "cost_coverage": 1.0,
        "llm_calls": 12.0,
        "unpriced_llm_calls": 0.0,
        "runs_with_violations_percent": 0.0,
        "runs_with_violations": {"numerator": 0.0, "denominator": 12.0, "interval": [0.0, 24.3]},
        "workflows": {},
        "notes": [],
    },
    "/runs/{request_id}": {
        "request_id": "req-1",
        "start": "2026-03-10T12:00:00Z",
        "end": "2026-03-10T12:00:04Z",
        "duration_ms": 4000.0,
        "status": "success",
        "llm_calls": 1,
        "tool_calls": 0,
        "input_tokens": 1000,
        "output_tokens": 200,
        "cost": "0.0105",
        "cost_float": 0.0105,
        "unpriced_calls": 0,
        "steps": [_STEP],
        "decisions": [],
        "feedback": [{"created_at": "2026-03-10T13:00:00Z", "correct": True, "revision": False, "comment": None}],
        "truncated": False,
    },
    "/feedback": {"request_id": "req-1", "correct": True, "status": "accepted"},
    "/health/live": {"status": "ok"},
    "/health/ready": {"status": "ok", "store": "ok"},
    "/health/golden": {**_FIGURES, "status": "warning", "window_s": 900.0},
}


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with whole examples: FastAPI leaves every null out of them."""
    for path, methods in document["paths"].items():
        for told in methods.values():
            for status, response in told["responses"].items():
                if status in ("200", "202"):
                    response["content"]["application/json"]["example"] = EXAMPLES[path.removeprefix("/v1")]
    return document
