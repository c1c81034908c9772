"""A service that the demo observes: planner, reviewer and executor under load, without a key and without a network."""
