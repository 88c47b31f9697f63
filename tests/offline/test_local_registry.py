"""A host's own registry: filled by the role with what the order names, served plainly, and rid of all else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.made_images import Layout, image, tar_of
from tests.offline.rendered_registry import local
from tests.offline.roles_here import ROLES, run_role

from onprem_llm.bundle.registry_view import blob_path, write_registry
from onprem_llm.image_names import image_name
from onprem_llm.own_registry import OwnRegistryFolder, read_own_registry
from onprem_llm.rendering.registry import CERTIFICATE, STORE

ENGINE, PAGE = "vllm/vllm-openai:v1", "ghcr.io/open-webui/open-webui:v2"


@pytest.fixture
def own(bundle: Layout, tmp_path: Path) -> OwnRegistryFolder:
    write_registry(bundle.index, bundle.blobs, tmp_path / "site")
    return read_own_registry(tmp_path / "site", "10.0.0.2:5000")


def fill(host: Path, own: OwnRegistryFolder, *refs: str, keep: tuple[str, ...] = ()) -> int:
    """Run the role as the step for receivers does; return how many tasks changed something."""
    store = own.store
    parts = [store.parts[ref] for ref in refs]
    variables: dict[str, Any] = {
        "path": str(host / "data"),
        "source": store.source,
        "files": [
            {"path": blob_path(sha256), "size": store.blobs[sha256], "sha256": sha256}
            for sha256 in sorted({sha256 for part in parts for sha256 in part.blobs})
        ],
        "links": {path: digest for part in parts for path, digest in part.links.items()},
        "keep": [store.images[ref] for ref in (*refs, *keep)],
    }
    return run_role(host, "image_registry", {f"image_registry_{name}": value for name, value in variables.items()})


def blobs(host: Path) -> set[str]:
    return {path.parent.name for path in (host / "data").rglob("data") if path.is_file()}


def pulls(address: str, own: OwnRegistryFolder, ref: str, out: Path) -> bool:
    """Tell whether skopeo gets the whole image by digest, without TLS."""
    name = f"{address}/{image_name(ref).repository}@{own.store.images[ref]}"
    command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false", f"docker://{name}"]
    ended = subprocess.run([*command, f"oci:{out}:x"], check=False, capture_output=True, text=True)
    assert ended.returncode == 0 or "manifest unknown" in ended.stderr or "name unknown" in ended.stderr, ended.stderr
    if ended.returncode == 0:
        found = {path.name for path in (out / "blobs/sha256").iterdir()}
        assert set(own.store.parts[ref].blobs) <= found
    return ended.returncode == 0


def test_it_serves_what_it_was_given_and_forgets_what_is_not_kept(own: OwnRegistryFolder, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    assert fill(host, own, ENGINE) == 2
    assert fill(host, own, ENGINE) == 0
    assert blobs(host) == set(own.store.parts[ENGINE].blobs)
    with local(host / "data", host) as address:
        assert pulls(address, own, ENGINE, tmp_path / "first")
        assert not pulls(address, own, PAGE, tmp_path / "not")

        assert fill(host, own, PAGE, keep=(ENGINE,)) == 2
        assert blobs(host) == {*own.store.parts[ENGINE].blobs, *own.store.parts[PAGE].blobs}
        assert pulls(address, own, ENGINE, tmp_path / "second")

        assert fill(host, own, PAGE) == 1
        # The layer that both have stays.
        assert blobs(host) == set(own.store.parts[PAGE].blobs)
        assert pulls(address, own, PAGE, tmp_path / "third")
        assert not pulls(address, own, ENGINE, tmp_path / "gone")
    left = [str(path) for path in (host / "data").rglob("*") if "vllm" in str(path)]
    assert left == [], "names of what is not there"


def test_what_a_run_left_half_is_taken_up_or_removed(own: OwnRegistryFolder, bundle: Layout, tmp_path: Path) -> None:
    host = tmp_path / "host"
    mine, others = own.store.parts[ENGINE].blobs, own.store.parts["redis:7"].blobs
    largest = max(mine, key=lambda sha256: own.store.blobs[sha256])
    stray = next(sha256 for sha256 in others if sha256 not in mine)
    for sha256 in (largest, stray):
        partial = host / "data" / f"{blob_path(sha256)}.partial"
        partial.parent.mkdir(parents=True)
        partial.write_bytes((bundle.blobs / sha256).read_bytes()[:1000])
    fill(host, own, ENGINE)
    assert blobs(host) == set(mine)
    assert not list((host / "data").rglob("*.partial"))


@pytest.mark.parametrize("how", ["unreadable", "altered", "gone"])
def test_layers_of_a_kept_image_outlive_its_manifest(own: OwnRegistryFolder, tmp_path: Path, how: str) -> None:
    """What the manifest would say of them is not known, and its link stays: it alone has to come again."""
    host = tmp_path / "host"
    host.mkdir()
    fill(host, own, ENGINE)
    manifest = host / "data" / blob_path(own.store.images[ENGINE].removeprefix("sha256:"))
    said = json.loads(manifest.read_bytes())
    said["layers"] = said["layers"][:-1]
    manifest.unlink() if how == "gone" else manifest.write_text("{" if how == "unreadable" else json.dumps(said))
    layers = {path: path.stat().st_mtime_ns for path in (host / "data").rglob("data") if path != manifest}

    fill(host, own, PAGE, keep=(ENGINE,))
    both = {*own.store.parts[ENGINE].blobs, *own.store.parts[PAGE].blobs}
    assert blobs(host) | {manifest.parent.name} == both
    fill(host, own, ENGINE, keep=(PAGE,))
    assert blobs(host) == both
    assert {path: path.stat().st_mtime_ns for path in layers} == layers, "layers that were there came again"
    with local(host / "data", host) as address:
        assert pulls(address, own, ENGINE, tmp_path / "first")
    # Of an image that is not kept nothing stays, damaged or not.
    manifest.write_text("{")
    fill(host, own, PAGE)
    assert blobs(host) == set(own.store.parts[PAGE].blobs)


def test_a_later_image_of_the_same_name_moves_the_tag(own: OwnRegistryFolder, bundle: Layout, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    fill(host, own, ENGINE)
    later = Layout(tmp_path / "later")
    later.add(ENGINE, image(tar_of("engine", os.urandom(1000))))
    write_registry(later.index, later.blobs, tmp_path / "site")
    newer = read_own_registry(tmp_path / "site", "10.0.0.2:5000")
    assert newer.store.images[ENGINE] != own.store.images[ENGINE]
    fill(host, newer, ENGINE)
    assert blobs(host) == set(newer.store.parts[ENGINE].blobs)
    tags = {path.read_text() for path in (host / "data").rglob("_manifests/tags/**/link")}
    assert tags == {newer.store.images[ENGINE]}


def test_the_engine_pulls_from_it_by_digest(own: OwnRegistryFolder, tmp_path: Path) -> None:
    """What roles/images does on a host: docker asks loopback without TLS."""
    host = tmp_path / "host"
    host.mkdir()
    fill(host, own, ENGINE)
    with local(host / "data", host) as address:
        reference = f"{address}/{image_name(ENGINE).repository}@{own.store.images[ENGINE]}"
        try:
            subprocess.run(["docker", "pull", "--quiet", reference], check=True)
            shown = subprocess.run(["docker", "image", "inspect", reference], check=True, capture_output=True).stdout
        finally:
            subprocess.run(["docker", "image", "rm", reference], check=False, capture_output=True)
    assert reference in json.loads(shown)[0]["RepoDigests"]


def test_a_former_gateway_hosts_certificate_does_not_stay_to_be_renewed(tmp_path: Path) -> None:
    """Plans and `tls renew` look for the file."""
    certificate = tmp_path / "registry" / CERTIFICATE
    certificate.parent.mkdir(parents=True)
    certificate.write_text("a certificate and its key")
    store = {"path": str(tmp_path / "registry" / STORE), "source": str(tmp_path), "files": [], "links": {}, "keep": []}
    order = {"images": [], "store": store, "projects": []}
    (tmp_path / "orders.json").write_text(json.dumps({"localhost": order}))
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(ROLES.parent / "playbooks/registry.yml")]
    site = {"onprem_llm_site": {"data_root": str(tmp_path)}, "onprem_llm_order_file": str(tmp_path / "orders.json")}
    variables = {**site, "ansible_python_interpreter": sys.executable, "ansible_become": False}
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROLES)}
    command += ["-e", json.dumps(variables)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list((tmp_path / "registry").iterdir()) == []
