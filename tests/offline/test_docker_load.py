"""The registry's own image out of a bundle's blobs: an archive that docker loads, and that images_dir takes."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.made_images import Layout, image, tar_of

from onprem_llm.bundle.docker_archive import write_archive
from onprem_llm.image_archives import find_archives

REF = "onprem-llm-test/registry:1"


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_docker_loads_it_as_the_image_that_it_is(tmp_path: Path, kind: str) -> None:
    bundle = Layout(tmp_path / "bundle")
    digest = bundle.add(REF, image(tar_of("one", b"1"), tar_of("two", b"2"), kind=kind))
    target = tmp_path / "images" / "registry.tar"

    assert write_archive(REF, digest, bundle.blobs, target)

    manifest = json.loads((bundle.blobs / digest.removeprefix("sha256:")).read_bytes())
    source = find_archives(target.parent)[REF]
    assert source.id == manifest["config"]["digest"]
    try:
        loaded = subprocess.run(["docker", "load", "--input", str(target)], check=True, capture_output=True, text=True)
        command = ["docker", "image", "inspect", "--format", "{{.Id}} {{len .RootFS.Layers}}", REF]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    finally:
        subprocess.run(["docker", "image", "rm", REF], check=False, capture_output=True)
    assert REF in loaded.stdout
    assert found == [source.id, "2"]
