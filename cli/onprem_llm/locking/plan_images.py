"""Which images a deployment needs: those of its rendered plan, over hosts made up from the facts.

Nobody lists them: an image that rendering adds is in the lock without a word.
"""

import hashlib
import ipaddress
from collections.abc import Iterable

from onprem_llm.gateway_state import Certificate
from onprem_llm.hosts import Book, Current, Gpu, HostState
from onprem_llm.machine_state import Disk, Engine
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_images import images_brought, images_in
from onprem_llm.planning.types import ImageSource, Wanted, WantedDeployment
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.gateway import Tls
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest

_ROOM = 2**60
_FAR = 2**40  # seconds: a certificate that does not end


def images_of(deployment: Deployment, weights: WeightsManifest, site: Site, facts: Facts) -> tuple[str, ...]:
    """Return every image that the plan of a deployment names, sorted; InvalidError where there is no such plan."""
    # A given certificate is on the site; it is none of the images' business.
    site = site.model_copy(update={"gateway": site.gateway.model_copy(update={"tls": Tls()})})
    sources = {ref: ImageSource(ref, pull=_stand_in(ref)) for ref in _named(deployment, site)}
    item = WantedDeployment(
        deployment.model_copy(update={"replicas": 1}), weights, source="/", image=sources[deployment.engine.image]
    )
    wanted = Wanted(
        (item,),
        focus=deployment.name,
        ui_image=sources.get(site.open_webui.image),
        gateway_image=sources[site.gateway.image],
    )
    made = plan(site, wanted, Current(tuple(_hosts(deployment, site, facts))))
    back = {source.pull: ref for ref, source in sources.items()}
    return tuple(sorted({back.get(name, name) for name in (*images_in(made), *images_brought(made))}))


def _named(deployment: Deployment, site: Site) -> tuple[str, ...]:
    ui = (site.open_webui.image,) if site.open_webui.enabled else ()
    return (deployment.engine.image, site.gateway.image, *ui)


def _stand_in(ref: str) -> str:
    """Return a digest that means this image in the plan, and nothing else."""
    return f"{ref.partition('@')[0].rpartition(':')[0] or ref}@sha256:{hashlib.sha256(ref.encode()).hexdigest()}"


def _hosts(deployment: Deployment, site: Site, facts: Facts) -> Iterable[HostState]:
    """Make hosts of the facts that are prepared, empty, and have what the deployment asks for.

    Whether the real ones do is the plan's to say, on the site; here it would hide which images they need.
    """
    for number, name in enumerate(facts.hosts):
        own = _address(site, number)
        # Addresses that a setting names are on whichever host it means.
        named = [
            listen for listen in (site.gateway.listen, site.open_webui.listen, deployment.listen) if _is_ip(listen)
        ]
        disk = Disk("/", _ROOM, _ROOM, 1)
        yield HostState(
            name=name, hostname=name, os_name="", arch=facts.hosts[name].architecture, cpus=1, memory_total=_ROOM,
            memory_available=_ROOM, boot_id=None, disks={"data_root": disk, "weights": disk, "docker": disk},
            addresses=(own, *named), default_address=own, listeners=(), gpu_tool=True, driver="999.0", cuda="99.0",
            gpu_error=None, gpus=tuple(_gpus(deployment, name)),
            engine=Engine(True, "99.0", "99.0", True, ("runc", "nvidia"), "/var/lib/docker", None, ("all",)),
            images=(), projects={}, keys={}, env_secrets={}, weights={},
            book=Book(gateway=number == 0, deployments={}) if number == 0 else None, lock=None, site={},
            groups=deployment.resources.hosts, ansible_host=None,
            certificates={"ca": Certificate(_FAR, ()), "gateway": Certificate(_FAR, ())},
            interfaces={own: site.gateway.interface or "eth0"},
        )  # fmt: skip


def _gpus(deployment: Deployment, host: str) -> Iterable[Gpu]:
    wanted = deployment.resources
    count = 1 if wanted.gpus == "all" else wanted.gpus
    name = next(iter(wanted.gpu_models), "NVIDIA H100")
    for index in range(count):
        yield Gpu(index, f"GPU-{host}-{index}", name, 2**20, 0, "9.0", ())


def _address(site: Site, number: int) -> str:
    shared = site.gateway.address
    if shared is not None and ipaddress.ip_address(shared).version == 6:
        return f"fd00::{number + 1:x}"
    return str(ipaddress.IPv4Address("198.18.0.1") + number)


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
