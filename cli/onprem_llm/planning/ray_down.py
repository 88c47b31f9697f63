"""A deployment that is taken from Ray: the document without it, once no request goes there any more."""

from dataclasses import dataclass

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_at_address import check_ours, cluster_at_address, digests, removed_too
from onprem_llm.planning.ray_book import DOCUMENT, PROJECT, on_ray
from onprem_llm.planning.ray_deploy import applications
from onprem_llm.planning.ray_hosts import asked_host, standing_head
from onprem_llm.planning.ray_nodes_standing import Cluster, as_it_stands, runs
from onprem_llm.planning.ray_tell import serve_order
from onprem_llm.planning.rotation import drain_timeout
from onprem_llm.planning.types import Change, Step
from onprem_llm.rendering.ray_serve import serve_text
from onprem_llm.spec.deployment import Timeouts
from onprem_llm.spec.site import Site


def is_stray(current: Current, name: str) -> bool:
    """Tell whether Ray Serve has it and the book does not: its first deploy was cut off before the book was written."""
    asked = asked_host(current)
    serve = asked.serve if asked else None
    if serve is None:
        return False
    there = serve.told_from_here if serve.elsewhere else serve.applications
    return name not in current.book and name in there


@dataclass(frozen=True, slots=True)
class PlannedLeave:
    """What is told to Ray Serve, on the host that tells it."""

    host: HostState
    step: Step
    changes: tuple[Change, ...]
    files: dict[str, dict[str, str]]


def plan_serve_without(site: Site, current: Current, name: str) -> PlannedLeave | None:
    """Plan to take a deployment from Ray Serve, also one that only Serve knows; None where it is not on Ray, or
    where there is no cluster any more.

    UnreachableError where the cluster's head may be on a host that is silent, InvalidError where it does not run: the
    replicas would go on unseen, or come back with a head that forgets nothing.
    """
    book, head = on_ray(current), standing_head(current)
    if name not in book and not is_stray(current, name):
        return None
    if site.ray.address is not None:
        asked = cluster_at_address(site, current)
        return _leave(site, current, asked, name)
    if head is None and current.left_out:
        raise InvalidError(
            f"--limit leaves out the head of the Ray cluster, which runs {name}", hint="leave --limit out"
        )
    if head is None and awaited(current):
        raise UnreachableError(
            f"{name} runs on Ray, and no host that answered has the cluster's head; these did not answer: "
            f"{', '.join(awaited(current))}",
            hint="bring them back and run this again, so that nothing is left running there",
        )
    if head is None:
        return None
    if not runs(head):
        raise InvalidError(
            f"the head of the Ray cluster on {head.name} does not run: nobody can take {name} from Ray Serve, which "
            "may start it again with the head",
            hint="onprem-llm cluster up starts it; or take the cluster down, with all that it serves: "
            "onprem-llm cluster down --applications. Then run this again",
        )
    return _leave(site, current, as_it_stands(current, head), name)


def _leave(site: Site, current: Current, cluster: Cluster, name: str) -> PlannedLeave:
    host, book = cluster.asked, on_ray(current)
    left = {other: pair for other, pair in book.items() if other != name}
    text = serve_text(applications(cluster, left), port=site.ray.serve_port)
    ours = digests(applications(cluster, book))
    check_ours(site, current, cluster, ours)
    timeout = (
        drain_timeout(name, current.book.get(name)) + (book[name][0].timeouts if name in book else Timeouts()).start
    )
    order = serve_order(site, cluster, PROJECT, [], timeout, ours)
    return PlannedLeave(
        host,
        Step("ray_serve", f"Take {name} from Ray Serve", {host.name: order}),
        (Change(host.name, f"{name} on Ray", "remove", ("down",)), *removed_too(cluster, {name, *book})),
        {PROJECT: {DOCUMENT: text}},
    )
