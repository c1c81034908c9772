"""Writes the Helm chart from the rules, dashboards and Kubernetes objects that the library ships."""
