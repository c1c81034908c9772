"""LLM calls as statistics see them: what the telemetry store and the window of a process share, without a database."""
