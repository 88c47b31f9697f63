"""NVIDIA/nvidia-container-toolkit#48 as it was found, on Debian 12: its systemd 252 applies its rules at every reload.

Debian 12's docker (20.10) has no CDI yet: `--device` puts the same into a container's description as CDI does. The
device is /dev/loop-control, which runc gives to nobody, in the place of a GPU's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driver.kit import Host
from tests.driver.test_toolkit import DEVICE, TINY, cgroup, one_hierarchy, opens


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with Debian 12 and its docker, with cgroup 2 as Debian 12 has it."""
    one = Host(tmp_path_factory.mktemp("reload"))
    try:
        one.up("--hosts", "1", "--os", "debian-12")
        one_hierarchy(one)
        install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends"
        one.run(f"apt-get update -q; {install} docker.io")
        one.run(f"{TINY}\nmknod -m 666 /dev/nvidia0 {DEVICE}")
        yield one
    finally:
        if not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            one.down()


def test_a_device_that_systemd_was_told_of_stays_and_another_is_lost(host: Host) -> None:
    host.send(Path(__file__).with_name("device_programs.py"), "/srv/device_programs.py")
    host.run("docker run --detach --name told --device /dev/nvidia0 tiny /usr/bin/sleep 10000")
    host.run("docker run --detach --name by-hook tiny /usr/bin/sleep 10000")
    pid = host.run("docker inspect --format '{{.State.Pid}}' by-hook")
    host.run(f"mknod -m 666 /proc/{pid}/root/dev/nvidia0 {DEVICE}")
    assert not opens(host, "by-hook"), "the host enforces no device cgroup: nothing can be shown"
    host.run(f"python3 /srv/device_programs.py /sys/fs/cgroup{cgroup(host, 'by-hook')} detach")
    assert (opens(host, "told"), opens(host, "by-hook")) == (True, True)
    host.run("systemctl daemon-reload")
    assert (opens(host, "told"), opens(host, "by-hook")) == (True, False)
