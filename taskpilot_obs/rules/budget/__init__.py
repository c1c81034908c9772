"""Rules about budgets of money and tokens.

`thresholds` has the settings, `rules` the recording rules and the alerts, `cases` what the alerts must do.
"""
