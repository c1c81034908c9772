"""Where finished records go: Prometheus, the audit log, the rolling window, a user's own object."""
