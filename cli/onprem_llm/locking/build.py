"""A lock from its parts: what each model.yaml needs, for the hosts of the facts."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from onprem_llm import __version__
from onprem_llm.errors import InvalidError
from onprem_llm.facts.as_hosts import hosts_of
from onprem_llm.image_archives import find_archives
from onprem_llm.locking.archive_images import ArchiveImages
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.named_models import LockedModel, Named, locked_model, named_models
from onprem_llm.locking.origins import Origins
from onprem_llm.locking.packages import Packages, Release, releases
from onprem_llm.locking.plan_images import images_of
from onprem_llm.locking.ray_image import check as check_ray
from onprem_llm.locking.registry_images import RegistryAccess, RegistryImages
from onprem_llm.locking.site_settings import rendered_settings
from onprem_llm.locking.wheels import Wheels
from onprem_llm.output import Progress
from onprem_llm.planning.compatibility.check import check_hosts
from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.lock import (
    Lock,
    LockedImage,
    LockedPackages,
    LockedWeights,
    LockedWheels,
    Platform,
)
from onprem_llm.spec.site import Site
from onprem_llm.weights.headers import read_model_files


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    models: Sequence[Path]
    facts: Facts
    site: Site
    pythons: Sequence[str]
    images_dir: Path | None = None
    expires: str | None = None
    access: RegistryAccess = field(default_factory=RegistryAccess)
    mirrors: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)  # of mirrors, files
    skip: Sequence[str] = ()  # packages, wheels


@dataclass(frozen=True)
class Built:
    """A lock, how its bytes were had, and what a person should know."""

    lock: Lock
    origins: Origins
    notes: tuple[str, ...]


def build(request: Request, progress: Progress) -> Built:
    """Make the lock; the same files, facts and answers of registries and mirrors always give the same."""
    platform = _platform(request.facts)
    groups = releases(request.facts) if "packages" not in request.skip else ()
    named = named_models(request.models)
    _check_backends(request.site, named)
    unlike = _compatible(request, named)
    models = [locked_model(one, progress) for one in named]
    images, archives = _images(request, models, platform, progress)
    rayless = _check_ray(request.site, images, progress)
    packages, notes = _packages(request, groups, progress)
    lock = Lock(
        onprem_llm=__version__,
        platform=platform,
        expires=request.expires,
        deployments=tuple(model.locked for model in models),
        site=dict(rendered_settings(request.site)),
        images=images,
        weights=_once([model.weights for model in models]),
        packages=packages,
        wheels=_wheels(request, platform, progress),
    )
    access = request.access
    origins = Origins(
        access.address,
        str(access.authfile.absolute()) if access.authfile else None,
        str(access.ca_file.absolute()) if access.ca_file else None,
        request.mirrors,
        archives,
        {model.weights.name: str(model.folder) for model in models},
        request.keys,
    )
    return Built(lock, origins, (*(note for one in named for note in one.notes), *unlike, *rayless, *notes))


def _platform(facts: Facts) -> Platform:
    if len(facts.platforms) == 1:
        return facts.platforms[0]
    of = {name: [host for host, one in facts.hosts.items() if one.platform == name] for name in facts.platforms}
    found = "; ".join(f"{name}: {', '.join(hosts)}" for name, hosts in of.items())
    raise InvalidError(
        f"the hosts of the facts are of {len(of)} platforms, expected one: {found}",
        hint="make a lock for each platform, with the facts of its hosts",
    )


def _check_backends(site: Site, named: Sequence[Named]) -> None:
    """Raise InvalidError where a deployment on Ray is for another image than the nodes of our own cluster run."""
    if site.ray.address is not None:
        return
    for one in named:
        found, wanted = one.deployment.engine.image, site.ray.image
        if one.deployment.backend == "ray" and found != wanted:
            raise InvalidError(
                f"{one.path}: engine.image: found {found}, expected {wanted or 'onprem_llm_site.ray.image, unset'}: "
                "all nodes of a Ray cluster run one image",
                hint="write the same image into model.yaml and into onprem_llm_site.ray.image of the site's settings "
                "(-i INVENTORY, --site FILE)",
            )


def _compatible(request: Request, named: Sequence[Named]) -> tuple[str, ...]:
    """Return warnings; InvalidError where an image runs on no host of the facts, before anything is hashed or asked."""
    hosts = tuple(hosts_of(request.facts, request.site))
    judged = [one for one in named if one.deployment.backend != "ray" or request.site.ray.address is None]
    return tuple(text for one in judged for text in check_hosts(one.deployment, read_model_files(one.folder), hosts))


def _once(weights: Sequence[LockedWeights]) -> tuple[LockedWeights, ...]:
    """Keep weights that several deployments share once; files of one name are the same files."""
    found: dict[str, LockedWeights] = {}
    for one in sorted(weights, key=lambda one: (one.name, one.source, one.id, one.revision)):
        found.setdefault(one.name, one)
    return tuple(found.values())


def _images(
    request: Request, models: Sequence[LockedModel], platform: Platform, progress: Progress
) -> tuple[tuple[LockedImage, ...], dict[str, str]]:
    blobs, known = Blobs(), _archives(request.images_dir)
    needed = [images_of(one.deployment, one.manifest, request.site, request.facts) for one in models]
    # On site a bundle's images are served by a registry, unless the site has one.
    served = () if request.site.registry else (request.site.registry_image,)
    # The nodes of a cluster run from it, whatever is deployed there.
    ray = (request.site.ray.image,) if request.site.ray.image else ()
    refs = sorted({*served, *ray, *(ref for some in needed for ref in some)})
    registry = RegistryImages(platform, request.access, blobs)

    def resolve(ref: str) -> LockedImage:
        source = known.get(ref)
        if source is None or source.archive is None:
            return registry.resolve(ref)
        return ArchiveImages(platform, blobs).resolve(ref, Path(source.archive))

    progress.step(f"Look up {len(refs)} images: {', '.join(refs)}", [])
    with ThreadPoolExecutor(max_workers=4) as pool:
        try:
            found = tuple(pool.map(resolve, refs))
        except BaseException:  # Ctrl-C, too: what has not begun does not begin
            pool.shutdown(cancel_futures=True)
            raise
    return found, {ref: str(known[ref].archive) for ref in refs if ref in known}


def _check_ray(site: Site, images: Sequence[LockedImage], progress: Progress) -> tuple[str, ...]:
    """Return what there is to know of the cluster's image; InvalidError where no cluster can run from it."""
    image = next((one for one in images if one.ref == site.ray.image), None)
    if image is None:
        return ()
    progress.step(f"Look for Ray in {image.ref}", [])
    return check_ray(image, Blobs())


def _archives(folder: Path | None) -> Mapping[str, ImageSource]:
    return find_archives(folder) if folder is not None else {}


def _packages(
    request: Request, groups: Sequence[Release], progress: Progress
) -> tuple[tuple[LockedPackages, ...], tuple[str, ...]]:
    site = request.site
    packages = Packages(
        request.mirrors, driver=site.nvidia_driver, toolkit=site.nvidia_container_toolkit, keys=request.keys
    )
    found, notes = list[LockedPackages](), list[str]()
    for release in groups:
        progress.step(f"Ask the mirror for the packages of {release.label}", [])
        locked, said = packages.resolve(release)
        found.append(locked)
        notes += said
    return tuple(found), tuple(notes)


def _wheels(request: Request, platform: Platform, progress: Progress) -> tuple[LockedWheels, ...]:
    if "wheels" in request.skip:
        return ()
    progress.step(f"Fetch wheels for Python {', '.join(request.pythons)}", [])
    return Wheels(platform).resolve(request.pythons)
