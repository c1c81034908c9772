"""The alert and recording rules that Prometheus loads, rendered from one settings file.

The library itself never imports this package: it serves `taskpilot-obs rules render` and the tests.
"""
