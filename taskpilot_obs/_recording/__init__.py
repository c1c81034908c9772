"""Runs, from their start to their frozen records."""
