"""A Ray cluster that somebody else runs, at onprem_llm_site.ray.address: what it is for the plan, and its refusals.

Nothing of it is ours but the applications that it has just as they were told from the gateway host, or as the book or
the plan has them.
"""

import re
from collections.abc import Iterable
from itertools import chain

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.ray_book import on_ray
from onprem_llm.planning.ray_hosts import HEAD_GROUP, PROJECTS, WORKER_GROUP
from onprem_llm.planning.ray_nodes import KEY
from onprem_llm.planning.ray_nodes_standing import Cluster, Place
from onprem_llm.planning.types import Change
from onprem_llm.rendering.ray_serve import RayApplication, application, route_prefix
from onprem_llm.serve_state import ServeState, told_digest
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site

# Serve before it stops the only replica for an update, and its API answers otherwise.
OLDEST = (2, 60)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAVES = "DELETING"
# What a PUT that has an application as it is builds once more: it is not built yet, or its last build failed.
BEGUN_ANEW = ("DEPLOYING", "DEPLOY_FAILED")


def refuse_with_address(site: Site, what: str, instead: str) -> None:
    """Raise InvalidError for what is done to nodes, where somebody else runs them."""
    if site.ray.address is not None:
        raise InvalidError(
            f"the Ray cluster at {site.ray.address} is run by somebody else (onprem_llm_site.ray.address): {what} is "
            "for a cluster of your own",
            hint=instead,
        )


def cluster_at_address(site: Site, current: Current) -> Cluster:
    """Return the cluster; InvalidError where it can be told nothing, UnreachableError where it is silent."""
    address = site.ray.address
    _refuse_own_nodes(site, current)
    asked = current.gateway
    serve = asked.serve if asked is not None else None
    if asked is None or serve is None or serve.elsewhere is None:
        raise UnreachableError(
            f"the Ray cluster at {address} was not asked: no gateway host answered", hint="onprem-llm status"
        )
    if serve.error:
        raise UnreachableError(
            f"{asked.name}: {serve.error}",
            hint=f"mend that and run this again; what {asked.name} needs of the cluster says docs/multi-node.md",
        )
    if not _is_new_enough(serve.elsewhere.version):
        raise InvalidError(
            f"the cluster at {address} runs Ray {serve.elsewhere.version}, expected 2.60 or newer: older ones stop the "
            "only replica before an update",
            hint="have it updated by who runs it, or name another one in onprem_llm_site.ray.address",
        )
    return as_it_is(site, current, asked)


def as_it_is(site: Site, current: Current, asked: HostState) -> Cluster:
    """Return the cluster that a gateway host has asked, whatever it says."""
    elsewhere = asked.serve.elsewhere if asked.serve else None
    nodes = elsewhere.nodes if elsewhere else {}
    places = tuple(Place(name, int(one.get("CPU", 0)), int(one.get("GPU", 0)), 0) for name, one in nodes.items())
    return Cluster(asked, (), places, places, current.gateways, weights=site.ray.weights or "")


def _refuse_own_nodes(site: Site, current: Current) -> None:
    grouped = [host.name for host in current.hosts if {HEAD_GROUP, WORKER_GROUP} & set(host.groups)]
    if grouped:
        raise InvalidError(
            f"onprem_llm_site.ray.address names a cluster that somebody else runs, and the inventory's groups "
            f"{HEAD_GROUP} and {WORKER_GROUP} have {', '.join(grouped)}; expected one of both",
            hint="take the hosts out of these groups, or leave address out",
        )
    standing = [host.name for host in current.hosts if set(PROJECTS) & set(host.projects)]
    if standing:
        raise InvalidError(
            f"onprem_llm_site.ray.address names a cluster that somebody else runs, and nodes of your own stand on "
            f"{', '.join(standing)}; expected one of both",
            hint="leave address out and run onprem-llm cluster down first, which ends what your own serves",
        )


def _is_new_enough(version: str | None) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return found is not None and (int(found.group(1)), int(found.group(2))) >= OLDEST


def check_at_address(site: Site, deployment: Deployment, current: Current, cluster: Cluster) -> None:
    """Raise InvalidError where Serve there cannot be asked by gateways, or has the path that the deployment takes."""
    serve = cluster.asked.serve
    if serve is None or serve.elsewhere is None:
        return
    if serve.proxies and serve.elsewhere.listens in LOOPBACK:
        raise InvalidError(
            f"Ray Serve's proxies at {site.ray.address} listen on {serve.elsewhere.listens} alone, expected an address "
            "that gateways reach",
            hint="who runs the cluster has to shut Serve down and start it with http_options: {host: 0.0.0.0}",
        )
    if serve.runs and serve.elsewhere.proxy_location == "Disabled":
        raise InvalidError(
            f"Ray Serve at {site.ray.address} has no proxies (proxy_location: Disabled), expected some: gateways send "
            "requests to them",
            hint="who runs the cluster has to shut Serve down and start it with proxy_location: EveryNode",
        )
    if serve.elsewhere.tls:
        raise InvalidError(
            f"Ray Serve's proxies at {site.ray.address} speak TLS (http_options.ssl_certfile), expected HTTP",
            hint="who runs the cluster has to start Serve without it; the gateway speaks TLS to clients",
        )
    name, route = deployment.name, route_prefix(deployment.name)
    mine = {name, *on_ray(current), *serve.told_from_here}
    for other, app in sorted(serve.applications.items()):
        if other in mine or app.status == LEAVES:
            continue
        if app.route == route or (app.route or "").startswith(f"{route}/"):
            raise InvalidError(
                f"{name}: the Ray cluster at {site.ray.address} has an application {other} at {app.route} that is not "
                f"ours: expected the path {route} not to be taken",
                hint="give the deployment another name; served_name may stay as it is",
            )


Digests = dict[str, list[str]]  # application -> each way in which it may have been told


def digests(*documents: Iterable[RayApplication]) -> Digests:
    """Return the digests of what these have."""
    found: Digests = {}
    for one in chain(*documents):
        told = told_digest(application(one))
        if told not in found.setdefault(one.deployment.name, []):
            found[one.deployment.name].append(told)
    return found


def is_ours(serve: ServeState, name: str, ours: Digests) -> bool:
    """Tell whether an application there is as the book or the plan has it, or as it was told from the gateway host.

    The name alone says nothing: the cluster may be another one than before, and somebody may have taken it meanwhile.
    """
    return name in serve.told_from_here or serve.applications[name].told in ours.get(name, ())


def _check_left_behind(site: Site, current: Current, serve: ServeState, ours: Digests) -> None:
    """Raise InvalidError where the book's were told at another address: they would go on there, unseen."""
    there = serve.elsewhere
    if there is None:
        return
    left = {name: at for name, at in there.told_elsewhere.items() if name in on_ray(current) and name not in there.told}
    left = {name: at for name, at in left.items() if name not in serve.applications or not is_ours(serve, name, ours)}
    if left:
        name, at = min(left.items())
        raise InvalidError(
            f"onprem_llm_site.ray.address: found {site.ray.address}, and {', '.join(sorted(left))} went to the Ray "
            f"cluster at {at}, where it would stay, in nobody's sight",
            hint=f"set address to {at} and run onprem-llm down {name} first. Where that cluster is gone for good: take "
            f"address out of onprem_llm_site.ray, then onprem-llm down {name}",
        )


def removed_too(cluster: Cluster, kept: Iterable[str]) -> tuple[Change, ...]:
    """Return what goes with the next document: told from the gateway host, and in no book."""
    serve = cluster.asked.serve
    gone = sorted(serve.told_from_here - set(kept)) if serve is not None else []
    return tuple(
        Change(cluster.asked.name, f"{name} on Ray", "remove", ("the book does not have it",)) for name in gone
    )


def check_ours(site: Site, current: Current, cluster: Cluster, ours: Digests) -> None:
    """Raise InvalidError where somebody else's application has a name of ours."""
    serve = cluster.asked.serve
    if serve is None or serve.elsewhere is None:
        return
    _check_left_behind(site, current, serve, ours)
    for name in sorted(set(ours) & set(serve.applications)):
        app = serve.applications[name]
        if app.status == LEAVES or is_ours(serve, name, ours):
            continue
        given_up = (
            f". To give {name} up: take address out of onprem_llm_site.ray, then onprem-llm down {name}, which leaves "
            "the cluster as it is"
        )
        raise InvalidError(
            f"{name}: the Ray cluster at {site.ray.address} has an application {name} at {app.route} that is not ours: "
            f"it is as neither {cluster.asked.name} told it nor the book or the model.yaml has it",
            hint="give the deployment another name (served_name may stay as it is), or have who runs the cluster take "
            f"it away{given_up if name in current.book else ''}",
        )


def at_address_warnings(site: Site, deployment: Deployment, current: Current, cluster: Cluster) -> tuple[str, ...]:
    """Say what crosses the network in clear, and whose applications a PUT begins anew although it changes nothing."""
    clear = site.ray.token_file is not None and (site.ray.address or "").startswith("http://")
    found = [f"the Ray cluster's token goes to {site.ray.address} in clear: have its dashboard answer over TLS and "
             "write https://"] if clear else []  # fmt: skip
    serve = cluster.asked.serve
    mine = {deployment.name, *on_ray(current), *(serve.told_from_here if serve is not None else ())}
    built = [name for name, app in (serve.applications.items() if serve else ()) if app.status in BEGUN_ANEW]
    if others := sorted(set(built) - mine):
        found.append(
            f"Ray Serve at {site.ray.address} has not built {', '.join(others)}, which somebody else deploys: what "
            "it is told next has it begin that anew. Wait until it runs, or ask whose it is"
        )
    return tuple(found)


def token_change(cluster: Cluster) -> tuple[Change, ...]:
    """Return the token's way to the gateway host, where it is not there as the settings have it."""
    elsewhere = cluster.elsewhere
    if elsewhere is None or elsewhere.token_here:
        return ()
    return (Change(cluster.asked.name, "token of Ray", "update", ("onprem_llm_site.ray.token_file",)),)


def token_references(site: Site, project: str) -> dict[str, dict[str, dict[str, str]]]:
    """Return where the token is read for a step that tells Serve: a project of plan.secrets."""
    return {project: {"token": {"from_file": site.ray.token_file}}} if site.ray.token_file else {}


def order_at_address(site: Site, cluster: Cluster, ours: Digests) -> dict[str, object]:
    """Return the part of an order of ray_serve.yml that says where Serve is, and what is ours there."""
    serve = cluster.asked.serve
    return {
        "address": site.ray.address,
        "token": KEY if site.ray.token_file else "",
        "ours": ours,
        "runs": serve is not None and serve.runs,
    }
