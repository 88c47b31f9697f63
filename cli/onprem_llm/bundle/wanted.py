"""From a lock to all that its bundle holds: blobs with their places or bytes, and the views over them."""

import functools
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from onprem_llm.bundle.debs import INDEX, POOL, Deb, index_text, read_deb
from onprem_llm.bundle.images import LAYOUT_BYTES, Image, index_bytes, read_image
from onprem_llm.bundle.licences import MISSING, WEIGHTS_LICENCE, Licences, add_debs, add_wheel, read_wheel
from onprem_llm.bundle.manifest import ROLES, FolderView, ImageView, NamedFile, Role
from onprem_llm.bundle.rpms import index_of, licences_of
from onprem_llm.bundle.sbom import bill
from onprem_llm.bundle.sources import Sources
from onprem_llm.errors import InvalidError
from onprem_llm.output import Progress
from onprem_llm.spec.lock import FILE, Lock, LockedPackage, LockedPackages, LockedWeights

INSTALL = "install.sh"
SBOM = "sbom.json"
LICENCES = "all"


@dataclass(slots=True)
class Artefact:
    """A blob to be: where its bytes are, or the bytes."""

    sha256: str
    size: int
    role: Role
    names: set[str]
    path: Path | None = None
    data: bytes | None = None


@dataclass(slots=True)
class Wanted:
    """Everything of a bundle but its manifest."""

    lock: Lock
    lock_sha256: str
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    folders: list[FolderView] = field(default_factory=list)

    def add(self, sha256: str, size: int, role: Role, name: str, path: Path | None = None) -> None:
        """Add a blob that is somewhere; the same one may have several names, and is stored once."""
        known = self.artefacts.setdefault(sha256, Artefact(sha256, size, role, set(), path))
        if known.size != size:
            raise InvalidError(
                f"{name}: {size} bytes, and {min(known.names)} has the same sha256 and {known.size}",
                hint="the lock was altered: make it again",
            )
        known.names.add(name)
        known.role = min(known.role, role, key=ROLES.index)
        known.path = known.path or path

    def add_data(self, data: bytes, role: Role, name: str) -> str:
        """Add a blob that was made here, and return its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.add(sha256, len(data), role, name)
        self.artefacts[sha256].data = data
        return sha256

    @property
    def image_views(self) -> tuple[ImageView, ...]:
        """Name the images."""
        return tuple(ImageView(ref=i.ref, digest=f"sha256:{i.sha256}") for i in sorted(self.images, key=_ref))

    @property
    def root(self) -> dict[str, bytes]:
        """Return the small files at the root."""
        return {"oci-layout": LAYOUT_BYTES, "index.json": index_bytes(self.images)}


def _ref(image: Image) -> str:
    return image.ref


def wanted_of(lock: Lock, lock_bytes: bytes, sources: Sources, progress: Progress) -> Wanted:
    """Return all that the bundle of a lock holds; what the cache lacks is fetched."""
    wanted = Wanted(lock, hashlib.sha256(lock_bytes).hexdigest())
    wanted.add_data(lock_bytes, "lock", FILE)
    wanted.add_data((Path(__file__).parent / INSTALL).read_bytes(), "install", INSTALL)
    _add_images(wanted, sources, progress)
    for weights in lock.weights:
        _add_weights(wanted, weights)
    for release in lock.packages:
        for package in release.files:
            name = f"packages/{release_name(release)}/{POOL}/{package.filename}"
            wanted.add(package.sha256, package.size, "package", name)
    for wheels in lock.wheels:
        for wheel in wheels.files:
            wanted.add(wheel.sha256, wheel.size, "wheel", f"wheels/python{wheels.python}/{wheel.filename}")
    need = {a.sha256: (a.size, min(a.names)) for a in wanted.artefacts.values() if a.data is None}
    for sha256, path in sources.need(need, progress).items():
        wanted.artefacts[sha256].path = path
    _add_made(wanted, sources.cache / "bundle")
    return wanted


def release_name(release: LockedPackages) -> str:
    """Name the folder of a release's packages."""
    return f"{release.os}-{release.release}-{release.architecture}"


def _add_images(wanted: Wanted, sources: Sources, progress: Progress) -> None:
    digests = {image.digest.removeprefix("sha256:"): image.ref for image in wanted.lock.images}
    # Their sizes are in no lock; a manifest that is not the right one is found when it is hashed.
    absent = {sha: (0, ref) for sha, ref in digests.items() if not (sources.cache / "blobs/sha256" / sha).is_file()}
    if absent and sources.fetch:
        progress.step("Fetch the manifests of images", [])
        sources.fetch({sha: ref for sha, (_, ref) in absent.items()}, progress)
    for image in wanted.lock.images:
        sha256 = image.digest.removeprefix("sha256:")
        path = sources.cache / "blobs/sha256" / sha256
        if not path.is_file():
            sources.need({sha256: (-1, f"the manifest of {image.ref}")}, progress)
        found = read_image(image.ref, image.digest, path)
        wanted.images.append(found)
        manifest, name = found.manifest, f"images/{image.ref}"
        wanted.add(sha256, len(manifest.data), "image-manifest", f"{name}/manifest", path)
        wanted.add(manifest.config.sha256, manifest.config.size, "image-config", f"{name}/config")
        for number, layer in enumerate(manifest.layers, 1):
            wanted.add(layer.sha256, layer.size, "image-layer", f"{name}/layer-{number}")


def _add_weights(wanted: Wanted, weights: LockedWeights) -> None:
    # A folder of this name gives the weights the id that the lock has for them.
    folder = weights.name.rpartition("-")[0] or weights.name
    for file in weights.files:
        wanted.add(file.sha256, file.size, "weights", f"weights/{weights.name}/{folder}/{file.path}")
    about = {"source": weights.source, "id": weights.id, "commit": weights.commit, "folder": folder}
    files = {f"{folder}/{file.path}": file.sha256 for file in weights.files}
    wanted.folders.append(_view("weights", weights.name, about, files))


def _add_made(wanted: Wanted, cache: Path) -> None:
    licences, said = Licences(), {}
    for release in wanted.lock.packages:
        if release.files and all(one.filename.endswith(".rpm") for one in release.files):
            index = index_of([(one, _path(wanted, one.sha256)) for one in release.files])
            add_debs(licences, release_name(release), licences_of(index))
        else:
            debs = _debs(wanted, release, cache)
            add_debs(licences, release_name(release), {package.name: deb for package, deb in debs})
            index = {INDEX: index_text(debs)}
        _add_release(wanted, release, index)
    for wheels in wanted.lock.wheels:
        for wheel in wheels.files:
            facts = read_wheel(_path(wanted, wheel.sha256), wheel.filename)
            add_wheel(licences, facts)
            said[wheel.filename] = facts.licence
        files = {wheel.filename: wheel.sha256 for wheel in wheels.files}
        about = {"python": wheels.python, "platform": wheels.platform}
        wanted.folders.append(_view("wheels", f"python{wheels.python}", about, files))
    _add_licences(wanted, licences)
    wanted.add_data(bill(wanted.lock, wanted.lock_sha256, said), "sbom", SBOM)


def _debs(wanted: Wanted, release: LockedPackages, cache: Path) -> list[tuple[LockedPackage, Deb]]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        read = [
            pool.submit(functools.partial(read_deb, one, _path(wanted, one.sha256), cache)) for one in release.files
        ]  # fmt: skip
        return [(one, job.result()) for one, job in zip(release.files, read, strict=True)]


def _add_release(wanted: Wanted, release: LockedPackages, index: Mapping[str, bytes]) -> None:
    name = release_name(release)
    files = {f"{POOL}/{one.filename}": one.sha256 for one in release.files}
    for path, data in index.items():
        files[path] = wanted.add_data(data, "packages-index", f"packages/{name}/{path}")
    about = {
        "os": release.os, "release": release.release, "codename": release.codename,
        "architecture": release.architecture, "kernels": tuple(sorted(release.kernels)),
    }  # fmt: skip
    wanted.folders.append(_view("packages", name, about, files))


def _add_licences(wanted: Wanted, licences: Licences) -> None:
    files: dict[str, str] = {}
    for weights in wanted.lock.weights:
        own = [one for one in weights.files if WEIGHTS_LICENCE.fullmatch(one.path)]
        files |= {f"weights/{weights.name}/{one.path}": one.sha256 for one in own}
        if not own:
            licences.missing.append(f"weights {weights.id}")
    licences.missing.extend(f"image {image.ref} (what is inside it has its own)" for image in wanted.lock.images)
    texts = {**licences.texts, MISSING: licences.missing_text()}
    files |= {path: wanted.add_data(data, "licence", f"licences/{LICENCES}/{path}") for path, data in texts.items()}
    wanted.folders.append(_view("licences", LICENCES, {}, files))


def _view(kind: str, name: str, about: Mapping[str, object], files: Mapping[str, str]) -> FolderView:
    named = tuple(NamedFile(path=path, sha256=files[path]) for path in sorted(files))
    return FolderView.model_validate({"kind": kind, "name": name, "about": about, "files": named})


def _path(wanted: Wanted, sha256: str) -> Path:
    path = wanted.artefacts[sha256].path
    if path is None:
        raise AssertionError("looked up before")
    return path
