"""taskpilot-obs for one client of OpenAI's SDK: each model call recorded, asked about before, without OpenTelemetry."""

from taskpilot_obs_openai.clients import wrap

__all__ = ["wrap"]
