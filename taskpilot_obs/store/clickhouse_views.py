"""The views for people and BI tools in ClickHouse, as the migrations make them on the other engines."""

from __future__ import annotations

from typing import Final

from taskpilot_obs.store.tables import LLM_CALLS

_CALLS: Final = """
    created_at AS ended_at, toDate(created_at, 'UTC') AS day, telemetry_id, request_id, trace_id,
    organization_id AS tenant, user_id, session_id, service, environment, workflow, agent, prompt_name, step_id,
    task_id, workflow_run_id, thought_id, experiment, variant, provider, model_name AS model, operation, status,
    success, error_type, error_category, retries, streaming, cached, latency_ms, time_to_first_token_ms, input_tokens,
    output_tokens, reasoning_tokens, cached_tokens, cache_write_tokens, total_tokens, cost AS cost_usd, cost_source
"""
_COSTS: Final = """
    countIf(NOT calls.success) AS failures, sum(calls.input_tokens) AS input_tokens,
    sum(calls.output_tokens) AS output_tokens, sum(calls.cost_usd) AS cost_usd,
    count(calls.cost_usd) AS requests_with_known_cost
"""
"""With the table's name before each column, because a bare one would mean the sum that is called like it."""


def _ranked(percent: int) -> str:
    """The value at the nearest rank, as every report of this library has it."""
    return f"ranked[intDiv({percent} * length(ranked) + 99, 100)] AS p{percent}_ms"


VIEWS: Final = {
    "v_llm_calls": f"SELECT {_CALLS} FROM {LLM_CALLS.name} FINAL",  # noqa: S608  our names
    "v_daily_costs": f"""
        SELECT day, tenant, provider, model, agent, count() AS requests, {_COSTS}
        FROM v_llm_calls AS calls GROUP BY day, tenant, provider, model, agent
    """,  # noqa: S608  our names
    "v_daily_latency": f"""
        WITH arraySort(groupArray(latency_ms)) AS ranked
        SELECT day, provider, model, count() AS requests, avg(latency_ms) AS mean_ms,
            {_ranked(50)}, {_ranked(95)}, {_ranked(99)}
        FROM v_llm_calls GROUP BY day, provider, model
    """,  # noqa: S608  our names
}
"""What each view selects. They read with `FINAL`, because the programs that ask them lack the settings of the store."""
