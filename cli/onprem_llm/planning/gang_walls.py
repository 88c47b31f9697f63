"""Which ports of a host are a gang's, and who reaches them: the addresses of its members, nobody else."""

from collections.abc import Collection, Sequence

from onprem_llm.gateway_state import GangWall
from onprem_llm.hosts import Current, HostState
from onprem_llm.hosts_digest import block_of
from onprem_llm.planning.fleet import Fleet


def gang_walls(
    host: HostState, current: Current, fleet: Fleet | None, gone: Collection[str] = ()
) -> tuple[GangWall, ...]:
    """Return the walls of a host: of the gangs that a fleet has there, and of those that stand and are not `gone`."""
    walls = {
        GangWall(tuple(rank.rank.ports), tuple(sorted(one.rank.me for one in replica.ranks if one.rank)))
        for replica in (fleet.replicas if fleet else ())
        for rank in replica.ranks
        if rank.rank is not None and rank.host.name == host.name
    }
    planned = {rank.project for rank in fleet.projects if rank.host.name == host.name} if fleet else set()
    standing = [name for name in host.projects if name not in planned and name not in gone]
    walls |= {wall for name in standing if (wall := _standing(host, name, current)) is not None}
    return tuple(sorted(walls, key=lambda wall: wall.ports))


def _standing(host: HostState, project: str, current: Current) -> GangWall | None:
    """Return the wall of a gang as it stands. Members on hosts out of sight are those that the rules let in now."""
    found = host.projects[project]
    gang, ports = found.label("gang"), tuple(block_of(found.label("gang_ports")))
    if gang is None or not ports:
        return None
    members = set(current.gang_addresses.get(gang, ()))
    if current.unreachable and host.firewall is not None:
        members |= {source for wall in host.firewall.gangs if wall.ports == ports for source in wall.sources}
    return GangWall(ports, tuple(sorted(members)))


def gang_rules(walls: Sequence[GangWall]) -> dict[str, object]:
    """Return the walls as an order has them; empty where there are none."""
    gangs = [{"ports": list(wall.ports), "sources": list(wall.sources)} for wall in walls]
    return {"gangs": gangs} if gangs else {}
