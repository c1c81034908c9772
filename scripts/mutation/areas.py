"""The areas of modules that are changed, and the tests that have to notice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent
LIBRARY: Final = ROOT / "taskpilot_obs"


class Area(NamedTuple):
    """Modules that are changed, and the tests that have to notice."""

    modules: tuple[str, ...]
    """Patterns below `taskpilot_obs/`."""
    tests: tuple[str, ...]
    """Files below `tests/`, without their endings: those that run in the process of the test, and fast."""

    def paths(self) -> list[Path]:
        """The modules, in the order of their names."""
        return sorted(path for each in self.modules for path in LIBRARY.glob(each))


_USAGE: Final = (
    *(
        "test_usage",
        "test_usage_names",
        "test_usage_failures",
        "test_usage_modes",
        "test_usage_providers",
        "test_usage_streams",
        "test_usage_layers",
    ),
    *("test_usage_recorded", "test_usage_properties", "test_billing", "test_llm_invocation"),
)
_PRICING: Final = (
    "test_pricing",
    "test_pricing_names",
    "test_pricing_cards",
    "test_pricing_hours",
    "test_cost_of",
    "test_billing",
)
_SAFETY: Final = (
    *("safety/test_checks", "safety/test_guardrails", "safety/test_policies", "safety/test_gate_texts"),
    *("safety/test_redaction", "safety/test_secret_renderings", "safety/test_spoken_secrets"),
    *("safety/test_redaction_patterns", "safety/test_captured_content"),
)
_AUDIT: Final = (
    *(
        "test_audit_verify",
        "test_audit_rows",
        "test_audit_lines",
        "test_audit_strange_files",
        "test_audit_query",
        "test_audit_released",
    ),
    "exporters/test_audit_log",
)
_BUDGETS: Final = (
    *(
        "test_budgets",
        "test_budgets_seams",
        "test_budget_decisions",
        "test_budget_estimates",
        "test_budget_scopes",
        "test_budget_outbox",
        "test_budget_store_away",
    ),
    *("test_budgets_properties", "test_budgets_interruptions"),
    "../integrations/langchain/tests/test_langchain_budgets",
)
_RECORDING: Final = (
    *(
        "test_statuses",
        "test_rollups",
        "test_recorder",
        "test_context",
        "test_decorators",
        "test_llm_invocation",
        "test_identity",
    ),
    *(
        "test_tracing",
        "test_integration_door",
        "test_awkward_input",
        "test_awkward_calls",
        "test_after_the_fact",
        "test_after_the_end",
    ),
    *(
        "test_internal_errors",
        "test_framework_responses",
        "test_usage_failures",
        "test_billing",
        "test_sdk_streams",
        "test_interruptions",
    ),
    "safety/test_captured_content",
    "../integrations/langchain/tests/test_langchain_usage",
)
_PIPELINE: Final = (
    *("test_pipeline", "test_pipeline_failures", "test_pipeline_accounts", "test_delivery", "test_hooks"),
    "test_interruptions",
)

AREAS: Final[Mapping[str, Area]] = {
    "usage values": Area(("usage/values.py", "usage/read.py", "usage/fields.py"), _USAGE),
    "usage shapes": Area(("usage/shapes/*.py", "usage/envelopes.py"), _USAGE),
    "usage streams": Area(("usage/streams.py", "usage/failures.py", "usage/content.py"), _USAGE),
    "pricing": Area(("pricing/*.py",), _PRICING),
    "safety patterns": Area(
        ("safety/personal.py", "safety/credentials.py", "safety/assignments.py", "safety/secret_keys.py"), _SAFETY
    ),
    "safety": Area(
        ("safety/redaction.py", "safety/policies.py", "safety/checks.py", "safety/words.py", "safety/texts.py"),
        _SAFETY,
    ),
    "audit chain": Area(("audit/chain.py", "audit/encoding.py", "audit/verify.py"), _AUDIT),
    "audit files": Area(("audit/writer.py", "audit/files.py", "audit/manifest.py"), _AUDIT),
    "budgets": Area(
        ("budgets/ledger.py", "budgets/model.py", "budgets/estimates.py", "budgets/outbox.py", "budgets/alerts.py"),
        _BUDGETS,
    ),
    "budget control": Area(("budgets/admission.py", "budgets/settlement.py", "budgets/reservation.py"), _BUDGETS),
    "recording values": Area(
        ("_recording/statuses.py", "_recording/rollups.py", "_recording/snapshots.py", "_recording/context.py"),
        _RECORDING,
    ),
    "recording core": Area(
        ("_recording/invocation.py", "_recording/llm_invocation.py", "_recording/recorder.py"), _RECORDING
    ),
    "pipeline": Area(("_pipeline/*.py",), _PIPELINE),
}

SAMPLE: Final = 60
"""Changes tried of each area, unless SAMPLE states another number or `all`."""
SEED: Final = 20
"""Seed of the choice of changes."""


def test_files(names: Iterable[str]) -> list[str]:
    """The files of these areas' tests, as pytest names them when it is started in the checkout."""
    every = dict.fromkeys(test for name in names for test in AREAS[name].tests)
    return [str((ROOT / "tests" / f"{each}.py").resolve().relative_to(ROOT)) for each in every]


def every_path() -> list[Path]:
    """The modules of all areas."""
    return [path for area in AREAS.values() for path in area.paths()]
