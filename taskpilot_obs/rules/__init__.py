"""The alert and recording rules that Prometheus loads, rendered from one settings file.

It serves `taskpilot-obs rules render` and the tests. In the library only the golden signals of a Prometheus server
import it, to share its PromQL expressions (`promql`).
"""
