"""The audit log in Elasticsearch and Kibana: a type for each field, a data view, and the searches that are asked most.

Filebeat puts every field under `audit.`, because names such as `agent` and `service` are objects in Elastic's schema.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import yaml

from scripts.dashboards.model import Json
from taskpilot_obs.semconv import Event, Field, LogType

PREFIX = "audit"
DATA_VIEW = "taskpilot-audit"
INDEXES = "taskpilot-audit*"

_DATES = {Field.TIMESTAMP}
_REALS = {Field.COST, Field.DURATION_MS, Field.FIRST_TOKEN_MS}
_WHOLE = {
    Field.INPUT_LENGTH,
    Field.OUTPUT_LENGTH,
    Field.INPUT_TOKENS,
    Field.OUTPUT_TOKENS,
    Field.TOTAL_TOKENS,
    Field.LLM_CALLS,
    Field.UNPRICED_CALLS,
    Field.TOOL_CALLS,
    Field.SEQ,
}
_FLAGS = {Field.STREAMING, Field.CACHED, Field.CORRECT, Field.REVISION}
_TEXTS = {Field.MESSAGE, Field.ERROR_MESSAGE, Field.REASON, Field.INPUT, Field.OUTPUT}


class Search(NamedTuple):
    """One saved search: what it is called, what it asks (KQL), and which fields it shows."""

    slug: str
    title: str
    description: str
    query: str
    columns: tuple[str, ...]


def path(field: str) -> str:
    """A field as Elasticsearch knows it."""
    return f"{PREFIX}.{field}"


_WHO = (Field.EVENT, Field.WORKFLOW, Field.AGENT, Field.REQUEST_ID)
_CALL = (Field.MODEL, Field.PROVIDER, Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.COST, Field.DURATION_MS)

SEARCHES = (
    Search(
        "all",
        "Audit: everything",
        "Every record, newest first. Add a filter on audit.request_id to follow one request.",
        "",
        (Field.LOG_TYPE, *_WHO, Field.STATUS, Field.DURATION_MS, Field.MESSAGE),
    ),
    Search(
        "failures",
        "Audit: what failed",
        "Runs and calls that ended as error, timeout or blocked.",
        f'{path(Field.LOG_TYPE)} : "{LogType.ERROR}"',
        (*_WHO, Field.TOOL, Field.MODEL, Field.STATUS, Field.ERROR_TYPE, Field.DURATION_MS, Field.TRACE_ID),
    ),
    Search(
        "llm-calls",
        "Audit: LLM calls and their cost",
        "One line a call. Only these may be summed: the cost on a run is the roll-up of its calls.",
        f'{path(Field.EVENT)} : "{Event.LLM_CALL}"',
        (Field.AGENT, *_CALL, Field.STATUS, Field.REQUEST_ID, Field.TRACE_ID),
    ),
    Search(
        "decisions",
        "Audit: decisions of policies, guardrails and budgets",
        "Who decided what, and why.",
        f'{path(Field.LOG_TYPE)} : "{LogType.DECISION}"',
        (
            *_WHO,
            Field.POLICY,
            Field.GUARDRAIL,
            Field.BUDGET,
            Field.DECISION,
            Field.RESULT,
            Field.SEVERITY,
            Field.REASON,
        ),
    ),
)


def audit_fields() -> list[str]:
    """Every field of the audit log."""
    return [value for name, value in vars(Field).items() if name.isupper()]


def fields_yml() -> str:
    """The field types, in the format from which Filebeat makes its index template."""
    fields = [{"name": name, **_type(name)} for name in audit_fields()]
    group = {"name": PREFIX, "type": "group", "fields": fields}
    key = {
        "key": "taskpilot",
        "title": "taskpilot audit log",
        "description": "Fields of the audit log.",
        "fields": [group],
    }
    heading = "# Written by `python -m scripts.dashboards build` from the audit fields of the library.\n"
    return heading + yaml.safe_dump([key], sort_keys=False, width=120)


def _type(name: str) -> Json:
    if name == Field.ATTRIBUTES:
        # Whatever the application puts there: one field for all, so that its keys cannot fill up the mapping.
        return {"type": "flattened"}
    for names, kind in ((_DATES, "date"), (_REALS, "double"), (_WHOLE, "long"), (_FLAGS, "boolean"), (_TEXTS, "text")):
        if name in names:
            return {"type": kind}
    return {"type": "keyword"}


def saved_objects() -> str:
    """The data view and the searches, as Kibana imports them: one JSON object a line."""
    view: Json = {
        "attributes": {"name": "taskpilot audit log", "timeFieldName": "@timestamp", "title": INDEXES},
        "coreMigrationVersion": "8.8.0",
        "id": DATA_VIEW,
        "references": [],
        "type": "index-pattern",
        "typeMigrationVersion": "8.0.0",
    }
    objects = [view, *(_search(search) for search in SEARCHES)]
    return "".join(json.dumps(one, sort_keys=True) + "\n" for one in objects)


def _search(search: Search) -> Json:
    reference = "kibanaSavedObjectMeta.searchSourceJSON.index"
    source = {"filter": [], "indexRefName": reference, "query": {"language": "kuery", "query": search.query}}
    return {
        "attributes": {
            "columns": [path(column) for column in search.columns],
            "description": search.description,
            "grid": {},
            "hideChart": False,
            "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source, sort_keys=True)},
            "sort": [["@timestamp", "desc"]],
            "title": search.title,
        },
        "coreMigrationVersion": "8.8.0",
        "id": f"{DATA_VIEW}-{search.slug}",
        "references": [{"id": DATA_VIEW, "name": reference, "type": "index-pattern"}],
        "type": "search",
        "typeMigrationVersion": "7.9.3",
    }
