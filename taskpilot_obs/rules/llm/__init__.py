"""Rules about LLM calls: errors, latency, caches, spend.

`thresholds` has the settings, `recordings` and `alerts` the rules, `cases` what the alerts must do.
"""
