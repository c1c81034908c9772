"""taskpilot-obs for one client of Anthropic's SDK: each model call recorded, and asked about before."""

from taskpilot_obs_anthropic.clients import wrap

__all__ = ["wrap"]
