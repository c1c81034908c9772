"""Policies, guardrails and redaction: what may be asked, said and done, and what of it may be stored."""
