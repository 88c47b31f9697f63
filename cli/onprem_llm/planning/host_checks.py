"""What keeps a host from being drained, from leaving, or from taking another one's place."""

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current
from onprem_llm.planning.gateway import PROJECT
from onprem_llm.planning.shared_address import PROJECT as SHARED_ADDRESS
from onprem_llm.planning.types import UI_PROJECT
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT


def require_host(current: Current, name: str, *, silent: bool = False) -> None:
    """Raise InvalidError for a host that the inventory has not, UnreachableError for one that must answer."""
    known = [*(host.name for host in current.hosts), *current.unreachable]
    if name not in known:
        raise InvalidError(f"no host is called {name!r}; the inventory has: {', '.join(sorted(known))}")
    if name in current.unreachable and not silent:
        raise UnreachableError(
            f"{name} did not answer",
            hint=f"bring it back; if it is gone for good: onprem-llm host remove {name} --lost",
        )


def require_ready(current: Current, name: str) -> None:
    """Raise where nothing new can go to a host: it is silent, the book says so, or bootstrap has not prepared it."""
    require_host(current, name)
    host, mark = current.host(name), current.marks.get(name)
    if mark is not None:
        raise InvalidError(f"{name} is {mark.state}: nothing new goes there", hint=f"onprem-llm host undrain {name}")
    if host is None or not host.engine.running:
        raise InvalidError(
            f"{name} is not prepared: {(host.engine.error if host else None) or 'its container engine does not run'}",
            hint=f"onprem-llm bootstrap INVENTORY --limit {name}",
        )


def check_removable(current: Current, name: str, *, lost: bool) -> None:
    """Raise where a host cannot be removed: the gateway, one that is silent, or one that answers and is called lost."""
    require_host(current, name, silent=True)
    gateway = current.gateway
    if gateway is not None and gateway.name == name:
        raise InvalidError(
            f"{name} is the gateway host: the book, the keys and the page's chats are there",
            hint="make another host the gateway first: onprem-llm gateway move HOST",
        )
    silent = name in current.unreachable
    if silent and not lost:
        raise UnreachableError(
            f"{name} did not answer: what runs there cannot be taken away",
            hint=f"bring it back; if it is gone for good, declare it lost: onprem-llm host remove {name} --lost",
        )
    refuse_worker(current, name)
    _refuse_head(current, name)
    if lost and not silent:
        raise InvalidError(
            f"{name} answers, so it is not lost",
            hint=f"leave --lost out: its replicas are drained before they go: onprem-llm host remove {name}",
        )


def refuse_worker(current: Current, name: str) -> None:
    """Raise InvalidError for a host with a worker of the Ray cluster: what serves there is Ray's to move."""
    host = current.host(name)
    if host is not None and WORKER_PROJECT in host.projects:
        raise InvalidError(
            f"{name} has a worker of the Ray cluster: Ray starts what serves there elsewhere, and nobody else can",
            hint=f"onprem-llm cluster drain {name}, then run this again; to bring the worker back: "
            f"onprem-llm cluster add {name}",
        )


def _refuse_head(current: Current, name: str) -> None:
    host = current.host(name)
    if host is not None and HEAD_PROJECT in host.projects:
        raise InvalidError(
            f"{name} has the head of the Ray cluster: without it nothing on Ray serves",
            hint="onprem-llm cluster down, which ends what Ray serves; with another host in the inventory's group "
            "ray_head, cluster up brings the cluster up again",
        )


def leftovers(current: Current, name: str) -> list[str]:
    """Return the projects, and `book`, that a host has from a time as gateway host and must not have any more."""
    host = current.host(name)
    if host is None or host in current.gateways:
        return []
    found = [project for project in (SHARED_ADDRESS, PROJECT, UI_PROJECT) if project in host.projects]
    return [*found, *(["book"] if host.book is not None else [])]


def check_replacement(current: Current, old: str, new: str) -> None:
    """Raise where a host cannot take another one's place."""
    if old == new:
        raise InvalidError(f"{new} cannot take its own place", hint="name the host that leaves, then the new one")
    require_ready(current, new)
