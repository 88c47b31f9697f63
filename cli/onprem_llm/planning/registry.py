"""The site's own registry on the gateway host: filled and started before any host asks it for an image."""

from collections.abc import Iterable
from dataclasses import dataclass

from onprem_llm.bundle.registry_view import blob_path
from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim
from onprem_llm.planning.certificates import good
from onprem_llm.planning.difference import Outcome, compare
from onprem_llm.planning.gateway import certificate_names
from onprem_llm.planning.removal import removal
from onprem_llm.planning.replicas import project_order
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import Change, ImageSource, RegistryStore, Step, Wanted
from onprem_llm.rendering.registry import CERTIFICATE, PROJECT, START_SECONDS, STORE, OwnRegistry, draft
from onprem_llm.spec.site import Site

SETTING = "onprem_llm_site.registry_dir"


@dataclass(frozen=True, slots=True)
class PlannedRegistry:
    """The registry on the gateway host."""

    claim: Claim
    image: HostImage
    outcome: Outcome
    store: RegistryStore

    @property
    def bytes(self) -> int:
        """What travels there: its image, and all blobs where there is no registry yet."""
        return self.image.bytes + (sum(self.store.blobs.values()) if self.outcome.change.action == "create" else 0)


def plan_registry(site: Site, wanted: Wanted, gateway: HostState) -> PlannedRegistry | None:
    """Render the registry; None where the site has none of its own."""
    store = wanted.registry
    if store is None:
        return None
    address = gateway.cluster_address
    if ":" in address:
        raise InvalidError(
            f"{SETTING}: {gateway.name} is reached at {address}, and no image can be named by an IPv6 address",
            hint="give the gateway host an IPv4 address in the inventory (ansible_host), or run a registry of your own "
            "(onprem_llm_site.registry)",
        )
    claim = Claim(PROJECT, address, site.registry_port)
    source = wanted.registry_image or ImageSource(site.registry_image)
    image = image_for(gateway, source, None)
    registry = OwnRegistry(image.reference, claim.address, claim.port, store.images)
    why = (f"serves {len(store.images)} images",)
    outcome = compare(gateway, draft(registry), revision=None, image_id=image.id, secrets={}, why=why)
    if outcome.change.action != "create" and not good(gateway, PROJECT, certificate_names(site, gateway), gateway):
        outcome = outcome.restarted("its certificate ends, or is for other names")
    return PlannedRegistry(claim, image, outcome, store)


def registry_step(site: Site, planned: PlannedRegistry | None, gateway: HostState) -> Step | None:
    """Return the step that fills and starts the registry; None where it is as it should be."""
    if planned is None or not planned.outcome.needed:
        return None
    path, store = site.project_path(PROJECT), planned.store
    order = {
        "images": [planned.image.order] if planned.image.order else [],
        "store": {
            "path": f"{path}/{STORE}",
            "source": store.source,
            "files": [
                {"path": blob_path(sha256), "size": size, "sha256": sha256} for sha256, size in store.blobs.items()
            ],
            "links": dict(store.links),
        },
        "tls": {
            "file": f"{path}/{CERTIFICATE}",
            "names": certificate_names(site, gateway),
            "ca_host": gateway.name,
        },
        "projects": [project_order(site, planned.outcome, (), [], wait=START_SECONDS, readiness=None)],
    }
    return Step("registry", "Fill and start the registry", {gateway.name: order})


def leaving(planned: PlannedRegistry | None, current: Current, gateway: HostState) -> list[tuple[HostState, str]]:
    """Return the hosts whose registry goes, and why: another one is the gateway host, or the site has none any more."""
    why = f"{SETTING} is left out" if planned is None else "this is not the gateway host any more"
    return [(host, why) for host in current.hosts if PROJECT in host.projects and not (planned and host is gateway)]


def leaving_changes(hosts: Iterable[tuple[HostState, str]]) -> list[Change]:
    """Say that their registries go."""
    return [Change(host.name, PROJECT, "remove", (why,)) for host, why in hosts]


def leaving_step(site: Site, hosts: Iterable[tuple[HostState, str]]) -> Step | None:
    """Return the step that takes them away, with their copies of images; None where there are none."""
    orders = {host.name: removal(site, [PROJECT], purge=True) for host, _ in hosts}
    return Step("remove", "Remove the former registry", orders) if orders else None
