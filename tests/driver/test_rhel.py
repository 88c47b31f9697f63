"""A host that looks like Rocky Linux 9, with the real dnf: the right stream, the right stand-ins in order, locked."""

import re
from pathlib import Path

import pytest
from tests.driver.kit import H100, NVSWITCH, Host, module_file
from tests.driver.rpms import DnfRepository

KERNEL = "5.14.0-570.12.1.el9_6.x86_64"
VERSION = "580.95.05-1.el9"
TOOLS = "dnf dnf-plugins-core createrepo-c rpm kmod"


@pytest.fixture(scope="module", autouse=True)
def _rocky(host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The host has become a Rocky Linux, with NVIDIA's repository in stand-ins and nouveau on its GPUs."""
    host.run(
        f"apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends {TOOLS}"
    )
    # Debian's dnf wants to keep each package in a repository of its own.
    host.run("rm /etc/dnf/plugins/local.conf")
    repository(host, tmp_path_factory.mktemp("rpms")).give()
    host.looks_like(ID="rocky", VERSION_ID="9.6", PLATFORM_ID="platform:el9", PRETTY_NAME="Rocky Linux 9.6")
    host.run(
        f'printf \'#!/bin/sh\\n[ "$1" = -r ] && echo {KERNEL} || exec /usr/bin/uname "$@"\\n\' > '
        "/usr/local/bin/uname; chmod +x /usr/local/bin/uname"
    )
    host.has_on_its_bus(H100, H100, NVSWITCH)
    host.has_nouveau()


def repository(host: Host, folder: Path) -> DnfRepository:
    made = DnfRepository(host, folder)
    number, _, release = KERNEL.removesuffix(".x86_64").partition("-")
    made.add("kernel-devel", f"{number}-{release}")
    made.add("kernel-headers", f"{number}-{release}")
    made.add("python3-dnf-plugin-versionlock", "4.3.0-20.el9", arch="noarch")
    made.add("nvidia-container-toolkit", "1.17.8-1")
    for branch in (570, 580):
        version = VERSION.replace("580", str(branch))
        upstream = version.partition("-")[0]
        made.add("nvidia-driver-cuda", version, requires=f"kmod-nvidia-open-dkms = 3:{version}", epoch=3)
        made.add("nvidia-persistenced", version, epoch=3)
        made.add("nvidia-fabric-manager", version)
        module = {f"/lib/modules/{KERNEL}/extra/nvidia.ko": module_file(upstream, "Dual MIT/GPL")}
        made.add("kmod-nvidia-open-dkms", version, files=module, epoch=3)
        names = ["nvidia-driver-cuda-3", "nvidia-persistenced-3", "kmod-nvidia-open-dkms-3", "nvidia-fabric-manager-0"]
        made.stream(f"{branch}-open", *(f"{name}:{version}.x86_64" for name in names))
    return made


def test_the_right_stream_and_packages_in_the_right_order(host: Host) -> None:
    before = host.started()
    found = host.role()
    assert found["failure"] == ""
    assert found["actions"][:4] == [
        "choose the stream nvidia-driver:580-open",
        f"install kernel-devel-{KERNEL} kernel-headers",
        "install kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced",
        "install nvidia-fabric-manager-580.95.05",
    ]
    log = host.run("grep -o 'Installed: .*' /var/log/dnf.rpm.log").splitlines()
    installed = [re.sub(r"-(\d+:)?\d[^-]*-[^-]+$", "", line.partition(" ")[2]) for line in log]
    assert sorted(installed[:2]) == ["kernel-devel", "kernel-headers"]
    assert sorted(installed[2:5]) == ["kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]
    assert installed[5] == "nvidia-fabric-manager"
    assert (
        host.run("rpm --query --queryformat '%{VERSION}' nvidia-driver-cuda nvidia-fabric-manager") == "580.95.05" * 2
    )
    assert host.run(f"modinfo --field version /lib/modules/{KERNEL}/extra/nvidia.ko") == "580.95.05"
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]
    assert host.started() == before


def test_they_are_locked(host: Host) -> None:
    locked = host.run("dnf --quiet versionlock list")
    for name in ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-fabric-manager", "kernel-devel"):
        assert f"{name}-" in locked, locked


def test_a_second_run_changes_nothing(host: Host) -> None:
    found = host.role()
    assert (found["actions"], found["changed"]) == ([], False)
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]


def test_another_stream_and_back(host: Host) -> None:
    options = ("-e", "nvidia_driver_version=570.95.05", "-e", '{"nvidia_driver_downgrade": true}')
    found = host.role(*options, entry="upgrade", register="nvidia_driver_upgraded")
    assert found["failure"] == "", found
    assert found["actions"][:2] == ["let go of the packages that are held", "choose the stream nvidia-driver:570-open"]
    names = "nvidia-driver-cuda kmod-nvidia-open-dkms nvidia-persistenced nvidia-fabric-manager"
    versions = f"rpm --query --queryformat '%{{VERSION}}\\n' {names}"
    assert host.run(versions).split() == ["570.95.05"] * 4
    found = host.role("-e", "nvidia_driver_version=580", entry="upgrade", register="nvidia_driver_upgraded")
    assert found["failure"] == "", found
    assert host.run(versions).split() == ["580.95.05"] * 4
    assert host.run(f"modinfo --field version /lib/modules/{KERNEL}/extra/nvidia.ko") == "580.95.05"
    locked = host.run("dnf --quiet versionlock list")
    assert "nvidia-driver-cuda-3:580.95.05" in locked or "nvidia-driver-cuda-580.95.05" in locked, locked
    assert "570.95.05" not in locked


def test_what_no_stream_has_changes_nothing(host: Host) -> None:
    before = host.run("stat -c '%n %Y' /etc/yum.repos.d /var/lib/rpm; dnf --quiet versionlock list")
    for version in ("590", "580.65.06"):
        options = ("-e", f"nvidia_driver_version={version}")
        found = host.role(*options, entry="upgrade", register="nvidia_driver_upgraded")
        assert "expected" in found["failure"]
    assert host.run("stat -c '%n %Y' /etc/yum.repos.d /var/lib/rpm; dnf --quiet versionlock list") == before
