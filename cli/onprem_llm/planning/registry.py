"""The site's own registry on the gateway host: filled and started before any host asks it for an image."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim
from onprem_llm.planning.certificates import good, older
from onprem_llm.planning.difference import Outcome, compare
from onprem_llm.planning.gateway import certificate_names
from onprem_llm.planning.image_chain import blob_files, served, stray_text
from onprem_llm.planning.removal import removal
from onprem_llm.planning.replica_orders import project_order
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import Change, ImageSource, RegistryStore, Step, Wanted
from onprem_llm.rendering.registry import (
    CERTIFICATE,
    CONFIG,
    CONTENTS,
    PROJECT,
    START_SECONDS,
    STORE,
    OwnRegistry,
    draft,
)
from onprem_llm.spec.site import Site

SETTING = "onprem_llm_site.registry_dir"


@dataclass(frozen=True, slots=True)
class PlannedRegistry:
    """The registry on the gateway host."""

    claim: Claim
    image: HostImage
    outcome: Outcome
    store: RegistryStore
    coming: int  # bytes of blobs that are not there, as far as that can be known

    @property
    def bytes(self) -> int:
        """What travels there: its image, and blobs."""
        return self.image.bytes + self.coming


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
    outcome = _explained(compare(gateway, draft(registry), revision=None, image_id=image.id, secrets={}, why=why))
    outcome = outcome.anew_with(CONFIG, gateway)
    stale = _stale(site, gateway) if outcome.change.action != "create" else None
    if stale:
        # Where files change its container may stay as it is, and go on with the certificate that it read.
        outcome = replace(outcome.restarted(stale), recreate=True)
    coming = _coming(store, gateway, new=outcome.change.action == "create")
    return PlannedRegistry(claim, image, outcome, store, coming)


def _stale(site: Site, gateway: HostState) -> str | None:
    """Say why it must start anew for its certificate's sake; None where it need not."""
    if not good(gateway, PROJECT, certificate_names(site, gateway), gateway):
        return "its certificate ends, or is for other names"
    # A run was killed between the two.
    return "it started before its certificate was renewed" if older(gateway, PROJECT, PROJECT) else None


def _explained(outcome: Outcome) -> Outcome:
    """Another bundle is another list of what it serves, which nobody has edited."""
    change = outcome.change
    others = tuple(reason for reason in change.reasons if not reason.startswith(f"{CONTENTS} was edited"))
    if others == change.reasons:
        return outcome
    said = f"{SETTING} has other images than it serves, or another one under a tag"
    return replace(outcome, change=replace(change, reasons=(*others, said)))


def _coming(store: RegistryStore, gateway: HostState, *, new: bool) -> int:
    """Return the bytes of blobs that it lacks: none where one stands; a host's own has those of its images."""
    there = frozenset() if new else served(gateway)
    if there is None:
        return 0
    known = {sha256 for ref, part in store.parts.items() if store.images[ref] in there for sha256 in part.blobs}
    return sum(size for sha256, size in store.blobs.items() if sha256 not in known)


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
            "files": blob_files(store.blobs),
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


def leaving(
    planned: PlannedRegistry | None, local: Iterable[str], current: Current, gateway: HostState
) -> list[tuple[HostState, str]]:
    """Return the hosts whose registry goes, and why; `local` are those that have, or get, one of their own."""
    staying = {*local, gateway.name} if planned else set()
    having = [host for host in current.hosts if (PROJECT in host.projects or host.strays) and host.name not in staying]
    return [(host, _why_leaving(planned, host)) for host in having]


def _why_leaving(planned: PlannedRegistry | None, host: HostState) -> str:
    if PROJECT not in host.projects:
        return stray_text(host)
    if planned is None:
        return f"{SETTING} is left out"
    return "this is not the gateway host any more" if served(host) is None else "no replica is left on this host"


def leaving_changes(hosts: Iterable[tuple[HostState, str]]) -> list[Change]:
    """Say that their registries go."""
    return [Change(host.name, PROJECT, "remove", (why,)) for host, why in hosts]


def leaving_step(site: Site, hosts: Iterable[tuple[HostState, str]]) -> Step | None:
    """Return the step that takes them away, with their copies of images; None where there are none."""
    orders = {host.name: removal(site, [PROJECT], purge=True) for host, _ in hosts}
    return Step("remove", "Remove the former registry", orders) if orders else None
