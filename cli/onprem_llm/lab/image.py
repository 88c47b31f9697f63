"""The host image: Debian 13 by mmdebstrap, made once for each digest of its recipe."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from docker.errors import ImageNotFound

from onprem_llm.errors import OnpremError, UsageError
from onprem_llm.lab import engine, machine, state

OS_NAMES = ("debian-13",)
REPOSITORY = "onprem-llm/lab-host"
BASE_REPOSITORY = "onprem-llm/lab-base"

# A small server's packages. python3-apt: a standard Debian has it, and Ansible's apt module wants it.
BASE_PACKAGES = (
    "ca-certificates", "curl", "dbus", "iproute2", "iputils-ping", "kmod", "openssh-server", "procps", "python3",
    "python3-apt", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip

# What bootstrap installs from the distribution (roles/container_engine, on Debian 13); a ready host has them and
# nothing else of bootstrap.
READY_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "nftables", "openssl", "rsync")


def recipe() -> dict[str, bytes]:
    """Return path → content of everything that decides what the image is."""
    root = resources.files(__package__).joinpath("recipe")
    with resources.as_file(root) as folder:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files |= {f"machine/{path}": content for path, content in machine.shared_files().items()}
    files["sources"] = machine.sources_text(machine.find_mirror()).encode()
    files["packages"] = "\n".join([*BASE_PACKAGES, "", *READY_PACKAGES]).encode()
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """Return 12 hex digits that change with any path or content."""
    seen = hashlib.sha256()
    for path in sorted(files):
        seen.update(f"{path}\0{len(files[path])}\0".encode())
        seen.update(files[path])
    return seen.hexdigest()[:12]


def tag(os_name: str, ready: bool, files: Mapping[str, bytes]) -> str:
    """Return the image's name, e.g. onprem-llm/lab-host:debian-13-0123456789ab-ready."""
    return f"{REPOSITORY}:{os_name}-{digest(files)}{'-ready' if ready else ''}"


def ensure(os_name: str, ready: bool, say: Callable[[str], None]) -> str:
    """Return the image's name; it is built if the engine has none (about half a minute)."""
    if os_name not in OS_NAMES:
        raise UsageError(f"--os {os_name}: not known", hint="known: " + ", ".join(OS_NAMES))
    files = recipe()
    wanted = tag(os_name, ready, files)
    with state.alone("building"):  # labs that come up side by side want the same one
        _ensure(os_name, wanted, ready, files, say)
    return wanted


def _ensure(os_name: str, wanted: str, ready: bool, files: Mapping[str, bytes], say: Callable[[str], None]) -> None:
    if _exists(wanted):
        return
    base_tag = f"{os_name}-{digest({name: files[name] for name in ('sources', 'packages')})}"
    base = f"{BASE_REPOSITORY}:{base_tag}"
    if not _exists(base):
        say(f"building the host image: {os_name} by mmdebstrap")
        _make_base(base_tag, files["sources"].decode())
    say(f"building the host image: {wanted}")
    _build(wanted, base, "ready" if ready else "bare", files)


def _exists(name: str) -> bool:
    try:
        engine.client().images.get(name)
    except ImageNotFound:
        return False
    return True


@engine.explained
def remove_all() -> list[str]:
    """Remove the host images and return their names; one that another lab still uses stays."""
    client = engine.client()
    ours = [name for kind in (REPOSITORY, BASE_REPOSITORY) for one in client.images.list(kind) for name in one.tags]
    in_use = {one.attrs["Config"]["Image"] for one in client.containers.list(all=True, ignore_removed=True)}
    gone = sorted({name for name in ours if name.partition(":")[0] in (REPOSITORY, BASE_REPOSITORY)} - in_use)
    for name in gone:
        client.images.remove(name)
    return gone


def _make_base(tag: str, sources: str) -> None:
    _ensure_mmdebstrap()
    settings = [f"--aptopt={line.rstrip(';')}" for line in _apt_lines()]
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as folder:
        listing, archive = Path(folder, "lab.sources"), Path(folder, "base.tar")
        listing.write_text(sources, "utf-8")
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", *settings]
        done = subprocess.run(
            [*command, machine.SUITE, str(archive), str(listing)],
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        if done.returncode != 0:
            raise OnpremError(
                f"mmdebstrap could not make {BASE_REPOSITORY}:{tag}",
                details="\n".join(done.stderr.strip().splitlines()[-8:]),
                hint="run as root" if os.geteuid() else "see whether apt-get update works on this machine",
            )
        engine.client().api.import_image_from_file(str(archive), BASE_REPOSITORY, tag)


def _apt_lines() -> list[str]:
    text = machine.shared_files().get("etc/apt/apt.conf.d/80onprem-llm-lab", b"").decode()
    return text.splitlines()


def _ensure_mmdebstrap() -> None:
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise OnpremError("there is no mmdebstrap on this machine", hint="as root: apt-get install mmdebstrap")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update"], ["install", "--yes", "--no-install-recommends", "mmdebstrap"]):
        done = subprocess.run(
            ["apt-get", *argv], capture_output=True, text=True, check=False, timeout=600, env=environment
        )
        if done.returncode != 0:
            raise OnpremError(
                f"apt-get {argv[0]} failed", details=done.stderr.strip(), hint="mend it, or install mmdebstrap"
            )


def _build(name: str, base: str, target: str, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as folder:
        Path(folder, "machine").mkdir()
        for path, content in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        # tempfile and umask make private folders; the image's own must be as on any host.
        for entry in Path(folder).rglob("*"):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        arguments = {"BASE": base, "READY_PACKAGES": " ".join(READY_PACKAGES)}
        engine.client().images.build(path=folder, tag=name, target=target, buildargs=arguments, rm=True)
