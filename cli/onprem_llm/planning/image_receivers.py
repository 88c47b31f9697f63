"""Which hosts can have a registry of their own, to get an image along a chain: a free port, room, what it runs from."""

from collections.abc import Iterable, Mapping

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import LOOPBACK, Claim, check_ports
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.staging import HostImage, check_space, image_for, weights_needs
from onprem_llm.planning.types import ImageSource, Wanted, WantedDeployment
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import Site


def able(
    site: Site,
    wanted: Wanted,
    item: WantedDeployment,
    fleet: Fleet,
    hosts: Iterable[HostState],
    coming: Mapping[str, int],
) -> list[HostState]:
    """Return those of the hosts; `coming` has the bytes of blobs that would come to each, by its name.

    For `fan_out: auto` alone: the others pull from the gateway host, and what that cannot do either is refused later.
    """
    hosts = list(hosts)
    weights = weights_needs(site, hosts, item.weights, item.source) if item.weights and hosts else {}
    found = []
    for host in hosts:
        claims = [replica.claim for replica in fleet.replicas if replica.host.name == host.name]
        blobs, need = coming[host.name], weights.get(host.name)
        try:
            check_ports(host, [*claims, Claim(PROJECT, LOOPBACK, site.registry_port)], _going(fleet, host))
            images = own_image(site, wanted, host).bytes
            check_space(host, weights=need.bytes if need else 0, images=images, store=blobs, pulled=blobs)
        except InvalidError:
            continue
        found.append(host)
    return found


def own_image(site: Site, wanted: Wanted, host: HostState) -> HostImage:
    """Resolve the image of a host's own registry; InvalidError where nothing can bring it there."""
    return image_for(host, wanted.registry_image or ImageSource(site.registry_image), None)


def unless_auto(error: InvalidError) -> InvalidError:
    """Return why a receiver is refused, which it is where the site insists alone, with the setting that avoids it."""
    hint = "or set onprem_llm_site.fan_out: auto, with which this host pulls from the gateway host's registry"
    return InvalidError(error.message, details=error.details, hint=f"{error.hint}; {hint}")


def can_start(site: Site, wanted: Wanted, host: HostState) -> bool:
    """Tell whether a host has what its own registry runs from, or something can bring it there."""
    try:
        own_image(site, wanted, host)
    except InvalidError:
        return False
    return True


def _going(fleet: Fleet, host: HostState) -> set[str]:
    return {one.project for one in fleet.leaving if one.host.name == host.name and not one.serving}
