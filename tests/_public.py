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
ALSO_PUBLIC = {"taskpilot_obs.log_context"}
"""A module without a page of its own: the page of `taskpilot_obs` has its one name."""
INTEGRATIONS = {path.parent.name for path in ROOT.glob("integrations/*/taskpilot_obs_*/__init__.py")}
PUBLIC = sorted(REFERENCE | ALSO_PUBLIC | INTEGRATIONS)
