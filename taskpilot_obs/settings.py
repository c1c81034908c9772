"""The configuration: one model, where code beats environment beats defaults."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypedDict

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.thresholds import Thresholds
from taskpilot_obs.records import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENV_PREFIX = "TASKPILOT_OBS_"
STDOUT = "stdout"


def _duration(given: object) -> object:
    """Read seconds and text such as "12h", which pydantic does not read by itself."""
    if not isinstance(given, str):
        return given
    if given.isdecimal():
        return int(given)
    with contextlib.suppress(ConfigurationError):  # it may still be ISO 8601
        return parse_window(given)
    return given


def _having(*methods: str) -> AfterValidator:
    """Accept any object that has these methods, without importing its class."""

    def check(given: object) -> object:
        if given is not None and not all(callable(getattr(given, method, None)) for method in methods):
            raise ValueError(f"allowed is an object with {' and '.join(f'{method}()' for method in methods)}")
        return given

    return AfterValidator(check)


UNKNOWN_SERVICE: Final = "unknown_service"


class Settings(BaseModel):
    """Every option of the library; `configure()` takes the same names.

    Options that are plain values can come from the environment: `TASKPILOT_OBS_` and the name in capitals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)

    enabled: bool = True
    """Whether runs are recorded. Without, decorators and blocks pass through, but what is in enforce mode refuses."""
    enforcement: bool = True
    """Whether checks and budgets in enforce mode refuse. Without, they record what they would refuse."""
    service: Annotated[str, Field(min_length=1, max_length=200)] = UNKNOWN_SERVICE
    """Name of the service, on audit records and in `taskpilot_obs_info`; falls back to `OTEL_SERVICE_NAME`."""
    service_version: Annotated[str, Field(max_length=200)] = ""
    """Version of the service. Dashboards show a change of it as a deployment."""
    environment: Annotated[str, Field(max_length=200)] = ""
    """Where the service runs, as in `production`: the telemetry store keeps it beside each call and run."""

    audit_log: Path | logging.Logger | None = None
    """Path of the audit log, `"stdout"`, or a logger of yours. None writes no audit log."""
    audit_max_bytes: Annotated[int, Field(ge=4_096)] = 100_000_000
    """Size in bytes at which the audit log begins a new segment."""
    audit_max_age: Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))] = timedelta(days=1)
    """Age at which the audit log begins a new segment: a `timedelta`, seconds, or text such as `"12h"`."""
    audit_keep: Annotated[int, Field(ge=1)] | None = None
    """How many closed segments are kept. None keeps all."""
    audit_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Key for HMAC-SHA-256 in the hash chain of the audit log. Without it the chain uses SHA-256."""
    audit_durability: Literal["flush", "fsync"] = "flush"
    """`flush` hands each batch to the operating system, where it survives the process; `fsync` waits for the disk."""
    audit_on_anchor: Any = None
    """Function that receives each anchor of the audit log's chain, to keep it outside the reach of the log's writer."""

    exporters: tuple[Any, ...] = ()
    """Your exporters: objects with `export(batch)`, or functions that receive each finished `Invocation`."""
    on_full: Literal["drop", "block"] = "drop"
    """When an exporter that does I/O cannot keep up: `drop` drops and counts its records, `block` lets callers wait."""
    queue_capacity: Annotated[int, Field(ge=64, le=10_000_000)] = 65_536
    """How many records may wait for the background thread, and for each exporter, before `on_full` applies."""
    exit_timeout_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    """How many seconds the end of the process may wait for exporters."""

    prometheus: bool = True
    """Whether metrics are kept."""
    namespace: Annotated[str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$", max_length=100)] = ""
    """Prefix of every metric family: `acme` makes `acme_llm_cost_usd_total`. The settings of the rules have it too."""
    registry: Annotated[Any, _having("register", "collect")] = None
    """The `prometheus_client.CollectorRegistry` of the metrics. None uses the default registry."""
    tracing: bool = True
    """Whether spans are made, provided that the application has a tracer provider."""
    tracer_provider: Annotated[Any, _having("get_tracer")] = None
    """The OpenTelemetry tracer provider. None uses the global one."""
    meter_provider: Annotated[Any, _having("get_meter")] = None
    """The OpenTelemetry meter provider that gets the metrics as instruments, for OTLP. None exports none."""

    capture_content: bool = False
    """Whether prompts, outputs, arguments and error messages are kept, redacted, in spans and the audit log."""
    capture_max_length: Annotated[int, Field(ge=16, le=10_000_000)] = 10_000
    """How many characters of one text are kept."""
    redaction_rules: tuple[Any, ...] = ()
    """Your kinds of secrets (`taskpilot_obs.safety.Rule`), which are hidden like the built-in ones."""
    redaction_skip: tuple[str, ...] = ()
    """Built-in kinds that are not hidden, such as `["email"]`. In the environment with commas: `email,iban`."""
    redaction_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Key for a hash in each redaction mark, so that two occurrences of a secret can be matched."""

    prices: tuple[Path, ...] = ()
    """TOML or YAML files with your prices and model aliases. They win over the built-in table."""
    model_aliases: dict[str, str] = {}
    """Your names of models, such as Azure deployments, and the name of each in the price table."""

    policies: tuple[Any, ...] = ()
    """Policies that apply to every decorated function, in addition to its own (`taskpilot_obs.safety`)."""
    guardrails: tuple[Any, ...] = ()
    """Guardrails that apply to every decorated function, in addition to its own."""
    mode: Literal["monitor", "enforce"] = "monitor"
    """`monitor` records what these policies and guardrails would refuse; `enforce` refuses it."""

    store: str | None = None
    """URL of a telemetry store: `sqlite:///telemetry.db` or `postgresql+psycopg://…` (`taskpilot_obs.store`)."""
    store_aggregate_every_s: Annotated[float, Field(gt=0)] | None = None
    """How often, in seconds, this process sums up the store by hours and days. None leaves it to others."""
    store_retention_days: Annotated[float, Field(gt=0)] | None = None
    """Age in days at which this process deletes rows of the store; summaries stay. None deletes nothing."""
    stats_calls: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """How many LLM calls this process holds in memory for statistics where no store is configured; about 1 KB each.
    0 holds none."""
    stats_age: Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))] = timedelta(days=1)
    """How long this process holds such a call: a `timedelta`, seconds, or text such as `"12h"`."""

    budgets: tuple[Any, ...] = ()
    """Budgets: `Budget` objects, and TOML or YAML files of them (`taskpilot_obs.budgets`)."""
    budget_store: str | None = None
    """URL of the telemetry store that shares budgets between processes. None uses `store`, or the store of a
    `StoreExporter` among `exporters`; without either, each process has the whole limit for itself."""
    budget_reservation_s: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """How many seconds a call that does not report its end keeps the money or tokens that it reserved."""
    on_budget_alert: Any = None
    """Function that receives each `BudgetAlert`, on a thread of the library."""

    thresholds: Thresholds = Thresholds()
    """Limits between healthy, warning and critical for the golden signals."""

    @property
    def source(self) -> Source:
        """The service and the environment; None where they are not configured."""
        return Source(self.service if self.service != UNKNOWN_SERVICE else None, self.environment or None)

    @classmethod
    def resolve(cls, options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Self:
        """Settings from options given in code, the environment and the defaults, in that order of precedence.

        Args:
            options: Options by name, as `configure()` takes them.
            environ: Environment variables; None reads those of this process.

        Raises:
            ConfigurationError: an option is unknown or wrong; the message names it, what was given and what is allowed.
        """
        _refuse_unknown(options, cls.model_fields)
        try:
            return cls(**{**_from_environment(cls.model_fields, os.environ if environ is None else environ), **options})
        except ValidationError as error:
            raise ConfigurationError(_in_words(error, options)) from None


NOT_FROM_ENVIRONMENT = frozenset(
    {
        *("audit_on_anchor", "exporters", "guardrails", "model_aliases", "policies", "redaction_rules", "registry"),
        *("meter_provider", "on_budget_alert", "thresholds", "tracer_provider"),
    }
)
_LISTS = {
    "budgets": re.compile(re.escape(os.pathsep)),
    "prices": re.compile(re.escape(os.pathsep)),
    "redaction_skip": re.compile(f"[,{re.escape(os.pathsep)}]"),
}
"""Separators of lists in the environment. Paths may contain commas."""


def _from_environment(fields: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if environ.get("OTEL_SERVICE_NAME"):
        found["service"] = environ["OTEL_SERVICE_NAME"]
    for name in fields:
        value = environ.get(ENV_PREFIX + name.upper())
        if value and name not in NOT_FROM_ENVIRONMENT:  # empty is how compose files spell unset
            found[name] = _items(value, _LISTS[name]) if name in _LISTS else value
    return found


def price_files() -> tuple[str, ...]:
    """The price files that the environment names (`TASKPILOT_OBS_PRICES`)."""
    return _items(os.environ.get(f"{ENV_PREFIX}PRICES", ""), _LISTS["prices"])


def _items(value: str, separator: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in separator.split(value)) if item)


def _refuse_unknown(options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    for name in options:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"unknown option {name!r}{hint} Allowed: {', '.join(sorted(fields))}.")


def _in_words(error: ValidationError, options: Mapping[str, Any]) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"] if "[" not in str(part)) or "settings"
        name = str(problem["loc"][0]) if problem["loc"] else ""
        source = "" if name in options or not name else f" (from {ENV_PREFIX}{name.upper()})"
        given = "a secret" if name in {"audit_key", "redaction_key"} else _shown(problem["input"])
        problems.append(f"{where}{source}: given {given}; {problem['msg']}")
    return "; ".join(problems)


def _shown(value: object) -> str:
    """Show plain values as they are, and other objects by type, because their `repr` may raise or hold secrets."""
    if isinstance(value, str | int | float | bool | None):
        return repr(value)[:200]
    return f"an object of type {type(value).__name__}"


class Options(TypedDict, total=False):
    """The options of `configure()`, for type checkers; described at `Settings`, whose fields they are."""

    enabled: bool
    enforcement: bool
    service: str
    service_version: str
    environment: str
    audit_log: str | os.PathLike[str] | logging.Logger | None
    audit_max_bytes: int
    audit_max_age: timedelta | float | str
    audit_keep: int | None
    audit_key: str | SecretStr | None
    audit_durability: Literal["flush", "fsync"]
    audit_on_anchor: Any
    exporters: Sequence[Any]
    on_full: Literal["drop", "block"]
    queue_capacity: int
    exit_timeout_s: float
    prometheus: bool
    namespace: str
    registry: Any
    tracing: bool
    tracer_provider: Any
    meter_provider: Any
    capture_content: bool
    capture_max_length: int
    redaction_rules: Sequence[Any]
    redaction_skip: Sequence[str]
    redaction_key: str | SecretStr | None
    prices: Sequence[str | os.PathLike[str]]
    model_aliases: dict[str, str]
    policies: Sequence[Any]
    guardrails: Sequence[Any]
    mode: Literal["monitor", "enforce"]
    store: str | None
    store_aggregate_every_s: float | None
    store_retention_days: float | None
    stats_calls: int
    stats_age: timedelta | float | str
    budgets: Sequence[Any]
    budget_store: str | None
    budget_reservation_s: float
    on_budget_alert: Any
    thresholds: Thresholds | dict[str, Any]
