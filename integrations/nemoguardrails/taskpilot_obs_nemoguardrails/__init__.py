"""NeMo Guardrails as guardrails of taskpilot-obs."""

from taskpilot_obs_nemoguardrails.guardrail import NemoGuardrail, SyncNemoGuardrail

__all__ = ["NemoGuardrail", "SyncNemoGuardrail"]
