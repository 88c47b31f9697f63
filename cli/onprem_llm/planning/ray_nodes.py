"""One node of the Ray cluster: rendered, and compared with what its host has."""

from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.difference import Outcome, SecretEntry, compare
from onprem_llm.planning.offers import in_use
from onprem_llm.planning.out_of_sight import engine_sources, still_let_in
from onprem_llm.planning.placement import working_access
from onprem_llm.planning.ray_hosts import PROJECTS, RayHosts, standing_head
from onprem_llm.planning.replica_orders import project_order
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import ImageSource, Order
from onprem_llm.rendering.ray_node import START_SECONDS, TOKEN, RayNode, Role, draft
from onprem_llm.spec.site import Site

# The token's name among a host's keys. No deployment can have it: their names have no "_".
KEY = "ray_token"
ENTRIES = (SecretEntry(TOKEN, (KEY,)),)


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node as it is to be on its host, and who reaches it there."""

    host: HostState
    node: RayNode
    image: HostImage
    outcome: Outcome
    firewall: Order | None  # None: as it is to be already

    @property
    def needed(self) -> bool:
        """Tell whether anything is to be done on the host."""
        return self.outcome.needed or self.firewall is not None

    def order(self, site: Site, keeper: HostState) -> dict[str, object]:
        """Return the host's order of apply.yml; `keeper`: the host that has the token, or makes it."""
        projects = []
        if self.outcome.needed:
            projects = [project_order(site, self.outcome, ENTRIES, [], wait=START_SECONDS, readiness=None)]
        guards = {"ray_firewall": self.firewall} if self.firewall else {}
        return {"keys": [KEY], "keys_host": keeper.name, "projects": projects, **guards}


def plan_node(
    site: Site, current: Current, hosts: RayHosts, host: HostState, role: Role, source: ImageSource
) -> PlannedNode:
    """Render a node. InvalidError where replicas of `compose` hold GPUs of a host that Ray would take."""
    carries = role == "worker" or hosts.head_carries
    image = image_for(host, source, None)
    if carries:
        _check_gpus(host)
    access = working_access(host) if carries and host.gpus else None
    node = RayNode(
        role=role,
        image=image.reference,
        address=host.cluster_address,
        head=hosts.head.cluster_address,
        ports=site.ray.ports,
        weights_path=site.weights_path,
        object_store=site.ray.object_store,
        carries=carries,
        remembers=site.ray.head_store == "rocksdb",
        interface=host.interfaces.get(host.cluster_address),
        gpus=tuple(gpu.uuid for gpu in host.gpus) if carries else (),
        devices=_devices(host) if access == "cdi" else (),
        access=access,
    )
    joins = f"it joins the head on {hosts.head.name}" if role == "worker" else "it is the cluster's head"
    why = () if node.project in host.projects else (joins,)
    outcome = compare(host, draft(node), revision=None, image_id=image.id, secrets=_secrets(host, current), why=why)
    if role == "worker" and outcome.change.action == "restart":
        # One that a drain has ended stays away when its host starts again, until another container takes its place.
        outcome = replace(outcome, recreate=True)
    return PlannedNode(host, node, image, outcome, _firewall(site, current, hosts, host))


def token_keeper(current: Current, gateway: HostState) -> HostState:
    """Return the host whose token counts: the gateway host, but the head's where a new gateway host has none."""
    head = standing_head(current)
    return head if head is not None and KEY in head.keys and KEY not in gateway.keys else gateway


def _secrets(host: HostState, current: Current) -> dict[str, str | None]:
    made = token_keeper(current, current.gateway).keys.get(KEY) if current.gateway else None
    return {TOKEN: made if host.keys.get(KEY) == made else None}


def _check_gpus(host: HostState) -> None:
    for gpu in host.gpus:
        why = in_use(gpu, host, PROJECTS)
        if why:
            raise InvalidError(
                f"{host.name}: {why}, and Ray takes all GPUs of a host",
                hint=f"move it away first, or take {host.name} out of the inventory's groups of Ray",
            )


def _devices(host: HostState) -> tuple[str, ...]:
    """Name all GPUs of a host as its specification does."""
    existing = {name.rpartition("=")[2] for name in host.engine.cdi_devices}
    if "all" in existing:
        return ("nvidia.com/gpu=all",)
    by_index = not any(name.startswith("GPU-") for name in existing)
    return tuple(f"nvidia.com/gpu={gpu.index if by_index else gpu.uuid}" for gpu in host.gpus)


def _firewall(site: Site, current: Current, hosts: RayHosts, host: HostState) -> Order | None:
    """Return who reaches the node: the cluster's hosts its processes, the gateways Ray Serve; None where it is so."""
    ports, there = f"{site.ray.ports.first}-{site.ray.ports.last}", host.ray_firewall
    standing = there.rules.get(ports, ()) if there else ()
    wanted = {
        ports: sorted({*(one.cluster_address for one in hosts.all), *still_let_in(current, standing)}),
        str(site.ray.serve_port): engine_sources(current, host),
    }
    if there and there.active and {name: sorted(found) for name, found in there.rules.items()} == wanted:
        return None
    return {"rules": [{"ports": name, "sources": sources} for name, sources in wanted.items()]}
