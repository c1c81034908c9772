"""Rules about the health of the library and of its scraping.

`thresholds` has the settings, `rules` the recording rules and the alerts, `cases` what the alerts must do.
"""
