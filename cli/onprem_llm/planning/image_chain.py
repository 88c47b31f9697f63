"""A deployment's image along the hosts: who passes it on to whom, and who has it in a registry of its own already.

One image a plan: the deployment's own, which all its hosts need. Others (a gateway's, the page's) go to a host each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.bundle.registry_view import blob_path
from onprem_llm.hosts import Current, HostState, Project
from onprem_llm.image_names import image_name
from onprem_llm.output import human_bytes
from onprem_llm.planning.addresses import LOOPBACK
from onprem_llm.planning.fan_out import WORTH, Chain, chain_of
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.image_receivers import able, can_start
from onprem_llm.planning.places import digest_of, place
from onprem_llm.planning.staging import image_for
from onprem_llm.planning.types import ImageSource, RegistryStore, Step, Wanted, WantedDeployment
from onprem_llm.rendering.registry import CONFIG, LOCAL_CONFIGURATION_SUM, PROJECT, SERVES, STORE
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class Passing:
    """An image, and the hosts that pull it from a registry of their own; the chain brings it to those that follow."""

    item: WantedDeployment  # which hosts pull its image where, too
    digest: str
    blobs: Mapping[str, int]  # hex sha256 -> bytes
    again: tuple[str, ...]  # hosts whose registry has it, while the engine has it no more
    chain: Chain | None

    @property
    def receivers(self) -> tuple[str, ...]:
        """Hosts to which the chain brings it."""
        return tuple(name for name, _ in self.chain.members[1:]) if self.chain else ()

    def why(self, host: str, ref: str) -> tuple[str, ...]:
        """Say of an image on a host that it comes along the chain, where it does."""
        mine = self.item.image is not None and self.item.image.ref == ref
        return (f"passed on from {self.chain.source}",) if self.chain and mine and host in self.receivers else ()


def served(host: HostState) -> frozenset[str] | None:
    """Return the digests that a host's own registry serves; None where it has none on its loopback.

    Those that its folder has whole alone, where that is known: what was lost comes as to a host that never had it.
    """
    project = host.projects.get(PROJECT)
    if project is None:
        return None
    listens = project.label("listen")
    if listens is not None:
        known = (project.label(SERVES) or "").split()
        return _whole(project, known) if listens.startswith(f"{LOOPBACK}:") else None
    if project.files.get(CONFIG) != LOCAL_CONFIGURATION_SUM:
        return None
    # Its container is gone, and the label with it: what was pulled from it still says so.
    pulled = [name for image in host.images for name in image.digests if name.startswith(f"{LOOPBACK}:")]
    return _whole(project, [digest for name in pulled if (digest := digest_of(name))])


def stray_text(host: HostState) -> str:
    """Say of what a chain that was cut off has left, and nobody has repeated, that it goes."""
    return f"{human_bytes(host.strays)} there are of no image: passing one on was cut off"


def _whole(project: Project, digests: Iterable[str]) -> frozenset[str]:
    return frozenset(digests) if project.stored is None else frozenset(digests) & project.stored


def pass_on(
    site: Site,
    wanted: Wanted,
    item: WantedDeployment,
    current: Current,
    gateway: HostState,
    fleet: Fleet,
) -> Passing | None:
    """Decide for the deployment's hosts; None where they pull from the gateway host's registry, or lack nothing."""
    source, store = item.image, wanted.registry
    if store is None or source is None or source.pull is None:
        return None
    digest = _digest_in(store, source)
    others = list({r.host.name: r.host for r in fleet.projects if r.host.name != gateway.name}.values())
    lacking = [host for host in others if image_for(host, source, None).id is None]
    if digest is None:
        return _kept(site, wanted, item, source.pull, gateway, lacking)
    again = [host for host in lacking if digest in (served(host) or ()) and can_start(site, wanted, host)]
    blobs = _blobs(store, digest)
    fresh = [host for host in lacking if host not in again]
    if site.fan_out == "auto":
        fresh = able(site, wanted, item, fleet, fresh, {host.name: _coming(store, blobs, host) for host in fresh})
    having = [host for host in current.hosts if host is not gateway and digest in (served(host) or ())]
    worth = _is_worth(site, len(fresh) + len(having), sum(blobs.values()))
    chain = chain_of([gateway, *fresh]) if fresh and worth else None
    near = [host.name for host in lacking if host in again or (chain and host in fresh)]
    if not near:
        return None
    return Passing(_nearby(site, item, near), digest, blobs, tuple(host.name for host in again), chain)


def _kept(
    site: Site, wanted: Wanted, item: WantedDeployment, pull: str, gateway: HostState, lacking: Sequence[HostState]
) -> Passing | None:
    """Let hosts pull from registries of their own what the site's folder has no more; the others ask the gateway host.

    What blobs it has nobody here knows, so that none is looked at.
    """
    digest = digest_of(pull)
    if digest is None or pull.partition("/")[0] != f"{gateway.cluster_address}:{site.registry_port}":
        return None
    near = [h.name for h in lacking if digest in (served(h) or ()) and can_start(site, wanted, h)]
    return Passing(_nearby(site, item, near), digest, {}, (), None) if near else None


def _nearby(site: Site, item: WantedDeployment, hosts: Sequence[str]) -> WantedDeployment:
    """Return the deployment with its image pulled on loopback by these hosts."""
    if item.image is None:
        return item
    pull = f"{LOOPBACK}:{site.registry_port}/{place(str(item.image.pull))}"
    return replace(item, image=replace(item.image, nearby=dict.fromkeys(hosts, pull)))


def _digest_in(store: RegistryStore, source: ImageSource) -> str | None:
    """Return an image's digest where the site's registry has it, and it is to be pulled from there."""
    digest = store.images.get(source.ref)
    where = f"{image_name(source.ref).repository}@{digest}" if digest else None
    return digest if source.ref in store.parts and source.pull and place(source.pull) == where else None


def _blobs(store: RegistryStore, digest: str) -> dict[str, int]:
    named = {sha256 for ref, part in store.parts.items() if store.images[ref] == digest for sha256 in part.blobs}
    return {sha256: store.blobs[sha256] for sha256 in sorted(named)}


def _coming(store: RegistryStore, blobs: Mapping[str, int], host: HostState) -> int:
    """Return the bytes of the blobs that a host's own registry does not have yet."""
    known = {sha256 for digest in served(host) or () for sha256 in _blobs(store, digest)}
    return sum(size for sha256, size in blobs.items() if sha256 not in known)


def _is_worth(site: Site, hosts: int, size: int) -> bool:
    """Tell whether a chain is. With hosts that have had it along one, a single host that lacks it is."""
    return site.fan_out == "always" or (site.fan_out == "auto" and hosts >= 2 and size >= WORTH)


def blob_files(blobs: Mapping[str, int]) -> list[dict[str, object]]:
    """Return blobs as orders name files, below a registry's folder."""
    return [{"path": blob_path(sha256), "size": size, "sha256": sha256} for sha256, size in blobs.items()]


def pass_on_step(site: Site, passing: Passing | None) -> Step | None:
    """Return the step in which hosts pass the image on, between the folders of their registries; None without one."""
    if passing is None or passing.chain is None:
        return None
    blobs = {"path": f"{site.project_path(PROJECT)}/{STORE}", "files": blob_files(passing.blobs)}
    order = {"blobs": blobs, "chain": passing.chain.order()}
    return Step("fan_out", "Pass the image on", {name: order for name, _ in passing.chain.members})
