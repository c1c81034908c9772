"""Who asks, and what they may do."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Role = Literal["viewer", "writer", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "writer", "admin")
EVERY_TENANT: Final = "*"


class Principal(NamedTuple):
    """The authenticated caller: the owner of a token, or the person whom the application names."""

    name: str
    role: Role
    """`viewer` reads, `writer` sends feedback and spans, `admin` does both."""
    tenant: str | None
    """The one tenant that it sees and writes for; None for every tenant."""

    @property
    def may_read(self) -> bool:
        """Whether answers and pages are open to it."""
        return self.role != "writer"

    @property
    def may_write(self) -> bool:
        """Whether feedback and spans are taken from it."""
        return self.role != "viewer"


LOCAL: Final = Principal("local", "admin", None)
"""Whoever works on this machine, where no token file is given."""
