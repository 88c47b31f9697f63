"""One rehearsal host: a container that boots systemd and runs sshd."""

import re
import time
from pathlib import Path

from docker.types import EndpointConfig

from onprem_llm.errors import OnpremError
from onprem_llm.lab import engine
from onprem_llm.lab.gpu import stand_in
from onprem_llm.lab.state import USER, Host, Lab
from onprem_llm.lab_systems import SYSTEMS

BOOT_TIMEOUT_S = 90
FEW_INSTANCES = 512
STOP_TIMEOUT_S = 30
KEYS_TIMEOUT_S = 20
END = "end-of-keys"


def volume_names(host: str, system: str) -> dict[str, str]:
    """Return volume name → mount point."""
    return {f"onprem-llm-lab-{host}-{path.rpartition('/')[2]}": path for path in SYSTEMS[system].volumes}


def create(lab: Lab, host: Host, image: str) -> None:
    """Make the container, without starting it."""
    label = {engine.LABEL: lab.name}
    volumes = volume_names(host.name, lab.os)
    for volume in volumes:
        engine.client().volumes.create(volume, labels=label)
    # The SDK's lower half: its upper half has no stop_timeout.
    api = engine.client().api
    endpoint = EndpointConfig(api.api_version, ipv4_address=host.address)
    api.create_container(
        image,
        name=host.name,
        hostname=host.hostname or host.name,
        labels=label,
        stop_timeout=STOP_TIMEOUT_S,
        host_config=_host_config(lab, [f"{volume}:{path}" for volume, path in volumes.items()]),
        networking_config={"EndpointsConfig": {lab.network: endpoint}},
    )


def _host_config(lab: Lab, binds: list[str]) -> dict[str, object]:
    """Return what a container needs to boot systemd and to run a docker engine of its own.

    Not `privileged`: that asks for every capability, and fails on machines that lack one (SYS_RESOURCE is the usual
    one; a host does without). /run and /tmp are systemd's to mount, as on any host.
    """
    config = engine.client().api.create_host_config(
        binds=binds,
        network_mode=lab.network,
        mem_limit=lab.memory,
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        device_cgroup_rules=["a *:* rwm"],
        cgroupns="private",
        # vLLM's workers talk through /dev/shm, and a container that uses the host's IPC uses the host's /dev/shm.
        shm_size="4g",
    )
    # What `docker run --security-opt systempaths=unconfined` sends; the SDK has no word for it.
    return {**config, "MaskedPaths": [], "ReadonlyPaths": []}


def start(host: Host) -> None:
    """Switch the host on."""
    engine.client().api.start(host.name)


def furnish(host: Host, public_key: str, gpus: stand_in.GpuSet | None, driver: str) -> None:
    """Let the lab's key in and give the host its GPUs; the host must run. Safe to repeat."""
    key = stand_in.File(f"/home/{USER}/.ssh/authorized_keys", f"{public_key}\n")
    engine.put(host.name, [key, *stand_in.host_files(host.name, gpus, driver)])
    if gpus is not None:
        _as_root(host, ["systemd-tmpfiles", "--create", stand_in.TMPFILES_PATH])


def is_running(host: Host) -> bool:
    """Return whether the host is switched on."""
    return _state(host) == "running"


def _state(host: Host) -> str:
    found = engine.find(host.name)
    return found.status if found else "absent"


def wait_booted(host: Host) -> None:
    """Wait until systemd has started everything and sshd's keys are there; OnpremError says what did not start."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        if not is_running(host):
            raise OnpremError(
                f"host {host.name}: its container stopped while it booted",
                details=engine.client().api.logs(host.name, tail=15).decode(errors="replace"),
                hint=_why_not_booted(host),
            )
        done = engine.exec_root(host.name, ["systemctl", "is-system-running", "--wait"])
        if done.stdout.strip() == "running":
            return
        if done.stdout.strip() == "degraded":
            failed = engine.exec_root(host.name, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout
            # Somebody's own unit on a host that is in use is not the boot's fault.
            if not re.search(r"^sshd?\.service", failed, re.MULTILINE):
                return
            raise OnpremError(f"host {host.name}: sshd does not run", details=failed.strip())
        time.sleep(0.5)
    raise OnpremError(
        f"host {host.name}: systemd has not finished booting after {BOOT_TIMEOUT_S} s",
        hint=f"docker exec {host.name} systemctl list-jobs",
    )


def _why_not_booted(host: Host, limit: Path = Path("/proc/sys/fs/inotify/max_user_instances")) -> str:
    """Say what to do. systemd without an inotify instance ends at once, and says nothing."""
    try:
        instances = int(limit.read_text("ascii"))
    except (OSError, ValueError):
        instances = FEW_INSTANCES
    attach = f"docker start --attach {host.name} shows why"
    if instances >= FEW_INSTANCES:
        return attach
    return (
        f"if it says nothing: all hosts share this machine's {instances} inotify instances, and ten want them all; "
        f"as root: sysctl -w fs.inotify.max_user_instances=1024. Otherwise {attach}"
    )


def public_keys(host: Host) -> list[str]:
    """Return the host's own public ssh keys, read through the engine: nothing is trusted on first sight.

    A busy docker may lose the end, or all, of what a short command says: what is not whole is read again.
    """
    deadline = time.monotonic() + KEYS_TIMEOUT_S
    while True:
        text = _as_root(host, ["sh", "-c", f"cat /etc/ssh/ssh_host_*_key.pub; echo {END}"])
        lines = text.splitlines()
        keys = [" ".join(line.split()[:2]) for line in lines[:-1]]
        if lines[-1:] == [END] and any(key.startswith("ssh-ed25519 ") for key in keys):
            return keys
        if time.monotonic() >= deadline:
            raise OnpremError(
                f"host {host.name}: /etc/ssh has no ed25519 host key: found {text.strip() or 'nothing'}",
                hint=f"docker exec {host.name} systemctl status onprem-llm-lab-host-keys ssh",
            )
        time.sleep(0.5)


def describe(host: Host) -> dict[str, object]:
    """Return the host's state for `lab status`."""
    state = _state(host)
    systemd = docker = None
    if state == "running":
        systemd = engine.exec_root(host.name, ["systemctl", "is-system-running"]).stdout.strip() or None
        found = engine.exec_root(host.name, ["docker", "version", "--format", "{{.Server.Version}}"])
        docker = found.stdout.strip() if found.returncode == 0 else None
    return {
        "host": host.name, "address": host.address, "state": state, "systemd": systemd, "docker": docker,
        "gpus": host.gpus,
    }  # fmt: skip


def _as_root(host: Host, argv: list[str]) -> str:
    done = engine.exec_root(host.name, argv)
    if done.returncode != 0:
        raise OnpremError(f"host {host.name}: {argv[0]} failed", details=done.stderr.strip())
    return done.stdout
