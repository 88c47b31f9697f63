"""Which images a deployment needs: those of its rendered plan, over hosts made up from the facts.

Nobody lists them: an image that rendering adds is in the lock without a word.
"""

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from onprem_llm.facts.as_hosts import hosts_of
from onprem_llm.hosts import Current, Gpu, HostState
from onprem_llm.machine_state import Disk
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_images import images_brought, images_in
from onprem_llm.planning.types import ImageSource, Wanted, WantedDeployment
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.gateway import Tls
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest

_ROOM = 2**60


def images_of(deployment: Deployment, weights: WeightsManifest, site: Site, facts: Facts) -> tuple[str, ...]:
    """Return every image that the plan of a deployment names, sorted; InvalidError where there is no such plan."""
    # A given certificate is on the site; it is none of the images' business.
    site = site.model_copy(update={"gateway": site.gateway.model_copy(update={"tls": Tls()})})
    sources = {ref: ImageSource(ref, pull=_stand_in(ref)) for ref in _named(deployment, site)}
    # Ray's replicas run in nodes of one image, the deployment's own; what else there is is the same.
    once = deployment.model_copy(update={"replicas": 1, "backend": "compose"})
    item = WantedDeployment(once, weights, source="/", image=sources[deployment.engine.image])
    wanted = Wanted(
        (item,),
        focus=deployment.name,
        ui_image=sources.get(site.open_webui.image),
        gateway_image=sources[site.gateway.image],
    )
    made = plan(site, wanted, Current(tuple(_hosts(deployment, site, facts))))
    back = {source.pull: ref for ref, source in sources.items()}
    # Where somebody else runs the cluster, its image is theirs.
    elsewhere = {deployment.engine.image} if deployment.backend == "ray" and site.ray.address else set()
    return tuple(sorted({back.get(name, name) for name in (*images_in(made), *images_brought(made))} - elsewhere))


def _named(deployment: Deployment, site: Site) -> tuple[str, ...]:
    ui = (site.open_webui.image,) if site.open_webui.enabled else ()
    return (deployment.engine.image, site.gateway.image, *ui)


def _stand_in(ref: str) -> str:
    """Return a digest that means this image in the plan, and nothing else."""
    return f"{ref.partition('@')[0].rpartition(':')[0] or ref}@sha256:{hashlib.sha256(ref.encode()).hexdigest()}"


def _hosts(deployment: Deployment, site: Site, facts: Facts) -> Iterable[HostState]:
    """Give hosts of the facts what the deployment asks for.

    Whether the real ones have it is the plan's to say, on the site; here it would hide which images they need.
    """
    # Addresses that a setting names are on whichever host it means.
    settings = (site.gateway.listen, site.open_webui.listen, deployment.listen)
    named = tuple(listen for listen in settings if _is_ip(listen))
    disk = Disk("/", _ROOM, _ROOM, 1)
    for host in hosts_of(facts, site):
        yield replace(
            host,
            disks={"data_root": disk, "weights": disk, "docker": disk},
            addresses=(*host.addresses, *named),
            gpus=tuple(_gpus(deployment, host.name)),
            groups=deployment.resources.hosts,
        )


def _gpus(deployment: Deployment, host: str) -> Iterable[Gpu]:
    wanted = deployment.resources
    count = 1 if wanted.gpus == "all" else wanted.gpus
    name = next(iter(wanted.gpu_models), "NVIDIA H100")
    for index in range(count):
        yield Gpu(index, f"GPU-{host}-{index}", name, 2**20, 0, "9.0", ())


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
