"""Every package that bootstrap installs on hosts of the RHEL family, with its whole closure."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onprem_llm.errors import InvalidError
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.dnf_root import DnfRoot, opened
from onprem_llm.locking.driver_packages import GpuHost, stream_groups
from onprem_llm.locking.repositories import system_of
from onprem_llm.locking.role_code import defaults, module_utils
from onprem_llm.locking.toolkit_packages import by_dnf
from onprem_llm.spec.lock import LockedPackage, LockedPackages
from onprem_llm.spec.site import NvidiaContainerToolkit, NvidiaDriver

if TYPE_CHECKING:
    from onprem_llm.locking.packages import Release

ROLE = "container_engine"
HINT = "name a mirror of docker-ce's repository: --package-mirror docker=URL"


def resolve(
    release: "Release",
    mirrors: Mapping[str, str],
    keys: Mapping[str, str],
    driver: NvidiaDriver,
    toolkit: NvidiaContainerToolkit,
) -> tuple[LockedPackages, tuple[str, ...]]:
    """Return the closure, and notes about what no mirror has."""
    with opened(release.system, mirrors, keys) as root:
        notes: tuple[str, ...] = ()
        groups = [_engine(root, release)]
        if release.gpus and driver.install:
            drivers, notes = _drivers(root, release.gpus, driver)
            names = [str(name) for name in groups[0]["install"]]
            groups += [{**one, "install": [*names, *one["install"]]} for one in drivers]
        names, said = by_dnf(release.gpus, toolkit, lambda names: root.look(names)["offered"])
        groups += [{**groups[0], "install": [*groups[0]["install"], *names]}] if names else []
        notes = (*notes, *said)
        files = [_package(one) for one in root.resolve(groups)]
    locked = LockedPackages(
        os=release.os, release=release.release, codename=release.codename, architecture=release.architecture,
        kernels=release.kernels, files=tuple(sorted(files, key=lambda one: one.filename)),
    )  # fmt: skip
    return locked, notes


def fetch(
    locked: LockedPackages, files: Sequence[LockedPackage], mirrors: Mapping[str, str], keys: Mapping[str, str],
    blobs: Blobs,
) -> None:  # fmt: skip
    """Bring packages by name and version; a version that the mirror no longer has is an InvalidError."""
    exact = [f"{one.name}-{one.version}.{one.architecture}" for one in files]
    place = tempfile.TemporaryDirectory(dir=blobs.folder, prefix=".packages-")
    with opened(system_of(locked), mirrors, keys) as root, place as folder:
        for file in root.download(exact, Path(folder), fresh=True):
            blobs.take(file)


def _engine(root: DnfRoot, release: "Release") -> dict[str, Any]:
    """Return docker-ce and what is installed beside it; on hosts with GPUs what holds packages, too."""
    extra = [str(name) for name in defaults(ROLE)["container_engine_extra_packages"]]  # type: ignore[attr-defined]
    names = [*module_utils(ROLE, "container_engine_apt").DOCKER_CE, *extra]
    if release.gpus:
        names.append(module_utils("nvidia_driver", "nvidia_driver_dnf").LOCK_PLUGIN)
    offered = root.look(names, fresh=True)["offered"]
    absent = [name for name in names if name not in offered]
    if absent:
        raise InvalidError(f"{root.name}: found no {', '.join(absent)} in its mirrors, expected them", hint=HINT)
    return {"install": names, "stream": None}


def _drivers(
    root: DnfRoot, hosts: Sequence[GpuHost], driver: NvidiaDriver
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the packages of each kind of host with the stream that they come from."""
    kernels = sorted({kernel for host in hosts for kernel in (host.running, host.newest)})
    names = [f"kernel-devel{kind}-{kernel}" for kernel in kernels for kind in ("", "-matched")]
    said = root.look(names)
    groups, notes = stream_groups(
        {"os": root.system.os, "version": root.system.release, "architecture": root.system.architecture},
        hosts, driver, {**{name: "" for name in names if name in said["offered"]}, **said["streams"]},
    )  # fmt: skip
    matched = [name for name in names if "-matched-" in name and name in said["offered"]]
    # NVIDIA's dkms wants headers that match the kernel: without these it would bring a newer kernel.
    return [{**one, "install": [*one["install"], *matched]} for one in groups], notes


def _package(one: Mapping[str, Any]) -> LockedPackage:
    return LockedPackage(
        name=one["name"], version=one["version"], architecture=one["arch"], filename=one["file"], size=one["size"],
        sha256=one["sha256"],
    )  # fmt: skip
