"""The role nvidia_container_toolkit on a host with pretended GPUs: stand-in packages, real apt, docker and systemd."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.driver.kit import ROOT, T4, Host
from tests.driver.toolkits import NAMES, mirror

NEW, OLD = "1.18.2", "1.17.8"
# A character device that a container is not given by itself, in the place of a GPU's: /dev/loop-control.
DEVICE = "c 10 237"
BOOT = "#!/bin/sh\numount -R /sys/fs/cgroup\nmount -t cgroup2 cgroup2 /sys/fs/cgroup\nexec /sbin/init\n"
UNITS = "/etc/systemd/system/"
SPEC = "/var/run/cdi/nvidia.yaml"
ANSWER = (
    "{'packages': nvidia_container_toolkit_result, 'cdi': nvidia_container_toolkit_cdi_result | default({}),"
    " 'failure': nvidia_container_toolkit_result.failure}"
)
TINY = """
mkdir -p /srv/tiny/proc /srv/tiny/sys /srv/tiny/dev; cd /srv/tiny
for one in bash sleep; do
    cp --parents --dereference /usr/bin/$one .
    ldd /usr/bin/$one | grep -o '/[^ ]*' | xargs -I{} cp --parents --dereference {} .
done
[ -e bin ] || ln -s usr/bin bin
tar c . | docker import - tiny
"""


def wait(host: Host, script: str, seconds: float = 60) -> str:
    """Return what a script printed once it goes well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = host.run(f"{{ {script}; }} && echo WELL", check=False)
        if found.endswith("WELL"):
            return found.removesuffix("WELL").strip()
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:g} s: {script}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toolkit")


@pytest.fixture(scope="module")
def host(place: Path) -> Iterator[Host]:
    """A host with docker and two pretended GPUs. It has one hierarchy of cgroups, as hosts have today."""
    one = Host(place)
    try:
        one.up("--hosts", "1", "--ready", "--gpus", "2xT4-16GB")
        one.run("sed -i 's/- 1:3$/- 10:237/' /etc/tmpfiles.d/onprem-llm-lab-gpus.conf; rm /etc/cdi/nvidia.yaml")
        one_hierarchy(one)
        one.run("systemctl start docker")
        one.run(TINY)
        drive(one, "580.95.05")
        yield one
    finally:
        if not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            one.down()


def one_hierarchy(host: Host) -> None:
    """Boot it with cgroup 2 alone."""
    init = host.folder / "init"
    init.write_text(BOOT)
    init.chmod(0o755)
    host.send(init, "/usr/lib/onprem-llm-lab/init")
    reboot(host)


def reboot(host: Host) -> None:
    # A host that reboots itself is a container that ended.
    subprocess.run(["docker", "restart", "--time", "10", host.name], check=True, capture_output=True)
    wait(host, "systemctl is-system-running --wait | grep -E 'running|degraded'", 90)
    host.has_on_its_bus(T4, T4)


def drive(host: Host, version: str) -> None:
    """Pretend that another driver runs: its libraries have its version in their names, and those of others are gone."""
    host.run(
        f"rm -f /usr/lib/x86_64-linux-gnu/lib*.so.5[0-9]*; touch /usr/lib/x86_64-linux-gnu/libcuda.so.{version} "
        f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version};"
        f'sed -i \'s/"driver_version": "[^"]*"/"driver_version": "{version}"/\' /etc/onprem-llm-lab/gpus.json'
    )


@pytest.fixture(scope="module")
def key(host: Host, place: Path) -> str:
    """The fingerprint of the mirror's key; the mirror is on the host."""
    found = mirror(place, OLD, NEW)
    host.send(place / "mirror", "/srv/mirror")
    return found


def role(host: Host, key: str, *options: str, **more: Any) -> dict[str, Any]:
    mirrors = {"nvidia_container_toolkit": "file:///srv/mirror"}
    return host.role(
        *options, name="nvidia_container_toolkit", register=ANSWER, nvidia_container_toolkit_package_mirrors=mirrors,
        nvidia_container_toolkit_fingerprints=[key], **more,
    )  # fmt: skip


def uuids(host: Host) -> list[str]:
    return [one["uuid"] for one in json.loads(host.run("cat /etc/onprem-llm-lab/gpus.json"))["gpus"]]


def installed(host: Host) -> str:
    return host.run("dpkg-query --show --showformat '${Package} ${Version}\\n' '*nvidia-container*'", check=False)


def test_another_key_than_nvidias_is_refused(host: Host, key: str) -> None:
    found = role(host, "C95B321B61E88C1809C4F759DDCAE044F796ECB0")
    assert f"found the key {key} at file:///srv/mirror/gpgkey, expected C95B" in found["failure"]
    assert installed(host) == ""
    assert "No such file" in host.run(
        "ls /etc/apt/sources.list.d/onprem-llm-nvidia-container-toolkit.sources 2>&1 || :"
    )


def test_check_mode_changes_nothing(host: Host, key: str) -> None:
    found = role(host, key, "--check")
    assert found["failure"] == ""
    assert found["packages"]["changed"]
    assert installed(host) == ""
    assert host.run(f"ls {SPEC} /etc/docker/daemon.json 2>/dev/null || echo none") == "none"


def test_it_is_installed_and_gives_gpus_by_uuid(host: Host, key: str) -> None:
    host.run(
        'echo \'{"log-level": "warn", "live-restore": true, "features": {"cdi": true}}\' > /etc/docker/daemon.json'
    )
    host.run("systemctl restart docker; docker run --detach --name bystander tiny /usr/bin/sleep 10000")
    engine = host.run("systemctl show --property MainPID docker")
    found = role(host, key)
    assert found["failure"] == "", found
    assert found["cdi"]["failure"] == ""
    assert installed(host).splitlines() == [f"{name} {NEW}-1" for name in NAMES]
    assert host.run("apt-mark showhold").split() == list(NAMES)
    daemon = json.loads(host.run("cat /etc/docker/daemon.json"))
    assert daemon["runtimes"] == {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    assert daemon["log-level"] == "warn"
    # Without a restart of docker, and without anybody's container noticing.
    assert host.run("systemctl show --property MainPID docker") == engine
    assert "nvidia" in json.loads(host.run("docker info --format '{{json .Runtimes}}'"))
    assert host.run("docker inspect --format '{{.State.Running}}' bystander") == "true"
    for one in uuids(host):
        said = host.run(f"docker run --rm --device nvidia.com/gpu={one} tiny /usr/bin/bash -c 'echo /dev/nvidia[0-9]*'")
        assert said == f"/dev/nvidia{uuids(host).index(one)}"
    opened = "exec 3</dev/nvidia0 && [ -e /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05 ] && echo OPEN"
    assert host.run(f"docker run --rm --device nvidia.com/gpu=0 tiny /usr/bin/bash -c '{opened}'") == "OPEN"
    assert host.run("docker run --rm --runtime nvidia tiny /usr/bin/bash -c 'echo RAN'") == "RAN"
    assert host.run("readlink /dev/char/10:237").startswith("/dev/nvidia")


def test_a_second_run_changes_nothing(host: Host, key: str) -> None:
    before = host.run(f"stat --format %Y.%i {SPEC} /etc/docker/daemon.json")
    found = role(host, key)
    assert (found["packages"]["actions"], found["packages"]["changed"], found["cdi"]["changed"]) == ([], False, False)
    assert host.run(f"stat --format %Y.%i {SPEC} /etc/docker/daemon.json") == before
    levels = {one["check"]: one["level"] for one in [*said(found["packages"]), *said(found["cdi"])]}
    assert levels == {"nvidia_container_toolkit": "ok", "cdi": "ok"}


def said(answer: dict[str, Any]) -> list[dict[str, str]]:
    findings: list[dict[str, str]] = answer["onprem_llm"]["findings"]
    return findings


def cgroup(host: Host, container: str) -> str:
    pid = host.run(f"docker inspect --format '{{{{.State.Pid}}}}' {container}")
    return host.run(f"grep ^0:: /proc/{pid}/cgroup | cut -d: -f3")


def opens(host: Host, container: str) -> bool:
    script = f"docker exec {container} /usr/bin/bash -c 'exec 3</dev/nvidia0' 2>&1 && echo OPEN"
    return host.run(script, check=False).endswith("OPEN")


def test_gpus_survive_a_reload_of_systemd(host: Host, key: str) -> None:
    """As NVIDIA/nvidia-container-toolkit#48: lost where the device came behind systemd's back, kept where CDI gave it.

    systemd 252 applies its rules anew at every reload (test_reload.py), 257 when the unit is touched.
    """
    host.send(Path(__file__).with_name("device_programs.py"), "/srv/device_programs.py")
    host.run(f"docker run --detach --name by-cdi --device nvidia.com/gpu={uuids(host)[0]} tiny /usr/bin/sleep 10000")
    # As NVIDIA's hook gives it: a device file in the container, and the rules of its cgroup changed in the kernel.
    host.run("docker run --detach --name by-hook tiny /usr/bin/sleep 10000")
    pid = host.run("docker inspect --format '{{.State.Pid}}' by-hook")
    host.run(f"mknod -m 666 /proc/{pid}/root/dev/nvidia0 {DEVICE}")
    assert not opens(host, "by-hook"), "the host enforces no device cgroup: nothing can be shown"
    host.run(f"python3 /srv/device_programs.py /sys/fs/cgroup{cgroup(host, 'by-hook')} detach")
    assert opens(host, "by-hook")
    assert opens(host, "by-cdi")
    for container in ("by-cdi", "by-hook"):
        host.run(f"systemctl set-property --runtime {Path(cgroup(host, container)).name} CPUWeight=90")
    host.run("systemctl daemon-reload")
    assert not opens(host, "by-hook")
    assert opens(host, "by-cdi")
    host.run("systemctl daemon-reexec; docker update --memory-swappiness 0 by-cdi 2>/dev/null || :")
    assert opens(host, "by-cdi")
    host.run("docker rm --force by-hook by-cdi")


# Nobody watches; what a change has started already (nvidia-smi, put back by a test) is over, nothing half written.
UNWATCHED = (
    "systemctl stop onprem-llm-nvidia-cdi.path onprem-llm-nvidia-cdi-again.service;"
    "/usr/local/libexec/onprem-llm-nvidia-cdi"
)
MISMATCH = """#!/bin/sh
[ ! -e /run/old-module ] || { echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18; }
exec /usr/bin/nvidia-smi.real "$@"
"""


def test_a_new_driver_is_noticed_without_bootstrap(host: Host, key: str, place: Path) -> None:
    """In the order of an upgrade: the packages' files, under the old module; later, with no file, the new module."""
    (place / "mismatch").write_text(MISMATCH)
    host.send(place / "mismatch", "/usr/bin/nvidia-smi.new")
    smi = "/usr/bin/nvidia-smi"
    host.run(f"touch /run/old-module; chmod +x {smi}.new; mv {smi} {smi}.real; mv {smi}.new {smi}")
    drive(host, "580.105.08")
    start = f"docker run --rm --device nvidia.com/gpu={uuids(host)[0]} tiny /usr/bin/bash -c 'echo RAN' 2>&1"
    wait(host, "journalctl --unit onprem-llm-nvidia-cdi-again | grep -q mismatch")
    assert "libcuda.so.580.95.05" in host.run(start, check=False)
    host.run("rm /run/old-module")
    wait(host, f"grep -q libcuda.so.580.105.08 {SPEC}", 90)
    assert host.run(start) == "RAN"
    host.run(f"mv {smi}.real {smi}")


def test_a_specification_that_names_what_is_gone_is_made_anew_by_bootstrap(host: Host, key: str) -> None:
    # One that a person has made by hand is kept current, too: docker reads both.
    host.run(f"{UNWATCHED}; cp {SPEC} /etc/cdi/nvidia.yaml")
    drive(host, "590.44.01")
    found = role(host, key, "--check")
    assert found["cdi"]["changed"], (found["cdi"], host.run(f"cat {SPEC}; journalctl --unit 'onprem-llm-nvidia-cdi*'"))
    assert "names /usr/lib/x86_64-linux-gnu/libcuda.so.580.105.08 and 1 more" in said(found["cdi"])[0]["found"]
    found = role(host, key)
    assert (found["packages"]["changed"], found["cdi"]["changed"], found["cdi"]["failure"]) == (False, True, "")
    for path in (SPEC, "/etc/cdi/nvidia.yaml"):
        assert "libcuda.so.590.44.01" in host.run(f"cat {path}")
    host.run("rm /etc/cdi/nvidia.yaml; systemctl is-active onprem-llm-nvidia-cdi.path")


def test_after_an_upgrade_of_the_driver_it_is_made_anew_without_the_rest_of_bootstrap(host: Host, key: str) -> None:
    host.run(UNWATCHED)
    drive(host, "590.48.01")
    found = host.role(name="nvidia_container_toolkit", entry="refresh", register="nvidia_container_toolkit_cdi_result")
    assert (found["changed"], found["failure"]) == (True, "")
    assert "libcuda.so.590.48.01" in host.run(f"cat {SPEC}")
    host.run("systemctl start onprem-llm-nvidia-cdi.path")


def test_it_is_there_before_docker_starts_containers_at_boot(host: Host, key: str) -> None:
    # docker before 28.2 reads specifications after it has started containers: container_engine's unit mends that.
    for name, path in (("onprem-llm-start-cdi", "/usr/local/libexec/"), ("onprem-llm-start-cdi.service", UNITS)):
        host.send(ROOT / "roles/container_engine/files" / name, path)
    wants = f"{UNITS}docker.service.wants"
    host.run(
        f"mkdir -p {wants}; ln -s {UNITS}onprem-llm-start-cdi.service {wants}; chmod +x /usr/local/libexec/onprem-llm-*"
    )
    given = f"--restart always --device nvidia.com/gpu={uuids(host)[1]}"
    host.run(f"docker run --detach --name at-boot {given} tiny /usr/bin/sleep 10000")
    reboot(host)
    host.run("systemctl start docker")
    assert host.run(f"grep -c {uuids(host)[1]} {SPEC}") == "1"
    wait(host, "[ $(docker inspect --format '{{.State.Running}}' at-boot) = true ]")
    made = "systemctl show --property ExecMainExitTimestampMonotonic --value onprem-llm-nvidia-cdi"
    engine = "systemctl show --property ExecMainStartTimestampMonotonic --value docker"
    assert int(host.run(made)) < int(host.run(engine))


def test_it_goes_when_bootstrap_is_taken_back(host: Host, key: str) -> None:
    host.run("docker rm --force at-boot bystander")
    host.role(name="nvidia_container_toolkit", entry="remove", register="{}")
    host.role(name="container_engine", entry="remove", register="{}")
    assert installed(host) == ""
    assert host.run("apt-mark showhold") == ""
    left = (
        "ls /etc/systemd/system/*/onprem-llm-nvidia* /usr/local/libexec/onprem-llm-nvidia* /etc/udev/rules.d/*onprem*"
    )
    assert host.run(f"ls {SPEC} /etc/apt/*/onprem-llm-nvidia* {left} 2>/dev/null || :") == ""
    assert json.loads(host.run("cat /etc/docker/daemon.json")) == {
        "log-level": "warn", "live-restore": True, "features": {"cdi": True},
    }  # fmt: skip
