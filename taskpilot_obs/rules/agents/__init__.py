"""Rules about agents: failing, slow, stuck, silent, looping.

`thresholds` has the settings, `rules` the recording rules and the alerts, `cases` what the alerts must do.
"""
