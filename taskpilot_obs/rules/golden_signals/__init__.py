"""Rules about the five golden signals and their error budgets.

`thresholds` has the settings, `recordings` and `alerts` the rules, `cases` what the alerts must do.
"""
