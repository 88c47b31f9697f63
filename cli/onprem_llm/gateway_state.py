"""What hosts say of the gateway, of what guards the engines, and of certificates."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

DAY_S = 86400
RENEW_S = 30 * DAY_S  # before a certificate's end, as role certificates has it


@dataclass(frozen=True, slots=True)
class ServerState:
    """A replica as a gateway sees it. admin: ready, drain or maint; `check` is HAProxy's last word about its health."""

    address: str
    port: int
    admin: str
    up: bool
    check: str | None
    sessions: int


@dataclass(frozen=True, slots=True)
class GatewayState:
    """The gateway process of a host; servers by `deployment/project`.

    `pending_reload`: files on the host are newer than what the process has read. `peers`: the other gateways'
    addresses, with which its host compares keys.
    """

    running: bool
    error: str | None
    servers: Mapping[str, ServerState]
    pending_reload: bool = False
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GangWall:
    """Ports of a gang that only its members (addresses, sorted) reach."""

    ports: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Firewall:
    """Which ports of a host only `sources` reach; `active` says that the kernel has the rules."""

    ports: tuple[int, ...]
    sources: tuple[str, ...]
    active: bool
    gangs: tuple[GangWall, ...] = ()


@dataclass(frozen=True, slots=True)
class RayFirewall:
    """Which addresses reach which ports of Ray's on a host (`first-last`, or one); `active` as for Firewall."""

    rules: Mapping[str, tuple[str, ...]]
    active: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """When a certificate ends (seconds since 1970) and the names in it.

    `ends_soon`: by its host's own clock. `written`: when its file was; what started before that has another one.
    """

    not_after: int
    names: tuple[str, ...]
    ends_soon: bool = False
    written: int | None = None


def day(at: float) -> str:
    """Write seconds since 1970 as a day."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
