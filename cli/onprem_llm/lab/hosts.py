"""One rehearsal host: a container that boots systemd and runs sshd."""

import shlex
import time

from onprem_llm.errors import OnpremError
from onprem_llm.lab import engine
from onprem_llm.lab.gpu import stand_in
from onprem_llm.lab.state import USER, Host, Lab

BOOT_TIMEOUT_S = 90

# What a container needs to boot systemd and to run a docker engine of its own. Not --privileged: that asks for every
# capability, and fails on machines that lack one (SYS_RESOURCE is the usual one; a host does without).
PRIVILEGES = (
    "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
    "--security-opt", "seccomp=unconfined",
    "--security-opt", "apparmor=unconfined",
    "--security-opt", "systempaths=unconfined",
    "--device-cgroup-rule", "a *:* rwm",
    "--cgroupns", "private",
)  # fmt: skip

# vLLM's workers talk through /dev/shm, and a container that uses the host's IPC uses the host's /dev/shm.
# (/run and /tmp are systemd's to mount, as on any host.)
FILESYSTEMS = ("--shm-size", "4g")

# Folders on a real file system: an overlay cannot lie on the container's own, and weights should not pass through one.
VOLUMES = {"docker": "/var/lib/docker", "srv": "/srv"}


def volume_names(host: str) -> dict[str, str]:
    """Return volume name → mount point."""
    return {f"onprem-llm-lab-{host}-{name}": path for name, path in VOLUMES.items()}


def create(lab: Lab, host: Host, image: str) -> None:
    """Make the container, without starting it."""
    label = ["--label", f"{engine.LABEL}={lab.name}"]
    mounts: list[str] = []
    for volume, path in volume_names(host.name).items():
        engine.docker("volume", "create", *label, volume)
        mounts += ["--volume", f"{volume}:{path}"]
    memory = ["--memory", lab.memory] if lab.memory else []
    engine.docker(
        "create", "--name", host.name, "--hostname", host.name, *label,
        "--network", lab.network, "--ip", host.address,
        "--stop-timeout", "30", *PRIVILEGES, *FILESYSTEMS, *memory, *mounts, image,
    )  # fmt: skip


def start(host: Host) -> None:
    """Switch the host on."""
    engine.docker("start", host.name)


def furnish(host: Host, public_key: str, gpus: stand_in.GpuSet | None, driver: str) -> None:
    """Let the lab's key in and give the host its GPUs; the host must run. Safe to repeat."""
    files = [
        stand_in.File(f"/home/{USER}/.ssh/authorized_keys", f"{public_key}\n", 0o644),
        *stand_in.host_files(host.name, gpus, driver),
    ]
    for file in files:
        path = shlex.quote(file.path)
        _as_root(
            host,
            ["sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path} && chmod {file.mode:04o} {path}'],
            stdin=file.text,
        )
    if gpus is not None:
        _as_root(host, ["systemd-tmpfiles", "--create", stand_in.TMPFILES_PATH])


def is_running(host: Host) -> bool:
    """Return whether the host is switched on."""
    return _state(host) == "running"


def _state(host: Host) -> str:
    found = engine.inspect("container", host.name)
    if found is None:
        return "absent"
    state = found["State"]
    return str(state["Status"]) if isinstance(state, dict) else "unknown"


def wait_booted(host: Host) -> None:
    """Wait until systemd has started everything and sshd's keys are there; OnpremError says what did not start."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        if not is_running(host):
            raise OnpremError(
                f"host {host.name}: its container stopped while it booted",
                details=engine.docker("logs", "--tail", "15", host.name),
                hint=f"docker start --attach {host.name} shows why",
            )
        done = engine.exec_root(host.name, ["systemctl", "is-system-running", "--wait"])
        if done.stdout.strip() == "running":
            return
        if done.stdout.strip() == "degraded":
            failed = engine.exec_root(host.name, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout
            # Somebody's own unit on a host that is in use is not the boot's fault.
            if "ssh.service" not in failed:
                return
            raise OnpremError(f"host {host.name}: sshd does not run", details=failed.strip())
        time.sleep(0.5)
    raise OnpremError(
        f"host {host.name}: systemd has not finished booting after {BOOT_TIMEOUT_S} s",
        hint=f"docker exec {host.name} systemctl list-jobs",
    )


def public_keys(host: Host) -> list[str]:
    """Return the host's own public ssh keys, read through the engine: nothing is trusted on first sight."""
    text = _as_root(host, ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"])
    return [" ".join(line.split()[:2]) for line in text.splitlines()]


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


def _as_root(host: Host, argv: list[str], *, stdin: str | None = None) -> str:
    done = engine.exec_root(host.name, argv, stdin=stdin)
    if done.returncode != 0:
        raise OnpremError(f"host {host.name}: {argv[0]} failed", details=done.stderr.strip())
    return done.stdout
