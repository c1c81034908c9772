"""The alert and recording rules that Prometheus loads, rendered from one settings file.

It serves `taskpilot-obs rules render` and the tests; of the library itself only golden signals of a Prometheus server
import it, for its shapes of PromQL (`promql`), so that both ask the same.
"""
