"""The `metadata` and `tags` of a run's configuration, as attributes of spans and audit records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from taskpilot_obs.integration import ActiveInvocation

METADATA: Final = "langchain.metadata."
"""Prefix of each key of `metadata`, so that it cannot be taken for an attribute of the application."""
TAGS: Final = "langchain.tags"
"""All tags, with commas between: an attribute is one plain value."""
_FRAMEWORKS_OWN: Final = ("langgraph_", "ls_", "lc_", "checkpoint_", "__", "lc:")
_FRAMEWORKS_KEYS: Final = frozenset({"thread_id", "assistant_id", "graph_id", "run_id", "revision_id", "versions"})
_FRAMEWORKS_TAGS: Final = ("graph:step:", "seq:step:", "map:key:", "condition:", "branch:", "langsmith:", "langchain:")


def attributes_of(metadata: Mapping[Any, Any] | None, tags: Iterable[Any] | None) -> dict[str, Any]:
    """The attributes; nothing of what LangChain and LangGraph put there themselves.

    Args:
        metadata: of the run's configuration.
        tags: of the run's configuration.
    """
    found: dict[str, Any] = {
        METADATA + key: value
        for key, value in (metadata or {}).items()
        if isinstance(key, str) and key not in _FRAMEWORKS_KEYS and not key.startswith(_FRAMEWORKS_OWN)
    }
    own_tags = [tag for tag in tags or () if isinstance(tag, str) and not tag.startswith(_FRAMEWORKS_TAGS)]
    if own_tags:
        found[TAGS] = ",".join(own_tags)
    return found


def note_config(run: ActiveInvocation | None, metadata: Mapping[Any, Any] | None, tags: Iterable[Any] | None) -> None:
    """Set metadata and tags as attributes of a run."""
    if run is None or not (metadata or tags):
        return
    for key, value in attributes_of(metadata, tags).items():
        run.set_attribute(key, value)
