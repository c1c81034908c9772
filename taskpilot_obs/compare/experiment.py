"""A/B tests: assigns variants to units, and labels their runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import isclose, isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, get_args

from taskpilot_obs._recording.attributes import plain_text
from taskpilot_obs._recording.context import scope_around
from taskpilot_obs._recording.scope import current_scope, restore
from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.wrapping import of_the_kind_of
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Scope

if TYPE_CHECKING:
    from contextvars import Token

Unit = Literal["user", "session", "tenant", "request"]
Measure = Literal["success", "cost", "p50", "p95", "correctness", "tokens", "violations"]
"""The measures by which variants are compared."""

P = ParamSpec("P")
R = TypeVar("R")

_BUCKETS: Final = 1 << 64
_HASH_BYTES: Final = 8
_LONGEST_NAME: Final = 100
_FIELD_OF: Final = {"user": "user", "session": "session", "tenant": "tenant", "request": "request_id"}
"""The field of the request's scope that holds the ID of a unit."""


class Assignment:
    """A context manager, `with` and `async with`, that yields the variant and binds it to everything inside.

    It may be entered more than once, also within itself and by several tasks.
    """

    __slots__ = ("_scope", "_tokens", "variant")

    def __init__(self, variant: str, scope: Scope | None) -> None:
        self.variant = variant
        self._scope = scope
        self._tokens: list[Token[Scope | None]] = []

    def __enter__(self) -> str:
        if self._scope is not None:
            self._tokens.append(current_scope.set(self._scope))
        return self.variant

    def __exit__(self, *_: object) -> None:
        for token in reversed(self._tokens):  # those of other tasks cannot be restored here
            if restore(current_scope, token):
                self._tokens.remove(token)
                return

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


class Experiment:
    """An experiment with weighted variants; each unit permanently gets one variant, in every process.

    The variant follows from a hash of the experiment's name and the unit's ID, so it needs no store and no network.
    Assigned runs carry the attributes `experiment`, `variant` and `experiment_unit` (a hash of the ID).

    Args:
        name: of the experiment: a metric label, and what the assignment hashes. A new name is a new assignment.
        variants: the share of each variant; the shares add up to 1. The first one is the control.
        unit: the unit of assignment: a user (default), a session, a tenant or a single request.
        primary: the one measure that decides.
        secondary: further reported measures; intervals are corrected for their number.

    Raises:
        ConfigurationError: a name is empty or too long, there are fewer than two variants, the shares do not add up to
            1, or a unit or measure is unknown.
    """

    def __init__(
        self,
        name: str,
        variants: Mapping[str, float],
        *,
        unit: Unit = "user",
        primary: Measure = "success",
        secondary: Sequence[Measure] = (),
    ) -> None:
        _check_names(name, variants)
        check_shares(variants, "variants")
        for measure in (primary, *secondary):
            if measure not in get_args(Measure):
                raise ConfigurationError(f"given the measure {measure!r}; allowed are {', '.join(get_args(Measure))}")
        if unit not in _FIELD_OF:
            raise ConfigurationError(f"unit: given {unit!r}; allowed are {', '.join(_FIELD_OF)}")
        self.name = name
        self.variants = dict(variants)
        self.unit = unit
        self._position = Scope._fields.index(_FIELD_OF[unit])
        self.primary = primary
        self.secondary = tuple(secondary)
        self.stopped: str | None = None
        """Why the experiment was stopped in this process; None while it runs."""
        self._hash = blake2b(f"{name}\0".encode(), digest_size=_HASH_BYTES)
        ends = [round(end * _BUCKETS) for end in accumulate(variants.values())]
        self._ends = tuple(zip(ends, variants, strict=True))

    @property
    def control(self) -> str:
        """The variant that the others are compared with: the first."""
        return self._ends[0][1]

    def stop(self, reason: str) -> None:
        """Stop the experiment in this process: every unit gets the control from now on, and nothing is counted.

        Args:
            reason: why, for `stopped`.
        """
        self.stopped = reason

    def variant_of(self, unit_id: str) -> str:
        """The variant of a unit. An ID gets one variant in every process and version of Python.

        Args:
            unit_id: the ID of the user, session, tenant or request.
        """
        return self._variant_at(int.from_bytes(self._digest(unit_id)))

    def _variant_at(self, bucket: int) -> str:
        for end, variant in self._ends:
            if bucket < end:
                return variant
        return self._ends[-1][1]  # the shares may add up to slightly less than 1

    def _digest(self, unit_id: str) -> bytes:
        hashed = self._hash.copy()
        hashed.update(unit_id.encode("utf-8", "surrogatepass"))
        return hashed.digest()

    def assign(self, unit_id: str | None, *, header: str | None = None) -> Assignment:
        """Assign a unit, for everything that runs inside: `with experiment.assign(user_id) as variant`.

        Args:
            unit_id: the ID of the user, session, tenant or request. Without one the control is used, and nothing is
                counted for the experiment.
            header: a request header such as `planner-prompt=v2, other=v1`, with which a proxy or a tester chooses the
                variant. Parts of other experiments, and variants that do not exist, are ignored.

        Returns:
            A context manager that yields the variant.
        """
        if unit_id is None or self.stopped is not None:
            return Assignment(self.control, None)
        unit_id = plain_text(unit_id)
        digest = self._digest(unit_id)
        variant = (self._chosen(header) if header else None) or self._variant_at(int.from_bytes(digest))
        around = current_scope.get() or scope_around()
        attributes = {
            **around.attributes,
            "experiment": self.name,
            "variant": variant,
            "experiment_unit": digest.hex(),
        }
        fields: list[Any] = [*around]
        fields[self._position] = unit_id
        fields[-1] = MappingProxyType(attributes)
        return Assignment(variant, tuple.__new__(Scope, fields))

    def _chosen(self, header: str) -> str | None:
        for part in header.split(","):
            name, _, variant = part.strip().partition("=")
            if name != self.name:
                continue
            if variant in self.variants:
                return variant
            log_failure("experiment", ConfigurationError(f"header: {self.name} has no variant {variant!r}"))
        return None

    def assigned(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call is assigned by the request context around it.

        The unit's ID is that of the context (`user_id=`, `session_id=`, `tenant_id=` or the request's own ID).
        """
        kind = function.__call__ if not hasattr(function, "__code__") else function  # type: ignore[operator]  # an object

        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.assign(self._unit_here()):
                return function(*args, **kwargs)

        return functools.wraps(function)(of_the_kind_of(kind, inside))

    def _unit_here(self) -> str | None:
        scope = current_scope.get()
        unit_id: str | None = None if scope is None else getattr(scope, _FIELD_OF[self.unit])
        return unit_id


def _check_names(name: str, variants: Mapping[str, float]) -> None:
    for what, given in (("name", name), *(("variant", variant) for variant in variants)):
        if not given.strip() or len(given) > _LONGEST_NAME:
            raise ConfigurationError(f"{what}: given {given!r}; give a name of 1 to {_LONGEST_NAME} characters")


def check_shares(shares: Mapping[str, float], option: str) -> None:
    """Refuse shares that are not a plan.

    Args:
        shares: the planned share of each variant.
        option: which has them, for the message.

    Raises:
        ConfigurationError: there are fewer than two, one is not above 0, or they do not add up to 1.
    """
    if len(shares) < 2:  # noqa: PLR2004  fewer cannot be compared
        raise ConfigurationError(f"{option}: given {len(shares)}; an experiment compares two or more variants")
    if not all(isfinite(share) and share > 0 for share in shares.values()):
        raise ConfigurationError(f"{option}: given {dict(shares)}; each share is a number above 0")
    if not isclose(sum(shares.values()), 1.0, abs_tol=1e-9):
        raise ConfigurationError(f"{option}: the shares add up to {sum(shares.values()):g}; they must add up to 1")
