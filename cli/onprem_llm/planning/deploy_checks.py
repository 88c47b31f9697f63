"""What a plan of a deployment is refused for once it is known what goes where: room on disks, ports of others."""

from collections.abc import Iterable, Mapping

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import Claim, check_ports
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import PlannedGateway
from onprem_llm.planning.local_registries import PlannedLocal
from onprem_llm.planning.registry import PlannedRegistry
from onprem_llm.planning.staging import HostWork, check_space
from onprem_llm.planning.types import UI_PROJECT
from onprem_llm.planning.web_ui import PlannedUi


def check_room(
    work: Mapping[str, HostWork],
    registry: PlannedRegistry | None,
    local: tuple[PlannedLocal, ...],
    gateway: HostState,
) -> None:
    """Raise InvalidError where a host has no room for what is brought to it."""
    own = {one.host.name: one for one in local}
    hosts = {part.host.name: part.host for part in work.values()} | {one.host.name: one.host for one in local}
    for name, host in {gateway.name: gateway, **hosts}.items():
        part, mine = work.get(name), own.get(name)
        check_space(
            host,
            weights=part.weights.bytes if part and part.weights else 0,
            images=(part.image_bytes if part else 0) + (mine.bytes if mine else 0),
            store=mine.coming if mine else registry.bytes if registry and host is gateway else 0,
            pulled=mine.coming if mine else 0,
        )


def check_claims(
    fleet: Fleet,
    gateways: tuple[PlannedGateway, ...],
    ui: PlannedUi | None,
    registries: Iterable[tuple[HostState, Claim]],
    gateway: HostState,
) -> None:
    """Raise InvalidError where a port that this plan needs is another's; `registries` are the hosts that run one."""
    claims: dict[str, list[Claim]] = {}
    hosts = {gateway.name: gateway}
    for replica in fleet.replicas:
        hosts[replica.host.name] = replica.host
        claims.setdefault(replica.host.name, []).append(replica.claim)
    for one in gateways:
        hosts[one.host.name] = one.host
        claims.setdefault(one.host.name, []).append(one.claim)
    if ui and ui.outcome:
        claims.setdefault(gateway.name, []).append(ui.claim)
    for host, claim in registries:
        hosts[host.name] = host
        claims.setdefault(host.name, []).append(claim)
    gone_ui = {UI_PROJECT} if ui and ui.removed else set()
    for name, wanted in claims.items():
        going = {s.project for s in fleet.leaving if s.host.name == name and not s.serving}
        check_ports(hosts[name], wanted, going | (gone_ui if name == gateway.name else set()))
