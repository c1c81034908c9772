"""Which model, prompt or provider is better, what it would have cost, and how certain that is."""

from taskpilot_obs.compare.experiment import Experiment

__all__ = ["Experiment"]
