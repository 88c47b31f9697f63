"""Hosts' own registries, on loopback: docker pulls from them by digest what hosts have passed on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import LOOPBACK, Claim
from onprem_llm.planning.difference import Outcome, compare
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.image_chain import Passing, blob_files, served, stray_text
from onprem_llm.planning.image_receivers import can_start, own_image, unless_auto
from onprem_llm.planning.places import digest_of
from onprem_llm.planning.replica_orders import project_order
from onprem_llm.planning.staging import HostImage, where_from
from onprem_llm.planning.types import RegistryStore, Step, Wanted
from onprem_llm.rendering.registry import CONFIG, PROJECT, START_SECONDS, STORE, LocalRegistry, local_draft
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class PlannedLocal:
    """A host's own registry as it is to be."""

    host: HostState
    claim: Claim
    image: HostImage
    outcome: Outcome
    digests: frozenset[str]
    coming: int  # bytes of blobs that hosts pass on to it now
    refilled: bool  # it has an image that the engine lost: its blobs are looked at before they are served again

    @property
    def needed(self) -> bool:
        """Tell whether anything is to be done."""
        return self.outcome.needed or self.refilled

    @property
    def bytes(self) -> int:
        """What this machine sends: the registry's own image."""
        return self.image.bytes if self.needed else 0


def plan_local(
    site: Site, wanted: Wanted, passing: Passing | None, current: Current, gateway: HostState, fleet: Fleet
) -> tuple[PlannedLocal, ...]:
    """Render them: on the hosts to which the chain brings an image, and where one stands beside replicas."""
    if wanted.registry is None:
        return ()
    receivers = passing.receivers if passing else ()
    idle = stranded(site, wanted, passing, current, gateway, fleet)
    found = []
    for host in current.hosts:
        there = served(host)
        stays = there is not None and carries_replicas(host, wanted, current, fleet) and host not in idle
        if host is gateway or not (host.name in receivers or stays):
            continue
        digests = there or frozenset()
        if passing and host.name in receivers:
            # The room of what nobody here means any more is taken back when something new comes.
            digests = (digests & _meant(host, current, fleet)) | {passing.digest}
        found.append(_plan_one(site, wanted, wanted.registry, passing, gateway, host, digests))
    return tuple(found)


def stranded(
    site: Site, wanted: Wanted, passing: Passing | None, current: Current, gateway: HostState, fleet: Fleet
) -> tuple[HostState, ...]:
    """Return hosts with replicas whose registry lacks its own image, which nothing can bring: it is not touched.

    Where the site insists (`fan_out: always`) such a host that lacks an image is a receiver, and refused.
    """
    if wanted.registry is None:
        return ()
    receivers = passing.receivers if passing else ()
    others = [host for host in current.hosts if host is not gateway and host.name not in receivers]
    having = [host for host in others if served(host) is not None and carries_replicas(host, wanted, current, fleet)]
    return tuple(host for host in having if not can_start(site, wanted, host))


def stranded_warning(site: Site, hosts: Iterable[HostState]) -> tuple[str, ...]:
    """Say so of each, and what mends it."""
    return tuple(
        f"{host.name}: the image of its own registry, {site.registry_image}, is not there, and nothing can bring it: "
        "what runs is left alone, and images that it lacks come from the gateway host. To have it again: "
        f"{where_from(site.registry_image)}; put its archive into the folder that onprem_llm_site.images_dir names"
        for host in hosts
    )


def _plan_one(
    site: Site,
    wanted: Wanted,
    store: RegistryStore,
    passing: Passing | None,
    gateway: HostState,
    host: HostState,
    digests: frozenset[str],
) -> PlannedLocal:
    claim = Claim(PROJECT, LOOPBACK, site.registry_port)
    try:
        image = own_image(site, wanted, host)
    except InvalidError as error:  # the gateway host has it, or that would have been refused before
        raise unless_auto(error) from None
    draft = local_draft(LocalRegistry(image.reference, claim.address, claim.port, digests))
    why = (f"for images that are passed on from {gateway.name}",)
    outcome = compare(host, draft, revision=None, image_id=image.id, secrets={}, why=why).anew_with(CONFIG, host)
    if host.strays and outcome.change.action == "keep":
        outcome = replace(outcome, change=replace(outcome.change, action="update", reasons=(stray_text(host),)))
    coming = 0
    if passing and host.name in passing.receivers:
        known = _blobs(store, served(host) or frozenset())
        coming = sum(size for sha256, size in passing.blobs.items() if sha256 not in known)
    again = passing is not None and host.name in passing.again
    return PlannedLocal(host, claim, image, outcome, digests, coming, again)


def carries_replicas(host: HostState, wanted: Wanted, current: Current, fleet: Fleet) -> bool:
    """Tell whether a host has replicas once this plan is carried out."""
    return any(replica.host.name == host.name for replica in fleet.projects) or carries_others(
        host, current, wanted.focus
    )


def carries_others(host: HostState, current: Current, name: str | None) -> bool:
    """Tell whether a host has replicas of another deployment than `name`: such that run, or that the book has there."""
    running = {project.label("deployment") for project in host.projects.values()}
    booked = {one for one, e in current.book.items() if any(host.name in at.hosts for at in e.replicas.values())}
    return bool((running | booked) - {name, None})


def _meant(host: HostState, current: Current, fleet: Fleet) -> set[str | None]:
    """Return the digests of the images of a host's replicas, as they are to be and as the book has them."""
    meant = {digest_of(replica.image.reference) for replica in fleet.projects if replica.host.name == host.name}
    for entry in current.book.values():
        if any(host.name in at.hosts for at in entry.replicas.values()):
            meant |= {digest_of(image) for image in entry.images.values()}
    return meant


def _blobs(store: RegistryStore, digests: Iterable[str]) -> dict[str, int]:
    refs = [ref for ref in store.parts if store.images[ref] in digests]
    return {sha256: store.blobs[sha256] for sha256 in sorted({s for ref in refs for s in store.parts[ref].blobs})}


def local_step(site: Site, wanted: Wanted, planned: Iterable[PlannedLocal]) -> Step | None:
    """Return the step that fills them with what the chain did not bring, names it, and starts them."""
    orders = {one.host.name: _order(site, wanted.registry, one) for one in planned if one.needed and wanted.registry}
    return Step("registry", "Fill and start the hosts' own registries", orders) if orders else None


def _order(site: Site, store: RegistryStore, one: PlannedLocal) -> Mapping[str, object]:
    path = site.project_path(PROJECT)
    parts = [store.parts[ref] for ref in sorted(store.parts) if store.images[ref] in one.digests]
    return {
        "images": [one.image.order] if one.image.order else [],
        "store": {
            "path": f"{path}/{STORE}",
            "source": store.source,
            "files": blob_files(_blobs(store, one.digests)),
            "links": {name: digest for part in parts for name, digest in part.links.items()},
            "keep": sorted(one.digests),
        },
        "projects": [project_order(site, one.outcome, (), [], wait=START_SECONDS, readiness=None)],
    }
