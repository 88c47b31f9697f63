"""`onprem-llm cluster`: the site's Ray cluster."""

import click

from onprem_llm import output
from onprem_llm.apply import apply
from onprem_llm.changing import carry_out, change_options
from onprem_llm.clusters import Node, RayView, down_plan, drain_plan, image_plan, seen, up_plan
from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.json_values import is_list
from onprem_llm.options import connection_options
from onprem_llm.plan_view import plan_text

TIMEOUT = click.option(
    "--timeout", type=click.IntRange(1), default=900, show_default=True, metavar="SECONDS",
    help="How long a worker's replicas may take to start elsewhere.",
)  # fmt: skip
NODES = ("host", "role", "container", "health", "in Ray", "CPUs", "GPUs", "address")
NODES_ELSEWHERE = ("node", "role", "CPUs", "GPUs", "Serve's proxy")
APPLICATIONS = ("application", "status", "replicas", "message")


@click.group("cluster", short_help="The Ray cluster: up, status, add, drain, down.")
def command() -> None:
    """The Ray cluster of the inventory's groups `ray_head` (one host) and `ray_worker`.

    \b
    Example:
      onprem-llm cluster up
      onprem-llm cluster status
    """


@command.command("up")
@TIMEOUT
@change_options
@connection_options(limit=False)
def up(timeout: int, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Bring the cluster up as the inventory and the settings have it. A second time nothing changes.

    The image is looked at on every host before anything starts: it must have Ray, and the same everywhere. Workers that
    change do so one after another: their replicas start elsewhere first. Where all nodes have to stop together, which
    another Ray wants, the plan says so.

    \b
    Example:
      onprem-llm cluster up
    """
    _bring_image(connection, yes=yes, break_lock=break_lock, as_json=as_json)
    with output.glimpse() as progress:
        planned = up_plan(connection, progress, timeout=timeout)
    question, done = "Bring the cluster up?", "The cluster is up: onprem-llm cluster status"
    if planned.ends:
        question = "Stop all nodes and start them anew? What they serve ends."
    carry_out(planned.plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


def _bring_image(connection: Connection, *, yes: bool, break_lock: bool, as_json: bool) -> None:
    """Bring another image for a cluster that stands, and ask it for its Ray; no node is changed by that."""
    with output.glimpse() as progress:
        plan = image_plan(connection, progress)
    if plan is None:
        return
    if not as_json:
        output.say(plan_text(plan))
        output.say("\nNo node is changed by that. What their change costs is said once the image is there.")
    output.agree("\nBring the image?", yes=yes)
    with output.progress() as progress:
        apply(plan, connection, progress, break_lock=break_lock)


@command.command("add")
@click.argument("host")
@change_options
@connection_options(limit=False)
def add(host: str, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Have a host of the group `ray_worker` join the cluster, a new one or one that was drained.

    \b
    Example:
      onprem-llm cluster add server-4
    """
    with output.glimpse() as progress:
        plan = up_plan(connection, progress, only=host).plan
    question, done = f"Add {host} to the cluster?", f"{host} is in the cluster."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


@command.command("drain")
@click.argument("host")
@TIMEOUT
@change_options
@connection_options(limit=False)
def drain(host: str, timeout: int, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Take a worker out of the cluster: its replicas start elsewhere first. To keep it out, take it from the inventory.

    \b
    Example:
      onprem-llm cluster drain server-4
    """
    with output.glimpse() as progress:
        plan = drain_plan(host, timeout, connection, progress)
    question, done = f"Drain {host}?", f"{host} is out of the cluster. Afterwards: onprem-llm cluster add {host}"
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


@command.command("down")
@click.option("--applications", is_flag=True, help="End what Ray Serve serves there, too.")
@change_options
@connection_options(limit=False)
def down(applications: bool, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Take the cluster down: containers, token and firewall rules; images and weights stay.

    \b
    Example:
      onprem-llm cluster down
    """
    with output.glimpse() as progress:
        plan = down_plan(connection, progress, applications_too=applications)
    question, done = "Take the cluster down?", "The cluster is down."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(limit=False)
def status(as_json: bool, connection: Connection) -> None:
    """Show the nodes, as docker has them and as Ray has them, and what Ray Serve serves.

    \b
    Example:
      onprem-llm cluster status
      onprem-llm cluster status --json | jq '.nodes[].ray'
    """
    with output.glimpse() as progress:
        nodes, ray, silent = seen(connection, progress)
    if as_json:
        applications = dict(ray.applications) if ray.applications is not None else None
        elsewhere = {"address": ray.address, "version": ray.version} if ray.address else {}
        output.show_json(
            {
                **elsewhere,
                "nodes": [node.as_json() for node in nodes],
                "applications": applications,
                "error": ray.error,
                "unreachable": silent,
            }
        )
    else:
        output.say(_text(nodes, ray))
    if silent:
        raise UnreachableError(f"did not answer: {', '.join(silent)}", hint="what they run is not shown above")


def _text(nodes: list[Node], ray: RayView) -> str:
    if not nodes and not ray.address:
        return "No host has a node of a Ray cluster: onprem-llm cluster up"
    parts = []
    if ray.address:
        parts.append(f"The Ray cluster at {ray.address}, which somebody else runs: Ray {ray.version or 'unknown'}")
    if nodes:
        own, elsewhere = (NODES, _cells), (NODES_ELSEWHERE, _cells_elsewhere)
        headings, cells = elsewhere if ray.address else own
        parts.append(output.table_text(headings, [cells(node) for node in nodes]))
    if ray.error:
        parts.append(f"Ray does not say how it is: {ray.error}")
    elif ray.applications:
        rows = [
            (
                name,
                str(app.get("status")),
                str(len(replicas) if is_list(replicas := app.get("replicas")) else 0),
                str(app.get("message") or ""),
                *([("ours" if app.get("ours") else "somebody else's")] if ray.address else []),
            )
            for name, app in ray.applications.items()
        ]
        parts.append(output.table_text((*APPLICATIONS, *(["whose"] if ray.address else [])), rows))
    else:
        parts.append("Ray Serve has no applications.")
    return "\n\n".join(parts)


def _cells(node: Node) -> tuple[str, ...]:
    return (
        node.host,
        node.role,
        node.state,
        node.health or "-",
        (node.ray or "not there").lower(),
        *_resources(node),
        node.address or "-",
    )


def _cells_elsewhere(node: Node) -> tuple[str, ...]:
    return (node.host, node.role, *_resources(node), (node.proxy or "none").lower())


def _resources(node: Node) -> tuple[str, str]:
    cpus, gpus = (node.resources.get(name) for name in ("CPU", "GPU"))
    return (
        f"{cpus:g}" if isinstance(cpus, int | float) else "0",
        f"{gpus:g}" if isinstance(gpus, int | float) else "0",
    )
