"""Which modules are public."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = {
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: (taskpilot_obs[.\w]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
}
"""The modules that the API reference documents. Adding a page there makes a module public."""
ALSO_PUBLIC = {
    "taskpilot_obs.audit.manifest",
    "taskpilot_obs.budgets.reservation",
    "taskpilot_obs.config",
    "taskpilot_obs.exporters.json_logging",
    "taskpilot_obs.genai_dialects",
    "taskpilot_obs.golden_signals.http",
    "taskpilot_obs.log_context",
    "taskpilot_obs.providers.names",
    "taskpilot_obs.server",
    "taskpilot_obs.usage",
}
"""Modules that integrations, examples or pages name, and that have no page of the reference yet."""
INTEGRATIONS = {path.parent.name for path in ROOT.glob("integrations/*/taskpilot_obs_*/__init__.py")}
PUBLIC = sorted(REFERENCE | ALSO_PUBLIC | INTEGRATIONS)
