"""Phrases that alerts share. Figures carry their unit: `85%`, `6.2 s`, `$0.63`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PERCENT: Final = "{{ $value | humanizePercentage }}"
SECONDS: Final = '{{ printf "%.1f" $value }} s'
USD: Final = '${{ printf "%.2f" $value }}'
TIMES: Final = '{{ printf "%.1f" $value }}'
WHOLE: Final = '{{ printf "%.0f" $value }}'

OF_JOB: Final = "{{ $labels.job }}"
TASK: Final = "{{ with $labels.workflow }}workflow {{ . }}{{ else }}all workflows{{ end }} of {{ $labels.job }}"
AGENT: Final = "Agent {{ $labels.agent }} of {{ $labels.job }}"
PROVIDER: Final = "{{ $labels.provider }} for {{ $labels.job }}"
MODEL: Final = "{{ $labels.model }} ({{ $labels.provider }}) for {{ $labels.job }}"


def naming(text: str, labels: Sequence[str]) -> str:
    """A text that names a job, with other labels of the target behind it wherever an alert has them.

    Args:
        text: of an annotation.
        labels: the kept labels besides `job`, such as a tenant's.
    """
    behind = "".join(f"{{{{ with $labels.{label} }}}}, {label} {{{{ . }}}}{{{{ end }}}}" for label in labels)
    return text.replace(OF_JOB, OF_JOB + behind) if OF_JOB in text else text + behind


def percent(share: float) -> str:
    """A threshold in percent."""
    return f"{share:.12g}%"


def usd(amount: float) -> str:
    """A threshold in USD."""
    return f"${amount:.2f}" if round(amount, 2) == amount else f"${amount:.12g}"


def evidence(windows: Sequence[str], min_events: int, what: str) -> str:
    """Which window a recent value covers."""
    if len(windows) == 1:
        return f"over {windows[0]} with at least {min_events} {what}"
    return f"over the shortest of {', '.join(windows)} with at least {min_events} {what}"
