"""What serves on a host while the fleet gets another driver, and what is left elsewhere meanwhile. Pure."""

from collections.abc import Collection, Iterable

from onprem_llm.errors import OnpremError
from onprem_llm.hosts import Current
from onprem_llm.planning.hosts_change import is_held_out_on, recorded_on
from onprem_llm.planning.replicas import runs, serves
from onprem_llm.planning.rotation import away, is_up
from onprem_llm.planning.standing import standing_of
from onprem_llm.spec.deployment import parse_deployment

# What the book says of a host that an upgrade has drained: the next one lets it in, and none that a person drained.
PURPOSE = "driver upgrade"


def serving_on(current: Current, host: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the replicas that get requests on a host, and the deployments that have none elsewhere meanwhile.

    Of a replica on a host that is not seen, out of a limit or silent, the gateway tells.
    """
    serving: list[str] = []
    alone: list[str] = []
    for name, mine in recorded_on(current, host).items():
        routed = [one for one in standing_of(name, current) if one.routed]
        here = [f"{name}/{one.project}" for one in routed if one.project in mine]
        serving += here
        if here and len(here) == len(routed) and not _serves_unseen(current, name):
            alone.append(name)
    return tuple(serving), tuple(alone)


def _serves_unseen(current: Current, name: str) -> bool:
    unseen = {
        project: host
        for project, at in current.book[name].replicas.items()
        for host in at.hosts
        if current.host(host) is None
    }
    return any(is_up(f"{name}/{project}", current) and not away(host, current) for project, host in unseen.items())


def drained_hosts(current: Current) -> tuple[str, ...]:
    """Name the hosts that the book has for drained, seen or not."""
    return tuple(name for name, mark in current.marks.items() if mark.state == "drained")


def left_by_upgrade(current: Current, host: str) -> bool:
    """Tell whether an upgrade has drained a host, and come to no end there."""
    mark = current.marks.get(host)
    return mark is not None and mark.state == "drained" and mark.purpose == PURPOSE


def undrain_words(hosts: Iterable[str]) -> str:
    """Say how hosts are let in again."""
    return "; ".join(f"onprem-llm host undrain {host}" for host in hosts)


def drained_beside(current: Current, host: str, alone: Iterable[str]) -> tuple[str, ...]:
    """Name the drained hosts that have replicas of deployments too, which get no requests elsewhere than on a host."""
    drained = [name for name in drained_hosts(current) if name != host]
    return tuple(name for name in drained if set(alone) & set(recorded_on(current, name)))


def leaving(current: Current, host: str, agreed: Collection[str]) -> tuple[str, ...]:
    """Return the replicas that leave rotation with a host. OnpremError where the last of a deployment would.

    `agreed`: the deployments of which a person knows it; not where a drained host could be let in instead.
    """
    serving, alone = serving_on(current, host)
    beside = drained_beside(current, host, alone)
    if beside:
        them = ", ".join(alone)
        raise OnpremError(
            f"{host}: found that {', '.join(beside)} is drained, which has {them} too, expected {them} in rotation "
            "there: it would have no replica in this turn",
            hint=undrain_words(beside),
        )
    more = [name for name in alone if name not in agreed]
    if more:
        raise OnpremError(
            f"{host}: found no other replica in rotation of {', '.join(more)}, expected one, as planned",
            hint="onprem-llm status shows why",
        )
    return serving


def served_on(current: Current, host: str) -> list[str]:
    """Return the projects of ours that are healthy on a host, in rotation or not."""
    state = current.host(host)
    return [project for project in _projects(current, host) if state is not None and serves(state, project)]


def starting_on(current: Current, host: str) -> list[str]:
    """Return the projects of ours that are healthy on a host, or on the way there."""
    state = current.host(host)
    return [project for project in _projects(current, host) if state is not None and runs(state, project)]


def _projects(current: Current, host: str) -> list[str]:
    return [project for those in recorded_on(current, host).values() for project in those]


def is_out(current: Current, host: str) -> bool:
    """Tell whether a host is out of rotation: the book says so, or a gateway keeps requests from a replica there."""
    return host in current.marks or is_held_out_on(current, host)


def is_half_out(current: Current, host: str) -> bool:
    """Tell whether a drain was cut off: a gateway keeps requests from a replica, and the book says nothing of it."""
    return host not in current.marks and is_out(current, host)


def start_seconds(current: Current, host: str) -> float:
    """Return how long the replicas of a host may take to start, as their model.yaml says."""
    names = recorded_on(current, host)
    specs = [parse_deployment(current.book[name].model_yaml, f"the book's {name}") for name in names]
    return float(max((one.timeouts.start for one in specs), default=0))
