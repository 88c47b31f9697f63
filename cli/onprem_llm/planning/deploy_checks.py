"""What a plan of a deployment is refused for once it is known what goes where: room on disks, ports of others."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import Claim, check_ports
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import PlannedGateway
from onprem_llm.planning.image_receivers import unless_auto
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
        weights = part.weights.bytes if part and part.weights else 0
        images = part.image_bytes if part else 0
        if mine is None:
            store = registry.bytes if registry and host is gateway else 0
            check_space(host, weights=weights, images=images, store=store)
            continue
        _with_own_registry(
            mine,
            partial(
                check_space, host, weights=weights, images=images + mine.bytes, store=mine.coming, pulled=mine.coming
            ),
            partial(check_space, host, weights=weights, images=images),
        )


def check_claims(
    fleet: Fleet,
    gateways: tuple[PlannedGateway, ...],
    ui: PlannedUi | None,
    registries: Iterable[tuple[HostState, Claim]],
    local: tuple[PlannedLocal, ...],
    gateway: HostState,
) -> None:
    """Raise InvalidError where a port that this plan needs is another's; `registries` is the gateway host's."""
    claims: dict[str, list[Claim]] = {}
    hosts = {gateway.name: gateway}
    for replica in fleet.replicas:  # further ranks answer nobody, and a gang's own ports are chosen among free ones
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
    own = {one.host.name: one for one in local}
    hosts |= {one.host.name: one.host for one in local}
    gone_ui = {UI_PROJECT} if ui and ui.removed else set()
    for name in {**claims, **own}:
        wanted, mine = claims.get(name, []), own.get(name)
        going = {s.project for s in fleet.leaving if s.host.name == name and not s.serving}
        going |= gone_ui if name == gateway.name else set()
        without = partial(check_ports, hosts[name], wanted, going)
        if mine is None:
            without()
        else:
            _with_own_registry(mine, partial(check_ports, hosts[name], [*wanted, mine.claim], going), without)


def _with_own_registry(one: PlannedLocal, check: Callable[[], None], without: Callable[[], None]) -> None:
    """Do a host's check; where it holds without the registry to which a chain brings an image, say what avoids that.

    In `fan_out: auto` such a host is in no chain (image_receivers.py): this is for a site that insists.
    """
    try:
        check()
    except InvalidError as error:
        if not one.coming:
            raise
        without()
        raise unless_auto(error) from None
