"""A host that looks like Ubuntu 24.04: the right stand-in packages in the right order, held, and no reboot."""

from pathlib import Path

import pytest
from tests.driver.kit import H100, NVSWITCH, AptRepository, Host, module_file

VERSION = "580.95.05-0ubuntu0.24.04.1"
NAME = "nvidia-driver-580-server-open"


@pytest.fixture(scope="module")
def kernel(host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kernel that runs; the host has become an Ubuntu with an archive of stand-ins and nouveau on its GPUs."""
    running = host.run("uname -r")
    host.run("apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q kmod")
    host.looks_like(ID="ubuntu", VERSION_ID="24.04", VERSION_CODENAME="noble", PRETTY_NAME="Ubuntu 24.04.3 LTS")
    host.has_on_its_bus(H100, H100, NVSWITCH)
    host.has_nouveau()
    archive(tmp_path_factory.mktemp("archive"), running).give(host)
    return running


def archive(folder: Path, running: str) -> AptRepository:
    made = AptRepository(folder)
    for branch in (535, 580, 595):
        version = VERSION.replace("580", str(branch))
        for kind in ("", "-open"):
            made.add(f"nvidia-driver-{branch}-server{kind}", version, f"nvidia-utils-{branch}-server (= {version})")
            made.add(f"nvidia-dkms-{branch}-server{kind}", version)
            modules = f"/lib/modules/{running}/kernel/nvidia-{branch}srv-open/nvidia.ko"
            files = {modules: module_file(f"{branch}.95.05", "Dual MIT/GPL")} if kind == "-open" else {}
            made.add(f"linux-modules-nvidia-{branch}-server{kind}-{running}", version, files=files)
        made.add(f"nvidia-utils-{branch}-server", version)
        made.add(f"nvidia-fabricmanager-{branch}", version)
    made.add("nvidia-container-toolkit", "1.17.8-1")
    return made


def test_nothing_is_changed_in_check_mode(host: Host, kernel: str) -> None:
    found = host.role("--check")
    assert found["failure"] == ""
    assert found["actions"][0] == f"install linux-modules-nvidia-580-server-open-{kernel}"
    assert host.run("dpkg-query --show 'nvidia*' 'linux-modules*'", check=False) == ""


def test_the_right_packages_in_the_right_order(host: Host, kernel: str) -> None:
    before = host.started()
    found = host.role()
    assert found["failure"] == ""
    log = host.run("grep ' install ' /var/log/dpkg.log").splitlines()
    installed = [line.split()[3].partition(":")[0] for line in log if "nvidia" in line]
    assert installed[0] == f"linux-modules-nvidia-580-server-open-{kernel}"
    assert sorted(installed[1:3]) == [NAME, "nvidia-utils-580-server"]
    assert installed[3:] == ["nvidia-fabricmanager-580"]
    assert host.run("dpkg-query --show --showformat '${Version}' nvidia-fabricmanager-580") == VERSION
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]
    assert host.started() == before


def test_they_are_held(host: Host, kernel: str) -> None:
    held = host.run("apt-mark showhold").split()
    assert held == [
        f"linux-modules-nvidia-580-server-open-{kernel}", NAME, "nvidia-fabricmanager-580", "nvidia-utils-580-server",
    ]  # fmt: skip


def test_a_second_run_changes_nothing(host: Host, kernel: str) -> None:
    found = host.role()
    assert found["actions"] == []
    assert found["changed"] is False
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]


def test_another_branch_takes_its_place_in_one_go(host: Host, kernel: str) -> None:
    found = host.role("-e", "nvidia_driver_version=595", entry="upgrade", register="nvidia_driver_upgraded")
    assert found["failure"] == "", found
    seen = found["onprem_llm"]["driver_upgrade"]
    assert (seen["installed"], seen["then"], seen["kind"]) == ("580.95.05", "595.95.05", "open")
    form = "${Package} ${Version}\\n"
    there = host.run(f"dpkg-query --show --showformat '{form}' 'nvidia-*' 'linux-modules-nvidia-*'").splitlines()
    version = VERSION.replace("580", "595")
    assert sorted(line for line in there if line.split()[1:]) == [
        f"linux-modules-nvidia-595-server-open-{kernel} {version}", f"nvidia-driver-595-server-open {version}",
        f"nvidia-fabricmanager-595 {version}", f"nvidia-utils-595-server {version}",
    ]  # fmt: skip
    assert host.run(f"modinfo --field version /lib/modules/{kernel}/kernel/nvidia-595srv-open/nvidia.ko") == "595.95.05"
    assert {"nvidia-driver-595-server-open", "nvidia-fabricmanager-595"} <= set(host.run("apt-mark showhold").split())
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]


def test_and_has_it_then(host: Host, kernel: str) -> None:
    found = host.role("-e", "nvidia_driver_version=595", entry="upgrade", register="nvidia_driver_upgraded")
    assert (found["failure"], found["actions"]) == ("", [])
