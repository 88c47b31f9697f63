"""A stub engine that takes a while to travel, in the folder of a site's own registry."""

import json
from pathlib import Path

from tests.e2e.conftest import cache
from tests.made_images import Layout, described, sha256, tar_of
from tests.made_weights import noise

from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import write_registry
from onprem_llm.locking.archive_images import ArchiveImages
from onprem_llm.locking.blobs import Blobs

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def add_large(layout: Layout, ref: str, size: int, seed: int) -> None:
    """Add the stub engine with one more layer, of `size` bytes that nothing makes smaller."""
    blobs = Blobs(layout.blobs)
    archive = cache() / "test/images/stub-engine-1.tar"
    stub = ArchiveImages("linux/amd64", blobs).resolve("onprem-llm/stub-engine:1", archive)
    manifest = json.loads(blobs.path(stub.digest).read_bytes())
    config = json.loads(blobs.path(stub.id).read_bytes())
    tar = tar_of(f"large-{seed}", noise(size, seed))
    layout.keep(tar)
    config["rootfs"]["diff_ids"].append(f"sha256:{sha256(tar)}")
    config.pop("history", None)
    manifest["layers"].append(described(tar, OCI_LAYER))
    data = json.dumps(config).encode()
    layout.keep(data)
    manifest["config"] |= {"digest": f"sha256:{sha256(data)}", "size": len(data)}
    whole = json.dumps(manifest).encode()
    layout.keep(whole)
    layout.index["manifests"].append({**described(whole, manifest["mediaType"]), "annotations": {REF: ref}})


def write_registry_with(scratch: Path, registry: Path, ref: str, size: int, seed: int = 3) -> None:
    """Make or complete a registry's folder with such an image; `scratch` must not be there."""
    layout = Layout(scratch)
    add_large(layout, ref, size, seed)
    layout.write()
    write_registry(layout.index, layout.blobs, registry)
