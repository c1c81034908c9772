"""The alerts as a table of Markdown, made from the rules: what `docs/alerts.md` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from taskpilot_obs.rules.folders import folders
from taskpilot_obs.rules.model import Alert, RuleFolder
from taskpilot_obs.rules.settings import RuleSettings

BEGIN: Final = "<!-- begin: taskpilot-obs rules list -->\n"
END: Final = "<!-- end: taskpilot-obs rules list -->\n"
_RUNBOOKS: Final = "../observability/prometheus/rules"
_CHOICE: Final = re.compile(r"{{ with (\$labels[.]\w+) }}(.*?){{ else }}(.*?){{ end }}")
_VALUE: Final = re.compile(r"{{[^{}]*\$value[^{}]*}}")
_LABEL: Final = re.compile(r"{{ \$labels[.](\w+) }}")


def alerts_table(settings: RuleSettings) -> str:
    """One row an alert: its name and runbook, severity, how long its condition must last, and what it says."""
    rows = (_row(folder, alert) for folder in folders(settings) for alert in folder.alerts)
    return "".join(f"{row}\n" for row in ("| alert | severity | lasts | says |", "| --- | --- | --- | --- |", *rows))


def with_table(page: str, settings: RuleSettings) -> str:
    """A page of Markdown with the table between its two marks.

    Args:
        page: text that holds both marks.
        settings: what the rules are rendered from.

    Raises:
        ValueError: a mark is missing.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN.strip()} or {END.strip()}")
    return head + BEGIN + alerts_table(settings) + END + tail


def _row(folder: RuleFolder, alert: Alert) -> str:
    link = f"[{alert.name}]({_RUNBOOKS}/{folder.name}/runbook.md#{alert.name.lower()})"
    return "| " + " | ".join((link, alert.severity, alert.wait or "at once", "".join(_said(alert.summary)))) + " |"


def _said(summary: str) -> Iterator[str]:
    """A summary with `N` for its figure and the names of labels for their values."""
    text = _CHOICE.sub(lambda match: match[2].replace("{{ . }}", match[1].partition(".")[2].upper()), summary)
    text = _LABEL.sub(lambda match: match[1].upper(), _VALUE.sub("N", text))
    yield text.replace("|", "\\|")
