"""What must reach a host before anything starts there: images and weights, and whether there is room for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState, Image
from onprem_llm.output import human_bytes
from onprem_llm.planning.addresses import LOOPBACK
from onprem_llm.planning.places import place
from onprem_llm.planning.types import Action, Change, ImageSource
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest

if TYPE_CHECKING:
    from onprem_llm.planning.fan_out import Chain

# What the names of images begin with that this project makes itself.
OWN_IMAGES = "onprem-llm/"


@dataclass(frozen=True, slots=True)
class HostImage:
    """An image for one host: how Compose names it, the id if it is known, and what brings it there."""

    reference: str
    id: str | None
    order: Mapping[str, object] | None
    bytes: int = 0
    reason: str | None = None


def image_for(host: HostState, source: ImageSource, recorded: str | None) -> HostImage:
    """Resolve an image on a host.

    The id comes from the archive, else from the registry's digest, else from what the book recorded if the host still
    has it, else from the host's own tag. InvalidError when nothing can bring it.
    """
    if source.pull:
        source = replace(source, pull=source.nearby.get(host.name, source.pull))
        there, name = _pulled(host, str(source.pull))
        tagged = there is not None and source.ref in there.tags
        return HostImage(name, there.id if there else None, *_stage(source, None, there is not None, tagged))
    if not can_have(host, source):
        raise _unknown(host, source)
    if source.id is not None and source.archive is not None:
        image_id, there = source.id, host.image(source.id)
    else:
        # Nothing can be sent: what was meant so far if the host still has it, else what its tag says.
        names = (source.id, recorded, source.ref)
        there = next((image for name in names if name and (image := host.image(name))), None)
        if there is None:
            raise _absent(host, source)
        image_id = there.id
    tagged = there is not None and source.ref in there.tags
    return HostImage(image_id, image_id, *_stage(source, image_id, there is not None, tagged))


def _pulled(host: HostState, pull: str) -> tuple[Image | None, str]:
    """Return a pulled image and what it is called on the host: another name would be another container.

    Of several names the loopback's goes first, which a person does not give by pulling it once more.
    """
    known = [(name, image) for image in host.images for name in image.digests if place(name) == place(pull)]
    if not known:
        return None, pull
    name, image = min(known, key=lambda one: (not one[0].startswith(f"{LOOPBACK}:"), one[0] != pull))
    return image, name


def can_have(host: HostState, source: ImageSource) -> bool:
    """Tell whether a host has the one image that will do, or something can bring it there."""
    there = source.id is not None and host.image(source.id) is not None
    return not source.exact or source.archive is not None or source.pull is not None or there


def _stage(
    source: ImageSource, image_id: str | None, present: bool, tagged: bool
) -> tuple[Mapping[str, object] | None, int, str | None]:
    if present and tagged:
        return None, 0, None
    # An image that is there needs a tag only: nothing is sent for it.
    order = {
        "id": image_id,
        "ref": source.ref,
        "archive": None if present else source.archive,
        "pull": source.pull,
        "bytes": 0 if present else source.bytes,
    }
    if present:
        return order, 0, f"tag {source.ref} points to another image"
    return order, source.bytes, f"image {source.ref} is not there"


def _unknown(host: HostState, source: ImageSource) -> InvalidError:
    return InvalidError(
        f"the image of that revision ({source.ref}, {(source.id or 'unknown')[:19]}) is not on {host.name}, and "
        "nothing can bring it there: no archive in onprem_llm_site.images_dir holds it",
        hint="put its archive into the folder that onprem_llm_site.images_dir names, or choose another revision: "
        "onprem-llm history, onprem-llm rollback",
    )


def _absent(host: HostState, source: ImageSource) -> InvalidError:
    return InvalidError(
        f"image {source.ref} is not on {host.name}, and nothing can bring it there: "
        "no archive in onprem_llm_site.images_dir holds it and no registry offers it",
        hint=f"{where_from(source.ref)}; put its archive into the folder that onprem_llm_site.images_dir names; or set "
        "onprem_llm_site.registry; or docker load it on the host",
    )


def where_from(ref: str) -> str:
    """Say how an image becomes an archive; no registry has those that this project makes."""
    if ref.startswith(OWN_IMAGES):
        name = ref.removeprefix(OWN_IMAGES).partition(":")[0]
        return f"sh images/build.sh {name} in a checkout of onprem-llm makes it (docs/images.md)"
    return f"where you have it: docker save {ref} -o FILE.tar"


@dataclass(frozen=True, slots=True)
class WeightsNeed:
    """Weights for one host: the order, the bytes to send and why; the chain that brings them, where one does."""

    order: Mapping[str, object]
    bytes: int
    change: Change | None
    chain: "Chain | None" = None


def weights_needs(
    site: Site, hosts: Sequence[HostState], manifest: WeightsManifest, source: str | None
) -> dict[str, WeightsNeed]:
    """Say what each host lacks. A shared folder is written by the first host alone; the others check what they see."""
    path = f"{site.weights_path}/{manifest.id}"
    lacking = {host.name: _lacking(host, manifest, path) for host in hosts}
    if not any(send or reason for send, reason in lacking.values()):
        return {}
    needs: dict[str, WeightsNeed] = {}
    for host in hosts:
        send, reason = lacking[host.name]
        if reason is None:
            continue
        if source is None:
            raise InvalidError(
                f"{host.name}: {reason}, and this command does not have them ({manifest.id})",
                hint="deploy with the model.yaml beside which the weights lie",
            )
        if site.weights_dir.shared and any(need.order["send"] for need in needs.values()):
            send = []
        size = sum(file.size for file in manifest.files if file.path in set(send))
        order = {
            "id": manifest.id,
            "path": path,
            "source": source,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in manifest.files],
            "send": send,
        }
        action: Action = "update" if manifest.id in host.weights else "create"
        needs[host.name] = WeightsNeed(order, size, Change(host.name, f"weights {manifest.id}", action, (reason,)))
    return needs


def _lacking(host: HostState, manifest: WeightsManifest, path: str) -> tuple[list[str], str | None]:
    stored = host.weights.get(manifest.id)
    everything = [file.path for file in manifest.files]
    if stored is None or stored.path != path:
        return everything, "not there yet"
    # Without the files at hand it is only known which of them are as they should be.
    drift = [file for file in everything or stored.drift if file in stored.drift]
    if drift:
        more = f" and {len(drift) - 3} more" if len(drift) > 3 else ""
        return drift, f"weight file {', '.join(drift[:3])}{more} differs"
    if not stored.complete:
        return everything, "not complete"
    return [], None


@dataclass(slots=True)
class HostWork:
    """What is to be staged on one host."""

    host: HostState
    images: list[HostImage] = field(default_factory=list)
    weights: WeightsNeed | None = None

    @property
    def image_bytes(self) -> int:
        """Bytes of the archives that travel."""
        return sum(image.bytes for image in self.images)

    @property
    def bytes(self) -> int:
        """All bytes that this machine sends."""
        return self.image_bytes + (self.weights.bytes if self.weights and not self.weights.chain else 0)


def check_space(host: HostState, *, weights: int, images: int, store: int = 0, pulled: int = 0) -> None:
    """Raise InvalidError when the bytes to be sent do not fit; folders on one file system share its room.

    `store` is what comes into the host's registry; of that it pulls `pulled` itself.
    """
    # An archive lies under data_root while the engine unpacks it into its own folder.
    needs = (
        ("weights", weights, "weights"),
        ("data_root", images, "image archives"),
        ("docker", images + pulled, "images"),
        ("data_root", store, "the registry"),
    )
    systems: dict[object, list[tuple[str, int, str]]] = {}
    free_on: dict[object, int] = {}
    for key, need, what in needs:
        disk = host.disks.get(key)
        if disk is not None and need:
            system: object = disk.device if disk.device is not None else (disk.total, disk.free)
            systems.setdefault(system, []).append((disk.path, need, what))
            free_on[system] = disk.free
    for system, parts in systems.items():
        need, free = sum(part[1] for part in parts), free_on[system]
        if need > free:
            paths = ", ".join(f"{human_bytes(size)} of {what} in {path}" for path, size, what in parts)
            raise InvalidError(
                f"not enough disk on {host.name}: {human_bytes(need)} needed ({paths}), {human_bytes(free)} free",
                hint="make room there, or name another folder in onprem_llm_site (weights_dir.path, data_root)",
            )
