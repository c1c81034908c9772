"""Rules about policies and guardrails.

`thresholds` has the settings, `rules` the recording rules and the alerts, `cases` what the alerts must do.
"""
