"""NVIDIA's installer as a file: sent to a host that is going to run it, called with all it needs, once."""

from pathlib import Path

import pytest
from tests.driver.kit import T4, AptRepository, Host, module_file

NAME = "NVIDIA-Linux-x86_64-580.95.05.run"
# Writes down how it was called, and brings a module that says its version.
INSTALLER = """\
#!/bin/sh
echo "$@" >> /root/called
mkdir -p /lib/modules/$(uname -r)/updates/dkms
cp /srv/standin/module /lib/modules/$(uname -r)/updates/dkms/nvidia.ko
"""


@pytest.fixture(scope="module")
def installer(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, and a host that looks like Ubuntu with what NVIDIA's installer builds with, in stand-ins."""
    running = host.run("uname -r")
    host.run("apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q kmod")
    made = AptRepository(tmp_path_factory.mktemp("archive"))
    made.add(f"linux-headers-{running}", "1.0", files={f"/lib/modules/{running}/build/Makefile": b""})
    for name in ("dkms", "gcc", "make", "libc6-dev"):
        made.add(name, "99.0")
    (made.folder / "module").write_bytes(module_file("580.95.05", "Dual MIT/GPL"))
    host.looks_like(ID="ubuntu", VERSION_ID="24.04", VERSION_CODENAME="noble")
    made.give(host)
    host.has_nouveau()
    path = tmp_path_factory.mktemp("site") / NAME
    path.write_text(INSTALLER)
    return path


def test_a_host_without_gpus_does_not_get_it(host: Host, installer: Path) -> None:
    host.has_on_its_bus()
    assert host.role("-e", f"nvidia_driver_run_file={installer}")["actions"] == []
    assert host.run("ls /var/lib/onprem-llm/drivers", check=False) == ""


def test_it_is_sent_and_run_once(host: Host, installer: Path) -> None:
    host.run("umount /sys/bus/pci/devices")
    host.has_on_its_bus(T4)
    found = host.role("-e", f"nvidia_driver_run_file={installer}")
    assert found["failure"] == ""
    running = host.run("uname -r")
    assert found["actions"][:3] == [
        f"install linux-headers-{running}",
        "install dkms gcc make libc6-dev",
        f"run /var/lib/onprem-llm/drivers/{NAME} for {running}",
    ]
    assert host.run("cat /root/called") == (
        "--silent --no-questions --ui=none --dkms --no-x-check --no-nouveau-check "
        f"--kernel-name={running} --kernel-module-type=open"
    )
    assert found["onprem_llm"]["reboot"] == ["the driver nouveau has the GPUs"]
    again = host.role("-e", f"nvidia_driver_run_file={installer}")
    assert (again["actions"], again["changed"]) == ([], False)
    assert len(host.run("cat /root/called").splitlines()) == 1
