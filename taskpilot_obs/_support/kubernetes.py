"""The shipped rules, dashboards and routes as Kubernetes objects, for the Prometheus operator and Grafana's sidecar."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from taskpilot_obs._support.assets import RULES, observability_dir, write_readable
from taskpilot_obs.exceptions import ConfigurationError

Object = dict[str, Any]

SCRAPED: Final = {"taskpilot-obs/metrics": "true"}
"""The label of pods and services whose `/metrics` is scraped."""
PORT: Final = "metrics"
"""The name of the port that serves `/metrics`."""
_MANAGED: Final = {"app.kubernetes.io/name": "taskpilot-obs", "app.kubernetes.io/component": "observability"}
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"(.*)"')
_CAMEL: Final = re.compile(r"_([a-z])")


class Placement(NamedTuple):
    """The namespace and the labels of the generated objects.

    Args:
        namespace: the namespace of every object.
        labels: added to rules, monitors and routes, because an operator selects them by labels: the Helm chart
            kube-prometheus-stack selects `release: <its release>`.
    """

    namespace: str = "monitoring"
    labels: tuple[tuple[str, str], ...] = ()


def manifests(source: Path, placement: Placement) -> dict[str, Object]:
    """Build the objects, keyed by file name.

    Args:
        source: the shipped assets, or an exported copy with rules of its own.
        placement: where the objects go.

    Raises:
        ConfigurationError: PyYAML is missing, or the placement has a name that Kubernetes refuses.
    """
    _check_names(placement)
    objects = {
        **_rules(source, placement),
        "alertmanagerconfig.yaml": _routes(source, placement),
        "podmonitor.yaml": _monitor("PodMonitor", "podMetricsEndpoints", placement),
        "servicemonitor.yaml": _monitor("ServiceMonitor", "endpoints", placement),
        **_dashboards(source, placement),
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(objects),
    }
    return {**objects, "kustomization.yaml": kustomization}


def export_manifests(target: Path, placement: Placement, *, overwrite: bool = False) -> list[Path]:
    """Write the objects to a folder, one file each, with a kustomization that lists them.

    Args:
        target: the folder, which is created if missing.
        placement: where the objects go.
        overwrite: replace files that differ.

    Returns:
        The files that were written, in order.

    Raises:
        ConfigurationError: PyYAML is missing, the placement has a name that Kubernetes refuses, or a file differs and
            `overwrite` is false; then nothing is written.
        OSError: a file cannot be written.
    """
    texts = {target / name: _yaml(object_) for name, object_ in manifests(observability_dir(), placement).items()}
    changed = [path for path, text in texts.items() if path.exists() and path.read_text("utf-8") != text]
    if changed and not overwrite:
        raise ConfigurationError(
            f"{len(changed)} files in {target} differ ({changed[0]}): name another folder or overwrite"
        )
    for path, text in texts.items():
        write_readable(path, text)
    return sorted(texts)


def _object(api: str, kind: str, name: str, placement: Placement, **fields: Any) -> Object:
    labels = {**_MANAGED, **dict(placement.labels)}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": placement.namespace, "labels": labels},
        **fields,
    }


def _rules(source: Path, placement: Placement) -> dict[str, Object]:
    """One PrometheusRule for each folder of rules."""
    found: dict[str, Object] = {}
    for folder in sorted(path.parent for path in (source / RULES).glob("*/alerts.yml")):
        name = f"taskpilot-{folder.name.replace('_', '-')}"
        groups = [group for file in sorted(folder.glob("[ar]*.yml")) for group in _load(file)["groups"]]
        spec = {"groups": groups}
        found[f"prometheusrule-{name}.yaml"] = _object(
            "monitoring.coreos.com/v1", "PrometheusRule", name, placement, spec=spec
        )
    return found


def _monitor(kind: str, endpoints: str, placement: Placement) -> Object:
    """A PodMonitor or ServiceMonitor for pods or services with the label, in any namespace."""
    spec = {
        "jobLabel": "app.kubernetes.io/name",  # one job per service, because the rules group by `job`
        "namespaceSelector": {"any": True},
        "selector": {"matchLabels": SCRAPED},
        endpoints: [{"port": PORT, "path": "/metrics", "interval": "15s"}],
    }
    return _object("monitoring.coreos.com/v1", kind, "taskpilot", placement, spec=spec)


def _dashboards(source: Path, placement: Placement) -> dict[str, Object]:
    """One ConfigMap for each dashboard, with the label that Grafana's sidecar looks for."""
    found: dict[str, Object] = {}
    for file in sorted((source / "grafana" / "dashboards").glob("*.json")):
        object_ = _object("v1", "ConfigMap", f"dashboard-{file.stem}", placement)
        object_["metadata"]["labels"]["grafana_dashboard"] = "1"
        object_["metadata"]["annotations"] = {"grafana_folder": "taskpilot"}
        object_["data"] = {file.name: file.read_text(encoding="utf-8")}
        found[f"dashboard-{file.stem}.yaml"] = object_
    return found


def _routes(source: Path, placement: Placement) -> Object:
    """The shipped routes and inhibitions; receivers keep their names and get their addresses from the user."""
    config = _load(source / "alertmanager" / "alertmanager.yml")
    spec = {
        "route": _route(config["route"]),
        "inhibitRules": [
            {
                "sourceMatch": _matchers(rule["source_matchers"]),
                "targetMatch": _matchers(rule["target_matchers"]),
                "equal": rule["equal"],
            }
            for rule in config["inhibit_rules"]
        ],
        "receivers": [{"name": receiver["name"]} for receiver in config["receivers"]],
    }
    return _object("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig", "taskpilot", placement, spec=spec)


def _route(route: Object) -> Object:
    """One route in the operator's spelling."""
    found: Object = {}
    for key, value in route.items():
        name = _CAMEL.sub(lambda letter: letter[1].upper(), key)
        if key == "matchers":
            found[name] = _matchers(value)
        elif key == "routes":
            found[name] = [_route(each) for each in value]
        else:
            found[name] = value
    return found


def _matchers(texts: list[str]) -> list[Object]:
    """Alertmanager's matchers in the operator's form."""
    found = []
    for text in texts:
        matched = _MATCHER.fullmatch(text)
        if matched is None:
            raise ConfigurationError(f'matcher {text!r}: write NAME="VALUE", with =, !=, =~ or !~ between')
        name, kind, value = matched.groups()
        found.append({"name": name, "matchType": kind, "value": value})
    return found


def _check_names(placement: Placement) -> None:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", placement.namespace):
        raise ConfigurationError(
            f"namespace: given {placement.namespace!r}; allowed are lower-case letters, digits and -"
        )
    for name, value in placement.labels:
        if not re.fullmatch(r"[A-Za-z0-9./_-]+", name) or not re.fullmatch(r"[A-Za-z0-9._-]{0,63}", value):
            raise ConfigurationError(f"label: given {name}={value}; write NAME=VALUE as Kubernetes allows labels")


def _load(path: Path) -> Any:
    return _import_yaml().safe_load(path.read_text(encoding="utf-8"))


def _yaml(object_: Object) -> str:
    text = _import_yaml().safe_dump(object_, sort_keys=False, allow_unicode=True, width=1_000_000)
    return str(text)


def _import_yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError("Kubernetes manifests need PyYAML: pip install 'taskpilot-obs[rules]'") from error
    return yaml
