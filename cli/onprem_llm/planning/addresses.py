"""Addresses and ports: where a project listens, how others reach it, and who is already there."""

from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.machine_state import Listener
from onprem_llm.rendering.compose import EVERY_INTERFACE

EVERY = {EVERY_INTERFACE, "::", "*", ""}
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Claim:
    """A port of a host that a project has or will have."""

    project: str
    address: str
    port: int

    @property
    def label(self) -> str:
        """Return it as the label onprem-llm.listen has it."""
        return f"{self.address}:{self.port}"


def bind_address(listen: str, host: HostState, what: str) -> str:
    """Return the address that a project is published on; InvalidError if the host has no such address."""
    if listen == "all":
        return EVERY_INTERFACE
    if listen == "local":
        return LOOPBACK
    if listen == "cluster":
        return host.cluster_address
    if listen not in host.addresses and listen != LOOPBACK:
        raise InvalidError(
            f"{what}: listen: found {listen}, which is no address of {host.name}",
            hint=f"{host.name} has {', '.join(host.addresses) or 'none'}; `cluster` takes the right one on each host",
        )
    return listen


def reached_at(claim: Claim, host: HostState, *, tls: bool = False) -> str:
    """Return the URL at which others reach what listens there; on the host itself for loopback."""
    address = host.cluster_address if claim.address in EVERY else claim.address
    scheme = "https" if tls else "http"
    return f"{scheme}://[{address}]:{claim.port}" if ":" in address else f"{scheme}://{address}:{claim.port}"


def standing_claim(host: HostState, project: str) -> Claim | None:
    """Return what a project's container says that it listens on."""
    found = host.projects.get(project)
    label = found.label("listen") if found else None
    if label is None:
        return None
    address, _, port = label.rpartition(":")
    return Claim(project, address, int(port)) if port.isdigit() else None


def check_ports(host: HostState, wanted: list[Claim], leaving: set[str]) -> None:
    """Raise InvalidError when a wanted port is another's: of a project of ours, or of a process of the host's own.

    `leaving` names the projects that this plan takes away from the host.
    """
    names = {claim.project for claim in wanted}
    standing = [
        claim for name in host.projects if name not in names | leaving and (claim := standing_claim(host, name))
    ]
    # Who has the port already keeps it; the error is about the newcomer.
    wanted = sorted(wanted, key=lambda claim: standing_claim(host, claim.project) != claim)
    for index, claim in enumerate(wanted):
        other = next((c for c in [*standing, *wanted[:index]] if _collide(c.address, c.port, claim)), None)
        if other:
            raise _taken(host, claim, f"the project {other.project} of onprem-llm has it")
        own = [standing_claim(host, name) for name in names | leaving]
        if any(c is not None and c.port == claim.port for c in own):
            continue
        listener = next((s for s in host.listeners if _collide(s.address, s.port, claim)), None)
        if listener:
            raise _taken(host, claim, _who(listener))


def collides(other: Claim, claim: Claim) -> bool:
    """Tell whether two claims cannot both be had on one host."""
    return _collide(other.address, other.port, claim)


def _collide(address: str, port: int, claim: Claim) -> bool:
    return port == claim.port and (address == claim.address or address in EVERY or claim.address in EVERY)


def _who(listener: Listener) -> str:
    if listener.container:
        return f"the container {listener.container}, which is not onprem-llm's, publishes it"
    return f"{listener.holder} listens on {listener.address or 'every address'}:{listener.port}"


def _taken(host: HostState, claim: Claim, who: str) -> InvalidError:
    settings = {
        "open-webui": "onprem_llm_site.open_webui.port",
        "gateway": "onprem_llm_site.public_port",
        "registry": "onprem_llm_site.registry_port",
    }
    setting = settings.get(claim.project, "port in model.yaml")
    return InvalidError(
        f"port {claim.port} is in use on {host.name}: {who}",
        hint=f"choose another {setting} for {claim.project}, or stop what holds it",
    )
