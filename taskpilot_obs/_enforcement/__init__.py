"""Policies, guardrails and limits, asked before and after a run."""
