"""The role nvidia_container_toolkit on a look-alike of Rocky Linux 9: stand-ins, the real dnf, a signed index."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.driver.kit import T4, Host
from tests.driver.rpms import DnfRepository
from tests.driver.test_rhel import TOOLS
from tests.driver.test_toolkit import ANSWER
from tests.driver.toolkits import NAMES, files, signed_index

NEW, OLD = "1.18.2", "1.17.8"
TREE = "/srv/mirror/stable/rpm/x86_64"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with pretended GPUs that has become a Rocky Linux."""
    one = Host(tmp_path_factory.mktemp("toolkit"))
    try:
        one.up("--hosts", "1", "--ready", "--gpus", "2xT4-16GB")
        install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends"
        one.run(f"apt-get update -q; {install} {TOOLS}; rm /etc/dnf/plugins/local.conf; mkdir -p /etc/yum.repos.d")
        one.run("systemctl start docker; rm -f /etc/cdi/nvidia.yaml /etc/apt/sources.list.d/*")
        one.looks_like(ID="rocky", VERSION_ID="9.6", PLATFORM_ID="platform:el9", PRETTY_NAME="Rocky Linux 9.6")
        one.has_on_its_bus(T4, T4)
        yield one
    finally:
        if not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            one.down()


@pytest.fixture(scope="module")
def key(host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the mirror's key; the mirror is on the host."""
    folder = tmp_path_factory.mktemp("rpms")
    made = DnfRepository(host, folder)
    for version in (OLD, NEW):
        for name, content in files(version).items():
            requires = f"nvidia-container-toolkit-base = {version}" if name == "nvidia-container-toolkit" else ""
            made.add(name, f"{version}-1", requires=requires, files=content)
    made.add("python3-dnf-plugin-versionlock", "4.3.0-20.el9", arch="noarch")
    host.send(folder, "/srv/specs")
    host.run(
        f"cd /srv/specs; mkdir -p {TREE};"
        "rpmbuild -bb --quiet --define '_rpmdir /srv/built' --define '_topdir /srv/build' *.spec;"
        f"find /srv/built -name '*.rpm' -exec cp {{}} {TREE} ';'; createrepo_c --quiet {TREE}"
    )
    index = folder / "repomd.xml"
    subprocess.run(["docker", "cp", f"{host.name}:{TREE}/repodata/repomd.xml", str(index)], check=True)
    found = signed_index(index, folder)
    host.send(folder / "repomd.xml.asc", f"{TREE}/repodata/repomd.xml.asc")
    host.send(folder / "gpgkey", "/srv/mirror/gpgkey")
    return found


def role(host: Host, key: str, **more: Any) -> dict[str, Any]:
    mirrors = {"nvidia_container_toolkit": "file:///srv/mirror"}
    return host.role(
        name="nvidia_container_toolkit", register=ANSWER, nvidia_container_toolkit_package_mirrors=mirrors,
        nvidia_container_toolkit_fingerprints=[key], **more,
    )  # fmt: skip


def installed(host: Host) -> list[str]:
    form = "%{NAME} %{VERSION}-%{RELEASE}\\n"
    found = host.run(f"rpm --query --all --queryformat '{form}'").splitlines()
    return sorted(line for line in found if line.split()[0] in NAMES)


def test_a_version_that_is_wished_is_installed_and_locked(host: Host, key: str) -> None:
    found = role(host, key, nvidia_container_toolkit_version=OLD)
    assert found["failure"] == "", found
    assert installed(host) == sorted(f"{name} {OLD}-1" for name in NAMES)
    locked = host.run("dnf --quiet versionlock list")
    assert all(f"{name}-0:{OLD}-1" in locked for name in NAMES), locked
    assert found["cdi"]["onprem_llm"]["findings"][0]["level"] == "ok"
    assert "GPU-" in host.run("cat /var/run/cdi/nvidia.yaml")
    repository = Path("/etc/yum.repos.d/onprem-llm-nvidia-container-toolkit.repo")
    assert "repo_gpgcheck=1" in host.run(f"cat {repository}")


def test_a_second_run_changes_nothing(host: Host, key: str) -> None:
    found = role(host, key, nvidia_container_toolkit_version=OLD)
    assert (found["packages"]["changed"], found["cdi"]["changed"]) == (False, False)


def test_another_version_takes_its_place_locked_as_it_was(host: Host, key: str) -> None:
    found = role(host, key, nvidia_container_toolkit_version=NEW)
    assert found["failure"] == "", found
    assert installed(host) == sorted(f"{name} {NEW}-1" for name in NAMES)
    locked = host.run("dnf --quiet versionlock list")
    assert all(f"{name}-0:{NEW}-1" in locked and f"{name}-0:{OLD}-1" not in locked for name in NAMES), locked


def test_an_index_that_was_altered_is_refused(host: Host, key: str) -> None:
    host.run(f"echo >> {TREE}/repodata/repomd.xml; dnf --quiet clean all; rpm --erase {' '.join(NAMES)}")
    host.run(f"dnf --quiet versionlock delete {' '.join(NAMES)}")
    found = role(host, key)
    assert "expected the NVIDIA Container Toolkit" in found["failure"]
    assert installed(host) == []
