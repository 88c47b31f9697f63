"""What stands at the top of a site's folder: the lock, model.yaml files, the image layout, the registry's storage."""

import json

from onprem_llm.bundle.docker_archive import write_archive
from onprem_llm.bundle.files import read_small
from onprem_llm.bundle.fitting import read_lock_blob
from onprem_llm.bundle.images import LAYOUT_BYTES, add_to_index
from onprem_llm.bundle.manifest import INDEX, LAYOUT, Manifest
from onprem_llm.bundle.registry_view import blob_path, write_registry
from onprem_llm.bundle.site_folder import SiteFolder
from onprem_llm.output import Progress
from onprem_llm.spec.lock import FILE
from onprem_llm.spec.site import Site
from onprem_llm.whole_files import write_whole

REGISTRY = "registry"
# By role.
_TOP = {"lock": FILE, "sbom": "sbom.json"}


def write_top(site: SiteFolder, manifest: Manifest, index: bytes, progress: Progress, *, links: bool) -> None:
    """Write them; `index` is the bundle's index.json. What is so already is left alone."""
    root = site.root
    # First of all: what cannot be read must not be there in part.
    (lock_blob,) = manifest.of_role("lock")
    lock = read_lock_blob(root, lock_blob.sha256)
    for blob in manifest.blobs:
        if blob.role in _TOP:
            write_whole(root / _TOP[blob.role], read_small(site.blobs, blob.sha256))
    write_whole(root / LAYOUT, LAYOUT_BYTES)
    images: dict[str, object] = json.loads(index)
    add_to_index(root / INDEX, images)
    for one in lock.deployments:
        write_whole(root / one.file, one.text.encode())
    if manifest.images:
        progress.step("Fill the registry", [])
        if links:
            _drop_old_bytes(site, manifest)
        write_registry(images, site.blobs, root / REGISTRY)
    # The registry's own image comes before there is a registry.
    own = lock.image(str(lock.site.get("registry_image", Site.model_fields["registry_image"].default)))
    if own is not None:
        write_archive(own.ref, own.digest, site.blobs, root / "images" / "registry.tar")


def _drop_old_bytes(site: SiteFolder, manifest: Manifest) -> None:
    """Remove from the registry what is no link to its blob any more: that was damaged, and brought again."""
    for blob in manifest.blobs:
        path = site.root / REGISTRY / blob_path(blob.sha256)
        if path.exists() and not path.samefile(site.blobs / blob.sha256):
            path.unlink()
