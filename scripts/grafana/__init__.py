"""Dashboards drawn by Grafana's own components, from npm, in a headless Chromium; no Grafana server is needed."""
