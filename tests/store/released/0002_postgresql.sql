CREATE TABLE public.agent_runs (
    created_at timestamp with time zone NOT NULL,
    is_task boolean NOT NULL,
    success boolean,
    duration_bin smallint NOT NULL,
    duration_ms double precision NOT NULL,
    violations integer NOT NULL,
    llm_calls integer NOT NULL,
    unpriced_calls integer NOT NULL,
    tool_calls integer NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost_nano bigint,
    cost_rest smallint,
    cost numeric(24,12) GENERATED ALWAYS AS ((((cost_nano)::numeric * 0.000000001) + ((cost_rest)::numeric * 0.000000000001))) STORED,
    run_id text NOT NULL,
    parent_id text,
    operation text NOT NULL,
    name text NOT NULL,
    workflow text,
    agent text,
    status text NOT NULL,
    error_type text,
    error_message text,
    organization_id text,
    user_id text,
    session_id text,
    request_id text NOT NULL,
    trace_id text,
    step_id text,
    task_id text,
    experiment text,
    variant text
);
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.budget_ledger (
    budget text NOT NULL,
    scope_key text NOT NULL,
    period_start timestamp with time zone NOT NULL,
    period text NOT NULL,
    unit text NOT NULL,
    spent_units bigint NOT NULL,
    spent_rest bigint NOT NULL,
    reserved_units bigint NOT NULL,
    reserved_rest bigint NOT NULL,
    refusals bigint NOT NULL,
    alerted_permille integer NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE public.budget_reservations (
    reservation_id text NOT NULL,
    budget text NOT NULL,
    scope_key text NOT NULL,
    period_start timestamp with time zone NOT NULL,
    units bigint NOT NULL,
    rest bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE public.budget_writers (
    writer text NOT NULL,
    batch bigint NOT NULL,
    crossed text,
    booked_at timestamp with time zone NOT NULL
);
CREATE TABLE public.llm_call_telemetry (
    series_id integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    success boolean,
    cached boolean,
    streaming boolean NOT NULL,
    latency_bin smallint NOT NULL,
    ttft_bin smallint,
    input_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    total_tokens bigint,
    cost_nano bigint,
    cost_rest smallint,
    cost numeric(24,12) GENERATED ALWAYS AS ((((cost_nano)::numeric * 0.000000001) + ((cost_rest)::numeric * 0.000000000001))) STORED,
    latency_ms double precision NOT NULL,
    time_to_first_token_ms double precision,
    telemetry_id text NOT NULL,
    organization_id text,
    user_id text,
    session_id text,
    llm_key text,
    provider text,
    model_name text,
    prompt_name text,
    step_id text,
    task_id text,
    workflow_run_id text,
    thought_id text,
    parent_id text,
    request_id text NOT NULL,
    trace_id text,
    agent text,
    workflow text,
    cost_source text,
    status text NOT NULL,
    error_type text,
    error_category text,
    error_message text,
    experiment text,
    variant text
);
CREATE TABLE public.llm_series (
    series_id integer NOT NULL,
    provider text NOT NULL,
    model_name text NOT NULL,
    agent text NOT NULL
);
CREATE SEQUENCE public.llm_series_series_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.llm_series_series_id_seq OWNED BY public.llm_series.series_id;
CREATE TABLE public.llm_summary_work (
    work_id bigint NOT NULL,
    period text NOT NULL,
    period_start timestamp with time zone NOT NULL,
    claimed boolean NOT NULL
);
CREATE SEQUENCE public.llm_summary_work_work_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.llm_summary_work_work_id_seq OWNED BY public.llm_summary_work.work_id;
CREATE TABLE public.llm_usage_summaries (
    period text NOT NULL,
    period_start timestamp with time zone NOT NULL,
    organization_id text NOT NULL,
    provider text NOT NULL,
    model_name text NOT NULL,
    agent text NOT NULL,
    prompt_name text NOT NULL,
    requests bigint NOT NULL,
    successes bigint NOT NULL,
    failures bigint NOT NULL,
    priced bigint NOT NULL,
    cache_hits bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    cost_nano bigint NOT NULL,
    cost_rest bigint NOT NULL,
    cost numeric(24,12) GENERATED ALWAYS AS ((((cost_nano)::numeric * 0.000000001) + ((cost_rest)::numeric * 0.000000000001))) STORED,
    latency_total_ms double precision NOT NULL,
    latency_sketch bytea NOT NULL,
    ttft_sketch bytea,
    errors text
);
CREATE TABLE public.policy_violations (
    created_at timestamp with time zone NOT NULL,
    violation_id text NOT NULL,
    policy text NOT NULL,
    severity text NOT NULL,
    result text NOT NULL,
    request_id text,
    workflow text,
    agent text,
    tool text,
    organization_id text,
    user_id text
);
CREATE TABLE public.store_state (
    key text NOT NULL,
    value timestamp with time zone NOT NULL
);
CREATE TABLE public.user_feedback (
    created_at timestamp with time zone NOT NULL,
    correct boolean NOT NULL,
    revision boolean NOT NULL,
    feedback_id text NOT NULL,
    request_id text NOT NULL,
    organization_id text,
    user_id text,
    workflow text,
    agent text,
    prompt_name text,
    experiment text,
    variant text
);
ALTER TABLE ONLY public.llm_series ALTER COLUMN series_id SET DEFAULT nextval('public.llm_series_series_id_seq'::regclass);
ALTER TABLE ONLY public.llm_summary_work ALTER COLUMN work_id SET DEFAULT nextval('public.llm_summary_work_work_id_seq'::regclass);
INSERT INTO public.agent_runs VALUES ('2026-03-10 11:00:00+00', true, true, 1423, 1500, 0, 1, 0, 2, 1000, 200, 10500000, 0, DEFAULT, 'run-144', NULL, 'invoke_workflow', 'triage', 'triage', NULL, 'success', NULL, NULL, 'acme', NULL, NULL, 'request-144', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.agent_runs VALUES ('2026-03-10 10:00:00+00', true, true, 1423, 1500, 0, 1, 0, 2, 1000, 200, 10500000, 0, DEFAULT, 'run-145', NULL, 'invoke_workflow', 'triage', 'triage', NULL, 'success', NULL, NULL, 'acme', NULL, NULL, 'request-145', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.agent_runs VALUES ('2026-03-10 09:00:00+00', true, true, 1423, 1500, 0, 1, 0, 2, 1000, 200, 10500000, 0, DEFAULT, 'run-146', NULL, 'invoke_workflow', 'triage', 'triage', NULL, 'success', NULL, NULL, 'acme', NULL, NULL, 'request-146', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.agent_runs VALUES ('2026-03-10 08:00:00+00', true, true, 1423, 1500, 0, 1, 0, 2, 1000, 200, 10500000, 0, DEFAULT, 'run-147', NULL, 'invoke_workflow', 'triage', 'triage', NULL, 'success', NULL, NULL, 'acme', NULL, NULL, 'request-147', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.agent_runs VALUES ('2026-03-10 07:00:00+00', true, true, 1423, 1500, 0, 1, 0, 2, 1000, 200, 10500000, 0, DEFAULT, 'run-148', NULL, 'invoke_workflow', 'triage', 'triage', NULL, 'success', NULL, NULL, 'acme', NULL, NULL, 'request-148', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.alembic_version VALUES ('0002');
INSERT INTO public.budget_ledger VALUES ('team', '', '2026-03-10 00:00:00+00', 'day', 'usd', 0, 0, 250000000, 0, 0, 0, '2026-03-10 12:00:00+00');
INSERT INTO public.budget_reservations VALUES ('a/team', 'team', '', '2026-03-10 00:00:00+00', 250000000, 0, '2026-03-10 12:00:00+00', '2026-03-10 13:00:00+00');
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 10:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-114', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-114', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 09:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-115', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-115', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 08:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-116', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-116', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 07:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-117', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-117', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 06:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-118', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-118', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 05:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-119', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-119', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 04:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-120', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-120', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 03:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-121', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-121', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 02:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-122', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-122', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 01:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-123', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-123', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 00:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-124', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-124', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 23:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-125', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-125', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 22:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-126', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-126', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 21:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-127', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-127', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 20:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-128', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-128', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 19:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-129', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-129', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 18:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-130', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-130', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 17:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-131', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-131', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 16:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-132', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-132', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 15:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-133', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-133', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 14:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-134', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-134', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 13:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-135', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-135', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 12:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-136', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-136', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 11:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-137', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-137', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 10:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-138', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-138', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 09:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-139', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-139', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 08:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-140', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-140', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 07:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-141', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-141', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 06:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-142', 'umbrella', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-142', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-09 05:55:00+00', true, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, 250000000, 0, DEFAULT, 500, NULL, 'call-143', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-143', NULL, 'planner', 'triage', 'price_table', 'success', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.llm_call_telemetry VALUES (1, '2026-03-10 11:00:00+00', false, NULL, false, 1313, NULL, 1000, 200, 50, 100, NULL, 1200, NULL, NULL, DEFAULT, 500, NULL, 'call-150', 'acme', 'ann', NULL, NULL, 'openai', 'gpt-4o-2024-08-06', 'plan', NULL, NULL, NULL, NULL, NULL, 'request-150', NULL, 'planner', 'triage', 'price_table', 'error', 'openai.RateLimitError', 'rate_limit', NULL, NULL, NULL);
INSERT INTO public.llm_series VALUES (1, 'openai', 'gpt-4o-2024-08-06', 'planner');
INSERT INTO public.llm_summary_work VALUES (65, 'hourly', '2026-03-10 11:00:00+00', false);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 05:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 06:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 07:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 08:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 09:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 10:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 11:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 12:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 13:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 14:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 15:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 16:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 17:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 18:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 19:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 20:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 21:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 22:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-09 23:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 00:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 01:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 02:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 03:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 04:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 05:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 06:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 07:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 08:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 09:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('hourly', '2026-03-10 10:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 1, 1, 0, 1, 0, 1000, 200, 50, 100, 0, 250000000, 0, DEFAULT, 500, '\x2105', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('daily', '2026-03-09 00:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 10, 10, 0, 10, 0, 10000, 2000, 500, 1000, 0, 2500000000, 0, DEFAULT, 5000, '\x2105210521152115', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('daily', '2026-03-09 00:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 9, 9, 0, 9, 0, 9000, 1800, 450, 900, 0, 2250000000, 0, DEFAULT, 4500, '\x210521152115', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('daily', '2026-03-10 00:00:00+00', 'acme', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 5, 5, 0, 5, 0, 5000, 1000, 250, 500, 0, 1250000000, 0, DEFAULT, 2500, '\x21052115', NULL, NULL);
INSERT INTO public.llm_usage_summaries VALUES ('daily', '2026-03-10 00:00:00+00', 'umbrella', 'openai', 'gpt-4o-2024-08-06', 'planner', 'plan', 6, 6, 0, 6, 0, 6000, 1200, 300, 600, 0, 1500000000, 0, DEFAULT, 3000, '\x210521052115', NULL, NULL);
INSERT INTO public.policy_violations VALUES ('2026-03-10 10:00:00+00', '34813d52497a40d42a90ce5424ec43fa', 'no-secrets', 'medium', 'blocked', NULL, NULL, NULL, NULL, 'acme', NULL);
INSERT INTO public.user_feedback VALUES ('2026-03-10 10:00:00+00', true, false, 'b4b6d21aae3aa0c7fdedabdaecb51c9f', 'request-149', 'acme', NULL, NULL, NULL, NULL, NULL, NULL);
SELECT pg_catalog.setval('public.llm_series_series_id_seq', 1, true);
SELECT pg_catalog.setval('public.llm_summary_work_work_id_seq', 65, true);
ALTER TABLE ONLY public.agent_runs
    ADD CONSTRAINT agent_runs_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.budget_ledger
    ADD CONSTRAINT budget_ledger_pkey PRIMARY KEY (budget, scope_key, period_start);
ALTER TABLE ONLY public.budget_reservations
    ADD CONSTRAINT budget_reservations_pkey PRIMARY KEY (reservation_id);
ALTER TABLE ONLY public.budget_writers
    ADD CONSTRAINT budget_writers_pkey PRIMARY KEY (writer);
ALTER TABLE ONLY public.llm_call_telemetry
    ADD CONSTRAINT llm_call_telemetry_pkey PRIMARY KEY (telemetry_id);
ALTER TABLE ONLY public.llm_series
    ADD CONSTRAINT llm_series_pkey PRIMARY KEY (series_id);
ALTER TABLE ONLY public.llm_summary_work
    ADD CONSTRAINT llm_summary_work_pkey PRIMARY KEY (work_id);
ALTER TABLE ONLY public.llm_usage_summaries
    ADD CONSTRAINT llm_usage_summaries_pkey PRIMARY KEY (period, period_start, organization_id, provider, model_name, agent, prompt_name);
ALTER TABLE ONLY public.policy_violations
    ADD CONSTRAINT policy_violations_pkey PRIMARY KEY (violation_id);
ALTER TABLE ONLY public.store_state
    ADD CONSTRAINT store_state_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.user_feedback
    ADD CONSTRAINT user_feedback_pkey PRIMARY KEY (feedback_id);
CREATE INDEX ix_agent_runs_request ON public.agent_runs USING btree (request_id);
CREATE INDEX ix_agent_runs_tasks ON public.agent_runs USING btree (created_at) WHERE is_task;
CREATE INDEX ix_agent_runs_tenant_time ON public.agent_runs USING btree (organization_id, created_at);
CREATE INDEX ix_agent_runs_time ON public.agent_runs USING btree (created_at);
CREATE INDEX ix_budget_reservations_budget ON public.budget_reservations USING btree (budget, scope_key, period_start);
CREATE INDEX ix_budget_reservations_expiry ON public.budget_reservations USING btree (expires_at);
CREATE INDEX ix_llm_call_telemetry_failures ON public.llm_call_telemetry USING btree (created_at) WHERE (NOT success);
CREATE INDEX ix_llm_call_telemetry_provider_time ON public.llm_call_telemetry USING btree (provider, created_at);
CREATE INDEX ix_llm_call_telemetry_request ON public.llm_call_telemetry USING btree (request_id);
CREATE INDEX ix_llm_call_telemetry_tenant_time ON public.llm_call_telemetry USING btree (organization_id, created_at);
CREATE INDEX ix_llm_call_telemetry_time ON public.llm_call_telemetry USING btree (created_at);
CREATE INDEX ix_llm_summary_work ON public.llm_summary_work USING btree (period, period_start);
CREATE INDEX ix_llm_usage_summaries_tenant_time ON public.llm_usage_summaries USING btree (organization_id, period, period_start);
CREATE INDEX ix_policy_violations_time ON public.policy_violations USING btree (created_at);
CREATE INDEX ix_user_feedback_request ON public.user_feedback USING btree (request_id);
CREATE INDEX ix_user_feedback_time ON public.user_feedback USING btree (created_at);
CREATE UNIQUE INDEX ux_llm_series ON public.llm_series USING btree (provider, model_name, agent);
