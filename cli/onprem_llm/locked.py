"""A deploy from a lock: its model.yaml, its weights, its images, and nothing else."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current
from onprem_llm.options import BESIDE
from onprem_llm.planning.plan_images import images_in
from onprem_llm.planning.ray_nodes_standing import node_container
from onprem_llm.planning.types import ImageSource, Plan, Wanted
from onprem_llm.registry import at_registry, repository
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.lock import FILE, Lock, LockedWeights, read_lock
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest

AGAIN = "make the lock again where the internet is (onprem-llm lock), or deploy without --locked"


@dataclass(frozen=True)
class Locked:
    """A lock, and where it lies: what a bundle brought lies beside it."""

    lock: Lock
    path: Path

    def check_text(self, deployment: Deployment, model_yaml: Path) -> None:
        """Raise InvalidError where model.yaml is not, byte for byte, what was locked."""
        known = self.lock.deployment(deployment.name)
        if known is None:
            names = ", ".join(one.name for one in self.lock.deployments) or "none"
            raise InvalidError(f"{model_yaml}: {deployment.name} is not in {self.path}, which has: {names}", hint=AGAIN)
        found = hashlib.sha256(model_yaml.read_bytes()).hexdigest()
        if found != known.sha256:
            raise InvalidError(
                f"{model_yaml} is not what was locked: found sha256 {found}, expected {known.sha256}",
                hint=f"take back what was changed ({self.path} has the text), or {AGAIN}",
            )

    def folder(self, deployment: Deployment) -> Path | None:
        """Return the folder of weights that a bundle's load made beside the lock; None where there is none."""
        name = self._weights(deployment).name
        folder = self.path.absolute().parent / "weights" / name / name.rpartition("-")[0]
        return folder if folder.is_dir() else None

    def check_weights(self, deployment: Deployment, found: WeightsManifest, folder: Path) -> None:
        """Raise InvalidError that names the first file of weights that is not as it was locked."""
        known = self._weights(deployment)
        wanted = {file.path: (file.size, file.sha256) for file in known.files}
        there = {file.path: (file.size, file.sha256) for file in found.files}
        for path in sorted({*wanted, *there}):
            if wanted.get(path) != there.get(path):
                raise InvalidError(
                    f"{folder / path} is not what was locked: found {_said(there.get(path))}, expected "
                    f"{_said(wanted.get(path))}",
                    hint=f"bring the weights again (bundle load, weights pull --verify), or {AGAIN}",
                )
        if found.id != known.name:
            raise InvalidError(
                f"{folder}: its weights are called {found.id} on the hosts, expected {known.name}",
                hint="give the folder the name that it had when the lock was made",
            )

    def pinned(self, wanted: Wanted, site: Site, current: Current) -> Wanted:
        """Return what is wanted with the lock's images; InvalidError for one that is not in it, or another."""

        def pin(source: ImageSource | None) -> ImageSource | None:
            return self._pin(source, site, current) if source else None

        self._check_registry(wanted)
        self._check_nodes(wanted, current)
        deployments = tuple(replace(item, image=pin(item.image)) for item in wanted.deployments)
        return replace(
            wanted,
            deployments=deployments,
            ui_image=pin(wanted.ui_image),
            gateway_image=pin(wanted.gateway_image),
            registry_image=self._archived(pin(wanted.registry_image), site),
        )

    def check_plan(self, plan: Plan, wanted: Wanted) -> None:
        """Raise InvalidError where a plan would start an image that the lock does not have."""
        own = (wanted.ui_image, wanted.gateway_image, wanted.registry_image)
        sources = [*(item.image for item in wanted.deployments), *own]
        known = {name for source in sources if source for name in (source.pull, source.id) if name}
        known |= {image.id for image in self.lock.images}
        # A host knows a pulled image by the registry's address of that day; the digest is what counts.
        digests = {image.digest for image in self.lock.images}
        self._refuse(sorted(n for n in set(images_in(plan)) - known if n.partition("@")[2] not in digests))

    def _check_registry(self, wanted: Wanted) -> None:
        """Raise InvalidError where the site's own registry serves another image under a name of the lock."""
        served = wanted.registry.images if wanted.registry else {}
        for image in self.lock.images:
            found = served.get(image.ref, image.digest)
            if found != image.digest:
                raise InvalidError(
                    f"the site's registry serves another {image.ref} than was locked: found {found}, expected "
                    f"{image.digest}",
                    hint="load the bundle of this lock (onprem-llm bundle load), or use the lock of the one that was "
                    "loaded last",
                )

    def _check_nodes(self, wanted: Wanted, current: Current) -> None:
        """Raise InvalidError where a node of Ray runs another image than was locked for what is deployed there."""
        item = wanted.named(wanted.focus or "")
        if item is None or item.deployment.backend != "ray":
            return
        image = self.lock.image(item.deployment.engine.image)
        for host in current.hosts:
            node = node_container(host)
            if image is not None and node is not None and node.image != image.id:
                raise InvalidError(
                    f"{host.name}: its Ray node runs {node.image[:19]}, expected {image.ref} as it was locked, "
                    f"{image.id[:19]}",
                    hint="onprem-llm cluster up starts the nodes from the image that was loaded; or use the lock that "
                    "they were started from",
                )

    def _pin(self, source: ImageSource, site: Site, current: Current) -> ImageSource:
        image = self.lock.image(source.ref)
        if image is None:
            self._refuse([source.ref])
            return source
        if source.archive is not None:
            if source.id != image.id:
                raise InvalidError(
                    f"{source.archive} holds another {source.ref} than was locked: found {source.id}, expected "
                    f"{image.id}",
                    hint="take the archive out of the folder that onprem_llm_site.images_dir names, or bring the right "
                    "one",
                )
            return source
        place = source.pull.partition("@")[0] if source.pull else repository(at_registry(source.ref, site))
        pull = f"{place}@{image.digest}"
        having = [there for host in current.hosts if (there := host.image(image.id)) is not None]
        # What was loaded by hand is sent by nobody. What was pulled keeps that name: another would be a change.
        everywhere = len(having) == len(current.hosts) and not any(pull in there.digests for there in having)
        served = site.registry is not None or (site.registry_dir is not None and source.pull is not None)
        if not served and (everywhere or (having and source.pull is None)):
            return ImageSource(source.ref, id=image.id, exact=True)
        return ImageSource(source.ref, pull=pull)

    def _archived(self, source: ImageSource | None, site: Site) -> ImageSource | None:
        """Return the image of the site's own registry, which cannot serve itself: no host is told to pull it."""
        image = self.lock.image(source.ref) if source else None
        if source is None or image is None or source.archive is not None or site.registry is not None:
            return source
        return ImageSource(source.ref, id=image.id, exact=True)

    def _refuse(self, refs: Collection[str]) -> None:
        if refs:
            raise InvalidError(f"{', '.join(refs)}: this image is not in {self.path}", hint=AGAIN)

    def _weights(self, deployment: Deployment) -> LockedWeights:
        known = self.lock.deployment(deployment.name)
        found = self.lock.weights_named(known.weights) if known else None
        if found is None:
            raise InvalidError(f"the weights of {deployment.name} are not in {self.path}", hint=AGAIN)
        return found


def read_locked(path: Path | None, model_yaml: Path | None) -> Locked | None:
    """Read the lock to deploy from, as --locked names it; None where it does not."""
    if path is None or model_yaml is None:
        return None
    place = model_yaml.parent / FILE if path == BESIDE else path
    return Locked(read_lock(place), place)


def _said(file: tuple[int, str] | None) -> str:
    return f"{file[0]} bytes, sha256 {file[1]}" if file else "nothing"
