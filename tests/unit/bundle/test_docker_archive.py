"""The registry's own image as a `docker save` archive."""

import hashlib
import json
import tarfile
from pathlib import Path

from onprem_llm.bundle.docker_archive import write_archive
from onprem_llm.image_archives import read_archive


def keep(blobs: Path, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    (blobs / sha256).write_bytes(data)
    return sha256


def test_it_is_what_deploy_reads_and_the_same_each_time(tmp_path: Path) -> None:
    layers = [b"one", b"two", b"one"]
    descriptors = [{"digest": f"sha256:{keep(tmp_path, data)}", "size": len(data)} for data in layers]
    config = keep(tmp_path, b"{}")
    manifest = {"schemaVersion": 2, "config": {"digest": f"sha256:{config}", "size": 2}, "layers": descriptors}
    digest = f"sha256:{keep(tmp_path, json.dumps(manifest).encode())}"
    target = tmp_path / "images" / "registry.tar"
    assert write_archive("onprem-llm/registry:1", digest, tmp_path, target)
    assert [(one.ref, one.id) for one in read_archive(target)] == [("onprem-llm/registry:1", f"sha256:{config}")]
    with tarfile.open(target) as tar:
        (listing,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        found = [tar.extractfile(name).read() for name in listing["Layers"]]  # type: ignore[union-attr]
    assert found == layers
    data = target.read_bytes()
    assert not write_archive("onprem-llm/registry:1", digest, tmp_path, target)
    target.write_bytes(data[:100])
    assert write_archive("onprem-llm/registry:1", digest, tmp_path, target)
    assert target.read_bytes() == data
