"""The former name of `taskpilot_obs.audit.manifest`, kept for imports of `Anchor`."""

from taskpilot_obs.audit.manifest import Anchor

__all__ = ["Anchor"]
