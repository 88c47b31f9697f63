"""What is wanted: the book's deployments with one added, changed or taken away. Reads files; decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onprem_llm.book_state import BookEntry
from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError
from onprem_llm.given_certificate import given_certificate
from onprem_llm.hosts import Current
from onprem_llm.image_archives import find_archives
from onprem_llm.locked import Locked
from onprem_llm.own_registry import OwnRegistryFolder, read_own_registry
from onprem_llm.planning.compatibility.check import check_hosts
from onprem_llm.planning.memory.auto import resolved
from onprem_llm.planning.revisions import weights_of
from onprem_llm.planning.types import ImageSource, RegistryStore, Wanted, WantedDeployment
from onprem_llm.registry import at_registry, repository
from onprem_llm.secret_values import References, fingerprint, read_values
from onprem_llm.spec.deployment import Deployment, parse_deployment, secret_references
from onprem_llm.spec.site import Site, parse_site
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import WeightsManifest, scan_folder
from onprem_llm.weights.headers import read_model_files
from onprem_llm.weights.local import check_pulled, weights_folder


def wanted_with(
    deployment: Deployment,
    model_yaml: Path,
    site: Site,
    inventory: Path,
    current: Current,
    salt: str,
    locked: Locked | None = None,
) -> Wanted:
    """Return the book with `deployment`, as `model_yaml` describes it, added or changed."""
    loaded = locked.folder(deployment) if locked else None
    folder = loaded or weights_folder(deployment, model_yaml)
    notes = check_folder(folder, deployment.model.allow)
    files = read_model_files(folder)
    at_address = _at_address(site, deployment)
    # What runs already may go on, whatever the table says: placing judges that.
    if deployment.name not in current.book and not at_address:
        check_hosts(deployment, files, current.hosts)
    weights = scan_folder(folder, cache_folder())
    if locked:
        locked.check_weights(deployment, weights, folder)
    if loaded is None:
        check_pulled(deployment, weights)
    references = secret_references(deployment.env, model_yaml.resolve().parent)
    images = Images(site, inventory, current)
    deployment = resolved(
        deployment, files, current.hosts, known_before(deployment.name, weights, current), current.marks
    )
    focus = WantedDeployment(
        deployment=deployment,
        weights=weights,
        files=files,
        source=str(folder),
        image=None if at_address else images.source(deployment.engine.image, deployment.name),
        env_fingerprints=_fingerprints(references, salt, str(model_yaml)),
        env_references=references,
        notes=notes,
    )
    others = [item for item in book_deployments(current) if item.deployment.name != deployment.name]
    return _with_ui([*others, focus], site, images, salt, inventory, focus=deployment.name)


def _at_address(site: Site, deployment: Deployment) -> bool:
    """Tell whether a cluster runs it that somebody else runs: neither its image nor its GPUs are ours to judge."""
    return deployment.backend == "ray" and site.ray.address is not None


def known_before(name: str, weights: WeightsManifest, current: Current) -> Deployment | None:
    """Return what the book has of a deployment, where it is of these weights."""
    entry = current.book.get(name)
    if entry is None or weights_of(entry.model_yaml) != weights.id:
        return None
    return parse_deployment(entry.model_yaml, f"the book's {name}")


def wanted_without(name: str, site: Site, inventory: Path, current: Current, salt: str, *, purge: bool) -> Wanted:
    """Return the book without the deployment `name`."""
    others = [item for item in book_deployments(current) if item.deployment.name != name]
    images = Images(site, inventory, current)
    return replace(_with_ui(others, site, images, salt, inventory, focus=None), remove=name, purge=purge, verb="down")


def wanted_as_is(site: Site, inventory: Path, current: Current) -> Wanted:
    """Return the book as it is, for what changes hosts and no deployment."""
    images = Images(site, inventory, current)
    ordered = tuple(sorted(book_deployments(current), key=lambda item: item.deployment.name))
    gateway_image, ui = images.source(site.gateway.image, None), site.open_webui
    ui_image = images.source(ui.image, None) if ui.enabled else None
    given = given_certificate(site)
    return Wanted(ordered, verb="host", ui_image=ui_image, gateway_image=gateway_image, given_certificate=given)


def wanted_again(
    entry: BookEntry, change: Mapping[str, object], site: Site, inventory: Path, current: Current, salt: str
) -> Wanted:
    """Return the book with a revision that it has had, its fields changed by `change`; its weights are on the hosts.

    The image is that of the revision, and no other. Secrets are read again, relative to this folder.
    """
    deployment = parse_deployment(entry.model_yaml, f"revision {entry.revision} of the book")
    deployment = deployment.model_copy(update=change)
    name, known = deployment.name, weights_of(entry.model_yaml)
    if known is None:
        raise InvalidError(
            f"the book does not say which weights revision {entry.revision} of {name} had",
            hint="deploy it again with its model.yaml",
        )
    references = secret_references(deployment.env, Path.cwd())
    images = Images(site, inventory, current)
    focus = WantedDeployment(
        deployment=deployment,
        weights=WeightsManifest(known, known.rpartition("-")[0], (), 0),
        image=None if _at_address(site, deployment) else images.recorded(deployment.engine.image, entry),
        env_fingerprints=_fingerprints(references, salt, f"the book's {name}"),
        env_references=references,
    )
    others = [item for item in book_deployments(current) if item.deployment.name != name]
    return _with_ui([*others, focus], site, images, salt, inventory, focus=name)


def book_deployments(current: Current) -> list[WantedDeployment]:
    """Read the deployments that the gateway's book holds."""
    return [
        WantedDeployment(parse_deployment(entry.model_yaml, f"the book's {name}, revision {entry.revision}"))
        for name, entry in current.book.items()
    ]


def _with_ui(
    deployments: Sequence[WantedDeployment],
    site: Site,
    images: "Images",
    salt: str,
    inventory: Path,
    *,
    focus: str | None,
) -> Wanted:
    ordered = tuple(sorted(deployments, key=lambda item: item.deployment.name))
    ui = site.open_webui
    gateway_image = images.source(site.gateway.image, None)
    # `down` must not wait for a certificate that it may not need; `apply` checks it where it does.
    given = given_certificate(site) if focus else None
    wanted = Wanted(
        ordered,
        focus=focus,
        gateway_image=gateway_image,
        given_certificate=given,
        registry=images.registry,
        registry_image=images.registry_image,
    )
    if not ui.enabled:
        return wanted
    references = secret_references(ui.env, inventory_folder(inventory))
    return replace(
        wanted,
        ui_image=images.source(ui.image, None),
        ui_env_fingerprints=_fingerprints(references, salt, "onprem_llm_site.open_webui"),
        ui_env_references=references,
    )


def _fingerprints(references: References, salt: str, where: str) -> dict[str, str]:
    return {name: fingerprint(salt, value) for name, value in read_values(references, where).items()}


def inventory_folder(inventory: Path) -> Path:
    """Return the folder that relative paths of site settings start from."""
    return inventory if inventory.is_dir() else inventory.parent


class Images:
    """Where the bytes of an image can come from: an archive, a digest that was named or recorded, a registry."""

    def __init__(self, site: Site, inventory: Path, current: Current) -> None:
        """Read the archives' manifests, not the archives."""
        self._current = current
        self._site = site
        self._archives: Mapping[str, ImageSource] = {}
        if site.images_dir is not None:
            self._archives = find_archives(inventory_folder(inventory) / Path(site.images_dir).expanduser())
        self._own: OwnRegistryFolder | None = None
        if site.registry_dir is not None:
            gateway = current.gateway
            address = f"{gateway.cluster_address}:{site.registry_port}" if gateway else None
            folder = inventory_folder(inventory) / Path(site.registry_dir).expanduser()
            self._own = read_own_registry(folder, address)

    @property
    def registry(self) -> RegistryStore | None:
        """What the site's own registry serves; None where it has none."""
        return self._own.store if self._own else None

    @property
    def registry_image(self) -> ImageSource | None:
        """The registry's own image: the one that cannot come from it."""
        ref = self._site.registry_image
        return self._archives.get(ref, ImageSource(ref)) if self._own else None

    def source(self, ref: str, deployment: str | None) -> ImageSource:
        """Return the source of `ref`. What the book recorded for it stays until an archive or model.yaml says else."""
        if ref in self._archives:
            return self._archives[ref]
        own = self._own.source(ref) if self._own else None
        if own is not None:
            return own
        if "@sha256:" in ref:
            return ImageSource(ref, pull=ref)
        entry = self._current.book.get(deployment) if deployment else None
        recorded = entry.images.get(ref) if entry else None
        if recorded is None:
            return ImageSource(ref, pull=self._pulled(ref))
        return ImageSource(ref, pull=recorded) if "@sha256:" in recorded else ImageSource(ref, id=recorded)

    def recorded(self, ref: str, entry: BookEntry) -> ImageSource:
        """Return the source of the image that a revision was deployed with."""
        image = entry.images.get(ref)
        if image is None:
            return self.source(ref, None)
        archive = self._archives.get(ref)
        if archive is not None and archive.id == image:
            return archive
        if "@sha256:" not in image:
            return ImageSource(ref, id=image, exact=True)
        return ImageSource(ref, pull=self._own.again(image) if self._own else image)

    def _pulled(self, ref: str) -> str | None:
        """Return the digest under which a host has pulled `ref`: it stays what it was, and others can pull the same.

        The gateway is asked first, since nothing else remembers which image the page runs.
        """
        gateway = self._current.gateway
        known = repository(at_registry(ref, self._site)) + "@"
        for host in (*([gateway] if gateway else []), *self._current.hosts):
            image = host.image(ref)
            found = next((digest for digest in image.digests if digest.startswith(known)), None) if image else None
            if found:
                return found
        return None


def load_site(current: Current, inventory: Path) -> Site:
    """Check the site's settings that the inventory gave to every host."""
    return parse_site(current.site_settings(), str(inventory))


def require_known(name: str, current: Current) -> None:
    """Raise InvalidError where the book has no deployment of that name, and say which it has."""
    if name not in current.book:
        names = ", ".join(current.book) or "none"
        raise InvalidError(f"no deployment is called {name!r}; the book has: {names}", hint="onprem-llm status")
