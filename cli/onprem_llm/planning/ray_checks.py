"""What a deployment on Ray is refused for: by its own text, by the site's settings, by the cluster as it stands."""

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.out_of_sight import unseen_because
from onprem_llm.planning.ray_at_address import at_address_warnings, check_at_address
from onprem_llm.planning.ray_nodes_standing import Cluster, node_container
from onprem_llm.rendering.ray_serve import ray_problems
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.engine_args import is_auto
from onprem_llm.spec.site import Site

# What has a meaning where we place replicas; Ray places them by itself.
OURS = {"port": 8000, "listen": "cluster", "gpu_access": None}
AGAIN = "onprem-llm cluster up"


def check_text(deployment: Deployment) -> None:
    """Raise InvalidError with each thing that a model.yaml asks for and Ray cannot do; before any host is looked at."""
    if deployment.backend != "ray":
        return
    problems = [*ray_problems(deployment), *_own_problems(deployment)]
    if problems:
        first, *more = problems
        raise InvalidError(
            f"{deployment.name}: {first}",
            details="\n".join(more) or None,
            hint="mend what is said above, or write backend: compose; docs/multi-node.md has both side by side",
        )


def _own_problems(deployment: Deployment) -> list[str]:
    found, resources = [], deployment.resources
    if is_auto(deployment.engine.engine_args):
        found.append(
            "engine.engine_args.tensor_parallel_size: found auto, expected a number with backend: ray: Ray chooses the "
            "hosts, so nobody counts their GPUs beforehand"
        )
    if resources.nodes != "auto":
        found.append(
            f"resources.nodes: found {resources.nodes}, expected auto with backend: ray: Ray spreads a replica over as "
            "many hosts as its parallel sizes take. Leave it out"
        )
    for name in ("hosts", "gpu_models"):
        if getattr(resources, name):
            found.append(
                f"resources.{name}: found {', '.join(getattr(resources, name))}, expected nothing with backend: ray: "
                "Ray chooses among all nodes of its cluster. Leave it out, and write the hosts into the inventory's "
                "group ray_worker"
            )
    if deployment.routing != "least_load":
        found.append(
            f"routing: found {deployment.routing}, expected least_load with backend: ray: Ray Serve chooses the "
            "replica of each request. Leave it out"
        )
    if deployment.task == "rerank":
        found.append(
            "task: found rerank, expected chat, completion or embed with backend: ray: Ray Serve LLM answers no rerank"
        )
    return found


def refuse_restart(deployment: Deployment) -> None:
    """Raise InvalidError where Ray runs it: Serve replaces replicas where what it was told differs, and only there."""
    if deployment.backend == "ray":
        raise InvalidError(
            f"{deployment.name}: a deployment on Ray is not restarted: Ray replaces replicas that do not answer by "
            "itself, and others where model.yaml changes",
            hint='write a variable into env of its model.yaml (RESTARTED: "1") and deploy it: replicas are replaced '
            "one after another. A node is restarted by: docker restart on its host",
        )


def check_same_backend(deployment: Deployment, current: Current) -> None:
    """Raise InvalidError where the book has it with the other backend: both at once would have one name."""
    entry = current.book.get(deployment.name)
    if entry is None:
        return
    before = parse_deployment(entry.model_yaml, f"the book's {deployment.name}").backend
    if before != deployment.backend:
        raise InvalidError(
            f"{deployment.name}: backend: found {deployment.backend}, and the book has it with {before}",
            hint=f"onprem-llm down {deployment.name}, then deploy it; or deploy it under another name first, and take "
            "this one down afterwards, so that clients have one of them at any time",
        )


def check_cluster(site: Site, deployment: Deployment, current: Current, cluster: Cluster) -> None:
    """Raise InvalidError where the cluster does not run what the deployment is for, or listens elsewhere."""
    if cluster.elsewhere:
        check_at_address(site, deployment, current, cluster)
    else:
        _check_image(site, deployment, cluster)
    if site.gateway.engine_tls == "on":
        raise InvalidError(
            f"{deployment.name}: backend: found ray, and onprem_llm_site.gateway.engine_tls is on: Ray Serve answers "
            "the gateway without TLS",
            hint="set engine_tls: auto, with which a deployment on Ray is only warned of; or write backend: compose",
        )
    serve = cluster.asked.serve
    if serve is not None and serve.proxies and serve.port not in (None, site.ray.serve_port):
        raise InvalidError(
            f"onprem_llm_site.ray.serve_port: found {site.ray.serve_port}, and Ray Serve listens on {serve.port}: it "
            "keeps the port that it began with",
            hint=f"set serve_port: {serve.port}"
            + ("" if cluster.elsewhere else f"; or onprem-llm cluster down --applications, then {AGAIN}"),
        )


def _check_image(site: Site, deployment: Deployment, cluster: Cluster) -> None:
    found, wanted = deployment.engine.image, site.ray.image
    if found != wanted:
        raise InvalidError(
            f"{deployment.name}: engine.image: found {found}, expected {wanted or 'onprem_llm_site.ray.image, unset'}: "
            "all nodes of the Ray cluster run one image",
            hint=f"write that one into model.yaml; or set onprem_llm_site.ray.image to this one, then {AGAIN}",
        )
    for host in cluster.nodes:
        image, container = host.image(found), node_container(host)
        if image is not None and container is not None and container.image != image.id:
            raise InvalidError(
                f"{host.name}: its Ray node runs {container.image[:19]}, and {found} is {image.id[:19]} there",
                hint=f"{AGAIN} starts the nodes from the image that the site names",
            )


def ray_warnings(site: Site, deployment: Deployment, current: Current, cluster: Cluster) -> tuple[str, ...]:
    """Say what has no effect on Ray, and what is not as it could be."""
    warnings = [
        f"{name}: {value} has no effect with backend: ray"
        for name, default in OURS.items()
        if (value := getattr(deployment, name)) != default
    ]
    if deployment.engine.shm_size is not None:
        warnings.append("engine.shm_size has no effect with backend: ray: a node has its host's /dev/shm")
    if deployment.resources.placement != "spread":
        warnings.append("resources.placement has no effect with backend: ray")
    if cluster.elsewhere:
        warnings += at_address_warnings(site, deployment, current, cluster)
    several = cluster.elsewhere is not None or len(current.hosts) + len(current.unreachable) > 1
    if site.gateway.engine_tls == "auto" and several:
        warnings.append(
            f"the gateway asks Ray Serve without TLS: requests for {deployment.name} cross the hosts' network in clear"
        )
    warnings += [f"{host.name}: its Ray node does not run: {AGAIN}" for host in cluster.nodes if not _is_running(host)]
    warnings += [
        f"{host}, which {unseen_because(current, host)}, gets no weights now: if it is in the Ray cluster, deploy again"
        for host in cluster.silent
    ]
    return tuple(warnings)


def _is_running(host: HostState) -> bool:
    container = node_container(host)
    return container is not None and container.state == "running"
