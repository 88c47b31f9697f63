"""A host that looks like Rocky Linux 9 and reaches nobody: a driver out of a bundle, by the real dnf, locked."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.dnf.conftest import KERNEL, Mirrors, mirrors
from tests.dnf.test_bundle import TREE, connected
from tests.driver.kit import H100, NVSWITCH, PLAY, ROOT, Host
from tests.driver.test_rhel import TOOLS
from tests.locking.site import Site

from onprem_llm.package_trees import PackageTrees

__all__ = ["connected", "mirrors"]  # fixtures: the mirrors, and a machine with a bundle for such a host


@pytest.fixture(scope="module")
def order(host: Host, connected: Site, mirrors: Mirrors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What bootstrap orders of packages; the host has Rocky's look, nouveau, and its own repositories out of reach."""
    host.run(
        f"apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends {TOOLS}"
    )
    host.run(
        "rm /etc/dnf/plugins/local.conf; mkdir -p /etc/yum.repos.d;"
        "printf '[own]\\nname=own\\nbaseurl=http://198.51.100.7/\\n' > /etc/yum.repos.d/own.repo;"
        f'printf \'#!/bin/sh\\n[ "$1" = -r ] && echo {KERNEL}.x86_64 || exec /usr/bin/uname "$@"\\n\' > '
        "/usr/local/bin/uname; chmod +x /usr/local/bin/uname; ip route del default"
    )
    host.looks_like(ID="rocky", VERSION_ID="9.6", PLATFORM_ID="platform:el9", PRETTY_NAME="Rocky Linux 9.6")
    host.has_on_its_bus(*[H100] * 8, NVSWITCH)
    host.has_nouveau()
    site = tmp_path_factory.mktemp("loaded") / "site"
    words = ["--allowed-signers", connected.folder / "allowed", "--facts", connected.facts]
    argv = ["onprem-llm", "bundle", "load", connected.folder / "bundle", "--to", site, *words]
    subprocess.run(argv, check=True, capture_output=True)
    return PackageTrees(site / "packages").for_host("rocky", "9.6", "x86_64").order("/srv/onprem-llm")


def bootstrapped(host: Host, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do what bootstrap does of it: the repository, then the driver from it alone."""
    repository = {"ansible.builtin.import_role": {"name": "package_repository"}}
    play = [{**PLAY[0], "tasks": [repository]}]
    (folder / "play.json").write_text(json.dumps(play))
    names = {f"package_repository_{name}": value for name, value in order.items()}
    (folder / "vars.json").write_text(json.dumps({**names, "nvidia_driver_package_source": order["sources_file"]}))
    argv = ["ansible-playbook", "-i", host.inventory, folder / "play.json", "-e", f"@{folder}/vars.json"]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    return host.role("-e", f"@{folder}/vars.json")


def test_the_driver_comes_from_the_bundle_alone(host: Host, order: dict[str, Any], tmp_path: Path) -> None:
    assert TREE in order["source"]
    found = bootstrapped(host, order, tmp_path)
    assert found["failure"] == ""
    assert found["actions"][:3] == [
        f"install kernel-devel-{KERNEL}.x86_64 kernel-headers",
        "install kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced",
        "install nvidia-fabric-manager-580.95.05",
    ]
    versions = host.run("rpm --query --queryformat '%{VERSION} ' nvidia-driver-cuda nvidia-fabric-manager")
    assert versions == "580.95.05 580.95.05"
    assert host.run(f"modinfo --field version /lib/modules/{KERNEL}.x86_64/extra/nvidia.ko") == "580.95.05"
    assert host.run("rpm --query --queryformat '%{RELEASE}' kernel-devel") == KERNEL.partition("-")[2]
    assert "kmod-nvidia-open-dkms-" in host.run("dnf --quiet --disablerepo='*' versionlock list")


def test_a_second_run_changes_nothing(host: Host, order: dict[str, Any], tmp_path: Path) -> None:
    found = bootstrapped(host, order, tmp_path)
    assert (found["actions"], found["changed"]) == ([], False)
