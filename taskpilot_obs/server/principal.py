"""The authenticated caller, and its permissions."""

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
        """Whether it may read answers and pages."""
        return self.role != "writer"

    @property
    def may_write(self) -> bool:
        """Whether it may send feedback and spans."""
        return self.role != "viewer"


LOCAL: Final = Principal("local", "admin", None)
"""Any caller on this machine, if there is no token file."""
