"""The site's root certificate and the certificates that it signs: handed over, and renewed before they end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.gateway_state import RENEW_S, day
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress
from onprem_llm.planning.certificates import older
from onprem_llm.rendering.registry import PROJECT as REGISTRY
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site

ROOT_FILE = "onprem-llm-ca.crt"


def hand_over(root: str, inventory: Path) -> str:
    """Write the root beside the inventory, never over another one; return what a person is told."""
    target = inventory.parent / ROOT_FILE
    try:
        if not target.exists():
            target.write_text(root, encoding="ascii")
        elif target.read_text(encoding="ascii", errors="replace") != root:
            return (
                f"{target} holds another root than these hosts have, and was left as it is. "
                f"The hosts' own: onprem-llm tls root -i {inventory}"
            )
    except OSError as error:
        return f"The root certificate could not be written beside the inventory ({error}); see: onprem-llm tls root"
    return f"Root certificate for clients: {target}"


def read_root(gateway: HostState, connection: Connection, progress: Progress | None = None) -> str:
    """Return the root certificate in PEM. OnpremError where the gateway host has none."""
    result = run("tls_root.yml", connection, hosts=[gateway.name], progress=progress, title="Reading the root")
    raise_for_failures(result, doing="reading the root certificate")
    root = result.returned.get(gateway.name, {}).get("ca")
    if not isinstance(root, str):
        raise OnpremError(
            f"{gateway.name}: found no certificate authority, expected the one that bootstrap makes",
            hint="run: onprem-llm bootstrap INVENTORY",
        )
    return root


@dataclass(frozen=True)
class Renewal:
    """What `tls renew` does: an order for each host, and what a person is told."""

    orders: Mapping[str, Mapping[str, object]]
    notes: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str], ...]
    """host, which certificate, its end, what happens to it"""
    restarts: tuple[str, ...] = field(default=())
    """Hosts whose engines have to start anew."""


def plan_renewal(current: Current, ca_host: str, site: Site, now: float, *, force: bool) -> Renewal:
    """Say which certificates are renewed: those that end within 30 days, all with `force`. Pure."""
    orders: dict[str, dict[str, object]] = {}
    rows: list[tuple[str, str, str, str]] = []
    notes: list[str] = []
    for host in current.hosts:
        for kind, certificate in sorted(host.certificates.items()):
            ends = certificate.not_after < now + RENEW_S
            wanted, what = _decided(host, kind, site, due=force or ends)
            if wanted:
                order = orders.setdefault(host.name, {"ca_host": ca_host, "force": force})
                order[kind] = _order(kind, site.data_root, certificate.names)
            if kind == "ca" and ends:
                notes.append(f"{host.name}: the root itself ends soon; docs/security.md says how it is replaced")
            rows.append((host.name, kind, day(certificate.not_after), what))
    restarts = tuple(name for name, order in orders.items() if "engine" in order)
    return Renewal(orders, tuple(notes), tuple(rows), restarts)


def _decided(host: HostState, kind: str, site: Site, *, due: bool) -> tuple[bool, str]:
    """Return whether a host gets an order for a certificate, and what a person is told of it."""
    if kind == "ca":
        return False, "kept: clients would need a new root"
    if kind == "gateway" and site.gateway.tls.mode == "files":
        return False, "the site's own: replace its files, then deploy"
    if kind == REGISTRY:
        return _registry(host, due=due)
    return due, "renewed" if due else "kept"


def _registry(host: HostState, *, due: bool) -> tuple[bool, str]:
    """The registry reads its certificate when it starts; nothing but a renewal or a deploy starts it anew."""
    project = host.projects.get(REGISTRY)
    if project is None or not any(one.state == "running" for one in project.containers):
        return False, "kept: no registry runs there, the next deploy renews it" if due else "kept"
    if due:
        return True, "renewed; the registry starts anew"
    if older(host, REGISTRY, REGISTRY):  # a run was killed between the two
        return True, "kept; the registry, which has the one before, starts anew"
    return False, "kept"


def _order(kind: str, data_root: str, names: tuple[str, ...]) -> dict[str, object]:
    if kind == "engine":
        return {"secrets": f"{data_root}/secrets", "names": list(names)}
    return {"path": f"{data_root}/{kind}", "names": list(names)}


def renew(renewal: Renewal, connection: Connection, progress: Progress) -> None:
    """Have the hosts make what is due. OnpremError for what failed."""
    with run_folder() as folder:
        path = write_orders(folder, 0, renewal.orders)
        result = run(
            "tls_renew.yml",
            connection,
            hosts=list(renewal.orders),
            variables={"onprem_llm_order_file": str(path)},
            progress=progress,
            title="Renewing certificates",
        )
    raise_for_failures(result, doing="renewing certificates")
