"""All deployments of the book, told to Ray Serve once more: to a head that was started anew and has forgotten them."""

from onprem_llm.hosts import Current
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_book import DOCUMENT, PROJECT, on_ray
from onprem_llm.planning.ray_deploy import applications
from onprem_llm.planning.ray_hosts import RayHosts
from onprem_llm.planning.ray_nodes_standing import cluster_of
from onprem_llm.planning.ray_tell import serve_order
from onprem_llm.planning.types import Step
from onprem_llm.rendering.ray_serve import serve_text
from onprem_llm.spec.site import Site

# Until Ray's API answers; what it is told is waited for by nobody.
ANSWER_SECONDS = 300


def tell_again(site: Site, current: Current, hosts: RayHosts) -> tuple[Step, dict[str, dict[str, str]]] | None:
    """Return the step for a cluster of these hosts, and its files on the head's; None where none is on Ray.

    The step changes nothing where Serve has it all.
    """
    book = on_ray(current)
    if not book:
        return None
    carriers = (*hosts.workers, *((hosts.head,) if hosts.head_carries else ()))
    cluster = cluster_of(hosts.head, hosts.all, carriers, awaited(current))
    text = serve_text(applications(cluster, book), port=site.ray.serve_port)
    order = serve_order(site, cluster, PROJECT, [], ANSWER_SECONDS)
    step = Step("ray_serve", "Tell Ray Serve of all deployments again", {hosts.head.name: order})
    return step, {PROJECT: {DOCUMENT: text}}
