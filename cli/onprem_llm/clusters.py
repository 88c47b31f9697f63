"""The site's Ray cluster for the commands: plans of it, and what Ray itself says of its nodes and applications."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.hosts import Current, HostState
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.look import View, gateway_of, look, look_whole
from onprem_llm.output import Progress
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_at_address import as_it_is, digests, is_ours, refuse_with_address
from onprem_llm.planning.ray_book import on_ray
from onprem_llm.planning.ray_cluster import OtherImage, PlannedUp, other_image, plan_image, plan_up
from onprem_llm.planning.ray_deploy import applications
from onprem_llm.planning.ray_hosts import PROJECTS, asked_host, standing_head
from onprem_llm.planning.ray_leaving import plan_down, plan_drain
from onprem_llm.planning.ray_rolling import Known
from onprem_llm.planning.ray_steps import ask_order
from onprem_llm.planning.registry_first import registry_first
from onprem_llm.planning.types import ImageSource, Plan, Wanted
from onprem_llm.probe_values import mapping, text
from onprem_llm.registry import resolve
from onprem_llm.rendering.ray_node import HEAD_PROJECT
from onprem_llm.run_events import RunResult
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site
from onprem_llm.wanted import Images, load_site

# Seconds for Ray's own answer to `status`; a head that is well takes a fraction of one.
ANSWER_SECONDS = 20
ELSEWHERE = "who runs the cluster does that there, with what it was made with"


@dataclass(frozen=True)
class RayView:
    """What Ray says: its nodes and applications, as module ray_nodes returns them; `error` where it says nothing.

    `address` and `version`: of a cluster that somebody else runs.
    """

    nodes: Sequence[Mapping[str, object]] = ()
    applications: Mapping[str, Mapping[str, object]] | None = None
    error: str | None = None
    address: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Node:
    """A node of ours on a host, and what Ray says of it. `ray`: ALIVE or DEAD; None where it is not among its nodes.

    `proxy`: what Serve says of its own there. One that somebody else runs is called by its address.
    """

    host: str
    role: str
    state: str
    health: str | None
    address: str | None
    ray: str | None
    resources: Mapping[str, object]
    proxy: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return it for --json."""
        return {**self.__dict__, "resources": dict(self.resources)}


def image_plan(connection: Connection, progress: Progress) -> Plan | None:
    """Plan to bring the cluster's next image; None where it is there, or no cluster stands.

    What the change of a cluster costs says the image's Ray, which only a host that has it can say.
    """
    view, site, image = _wanted(connection, progress)
    other = other_image(view.current, image)
    if other is None or other.there:
        return None
    return _with_registry(plan_image(site, view.current, gateway_of(view), image), site, view, connection)


def up_plan(connection: Connection, progress: Progress, only: str | None = None, timeout: int = 900) -> PlannedUp:
    """Look at the hosts and plan the cluster as the inventory has it, or one worker more.

    `timeout`: seconds that the replicas of each worker may take to start elsewhere, where it is made anew.
    """
    view, site, image = _wanted(connection, progress)
    other = other_image(view.current, image)
    rays = _rays(other, connection, progress) if other is not None and other.there else None
    planned = plan_up(site, view.current, gateway_of(view), image, only, Known(rays, timeout))
    return replace(planned, plan=_with_registry(planned.plan, site, view, connection))


def _wanted(connection: Connection, progress: Progress) -> tuple[View, Site, ImageSource]:
    """Look at the hosts; return the site, and the image that the cluster's nodes are to run."""
    view = look_whole(connection, progress)
    site, gateway = _site(view, connection), gateway_of(view)
    refuse_with_address(site, "onprem-llm cluster up|add", f"{ELSEWHERE}; deploy uses it as it is")
    if site.ray.image is None:
        raise InvalidError(
            f"{connection.inventory}: onprem_llm_site.ray.image: found nothing, expected an image with Ray in it",
            hint="write it into group_vars/all.yml: onprem_llm_site: {ray: {image: 'rayproject/ray-llm:…'}}; "
            "docs/site.md",
        )
    return view, site, _image(site.ray.image, site, view.current, gateway, connection, progress)


def _rays(other: OtherImage, connection: Connection, progress: Progress) -> tuple[str, str]:
    """Ask two images on the head's host for their Ray: the one that runs, and the one that is to run."""
    name = other.head.name
    order = {"image": other.wanted, "like": name, "standing": other.standing}
    with run_folder() as folder:
        variables = {"onprem_llm_order_file": str(write_orders(folder, 0, {name: order}))}
        title = "Asking the new image for its Ray"
        result = run("ray_image.yml", connection, hosts=[name], variables=variables, progress=progress, title=title)
        raise_for_failures(result, doing="looking at images for Ray (nothing was changed)")
    found = mapping(result.returned.get(name, {}).get("ray_image"))
    before, after = (text(mapping(found.get(which)), "ray") for which in ("standing", "versions"))
    return before or "none", after or "none"


def _with_registry(plan: Plan, site: Site, view: View, connection: Connection) -> Plan:
    """Return the plan with the site's own registry before it, where the nodes' image is pulled from that."""
    images = Images(site, connection.inventory, view.current)
    own = Wanted((), registry=images.registry, registry_image=images.registry_image)
    return registry_first(site, own, gateway_of(view), plan)


def drain_plan(host: str, timeout: int, connection: Connection, progress: Progress) -> Plan:
    """Look at the hosts and plan to take a worker out."""
    view = look_whole(connection, progress)
    site = _site(view, connection)
    refuse_with_address(site, "onprem-llm cluster drain", f"{ELSEWHERE}: `ray drain-node` on its head")
    return plan_drain(site, view.current, gateway_of(view), host, timeout)


def down_plan(connection: Connection, progress: Progress, *, applications_too: bool) -> Plan:
    """Look at the hosts and plan to take the cluster down.

    InvalidError while Ray Serve has applications, or may have some: nobody says that it has none.
    """
    view = look_whole(connection, progress)
    site = _site(view, connection)
    refuse_with_address(site, "onprem-llm cluster down", "onprem-llm down NAME takes a deployment of yours from it")
    plan = plan_down(site, view.current, gateway_of(view))
    # Workers end by themselves once there is no head anywhere.
    if not applications_too and plan.changes and (standing_head(view.current) or awaited(view.current)):
        ray = ask_ray(site, view.current, connection, progress)
        if ray.error or ray.applications:
            found = ", ".join(sorted(ray.applications or {})) or "none said, as Ray does not answer"
            raise InvalidError(
                f"Ray Serve may have applications on this cluster: found {found}; expected none",
                details=ray.error,
                hint="take them away first, or say --applications to have them end now",
            )
    return plan


def seen(connection: Connection, progress: Progress) -> tuple[list[Node], RayView, list[str]]:
    """Return our nodes, what Ray says, and the hosts that did not answer."""
    view = look(connection, progress)
    site = _site(view, connection)
    if site.ray.address is not None:
        return *_elsewhere(view.current, site), list(view.current.unreachable)
    ray = ask_ray(site, view.current, connection, progress)
    head = standing_head(view.current)
    nodes = [
        _node(host, project, ray, head)
        for host in view.current.hosts
        for project in PROJECTS
        if project in host.projects
    ]
    return nodes, ray, list(view.current.unreachable)


def ask_ray(site: Site, current: Current, connection: Connection, progress: Progress) -> RayView:
    """Ask the head for nodes and applications; why it says nothing is in the answer."""
    head = standing_head(current)
    if head is None:
        return RayView(error="no host that answered has the cluster's head: onprem-llm cluster up")
    try:
        with run_folder() as folder:
            order = ask_order(site, head, (), ANSWER_SECONDS)
            variables = {"onprem_llm_order_file": str(write_orders(folder, 0, {head.name: order}))}
            result = run("ray_nodes.yml", connection, hosts=[head.name], variables=variables, progress=progress)
            raise_for_failures(result, doing="asking Ray")
    except OnpremError as error:
        return RayView(error="\n".join(text for text in (error.message, error.details) if text))
    return _ray_view(result, head)


def _elsewhere(current: Current, site: Site) -> tuple[list[Node], RayView]:
    """Return the nodes of a cluster that somebody else runs, and its applications: `ours` says which we told it."""
    asked = asked_host(current)
    serve = asked.serve if asked else None
    if asked is None or serve is None or serve.elsewhere is None:
        return [], RayView(error="no gateway host answered, which would ask it", address=site.ray.address)
    there, ours = serve.elsewhere, digests(applications(as_it_is(site, current, asked), on_ray(current)))
    nodes = [
        Node(name, "head" if name == there.head else "worker", "elsewhere", None, name, "ALIVE", resources,
             serve.proxies.get(name))
        for name, resources in there.nodes.items()
    ]  # fmt: skip
    shown = {
        name: {
            "status": app.status,
            "message": app.message,
            "replicas": [{"deployment": one.part, "address": one.address, "state": one.state} for one in app.replicas],
            "ours": is_ours(serve, name, ours),
        }
        for name, app in serve.applications.items()
    }
    error = f"{asked.name}: {serve.error}" if serve.error else None
    return nodes, RayView((), None if error else shown, error, site.ray.address, there.version)


def _ray_view(result: RunResult, head: HostState) -> RayView:
    found = result.returned.get(head.name, {}).get("ray")
    if not is_mapping(found):
        return RayView(error=f"{head.name}: Ray said nothing")
    nodes, applications = found.get("nodes"), found.get("applications")
    return RayView(
        [node for node in nodes if is_mapping(node)] if is_list(nodes) else [],
        {name: app for name, app in applications.items() if is_mapping(app)} if is_mapping(applications) else {},
    )


def _node(host: HostState, project: str, ray: RayView, standing: HostState | None) -> Node:
    found = host.projects[project]
    container = next(iter(found.containers), None)
    address = found.label("address")
    mine = [node for node in ray.nodes if node.get("address") == address]
    # A node that was restarted is listed once for each life.
    last = next((node for node in mine if node.get("state") == "ALIVE"), next(iter(mine), None))
    resources = last.get("resources") if last else None
    serve = standing.serve if standing else None
    return Node(
        host=host.name,
        role="head" if project == HEAD_PROJECT else "worker",
        state=container.state if container else "gone",
        health=container.health if container else None,
        address=address,
        ray=str(last.get("state")) if last else None,
        resources=resources if is_mapping(resources) else {},
        proxy=serve.proxies.get(address) if serve and address else None,
    )


def _site(view: View, connection: Connection) -> Site:
    return load_site(view.current, connection.inventory)


def _image(
    ref: str, site: Site, current: Current, gateway: HostState, connection: Connection, progress: Progress
) -> ImageSource:
    source = Images(site, connection.inventory, current).source(ref, None)
    if source.id or source.pull or any(host.image(ref) for host in current.hosts):
        return source
    return resolve([ref], site, gateway.name, connection, progress).get(ref, source)
