"""From the start of a run to the frozen record of it."""
