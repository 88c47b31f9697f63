"""Debian's own non-free driver, really installed and built by DKMS for Debian's kernel, by the command line."""

import json
import subprocess

import pytest
from tests.driver.kit import H100, Host


@pytest.fixture(scope="module", autouse=True)
def _with_a_kernel(host: Host) -> None:
    """Debian's kernel and its headers are there; the one that runs is the machine's, whatever that is."""
    host.run(
        "apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends "
        "linux-image-amd64 linux-headers-amd64 zstd"
    )
    host.has_on_its_bus(H100, H100)
    # Debian has no NVIDIA Container Toolkit: test_toolkit.py is about that.
    (host.folder / "group_vars").mkdir()
    settings = "onprem_llm_site: {nvidia_container_toolkit: {install: false}}\n"
    (host.folder / "group_vars/all.yml").write_text(settings)


def bootstrap(host: Host) -> dict:
    argv = ["onprem-llm", "bootstrap", str(host.inventory), "--yes", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict = json.loads(done.stdout)
    return document


def kernel(host: Host) -> str:
    return host.run("ls /lib/modules | grep deb13 | sort -V | tail -n 1")


def test_the_driver_is_installed_built_and_held(host: Host) -> None:
    before = host.started()
    found = bootstrap(host)
    findings = {one["check"]: one for one in found["hosts"][host.name]["findings"] if one["role"] == "nvidia_driver"}
    assert findings["nvidia_driver"]["level"] == "ok", findings
    version = host.run("dpkg-query --show --showformat '${source:Upstream-Version}' nvidia-kernel-dkms")
    assert f"driver {version} (proprietary modules) for 2 GPU(s)" in findings["nvidia_driver"]["found"]
    module = f"/lib/modules/{kernel(host)}/updates/dkms/nvidia-current.ko.xz"
    assert host.run(f"modinfo --field version {module}") == version
    held = host.run("apt-mark showhold").split()
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "linux-image-amd64"} <= set(held)
    assert "blacklist nouveau" in host.run("cat /etc/modprobe.d/onprem-llm-nouveau.conf")
    assert host.run("systemctl is-enabled nvidia-persistenced") == "enabled"
    # The machine's kernel runs on, and no one said that a host may be rebooted.
    assert kernel(host) in found["reboot"][host.name][0]
    assert host.started() == before


def test_a_second_run_changes_nothing(host: Host) -> None:
    module = f"/lib/modules/{kernel(host)}/updates/dkms/nvidia-current.ko.xz"
    before = host.run(f"stat -c %Y {module} /etc/modprobe.d /etc/apt/sources.list.d /var/lib/dpkg/status")
    assert bootstrap(host)["hosts"][host.name]["changed"] == 0
    assert host.run(f"stat -c %Y {module} /etc/modprobe.d /etc/apt/sources.list.d /var/lib/dpkg/status") == before


def test_an_upgrade_of_the_system_does_not_touch_it(host: Host) -> None:
    said = host.run("DEBIAN_FRONTEND=noninteractive apt-get upgrade --simulate -q")
    assert not [line for line in said.splitlines() if line.startswith("Inst ") and "nvidia" in line]


def test_uninstall_takes_it_back(host: Host) -> None:
    argv = ["onprem-llm", "uninstall", str(host.inventory), "--yes"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.run("apt-mark showhold") == ""
    assert (
        host.run("dpkg-query --show --showformat '${db:Status-Abbrev}${Package} ' 'nvidia*' | grep ^ii", check=False)
        == ""
    )
    assert host.run("find /lib/modules -name 'nvidia-current*'") == ""
    assert host.run("ls /etc/modprobe.d/onprem-llm-nouveau.conf", check=False) == ""
