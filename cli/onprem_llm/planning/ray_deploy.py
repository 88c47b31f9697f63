"""What Ray Serve is to be told: one document of all deployments on Ray, and which of them it does not have so yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from onprem_llm.hosts import Current
from onprem_llm.planning.ray_at_address import (
    Digests,
    check_ours,
    cluster_at_address,
    digests,
    removed_too,
    token_change,
)
from onprem_llm.planning.ray_book import BEFORE, DOCUMENT, PROJECT, Pair, on_ray
from onprem_llm.planning.ray_checks import check_cluster, ray_warnings
from onprem_llm.planning.ray_gap import check_surge, gap_warning
from onprem_llm.planning.ray_hosts import standing_head
from onprem_llm.planning.ray_nodes_standing import (
    Cluster,
    as_it_stands,
    head_forgets,
    node_container,
    standing_cluster,
)
from onprem_llm.planning.ray_room import check_room, place, room_beside
from onprem_llm.planning.ray_walls import closed_nodes, wall_changes
from onprem_llm.planning.types import Action, Change, Order, WantedDeployment
from onprem_llm.rendering.ray_serve import RayApplication, application, serve_text
from onprem_llm.serve_state import RUNNING, ServeState, told_digest
from onprem_llm.spec.engine_args import parallel_size
from onprem_llm.spec.site import Site

# Processes that take requests from the proxies: two outlive the loss of a host.
INGRESSES = 2


@dataclass(frozen=True, slots=True)
class PlannedServe:
    """The document as it is to be and as it was, and what changes by it. `name`: the deployment in focus."""

    name: str
    cluster: Cluster
    text: str
    former: str
    told: tuple[Change, ...]  # what becomes of the deployments, the one in focus first
    warnings: tuple[str, ...]
    recorded: bool  # the book has the deployment as it is to be
    walls: Mapping[str, Order] = field(default_factory=dict)  # host -> rules that let the gateways in
    spare: bool = True  # there is room for one replica more
    ours: Digests = field(default_factory=dict)  # at an address: as the book has them, and as they are to be
    book: Digests = field(default_factory=dict)  # as the book has them

    @property
    def needed(self) -> bool:
        """Tell whether Serve is to be told anything, or has to be asked whether it serves."""
        return not self.recorded or any(change.action != "keep" for change in self.told)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is shown of all that changes."""
        return (*wall_changes(self.walls), *self.told)

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """Return project -> path -> text for the host that tells Serve."""
        return {PROJECT: {DOCUMENT: self.text}, BEFORE: {DOCUMENT: self.former}} if self.needed else {}

    @property
    def image(self) -> str:
        """The image that the nodes run; '' where they are not ours."""
        container = node_container(self.cluster.asked)
        return container.image if container else ""


def applications(cluster: Cluster, pairs: Mapping[str, Pair]) -> list[RayApplication]:
    """Return what Serve is told of each deployment: for its way of replacing, whether there is room for one more."""
    deployments = [deployment for deployment, _ in pairs.values()]
    ingresses = min(INGRESSES, max(1, len(cluster.places) + len(cluster.silent)))
    found = []
    for deployment, weights in pairs.values():
        room = room_beside(cluster, deployments)
        spare = place(room, deployment, cluster.most_gpus, 1) == 1
        path = f"{cluster.weights}/{weights}"
        one = RayApplication(deployment, deployment.replicas, path, cluster.most_gpus, ingresses, spare=spare)
        found.append(_as_told(cluster.asked.serve, one))
    return found


def _as_told(serve: ServeState | None, one: RayApplication) -> RayApplication:
    """Return it as Serve was told of it where nothing but the hosts differs.

    Which of them are there now comes and goes: that is no reason to tell anything, or to replace a replica.
    """
    there = serve.applications.get(one.deployment.name) if serve else None
    if there is None:
        return one
    size = parallel_size(one.deployment.engine.engine_args)
    ways = product((one.spare, not one.spare), range(1, INGRESSES + 1), (one.gpus_per_host, size, 0))
    others = (replace(one, spare=spare, ingresses=count, gpus_per_host=gpus) for spare, count, gpus in ways)
    return next((other for other in others if told_digest(application(other)) == there.told), one)


def plan_serve(
    site: Site, item: WantedDeployment, current: Current, why: tuple[str, ...], *, recorded: bool
) -> PlannedServe:
    """Plan the document with a deployment added or changed; InvalidError where the cluster cannot carry it.

    `why`: what changed in its model.yaml. `recorded`: the book has this revision.
    """
    if item.weights is None:
        raise ValueError("plan: the deployment in focus needs its weights' manifest")
    deployment = item.deployment
    cluster = cluster_at_address(site, current) if site.ray.address else standing_cluster(current)
    walls = closed_nodes(site, current, cluster)
    book = on_ray(current)
    after = applications(cluster, {**book, deployment.name: (deployment, item.weights.id)})
    port, former = site.ray.serve_port, applications(cluster, book)
    ours = digests(former, after)
    check_ours(site, current, cluster, ours)
    changes = _changes(cluster, after, deployment.name, why)
    focus = next(one for one in after if one.deployment.name == deployment.name)
    # What serves goes on, whatever the site's settings are by now, and with a worker less.
    if not recorded or any(change.action in {"create", "update"} for change in changes[:1]):
        check_cluster(site, deployment, current, cluster)
        check_room(cluster, deployment, [one for name, (one, _) in book.items() if name != deployment.name])
        if changes[0].action == "update":  # else no replica of it stands
            check_surge(cluster, former, after, deployment)
    told = [*changes, *token_change(cluster)]
    if not recorded or any(change.action != "keep" for change in told):
        told += removed_too(cluster, ours)
    return PlannedServe(
        deployment.name,
        cluster,
        serve_text(after, port=port),
        serve_text(former, port=port),
        tuple(told),
        (
            *ray_warnings(site, deployment, current, cluster),
            *gap_warning(former, after, deployment, why),
            *_forgets(cluster),
        ),
        recorded,
        walls,
        focus.spare,
        ours,
        digests(former),
    )


def plan_moved(site: Site, current: Current, name: str) -> PlannedServe | None:
    """Return what other gateways need of the cluster, however it is: to be let in. Serve is told nothing.

    None where no head is seen. Nothing is refused: what serves would be without a gateway.
    """
    head = standing_head(current)
    if head is None:
        return None
    cluster = as_it_stands(current, head)
    walls = closed_nodes(site, current, cluster, refused=False)
    return PlannedServe(name, cluster, "", "", (), (), recorded=True, walls=walls)


def _forgets(cluster: Cluster) -> tuple[str, ...]:
    if not head_forgets(cluster.asked):
        return ()
    return (
        "a head that is started anew forgets its applications (onprem_llm_site.ray.head_store: memory): the next "
        "deploy of anything on Ray tells it all again",
    )


def _changes(cluster: Cluster, after: Sequence[RayApplication], focus: str, why: tuple[str, ...]) -> list[Change]:
    """Return what becomes of the deployment in focus, then what is told of others."""
    changes = []
    for one in sorted(after, key=lambda one: one.deployment.name != focus):
        name, mine = one.deployment.name, one.deployment.name == focus
        action, reasons = _difference(cluster.asked.serve, one, why if mine else (), judged=mine)
        if mine or action != "keep":
            changes.append(Change(cluster.asked.name, f"{name} on Ray", action, reasons))
    return changes


def _difference(
    serve: ServeState | None, one: RayApplication, why: tuple[str, ...], *, judged: bool
) -> tuple[Action, tuple[str, ...]]:
    """Compare what Serve was told with what it is to be told. `judged`: it is also to serve."""
    if serve is None or serve.error:
        return "update", (*why, f"Ray says nothing of it: {serve.error if serve else 'it was not asked'}")
    there = serve.applications.get(one.deployment.name)
    if there is None:
        return "create", why
    if there.told != told_digest(application(one)):
        return "update", why or ("Ray Serve was told otherwise",)
    if judged and there.status != RUNNING:
        return "wait", (f"Ray says {there.status}" + (f": {there.message}" if there.message else ""),)
    return "keep", ()
