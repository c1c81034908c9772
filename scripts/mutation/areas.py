"""The areas of modules that are changed, and the tests that have to notice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent
LIBRARY: Final = ROOT / "taskpilot_obs"


class Area(NamedTuple):
    """Modules that are changed."""

    modules: tuple[str, ...]
    """Patterns below `taskpilot_obs/`."""

    def paths(self) -> list[Path]:
        """The modules, in the order of their names."""
        return sorted(path for each in self.modules for path in LIBRARY.glob(each))


AREAS: Final[Mapping[str, Area]] = {
    "usage values": Area(("usage/values.py", "usage/read.py", "usage/fields.py")),
    "usage shapes": Area(("usage/shapes/*.py", "usage/envelopes.py")),
    "usage streams": Area(("usage/streams.py", "usage/failures.py", "usage/content.py")),
    "pricing": Area(("pricing/*.py",)),
    "safety patterns": Area(
        ("safety/personal.py", "safety/credentials.py", "safety/assignments.py", "safety/secret_keys.py"),
    ),
    "safety": Area(
        ("safety/redaction.py", "safety/policies.py", "safety/checks.py", "safety/words.py", "safety/texts.py"),
    ),
    "audit chain": Area(("audit/chain.py", "audit/encoding.py", "audit/verify.py")),
    "audit files": Area(("audit/writer.py", "audit/files.py", "audit/manifest.py")),
    "budgets": Area(
        ("budgets/ledger.py", "budgets/model.py", "budgets/estimates.py", "budgets/outbox.py", "budgets/alerts.py"),
    ),
    "budget control": Area(("budgets/admission.py", "budgets/settlement.py", "budgets/reservation.py")),
    "recording values": Area(
        ("_recording/statuses.py", "_recording/rollups.py", "_recording/snapshots.py", "_recording/context.py"),
    ),
    "recording core": Area(("_recording/invocation.py", "_recording/llm_invocation.py", "_recording/recorder.py")),
    "pipeline": Area(("_pipeline/*.py",)),
}
TESTS: Final = (
    *("test_usage", "test_usage_modes", "test_usage_properties", "test_usage_providers", "test_usage_recorded"),
    *("test_usage_streams", "test_framework_responses", "test_sdk_streams", "test_llm_errors", "test_providers"),
    *("test_pricing", "test_pricing_cards", "test_cost_of", "test_billing", "test_cli_price"),
    *("safety/test_checks", "safety/test_gate_texts", "safety/test_guardrails", "safety/test_policies"),
    *("safety/test_captured_content", "safety/test_redaction", "safety/test_redaction_patterns"),
    *("safety/test_secret_renderings", "safety/test_spoken_secrets"),
    *("test_audit_verify", "test_audit_rows", "test_audit_strange_files", "exporters/test_audit_log"),
    *("test_budgets", "test_budgets_properties", "test_budgets_seams", "test_budgets_interruptions"),
    *("test_statuses", "test_recorder", "test_context", "test_decorators", "test_llm_invocation"),
    *("test_awkward_calls", "test_awkward_input", "test_tracing", "test_integration_door", "test_after_the_fact"),
    *("test_identity", "test_python_expectations", "test_hooks", "test_testing", "test_guarded"),
    *("test_pipeline", "test_delivery", "exporters/test_json_logging", "exporters/test_prometheus"),
    *("../integrations/langchain/tests/test_langchain_usage", "../integrations/langchain/tests/test_langchain_handler"),
)
"""Files below `tests/`: those that run in the process of the test, and fast."""

SAMPLE: Final = 60
"""Changes tried of each area, unless SAMPLE states another number or `all`."""
SEED: Final = 20
"""Chooses them."""


def test_files() -> list[str]:
    """The files of the tests, as pytest names them when it is started in the checkout."""
    return [str((ROOT / "tests" / f"{each}.py").resolve().relative_to(ROOT)) for each in TESTS]


def every_path() -> list[Path]:
    """The modules of all areas."""
    return [path for area in AREAS.values() for path in area.paths()]
