"""`python -m scripts.chart [FOLDER]` writes the Helm chart; by default observability/helm/taskpilot-obs."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.chart.files import CHART, write

if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else CHART)
