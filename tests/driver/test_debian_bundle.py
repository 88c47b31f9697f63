"""Debian's non-free driver out of a bundle: locked by the host's facts, loaded, built by DKMS with no way out."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.driver.kit import H100, Host
from tests.driver.test_debian import bootstrap, kernel
from tests.locking.registry import running
from tests.locking.site import Site, made

CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache/onprem-llm")
# Debian has no NVIDIA Container Toolkit: tests/driver/test_toolkit.py is about that.
SETTINGS = "onprem_llm_site: {packages_dir: packages, nvidia_container_toolkit: {install: false}}\n"


@pytest.fixture(scope="module")
def site(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host as it is on a site: Debian's kernel is installed, nothing else is, and no way leads out.

    What its control host has came out of a bundle, which was made for the host's own facts.
    """
    host.run(
        "apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends "
        "linux-image-amd64 zstd; apt-get clean; rm -rf /var/lib/apt/lists/*"
    )
    host.has_on_its_bus(H100, H100)
    # On the disk of the cache: a bundle has hard links to its blobs there.
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="driver-bundle-") as folder:
        with running(tmp_path_factory.mktemp("registry")) as registry:
            connected = made(Path(folder) / "connected", registry)
            carried(host, connected)
        inventory = Path(folder) / "site/inventory.ini"
        inventory.write_bytes(host.inventory.read_bytes())
        (inventory.parent / "group_vars").mkdir()
        (inventory.parent / "group_vars/all.yml").write_text(SETTINGS)
        host.run("ip route del default; ip -6 route flush default")
        yield Host(inventory.parent, host.lab)


def carried(host: Host, connected: Site) -> None:
    """From the host's facts to what lies on the site's control host."""

    def run(*words: object) -> None:
        argv = ["onprem-llm", *map(str, words)]
        done = subprocess.run(argv, cwd=connected.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"

    run("facts", "export", "-i", host.inventory, "-o", "facts.json")
    run(*connected.words(connected.model(), skip=("wheels",)))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(connected.folder / "key")], check=True)
    public = (connected.folder / "key.pub").read_text()
    (connected.folder / "allowed").write_text(f'us namespaces="onprem-llm-bundle" {public}')
    run("bundle", "create", "--lock", "onprem-llm.lock", "-o", "bundle", "--sign-key", "key")
    where = ("--to", "../site", "--allowed-signers", "allowed", "--facts", "facts.json")
    run("bundle", "load", "bundle", *where)


def driver(found: dict[str, Any], host: Host) -> list[dict[str, str]]:
    return [one for one in found["hosts"][host.name]["findings"] if one["role"] == "nvidia_driver"]


def test_nobody_is_in_reach(site: Host) -> None:
    mirror = site.run("sed -n 's|^URIs: *||p' /etc/apt/sources.list.d/* | head -n 1")
    assert mirror.startswith("http")
    # Its name server is docker's own, so names may be known all the same.
    for address in (mirror, "http://198.51.100.7/"):
        assert site.run(f"curl --silent --max-time 5 {address} || echo none", check=False).endswith("none")


def test_the_driver_is_built_from_what_the_bundle_brought(site: Host) -> None:
    assert site.run("ls /usr/src | grep -c ^linux-headers", check=False) == "0"
    assert site.run("command -v gcc dkms docker", check=False) == ""
    found = bootstrap(site)
    levels = {one["check"]: one["level"] for one in driver(found, site)}
    assert levels["nvidia_driver"] == "ok", driver(found, site)
    version = site.run("dpkg-query --show --showformat '${source:Upstream-Version}' nvidia-kernel-dkms")
    module = f"/lib/modules/{kernel(site)}/updates/dkms/nvidia-current.ko.xz"
    assert site.run(f"modinfo --field version {module}") == version
    assert site.run(f"modinfo --field vermagic {module}").startswith(f"{kernel(site)} ")
    assert {"nvidia-kernel-dkms", "libcuda1", "linux-image-amd64"} <= set(site.run("apt-mark showhold").split())
    # The engine came the same way.
    assert site.run("docker version --format '{{.Server.Version}}'")


def test_every_package_is_one_of_the_bundle(site: Host) -> None:
    """In its very version: nothing came from a list that the host had, or from somebody who answers after all."""
    index = (site.folder / "packages/debian-13-amd64/Packages").read_text()
    brought = {
        tuple(dict(line.partition(": ")[::2] for line in part.splitlines())[name] for name in ("Package", "Version"))
        for part in index.split("\n\n")
    }
    since = site.run("stat -c %Y /etc/apt/sources.list.d/onprem-llm-packages.sources")
    form = "${Package} ${Version} ${db-fsys:Last-Modified}\\n"
    rows = [line.split() for line in site.run(f"dpkg-query --show --showformat '{form}'").splitlines()]
    added = {(name, version) for name, version, changed in rows if int(changed) >= int(since)}
    names = {name for name, _ in added}
    assert {"nvidia-kernel-dkms", "dkms", "make", "docker.io"} <= names
    assert [name for name in names if name.startswith("gcc-")]
    assert added <= brought


def test_a_second_run_changes_nothing(site: Host) -> None:
    assert bootstrap(site)["hosts"][site.name]["changed"] == 0
