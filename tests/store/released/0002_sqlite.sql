BEGIN TRANSACTION;
CREATE TABLE agent_runs (
	created_at BIGINT NOT NULL, 
	is_task BOOLEAN NOT NULL, 
	success BOOLEAN, 
	duration_bin SMALLINT NOT NULL, 
	duration_ms FLOAT NOT NULL, 
	violations INTEGER NOT NULL, 
	llm_calls INTEGER NOT NULL, 
	unpriced_calls INTEGER NOT NULL, 
	tool_calls INTEGER NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_nano BIGINT, 
	cost_rest SMALLINT, 
	cost NUMERIC(24, 12) GENERATED ALWAYS AS (cost_nano * 0.000000001 + cost_rest * 0.000000000001) VIRTUAL, 
	run_id TEXT NOT NULL, 
	parent_id TEXT, 
	operation TEXT NOT NULL, 
	name TEXT NOT NULL, 
	workflow TEXT, 
	agent TEXT, 
	status TEXT NOT NULL, 
	error_type TEXT, 
	error_message TEXT, 
	organization_id TEXT, 
	user_id TEXT, 
	session_id TEXT, 
	request_id TEXT NOT NULL, 
	trace_id TEXT, 
	step_id TEXT, 
	task_id TEXT, 
	experiment TEXT, 
	variant TEXT, 
	PRIMARY KEY (run_id)
);
INSERT INTO "agent_runs" VALUES(1773140400000000,1,1,1423,1500.0,0,1,0,2,1000,200,10500000,0,'run-68',NULL,'invoke_workflow','triage','triage',NULL,'success',NULL,NULL,'acme',NULL,NULL,'request-68',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "agent_runs" VALUES(1773136800000000,1,1,1423,1500.0,0,1,0,2,1000,200,10500000,0,'run-69',NULL,'invoke_workflow','triage','triage',NULL,'success',NULL,NULL,'acme',NULL,NULL,'request-69',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "agent_runs" VALUES(1773133200000000,1,1,1423,1500.0,0,1,0,2,1000,200,10500000,0,'run-70',NULL,'invoke_workflow','triage','triage',NULL,'success',NULL,NULL,'acme',NULL,NULL,'request-70',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "agent_runs" VALUES(1773129600000000,1,1,1423,1500.0,0,1,0,2,1000,200,10500000,0,'run-71',NULL,'invoke_workflow','triage','triage',NULL,'success',NULL,NULL,'acme',NULL,NULL,'request-71',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "agent_runs" VALUES(1773126000000000,1,1,1423,1500.0,0,1,0,2,1000,200,10500000,0,'run-72',NULL,'invoke_workflow','triage','triage',NULL,'success',NULL,NULL,'acme',NULL,NULL,'request-72',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE budget_ledger (
	budget TEXT NOT NULL, 
	scope_key TEXT NOT NULL, 
	period_start BIGINT NOT NULL, 
	period TEXT NOT NULL, 
	unit TEXT NOT NULL, 
	spent_units BIGINT NOT NULL, 
	spent_rest BIGINT NOT NULL, 
	reserved_units BIGINT NOT NULL, 
	reserved_rest BIGINT NOT NULL, 
	refusals BIGINT NOT NULL, 
	alerted_permille INTEGER NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (budget, scope_key, period_start)
);
INSERT INTO "budget_ledger" VALUES('team','',1773100800000000,'day','usd',0,0,250000000,0,0,0,1773144000000000);
CREATE TABLE budget_reservations (
	reservation_id TEXT NOT NULL, 
	budget TEXT NOT NULL, 
	scope_key TEXT NOT NULL, 
	period_start BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	rest BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (reservation_id)
);
INSERT INTO "budget_reservations" VALUES('a/team','team','',1773100800000000,250000000,0,1773144000000000,1773147600000000);
CREATE TABLE budget_writers (
	writer TEXT NOT NULL, 
	batch BIGINT NOT NULL, 
	crossed TEXT, 
	booked_at BIGINT NOT NULL, 
	PRIMARY KEY (writer)
);
CREATE TABLE llm_call_telemetry (
	series_id INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	success BOOLEAN, 
	cached BOOLEAN, 
	streaming BOOLEAN NOT NULL, 
	latency_bin SMALLINT NOT NULL, 
	ttft_bin SMALLINT, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	reasoning_tokens BIGINT, 
	cached_tokens BIGINT, 
	cache_write_tokens BIGINT, 
	total_tokens BIGINT, 
	cost_nano BIGINT, 
	cost_rest SMALLINT, 
	cost NUMERIC(24, 12) GENERATED ALWAYS AS (cost_nano * 0.000000001 + cost_rest * 0.000000000001) VIRTUAL, 
	latency_ms FLOAT NOT NULL, 
	time_to_first_token_ms FLOAT, 
	telemetry_id TEXT NOT NULL, 
	organization_id TEXT, 
	user_id TEXT, 
	session_id TEXT, 
	llm_key TEXT, 
	provider TEXT, 
	model_name TEXT, 
	prompt_name TEXT, 
	step_id TEXT, 
	task_id TEXT, 
	workflow_run_id TEXT, 
	thought_id TEXT, 
	parent_id TEXT, 
	request_id TEXT NOT NULL, 
	trace_id TEXT, 
	agent TEXT, 
	workflow TEXT, 
	cost_source TEXT, 
	status TEXT NOT NULL, 
	error_type TEXT, 
	error_category TEXT, 
	error_message TEXT, 
	experiment TEXT, 
	variant TEXT, 
	PRIMARY KEY (telemetry_id)
);
INSERT INTO "llm_call_telemetry" VALUES(1,1773140100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-38','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-38',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773136500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-39','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-39',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773132900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-40','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-40',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773129300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-41','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-41',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773125700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-42','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-42',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773122100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-43','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-43',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773118500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-44','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-44',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773114900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-45','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-45',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773111300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-46','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-46',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773107700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-47','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-47',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773104100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-48','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-48',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773100500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-49','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-49',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773096900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-50','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-50',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773093300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-51','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-51',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773089700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-52','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-52',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773086100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-53','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-53',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773082500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-54','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-54',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773078900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-55','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-55',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773075300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-56','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-56',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773071700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-57','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-57',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773068100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-58','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-58',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773064500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-59','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-59',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773060900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-60','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-60',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773057300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-61','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-61',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773053700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-62','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-62',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773050100000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-63','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-63',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773046500000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-64','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-64',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773042900000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-65','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-65',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773039300000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-66','umbrella','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-66',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773035700000000,1,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,250000000,0,500.0,NULL,'call-67','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-67',NULL,'planner','triage','price_table','success',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "llm_call_telemetry" VALUES(1,1773140400000000,0,NULL,0,1313,NULL,1000,200,50,100,NULL,1200,NULL,NULL,500.0,NULL,'call-74','acme','ann',NULL,NULL,'openai','gpt-4o-2024-08-06','plan',NULL,NULL,NULL,NULL,NULL,'request-74',NULL,'planner','triage','price_table','error','openai.RateLimitError','rate_limit',NULL,NULL,NULL);
CREATE TABLE llm_series (
	series_id INTEGER NOT NULL, 
	provider TEXT NOT NULL, 
	model_name TEXT NOT NULL, 
	agent TEXT NOT NULL, 
	PRIMARY KEY (series_id)
);
INSERT INTO "llm_series" VALUES(1,'openai','gpt-4o-2024-08-06','planner');
CREATE TABLE llm_summary_work (
	work_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	period TEXT NOT NULL, 
	period_start BIGINT NOT NULL, 
	claimed BOOLEAN NOT NULL
);
INSERT INTO "llm_summary_work" VALUES(65,'hourly',1773140400000000,0);
CREATE TABLE llm_usage_summaries (
	period TEXT NOT NULL, 
	period_start BIGINT NOT NULL, 
	organization_id TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	model_name TEXT NOT NULL, 
	agent TEXT NOT NULL, 
	prompt_name TEXT NOT NULL, 
	requests BIGINT NOT NULL, 
	successes BIGINT NOT NULL, 
	failures BIGINT NOT NULL, 
	priced BIGINT NOT NULL, 
	cache_hits BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	cost_nano BIGINT NOT NULL, 
	cost_rest BIGINT NOT NULL, 
	cost NUMERIC(24, 12) GENERATED ALWAYS AS (cost_nano * 0.000000001 + cost_rest * 0.000000000001) VIRTUAL, 
	latency_total_ms FLOAT NOT NULL, 
	latency_sketch BLOB NOT NULL, 
	ttft_sketch BLOB, 
	errors TEXT, 
	PRIMARY KEY (period, period_start, organization_id, provider, model_name, agent, prompt_name)
);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773032400000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773036000000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773039600000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773043200000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773046800000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773050400000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773054000000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773057600000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773061200000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773064800000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773068400000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773072000000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773075600000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773079200000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773082800000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773086400000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773090000000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773093600000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773097200000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773100800000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773104400000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773108000000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773111600000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773115200000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773118800000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773122400000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773126000000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773129600000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773133200000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('hourly',1773136800000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',1,1,0,1,0,1000,200,50,100,0,250000000,0,500.0,X'2105',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('daily',1773014400000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',10,10,0,10,0,10000,2000,500,1000,0,2500000000,0,5000.0,X'2105210521152115',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('daily',1773014400000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',9,9,0,9,0,9000,1800,450,900,0,2250000000,0,4500.0,X'210521152115',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('daily',1773100800000000,'acme','openai','gpt-4o-2024-08-06','planner','plan',5,5,0,5,0,5000,1000,250,500,0,1250000000,0,2500.0,X'21052115',NULL,NULL);
INSERT INTO "llm_usage_summaries" VALUES('daily',1773100800000000,'umbrella','openai','gpt-4o-2024-08-06','planner','plan',6,6,0,6,0,6000,1200,300,600,0,1500000000,0,3000.0,X'210521052115',NULL,NULL);
CREATE TABLE policy_violations (
	created_at BIGINT NOT NULL, 
	violation_id TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	severity TEXT NOT NULL, 
	result TEXT NOT NULL, 
	request_id TEXT, 
	workflow TEXT, 
	agent TEXT, 
	tool TEXT, 
	organization_id TEXT, 
	user_id TEXT, 
	PRIMARY KEY (violation_id)
);
INSERT INTO "policy_violations" VALUES(1773136800000000,'56dbfeb2f2b726836a30cb87db88f50e','no-secrets','medium','blocked',NULL,NULL,NULL,NULL,'acme',NULL);
CREATE TABLE store_state (
	"key" TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY ("key")
);
CREATE TABLE user_feedback (
	created_at BIGINT NOT NULL, 
	correct BOOLEAN NOT NULL, 
	revision BOOLEAN NOT NULL, 
	feedback_id TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	organization_id TEXT, 
	user_id TEXT, 
	workflow TEXT, 
	agent TEXT, 
	prompt_name TEXT, 
	experiment TEXT, 
	variant TEXT, 
	PRIMARY KEY (feedback_id)
);
INSERT INTO "user_feedback" VALUES(1773136800000000,1,0,'c78270a4f2c2ab2ffafffc7c30e20109','request-73','acme',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE UNIQUE INDEX ux_llm_series ON llm_series (provider, model_name, agent);
CREATE INDEX ix_llm_call_telemetry_provider_time ON llm_call_telemetry (provider, created_at);
CREATE INDEX ix_llm_call_telemetry_request ON llm_call_telemetry (request_id);
CREATE INDEX ix_llm_call_telemetry_failures ON llm_call_telemetry (created_at) WHERE NOT success;
CREATE INDEX ix_llm_call_telemetry_time ON llm_call_telemetry (created_at);
CREATE INDEX ix_llm_call_telemetry_tenant_time ON llm_call_telemetry (organization_id, created_at);
CREATE INDEX ix_llm_call_telemetry_sums ON llm_call_telemetry (series_id, created_at, latency_bin, ttft_bin, success, cached, input_tokens, output_tokens, reasoning_tokens, cached_tokens, cache_write_tokens, cost_nano, cost_rest, latency_ms);
CREATE INDEX ix_agent_runs_tenant_time ON agent_runs (organization_id, created_at);
CREATE INDEX ix_agent_runs_time ON agent_runs (created_at);
CREATE INDEX ix_agent_runs_tasks ON agent_runs (created_at) WHERE is_task;
CREATE INDEX ix_agent_runs_request ON agent_runs (request_id);
CREATE INDEX ix_user_feedback_request ON user_feedback (request_id);
CREATE INDEX ix_user_feedback_time ON user_feedback (created_at);
CREATE INDEX ix_policy_violations_time ON policy_violations (created_at);
CREATE INDEX ix_llm_usage_summaries_tenant_time ON llm_usage_summaries (organization_id, period, period_start);
CREATE INDEX ix_llm_summary_work ON llm_summary_work (period, period_start);
CREATE INDEX ix_budget_reservations_budget ON budget_reservations (budget, scope_key, period_start);
CREATE INDEX ix_budget_reservations_expiry ON budget_reservations (expires_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('llm_summary_work',65);
COMMIT;
