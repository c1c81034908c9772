"""taskpilot-obs for one client of Google's SDK: each model call recorded, and asked about before."""

from taskpilot_obs_google_genai.clients import wrap

__all__ = ["wrap"]
