"""What deploy does with a registry's folder: the role fills a host's, the rendered configuration serves it over TLS."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made
from tests.made_images import Layout
from tests.offline.rendered_registry import rendered
from tests.offline.roles_here import run_role

from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import write_registry
from onprem_llm.own_registry import OwnRegistryFolder, read_own_registry
from onprem_llm.planning.registry import plan_registry, registry_step
from onprem_llm.planning.types import Wanted
from onprem_llm.spec.site import Site, parse_site


@pytest.fixture
def own(bundle: Layout, tmp_path: Path) -> OwnRegistryFolder:
    write_registry(bundle.index, bundle.blobs, tmp_path / "site/registry")
    return read_own_registry(tmp_path / "site/registry", "127.0.0.1:5000")


def order(own: OwnRegistryFolder, data_root: Path) -> dict[str, Any]:
    """What the plan says for a gateway host that has no registry yet."""
    site: Site = parse_site({"registry_dir": "registry", "data_root": str(data_root)}, "test")
    facts = made.lab(0)
    host = made.current(facts).hosts[0]
    wanted = Wanted((), registry=own.store, registry_image=made.archive("onprem-llm/registry:1"))
    step = registry_step(site, plan_registry(site, wanted, host), host)
    assert step is not None
    found: dict[str, Any] = json.loads(json.dumps(step.orders["lab-1"]))
    return found


def fill(host: Path, store: dict[str, Any]) -> int:
    return run_role(host, "image_registry", {f"image_registry_{name}": value for name, value in store.items()})


def skopeo(address: str, trusted: Path, descriptor: dict[str, Any], own: OwnRegistryFolder, out: Path) -> bool:
    source = own.source(descriptor["annotations"][REF])
    assert source is not None
    place = str(source.pull).replace("127.0.0.1:5000", address)
    command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-cert-dir", str(trusted)]
    ended = subprocess.run([*command, f"docker://{place}", f"oci:{out}:x"], check=False, capture_output=True, text=True)
    assert ended.returncode == 0 or "certificate" in ended.stderr, ended.stderr
    return ended.returncode == 0


def test_a_host_is_filled_and_serves(own: OwnRegistryFolder, bundle: Layout, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    store = order(own, host / "srv")["store"]
    assert fill(host, store) == 2
    assert fill(host, store) == 0

    (tmp_path / "none").mkdir()
    with rendered(Path(store["path"]), host) as served:
        for number, descriptor in enumerate(bundle.index["manifests"]):
            out = tmp_path / f"out-{number}"
            assert skopeo(served.address, served.trusted, descriptor, own, out)
            for blob in (out / "blobs/sha256").iterdir():
                assert blob.read_bytes() == (bundle.blobs / blob.name).read_bytes()
            assert not skopeo(served.address, tmp_path / "none", descriptor, own, tmp_path / "not")


def test_damage_on_the_host_is_mended(own: OwnRegistryFolder, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    store = order(own, host / "srv")["store"]
    fill(host, store)
    data = Path(store["path"])
    largest = max((data / one["path"] for one in store["files"]), key=lambda path: path.stat().st_size)
    good = largest.read_bytes()
    largest.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (data / next(iter(store["links"]))).write_text("sha256:" + "0" * 64)

    assert fill(host, store) == 2

    assert largest.read_bytes() == good
    assert all((data / path).read_text() == digest for path, digest in store["links"].items())
