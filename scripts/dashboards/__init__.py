"""Builds the Grafana dashboards in `observability/grafana/dashboards` from `taskpilot_obs.semconv`.

`python -m scripts.dashboards build` writes the committed files; nothing here is part of the installed package.
"""
