"""The root file system of a host of the RHEL family, by dnf --installroot: any machine's dnf 4 will do."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from onprem_llm.errors import OnpremError
from onprem_llm.lab.mirrors import Mirror
from onprem_llm.lab.root_file_systems import carry_out, ensure_tool
from onprem_llm.lab_systems import System

TREES = ("BaseOS", "AppStream")
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-lab"
# What scripts of packages open; dnf makes none of them.
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def repository(system: System, mirror: Mirror) -> dict[str, bytes]:
    """Return the hosts' .repo file and the keys that it names, as files of the recipe."""
    parts = [
        f"[onprem-llm-lab-{tree.lower()}]\nname={system.title} {tree}\n"
        f"baseurl={mirror.main}/{system.suite}/{tree}/$basearch/os/\nenabled=1\ngpgcheck=1\ngpgkey=file://{KEY}\n"
        for tree in TREES
    ]
    key = mirror.key if mirror.key is not None else Path(system.keyring).read_bytes()
    return {"repository/lab.repo": "\n".join(parts).encode(), "repository/key": key}


def make(system: System, mirror: Mirror, files: Mapping[str, bytes], archive: Path) -> None:
    """Write the tar of a minimal system with its base packages. OnpremError."""
    ensure_tool("dnf", ["dnf", "rpm"])
    if os.geteuid() != 0:
        raise OnpremError(f"{system.name}: dnf makes a root file system as root alone", hint="run as root")
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as name:
        folder = Path(name)
        root = folder / "root"
        _devices(root)
        carry_out(_argv(system, files, folder, root), system, mirror, {"HOME": str(folder)})
        _own_repository(root, files)
        subprocess.run(
            ["tar", "--numeric-owner", "--xattrs", "--acls", "-C", str(root), "-cf", str(archive), "."], check=True
        )  # fmt: skip


def _argv(system: System, files: Mapping[str, bytes], folder: Path, root: Path) -> list[str]:
    """Return dnf's command line; the machine's own repositories, plugins and variables have no part in it."""
    places = {"reposdir": folder / "repos", "varsdir": folder / "vars", "cachedir": folder / "cache"}
    for place in places.values():
        place.mkdir()
    (folder / "key").write_bytes(files["repository/key"])
    text = files["repository/lab.repo"].decode().replace(f"file://{KEY}", f"file://{folder}/key")
    (places["reposdir"] / "lab.repo").write_text(text, "utf-8")
    # Debian's rpm keeps its database in the home folder, where no rpm of the hosts looks for it.
    (folder / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n%_db_backend sqlite\n", "utf-8")
    (folder / "dnf.conf").write_text("[main]\n", "utf-8")
    settings = {
        **places, "install_weak_deps": False, "module_platform_id": f"platform:el{system.suite}", "tsflags": "nodocs",
        "logdir": "/var/log", "persistdir": "/var/lib/dnf",
    }  # fmt: skip
    return [
        "dnf", "--assumeyes", "--quiet", f"--config={folder / 'dnf.conf'}", f"--installroot={root}",
        f"--releasever={system.suite}", f"--forcearch={platform.machine()}", "--noplugins",
        *(f"--setopt={key}={value}" for key, value in settings.items()), "install", *system.base,
    ]  # fmt: skip


def _devices(root: Path) -> None:
    (root / "dev").mkdir(parents=True)
    for name, (major, minor) in DEVICES.items():
        path = root / "dev" / name
        os.mknod(path, 0o020666, os.makedev(major, minor))
        path.chmod(0o666)


def _own_repository(root: Path, files: Mapping[str, bytes]) -> None:
    """Have the host know this mirror alone, as hosts of the other family do."""
    folder = root / "etc/yum.repos.d"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.repo"):
        path.unlink()
    (folder / "onprem-llm-lab.repo").write_bytes(files["repository/lab.repo"])
    key = root / KEY.lstrip("/")
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(files["repository/key"])
