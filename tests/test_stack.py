"""The stack beside the application: what can be checked of its configuration without starting its servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from base64 import b64encode
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from _http import answering
from _schemas import schema_file
from _servers import require_binary

from taskpilot_obs.audit.rows import AuditLines
from taskpilot_obs.records import Invocation, Operation, Status
from taskpilot_obs.semconv import METRICS, Attr, Event, Field, Kind, LogType
from taskpilot_obs.usage import Usage

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "observability"


def _yaml(path: str) -> Any:
    return yaml.safe_load((STACK / path).read_text(encoding="utf-8"))


COMPOSE = _yaml("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"elasticsearch-setup", "kibana-searches"}
"""Services that run to an end; they have nothing to check the health of."""
WITHOUT_SHELL = {"otel-collector"}
"""Images that hold one program and nothing that could ask for its health; it is published on the loopback instead."""

# compose.yaml


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    """Every image names one released version."""
    assert re.fullmatch(r"[a-z./-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_the_loopback(name: str) -> None:
    """Nothing listens on the network of the machine."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_no_two_services_share_a_port() -> None:
    """All profiles can run at once."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


def _binds() -> list[tuple[str, str]]:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    return [tuple(volume.removesuffix(":ro").rsplit(":", 1)) for volume in volumes]


def test_every_mounted_path_exists() -> None:
    """What the stack mounts is shipped beside it; volumes are declared; one folder is the user's own."""
    for source, _ in _binds():
        if source.startswith("./"):
            assert (STACK / source).exists(), source
        elif source.startswith("$"):
            assert source == "${TASKPILOT_AUDIT_DIR:-./audit}"
        else:
            assert source in COMPOSE["volumes"], source
    assert set(COMPOSE["volumes"]) == {source for source, _ in _binds() if source[0] not in "./$"}


def test_configuration_is_mounted_read_only() -> None:
    """No container can change what is shipped, nor the audit log."""
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert all(volume.endswith(":ro") for volume in volumes if volume[0] in "./$")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_services_that_its_profile_starts(name: str) -> None:
    """What is waited for exists, is started by the same command, and can become what is waited for."""
    profiles = set(SERVICES[name].get("profiles", []))
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert set(SERVICES[other].get("profiles", profiles)) == profiles
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]
        else:
            assert (other in ONCE, how["condition"]) == (True, "service_completed_successfully")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE - WITHOUT_SHELL))
def test_health_is_checked_within_the_container(name: str) -> None:
    """Every service that runs on says whether it works, and is started again when it ends."""
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_default_profile_and_what_the_others_add() -> None:
    """Without a profile there are Prometheus, Alertmanager and Grafana."""
    by_profile: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service.get("profiles", ["default"]):
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "default": {"prometheus", "alertmanager", "grafana"},
        "traces": {"otel-collector", "jaeger"},
        "logs": {"elasticsearch", "elasticsearch-setup", "kibana", "kibana-searches", "filebeat"},
    }


def test_no_password_stands_in_the_files() -> None:
    """Passwords come from the environment; none has a default."""
    for service in SERVICES.values():
        for key, value in (service.get("environment") or {}).items():
            if "PASSWORD" in key:
                assert value is None or re.match(r"\$\{\w+(:\?|-\})", value), key
    example = (STACK / "env.example").read_text(encoding="utf-8")
    settings = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    named = {"COMPOSE_PROJECT_NAME": "taskpilot-observability"}
    assert settings == named | {name: "" for name in settings if name.endswith("_PASSWORD")}
    optional = set(re.findall(r"^#([A-Z_]+)=", example, flags=re.MULTILINE))
    assert (set(settings) - set(named)) | optional == _environment_names()


def _environment_names() -> set[str]:
    """Variables that the compose file takes from the environment, by substitution or by passing them on."""
    lines = (STACK / "compose.yaml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    passed = {
        key for service in SERVICES.values() for key, value in (service.get("environment") or {}).items() if not value
    }
    return set(re.findall(r"(?<!\$)\$\{([A-Z_]+)[:-]", text)) | passed


def test_a_missing_password_of_a_profile_that_is_off_disturbs_nobody() -> None:
    """Compose demands `${VAR:?}` for every profile at once, so only the default services use it."""
    for name, service in SERVICES.items():
        if service.get("profiles"):
            assert not re.search(r"(?<!\$)\$\{\w+:\?", json.dumps(service)), name
    assert ":?set GRAFANA_ADMIN_PASSWORD" in SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]


def test_a_missing_password_stops_elasticsearch_with_its_name() -> None:
    """Elasticsearch ends at once, with the name of the variable, where its password is not set."""
    shell, flag, script = SERVICES["elasticsearch"]["entrypoint"]
    guard = script.replace("$$", "$").split("&&")[0]
    environment = {key: value for key, value in os.environ.items() if key != "ELASTIC_PASSWORD"}
    missing = subprocess.run([shell, flag, guard], env=environment, capture_output=True, text=True, check=False)
    assert missing.returncode != 0
    assert "set ELASTIC_PASSWORD in .env" in missing.stderr
    given = subprocess.run([shell, flag, guard], env=environment | {"ELASTIC_PASSWORD": "x"}, check=False)
    assert given.returncode == 0


PASSWORDS = {"ELASTIC_PASSWORD": 'el"astic', "KIBANA_PASSWORD": "it's $5 & more", "FILEBEAT_PASSWORD": "beat"}


def _set_up(url: str, **changed: str | None) -> subprocess.CompletedProcess[str]:
    """Run the script of the service `elasticsearch-setup` against this server."""
    given: dict[str, str | None] = {**PASSWORDS, "ELASTICSEARCH_URL": url, **changed}
    environment = os.environ | {name: value for name, value in given.items() if value is not None}
    script = STACK / "elasticsearch" / "setup.sh"
    return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)


def test_the_set_up_makes_users_with_few_rights_and_a_retention() -> None:
    """Kibana's user gets its password, Filebeat's may only add to audit indices, and these end at the given age."""
    asked: dict[str, tuple[str, Any, str | None]] = {}

    def reply(request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        asked[request.path] = (request.command, body, request.headers["Authorization"])
        return 200, "application/json", b"{}"

    with answering(reply) as url:
        done = _set_up(url, AUDIT_RETENTION_DAYS="90")
    assert (done.returncode, done.stderr) == (0, "")
    administrator = "Basic " + b64encode(b'elastic:el"astic').decode()
    assert {authorization for _, _, authorization in asked.values()} == {administrator}
    assert asked["/_security/user/kibana_system/_password"][:2] == ("POST", {"password": "it's $5 & more"})
    policy = FILEBEAT["setup.template"]["settings"]["index.lifecycle.name"]
    phases = asked[f"/_ilm/policy/{policy}"][1]["policy"]["phases"]
    assert phases["delete"] == {"min_age": "90d", "actions": {"delete": {}}}
    user = asked[f"/_security/user/{FILEBEAT['output.elasticsearch']['username']}"][1]
    assert user["password"] == PASSWORDS["FILEBEAT_PASSWORD"]
    (role,) = user["roles"]
    (rights,) = asked[f"/_security/role/{role}"][1]["indices"]
    assert rights["names"] == [FILEBEAT["setup.template"]["pattern"]]
    assert set(rights["privileges"]) == {"create_doc", "create_index", "view_index_metadata"}


def test_a_refusal_of_elasticsearch_ends_the_set_up() -> None:
    """An error of the server is an error of the service, so that what waits for it does not start."""
    with answering(lambda _: (401, "application/json", b"{}")) as url:
        assert _set_up(url).returncode != 0


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KIBANA_PASSWORD", None, "set KIBANA_PASSWORD in .env"),
        ("FILEBEAT_PASSWORD", None, "set FILEBEAT_PASSWORD in .env"),
        ("KIBANA_PASSWORD", 'a"b', "KIBANA_PASSWORD: no quotes and no backslashes"),
        ("FILEBEAT_PASSWORD", "a\\b", "FILEBEAT_PASSWORD: no quotes and no backslashes"),
        ("AUDIT_RETENTION_DAYS", "0", "AUDIT_RETENTION_DAYS: given '0'"),
        ("AUDIT_RETENTION_DAYS", "1 year", "AUDIT_RETENTION_DAYS: given '1 year'"),
    ],
)
def test_a_value_that_cannot_work_stops_the_set_up(variable: str, value: str | None, message: str) -> None:
    """The set-up ends with the name of the variable before it asks the server anything."""
    refused = _set_up("http://127.0.0.1:9", **{variable: value})
    assert refused.returncode != 0
    assert message in refused.stderr


@pytest.mark.parametrize("profiles", [(), ("traces",), ("traces", "logs")], ids=" ".join)
def test_docker_compose_accepts_the_file(profiles: tuple[str, ...], tmp_path: Path) -> None:
    """`docker-compose config` reads the file with every combination of profiles that it names."""
    tool = require_binary("docker-compose")
    environment = tmp_path / "env"
    environment.write_text("GRAFANA_ADMIN_PASSWORD=x\n")
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [tool, "--env-file", environment, "-f", STACK / "compose.yaml", *chosen, "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    known = {name for name, service in SERVICES.items() if set(service.get("profiles", profiles)) <= set(profiles)}
    assert known <= set(yaml.safe_load(done.stdout)["services"])


def test_the_compose_specification_accepts_the_file() -> None:
    """The file is valid by the published JSON schema, which refuses a volume that is named twice."""
    schema = json.loads(schema_file("compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    twice = {"services": {"a": {"image": "b", "volumes": ["c:/d", "c:/d"]}}}
    assert not validator.is_valid(twice)


@pytest.mark.parametrize("path", ["alertmanager/alertmanager.yml", "prometheus/prometheus.yml"])
def test_every_file_that_a_server_is_told_to_read_is_mounted(path: str) -> None:
    """Paths within the containers, those of examples in comments included, lie below a mounted folder."""
    text = (STACK / path).read_text(encoding="utf-8")
    named = re.findall(r"/etc/(?:prometheus|alertmanager)/[\w./-]+", text)
    mounted = [target for _, target in _binds()]
    assert all(any(each == target or each.startswith(f"{target}/") for target in mounted) for each in named)


# Grafana's provisioning


def test_the_data_sources_are_those_that_the_compose_file_starts() -> None:
    """Each data source has a uid of its own and the address of a service, at a port on which it listens."""
    sources = _yaml("grafana/provisioning/datasources/taskpilot.yaml")["datasources"]
    assert {source["uid"] for source in sources} == {
        "taskpilot-prometheus",
        "taskpilot-jaeger",
        "taskpilot-alertmanager",
    }
    for source in sources:
        host, port = source["url"].removeprefix("http://").split(":")
        assert f"127.0.0.1:{port}:{port}" in SERVICES[host]["ports"]
    assert [source["uid"] for source in sources if source.get("isDefault")] == ["taskpilot-prometheus"]


def test_exemplars_lead_to_the_trace_store() -> None:
    """The label of our exemplars opens a trace in a data source that exists."""
    sources = {
        source["uid"]: source for source in _yaml("grafana/provisioning/datasources/taskpilot.yaml")["datasources"]
    }
    (way,) = sources["taskpilot-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert way["name"] == Field.TRACE_ID
    assert sources[way["datasourceUid"]]["type"] == "jaeger"
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    """The provider's folder and the home dashboard are those of the compose file."""
    (provider,) = _yaml("grafana/provisioning/dashboards/taskpilot.yaml")["providers"]
    mounts = {target: source for source, target in _binds()}
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (STACK / "grafana" / "dashboards" / Path(home).name).exists()
    assert str(Path(home).parent) == provider["options"]["path"]
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"


def test_grafana_prometheus_and_the_rules_agree_on_paths_and_intervals() -> None:
    """Rates in Grafana follow the scrape interval; the rule globs and the Alertmanager are those of the containers."""
    config = _yaml("prometheus/prometheus.yml")
    source = _yaml("grafana/provisioning/datasources/taskpilot.yaml")["datasources"][0]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    mounts = {target: source for source, target in _binds()}
    assert mounts["/etc/prometheus/rules"] == "./prometheus/rules"
    for pattern in config["rule_files"]:
        path = pattern.removeprefix("/etc/prometheus/")
        assert list((STACK / "prometheus").glob(path)), pattern
    assert mounts["/etc/prometheus/targets"] == "./prometheus/targets-compose"
    assert _targets(config["alerting"]["alertmanagers"]) == ["alertmanager:9093"]
    found = {each["job_name"]: each for each in config["scrape_configs"]}
    (application,) = _targets([found["taskpilot"]])
    host, _ = application.split(":")
    assert f"{host}:host-gateway" in SERVICES["prometheus"]["extra_hosts"]


def _targets(configs: list[dict[str, Any]]) -> list[str]:
    """The addresses that Prometheus finds within the container."""
    files = [file for config in configs for discovery in config["file_sd_configs"] for file in discovery["files"]]
    groups = [group for file in files for group in _yaml(f"prometheus/{file.replace('targets/', 'targets-compose/')}")]
    return [target for group in groups for target in group["targets"]]


# The collector


def test_the_collector_receives_otlp_and_hands_traces_to_jaeger() -> None:
    """Every part of a pipeline is configured, and its ports and its destination are those of the compose file."""
    config = _yaml("otel-collector/config.yaml")
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    listening = {part["endpoint"].split(":")[1] for part in config["receivers"]["otlp"]["protocols"].values()}
    listening.add(config["extensions"]["health_check"]["endpoint"].split(":")[1])
    assert {f"127.0.0.1:{port}:{port}" for port in listening} == set(SERVICES["otel-collector"]["ports"])
    assert config["exporters"]["otlp/jaeger"]["endpoint"].split(":")[0] in SERVICES
    assert config["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"


def test_the_collector_can_drop_every_attribute_that_may_hold_content() -> None:
    """The ready-made processor knows all attributes that content capture fills."""
    actions = _yaml("otel-collector/config.yaml")["processors"]["attributes/no_content"]["actions"]
    assert {action["key"] for action in actions} == {
        Attr.INPUT_MESSAGES,
        Attr.OUTPUT_MESSAGES,
        Attr.TOOL_ARGUMENTS,
        Attr.TOOL_RESULT,
        Attr.INPUT_TEXT,
        Attr.OUTPUT_TEXT,
    }
    assert {action["action"] for action in actions} == {"delete"}


# The audit log in Elasticsearch and Kibana

FILEBEAT = _yaml("filebeat/filebeat.yml")
FIELDS = {field["name"]: field["type"] for field in _yaml("filebeat/fields.yml")[0]["fields"][0]["fields"]}
SAVED = [json.loads(line) for line in (STACK / "kibana" / "audit.ndjson").read_text(encoding="utf-8").splitlines()]


def test_filebeat_reads_the_files_of_an_audit_log_and_no_others() -> None:
    """Files in use and closed segments are read; locks, anchors and torn halves are not."""
    (source,) = FILEBEAT["filebeat.inputs"]
    patterns = [Path(path).name for path in source["paths"]]
    mounted = next(target for source_path, target in _binds() if "AUDIT_DIR" in source_path)
    assert {str(Path(path).parent) for path in source["paths"]} == {mounted}
    for name in ("audit.jsonl", "audit.jsonl.20261121T093000.000001Z", "audit.web-1.4711.jsonl"):
        assert any(fnmatch(name, pattern) for pattern in patterns), name
    for name in ("audit.anchors", "audit.manifest", "audit.torn", "audit.web-1.4711.anchors"):
        assert not any(fnmatch(name, pattern) for pattern in patterns), name


def test_filebeat_parses_lines_under_the_prefix_of_the_searches() -> None:
    """Records land under `audit.`, in the index that the template and Kibana's data view name."""
    (parser,) = FILEBEAT["filebeat.inputs"][0]["parsers"]
    assert parser["ndjson"]["target"] == "audit"
    index = FILEBEAT["output.elasticsearch"]["index"].replace("%{+yyyy.MM}", "2026.11")
    view = next(saved for saved in SAVED if saved["type"] == "index-pattern")
    assert fnmatch(index, FILEBEAT["setup.template"]["pattern"])
    assert fnmatch(index, view["attributes"]["title"])
    assert "FILEBEAT_PASSWORD:?" in FILEBEAT["output.elasticsearch"]["password"]


def test_every_audit_field_has_a_type() -> None:
    """The index template knows exactly the fields of the contract."""
    assert set(FIELDS) == {value for name, value in vars(Field).items() if name.isupper()}


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "date": (str,),
    "double": (int, float),
    "flattened": (dict,),
    "keyword": (str,),
    "long": (int,),
    "text": (str,),
}


def test_a_real_record_fits_the_types() -> None:
    """What the audit log writes of an LLM call is of the types that Elasticsearch is told."""
    call = Invocation(
        operation=Operation.CHAT,
        name="gpt-4o",
        status=Status.SUCCESS,
        request_id="r",
        invocation_id="i",
        parent_id="p",
        workflow="research",
        agent="research.writer",
        start_unix_ns=1_790_000_000_000_000_000,
        duration_s=0.25,
        usage=Usage(input_tokens=10, output_tokens=5),
        request_model="gpt-4o",
        provider="openai",
        streaming=True,
        ttft_s=0.1,
        attributes={"step_id": "s"},
    )
    record = json.loads(json.dumps(AuditLines("assistant").fields(call), default=float))
    assert len(record) > 15
    for name, value in record.items():
        assert isinstance(value, JSON_TYPES[FIELDS[name]]), name


def test_saved_searches_name_fields_and_values_of_the_audit_log() -> None:
    """Columns and queries cannot drift from what is written."""
    searches = [saved for saved in SAVED if saved["type"] == "search"]
    assert len(searches) == 4
    values = {value for kind in (Event, LogType) for name, value in vars(kind).items() if name.isupper()}
    for search in searches:
        source = json.loads(search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        named = [*search["attributes"]["columns"], *re.findall(r"([\w.]+) :", source["query"]["query"])]
        assert {name.removeprefix("audit.") for name in named} <= set(FIELDS)
        assert set(re.findall(r'"([^"]+)"', source["query"]["query"])) <= values
        assert [reference["id"] for reference in search["references"]] == ["taskpilot-audit"]
        assert source["indexRefName"] == search["references"][0]["name"]


def test_the_guide_names_only_attributes_and_fields_that_exist() -> None:
    """docs/finding-things.md names no attribute, field or event that is never written."""
    text = (ROOT / "docs" / "finding-things.md").read_text(encoding="utf-8")
    attributes = {value for name, value in vars(Attr).items() if name.isupper()}
    named = set(re.findall(r"\b((?:gen_ai|taskpilot)\.[a-z_.]+[a-z_])", text)) - {"taskpilot.attributes"}
    assert len(named) > 20
    assert named <= attributes
    fields = set(re.findall(r"\baudit\.([a-z_]+)", text)) - {"jsonl"}
    assert len(fields) > 30
    assert fields <= set(FIELDS)
    events = {value for name, value in vars(Event).items() if name.isupper()}
    assert set(re.findall(r'event(?: :| ==) "([a-z.]+)"', text)) <= events
    assert f"{Attr.USER_PREFIX}" in text


# Remote write

REMOTE = sorted((STACK / "remote-write").glob("*.yml"))


def _series_names() -> set[str]:
    names = {"up", "process_start_time_seconds", "scrape_duration_seconds", "scrape_samples_scraped"}
    for metric in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("path", REMOTE, ids=lambda path: path.stem)
def test_remote_write_files_are_valid_and_send_everything_that_is_ours(path: Path) -> None:
    """Each file adds to a prometheus.yml, sends every family, keeps its password in a file, and says who sends."""
    tool = require_binary("promtool")
    subprocess.run([tool, "check", "config", "--syntax-only", str(path)], check=True, capture_output=True)
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    (remote,) = config["remote_write"]
    assert remote["url"].startswith("https://")
    assert "password" not in remote["basic_auth"]
    (keep,) = remote["write_relabel_configs"]
    assert keep["action"] == "keep"
    assert all(re.fullmatch(keep["regex"], name) for name in _series_names())
    assert not re.fullmatch(keep["regex"], "python_gc_objects_collected_total")
    assert "cluster" in config["global"]["external_labels"]


def test_there_is_a_file_for_each_of_the_three_stores() -> None:
    """Mimir, Thanos and VictoriaMetrics."""
    assert [path.stem for path in REMOTE] == ["mimir", "thanos", "victoriametrics"]
