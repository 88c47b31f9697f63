"""The view of images is what docker-registry serves: pulled by tag and by digest, and compared byte for byte."""

import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.made_images import Layout, image, tar_of
from tests.offline.rendered_registry import Served, rendered

from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import write_registry
from onprem_llm.image_names import image_name


@pytest.fixture
def served(bundle: Layout, tmp_path: Path) -> Iterator[Served]:
    write_registry(bundle.index, bundle.blobs, tmp_path / "registry")
    (tmp_path / "configured").mkdir()
    with rendered(tmp_path / "registry", tmp_path / "configured") as found:
        yield found


def pulled(served: Served, name: str, target: Path) -> dict[str, bytes]:
    """Copy an image with skopeo as it is, and return its blobs."""
    command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-cert-dir", str(served.trusted)]
    subprocess.run([*command, f"docker://{served.address}/{name}", f"oci:{target}:x"], check=True)
    return {path.name: path.read_bytes() for path in (target / "blobs/sha256").iterdir()}


def asked(served: Served, path: str) -> tuple[int, bytes]:
    """Return what the registry answers: status and body."""
    context = ssl.create_default_context(cafile=str(served.root))
    connection = http.client.HTTPSConnection(served.address, timeout=30, context=context)
    connection.request("GET", f"/v2/{path}")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_each_image_is_pulled_by_tag_and_by_digest(bundle: Layout, served: Served, tmp_path: Path) -> None:
    for number, descriptor in enumerate(bundle.index["manifests"]):
        name, digest = image_name(descriptor["annotations"][REF]), descriptor["digest"]
        by_tag = pulled(served, f"{name.repository}:{name.tag}", tmp_path / f"tag-{number}")
        by_digest = pulled(served, f"{name.repository}@{digest}", tmp_path / f"digest-{number}")

        assert by_tag == by_digest
        manifest = json.loads((bundle.blobs / digest.removeprefix("sha256:")).read_bytes())
        wanted = [digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
        assert by_tag == {
            one.removeprefix("sha256:"): (bundle.blobs / one.removeprefix("sha256:")).read_bytes() for one in wanted
        }


def test_a_repository_serves_its_own_alone(bundle: Layout, served: Served) -> None:
    """One repository's blob is not found by another's name: access to a layer goes by its links."""
    vllm, page = (one["digest"] for one in bundle.index["manifests"][:2])
    layer = json.loads((bundle.blobs / vllm.removeprefix("sha256:")).read_bytes())["layers"][1]["digest"]
    data = (bundle.blobs / layer.removeprefix("sha256:")).read_bytes()
    assert asked(served, f"docker.io/vllm/vllm-openai/blobs/{layer}") == (200, data)
    for path in (f"ghcr.io/open-webui/open-webui/blobs/{layer}", f"docker.io/vllm/vllm-openai/manifests/{page}"):
        assert asked(served, path)[0] == 404


def test_nothing_is_pushed(bundle: Layout, served: Served, tmp_path: Path) -> None:
    before = sorted((tmp_path / "registry").rglob("*"))
    command = ["skopeo", "copy", "--quiet", "--dest-cert-dir", str(served.trusted)]
    ended = subprocess.run(
        [*command, f"oci:{bundle.folder}:vllm/vllm-openai:v1", f"docker://{served.address}/other:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert "405" in ended.stderr or "unsupported" in ended.stderr, ended.stderr
    assert sorted((tmp_path / "registry").rglob("*")) == before


def test_what_a_later_load_brings_is_served_without_a_restart(bundle: Layout, served: Served, tmp_path: Path) -> None:
    later = Layout(tmp_path / "later")
    digest = later.add("redis:7", image(tar_of("redis", b"newer")))
    write_registry(later.index, later.blobs, tmp_path / "registry")
    found = pulled(served, "docker.io/library/redis:7", tmp_path / "newer")
    assert digest.removeprefix("sha256:") in found
    old = bundle.index["manifests"][2]["digest"]
    assert pulled(served, f"docker.io/library/redis@{old}", tmp_path / "older")


def test_the_engine_pulls_by_digest(bundle: Layout, served: Served) -> None:
    """What roles/images does on a host; an engine does not ask who a registry on loopback is."""
    for descriptor in bundle.index["manifests"]:
        name, digest = image_name(descriptor["annotations"][REF]), descriptor["digest"]
        reference = f"{served.address}/{name.repository}@{digest}"
        try:
            subprocess.run(["docker", "pull", "--quiet", reference], check=True)
            command = ["docker", "image", "inspect", "--format", "{{.Id}} {{index .RepoDigests 0}}", reference]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        finally:
            subprocess.run(["docker", "image", "rm", reference], check=False, capture_output=True)
        manifest = json.loads((bundle.blobs / digest.removeprefix("sha256:")).read_bytes())
        assert found[1] == reference
        # An engine with containerd's image store calls it by the manifest's digest.
        assert found[0] in {manifest["config"]["digest"], digest}
