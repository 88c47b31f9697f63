"""A row of what runs: what status shows of a replica, and what a gateway does with it."""

from dataclasses import dataclass

from onprem_llm.gateway_state import ServerState


@dataclass(frozen=True)
class Member:
    """A further part of a replica over several hosts."""

    project: str
    host: str
    gpus: tuple[str, ...]
    state: str
    health: str | None
    up_seconds: float | None
    restarts: int


@dataclass(frozen=True)
class Running:
    """One container of a project of ours, or a deployment of the book that runs nowhere (`host` is None then)."""

    project: str
    deployment: str | None
    replica: str | None
    revision: str | None
    host: str | None
    gpus: tuple[str, ...]
    state: str
    health: str | None
    up_seconds: float | None
    restarts: int
    image: str | None
    address: str | None
    rotation: str | None = None
    """At the gateway: in, drain, down, or out (it is not among its servers); None where no gateway runs."""
    sessions: int | None = None
    scheduled_off: bool = False
    """Its schedule leaves it out now, and it does not run."""
    members: tuple[Member, ...] = ()

    @property
    def hosts(self) -> str | None:
        """All of its hosts, for a person."""
        return ", ".join([self.host, *(one.host for one in self.members)]) if self.host else None

    @property
    def ready(self) -> bool:
        """Tell whether it serves: healthy, and let in where there is a gateway."""
        return self.state == "running" and self.health in (None, "healthy") and self.rotation in (None, "in")

    def as_json(self) -> dict[str, object]:
        """Return it for --json."""
        members = [{**one.__dict__, "gpus": list(one.gpus)} for one in self.members]
        return {**self.__dict__, "gpus": list(self.gpus), "members": members}


def rotation_of(server: ServerState | None) -> str:
    """Say what a gateway does with a server: in, drain, down, or out where it has none."""
    if server is None:
        return "out"
    if server.admin == "drain":
        return "drain"
    return "in" if server.up and server.admin == "ready" else "down"
