"""From the caller's thread to the exporters."""
